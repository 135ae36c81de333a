#include "gateway/exec/outfiles.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <fcntl.h>
#include <inttypes.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* The shim is run on this machine, as a Sprite would. */

static char folder[] = "/tmp/outfiles.XXXXXX";

static void put(const char *name, const void *bytes, size_t len)
{
	FILE *file = fopen(name, "w");
	assert_non_null(file);
	assert_int_equal(fwrite(bytes, 1, len, file), len);
	assert_int_equal(fclose(file), 0);
}

static unsigned run(const struct sandbox_command *command, struct buf *out)
{
	char *argv[8] = {NULL}, shim[] = SHIM, piece[64 * 1024];
	int in[2], from[2], status;
	posix_spawn_file_actions_t actions;
	pid_t pid;
	for (size_t i = 0; i < command->argc; i++)
		argv[i] = (char *)(uintptr_t)command->argv[i];
	argv[0] = shim;
	assert_int_equal(pipe2(in, O_CLOEXEC), 0);
	assert_int_equal(pipe2(from, O_CLOEXEC), 0);
	assert_int_equal(write(in[1], command->input.data, command->input.len), command->input.len);
	close(in[1]);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, in[0], STDIN_FILENO);
	posix_spawn_file_actions_adddup2(&actions, from[1], STDOUT_FILENO);
	assert_int_equal(posix_spawn(&pid, argv[0], &actions, NULL, argv, environ), 0);
	posix_spawn_file_actions_destroy(&actions);
	close(in[0]);
	close(from[1]);
	for (ssize_t n; (n = read(from[0], piece, sizeof piece)) > 0;)
		assert_int_equal(buf_append(out, slice_of(piece, (size_t)n)), 0);
	close(from[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return (unsigned)WEXITSTATUS(status);
}

static size_t drop;               /* so many bytes of a reply do not come … */
static size_t longest = SIZE_MAX; /* … that is longer than this */
static void (*between)(void);     /* two replies */

/* How many commands it took. */
static unsigned read_back(struct outfiles *outfiles)
{
	struct sandbox_command command;
	unsigned commands = 0;
	while (outfiles_next(outfiles, &command)) {
		CLEANUP(buf_deinit) struct buf out = BUF_MAX(RECORD_READ_MAX * 2);
		unsigned exit_code = run(&command, &out);
		struct slice reply = buf_peek(&out);
		if (reply.len > longest)
			reply.len -= drop;
		assert_int_equal(outfiles_reply(outfiles, reply), 0);
		assert_int_equal(outfiles_replied(outfiles, exit_code), 0);
		if (between)
			between();
		assert_true(++commands < 1000);
	}
	return commands;
}

static void begin(struct outfiles *outfiles, const char **paths, size_t count, uint64_t each, uint64_t left)
{
	const struct exec_request request = {.cwd = folder, .outputs = paths, .output_count = count};
	assert_int_equal(outfiles_init(outfiles, &request), 0);
	outfiles_begin(outfiles, each, left);
}

static void is_told(const struct outfiles *outfiles, bool contents, const char *want)
{
	CLEANUP(buf_deinit) struct buf json = BUF_MAX(64 * 1024);
	assert_int_equal(outfiles_put(outfiles, contents, &json), 0);
	if (!slice_equal(buf_peek(&json), slice_str(want)))
		fail_msg("%.*s, not %s", SLICE_FMT(buf_peek(&json)), want);
	if (!contents)
		assert_true(json.len <= outfiles_put_max(outfiles));
}

static void test_kinds(void **state UNUSED)
{
	struct outfiles outfiles;
	const char *paths[] = {"text", "gone", "sub/binary", "sub", "pipe", "/dev/zero", "empty", "link", "loop", "text/below", "text\"2"};
	put("text", "ä\n", 3);
	put("text\"2", "x", 1);
	put("empty", "", 0);
	assert_int_equal(mkdir("sub", 0700), 0);
	put("sub/binary", "\xff", 1);
	assert_int_equal(mkfifo("pipe", 0600), 0);
	assert_int_equal(symlink("sub/binary", "link"), 0);
	assert_int_equal(symlink("loop", "loop"), 0);
	begin(&outfiles, paths, ARRAY_LEN(paths), 100, 100);
	assert_int_equal(read_back(&outfiles), 1);
	is_told(&outfiles, true,
		"{\"text\":{\"text\":\"ä\\n\",\"bytes\":3},\"gone\":{\"error\":\"not_found\"},\"sub/binary\":{\"base64\":\"/w==\",\"bytes\":1},"
		"\"sub\":{\"error\":\"is_directory\"},\"pipe\":{\"error\":\"not_regular\"},\"/dev/zero\":{\"error\":\"not_regular\"},"
		"\"empty\":{\"text\":\"\",\"bytes\":0},\"link\":{\"base64\":\"/w==\",\"bytes\":1},\"loop\":{\"error\":\"not_found\"},"
		"\"text/below\":{\"error\":\"not_found\"},\"text\\\"2\":{\"text\":\"x\",\"bytes\":1}}");
	assert_int_equal(outfiles_bytes(&outfiles), 6);
	outfiles_deinit(&outfiles);
}

static void test_caps(void **state UNUSED)
{
	struct outfiles outfiles;
	const char *paths[] = {"five", "six", "5", "four", "3"};
	put("five", "55555", 5);
	put("5", "55555", 5);
	put("six", "666666", 6);
	put("four", "4444", 4);
	put("3", "333", 3);
	begin(&outfiles, paths, ARRAY_LEN(paths), 5, 13);
	assert_int_equal(read_back(&outfiles), 1);
	is_told(&outfiles, false,
		"{\"five\":{\"bytes\":5},\"six\":{\"error\":\"too_large\",\"bytes\":6},\"5\":{\"bytes\":5},"
		"\"four\":{\"error\":\"too_large\",\"bytes\":4},\"3\":{\"bytes\":3}}");
	outfiles_deinit(&outfiles);
}

#define LARGE (RECORD_READ_MAX * 2 + 1000)

static char large[LARGE];

static void test_large_ones_come_in_pieces(void **state UNUSED)
{
	struct outfiles outfiles;
	const char *paths[] = {"large", "small"};
	for (size_t i = 0; i < LARGE; i++)
		large[i] = (char)(i * 7919 >> 8);
	put("large", large, LARGE);
	put("small", "s", 1);
	begin(&outfiles, paths, 2, LARGE, 2 * LARGE);
	assert_int_equal(read_back(&outfiles), 3);
	assert_true(slice_equal(buf_peek(&outfiles.files[0].bytes), slice_of(large, LARGE)));
	is_told(&outfiles, false, "{\"large\":{\"bytes\":525288},\"small\":{\"bytes\":1}}");
	outfiles_deinit(&outfiles);
}

static void test_what_is_lost_is_asked_for_again(void **state UNUSED)
{
	struct outfiles outfiles;
	const char *paths[] = {"large"};
	put("large", large, LARGE);
	drop = 1;
	longest = (size_t)20 * 1024;
	begin(&outfiles, paths, 1, LARGE, LARGE);
	read_back(&outfiles);
	assert_true(slice_equal(buf_peek(&outfiles.files[0].bytes), slice_of(large, LARGE)));
	outfiles_deinit(&outfiles);

	longest = 0;
	begin(&outfiles, paths, 1, LARGE, LARGE);
	assert_int_equal(read_back(&outfiles), 7);
	is_told(&outfiles, true, "{\"large\":{\"error\":\"not_read\"}}");
	outfiles_deinit(&outfiles);
	longest = SIZE_MAX;
}

static void append(void)
{
	FILE *file = fopen("large", "a");
	assert_non_null(file);
	fputc('x', file);
	assert_int_equal(fclose(file), 0);
}

static void replace(void)
{
	put("other", large, LARGE);
	assert_int_equal(rename("other", "large"), 0);
}

static void vanish(void)
{
	(void)!unlink("large");
}

static void test_what_changes_is_told(void **state UNUSED)
{
	static void (*const changes[])(void) = {append, replace, vanish};
	static const char *const told[] = {"{\"large\":{\"error\":\"changed\"}}", "{\"large\":{\"error\":\"changed\"}}",
					   "{\"large\":{\"error\":\"not_found\"}}"};
	for (size_t i = 0; i < ARRAY_LEN(changes); i++) {
		struct outfiles outfiles;
		const char *paths[] = {"large"};
		put("large", large, LARGE);
		between = changes[i];
		begin(&outfiles, paths, 1, LARGE, LARGE);
		read_back(&outfiles);
		is_told(&outfiles, true, told[i]);
		outfiles_deinit(&outfiles);
	}
	between = NULL;
}

static void test_given_up(void **state UNUSED)
{
	struct outfiles outfiles;
	struct sandbox_command command;
	const char *paths[] = {"a", "b"};
	begin(&outfiles, paths, 2, 10, 10);
	assert_true(outfiles_next(&outfiles, &command));
	outfiles_give_up(&outfiles);
	assert_false(outfiles_next(&outfiles, &command));
	is_told(&outfiles, true, "{\"a\":{\"error\":\"not_read\"},\"b\":{\"error\":\"not_read\"}}");
	outfiles_deinit(&outfiles);
}

/* A Sprite may answer anything. */
static void test_replies_that_contradict_themselves(void **state UNUSED)
{
	static const struct {
		char kind;
		uint64_t size, len;
		unsigned sent;
		const char *told;
	} rows[] = {
		{'f', 3, 3, 3, "{\"a\":{\"bytes\":3}}"},
		{'f', 3, 4, 4, "{\"a\":{\"error\":\"not_read\"}}"},
		{'f', 3, 0, 0, "{\"a\":{\"error\":\"not_read\"}}"},
		{'f', 3, 3, 2, NULL},
		{'f', 11, 3, 3, "{\"a\":{\"error\":\"too_large\",\"bytes\":11}}"},
		{'f', INT64_MAX, 3, 3, "{\"a\":{\"error\":\"too_large\",\"bytes\":9223372036854775807}}"},
		{'f', (uint64_t)INT64_MAX + 1, 3, 3, NULL},
		{'n', 3, 3, 3, NULL},
		{'n', 0, 0, 0, "{\"a\":{\"error\":\"not_found\"}}"},
		{'?', 0, 0, 0, "{\"a\":{\"error\":\"not_read\"}}"},
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		CLEANUP(buf_deinit) struct buf reply = BUF_MAX(4096);
		struct outfiles outfiles;
		struct sandbox_command command;
		const char *paths[] = {"a"};
		begin(&outfiles, paths, 1, 10, 10);
		assert_true(outfiles_next(&outfiles, &command));
		assert_int_equal(buf_printf(&reply, "%s%c%016" PRIx64 "%016" PRIx64 "%064d\n%.*s%se%096d\n", outfiles.nonce, rows[i].kind,
					    rows[i].size, rows[i].len, 1, (int)rows[i].sent, "12345", outfiles.nonce, 0),
				 0);
		assert_int_equal(outfiles_reply(&outfiles, buf_peek(&reply)), 0);
		assert_int_equal(outfiles_replied(&outfiles, 0), 0);
		if (rows[i].told)
			is_told(&outfiles, false, rows[i].told);
		assert_int_equal(outfiles_next(&outfiles, &command), !rows[i].told);
		outfiles_deinit(&outfiles);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kinds),
		cmocka_unit_test(test_caps),
		cmocka_unit_test(test_large_ones_come_in_pieces),
		cmocka_unit_test(test_what_is_lost_is_asked_for_again),
		cmocka_unit_test(test_what_changes_is_told),
		cmocka_unit_test(test_given_up),
		cmocka_unit_test(test_replies_that_contradict_themselves),
	};
	if (!mkdtemp(folder) || chdir(folder) < 0)
		return 1;
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	const char *const names[] = {"text", "text\"2", "empty", "sub/binary", "sub", "pipe",  "link", "loop",
				     "five", "5",       "six",   "four",       "3",   "large", "small"};
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		(void)!remove(names[i]);
	return rmdir(folder) < 0 ? 1 : failed;
}
