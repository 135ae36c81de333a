#include "gateway/http/chunk_line.h"

#include "gateway/base/slice.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#define WHOLE SIZE_MAX /* all that is there: more is needed */

static size_t digits_of(struct slice line)
{
	size_t digits = 0;
	while (digits < line.len && strchr("0123456789abcdefABCDEF", line.data[digits]) && line.data[digits])
		digits++;
	return digits;
}

/* In memory of its own, so that a look past the end shows. */
static size_t take(struct slice line, bool *refused)
{
	size_t digits = digits_of(line);
	char *copy = malloc(line.len ? line.len : 1);
	assert_non_null(copy);
	memcpy(copy, line.data, line.len);
	size_t taken = chunk_line_take(copy, line.len, digits);
	*refused = digits < line.len && copy[digits] != line.data[digits];
	assert_true(!*refused || (taken == digits && copy[digits] == '\0' && line.len >= digits + 2));
	free(copy);
	return taken;
}

static void check(struct slice line, size_t expected)
{
	bool refused;
	assert_int_equal(take(line, &refused), expected == WHOLE ? line.len : expected);
	assert_false(refused);
}

static void check_refused(struct slice line)
{
	bool refused;
	(void)take(line, &refused);
	assert_true(refused);
}

static void test_no_extension(void **state UNUSED)
{
	check(SLICE("3"), 1);
	check(SLICE("3\r"), 1);
	check(SLICE("3\r\nabc;"), 1);
	check(SLICE("3\nabc"), 1);
	check(SLICE("3x;a\r\n"), 1);
	/* The library refuses blanks without an extension. */
	check(SLICE("3 \r\nabc"), 1);
	check(SLICE("3\t\r"), 1);
	check(SLICE("3 x"), 1);
}

static void test_skipped(void **state UNUSED)
{
	check(SLICE("3;a=b\r\nabc\r\n0\r\n\r\n"), 5);
	check(SLICE("0;a\r\n\r\n"), 3);
	check(SLICE("00fF;\r\n"), 5);
	check(SLICE("3 \t; a = \"\xc3\xa9;\\\"\"\r\nabc"), strlen("3 \t; a = \"\xc3\xa9;\\\"\""));
}

static void test_cut_anywhere_it_waits(void **state UNUSED)
{
	struct slice line = SLICE("1a \t;a=\"b\";c\r\n");
	for (size_t len = 3; len < line.len; len++)
		check(slice_of(line.data, len), WHOLE);
	check(line, line.len - 2);
}

static void test_refused(void **state UNUSED)
{
	check_refused(SLICE("3;a\nabc"));
	check_refused(SLICE("3;\n"));
	check_refused(SLICE("3 ;a\rb\r\n"));
	check_refused(SLICE("3;a\r\r\n"));
	check_refused(SLICE("3;a\0b\r\n"));
	check_refused(SLICE("3;a\x01"));
	check_refused(SLICE("3;a\x7f\r\n"));
}

static void test_bound(void **state UNUSED)
{
	char line[1 + CHUNK_EXTENSION_MAX + 3];
	memset(line, ';', sizeof line);
	line[0] = '3';
	check(slice_of(line, 1 + CHUNK_EXTENSION_MAX), WHOLE);
	check_refused(slice_of(line, 1 + CHUNK_EXTENSION_MAX + 1));
	memcpy(line + 1 + CHUNK_EXTENSION_MAX, "\r\n", 2);
	check(slice_of(line, 1 + CHUNK_EXTENSION_MAX + 2), 1 + CHUNK_EXTENSION_MAX);
	memset(line + 1, ' ', sizeof line - 1);
	check(slice_of(line, 1 + CHUNK_EXTENSION_MAX), WHOLE);
	check_refused(slice_of(line, 1 + CHUNK_EXTENSION_MAX + 1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_no_extension), cmocka_unit_test(test_skipped), cmocka_unit_test(test_cut_anywhere_it_waits),
		cmocka_unit_test(test_refused),      cmocka_unit_test(test_bound),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
