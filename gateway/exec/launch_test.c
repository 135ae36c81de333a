#include "gateway/exec/launch.h"

#include "gateway/sprites/record.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* Shim and script are run on this machine, as a Sprite would. */

#define NONCE   "0123456789abcdef0123456789abcdef"
#define EARLIER "fedcba9876543210fedcba9876543210"

/* Where the shim lies and keeps its record. "" = run the script. */
static char folder[32];

static bool waits; /* the shim is started ahead of the command */

static int spawn(struct launch *launch, int in, int out)
{
	char *argv[64] = {NULL}, shim[sizeof folder + 8];
	posix_spawn_file_actions_t actions;
	pid_t pid;
	static const char *const waiting[] = {RECORD_SHIM, RECORD_WAIT};
	struct sandbox_command command = launch_command(launch, folder[0]);
	if (waits) {
		command.argv = waiting;
		command.argc = ARRAY_LEN(waiting);
	}
	assert_true(command.argc < ARRAY_LEN(argv));
	for (size_t i = 0; i < command.argc; i++)
		argv[i] = (char *)(uintptr_t)command.argv[i];
	snprintf(shim, sizeof shim, "%s/shim", folder);
	if (folder[0]) {
		assert_string_equal(argv[0], RECORD_SHIM);
		argv[0] = shim;
	}
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, in, STDIN_FILENO);
	posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
	posix_spawnattr_t attributes;
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
	int r = posix_spawnp(&pid, argv[0], &actions, &attributes, argv, environ);
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&actions);
	return r ? -1 : pid;
}

static struct slice nonce;
static uint64_t lasts_s;
static struct admission_caps caps;
static int out_to = -1;      /* its standard output, when that is not collected */
static size_t cut;           /* so many bytes of the input do not come */
static useconds_t read_late; /* nothing is read before */
static int late_signal;      /* its group gets it once the command has ended, before anything is read */

/* What the command leaves last is there, and after that the shim sleeps only for its recorder, its one child. */
static void wait_for_end(int pid)
{
	char path[64], text[256] = "";
	snprintf(path, sizeof path, "%s/ran", folder);
	while (unlink(path) != 0)
		usleep(1000);
	for (bool ended = false; !ended; usleep(1000)) {
		int others = 0;
		snprintf(path, sizeof path, "/proc/%d/task/%d/children", pid, pid);
		FILE *file = fopen(path, "r");
		assert_non_null(file);
		while (fscanf(file, "%255s", text) == 1)
			others++;
		fclose(file);
		snprintf(path, sizeof path, "/proc/%d/stat", pid);
		file = fopen(path, "r");
		assert_non_null(file);
		char state = 0;
		assert_int_equal(fscanf(file, "%*d (shim) %c", &state), 1);
		fclose(file);
		ended = others == 1 && state == 'S';
	}
}

static size_t came;          /* bytes of input, had nothing been cut */

