#include "gateway/mcp/origin.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static bool allowed(const char *host, const char *origin, const char *hosts)
{
	struct http_fields fields = {0};
	if (origin)
		assert_int_equal(http_fields_add(&fields, SLICE("Origin"), slice_str(origin)), 0);
	return mcp_origin_is_allowed(&fields, slice_str(host), slice_str(hosts));
}

static void test_loopback(void **state UNUSED)
{
	static const char *const hosts[] = {"localhost", "LOCALHOST:80", "127.0.0.1:8080", "[::1]", "[::1]:1"};
	for (size_t i = 0; i < ARRAY_LEN(hosts); i++) {
		assert_true(allowed(hosts[i], NULL, ""));
		assert_true(allowed(hosts[i], "http://localhost:5173", ""));
		assert_true(allowed(hosts[i], "https://[::1]", ""));
	}
}

static void test_foreign(void **state UNUSED)
{
	static const char *const names[] = {
		"evil.example", "localhost.evil.example", "evil-localhost", "127.0.0.1.evil.example", "[::2]", "", "localhost:x"};
	for (size_t i = 0; i < ARRAY_LEN(names); i++) {
		char origin[80] = "http://";
		strcat(origin, names[i]);
		assert_false(allowed(names[i], NULL, "data.example"));
		assert_false(allowed("localhost", origin, "data.example"));
	}
	assert_false(allowed("localhost", "null", ""));
	assert_false(allowed("localhost", "", ""));
	assert_false(allowed("localhost", "localhost", ""));
	assert_false(allowed("localhost", "chrome-extension://localhost", ""));
	assert_false(allowed("localhost", "http://user@localhost", ""));
	assert_false(allowed("localhost", "http://localhost, http://localhost", ""));
	/* Of the same origin, which is what a rebound name looks like. */
	assert_false(allowed("evil.example", "http://evil.example", ""));
}

static void test_setting(void **state UNUSED)
{
	assert_true(allowed("Data.Example:443", "https://data.example", "data.example"));
	assert_true(allowed("b.example", "https://a.example:8443", "a.example, b.example"));
	assert_true(allowed("localhost", "https://a.example", "a.example"));
	assert_false(allowed("data.example", "https://evil.example", "data.example"));
	assert_false(allowed("a.example", NULL, "data.example"));
	assert_true(mcp_hosts_are_valid(SLICE("")));
	assert_true(mcp_hosts_are_valid(SLICE("a.example, b.example,[::1],10.0.0.1")));
	static const char *const wrong[] = {"https://a.example", "a.example:80", "a.example,,b", "a b", "*.example/", ","};
	for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
		assert_false(mcp_hosts_are_valid(slice_str(wrong[i])));
}

static void test_two_origins(void **state UNUSED)
{
	struct http_fields fields = {0};
	assert_int_equal(http_fields_add(&fields, SLICE("Origin"), SLICE("http://localhost")), 0);
	assert_int_equal(http_fields_add(&fields, SLICE("Origin"), SLICE("http://localhost")), 0);
	assert_false(mcp_origin_is_allowed(&fields, SLICE("localhost"), SLICE("")));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_loopback),
		cmocka_unit_test(test_foreign),
		cmocka_unit_test(test_setting),
		cmocka_unit_test(test_two_origins),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
