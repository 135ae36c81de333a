#include "gateway/json/json.h"

#include "gateway/base/buf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static bool parses(const char *text, const char *why)
{
	struct json_failure failure = {.text = ""};
	CLEANUP(json_decref_ptr) json_t *value = json_parse(slice_str(text), 4, &failure);
	if (why && !strstr(failure.text, why))
		fail_msg("%s: \"%s\" is not in \"%s\"", text, why, failure.text);
	return value;
}

static void test_strict(void **state UNUSED)
{
	assert_true(parses("{\"a\":[1,2.5,true,null,\"x\"]}", NULL));
	assert_true(parses(" 7 ", NULL));
	assert_false(parses("", NULL));
	assert_false(parses("{\"a\":1,\"a\":2}", "duplicate"));
	assert_false(parses("1 2", NULL));
	assert_false(parses("\"\\u0000\"", NULL));
	assert_false(parses("\"\xff\"", NULL));
	assert_false(parses("NaN", NULL));
}

static void test_depth(void **state UNUSED)
{
	assert_true(parses("[[[[1]]]]", NULL));
	assert_false(parses("[[[[[1]]]]]", "nested deeper than 4"));
	assert_true(parses("[\"[[[[[[\",\"\\\"[[[[[\"]", NULL));
}

/* A small text with many values would take a hundred times its size in memory. */
static void test_values(void **state UNUSED)
{
	static const char *const elements[] = {"0", "[]", "{}", "\",,,,\""};
	for (size_t i = 0; i < ARRAY_LEN(elements); i++) {
		CLEANUP(buf_deinit) struct buf text = BUF_MAX(4 * 1024 * 1024);
		assert_int_equal(buf_printf(&text, "[%s", elements[i]), 0);
		for (int n = 1; n < JSON_MAX_VALUES / 2 - 1; n++)
			assert_int_equal(buf_printf(&text, ",%s", elements[i]), 0);
		struct json_failure failure;
		assert_int_equal(buf_append_char(&text, ']'), 0);
		json_t *value = json_parse(buf_peek(&text), 4, &failure);
		assert_int_equal(json_array_size(value), JSON_MAX_VALUES / 2 - 1);
		json_decref(value);
		text.len--;
		for (int n = 0; n < JSON_MAX_VALUES; n++)
			assert_int_equal(buf_printf(&text, ",%s", elements[i]), 0);
		assert_int_equal(buf_append_char(&text, ']'), 0);
		assert_null(json_parse(buf_peek(&text), 4, &failure));
		assert_non_null(strstr(failure.text, "more than"));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_strict), cmocka_unit_test(test_depth), cmocka_unit_test(test_values)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
