#include "gateway/exec/launch.h"

#include "gateway/sprites/record.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <fcntl.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

/* The script is run by this machine's bash, as a Sprite would. */

#define RECORDING "/tmp/spritegate-record-XXXXXX" /* as long as no other */

/* The record's folder, once made by a Sprite's preparation. "" = run without a record. */
static char folder[sizeof RECORDING];

static char *in_folder(const char *script)
{
	CLEANUP(buf_deinit) struct buf text = BUF_MAX(1 << 16);
	size_t len = strlen(RECORD_FOLDER);
	for (const char *at; (at = strstr(script, RECORD_FOLDER)); script = at + len)
		assert_int_equal(buf_printf(&text, "%.*s%s", (int)(at - script), script, folder), 0);
	assert_int_equal(buf_append(&text, slice_str(script)), 0);
	return buf_take_string(&text);
}

static int spawn(const struct launch *launch, int in, int out)
{
	char *argv[64] = {NULL};
	posix_spawn_file_actions_t actions;
	pid_t pid;
	assert_true(launch->argc < ARRAY_LEN(argv));
	for (size_t i = 0; i < launch->argc; i++)
		argv[i] = (char *)(uintptr_t)launch->argv[i];
	CLEANUP(free_ptr) char *script = in_folder(launch->argv[2]);
	argv[2] = script;
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
	assert_int_equal(launch_init(&launch, request, "id-1", folder[0]), 0);
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

static struct slice recorded(const char *name, char *text, size_t size)
{
	char path[128];
	snprintf(path, sizeof path, "%s/%s", folder, name);
	FILE *file = fopen(path, "r");
	assert_non_null(file);
	size_t len = fread(text, 1, size, file);
	fclose(file);
	return slice_of(text, len);
}

/* The same command line as a Sprite's preparation runs. */
static void prepare_folder(void)
{
	strcpy(folder, RECORDING);
	assert_non_null(mkdtemp(folder));
	assert_int_equal(rmdir(folder), 0);
	CLEANUP(free_ptr) char *script = in_folder(RECORD_PREPARE);
	for (int i = 0; i < 2; i++)
		assert_int_equal(system(script), 0);
}

static int leave_folder(void **state UNUSED)
{
	char command[64];
	snprintf(command, sizeof command, "rm -rf %s", folder);
	folder[0] = '\0';
	return system(command);
}

static void test_recording(void **state UNUSED)
{
	char text[1024], record[1024];
	prepare_folder();
	assert_int_equal(run("{\"command\":\"cat; printf 'a\\\\0b'; echo seen >&2; exit 7\",\"cwd\":\"/\",\"stdin\":\"in\\n\"}", true, text, sizeof text), 7);
	assert_memory_equal(text, "in\na\0b", 7);
	assert_true(slice_equal(recorded(RECORD_STDOUT, record, sizeof record), slice_of(text, 6)));
	assert_true(slice_equal(recorded(RECORD_STDERR, record, sizeof record), SLICE("seen\n")));
	assert_int_equal(run("{\"command\":\"kill -KILL $$\",\"cwd\":\"/\"}", true, text, sizeof text), 137);
	assert_true(slice_equal(recorded(RECORD_STDERR, record, sizeof record), SLICE("")));
	/* Nothing stands in the way: no name, no descriptor, no child of its own. */
	test_names(NULL);
	test_failures(NULL);
}

/* In a Sprite that could not be prepared for it the command runs all the same. */
static void test_recording_without_pipes(void **state UNUSED)
{
	prepare_folder();
	char path[128];
	snprintf(path, sizeof path, "%s/end", folder);
	assert_int_equal(unlink(path), 0);
	test_command(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_command), cmocka_unit_test(test_names), cmocka_unit_test(test_failures),
					  cmocka_unit_test_teardown(test_recording, leave_folder),
					  cmocka_unit_test_teardown(test_recording_without_pipes, leave_folder)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
