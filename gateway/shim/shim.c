/*
 * shim - starts a command inside a Sprite, records what it prints and reports how much that was
 *
 *   shim CWD COUNT NAME=VALUE… PROGRAM [ARGUMENT…]
 *
 * A program of its own, static and small, which a Sprite's preparation leaves there (sprites/record.h). It waits for one line of
 * standard input, so that nothing runs before the Sprite forwards our bytes, and nothing at all when the connection breaks before
 * that; the rest is the command's, after the files. It changes the directory, writes the files, adds the variables and becomes the
 * program: an empty line asks for no more.
 *
 * A plus sign at the end of the line announces files. Each is a line "MODE LENGTH" (octal, decimal), a path of so many bytes, then
 * pieces: a line with a length above 0 and so many bytes; the line "0" ends it, an empty one ends all. Input that ends before that ends
 * this program.
 *
 * With a nonce in the line it stays, and three processes are at work:
 *
 *   the first  waits for the command and ends as it ended. It blocks the signals of its group, which are the command's.
 *   command    in the group and with the standard input of the first; its outputs are pipes.
 *   recorder   in a session of its own, so what was printed before a KILL of the group still arrives. It passes the pipes on, writes
 *              the same into the record, beside this program, and once both have ended or 0.1 s after the command (children may
 *              keep them open) says in the record that it is whole, if it is, and ends standard output with the report: mark,
 *              nonce, the sizes of both and the status of a command that no TERM came before. Then it only keeps the pipes readable.
 *
 * A blank and a number after that is how many seconds everything in this Sprite may go on without another such line, 0 for ever. One
 * process, the guard, sees to that, whoever else is dead: it then ends all processes, and so all that keeps the Sprite awake.
 *
 * Three more numbers are the command's limits, 0 for none: processes of its user, bytes of a file that it writes, bytes of memory of a process.
 *
 * With "wait" as its one argument it is started ahead of its command and gets the others by standard input, before the line: their length in
 * bytes as eight hexadecimal digits, a line end, and each with a NUL. Recorder and guard are there by then. Input that ends before that, or
 * has not brought all of it after 90 s, ends all of them. A command that comes this way must have a nonce.
 *
 * With "read" as first argument it reads files back (sprites/record.h): each is a line "OFFSET LENGTH" (decimal) and a path of so many
 * bytes, an empty line ends them.
 *
 * Without arguments it says that it can be run here.
 */
#include "gateway/sprites/record.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define EXIT_NO_INPUT 125
#define EXIT_SETUP    126
#define EXIT_MISSING  127
#define EXIT_SIGNAL   128

#define LINE_BYTES 128
#define ORDER_LINE 9 /* with its end */
#define ORDER_MAX  ((size_t)2 * 1024 * 1024)
#define LINGER_MS  100
#define COPY_BYTES 65536
#define GUARD_MS   5000 /* between two looks */
#define WAIT_S     90   /* for a command; the gateway ends one that waits after 20 */
#define UNTIL_LEN  17

static struct iovec text(const char *string)
{
	return (struct iovec){(void *)(uintptr_t)string, strlen(string)};
}

static _Noreturn void fail(int status, const char *what, const char *about)
{
	struct iovec words[] = {text("spritegate: "), text(what), text(": "), text(about), text(": "), text(strerror(errno)), text("\n")};
	(void)!writev(STDERR_FILENO, words, sizeof words / sizeof *words);
	_exit(status);
}

