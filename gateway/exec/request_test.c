#include "gateway/exec/launch.h"
#include "gateway/exec/request.h"
#include "gateway/sprites/record.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdlib.h>

static struct exec_request *parse(const char *body, int expected, const char *fault)
{
	CLEANUP(buf_deinit) struct buf faults = BUF_MAX(4096);
	struct exec_request *request = NULL;
	struct json_failure failure;
	int r = exec_request_parse(slice_str(body), NULL, &request, &faults, &failure);
	if (r == EXEC_REQUEST_MALFORMED)
		assert_int_equal(buf_append(&faults, slice_str(failure.text)), 0);
	if (fault && !memmem(faults.data ? faults.data : "", faults.len, fault, strlen(fault)))
		fail_msg("%s: \"%s\" is not in: %.*s", body, fault, SLICE_FMT(buf_peek(&faults)));
	assert_int_equal(r, expected);
	return request;
}

static void test_fields(void **state UNUSED)
{
	struct exec_request *request = parse("{\"command\":\"echo hi\",\"stdin\":\"in\",\"env\":{\"A\":\"1\",\"B_2\":\"x y\"},"
					     "\"cwd\":\"/tmp\",\"timeout_seconds\":1.5,\"max_output_bytes\":10}",
					     0, NULL);
	assert_string_equal(request->command, "echo hi");
	assert_string_equal(exec_request_program(request), "bash");
	assert_true(slice_equal(buf_peek(&request->input), SLICE("in")));
	assert_int_equal(request->env_count, 2);
	assert_string_equal(request->env[1], "B_2=x y");
	assert_string_equal(request->cwd, "/tmp");
	assert_int_equal(request->timeout_ms, 1500);
	assert_true(request->has_max_output);
	assert_int_equal(request->max_output_bytes, 10);
	exec_request_free(request);
}

/* Beyond 64 bits as well: it is lowered later, like every wish that is too large. */
static void test_large_numbers(void **state UNUSED)
{
	struct exec_request *request = parse("{\"command\":\"a\",\"max_output_bytes\":1000000000000000000000000000000}", 0, NULL);
	assert_true(request->has_max_output);
	assert_true(request->max_output_bytes >= 1000000000000000000);
	exec_request_free(request);
	request = parse("{\"command\":\"a\",\"max_output_bytes\":9007199254740993,\"timeout_seconds\":7}", 0, NULL);
	assert_true(request->max_output_bytes >= 9007199254740992);
	assert_int_equal(request->timeout_ms, 7000);
	exec_request_free(request);
	parse("{\"command\":\"a\",\"timeout_seconds\":1000000000000000000000000000000}", EXEC_REQUEST_INVALID, "/timeout_seconds");
	parse("{\"command\":\"a\",\"max_output_bytes\":-1000000000000000000000000000000}", EXEC_REQUEST_INVALID, "must not be negative");
	parse("{\"command\":\"a\",\"max_output_bytes\":0.5}", EXEC_REQUEST_INVALID, "is a number with a fraction");
}

static void test_argv_and_base64(void **state UNUSED)
{
	struct exec_request *request = parse("{\"argv\":[\"printf\",\"%s\",\"\"],\"stdin\":{\"base64\":\"AAH/\"}}", 0, NULL);
	assert_int_equal(request->argc, 3);
	assert_string_equal(request->argv[1], "%s");
	assert_string_equal(exec_request_program(request), "printf");
	assert_true(slice_equal(buf_peek(&request->input), slice_of("\x00\x01\xff", 3)));
	assert_int_equal(request->timeout_ms, 0);
	assert_false(request->has_max_output);
	exec_request_free(request);
}

static void test_files(void **state UNUSED)
{
	struct exec_request *request =
		parse("{\"command\":\"a\",\"stdin\":\"in\",\"files\":{\"a/b\":\"text\",\"/c\":{\"base64\":\"AAH/\",\"mode\":\"755\"},"
		      "\"d\":{\"datasette\":\"/x\"},\"e\":{\"text\":\"\",\"mode\":\"0600\"},\"f\":{\"text\":\"f\"}}}",
		      0, NULL);
	assert_int_equal(request->file_count, 5);
	assert_int_equal(exec_request_input(request), 2 + 4 + 3 + 1);
	assert_true(exec_request_fetches(request) && exec_request_fetches_files(request) && !request->input_from);
	assert_string_equal(request->files[0].path, "a/b");
	assert_int_equal(request->files[0].mode, 0644);
	assert_int_equal(request->files[1].mode, 0755);
	assert_true(slice_equal(buf_peek(&request->files[1].bytes), slice_of("\x00\x01\xff", 3)));
	assert_string_equal(request->files[2].from, "/x");
	assert_int_equal(request->files[3].mode, 0600);
	exec_request_free(request);
}

