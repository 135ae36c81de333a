#include "gateway/base/trace.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>

#define ID   "4bf92f3577b34da6a3ce929d0e0e4736"
#define SPAN "00f067aa0ba902b7"

static int parse(const char *text, struct trace *trace)
{
	*trace = (struct trace){.id = "untouched"};
	return trace_parse(slice_str(text), trace);
}

static void test_parents(void **state UNUSED)
{
	static const struct {
		const char *text;
		bool sampled;
	} good[] = {
		{"00-" ID "-" SPAN "-01", true},   {"00-" ID "-" SPAN "-00", false},
		{"00-" ID "-" SPAN "-03", true},  /* random, as in level 2 */
		{"00-" ID "-" SPAN "-02", false},  {"00-" ID "-" SPAN "-ff", true},
		{"01-" ID "-" SPAN "-01", true},   {"cc-" ID "-" SPAN "-01-what the future brings", true},
		{"cc-" ID "-" SPAN "-00-", false},
	};
	struct trace trace;
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		assert_int_equal(parse(good[i].text, &trace), 0);
		assert_string_equal(trace.id, ID);
		assert_string_equal(trace.parent, SPAN);
		assert_int_equal(trace.sampled, good[i].sampled);
	}
}

static void test_what_is_no_parent(void **state UNUSED)
{
	static const char *const bad[] = {
		"",
		"00",
		"00-" ID "-" SPAN,
		"00-" ID "-" SPAN "-0",
		"00-" ID "-" SPAN "-011",
		"00-" ID "-" SPAN "-01-",
		"00-" ID "-" SPAN "-01-more",
		"cc-" ID "-" SPAN "-01.more",
		"ff-" ID "-" SPAN "-01",
		"0x-" ID "-" SPAN "-01",
		"00-" ID "-" SPAN "-0X",
		"00-4BF92F3577B34DA6A3CE929D0E0E4736-" SPAN "-01",
		"00-" ID "-00F067AA0BA902B7-01",
		"00-00000000000000000000000000000000-" SPAN "-01",
		"00-" ID "-0000000000000000-01",
		"00_" ID "-" SPAN "-01",
		"00-" ID "_" SPAN "-01",
		"00-" ID "-" SPAN "_01",
		" 00-" ID "-" SPAN "-01",
		"00-" ID "-" SPAN "-01 ",
		"00-4bf92f3577b34da6a3ce929d0e0e473g-" SPAN "-01",
	};
	struct trace trace;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		assert_int_equal(parse(bad[i], &trace), -EINVAL);
		assert_string_equal(trace.id, "untouched");
	}
}

static void test_a_trace_begins(void **state UNUSED)
{
	struct trace trace;
	trace_begin(SLICE("01234567-89ab-7cde-8f01-23456789abcd"), &trace);
	assert_string_equal(trace.id, "0123456789ab7cde8f0123456789abcd");
	assert_string_equal(trace.parent, "");
	assert_true(trace.sampled);
	trace_begin((struct slice){0}, &trace);
	assert_string_equal(trace.id, "");
}

static void test_what_is_written_can_be_read(void **state UNUSED)
{
	struct trace trace, read;
	char span[TRACE_SPAN_LEN + 1], other[TRACE_SPAN_LEN + 1], text[TRACE_PARENT_LEN + 1];
	assert_int_equal(parse("00-" ID "-" SPAN "-00", &trace), 0);
	assert_int_equal(trace_span_id(span), 0);
	assert_int_equal(trace_span_id(other), 0);
	assert_string_not_equal(span, other);
	for (int sampled = 0; sampled < 2; sampled++) {
		trace.sampled = sampled;
		trace_format(&trace, span, text);
		assert_int_equal(parse(text, &read), 0);
		assert_string_equal(read.id, ID);
		assert_string_equal(read.parent, span);
		assert_int_equal(read.sampled, sampled);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parents),
		cmocka_unit_test(test_what_is_no_parent),
		cmocka_unit_test(test_a_trace_begins),
		cmocka_unit_test(test_what_is_written_can_be_read),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