static void read_all(char *to, size_t len)
{
	while (len) {
		ssize_t n = read(STDIN_FILENO, to, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			_exit(EXIT_NO_INPUT);
		to += n;
		len -= (size_t)n;
	}
}

/* Without its end. Byte by byte: what follows is not ours. */
static size_t read_line(char line[LINE_BYTES])
{
	size_t len = 0;
	for (char c;;) {
		read_all(&c, 1);
		if (c == '\n')
			break;
		if (len == LINE_BYTES - 1)
			_exit(EXIT_SETUP);
		line[len++] = c;
	}
	line[len] = '\0';
	return len;
}

static const int limited[] = {RLIMIT_NPROC, RLIMIT_FSIZE, RLIMIT_DATA};
#define LIMITS (sizeof limited / sizeof *limited)

struct line {
	char nonce[RECORD_NONCE_LEN];
	bool records, files;
	unsigned long lasts_s;
	rlim_t limits[LIMITS];
};

static void read_start(struct line *start)
{
	char line[LINE_BYTES];
	size_t len = read_line(line);
	char *blank = strchr(line, ' ');
	char *numbers = blank ? blank + 1 : line + len;
	start->lasts_s = strtoul(numbers, &numbers, 10);
	for (size_t i = 0; i < LIMITS; i++)
		start->limits[i] = strtoul(numbers, &numbers, 10);
	len = blank ? (size_t)(blank - line) : len;
	start->files = len && line[len - 1] == '+';
	len -= start->files;
	if (len && len != RECORD_NONCE_LEN)
		_exit(EXIT_SETUP);
	memcpy(start->nonce, line, len);
	start->records = len > 0;
}

/* The command's own: what records it must go on. */
static void limit(const rlim_t limits[LIMITS])
{
	struct rlimit now;
	for (size_t i = 0; i < LIMITS; i++) {
		if (!limits[i] || getrlimit(limited[i], &now) < 0 || now.rlim_max < limits[i])
			continue;
		now.rlim_max = limits[i];
		now.rlim_cur = now.rlim_cur < limits[i] ? now.rlim_cur : limits[i];
		if (setrlimit(limited[i], &now) < 0)
			fail(EXIT_SETUP, "setrlimit", "command");
	}
}

static _Noreturn void become(char **argv)
{
	execvp(argv[0], argv);
	if (errno == ENOEXEC) {
		/* A script without a first line that names its interpreter; the place before it holds an argument of ours. */
		argv[-1] = (char *)(uintptr_t)"bash";
		execvp(argv[-1], argv - 1);
	}
	fail(errno == ENOENT ? EXIT_MISSING : EXIT_SETUP, "exec", argv[0]);
}

static char bytes[COPY_BYTES];

static bool write_all(int fd, const char *from, size_t len)
{
	while (len) {
		ssize_t n = write(fd, from, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		from += n;
		len -= (size_t)n;
	}
	return true;
}

static void put_hex(char *to, uint64_t number)
{
	for (int i = 15; i >= 0; i--, number >>= 4)
		to[i] = "0123456789abcdef"[number & 15];
}

/* --- files --- */

static void make_parents(char *path)
{
	for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		if (mkdir(path, 0755) < 0 && errno != EEXIST)
			fail(EXIT_SETUP, "mkdir", path);
		*slash = '/';
	}
}

static void copy_pieces(int fd, const char *path)
{
	char line[LINE_BYTES];
	for (;;) {
		read_line(line);
		unsigned long long left = strtoull(line, NULL, 10);
		if (!left)
			return;
		while (left) {
			size_t len = left < sizeof bytes ? (size_t)left : sizeof bytes;
			read_all(bytes, len);
			if (!write_all(fd, bytes, len))
				fail(EXIT_SETUP, "write", path);
			left -= len;
		}
	}
}

static void write_file(const char *line)
{
	char path[PATH_MAX], *rest;
	mode_t mode = (mode_t)strtoul(line, &rest, 8);
	size_t len = strtoul(rest, NULL, 10);
	if (!len || len >= sizeof path)
		_exit(EXIT_SETUP);
	read_all(path, len);
	path[len] = '\0';
	make_parents(path);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		fail(EXIT_SETUP, "open", path);
	copy_pieces(fd, path);
	if (fchmod(fd, mode) < 0 || close(fd) < 0)
		fail(EXIT_SETUP, "write", path);
}

static void write_files(void)
{
	char line[LINE_BYTES];
	while (read_line(line))
		write_file(line);
}

/* --- the recorder --- */

struct stream {
	int from, to, record;
	uint64_t size;
	int64_t owed; /* of what was in the pipe when the command ended */
};

/* A record of which something could not be written stays unfinished; one that would be too long must not fill the disk. */
static void keep(struct stream *stream, size_t len)
{
	bool fits = stream->size <= RECORD_MAX;
	if (fits && write_all(stream->record, bytes, len))
		return;
	if (!fits)
		(void)!ftruncate(stream->record, 0);
	close(stream->record);
	stream->record = -1;
}

/* False at its end. Nobody to pass it on to: the command gets to know by a closed pipe, as it would without us. */
static bool pass_on(struct stream *stream)
{
	ssize_t n = read(stream->from, bytes, sizeof bytes);
	if (n < 0 && errno == EINTR)
		return true;
	if (n <= 0)
		return false;
	if (!write_all(stream->to, bytes, (size_t)n))
		_exit(EXIT_SETUP);
	stream->size += (uint64_t)n;
	stream->owed -= n;
	if (stream->record >= 0)
		keep(stream, (size_t)n);
	return true;
}

static int64_t now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void block_signals(sigset_t *before)
{
	sigset_t all;
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, before);
}