static void test_malformed(void **state UNUSED)
{
	static const char *const bodies[] = {"",
					     "{",
					     "{\"command\":\"a\"} x",
					     "{\"command\":\"a\",\"command\":\"b\"}",
					     "{\"command\":\"\\u0000\"}",
					     "{\"command\":\"\xff\"}",
					     "nul"};
	for (size_t i = 0; i < ARRAY_LEN(bodies); i++)
		parse(bodies[i], EXEC_REQUEST_MALFORMED, NULL);
	char deep[128];
	memset(deep, '[', 64);
	memset(deep + 64, ']', 63);
	deep[127] = '\0';
	parse(deep, EXEC_REQUEST_MALFORMED, "nested deeper");
}

static void test_invalid(void **state UNUSED)
{
	static const struct {
		const char *body, *fault;
	} rows[] = {
		{"[]", "must be an object, is an array"},
		{"{}", "must have command or argv"},
		{"{\"command\":\"a\",\"argv\":[\"a\"]}", "both command and argv"},
		{"{\"command\":1}", "\"pointer\":\"/command\",\"detail\":\"must be a string, is an integer\""},
		{"{\"command\":\"\"}", "must not be empty"},
		{"{\"argv\":[]}", "/argv"},
		{"{\"argv\":[\"\"]}", "/argv/0"},
		{"{\"argv\":[\"a\",2]}", "/argv/1"},
		{"{\"command\":\"a\",\"stdin\":5}", "/stdin"},
		{"{\"command\":\"a\",\"stdin\":{\"base64\":\"A\"}}", "/stdin/base64"},
		{"{\"command\":\"a\",\"stdin\":{\"base64\":\"QQ==\",\"x\":1}}", "/stdin"},
		{"{\"command\":\"a\",\"stdin\":{\"datasette\":1}}", "/stdin"},
		{"{\"command\":\"a\",\"stdin\":{\"datasette\":\"/x\",\"base64\":\"\"}}", "/stdin"},
		{"{\"command\":\"a\",\"stdin\":{\"datasette\":\"x\"}}", "/stdin/datasette"},
		{"{\"command\":\"a\",\"files\":[]}", "/files"},
		{"{\"command\":\"a\",\"files\":{\"\":\"x\"}}", "/files/"},
		{"{\"command\":\"a\",\"files\":{\"/\":\"x\"}}", "/files/~1"},
		{"{\"command\":\"a\",\"files\":{\"a/\":\"x\"}}", "/files/a~1"},
		{"{\"command\":\"a\",\"files\":{\"a/../b\":\"x\"}}", "/files/a~1..~1b"},
		{"{\"command\":\"a\",\"files\":{\"..\":\"x\"}}", "/files/.."},
		{"{\"command\":\"a\",\"files\":{\"//a\":\"x\"}}", "empty part"},
		{"{\"command\":\"a\",\"files\":{\"a\":1}}", "\"/files/a\",\"detail\":\"must be a string"},
		{"{\"command\":\"a\",\"files\":{\"a\":{}}}", "/files/a"},
		{"{\"command\":\"a\",\"files\":{\"a\":{\"text\":\"x\",\"base64\":\"\"}}}", "/files/a"},
		{"{\"command\":\"a\",\"stdin\":{\"text\":\"x\"}}", "/stdin"},
		{"{\"command\":\"a\",\"files\":{\"a\":{\"mode\":\"644\"}}}", "/files/a"},
		{"{\"command\":\"a\",\"files\":{\"a\":{\"base64\":\"?\"}}}", "/files/a/base64"},
		{"{\"command\":\"a\",\"files\":{\"a\":{\"datasette\":\"x\"}}}", "/files/a/datasette"},
		{"{\"command\":\"a\",\"files\":{\"a\":{\"text\":\"\",\"mode\":\"1000\"}}}", "/files/a/mode"},
		{"{\"command\":\"a\",\"files\":{\"a\":{\"text\":\"\",\"mode\":\"\"}}}", "/files/a/mode"},
		{"{\"command\":\"a\",\"files\":{\"a\":{\"text\":\"\",\"mode\":\"9\"}}}", "/files/a/mode"},
		{"{\"command\":\"a\",\"files\":{\"a\":{\"text\":\"\",\"mode\":644}}}", "/files/a/mode"},
		{"{\"command\":\"a\",\"env\":[]}", "/env"},
		{"{\"command\":\"a\",\"env\":{\"1A\":\"x\"}}", "/env/1A"},
		{"{\"command\":\"a\",\"env\":{\"A=B\":\"x\"}}", "/env/A=B"},
		{"{\"command\":\"a\",\"env\":{\"A\":1}}", "/env/A"},
		{"{\"command\":\"a\",\"env\":{\"SPRITEGATE_EXEC_ID\":\"x\"}}", "reserved"},
		{"{\"command\":\"a\",\"cwd\":\"tmp\"}", "/cwd"},
		{"{\"command\":\"a\",\"timeout_seconds\":0}", "/timeout_seconds"},
		{"{\"command\":\"a\",\"timeout_seconds\":-1}", "/timeout_seconds"},
		{"{\"command\":\"a\",\"timeout_seconds\":\"1\"}", "/timeout_seconds"},
		{"{\"command\":\"a\",\"max_output_bytes\":1.5}", "/max_output_bytes"},
		{"{\"command\":\"a\",\"max_output_bytes\":-1}", "/max_output_bytes"},
		{"{\"command\":\"a\",\"nope\":1}", "/nope"},
		{"{\"command\":\"a\",\"a/b~c\":1}", "\"/a~1b~0c\""},
		{"{\"command\":\"a\",\"env\":{\"a/b\":\"x\"}}", "\"/env/a~1b\""},
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		parse(rows[i].body, EXEC_REQUEST_INVALID, rows[i].fault);
}

static void test_limits(void **state UNUSED)
{
	size_t len = EXEC_MAX_ARG_BYTES + 1;
	char *body = malloc(len + 64);
	memcpy(body, "{\"command\":\"", 12);
	memset(body + 12, 'a', len);
	memcpy(body + 12 + len, "\"}", 3);
	parse(body, EXEC_REQUEST_INVALID, "the limit is 131071");
	memcpy(body + 12 + len - 1, "\"}", 3);
	exec_request_free(parse(body, 0, NULL));
	free(body);
}

/* However much is wrong, the answer is the caller's 422 and fits. */
static void test_many_faults(void **state UNUSED)
{
	CLEANUP(buf_deinit) struct buf body = BUF_MAX(1024 * 1024), faults = BUF_MAX(48 * 1024);
	assert_int_equal(buf_append(&body, SLICE("{\"argv\":[0")), 0);
	for (int i = 1; i < 1024; i++)
		assert_int_equal(buf_append(&body, SLICE(",0")), 0);
	assert_int_equal(buf_append_char(&body, ']'), 0);
	for (int i = 0; i < 3000; i++)
		assert_int_equal(buf_printf(&body, ",\"\\u0001\\u0001field%d\":1", i), 0);
	assert_int_equal(buf_append_char(&body, '}'), 0);
	struct exec_request *request = NULL;
	struct json_failure failure;
	assert_int_equal(exec_request_parse(buf_peek(&body), NULL, &request, &faults, &failure), EXEC_REQUEST_INVALID);
	CLEANUP(json_decref_ptr) json_t *list = json_parse(buf_peek(&faults), 32, &failure);
	assert_true(json_array_size(list) >= 1 && json_array_size(list) <= 32);
}

/* Each variable is small enough, all of them are not. */
static void test_sum(void **state UNUSED)
{
	CLEANUP(buf_deinit) struct buf body = BUF_MAX(4 * 1024 * 1024);
	char value[60001];
	memset(value, 'v', sizeof value - 1);
	value[sizeof value - 1] = '\0';
	assert_int_equal(buf_append(&body, SLICE("{\"command\":\"a\",\"env\":{\"A\":\"\"")), 0);
	for (int i = 0; i < 18; i++)
		assert_int_equal(buf_printf(&body, ",\"V%d\":\"%s\"", i, value), 0);
	assert_int_equal(buf_append(&body, SLICE("}}")), 0);
	CLEANUP(free_ptr) char *text = buf_take_string(&body);
	parse(text, EXEC_REQUEST_INVALID, "\"/env\",\"detail\":\"arguments and variables have");
}

/* Every batch has them. */
static void test_names_of_rows(void **state UNUSED)
{
	char name[EXEC_MAX_ROWS_NAME + 2], body[8192];
	memset(name, 'n', sizeof name - 1);
	name[sizeof name - 1] = '\0';
	snprintf(body, sizeof body, "{\"command\":\"a\",\"stdout_to\":{\"datasette\":\"/d/-/create\",\"table\":\"%s\"}}", name);
	parse(body, EXEC_REQUEST_INVALID, "\"/stdout_to/table\",\"detail\":\"has a name of 256 bytes, the limit is 255");
	snprintf(body, sizeof body,
		 "{\"command\":\"a\",\"stdout_to\":{\"datasette\":\"/d/-/create\",\"table\":\"t\",\"pk\":[\"a\",\"%s\"]}}", name);
	parse(body, EXEC_REQUEST_INVALID, "\"/stdout_to/pk\",\"detail\":\"has a name of 256 bytes, the limit is 255");
	CLEANUP(buf_deinit) struct buf many = BUF_MAX(8192);
	assert_int_equal(buf_printf(&many, "{\"command\":\"a\",\"stdout_to\":{\"datasette\":\"/d/-/create\",\"table\":\"t\",\"pk\":[\"a\""),
			 0);
	for (int i = 0; i < 1023; i++)
		assert_int_equal(buf_append(&many, SLICE(",\"b\"")), 0);
	assert_int_equal(buf_append(&many, SLICE("]}}")), 0);
	CLEANUP(free_ptr) char *text = buf_take_string(&many);
	parse(text, EXEC_REQUEST_INVALID, "\"/stdout_to/pk\",\"detail\":\"has 4097 bytes as JSON, the limit is 4096");
	/* As much as there may be, each byte as an escape. */
	CLEANUP(buf_deinit) struct buf most = BUF_MAX(8192);
	assert_int_equal(buf_printf(&most, "{\"command\":\"a\",\"stdout_to\":{\"datasette\":\"/d/-/create\",\"table\":\""), 0);
	for (int i = 0; i < EXEC_MAX_ROWS_NAME; i++)
		assert_int_equal(buf_append(&most, SLICE("\\u0001")), 0);
	assert_int_equal(buf_append(&most, SLICE("\",\"pk\":[\"a\"")), 0);
	for (int i = 0; i < 1022; i++)
		assert_int_equal(buf_append(&most, SLICE(",\"b\"")), 0);
	assert_int_equal(buf_append(&most, SLICE("],\"ignore\":false,\"replace\":false,\"alter\":false}}")), 0);
	CLEANUP(free_ptr) char *all = buf_take_string(&most);
	exec_request_free(parse(all, 0, NULL));
}

static void test_rows(void **state UNUSED)
{
	struct exec_request *request =
		parse("{\"command\":\"a\",\"stdout_to\":{\"datasette\":\"/db/-/create\",\"table\":\"t \\\"\",\"pk\":[\"a\",\"b\"],"
		      "\"ignore\":true,\"format\":\"csv\",\"skip_rows\":200}}",
		      0, NULL);
	assert_string_equal(request->rows_to.path, "/db/-/create");
	assert_int_equal(request->rows_to.format, ROWS_CSV);
	assert_int_equal(request->rows_to.skip, 200);
	assert_true(slice_equal(buf_peek(&request->rows_to.head),
				SLICE("{\"table\":\"t \\\"\",\"pks\":[\"a\",\"b\"],\"ignore\":true,\"rows\":[")));
	exec_request_free(request);
	request = parse("{\"command\":\"a\",\"stdout_to\":{\"datasette\":\"/db/t/-/insert\"}}", 0, NULL);
	assert_true(slice_equal(buf_peek(&request->rows_to.head), SLICE("{\"rows\":[")));
	exec_request_free(request);
	static const char *const wrong[][2] = {
		{"1", "\"/stdout_to\""},
		{"{}", "\"/stdout_to/datasette\""},
		{"{\"datasette\":\"/db/t\"}", "\"/stdout_to/datasette\""},
		{"{\"datasette\":\"/db/-/create\"}", "must have the table"},
		{"{\"datasette\":\"/db/-/create\",\"table\":1}", "\"/stdout_to/table\""},
		{"{\"datasette\":\"/db/-/create\",\"table\":\"t\",\"pk\":[]}", "\"/stdout_to/pk\""},
		{"{\"datasette\":\"/db/t/-/insert\",\"table\":\"t\"}", "\"/stdout_to/table\",\"detail\":\"belongs to"},
		{"{\"datasette\":\"/db/t/-/insert\",\"ignore\":1}", "\"/stdout_to/ignore\""},
		{"{\"datasette\":\"/db/t/-/insert\",\"format\":\"xml\"}", "\"/stdout_to/format\""},
		{"{\"datasette\":\"/db/t/-/insert\",\"skip_rows\":-1}", "\"/stdout_to/skip_rows\""},
		{"{\"datasette\":\"/db/t/-/insert\",\"skip_rows\":1.5}", "\"/stdout_to/skip_rows\""},
		{"{\"datasette\":\"/db/t/-/insert\",\"rows\":[]}", "\"/stdout_to/rows\",\"detail\":\"is not a field"},
	};
	for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
		char body[256];
		snprintf(body, sizeof body, "{\"command\":\"a\",\"stdout_to\":%s}", wrong[i][0]);
		parse(body, EXEC_REQUEST_INVALID, wrong[i][1]);
	}
}

