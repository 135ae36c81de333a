#include "policy/record.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>

static const struct record full = {
	.mac = "m", .pep = "p", .status = "active", .actor = "ann", .name = "a b", .created = 1, .nbf = 2, .exp = UINT64_MAX,
	.scopes = "exec:run", .rate_n = 3, .rate_per_ms = 4, .burst = 5, .arate_n = 6, .arate_per_ms = 7, .aburst = 8, .conc = 9,
	.aconc = 10, .bud_ms = 11, .max_ms = 12, .max_out = 13, .max_in = 14, .cmds = "ls cat", .pol = "q", .ver = 15,
};

static void test_written_and_read_back(void **state UNUSED)
{
	struct slice args[2 * RECORD_FIELDS];
	char numbers[RECORD_FIELDS][21];
	struct record back = {0};
	size_t count = record_write(&full, args, numbers);
	assert_int_equal(count, 2 * 24);
	for (size_t i = 0; i < count; i += 2)
		assert_int_equal(record_read_field(&back, args[i], args[i + 1]), 0);
	assert_memory_equal(&back, &full, sizeof full);
}

static void test_absent_limits_are_left_out(void **state UNUSED)
{
	struct slice args[2 * RECORD_FIELDS];
	char numbers[RECORD_FIELDS][21];
	struct record record;
	record_set_defaults(&record);
	size_t count = record_write(&record, args, numbers);
	for (size_t i = 0; i < count; i += 2) {
		assert_false(slice_equal(args[i], SLICE("exp")));
		assert_false(slice_equal(args[i], SLICE("bud_ms")));
		assert_true(args[i + 1].len > 0);
	}
}

static void test_defaults(void **state UNUSED)
{
	struct record record;
	record_set_defaults(&record);
	assert_string_equal(record.scopes, "exec:run");
	assert_int_equal(record.rate_n, 60);
	assert_int_equal(record.rate_per_ms, 60000);
	assert_int_equal(record.burst, 10);
	assert_int_equal(record.conc, 3);
	assert_int_equal(record.max_ms, 300000);
	assert_int_equal(record.bud_ms + record.max_out + record.max_in, 0);
}

static void test_bad_fields(void **state UNUSED)
{
	struct record record = {0};
	char large[RECORD_CMDS_MAX + 2];
	memset(large, 'x', sizeof large);
	assert_int_equal(record_read_field(&record, SLICE("unknown"), SLICE("x")), 0);
	assert_int_equal(record_read_field(&record, SLICE("conc"), SLICE("x")), -EINVAL);
	assert_int_equal(record_read_field(&record, SLICE("conc"), SLICE("")), -EINVAL);
	assert_int_equal(record_read_field(&record, SLICE("conc"), SLICE("18446744073709551616")), -EINVAL);
	assert_int_equal(record_read_field(&record, SLICE("cmds"), slice_of(large, RECORD_CMDS_MAX + 1)), -EINVAL);
	assert_int_equal(record_read_field(&record, SLICE("cmds"), slice_of(large, RECORD_CMDS_MAX)), 0);
	assert_int_equal(record_read_field(&record, SLICE("actor"), SLICE("a\0b")), -EINVAL);
}

static void test_actors(void **state UNUSED)
{
	char large[RECORD_TEXT_MAX + 1];
	memset(large, 'x', sizeof large);
	assert_true(record_actor_is_valid(SLICE("ann")));
	assert_true(record_actor_is_valid(SLICE("team:ci/bot@example.org#1")));
	assert_true(record_actor_is_valid(slice_of(large, RECORD_TEXT_MAX)));
	assert_false(record_actor_is_valid(slice_of(large, RECORD_TEXT_MAX + 1)));
	static const char *const bad[] = {"", "a b", "a\"b", "a\\b", "a\nb", "\x7f", "j\xc3\xb6"};
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_false(record_actor_is_valid(slice_str(bad[i])));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_written_and_read_back), cmocka_unit_test(test_absent_limits_are_left_out),
		cmocka_unit_test(test_defaults),              cmocka_unit_test(test_bad_fields),
		cmocka_unit_test(test_actors),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