/* --- the guard --- */

/* When all ends, in milliseconds of this machine's time awake. */
static int64_t read_until(int fd)
{
	char text[UNTIL_LEN] = "";
	(void)!pread(fd, text, UNTIL_LEN - 1, 0);
	return (int64_t)strtoull(text, NULL, 16);
}

static bool write_until(int fd, int64_t until_ms)
{
	char text[UNTIL_LEN];
	put_hex(text, (uint64_t)until_ms);
	text[UNTIL_LEN - 1] = '\n';
	return pwrite(fd, text, sizeof text, 0) == (ssize_t)sizeof text;
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
		for (int64_t left_ms; (left_ms = read_until(fd) - now_ms()) > 0;)
			poll(NULL, 0, left_ms < GUARD_MS ? (int)left_ms : GUARD_MS);
		/* On any other machine there is more than what a session left. */
		if (is_replaced(folder, fd) || access(RECORD_INSIDE, F_OK) != 0)
			_exit(0);
		/* A command that has begun meanwhile relies on this guard. */
		if (read_until(fd) <= now_ms())
			break;
	}
	kill(-1, SIGKILL);
	_exit(0);
}

static int64_t until_ms(unsigned long lasts_s)
{
	return now_ms() + (int64_t)lasts_s * 1000;
}