static void test_parts(void **state UNUSED)
{
	static struct multipart parts;
	static const struct {
		const char *body, *detail; /* NULL = taken */
	} rows[] = {
		{"{\"command\":\"a\",\"stdin\":{\"part\":\"x\"},\"files\":{\"f\":{\"part\":\"y\",\"mode\":\"600\"}}}", NULL},
		{"{\"command\":\"a\",\"stdin\":{\"part\":\"x\"}}", "{\"pointer\":\"\",\"detail\":\"the part y is not used\"}"},
		{"{\"command\":\"a\",\"stdin\":{\"part\":\"x\"},\"files\":{\"f\":{\"part\":\"x\"}}}",
		 "\"/files/f/part\",\"detail\":\"the part is used twice\""},
		{"{\"command\":\"a\",\"stdin\":{\"part\":\"z\"}}", "\"/stdin/part\",\"detail\":\"there is no such part"},
		{"{\"command\":\"a\",\"stdin\":{\"part\":\"request\"}}", "\"/stdin/part\",\"detail\":\"there is no such part"},
		{"{\"command\":\"a\",\"stdin\":{\"part\":\"x\",\"sha256\":\"\"}}", "\"/stdin\""},
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		CLEANUP(buf_deinit) struct buf faults = BUF_MAX(64 * 1024);
		struct exec_request *request = NULL;
		struct json_failure failure;
		parts = (struct multipart){
			.parts = {{.name = "request"}, {.name = "x", .bytes = SLICE("in")}, {.name = "y", .bytes = SLICE("\0y")}},
			.count = 3};
		int r = exec_request_parse(slice_str(rows[i].body), &parts, &request, &faults, &failure);
		assert_int_equal(r, rows[i].detail ? EXEC_REQUEST_INVALID : 0);
		if (rows[i].detail && !memmem(buf_peek(&faults).data, faults.len, rows[i].detail, strlen(rows[i].detail)))
			fail_msg("%s: %.*s", rows[i].body, SLICE_FMT(buf_peek(&faults)));
		if (r == 0) {
			assert_true(slice_equal(buf_peek(&request->input), SLICE("in")));
			assert_true(slice_equal(buf_peek(&request->files[0].bytes), SLICE("\0y")));
			assert_int_equal(request->files[0].mode, 0600);
		}
		exec_request_free(request);
	}
	parse("{\"command\":\"a\",\"stdin\":{\"part\":\"x\"}}", EXEC_REQUEST_INVALID, "there is no such part");
}

