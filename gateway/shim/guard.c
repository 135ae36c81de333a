#include "gateway/shim/guard.h"

#include "gateway/shim/shim_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define GUARD_MS  5000 /* between two looks */
#define UNTIL_LEN 17

/* When all ends, in milliseconds of this machine's time awake. */
static int64_t read_until(int fd)
{
	char text[UNTIL_LEN] = "";
	(void)!pread(fd, text, UNTIL_LEN - 1, 0);
	return (int64_t)strtoull(text, NULL, 16);
}

bool guard_tell(int until, unsigned long lasts_s)
{
	char text[UNTIL_LEN];
	shim_put_hex(text, (uint64_t)(shim_now_ms() + (int64_t)lasts_s * 1000));
	text[UNTIL_LEN - 1] = '\n';
	return pwrite(until, text, sizeof text, 0) == (ssize_t)sizeof text;
}

/* Another file of that name has a guard of its own. */
static bool is_replaced(int folder, int fd)
{
	struct stat here, there;
	return fstat(fd, &here) == 0 && fstatat(folder, RECORD_UNTIL, &there, AT_SYMLINK_NOFOLLOW) == 0 && here.st_ino != there.st_ino;
}

/* Of what keeps a descriptor somebody may wait for the end. */
static void keep_only(int folder, int fd)
{
	unsigned low = (unsigned)(folder < fd ? folder : fd), high = (unsigned)(folder < fd ? fd : folder);
	if (low > 0)
		syscall(SYS_close_range, 0, low - 1, 0);
	if (high > low + 1)
		syscall(SYS_close_range, low + 1, high - 1, 0);
	syscall(SYS_close_range, high + 1, UINT_MAX, 0);
}

static _Noreturn void guard(int folder, int fd)
{
	keep_only(folder, fd);
	setsid();
	for (;;) {
		for (int64_t left_ms; (left_ms = read_until(fd) - shim_now_ms()) > 0;)
			poll(NULL, 0, left_ms < GUARD_MS ? (int)left_ms : GUARD_MS);
		/* On any other machine there is more than what a session left. */
		if (is_replaced(folder, fd) || access(RECORD_INSIDE, F_OK) != 0)
			_exit(0);
		/* A command that has begun meanwhile relies on this guard. */
		if (read_until(fd) <= shim_now_ms())
			break;
	}
	kill(-1, SIGKILL);
	_exit(0);
}

static int open_until(int folder)
{
	return openat(folder, RECORD_UNTIL, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
}

/* There is one guard at a time, whose file is locked. */
int guard_say(unsigned long lasts_s, int folder)
{
	int fd = open_until(folder);
	if (fd < 0)
		return -1;
	if (guard_tell(fd, lasts_s) && flock(fd, LOCK_EX | LOCK_NB) == 0)
		return fd;
	close(fd);
	return -1;
}

/* Nothing is said until there is a command; without one it ends with the one that waits, whose end of the pipe is closed then. */
static _Noreturn void guard_ahead(int folder, int fd, int waiting)
{
	struct pollfd polls = {STDIN_FILENO, 0, 0};
	setsid();
	/* In place of the streams: it keeps nothing else. */
	if (dup2(waiting, STDIN_FILENO) < 0 || dup2(folder, STDOUT_FILENO) < 0 || dup2(fd, STDERR_FILENO) < 0)
		_exit(EXIT_SETUP);
	syscall(SYS_close_range, STDERR_FILENO + 1, UINT_MAX, 0);
	while (!read_until(STDERR_FILENO))
		if (poll(&polls, 1, GUARD_MS) > 0 && !read_until(STDERR_FILENO))
			_exit(0);
	guard(STDOUT_FILENO, STDERR_FILENO);
}

int guard_start_ahead(int folder)
{
	sigset_t before;
	int ends[2], fd = open_until(folder);
	if (fd < 0)
		return -1;
	if (flock(fd, LOCK_EX | LOCK_NB) < 0 || ftruncate(fd, 0) < 0 || pipe2(ends, O_CLOEXEC) < 0) {
		close(fd);
		return -1;
	}
	shim_block_signals(&before);
	pid_t child = fork();
	if (child == 0)
		guard_ahead(folder, fd, ends[0]);
	sigprocmask(SIG_SETMASK, &before, NULL);
	close(ends[0]);
	if (child > 0)
		return fd;
	close(ends[1]);
	close(fd);
	return -1;
}

void guard_start(int folder, int unguarded)
{
	if (unguarded < 0)
		return;
	if (fork() == 0)
		guard(folder, unguarded);
	close(unguarded);
}

void guard_start_adopted(int folder, int unguarded)
{
	pid_t child = unguarded >= 0 ? fork() : -1;
	if (child == 0) {
		guard_start(folder, unguarded);
		_exit(0);
	}
	while (child > 0 && waitpid(child, NULL, 0) < 0 && errno == EINTR)
		continue;
}
