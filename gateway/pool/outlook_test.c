#include "gateway/pool/outlook.h"

#include "gateway/base/attr.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void waiters_are_matched_with_what_comes(void **state)
{
	(void)state;
	static const uint64_t ready[] = {110, 150};
	static const struct {
		size_t position;
		uint64_t opens_us;
		size_t room;
		uint64_t at_us;
	} rows[] = {
		{0, 0, 0, 110},
		{1, 500, 0, 150},                 /* on its way: what holds creations back does not matter */
		{2, 0, 1, 130},                   /* created now */
		{2, 500, 1, 530},                 /* created when that is allowed */
		{2, 50, 1, 130},                  /* opened long ago */
		{3, 0, 1, 1130},                  /* after one turnover */
		{4, 0, 1, 1130},
		{6, 0, 1, 2130},                  /* after two: three at a time */
		{2, UINT64_MAX, 9, UINT64_MAX},
		{2, UINT64_MAX - 5, 9, UINT64_MAX},
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct budget unlimited = {0};
		struct outlook outlook = {.now_us = 100,
					  .budget = &unlimited,
					  .ready_us = ready,
					  .on_way = ARRAY_LEN(ready),
					  .opens_us = rows[i].opens_us,
					  .room = rows[i].room,
					  .max = 3,
					  .lead_us = 30,
					  .turnover_us = 1000};
		assert_true(outlook_ready_us(&outlook, rows[i].position) == rows[i].at_us);
	}
}

static void creations_are_spread_over_the_window(void **state)
{
	(void)state;
	/* Two of four in 200 µs are left: two at once, then one each 50 µs, or each 25 µs at best. */
	static const struct budget budget = {.ceiling = 8, .count = 4, .period_us = 200, .full_us = 200};
	static const struct {
		size_t position;
		uint64_t opens_us, expected_us, best_us;
	} rows[] = {{0, 0, 130, 130}, {1, 0, 130, 130},   {2, 0, 180, 130},   {3, 0, 230, 130},
		    {4, 0, 280, 155}, {0, 500, 530, 530}, {9, 500, 530, 530}, {12, 500, 680, 530}};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct outlook outlook = {
			.now_us = 100, .opens_us = rows[i].opens_us, .budget = &budget, .room = 100, .max = 100, .lead_us = 30};
		assert_int_equal(outlook_ready_us(&outlook, rows[i].position), rows[i].expected_us);
		outlook.optimistic = true;
		assert_int_equal(outlook_ready_us(&outlook, rows[i].position), rows[i].best_us);
	}
}

static void estimates_follow_what_is_measured(void **state)
{
	(void)state;
	struct estimate estimate = {0};
	assert_true(estimate_optimistic_us(&estimate) == 0);
	estimate_add(&estimate, 1000);
	assert_true(estimate.mean_us == 1000);
	assert_true(estimate_optimistic_us(&estimate) == 250);
	for (int i = 0; i < 100; i++)
		estimate_add(&estimate, 2000);
	assert_in_range(estimate.mean_us, 1990, 2000);
	assert_in_range(estimate_optimistic_us(&estimate), 1900, 2000);
	for (int i = 0; i < 1000; i++) {
		estimate_add(&estimate, i % 2 ? 100 : 4000);
		assert_true(estimate_optimistic_us(&estimate) <= estimate.mean_us);
	}
	assert_in_range(estimate.mean_us, 1500, 2600);
	assert_in_range(estimate_optimistic_us(&estimate), 375, 650);
	struct estimate zero = {0};
	for (int i = 0; i < 3; i++)
		estimate_add(&zero, 0);
	assert_true(zero.mean_us == 0 && estimate_optimistic_us(&zero) == 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(waiters_are_matched_with_what_comes),
		cmocka_unit_test(creations_are_spread_over_the_window),
		cmocka_unit_test(estimates_follow_what_is_measured),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
