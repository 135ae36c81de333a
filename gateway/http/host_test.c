#include "gateway/http/host.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void test_valid(void **state UNUSED)
{
	static const char *const good[] = {"a",     "example.org", "example.org:80",  "h:",        "127.0.0.1:65535",
					   "[::1]", "[::1]:8080",  "[fe80::1.2.3.4]", "a_b-c~%41", "xn--bcher-kva.example"};
	static const char *const bad[] = {"",    ":80", "a:65536", "a:-1",    "a:1:2", "u@h", "a/b", "a b",      "a,b",      "[::1",
					  "::1", "[]",  "[::1]x",  "[::1]:x", "a:0x1", "a\"", "a\\", "[::1%lo]", "h\xc3\xa9"};
	for (size_t i = 0; i < ARRAY_LEN(good); i++)
		assert_true(http_host_is_valid(slice_str(good[i])));
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_false(http_host_is_valid(slice_str(bad[i])));
}

static void test_equal(void **state UNUSED)
{
	assert_true(http_host_equal(SLICE("A.example"), SLICE("a.Example:80"), SLICE("http")));
	assert_true(http_host_equal(SLICE("a:443"), SLICE("a"), SLICE("https")));
	assert_true(http_host_equal(SLICE("[::1]:8080"), SLICE("[::1]:8080"), SLICE("http")));
	assert_false(http_host_equal(SLICE("a:443"), SLICE("a"), SLICE("http")));
	assert_false(http_host_equal(SLICE("a"), SLICE("b"), SLICE("http")));
	assert_false(http_host_equal(SLICE("a:81"), SLICE("a:82"), SLICE("http")));
	assert_false(http_host_equal(SLICE("a"), SLICE("[::1"), SLICE("http")));
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_valid), cmocka_unit_test(test_equal)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
