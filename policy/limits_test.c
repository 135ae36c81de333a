#include "policy/limits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>

#define UNSET UINT64_C(0xDEAD)

static uint64_t duration(const char *text, int want)
{
	uint64_t ms = UNSET;
	assert_int_equal(limits_duration(slice_str(text), 1, LIMITS_DAY_MS, &ms), want);
	return ms;
}

static void test_durations(void **state UNUSED)
{
	assert_int_equal(duration("500ms", 0), 500);
	assert_int_equal(duration("60s", 0), 60000);
	assert_int_equal(duration("5m", 0), 300000);
	assert_int_equal(duration("2h", 0), 7200000);
	assert_int_equal(duration("1d", 0), LIMITS_DAY_MS);
	assert_int_equal(duration("86400s", 0), LIMITS_DAY_MS);
	assert_int_equal(duration("86401s", -ERANGE), UNSET);
	assert_int_equal(duration("0s", -ERANGE), UNSET);
	assert_int_equal(duration("99999999999999999999d", -ERANGE), UNSET);
	assert_int_equal(duration("18446744073709551615d", -ERANGE), UNSET);
	static const char *const bad[] = {"",    "60",   "s",   "60 s",  " 60s",  "60s ", "-1s",
					  "+1s", "1.5s", "60S", "1h30m", "60sec", "1w",   "0x1s"};
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(duration(bad[i], -EINVAL), UNSET);
}

static void test_rates(void **state UNUSED)
{
	static const struct {
		const char *text;
		uint64_t count, per_ms;
	} good[] = {
		{"60/1m", 60, 60000},         {"60/m", 60, 60000}, {"10/30s", 10, 30000}, {"1/365d", 1, 365 * LIMITS_DAY_MS},
		{"1000000/s", 1000000, 1000}, {"5/h", 5, 3600000}, {"1/1000ms", 1, 1000},
	};
	struct limits_rate rate;
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		assert_int_equal(limits_rate(slice_str(good[i].text), &rate), 0);
		assert_int_equal(rate.count, good[i].count);
		assert_int_equal(rate.per_ms, good[i].per_ms);
	}
	static const char *const malformed[] = {"", "60", "60/", "/1m", "60/x", "60/1", "60/1m/1m", "60 / 1m", "-60/1m", "60/0x1s", "a/1m"};
	for (size_t i = 0; i < ARRAY_LEN(malformed); i++)
		assert_int_equal(limits_rate(slice_str(malformed[i]), &rate), -EINVAL);
	static const char *const outside[] = {"0/1m", "1000001/1m", "1/0s", "1/366d", "1/500ms", "1/ms", "1/1500ms"};
	for (size_t i = 0; i < ARRAY_LEN(outside); i++)
		assert_int_equal(limits_rate(slice_str(outside[i]), &rate), -ERANGE);
}

static void test_budgets(void **state UNUSED)
{
	uint64_t ms = UNSET;
	assert_int_equal(limits_budget(SLICE("600s/day"), 1, UINT64_MAX, &ms), 0);
	assert_int_equal(ms, 600000);
	assert_int_equal(limits_budget(SLICE("2h/day"), 1, UINT64_MAX, &ms), 0);
	assert_int_equal(ms, 7200000);
	static const char *const bad[] = {"", "600s", "600s/", "600s/d", "600s/hour", "600/day", "/day", "600s/day ", "600s/day/day"};
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(limits_budget(slice_str(bad[i]), 1, UINT64_MAX, &ms), -EINVAL);
	assert_int_equal(limits_budget(SLICE("1s/day"), 2000, 3000, &ms), -ERANGE);
	assert_int_equal(ms, 7200000);
}

static void test_bytes(void **state UNUSED)
{
	static const struct {
		const char *text;
		int result;
		uint64_t bytes;
	} cases[] = {
		{"4096", 0, 4096},
		{"64KiB", 0, 65536},
		{"1MiB", 0, 1048576},
		{"2GiB", 0, UINT64_C(1) << 31},
		{"0", -ERANGE, UNSET},
		{"1KB", -EINVAL, UNSET},
		{"1mib", -EINVAL, UNSET},
		{"1 MiB", -EINVAL, UNSET},
		{"1.5MiB", -EINVAL, UNSET},
		{"MiB", -EINVAL, UNSET},
		{"", -EINVAL, UNSET},
		{"5000GiB", -ERANGE, UNSET},
		{"18446744073709551615GiB", -ERANGE, UNSET},
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		uint64_t bytes = UNSET;
		assert_int_equal(limits_bytes(slice_str(cases[i].text), 1, UINT64_C(1) << 40, &bytes), cases[i].result);
		assert_int_equal(bytes, cases[i].bytes);
	}
}

static void test_writing(void **state UNUSED)
{
	static const struct {
		uint64_t value;
		const char *duration, *bytes;
	} cases[] = {
		{0, "0ms", "0"},
		{1, "1ms", "1"},
		{1500, "1500ms", "1500"},
		{60000, "1m", "60000"},
		{90000, "90s", "90000"},
		{LIMITS_DAY_MS, "1d", "84375KiB"},
		{1048576, "1048576ms", "1MiB"},
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		char text[LIMITS_TEXT_LEN + 1];
		limits_write_duration(cases[i].value, text);
		assert_string_equal(text, cases[i].duration);
		limits_write_bytes(cases[i].value, text);
		assert_string_equal(text, cases[i].bytes);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_durations), cmocka_unit_test(test_rates),   cmocka_unit_test(test_budgets),
		cmocka_unit_test(test_bytes),     cmocka_unit_test(test_writing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
