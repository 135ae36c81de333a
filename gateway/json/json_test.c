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
	assert_false(parses("{\"a\":1,\"a\":2}", "same name"));
	assert_false(parses("1 2", NULL));
	assert_false(parses("\"\\u0000\"", NULL));
	assert_false(parses("\"\xff\"", NULL));
	assert_false(parses("NaN", NULL));
}

/* Each names its place. */
static void test_failures(void **state UNUSED)
{
	static const struct {
		const char *text, *why, *pointer;
	} rows[] = {
		{"", "ends too early", ""},
		{"{\"a\":", "ends too early", "/a"},
		{"{\"a\":{\"b\":1,\"c\":2,\"b\":3}}", "same name", "/a/b"},
		{"{\"x\":[1,[2],{\"a/b~\":\"\\u0000\"}]}", "\\u0000", "/x/2/a~1b~0"},
		{"[{\"a\\u0000\":1}]", "\\u0000", "/0"},
		{"[0,1,\"\xff\"]", "not UTF-8", "/2"},
		{"{\"a\":1}{", "something follows", ""},
		{"{\"a\":1,\"b\":[0,1e999,0]}", "too large", "/b/1"},
		{"{\"a\":1000000000000000000000,\"b\":0}", "too large", "/a"},
		{"{\"a\":tru}", "syntax", "/a"},
		{"{\"a\":[[[[1]]]]}", "nested deeper", "/a/0/0/0"},
		{"}],]", "syntax", ""},
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct json_failure failure;
		assert_null(json_parse(slice_str(rows[i].text), 4, &failure));
		if (!strstr(failure.text, rows[i].why) || strcmp(failure.pointer, rows[i].pointer) != 0)
			fail_msg("%s: \"%s\" at \"%s\"", rows[i].text, failure.text, failure.pointer);
	}
}

static void test_reals(void **state UNUSED)
{
	struct json_failure failure;
	CLEANUP(json_decref_ptr) json_t *value = json_parse_reals(SLICE("[7,1000000000000000000000000000000]"), 4, &failure);
	assert_true(json_number_value(json_array_get(value, 0)) == 7);
	assert_true(json_number_value(json_array_get(value, 1)) > 9e29);
	assert_null(json_parse_reals(SLICE("[1e999]"), 4, &failure));
}

/* What we have written: with NUL, and where only the rest is asked for with numbers of any size. */
static void test_own(void **state UNUSED)
{
	struct json_failure failure;
	const struct slice text = SLICE("[7,\"a\\u0000\"]"), large = SLICE("[9223372036854775808,\"a\\u0000\"]");
	CLEANUP(json_decref_ptr) json_t *value = json_parse_own(text, 4, &failure), *reals = json_parse_own_reals(large, 4, &failure);
	assert_int_equal(json_integer_value(json_array_get(value, 0)), 7);
	assert_int_equal(json_string_length(json_array_get(value, 1)), 2);
	assert_true(json_number_value(json_array_get(reals, 0)) > 9e18);
	assert_int_equal(json_string_length(json_array_get(reals, 1)), 2);
	assert_null(json_parse_own(large, 4, &failure));
}

/* Whatever stands there, and wherever it is cut. */
static void test_pointers_of_anything(void **state UNUSED)
{
	static const char text[] = "{\"a\":[{\"\\\"\":[[]]},,}]{[\"b:{[\",\"\\";
	char deep[400], pointer[JSON_POINTER_LEN];
	for (size_t len = 0; len < sizeof text; len++)
		json_pointer_at(slice_of(text, len), pointer);
	for (size_t i = 0; i < sizeof deep; i++)
		deep[i] = i % 2 ? '"' : "{[,"[i % 3];
	for (size_t len = 0; len < sizeof deep; len++) {
		json_pointer_at(slice_of(deep, len), pointer);
		assert_true(strlen(pointer) < JSON_POINTER_LEN);
	}
	memset(deep, '{', sizeof deep);
	memcpy(deep + 200, "\"a\"", 3);
	json_pointer_at(slice_of(deep, sizeof deep), pointer);
	assert_string_equal(pointer, "");
	memset(deep, '[', sizeof deep);
	json_pointer_at(slice_of(deep, sizeof deep), pointer);
	assert_int_equal(strlen(pointer), 2 * 64);
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
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_strict),
					   cmocka_unit_test(test_failures),
					   cmocka_unit_test(test_reals),
					   cmocka_unit_test(test_own),
					   cmocka_unit_test(test_pointers_of_anything),
					   cmocka_unit_test(test_depth),
					   cmocka_unit_test(test_values)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
