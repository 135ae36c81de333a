#include "gateway/exec/launch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <fcntl.h>
#include <spawn.h>
#include <stdint.h>
#include <sys/wait.h>
#include <unistd.h>

/* The script is run by this machine's bash, as a Sprite would. */

static int spawn(const struct launch *launch, int in, int out)
{
	char *argv[64] = {NULL};
	posix_spawn_file_actions_t actions;
	pid_t pid;
	assert_true(launch->argc < ARRAY_LEN(argv));
	for (size_t i = 0; i < launch->argc; i++)
		argv[i] = (char *)(uintptr_t)launch->argv[i];
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, in, STDIN_FILENO);
	posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
	int r = posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	return r ? -1 : pid;
}

static int run(const char *body, bool with_input, char *text, size_t size)
{
	CLEANUP(buf_deinit) struct buf faults = BUF_MAX(4096);
	CLEANUP(exec_request_free_ptr) struct exec_request *request = NULL;
	struct launch launch;
	int in[2], out[2], status;
	struct json_failure failure;
	assert_int_equal(exec_request_parse(slice_str(body), &request, &faults, &failure), 0);
	assert_int_equal(launch_init(&launch, request, "id-1"), 0);
	assert_int_equal(pipe2(in, O_CLOEXEC), 0);
	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	int pid = spawn(&launch, in[0], out[1]);
	assert_true(pid > 0);
	close(in[0]);
	close(out[1]);
	struct slice input = buf_peek(&launch.input);
	if (with_input)
		assert_int_equal(write(in[1], input.data, input.len), input.len);
	close(in[1]);
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
	assert_int_equal(run("{\"command\":\"pwd; echo \\\"$A\\\"; cat; echo $SPRITEGATE_EXEC_ID; exit 7\",\"cwd\":\"/tmp\",\"env\":{\"A\":\"a  b\"},"
			     "\"stdin\":\"in\\n\"}", true, text, sizeof text), 7);
	assert_string_equal(text, "/tmp\na  b\nin\nid-1\n");
}

/* No name of the caller's is one that the script needs. */
static void test_names(void **state UNUSED)
{
	char text[1024];
	assert_int_equal(run("{\"argv\":[\"bash\",\"-c\",\"echo $count,$REPLY,$i,$n,$1\",\"x\",\"one\"],\"cwd\":\"/\","
			     "\"env\":{\"count\":\"3\",\"REPLY\":\"r\",\"i\":\"9\",\"n\":\"0\",\"IFS\":\"3\"}}", true, text, sizeof text), 0);
	assert_string_equal(text, "3,r,9,0,one\n");
	assert_int_equal(run("{\"argv\":[\"env\"],\"cwd\":\"/\"}", true, text, sizeof text), 0);
	assert_null(strstr(text, "SPRITEGATE_LEFT"));
	assert_null(strstr(text, "REPLY="));
}

static void test_failures(void **state UNUSED)
{
	char text[1024];
	assert_int_equal(run("{\"command\":\"echo no\",\"cwd\":\"/\"}", false, text, sizeof text), LAUNCH_EXIT_NO_INPUT);
	assert_int_equal(run("{\"command\":\"echo no\",\"cwd\":\"/no/such/folder\"}", true, text, sizeof text), LAUNCH_EXIT_SETUP);
	assert_int_equal(run("{\"command\":\"echo no\",\"cwd\":\"/\",\"env\":{\"UID\":\"7\"}}", true, text, sizeof text), LAUNCH_EXIT_SETUP);
	assert_int_equal(run("{\"argv\":[\"/no/such/program\"],\"cwd\":\"/\"}", true, text, sizeof text), 127);
	assert_string_equal(text, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_command), cmocka_unit_test(test_names), cmocka_unit_test(test_failures)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