static int run(const char *body, bool with_input, char *text, size_t size)
{
	CLEANUP(buf_deinit) struct buf faults = BUF_MAX(4096);
	CLEANUP(exec_request_free_ptr) struct exec_request *request = NULL;
	struct launch launch;
	int in[2], out[2], status;
	struct json_failure failure;
	assert_int_equal(exec_request_parse(slice_str(body), NULL, &request, &faults, &failure), 0);
	const struct launch_options options = {.nonce = nonce, .lasts_s = lasts_s, .caps = caps};
	assert_int_equal(launch_init(&launch, request, "id-1", &options), 0);
	assert_int_equal(pipe2(in, O_CLOEXEC), 0);
	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	int pid = spawn(&launch, in[0], out_to >= 0 ? out_to : out[1]);
	assert_true(pid > 0);
	close(in[0]);
	close(out[1]);
	struct sandbox_command command = launch_command(&launch, folder[0]);
	struct slice input = waits ? command.input_ahead : command.input;
	came = input.len;
	if (with_input && cut < input.len)
		assert_int_equal(write(in[1], input.data, input.len - cut), input.len - cut);
	close(in[1]);
	usleep(read_late);
	if (late_signal) {
		wait_for_end(pid);
		assert_int_equal(kill(-pid, late_signal), 0);
	}
	size_t len = 0;
	for (ssize_t n; (n = read(out[0], text + len, size - 1 - len)) > 0;)
		len += (size_t)n;
	text[len] = '\0';
	close(out[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	launch_deinit(&launch);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void test_command(void **state UNUSED)
{
	char text[1024];
	assert_int_equal(
		run("{\"command\":\"pwd; echo \\\"$A\\\"; cat; echo $SPRITEGATE_EXEC_ID; exit 7\",\"cwd\":\"/tmp\",\"env\":{\"A\":\"a  b\"},"
		    "\"stdin\":\"in\\n\"}",
		    true, text, sizeof text),
		7);
	assert_string_equal(text, "/tmp\na  b\nin\nid-1\n");
}

/* No name of the caller's is one that the script needs. */
static void test_names(void **state UNUSED)
{
	char text[1024];
	assert_int_equal(run("{\"argv\":[\"bash\",\"-c\",\"echo $count,$REPLY,$i,$n,$1\",\"x\",\"one\"],\"cwd\":\"/\","
			     "\"env\":{\"count\":\"3\",\"REPLY\":\"r\",\"i\":\"9\",\"n\":\"0\",\"IFS\":\"3\"}}",
			     true, text, sizeof text),
			 0);
	assert_string_equal(text, "3,r,9,0,one\n");
	assert_int_equal(run("{\"argv\":[\"env\"],\"cwd\":\"/\"}", true, text, sizeof text), 0);
	assert_null(strstr(text, "SPRITEGATE_LEFT"));
	assert_null(strstr(text, "REPLY="));
}

/* Nothing runs before all files are there. */
static void test_files(void **state UNUSED)
{
	char text[1024];
	char body[512];
	snprintf(body, sizeof body,
		 "{\"command\":\"cat d/a; stat -c %%a d/a; cat; rm -r d b\",\"cwd\":\"%s\",\"stdin\":\"in\\n\","
		 "\"files\":{\"d/a\":{\"text\":\"one\\n\",\"mode\":\"751\"},\"%s/b\":\"\"}}",
		 folder, folder);
	nonce = SLICE("");
	assert_int_equal(run(body, true, text, sizeof text), 0);
	assert_string_equal(text, "one\n751\nin\n");
	for (cut = 1; cut < 200; cut++) {
		int status = run(body, true, text, sizeof text);
		if (strstr(text, "one"))
			assert_true(cut <= 3); /* of its own input */
		else
			assert_int_equal(status, LAUNCH_EXIT_NO_INPUT);
	}
	cut = 0;
	assert_int_equal(run("{\"command\":\"echo no\",\"cwd\":\"/\",\"files\":{\"/dev/null/x\":\"\"}}", true, text, sizeof text),
			 LAUNCH_EXIT_SETUP);
	assert_string_equal(text, "");
}

static void test_failures(void **state UNUSED)
{
	char text[1024];
	assert_int_equal(run("{\"command\":\"echo no\",\"cwd\":\"/\"}", false, text, sizeof text), LAUNCH_EXIT_NO_INPUT);
	assert_int_equal(run("{\"command\":\"echo no\",\"cwd\":\"/no/such/folder\"}", true, text, sizeof text), LAUNCH_EXIT_SETUP);
	assert_int_equal(run("{\"argv\":[\"/no/such/program\"],\"cwd\":\"/\"}", true, text, sizeof text), 127);
	assert_int_equal(run("{\"argv\":[\"/etc/passwd\"],\"cwd\":\"/\"}", true, text, sizeof text), 126);
	assert_string_equal(text, "");
}

/* --- the shim --- */

static int copy_shim(void **state UNUSED)
{
	char command[1024];
	nonce = (struct slice){0};
	strcpy(folder, "/tmp/spritegate-shim-XXXXXX");
	if (!mkdtemp(folder))
		return -1;
	snprintf(command, sizeof command, "cp '%s' '%s/shim'", SHIM, folder);
	return system(command);
}

static int leave_folder(void **state UNUSED)
{
	char command[64];
	snprintf(command, sizeof command, "rm -rf %s", folder);
	folder[0] = '\0';
	nonce = (struct slice){0};
	return system(command);
}

static void check_record(const char *name, struct slice wanted)
{
	char path[64], text[1 << 17];
	snprintf(path, sizeof path, "%s/%s", folder, name);
	FILE *file = fopen(path, "r");
	assert_non_null(file);
	size_t len = fread(text, 1, sizeof text, file);
	fclose(file);
	assert_true(slice_equal(slice_of(text, len), wanted));
}

static void check_unfinished(void)
{
	char path[64], line[RECORD_NONCE_LEN + 1] = "";
	snprintf(path, sizeof path, "%s/" RECORD_END, folder);
	FILE *file = fopen(path, "r");
	if (file) {
		(void)!fread(line, 1, RECORD_NONCE_LEN, file);
		fclose(file);
	}
	assert_string_not_equal(line, NONCE);
}

static void test_shim(void **state UNUSED)
{
	test_command(NULL);
	test_names(NULL);
	test_failures(NULL);
	char text[64];
	/* Nothing asked for a record. */
	snprintf(text, sizeof text, "%s/" RECORD_STDOUT, folder);
	assert_int_equal(access(text, F_OK), -1);
	snprintf(text, sizeof text, "%s/shim", folder);
	assert_int_equal(system(text), 0);
	nonce = SLICE("too short");
	assert_int_equal(run("{\"argv\":[\"true\"],\"cwd\":\"/\"}", true, text, sizeof text), LAUNCH_EXIT_SETUP);
	nonce = SLICE(NONCE "0");
	assert_int_equal(run("{\"argv\":[\"true\"],\"cwd\":\"/\"}", true, text, sizeof text), LAUNCH_EXIT_SETUP);
}

/* On a machine that is no Sprite nothing is ended. Each command says anew until when, and there is one guard. */
static void test_guard(void **state UNUSED)
{
	char text[256], until[2][32] = {"", ""};
	snprintf(text, sizeof text, "%s/" RECORD_UNTIL, folder);
	for (size_t i = 0; i < 2; i++) {
		lasts_s = i ? 2 : 1;
		nonce = i ? SLICE(NONCE) : SLICE("");
		char printed[256], path[64];
		assert_int_equal(run("{\"command\":\"cat\",\"cwd\":\"/\",\"stdin\":\"in\"}", true, printed, sizeof printed), 0);
		assert_memory_equal(printed, "in", 2);
		snprintf(path, sizeof path, "%s/" RECORD_UNTIL, folder);
		FILE *file = fopen(path, "r");
		assert_non_null(file);
		assert_non_null(fgets(until[i], sizeof until[i], file));
		fclose(file);
	}
	assert_true(strtoull(until[1], NULL, 16) >= strtoull(until[0], NULL, 16) + 1000);
	/* The lock goes with the guard. */
	int fd = open(text, O_RDWR | O_CLOEXEC);
	assert_int_equal(flock(fd, LOCK_EX), 0);
	close(fd);
	lasts_s = 0;
}

/* With and without a record, which is as long as ever; lower limits stay. */
static void test_limits(void **state UNUSED)
{
	char text[1024];
	caps = (struct admission_caps){.file_bytes = 4096, .memory_bytes = 1 << 30};
	for (int records = 0; records < 2; records++) {
		nonce = records ? SLICE(NONCE) : SLICE("");
		assert_int_equal(
			run("{\"command\":\"ulimit -u; ulimit -f; ulimit -d; ulimit -Hf\",\"cwd\":\"/\"}", true, text, sizeof text), 0);
		char *file = strchr(text, '\n');
		assert_non_null(file);
		assert_memory_equal(file, "\n4\n1048576\n4\n", 13);
	}
	nonce = SLICE(NONCE);
	caps = (struct admission_caps){.processes = 17};
	assert_int_equal(run("{\"command\":\"ulimit -u\",\"cwd\":\"/\"}", true, text, sizeof text), 0);
	assert_memory_equal(text, "17\n", 3);
	caps = (struct admission_caps){.file_bytes = UINT64_MAX};
	assert_int_equal(run("{\"command\":\"ulimit -f\",\"cwd\":\"/\"}", true, text, sizeof text), 0);
	assert_memory_equal(text, "unlimited\n", 10);
	caps = (struct admission_caps){0};
}

/* What `text` holds: the output, and after it these sizes and the status of a command that ended by itself. */
static void check_reported(const char *text, struct slice output, unsigned out, unsigned err, unsigned own_end)
{
	char report[RECORD_REPORT_LEN + 1];
	snprintf(report, sizeof report, "%c" NONCE "%016x%016x%016x", RECORD_REPORT_MARK, out, err, own_end);
	assert_memory_equal(text, output.data, output.len);
	assert_string_equal(text + output.len, report);
}

static void test_record(void **state UNUSED)
{
	char text[1024];
	nonce = SLICE(NONCE);
	assert_int_equal(run("{\"command\":\"cat; printf 'a\\\\0b'; echo seen >&2; exit 7\",\"cwd\":\"/\",\"stdin\":\"in\\n\"}", true, text,
			     sizeof text),
			 7);
	check_reported(text, SLICE("in\na\0b"), 6, 5, RECORD_OWN_END + 7);
	check_record(RECORD_STDOUT, SLICE("in\na\0b"));
	check_record(RECORD_STDERR, SLICE("seen\n"));
	check_record(RECORD_END, SLICE(NONCE "\n"));
	assert_int_equal(run("{\"command\":\"echo again\",\"cwd\":\"/\"}", false, text, sizeof text), LAUNCH_EXIT_NO_INPUT);
	assert_string_equal(text, "");
	assert_int_equal(run("{\"argv\":[\"/no/such/program\"],\"cwd\":\"/\"}", true, text, sizeof text), 127);
	check_reported(text, SLICE(""), 0, sizeof "spritegate: exec: /no/such/program: No such file or directory\n" - 1,
		       RECORD_OWN_END + 127);
	check_record(RECORD_STDOUT, SLICE(""));
}

/* All of the same when the shim was there before the command, and nothing at all until all arguments and the line have come. */
static void test_waiting(void **state UNUSED)
{
	char text[1024];
	char body[] = "{\"command\":\"pwd; echo \\\"$A\\\"; cat; echo $SPRITEGATE_EXEC_ID; echo seen >&2; exit 7\",\"cwd\":\"/tmp\","
		      "\"env\":{\"A\":\"a  b\"},\"stdin\":\"in\\n\"}";
	nonce = SLICE(NONCE);
	waits = true;
	assert_int_equal(run(body, true, text, sizeof text), 7);
	check_reported(text, SLICE("/tmp\na  b\nin\nid-1\n"), 18, 5, RECORD_OWN_END + 7);
	check_record(RECORD_STDOUT, SLICE("/tmp\na  b\nin\nid-1\n"));
	check_record(RECORD_END, SLICE(NONCE "\n"));
	size_t all = came;
	nonce = SLICE(EARLIER);
	for (cut = sizeof "in"; cut <= all; cut += 7) {
		assert_int_equal(run(body, true, text, sizeof text), cut == sizeof "in" ? 7 : LAUNCH_EXIT_NO_INPUT);
		assert_true(cut == sizeof "in" || !text[0]);
	}
	cut = 0;
	assert_int_equal(run("{\"command\":\"echo no\",\"cwd\":\"/no/such/folder\"}", true, text, sizeof text), LAUNCH_EXIT_SETUP);
	assert_string_equal(text, "");
	waits = false;
}

/* The guard is there before it is told until when; one that nothing was told ends with the shim. */
static void test_guard_ahead(void **state UNUSED)
{
	char text[256], path[64], until[32] = "";
	nonce = SLICE(NONCE);
	waits = true;
	snprintf(path, sizeof path, "%s/" RECORD_UNTIL, folder);
	for (int i = 0; i < 3; i++) {
		bool told = i == 1;
		lasts_s = told ? 1 : 60;
		cut = told ? 0 : SIZE_MAX;
		assert_int_equal(run("{\"command\":\"true\",\"cwd\":\"/\"}", told, text, sizeof text), told ? 0 : LAUNCH_EXIT_NO_INPUT);
		int fd = open(path, O_RDWR | O_CLOEXEC);
		assert_int_equal(read(fd, until, sizeof until), told ? 17 : 0);
		/* The lock goes with the guard. */
		assert_int_equal(flock(fd, LOCK_EX), 0);
		close(fd);
	}
	lasts_s = cut = 0;
	waits = false;
}

/* The last process that the shim has started, in a session of its own. */
static int second_child(int pid)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/task/%d/children", pid, pid);
	for (int first, second;; usleep(1000)) {
		FILE *file = fopen(path, "r");
		assert_non_null(file);
		int count = fscanf(file, "%d %d", &first, &second);
		fclose(file);
		if (count == 2 && getsid(second) == second)
			return second;
	}
}

/* Nothing but its own end and KILL ends it, as any guard. */
static void test_guard_ahead_is_signaled(void **state UNUSED)
{
	char shim[sizeof folder + 8];
	int in[2], status;
	snprintf(shim, sizeof shim, "%s/shim", folder);
	assert_int_equal(pipe2(in, O_CLOEXEC), 0);
	/* What the shim leaves is ours then. */
	assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
	int pid = fork();
	if (pid == 0) {
		dup2(in[0], STDIN_FILENO);
		execl(shim, shim, RECORD_WAIT, NULL);
		_exit(1);
	}
	close(in[0]);
	int guard = second_child(pid);
	assert_int_equal(kill(guard, SIGTERM), 0);
	assert_int_equal(kill(guard, SIGHUP), 0);
	close(in[1]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(waitpid(guard, &status, 0), guard);
	assert_true(WIFEXITED(status));
	/* The recorder. */
	assert_true(wait(&status) > 0);
	assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 0), 0);
}

/* How the command ended is how the shim ends, whatever its group is told. */
static void test_signals(void **state UNUSED)
{
	char text[1024];
	nonce = SLICE(NONCE);
	assert_int_equal(run("{\"command\":\"kill -KILL $$\",\"cwd\":\"/\"}", true, text, sizeof text), 137);
	check_reported(text, SLICE(""), 0, 0, RECORD_OWN_END + 137);
	assert_int_equal(
		run("{\"command\":\"trap 'echo asked; exit 3' TERM; echo ready; kill -TERM 0\",\"cwd\":\"/\"}", true, text, sizeof text),
		3);
	check_reported(text, SLICE("ready\nasked\n"), 12, 0, 0);
	/* The shim goes too; what was printed still comes, and the report. */
	assert_int_equal(run("{\"command\":\"echo last words; kill -KILL 0\",\"cwd\":\"/\"}", true, text, sizeof text), -1);
	check_reported(text, SLICE("last words\n"), 11, 0, 0);
}

/* Signals that come while its output waits do not reach a command that has ended. */
static void test_late_signals(void **state UNUSED)
{
	static char text[1 << 17];
	static const char zeros[100000];
	char body[256];
	nonce = SLICE(NONCE);
	/* More than one pipe holds, less than two. */
	snprintf(body, sizeof body, "{\"command\":\"head -c 100000 /dev/zero; touch %s/ran; exit 5\",\"cwd\":\"/\"}", folder);
	late_signal = SIGTERM;
	assert_int_equal(run(body, true, text, sizeof text), 5);
	check_reported(text, slice_of(zeros, sizeof zeros), sizeof zeros, 0, RECORD_OWN_END + 5);
	/* Its status is known though whoever waits for the recorder was killed. */
	late_signal = SIGKILL;
	assert_int_equal(run(body, true, text, sizeof text), -1);
	check_reported(text, slice_of(zeros, sizeof zeros), sizeof zeros, 0, RECORD_OWN_END + 5);
	late_signal = 0;
}

/* Children that keep the streams open are waited for, but not for long; what the command itself wrote comes in any case. */
static void test_children(void **state UNUSED)
{
	static char text[1 << 17];
	nonce = SLICE(NONCE);
	/* A busy machine may need more than one try to be so quick. */
	for (int i = 0; i < 50 && strncmp(text, "now\nlate\n", 9) != 0; i++)
		assert_int_equal(run("{\"command\":\"(sleep 0.02; echo late) & echo now\",\"cwd\":\"/\"}", true, text, sizeof text), 0);
	check_reported(text, SLICE("now\nlate\n"), 9, 0, RECORD_OWN_END);
	assert_int_equal(run("{\"command\":\"(sleep 2; echo late) & head -c 60000 /dev/zero\",\"cwd\":\"/tmp\"}", true, text, sizeof text),
			 0);
	static const char zeros[60000];
	check_reported(text, slice_of(zeros, sizeof zeros), sizeof zeros, 0, RECORD_OWN_END);
	check_record(RECORD_STDOUT, slice_of(zeros, sizeof zeros));
	/* The pipe to us is full for longer than children are waited for. */
	static const char more[100000];
	read_late = 200000;
	assert_int_equal(run("{\"command\":\"sleep 2 & head -c 100000 /dev/zero\",\"cwd\":\"/tmp\"}", true, text, sizeof text), 0);
	read_late = 0;
	check_reported(text, slice_of(more, sizeof more), sizeof more, 0, RECORD_OWN_END);
}

/* What would fill the disk is not kept, only counted; the other stream is. */
static void test_too_long(void **state UNUSED)
{
	char text[1024];
	nonce = SLICE(NONCE);
	out_to = open("/dev/null", O_WRONLY | O_CLOEXEC);
	assert_int_equal(run("{\"command\":\"echo seen >&2; head -c 67108865 /dev/zero\",\"cwd\":\"/\"}", true, text, sizeof text), 0);
	close(out_to);
	out_to = -1;
	check_record(RECORD_STDOUT, SLICE(""));
	check_record(RECORD_STDERR, SLICE("seen\n"));
	check_unfinished();
}

/* A disk that is full when the record, or the line that finishes it, is written: all is passed on and reported. */
static void test_full_disk(void **state UNUSED)
{
	static const char zeros[60000];
	static char text[1 << 17];
	struct rlimit before, limit;
	nonce = SLICE(NONCE);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	for (rlim_t size = 20000; size; size = size > 20 ? 20 : 0) {
		limit = (struct rlimit){size, before.rlim_max};
		assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
		bool much = size > 20;
		int exit_code = run(much ? "{\"command\":\"echo seen >&2; head -c 60000 /dev/zero\",\"cwd\":\"/\"}"
					 : "{\"command\":\"echo seen >&2; echo hi\",\"cwd\":\"/\"}",
				    true, text, sizeof text);
		assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
		assert_int_equal(exit_code, 0);
		struct slice wrote = much ? slice_of(zeros, sizeof zeros) : SLICE("hi\n");
		check_reported(text, wrote, (unsigned)wrote.len, 5, RECORD_OWN_END);
		check_unfinished();
	}
}

/* Nobody finishes its record, and one that an earlier command left is not taken for it. */
static void test_killed_recorder(void **state UNUSED)
{
	char text[1024];
	nonce = SLICE(EARLIER);
	assert_int_equal(run("{\"command\":\"echo as it was\",\"cwd\":\"/\"}", true, text, sizeof text), 0);
	check_record(RECORD_END, SLICE(EARLIER "\n"));
	nonce = SLICE(NONCE);
	/* The recorder is the first child of its parent. */
	assert_int_equal(run("{\"command\":\"read -r recorder rest </proc/$PPID/task/$PPID/children; echo hi; sleep 0.1; "
			     "kill -KILL $recorder; exit 0\",\"cwd\":\"/\"}",
			     true, text, sizeof text),
			 0);
	assert_string_equal(text, "hi\n");
	check_record(RECORD_STDOUT, SLICE("hi\n"));
	check_unfinished();
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_command),
					   cmocka_unit_test(test_names),
					   cmocka_unit_test(test_failures),
					   cmocka_unit_test_setup_teardown(test_shim, copy_shim, leave_folder),
					   cmocka_unit_test_setup_teardown(test_files, copy_shim, leave_folder),
					   cmocka_unit_test_setup_teardown(test_record, copy_shim, leave_folder),
					   cmocka_unit_test_setup_teardown(test_guard, copy_shim, leave_folder),
					   cmocka_unit_test_setup_teardown(test_waiting, copy_shim, leave_folder),
					   cmocka_unit_test_setup_teardown(test_guard_ahead, copy_shim, leave_folder),
					   cmocka_unit_test_setup_teardown(test_guard_ahead_is_signaled, copy_shim, leave_folder),
					   cmocka_unit_test_setup_teardown(test_signals, copy_shim, leave_folder),
					   cmocka_unit_test_setup_teardown(test_limits, copy_shim, leave_folder),
					   cmocka_unit_test_setup_teardown(test_late_signals, copy_shim, leave_folder),
					   cmocka_unit_test_setup_teardown(test_children, copy_shim, leave_folder),
					   cmocka_unit_test_setup_teardown(test_too_long, copy_shim, leave_folder),
					   cmocka_unit_test_setup_teardown(test_full_disk, copy_shim, leave_folder),
					   cmocka_unit_test_setup_teardown(test_killed_recorder, copy_shim, leave_folder)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
