#include "gateway/exec/source.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void test_paths_that_are_taken(void **state UNUSED)
{
	static const char *const targets[] = {"/",
					      "/x",
					      "/x/",
					      "/db/t.csv?_stream=on&x=/../y",
					      "/db/t~2Fx",
					      "/-/actor.json",
					      "/-/agents",
					      "/%2D/actor",
					      "/db/a%20b.c",
					      "/...",
					      "/.x",
					      "/-/x/agent",
					      "/x/-/agent",
					      "/%c3%a9",
					      "/?a//b",
					      "/agent/exec",
					      "/-/static/a%2fb"};
	for (size_t i = 0; i < ARRAY_LEN(targets); i++)
		if (source_fault(slice_str(targets[i])))
			fail_msg("%s %s", targets[i], source_fault(slice_str(targets[i])));
}

static void test_paths_that_are_refused(void **state UNUSED)
{
	static const char *const targets[] = {"",
					      "x",
					      "?x",
					      "*",
					      "//x",
					      "/x//y",
					      "/x/../y",
					      "/..",
					      "/x/.",
					      "/./x",
					      "/%2e%2E/x",
					      "/x%2f..%2fy",
					      "/x%2f%2fy",
					      "/x\\y",
					      "/x%5cy",
					      "/x y",
					      "/x\ty",
					      "/x#y",
					      "/\xc3\xa9",
					      "/x%00",
					      "/x%0ay",
					      "/x%7f",
					      "/x%",
					      "/x%2",
					      "/x%g0",
					      "http://h/x",
					      "h:80",
					      "/-/agent",
					      "/-/agent/x",
					      "/-/AGENT/exec",
					      "/%2d/agent/x",
					      "/-%2fagent/x",
					      "/-/a%67ent/exec",
					      "/-/agent/exec",
					      "/-/gateway/health"};
	for (size_t i = 0; i < ARRAY_LEN(targets); i++)
		if (!source_fault(slice_str(targets[i])))
			fail_msg("%s is taken", targets[i]);
}

static void test_paths_that_rows_go_to(void **state UNUSED)
{
	static const struct {
		const char *path;
		bool taken, creates;
	} rows[] = {
		{"/db/-/create", true, true},
		{"/db/t/-/insert", true, false},
		{"/d~2Eb/t~20/-/upsert", true, false},
		{"/db/-/insert", false, false},
		{"/db/t/-/create", false, false},
		{"/db/t/-/drop", false, false},
		{"/db/-/create/", false, false},
		{"/db/-/create?x", false, false},
		{"/db/%74/-/insert", false, false},
		{"/-/t/-/insert", false, false},
		{"/db/-/-/insert", false, false},
		{"/-/-/create", false, false},
		{"/db/t/1/-/update", false, false},
		{"//db/-/create", false, false},
		{"/db/../-/create", false, false},
		{"http://h/db/-/create", false, false},
		{"/-/agent/-/insert", false, false},
		{"/db", false, false},
		{"", false, false},
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		bool creates = false;
		if (!source_rows_fault(slice_str(rows[i].path), &creates) != rows[i].taken || (rows[i].taken && creates != rows[i].creates))
			fail_msg("%s is %staken", rows[i].path, rows[i].taken ? "not " : "");
	}
}

static void test_length(void **state UNUSED)
{
	char target[8193];
	memset(target, 'a', sizeof target);
	target[0] = '/';
	assert_null(source_fault(slice_of(target, sizeof target - 1)));
	assert_non_null(source_fault(slice_of(target, sizeof target)));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_paths_that_are_taken),
		cmocka_unit_test(test_paths_that_are_refused),
		cmocka_unit_test(test_paths_that_rows_go_to),
		cmocka_unit_test(test_length),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
