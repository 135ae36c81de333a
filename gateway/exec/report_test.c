#include "gateway/exec/report.h"

#include "gateway/base/buf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdio.h>

#define SIZES              \
	"00000000000000ff" \
	"0000000100000000" \
	"0000000000000107"

static struct report report;
static struct buf out;

static int set_up(void **state UNUSED)
{
	out = BUF_MAX(1 << 16);
	int r = report_init(&report);
	snprintf(report.nonce, sizeof report.nonce, "%s", "0123456789abcdef0123456789abcdef");
	return r;
}

static int tear_down(void **state UNUSED)
{
	buf_deinit(&out);
	return 0;
}

/* In pieces of `step`; what is passed on is collected. */
static void feed(struct slice bytes, size_t step)
{
	for (; bytes.len; bytes = slice_from(bytes, step)) {
		struct slice parts[2];
		report_feed(&report, slice_of(bytes.data, bytes.len < step ? bytes.len : step), parts);
		assert_int_equal(buf_append(&out, parts[0]), 0);
		assert_int_equal(buf_append(&out, parts[1]), 0);
	}
}

static void check_out(struct slice wanted)
{
	assert_int_equal(out.len, wanted.len);
	assert_true(slice_equal(buf_peek(&out), wanted));
	buf_deinit(&out);
}

#define REPORT \
	"\x1e" \
	"0123456789abcdef0123456789abcdef" SIZES

static void test_report(void **state UNUSED)
{
	static const struct slice outputs[] = {{"", 0},
					       {"hello\n", 6},
					       {"\x1e", 1},
					       {"\x1e"
						"0123",
						5},
					       {"a\x1e\x1e\x1e", 4},
					       {"a\0b", 3}};
	char text[256];
	for (size_t i = 0; i < ARRAY_LEN(outputs); i++)
		for (size_t step = 1; step < 100; step++) {
			uint64_t numbers[REPORT_NUMBERS];
			struct slice rest;
			memcpy(text, outputs[i].data, outputs[i].len);
			memcpy(text + outputs[i].len, REPORT, sizeof REPORT - 1);
			feed(slice_of(text, outputs[i].len + sizeof REPORT - 1), step);
			assert_true(report_end(&report, numbers, &rest));
			assert_int_equal(rest.len, 0);
			assert_true(numbers[0] == 255 && numbers[1] == UINT64_C(1) << 32 && numbers[2] == RECORD_OWN_END + 7);
			check_out(outputs[i]);
		}
}

/* Whatever is none comes out as it was. */
static void test_none(void **state UNUSED)
{
	static const struct slice outputs[] = {
		SLICE(""),
		SLICE("hello"),
		SLICE("\x1e"),
		SLICE("\x1e"
		      "0123456"),
		SLICE("\x1e"
		      "0123456789abcdef0123456789abcdee" SIZES),
		SLICE("\x1e"
		      "0123456789abcdef0123456789abcdef"
		      "00000000000000fF"
		      "0000000100000000"),
		SLICE(REPORT "more"),
		SLICE(REPORT REPORT "\n"),
	};
	for (size_t i = 0; i < ARRAY_LEN(outputs); i++)
		for (size_t step = 1; step < 140; step++) {
			uint64_t numbers[REPORT_NUMBERS];
			struct slice rest;
			feed(outputs[i], step);
			assert_false(report_end(&report, numbers, &rest));
			assert_int_equal(buf_append(&out, rest), 0);
			check_out(outputs[i]);
		}
}

/* A report that was cut off is not taken for output. */
static void test_cut(void **state UNUSED)
{
	for (size_t len = 9; len < sizeof REPORT - 1; len++) {
		uint64_t numbers[REPORT_NUMBERS];
		struct slice rest;
		feed(SLICE("out"), 1);
		feed(slice_of(REPORT, len), 7);
		assert_false(report_end(&report, numbers, &rest));
		assert_int_equal(rest.len, 0);
		check_out(SLICE("out"));
	}
}

/* No command writes so much, and not every reader of JSON takes it. */
static void test_numbers_that_cannot_be(void **state UNUSED)
{
	static const char *const rows[] = {"8000000000000000"
					   "0000000000000000"
					   "0000000000000000",
					   "0000000000000000"
					   "ffffffffffffffff"
					   "0000000000000000"};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		uint64_t numbers[REPORT_NUMBERS];
		struct slice rest;
		feed(SLICE("out\x1e"
			   "0123456789abcdef0123456789abcdef"),
		     7);
		feed(slice_str(rows[i]), 7);
		assert_false(report_end(&report, numbers, &rest));
		assert_int_equal(rest.len, 0);
		check_out(SLICE("out"));
	}
}

/* Ordinary output is not held back. */
static void test_at_once(void **state UNUSED)
{
	feed(SLICE("a prompt> "), 3);
	check_out(SLICE("a prompt> "));
	feed(SLICE("x\x1e"
		   "0"),
	     1);
	check_out(SLICE("x"));
	feed(SLICE("y"), 1);
	check_out(SLICE("\x1e"
			"0y"));
}

static void test_nonces_differ(void **state UNUSED)
{
	struct report other;
	assert_int_equal(report_init(&report), 0);
	assert_int_equal(report_init(&other), 0);
	assert_int_equal(strlen(report.nonce), RECORD_NONCE_LEN);
	assert_string_not_equal(report.nonce, other.nonce);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(test_report, set_up, tear_down),
					   cmocka_unit_test_setup_teardown(test_numbers_that_cannot_be, set_up, tear_down),
					   cmocka_unit_test_setup_teardown(test_none, set_up, tear_down),
					   cmocka_unit_test_setup_teardown(test_cut, set_up, tear_down),
					   cmocka_unit_test_setup_teardown(test_at_once, set_up, tear_down),
					   cmocka_unit_test_setup_teardown(test_nonces_differ, set_up, tear_down)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