static int open_until(int folder)
{
	return openat(folder, RECORD_UNTIL, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
}

/* Says until when all may go on. The descriptor that a guard needs, or -1: there is one at a time, whose file is locked. */
static int say_until(unsigned long lasts_s, int folder)
{
	int fd = open_until(folder);
	if (fd < 0)
		return -1;
	if (write_until(fd, until_ms(lasts_s)) && flock(fd, LOCK_EX | LOCK_NB) == 0)
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

/* The descriptor of what is to be said, or -1: another guard has not ended yet, then one is started with the command. */
static int start_guard_ahead(int folder)
{
	sigset_t before;
	int ends[2], fd = open_until(folder);
	if (fd < 0)
		return -1;
	if (flock(fd, LOCK_EX | LOCK_NB) < 0 || ftruncate(fd, 0) < 0 || pipe2(ends, O_CLOEXEC) < 0) {
		close(fd);
		return -1;
	}
	block_signals(&before);
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

/* Without it the command runs all the same. */
static void start_guard(int folder, int unguarded)
{
	if (unguarded < 0)
		return;
	if (fork() == 0)
		guard(folder, unguarded);
	close(unguarded);
}

/* What this process becomes has no child that it does not know. */
static void start_adopted_guard(int folder, int unguarded)
{
	pid_t child = unguarded >= 0 ? fork() : -1;
	if (child == 0) {
		start_guard(folder, unguarded);
		_exit(0);
	}
	while (child > 0 && waitpid(child, NULL, 0) < 0 && errno == EINTR)
		continue;
}

/* --- passing on --- */

static void note_owed(struct stream *stream)
{
	int waiting = 0;
	(void)ioctl(stream->from, FIONREAD, &waiting);
	stream->owed = waiting;
}

/* Until both streams have ended, or the command has, all that it wrote is passed on, and nothing more came in time. */
static void pass_all_on(struct stream streams[2], int ended)
{
	struct pollfd polls[] = {{streams[0].from, POLLIN, 0}, {streams[1].from, POLLIN, 0}, {ended, POLLIN, 0}};
	int64_t end_ms = INT64_MAX;
	while (polls[0].fd >= 0 || polls[1].fd >= 0) {
		int64_t left_ms = end_ms - now_ms();
		if (left_ms <= 0 && streams[0].owed <= 0 && streams[1].owed <= 0)
			return;
		if (poll(polls, 3, end_ms == INT64_MAX ? -1 : left_ms > 0 ? (int)left_ms : 0) < 0)
			continue;
		for (int i = 0; i < 2; i++)
			if (polls[i].revents && !pass_on(&streams[i])) {
				polls[i].fd = -1;
				streams[i].owed = 0;
			}
		if (polls[2].revents) {
			polls[2].fd = -1;
			end_ms = now_ms() + LINGER_MS;
			note_owed(&streams[0]);
			note_owed(&streams[1]);
		}
	}
}

static int open_record(int folder, const char *name)
{
	return openat(folder, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
}

/* Only now is there a record, of all that both streams had; the nonce tells it from one that an earlier command left. */
static void finish_record(const struct stream streams[2], int folder, const char *nonce)
{
	char line[RECORD_NONCE_LEN + 1];
	if (streams[0].record < 0 || streams[1].record < 0)
		return;
	memcpy(line, nonce, RECORD_NONCE_LEN);
	line[RECORD_NONCE_LEN] = '\n';
	(void)!write_all(open_record(folder, RECORD_END), line, sizeof line);
}

static void report(const struct stream streams[2], const char *nonce, uint64_t own_end)
{
	char text[RECORD_REPORT_LEN];
	text[0] = RECORD_REPORT_MARK;
	memcpy(text + 1, nonce, RECORD_NONCE_LEN);
	put_hex(text + 1 + RECORD_NONCE_LEN, streams[0].size);
	put_hex(text + 1 + RECORD_NONCE_LEN + 16, streams[1].size);
	put_hex(text + 1 + RECORD_NONCE_LEN + 32, own_end);
	(void)!write_all(STDOUT_FILENO, text, sizeof text);
}

/* Waits for the first process. */
static uint64_t hear_own_end(int ended)
{
	unsigned char status;
	ssize_t n;
	while ((n = read(ended, &status, 1)) < 0 && errno == EINTR)
		continue;
	return n == 1 ? RECORD_OWN_END + status : 0;
}

static _Noreturn void ignore_what_comes(int out, int err)
{
	struct pollfd polls[] = {{out, POLLIN, 0}, {err, POLLIN, 0}};
	while (polls[0].fd >= 0 || polls[1].fd >= 0)
		if (poll(polls, 2, -1) > 0)
			for (int i = 0; i < 2; i++)
				if (polls[i].revents && read(polls[i].fd, bytes, sizeof bytes) <= 0)
					polls[i].fd = -1;
	_exit(0);
}

/* `ended` reads as ended when the first process is gone or closes its side; before that comes what tell_own_end() says. A byte in `done`
 * says that this one is out of its group, closing it lets that one go. */
static _Noreturn void record(const char *nonce, int folder, int out, int err, int ended, int done)
{
	struct stream streams[] = {{.from = out, .to = STDOUT_FILENO, .record = open_record(folder, RECORD_STDOUT)},
				   {.from = err, .to = STDERR_FILENO, .record = open_record(folder, RECORD_STDERR)}};
	setsid();
	(void)!write(done, "", 1);
	close(STDIN_FILENO);
	pass_all_on(streams, ended);
	/* There was no command. */
	if (!nonce[0])
		_exit(0);
	finish_record(streams, folder, nonce);
	report(streams, nonce, hear_own_end(ended));
	close(STDOUT_FILENO);
	close(STDERR_FILENO);
	close(done);
	/* Children that outlived the command may go on printing. */
	ignore_what_comes(out, err);
}

/* --- the first process --- */

static void make_pipe(int ends[2])
{
	if (pipe2(ends, O_CLOEXEC) < 0)
		fail(EXIT_SETUP, "pipe", "record");
}

static pid_t fork_or_fail(void)
{
	pid_t pid = fork();
	if (pid < 0)
		fail(EXIT_SETUP, "fork", "record");
	return pid;
}

static int wait_for(pid_t pid)
{
	int status;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return EXIT_SETUP;
	return WIFEXITED(status) ? WEXITSTATUS(status) : EXIT_SIGNAL + WTERMSIG(status);
}

/* A byte or the end. */
static void hear(int fd)
{
	char byte;
	while (read(fd, &byte, 1) < 0 && errno == EINTR)
		continue;
}

/* Signals of the group are blocked here, so a TERM that came is pending. */
static void tell_own_end(int ended, int status)
{
	sigset_t came;
	const char byte = (char)status;
	if (sigpending(&came) == 0 && !sigismember(&came, SIGTERM))
		(void)!write(ended, &byte, 1);
}

/* A recorder that waits for the nonce, and what the command gets from it. */
struct recording {
	int out[2], err[2], ended[2], done[2];
	char *nonce; /* shared with it; empty until there is a command */
};

static void start_recorder(struct recording *recording, int folder)
{
	int *out = recording->out, *err = recording->err, *ended = recording->ended, *done = recording->done;
	sigset_t before;
	recording->nonce = mmap(NULL, RECORD_NONCE_LEN, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (recording->nonce == MAP_FAILED)
		fail(EXIT_SETUP, "mmap", "record");
	make_pipe(out);
	make_pipe(err);
	make_pipe(ended);
	make_pipe(done);
	block_signals(&before);
	if (fork_or_fail() == 0) {
		close(out[1]);
		close(err[1]);
		close(ended[1]);
		close(done[0]);
		record(recording->nonce, folder, out[0], err[0], ended[0], done[1]);
	}
	close(done[1]);
	/* A KILL of the group must not find the recorder in it. */
	hear(done[0]);
	sigprocmask(SIG_SETMASK, &before, NULL);
	/* A reader that dies must end the command. */
	close(out[0]);
	close(err[0]);
	close(ended[0]);
}

/* The command does not wait for its guard. */
static _Noreturn void run_recorded(const struct line *start, struct recording *recording, int folder, int unguarded, char **argv)
{
	sigset_t before;
	block_signals(&before);
	memcpy(recording->nonce, start->nonce, RECORD_NONCE_LEN);
	pid_t command = fork_or_fail();
	if (command == 0) {
		sigprocmask(SIG_SETMASK, &before, NULL);
		dup2(recording->out[1], STDOUT_FILENO);
		dup2(recording->err[1], STDERR_FILENO);
		limit(start->limits);
		become(argv);
	}
	/* The command's end must end the pipes. */
	close(recording->out[1]);
	close(recording->err[1]);
	start_guard(folder, unguarded);
	int status = wait_for(command);
	tell_own_end(recording->ended[1], status);
	close(recording->ended[1]);
	hear(recording->done[0]);
	_exit(status);
}

/* --- files that are read back --- */

static char piece[RECORD_READ_MAX];

static void put_line(const char *nonce, char kind, const struct stat *about, size_t len)
{
	const uint64_t numbers[] = {(uint64_t)about->st_size,
				    len,
				    about->st_dev,
				    about->st_ino,
				    (uint64_t)about->st_mtim.tv_sec * 1000000000 + (uint64_t)about->st_mtim.tv_nsec,
				    (uint64_t)about->st_ctim.tv_sec * 1000000000 + (uint64_t)about->st_ctim.tv_nsec};
	char line[RECORD_READ_LINE_LEN];
	memcpy(line, nonce, RECORD_NONCE_LEN);
	line[RECORD_NONCE_LEN] = kind;
	for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
		put_hex(line + RECORD_NONCE_LEN + 1 + 16 * i, numbers[i]);
	line[sizeof line - 1] = '\n';
	if (!write_all(STDOUT_FILENO, line, sizeof line) || !write_all(STDOUT_FILENO, piece, len))
		_exit(EXIT_SETUP);
}

static char kind_of_error(void)
{
	if (errno == ENOENT || errno == ENOTDIR || errno == ENAMETOOLONG || errno == ELOOP)
		return RECORD_READ_NOT_FOUND;
	return errno == EACCES || errno == EPERM ? RECORD_READ_DENIED : RECORD_READ_FAILED;
}

static char kind_of(const struct stat *about)
{
	if (S_ISDIR(about->st_mode))
		return RECORD_READ_DIRECTORY;
	return S_ISREG(about->st_mode) ? RECORD_READ_FILE : RECORD_READ_NOT_REGULAR;
}

static bool is_same(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size && a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
	       a->st_mtim.tv_nsec == b->st_mtim.tv_nsec && a->st_ctim.tv_sec == b->st_ctim.tv_sec &&
	       a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

/* As many bytes as its size says, or it has changed. */
static char read_open(int fd, off_t offset, size_t most, struct stat *about, size_t *len)
{
	struct stat after;
	if (fstat(fd, about) < 0)
		return RECORD_READ_FAILED;
	if (kind_of(about) != RECORD_READ_FILE)
		return kind_of(about);
	size_t want = offset < about->st_size ? (size_t)(about->st_size - offset) : 0, got = 0;
	if (want > most)
		want = most;
	while (got < want) {
		ssize_t n = pread(fd, piece + got, want - got, offset + (off_t)got);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return RECORD_READ_FAILED;
		if (n == 0)
			return RECORD_READ_CHANGED;
		got += (size_t)n;
	}
	if (fstat(fd, &after) < 0 || !is_same(about, &after))
		return RECORD_READ_CHANGED;
	*len = got;
	return RECORD_READ_FILE;
}

/* A device is not even opened. Links are followed: there is nothing in a Sprite that its command could not have copied. */
static char read_back(const char *path, off_t offset, size_t most, struct stat *about, size_t *len)
{
	if (stat(path, about) < 0)
		return kind_of_error();
	if (kind_of(about) != RECORD_READ_FILE)
		return kind_of(about);
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		return kind_of_error();
	char kind = read_open(fd, offset, most, about, len);
	close(fd);
	return kind;
}

static _Noreturn void read_files_back(char **argv)
{
	const char *nonce = argv[3];
	char line[LINE_BYTES], path[PATH_MAX], *rest;
	size_t left = strtoul(argv[4], NULL, 10);
	if (strlen(nonce) != RECORD_NONCE_LEN || left > sizeof piece)
		_exit(EXIT_SETUP);
	bool in_cwd = chdir(argv[2]) == 0;
	while (read_line(line)) {
		struct stat about = {0};
		off_t offset = strtoll(line, &rest, 10);
		size_t path_len = strtoul(rest, NULL, 10), len = 0;
		if (!path_len || path_len >= sizeof path)
			_exit(EXIT_SETUP);
		read_all(path, path_len);
		path[path_len] = '\0';
		if (!left)
			continue;
		bool there = in_cwd || path[0] == '/';
		char kind = there ? read_back(path, offset, left, &about, &len) : RECORD_READ_NOT_FOUND;
		put_line(nonce, kind, &about, len);
		left -= len;
	}
	put_line(nonce, RECORD_READ_END, &(struct stat){0}, 0);
	_exit(0);
}

/* Where this program lies. */
static int open_own_folder(char *path)
{
	char *slash = strrchr(path, '/');
	if (!slash)
		return open(".", O_PATH | O_CLOEXEC);
	*slash = '\0';
	return open(path, O_PATH | O_CLOEXEC);
}

/* --- started ahead --- */

static size_t read_order_length(void)
{
	char line[ORDER_LINE + 1] = "", *end;
	read_all(line, ORDER_LINE);
	size_t len = strtoul(line, &end, 16);
	if (*end != '\n' || !len || len > ORDER_MAX)
		_exit(EXIT_SETUP);
	return len;
}

/* The arguments as they would have come, with this program's name. */
static char **read_order(char *name, int *argc)
{
	size_t len = read_order_length(), count = 0;
	char *text = malloc(len);
	if (!text)
		fail(EXIT_SETUP, "malloc", "wait");
	read_all(text, len);
	for (size_t i = 0; i < len; i++)
		count += !text[i];
	char **argv = calloc(count + 2, sizeof *argv);
	if (!argv || text[len - 1])
		fail(EXIT_SETUP, "argv", "wait");
	argv[0] = name;
	for (size_t i = 1; i <= count; i++, text += strlen(text) + 1)
		argv[i] = text;
	*argc = (int)count + 1;
	return argv;
}

/* --- the first steps --- */

/* Directory, files and variables of the command; where the program is in argv. */
static char **set_up(const struct line *start, int argc, char **argv)
{
	if (chdir(argv[1]) < 0)
		fail(EXIT_SETUP, "cd", argv[1]);
	if (setenv("PWD", argv[1], 1) < 0)
		fail(EXIT_SETUP, "PWD", argv[1]);
	if (start->files)
		write_files();
	int next = 3;
	for (long left = strtol(argv[2], NULL, 10); left > 0 && next < argc - 1; left--, next++)
		if (putenv(argv[next]) != 0)
			fail(EXIT_SETUP, "export", argv[next]);
	return argv + next;
}

int main(int argc, char **argv)
{
	struct line start;
	struct recording recording;
	bool waits = argc == 2 && strcmp(argv[1], RECORD_WAIT) == 0;
	if (argc < 4 && !waits)
		return argc == 1 && write_all(STDOUT_FILENO, RECORD_SHIM_SAYS, strlen(RECORD_SHIM_SAYS)) ? 0 : EXIT_SETUP;
	if (argc == 5 && strcmp(argv[1], RECORD_READ) == 0)
		read_files_back(argv);
	int folder = open_own_folder(argv[0]), until = -1, unguarded = -1;
	if (waits) {
		start_recorder(&recording, folder);
		until = start_guard_ahead(folder);
		alarm(WAIT_S);
		argv = read_order(argv[0], &argc);
	}
	read_start(&start);
	alarm(0);
	if (argc < 4 || (waits && !start.records))
		_exit(EXIT_SETUP);
	if (start.records && !waits)
		start_recorder(&recording, folder);
	if (start.lasts_s && (until < 0 || !write_until(until, until_ms(start.lasts_s))))
		unguarded = say_until(start.lasts_s, folder);
	argv = set_up(&start, argc, argv);
	if (start.records)
		run_recorded(&start, &recording, folder, unguarded, argv);
	start_adopted_guard(folder, unguarded);
	limit(start.limits);
	become(argv);
}
