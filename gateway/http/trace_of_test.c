#include "gateway/http/trace_of.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define PARENT "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"
#define OWN    "0123456789ab7cde8f0123456789abcd"

static bool read(const char *first, const char *second, struct trace *trace)
{
	struct http_fields fields = {0};
	struct http_head head = {.id = SLICE("01234567-89ab-7cde-8f01-23456789abcd"), .fields = &fields};
	assert_int_equal(http_fields_add(&fields, SLICE("Host"), SLICE("a")), 0);
	if (first)
		assert_int_equal(http_fields_add(&fields, SLICE("TraceParent"), slice_str(first)), 0);
	if (second)
		assert_int_equal(http_fields_add(&fields, SLICE("traceparent"), slice_str(second)), 0);
	return http_trace_of(&head, trace);
}

static void test_the_callers(void **state UNUSED)
{
	struct trace trace;
	assert_true(read(PARENT, NULL, &trace));
	assert_string_equal(trace.id, "4bf92f3577b34da6a3ce929d0e0e4736");
	assert_string_equal(trace.parent, "00f067aa0ba902b7");
	assert_false(trace.sampled);
}

static void test_one_that_begins(void **state UNUSED)
{
	static const char *const fields[][2] = {{NULL, NULL}, {"", NULL}, {PARENT "0", NULL}, {PARENT, PARENT}, {"nonsense", PARENT}};
	struct trace trace;
	for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
		assert_false(read(fields[i][0], fields[i][1], &trace));
		assert_string_equal(trace.id, OWN);
		assert_string_equal(trace.parent, "");
	}
}

static void test_before_there_is_a_head(void **state UNUSED)
{
	struct trace trace;
	assert_false(http_trace_of(&(struct http_head){0}, &trace));
	assert_string_equal(trace.id, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_the_callers), cmocka_unit_test(test_one_that_begins),
					   cmocka_unit_test(test_before_there_is_a_head)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
