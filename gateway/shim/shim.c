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
#include "gateway/shim/guard.h"
#include "gateway/shim/read_back.h"
#include "gateway/shim/shim_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define ORDER_LINE 9 /* with its end */
#define ORDER_MAX  ((size_t)2 * 1024 * 1024)
#define LINGER_MS  100
#define COPY_BYTES 65536
#define WAIT_S     90   /* for a command; the gateway ends one that waits after 20 */

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
	size_t len = shim_read_line(line);
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
			shim_fail(EXIT_SETUP, "setrlimit", "command");
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
	shim_fail(errno == ENOENT ? EXIT_MISSING : EXIT_SETUP, "exec", argv[0]);
}

static char bytes[COPY_BYTES];

/* --- files --- */

static void make_parents(char *path)
{
	for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		if (mkdir(path, 0755) < 0 && errno != EEXIST)
			shim_fail(EXIT_SETUP, "mkdir", path);
		*slash = '/';
	}
}

static void copy_pieces(int fd, const char *path)
{
	char line[LINE_BYTES];
	for (;;) {
		shim_read_line(line);
		unsigned long long left = strtoull(line, NULL, 10);
		if (!left)
			return;
		while (left) {
			size_t len = left < sizeof bytes ? (size_t)left : sizeof bytes;
			shim_read(bytes, len);
			if (!shim_write(fd, bytes, len))
				shim_fail(EXIT_SETUP, "write", path);
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
	shim_read(path, len);
	path[len] = '\0';
	make_parents(path);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		shim_fail(EXIT_SETUP, "open", path);
	copy_pieces(fd, path);
	if (fchmod(fd, mode) < 0 || close(fd) < 0)
		shim_fail(EXIT_SETUP, "write", path);
}

static void write_files(void)
{
	char line[LINE_BYTES];
	while (shim_read_line(line))
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
	if (fits && shim_write(stream->record, bytes, len))
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
	if (!shim_write(stream->to, bytes, (size_t)n))
		_exit(EXIT_SETUP);
	stream->size += (uint64_t)n;
	stream->owed -= n;
	if (stream->record >= 0)
		keep(stream, (size_t)n);
	return true;
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
		int64_t left_ms = end_ms - shim_now_ms();
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
			end_ms = shim_now_ms() + LINGER_MS;
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
	(void)!shim_write(open_record(folder, RECORD_END), line, sizeof line);
}

static void report(const struct stream streams[2], const char *nonce, uint64_t own_end)
{
	char text[RECORD_REPORT_LEN];
	text[0] = RECORD_REPORT_MARK;
	memcpy(text + 1, nonce, RECORD_NONCE_LEN);
	shim_put_hex(text + 1 + RECORD_NONCE_LEN, streams[0].size);
	shim_put_hex(text + 1 + RECORD_NONCE_LEN + 16, streams[1].size);
	shim_put_hex(text + 1 + RECORD_NONCE_LEN + 32, own_end);
	(void)!shim_write(STDOUT_FILENO, text, sizeof text);
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
		shim_fail(EXIT_SETUP, "pipe", "record");
}

static pid_t fork_or_fail(void)
{
	pid_t pid = fork();
	if (pid < 0)
		shim_fail(EXIT_SETUP, "fork", "record");
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
		shim_fail(EXIT_SETUP, "mmap", "record");
	make_pipe(out);
	make_pipe(err);
	make_pipe(ended);
	make_pipe(done);
	shim_block_signals(&before);
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
	shim_block_signals(&before);
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
	guard_start(folder, unguarded);
	int status = wait_for(command);
	tell_own_end(recording->ended[1], status);
	close(recording->ended[1]);
	hear(recording->done[0]);
	_exit(status);
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
	shim_read(line, ORDER_LINE);
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
		shim_fail(EXIT_SETUP, "malloc", "wait");
	shim_read(text, len);
	for (size_t i = 0; i < len; i++)
		count += !text[i];
	char **argv = calloc(count + 2, sizeof *argv);
	if (!argv || text[len - 1])
		shim_fail(EXIT_SETUP, "argv", "wait");
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
		shim_fail(EXIT_SETUP, "cd", argv[1]);
	if (setenv("PWD", argv[1], 1) < 0)
		shim_fail(EXIT_SETUP, "PWD", argv[1]);
	if (start->files)
		write_files();
	int next = 3;
	for (long left = strtol(argv[2], NULL, 10); left > 0 && next < argc - 1; left--, next++)
		if (putenv(argv[next]) != 0)
			shim_fail(EXIT_SETUP, "export", argv[next]);
	return argv + next;
}

int main(int argc, char **argv)
{
	struct line start;
	struct recording recording;
	bool waits = argc == 2 && strcmp(argv[1], RECORD_WAIT) == 0;
	if (argc < 4 && !waits)
		return argc == 1 && shim_write(STDOUT_FILENO, RECORD_SHIM_SAYS, strlen(RECORD_SHIM_SAYS)) ? 0 : EXIT_SETUP;
	if (argc == 5 && strcmp(argv[1], RECORD_READ) == 0)
		read_back_all(argv);
	int folder = open_own_folder(argv[0]), until = -1, unguarded = -1;
	if (waits) {
		start_recorder(&recording, folder);
		until = guard_start_ahead(folder);
		alarm(WAIT_S);
		argv = read_order(argv[0], &argc);
	}
	read_start(&start);
	alarm(0);
	if (argc < 4 || (waits && !start.records))
		_exit(EXIT_SETUP);
	if (start.records && !waits)
		start_recorder(&recording, folder);
	if (start.lasts_s && (until < 0 || !guard_tell(until, start.lasts_s)))
		unguarded = guard_say(start.lasts_s, folder);
	argv = set_up(&start, argc, argv);
	if (start.records)
		run_recorded(&start, &recording, folder, unguarded, argv);
	guard_start_adopted(folder, unguarded);
	limit(start.limits);
	become(argv);
}