static void test_launch(void **state UNUSED)
{
	struct exec_request *request = parse("{\"argv\":[\"a=b\",\"c\"],\"env\":{\"K\":\"v\"},\"stdin\":\"in\"}", 0, NULL);
	struct launch launch;
	assert_int_equal(launch_init(&launch, request, "id-1", &(struct launch_options){.nonce = SLICE("nonce")}), 0);
	static const char *const tail[] = {"/home/sprite", "2", "SPRITEGATE_EXEC_ID=id-1", "K=v", "a=b", "c"};
	for (int shim = 0; shim < 2; shim++) {
		struct sandbox_command command = launch_command(&launch, shim);
		size_t head = shim ? 1 : 4;
		assert_int_equal(command.argc, head + ARRAY_LEN(tail));
		assert_string_equal(command.argv[0], shim ? RECORD_SHIM : "bash");
		for (size_t i = 0; i < ARRAY_LEN(tail); i++)
			assert_string_equal(command.argv[head + i], tail[i]);
		assert_true(slice_equal(command.input, shim ? SLICE("nonce\nin") : SLICE("\nin")));
	}
	launch_deinit(&launch);
	exec_request_free(request);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fields), cmocka_unit_test(test_large_numbers), cmocka_unit_test(test_argv_and_base64),
		cmocka_unit_test(test_files),  cmocka_unit_test(test_malformed),     cmocka_unit_test(test_invalid),
		cmocka_unit_test(test_limits), cmocka_unit_test(test_launch),        cmocka_unit_test(test_many_faults),
		cmocka_unit_test(test_sum),    cmocka_unit_test(test_rows),          cmocka_unit_test(test_names_of_rows),
		cmocka_unit_test(test_parts),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
