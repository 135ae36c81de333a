#include "policy/resp.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <hiredis/hiredis.h>
#include <stdlib.h>
#include <string.h>

#define LONGEST 100001

static void assert_as_hiredis(int argc, const char **argv, const size_t *lengths)
{
	char *text = NULL, *want = NULL;
	size_t len = 0;
	assert_int_equal(resp_command(argc, argv, lengths, &text, &len), 0);
	long long want_len = redisFormatCommandArgv(&want, argc, argv, lengths);
	assert_int_equal(len, want_len);
	assert_memory_equal(text, want, len + 1);
	free(text);
	redisFreeCommand(want);
}

static void test_a_command(void **state)
{
	(void)state;
	const char *argv[] = {"SET", "", "a\r\n\0b"};
	const size_t lengths[] = {3, 0, 5};
	char *text = NULL;
	size_t len = 0;
	static const char want[] = "*3\r\n$3\r\nSET\r\n$0\r\n\r\n$5\r\na\r\n\0b\r\n";
	assert_int_equal(resp_command(3, argv, lengths, &text, &len), 0);
	assert_int_equal(len, sizeof want - 1);
	assert_memory_equal(text, want, len);
	free(text);
	assert_as_hiredis(3, argv, lengths);
}

static void test_every_number_of_digits(void **state)
{
	(void)state;
	static const size_t sizes[] = {1, 9, 10, 11, 99, 100, 101, 999, 1000, 1001, 9999, 10000, 10001, 99999, 100000, LONGEST};
	char *value = calloc(1, LONGEST);
	assert_non_null(value);
	for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
		const char *argv[] = {"ECHO", value};
		const size_t lengths[] = {4, sizes[i]};
		assert_as_hiredis(2, argv, lengths);
	}
	free(value);
}

static void test_many_arguments(void **state)
{
	(void)state;
	const char *argv[101];
	size_t lengths[101];
	for (int argc = 1; argc <= 101; argc++) {
		argv[argc - 1] = "argument";
		lengths[argc - 1] = (size_t)argc % 9;
		assert_as_hiredis(argc, argv, lengths);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_command),
		cmocka_unit_test(test_every_number_of_digits),
		cmocka_unit_test(test_many_arguments),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
