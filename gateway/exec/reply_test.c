#include "gateway/exec/reply.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void test_bearer(void **state UNUSED)
{
	static const struct {
		const char *value, *token;
		int result;
	} rows[] = {
		{"Bearer abc", "abc", 0},
		{"bearer   a.b-c_~+/==", "a.b-c_~+/==", 0},
		{" Bearer abc ", "abc", 0},
		{"", NULL, EXEC_BEARER_MISSING},
		{"Basic abc", NULL, EXEC_BEARER_MISSING},
		{"Bearerabc", NULL, EXEC_BEARER_MISSING},
		{"Bearer", NULL, EXEC_BEARER_SYNTAX},
		{"Bearer ", NULL, EXEC_BEARER_SYNTAX},
		{"Bearer =", NULL, EXEC_BEARER_SYNTAX},
		{"Bearer a b", NULL, EXEC_BEARER_SYNTAX},
		{"Bearer a,b", NULL, EXEC_BEARER_SYNTAX},
		{"Bearer a\"", NULL, EXEC_BEARER_SYNTAX},
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct slice token;
		int r = exec_bearer_token(slice_str(rows[i].value), &token);
		if (r != rows[i].result)
			fail_msg("\"%s\": %d, expected %d", rows[i].value, r, rows[i].result);
		if (r == 0)
			assert_true(slice_equal(token, slice_str(rows[i].token)));
	}
}

static void test_media_type(void **state UNUSED)
{
	assert_true(exec_is_json(SLICE("application/json")));
	assert_true(exec_is_json(SLICE("Application/JSON; charset=utf-8")));
	assert_false(exec_is_json(SLICE("")));
	assert_false(exec_is_json(SLICE("text/plain")));
	assert_false(exec_is_json(SLICE("application/jsonx")));
}

static void test_retry_after(void **state UNUSED)
{
	assert_int_equal(exec_retry_after_seconds(0), 1);
	assert_int_equal(exec_retry_after_seconds(1), 1);
	assert_int_equal(exec_retry_after_seconds(1001), 2);
	assert_int_equal(exec_retry_after_seconds(10000), 10);
	for (int i = 0; i < 100; i++) {
		assert_in_range(exec_retry_after_seconds(100000), 100, 110);
		assert_in_range(exec_retry_after_seconds(3600000), 3600, 3630);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_bearer), cmocka_unit_test(test_media_type), cmocka_unit_test(test_retry_after)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
