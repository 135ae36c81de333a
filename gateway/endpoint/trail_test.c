#include "gateway/endpoint/trail.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void check(const char *body, const char *sha256, const char *text)
{
	struct exec_request *request = NULL;
	struct buf faults = BUF_MAX(48 * 1024);
	struct json_failure failure;
	struct trail trail;
	assert_int_equal(exec_request_parse(slice_str(body), NULL, &request, &faults, &failure), 0);
	assert_int_equal(trail_take(&trail, request, true), 0);
	assert_string_equal(trail.sha256, sha256);
	assert_true(slice_equal(buf_peek(&trail.command), slice_str(text)));
	trail_deinit(&trail);
	assert_int_equal(trail_take(&trail, request, false), 0);
	assert_string_equal(trail.sha256, sha256);
	assert_int_equal(trail.command.len, 0);
	trail_deinit(&trail);
	buf_deinit(&faults);
	exec_request_free(request);
}

/* As `printf 'bash\0-lc\0true\0' | sha256sum` has it. */
static void test_a_shell_line(void **state UNUSED)
{
	check("{\"command\":\"true\"}", "09b4b3e88d3e604944ca6c63fbda99cffc979c4a24ea446d0bd7c4507de28a7d", "\"true\"");
}

static void test_arguments(void **state UNUSED)
{
	check("{\"argv\":[\"ls\",\"-l a\"]}", "a949a7c28c4f5d7e8b34b598db8df0e02baa54f3d4481f4c8aa76217df9bc2d3", "[\"ls\",\"-l a\"]");
	check("{\"argv\":[\"ls\",\"-l\",\"a\"]}", "a93ea036eb79867bf2ce2b53e65fd2a37871a29676ce244e3dc028d1d05d2888",
	      "[\"ls\",\"-l\",\"a\"]");
	/* The same command said in two ways has one name. */
	check("{\"argv\":[\"bash\",\"-lc\",\"true\"]}", "09b4b3e88d3e604944ca6c63fbda99cffc979c4a24ea446d0bd7c4507de28a7d",
	      "[\"bash\",\"-lc\",\"true\"]");
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_a_shell_line), cmocka_unit_test(test_arguments)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
