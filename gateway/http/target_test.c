#include "gateway/http/target.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>

static void check(const char *raw, enum http_target_form form, const char *path, const char *query, const char *authority)
{
	struct http_target target;
	assert_int_equal(http_target_parse(slice_str(raw), &target), 0);
	assert_int_equal(target.form, form);
	assert_true(slice_equal(target.path, slice_str(path)));
	assert_true(slice_equal(target.query, slice_str(query)));
	assert_int_equal(target.query.data != NULL, query != NULL);
	assert_true(slice_equal(target.authority, slice_str(authority)));
}

static void test_forms(void **state UNUSED)
{
	check("/", HTTP_TARGET_ORIGIN, "/", NULL, NULL);
	check("/db/t.json?_size=1&q=a?b", HTTP_TARGET_ORIGIN, "/db/t.json", "_size=1&q=a?b", NULL);
	check("/?", HTTP_TARGET_ORIGIN, "/", "", NULL);
	check("//x/../%00;a", HTTP_TARGET_ORIGIN, "//x/../%00;a", NULL, NULL);
	check("/\"<>\\^{}|`", HTTP_TARGET_ORIGIN, "/\"<>\\^{}|`", NULL, NULL);
	check("*", HTTP_TARGET_ASTERISK, "*", NULL, NULL);
	check("http://h:1/a?b", HTTP_TARGET_ABSOLUTE, "/a", "b", "h:1");
	check("HTTPS://h", HTTP_TARGET_ABSOLUTE, "/", NULL, "h");
	struct http_target target;
	assert_int_equal(http_target_parse(SLICE("example.org:443"), &target), 0);
	assert_int_equal(target.form, HTTP_TARGET_AUTHORITY);
}

static void check_appended(const char *raw, const char *expected)
{
	struct buf out = BUF_MAX(64);
	assert_int_equal(http_target_append(slice_str(raw), &out), 0);
	assert_true(slice_equal(buf_peek(&out), slice_str(expected)));
	buf_deinit(&out);
}

static void test_an_empty_path_is_written_out(void **state UNUSED)
{
	check_appended("http://a?x", "http://a/?x");
	check_appended("HTTPS://a:1?", "HTTPS://a:1/?");
	check_appended("http://a?/?", "http://a/?/?");
	static const char *const same[] = {"",        "/",         "/?x",       "*",   "http://a", "http://a/?x", "http://a/b?c",
					   "http://", "http://?x", "ftp://a?x", "a:80"};
	for (size_t i = 0; i < ARRAY_LEN(same); i++)
		check_appended(same[i], same[i]);
	struct buf small = BUF_MAX(10);
	assert_int_equal(http_target_append(SLICE("http://a?x"), &small), -EMSGSIZE);
	buf_deinit(&small);
}

static void test_refused(void **state UNUSED)
{
	static const char *const bad[] = {"",     "a",       "a/b",      "/a b",     "/a\tb",    "/a\x01", "/a\x7f",    "/a\x80",
					  "/a#b", "http://", "http:///", "http://?", "ftp://h/", "**",     "http://h?q"};
	struct http_target target;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(http_target_parse(slice_str(bad[i]), &target), HTTP_TARGET_E_INVALID);
	assert_int_equal(http_target_parse(slice_of("/a\0b", 4), &target), HTTP_TARGET_E_INVALID);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_forms), cmocka_unit_test(test_an_empty_path_is_written_out),
					   cmocka_unit_test(test_refused)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
