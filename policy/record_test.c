#include "policy/record.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>

static const struct record full = {
	.present = RECORD_BIT(RECORD_FIELDS) - 1,
	.mac = "m",
	.pep = "p",
	.pmac = "o",
	.pmac_until = 16,
	.created_by = "root",
	.bud_out = 17,
	.env_allow = "LANG",
	.ip_allow = "n",
	.shadow = "rate",
	.egress = "pypi.org",
	.sessions = 16,
	.status = "active",
	.actor = "ann",
	.name = "a b",
	.created = 1,
	.nbf = 2,
	.exp = UINT64_MAX,
	.scopes = "exec:run",
	.rate_n = 3,
	.rate_per_ms = 4,
	.burst = 5,
	.arate_n = 6,
	.arate_per_ms = 7,
	.aburst = 8,
	.conc = 9,
	.aconc = 10,
	.bud_ms = 11,
	.max_ms = 12,
	.max_out = 13,
	.max_in = 14,
	.max_procs = 16,
	.max_file = 17,
	.max_mem = 18,
	.cmds = "ls cat",
	.pol = "q",
	.ver = 15,
};

static void test_written_and_read_back(void **state UNUSED)
{
	struct slice args[2 * RECORD_FIELDS];
	char numbers[RECORD_FIELDS][21];
	struct record back = {0};
	size_t count = record_write(&full, args, numbers);
	assert_int_equal(count, 2 * RECORD_FIELDS);
	for (size_t i = 0; i < count; i += 2)
		assert_int_equal(record_read_field(&back, args[i], args[i + 1]), 0);
	assert_memory_equal(&back, &full, sizeof full);
}

static void test_absent_limits_are_left_out(void **state UNUSED)
{
	struct slice args[2 * RECORD_FIELDS];
	char numbers[RECORD_FIELDS][21];
	struct record record;
	record = (struct record){0};
	record_fill(&record);
	size_t count = record_write(&record, args, numbers);
	for (size_t i = 0; i < count; i += 2) {
		assert_false(slice_equal(args[i], SLICE("exp")));
		assert_false(slice_equal(args[i], SLICE("bud_ms")));
		assert_true(args[i + 1].len > 0);
	}
}

static struct record filled(struct record record)
{
	record_fill(&record);
	return record;
}

#define GIVEN(field) RECORD_BIT(RECORD_##field)

static void test_defaults(void **state UNUSED)
{
	struct record record = filled((struct record){0});
	char problem[RECORD_PROBLEM];
	assert_string_equal(record.scopes, "exec:run");
	assert_int_equal(record.rate_n, 60);
	assert_int_equal(record.rate_per_ms, 60000);
	assert_int_equal(record.burst, 10);
	assert_int_equal(record.conc, 3);
	assert_int_equal(record.max_ms, 300000);
	assert_int_equal(record.bud_ms + record.max_out + record.max_in + record.max_procs + record.max_file + record.max_mem, 0);
	assert_true(record_is_usable(&record, problem));
}

static void test_defaults_follow_each_other(void **state UNUSED)
{
	const uint64_t rate = GIVEN(RATE_N) | GIVEN(RATE_PER_MS);
	assert_int_equal(filled((struct record){.present = rate, .rate_n = 5, .rate_per_ms = 3600000}).burst, 5);
	assert_int_equal(filled((struct record){.present = rate | GIVEN(BURST), .rate_n = 5, .rate_per_ms = 3600000, .burst = 8}).burst, 8);
	assert_int_equal(filled((struct record){.present = GIVEN(ARATE_N) | GIVEN(BURST), .arate_n = 9, .burst = 8}).aburst, 8);
	assert_int_equal(filled((struct record){.present = GIVEN(BUD_MS), .bud_ms = 20000}).max_ms, 20000);
	assert_int_equal(filled((struct record){.present = GIVEN(BUD_MS), .bud_ms = 3600000}).max_ms, 300000);
	assert_int_equal(filled((struct record){.present = GIVEN(BUD_OUT), .bud_out = 1001}).max_out, 500);
	assert_int_equal(filled((struct record){.present = GIVEN(BUD_OUT), .bud_out = UINT64_C(1) << 30}).max_out, 0);
}

static void unusable(struct record record, const char *why)
{
	char problem[RECORD_PROBLEM];
	record_fill(&record);
	assert_false(record_is_usable(&record, problem));
	assert_string_equal(problem, why);
}

static void test_what_no_command_could_run_under(void **state UNUSED)
{
	const uint64_t rate = GIVEN(RATE_N) | GIVEN(RATE_PER_MS) | GIVEN(BURST);
	unusable((struct record){.present = GIVEN(CONC)}, "rate, burst, conc, max-run and scope must be there");
	unusable((struct record){.present = GIVEN(ABURST), .aburst = 3}, "--actor-burst needs --actor-rate");
	unusable((struct record){.present = rate, .rate_n = 1, .rate_per_ms = UINT64_C(31536000000), .burst = 2},
		 "--burst is too large for --rate: the burst must come back within 365d");
	unusable((struct record){.present = GIVEN(ARATE_N), .arate_n = 1},
		 "--actor-burst is too large for --actor-rate: the burst must come back within 365d");
	unusable((struct record){.present = GIVEN(BUD_MS) | GIVEN(MAX_MS), .bud_ms = 10000, .max_ms = 20000},
		 "--max-run is longer than --budget allows in a day");
	unusable((struct record){.present = GIVEN(BUD_OUT) | GIVEN(MAX_OUT), .bud_out = 1000, .max_out = 501},
		 "--max-out, for both streams, is more than --budget-out allows in a day");
}

static void test_copied_fields(void **state UNUSED)
{
	struct record record = {.present = GIVEN(CONC) | GIVEN(ACTOR), .conc = 3, .actor = "ann"};
	record_copy(&record, &full, GIVEN(CMDS));
	assert_string_equal(record.cmds, "ls cat");
	assert_int_equal(record.present, GIVEN(CONC) | GIVEN(ACTOR) | GIVEN(CMDS));
	record_copy(&record, &(struct record){0}, GIVEN(CONC) | GIVEN(CMDS));
	assert_int_equal(record.present, GIVEN(ACTOR));
	assert_int_equal(record.conc + (uint64_t)record.cmds[0], 0);
}

static void test_bad_fields(void **state UNUSED)
{
	struct record record = {0};
	char large[RECORD_CMDS_MAX + 2];
	memset(large, 'x', sizeof large);
	assert_int_equal(record_read_field(&record, SLICE("unknown"), SLICE("x")), -EINVAL);
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
		cmocka_unit_test(test_written_and_read_back),
		cmocka_unit_test(test_absent_limits_are_left_out),
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_bad_fields),
		cmocka_unit_test(test_actors),
		cmocka_unit_test(test_defaults_follow_each_other),
		cmocka_unit_test(test_what_no_command_could_run_under),
		cmocka_unit_test(test_copied_fields),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
