#include "gateway/http/router.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void test_ours(void **state UNUSED)
{
	assert_int_equal(http_route_of(SLICE("/-/agent/exec")), HTTP_ROUTE_EXEC);
	assert_int_equal(http_route_of(SLICE("/-/agent/exec/")), HTTP_ROUTE_EXEC_SUB);
	assert_int_equal(http_route_of(SLICE("/-/agent/exec/quota")), HTTP_ROUTE_EXEC_SUB);
	assert_int_equal(http_route_of(SLICE("/-/agent/exec/../../x")), HTTP_ROUTE_EXEC_SUB);
	assert_int_equal(http_route_of(SLICE("/-/gateway/health")), HTTP_ROUTE_HEALTH);
}

static void test_other_spellings_are_refused(void **state UNUSED)
{
	static const char *const spellings[] = {
		"/-%2fagent%2fexec",     "/-/agent/%65xec",   "/-/AGENT/exec",          "/-/agent/Exec/quota",   "//-/agent/exec",
		"/-//agent/exec",        "/./-/agent/exec",   "/x/../-/agent/exec",     "/-/agent/exec;a=b",     "/-;x/agent/exec",
		"/-/agent/x/../exec",    "/-/agent/%2e/exec", "/-/agent/y/%2e%2e/exec", "\\-\\agent\\exec",      "/-/agent\\exec",
		"/-/agent/./exec/quota", "/%2D/agent/exec",   "/../../-/agent/exec",    "/-/agent/exec%2Fquota", "/-/agent/exec%2f..%2f..",
	};
	/* The last one folds away to /-/agent: it is not exec's. */
	for (size_t i = 0; i + 1 < ARRAY_LEN(spellings); i++)
		assert_int_equal(http_route_of(slice_str(spellings[i])), HTTP_ROUTE_AMBIGUOUS);
	assert_int_equal(http_route_of(slice_str(spellings[ARRAY_LEN(spellings) - 1])), HTTP_ROUTE_PROXY);
}

static void test_datasette(void **state UNUSED)
{
	static const char *const paths[] = {
		"/",
		"/-/agent",
		"/-/agent/execute",
		"/-/agent/exe",
		"/-/agent/explore",
		"/db/-/agent/exec",
		"/-/agent/01J8ZZZZZZZZZZZZZZZZZZZZZZ",
		"/-/agent/exec.json",
		"/a~2Fb",
		"/-/agent/exec%00",
		"/%2565xec",
		"/-/agent/%2565xec",
		"*",
		"",
	};
	for (size_t i = 0; i < ARRAY_LEN(paths); i++)
		assert_int_equal(http_route_of(slice_str(paths[i])), HTTP_ROUTE_PROXY);
}

static void test_labels(void **state UNUSED)
{
	static const struct {
		const char *path, *label;
	} cases[] = {
		{"/-/agent/exec", "exec"},
		{"/-/agent/exec/quota", "exec"},
		{"//-/agent/exec", "exec"},
		{"/-/gateway/health", "gateway"},
		{"/-/static/app.css", "static"},
		{"/favicon.ico", "static"},
		{"/db/t", "table"},
		{"/db/t.json", "table"},
		{"/db/t/1,2", "row"},
		{"/db", "other"},
		{"/", "other"},
		{"/-/versions.json", "other"},
		{"/db/-/query", "other"},
		{"/db/t/-/insert", "other"},
		{"/a/b/c/d", "other"},
		{"/db/", "other"},
		{"*", "other"},
		{"", "other"},
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++)
		assert_string_equal(http_route_label_name(http_route_label_of(slice_str(cases[i].path))), cases[i].label);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ours),
		cmocka_unit_test(test_other_spellings_are_refused),
		cmocka_unit_test(test_datasette),
		cmocka_unit_test(test_labels),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
