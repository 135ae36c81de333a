#include "gateway/pool/demand.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define SECOND UINT64_C(1000000)

static struct demand demand;

static uint64_t come(uint64_t now_us, unsigned count, uint64_t every_us)
{
	for (unsigned i = 0; i < count; i++) {
		now_us += every_us;
		demand_claim(&demand, now_us);
	}
	return now_us;
}

static void rates(void **state)
{
	(void)state;
	demand_init(&demand, 1000 * SECOND);
	assert_true(demand_fast(&demand) == 0 && demand_slow(&demand) == 0);
	uint64_t now_us = come(1000 * SECOND, 600, SECOND);
	assert_true(demand_fast(&demand) == 1 && demand_slow(&demand) == 1);
	assert_false(demand_bursts(&demand));
	now_us = come(now_us, 120, SECOND / 2); /* a minute of two a second */
	assert_true(demand_fast(&demand) > 1.95 && demand_fast(&demand) <= 2);
	assert_true(demand_slow(&demand) > 1.05 && demand_slow(&demand) < 1.15);
	demand_pass(&demand, now_us + 61 * SECOND);
	assert_true(demand_fast(&demand) == 0);
	demand_pass(&demand, now_us + 601 * SECOND);
	assert_true(demand_slow(&demand) == 0);
}

static void a_burst_is_seen_at_once(void **state)
{
	(void)state;
	demand_init(&demand, 0);
	uint64_t now_us = come(0, 60, SECOND * 5);
	assert_false(demand_bursts(&demand));
	now_us = come(now_us, 12, SECOND / 10);
	assert_true(demand_bursts(&demand));
	assert_true(demand_fast(&demand) >= 2);
	demand_pass(&demand, now_us + 7 * SECOND);
	assert_false(demand_bursts(&demand));
	/* Two are none. */
	demand_init(&demand, 0);
	come(100 * SECOND, 2, 1);
	assert_false(demand_bursts(&demand));
}

static void the_rest_of_a_burst_is_foreseen(void **state)
{
	(void)state;
	demand_init(&demand, 0);
	come(100 * SECOND, 14, SECOND / 10);
	demand_pass(&demand, 1000 * SECOND);
	assert_false(demand_begins(&demand));
	assert_int_equal(demand_ahead(&demand), 0);
	/* The third claim is a burst; two were none. */
	come(1000 * SECOND, 2, SECOND / 3);
	assert_true(demand_begins(&demand));
	assert_int_equal(demand_ahead(&demand), 0);
	come(1000 * SECOND + 9 * SECOND / 10, 1, 1);
	assert_int_equal(demand_ahead(&demand), 11);
	come(1001 * SECOND, 10, 1);
	assert_int_equal(demand_ahead(&demand), 1);
	/* As large as the other, and larger: nothing more is expected. */
	come(1002 * SECOND, 3, 1);
	assert_int_equal(demand_ahead(&demand), 0);
	demand_pass(&demand, 1004 * SECOND);
	assert_int_equal(demand_ahead(&demand), 0);
	/* Not while claims come all the time. */
	demand_init(&demand, 0);
	come(100 * SECOND, 14, SECOND / 10);
	come(1000 * SECOND, 1, 1);
	come(1030 * SECOND, 3, 1);
	assert_true(demand_bursts(&demand));
	assert_false(demand_begins(&demand));
	assert_int_equal(demand_ahead(&demand), 0);
}

static void two_at_once_after_a_rest_are_a_burst(void **state)
{
	(void)state;
	demand_init(&demand, 0);
	come(100 * SECOND, 14, SECOND / 10);
	come(1000 * SECOND, 1, 1);
	assert_int_equal(demand_ahead(&demand), 0);
	come(1000 * SECOND + SECOND / 4, 1, 1);
	assert_int_equal(demand_ahead(&demand), 12);
	/* A rest is a minute without any. */
	come(1030 * SECOND, 2, SECOND / 10);
	assert_int_equal(demand_ahead(&demand), 0);
	/* A little further apart they may be chance. */
	come(2000 * SECOND, 1, 1);
	come(2000 * SECOND + SECOND / 4 + 1, 1, 1);
	assert_int_equal(demand_ahead(&demand), 0);
}

static void a_young_pool_knows_less(void **state)
{
	(void)state;
	demand_init(&demand, 0);
	come(0, 120, SECOND);
	assert_true(demand_slow(&demand) == 1);
}

/* Against counting from scratch. */
static void sums_and_maxima_are_right(void **state)
{
	(void)state;
	enum { SECONDS = 6000 };
	static unsigned came[SECONDS];
	unsigned most[DEMAND_WINDOWS] = {0};
	srand(7);
	demand_init(&demand, 0);
	for (unsigned s = 0; s < SECONDS; s++) {
		came[s] = rand() % 10 ? 0 : (unsigned)(rand() % 8);
		demand_pass(&demand, s * SECOND);
		come(s * SECOND, came[s], 1);
		for (size_t i = 0; i < DEMAND_WINDOWS; i++) {
			unsigned sum = 0;
			for (unsigned back = 0; back < demand_windows[i] && back <= s; back++)
				sum += came[s - back];
			most[i] = sum > most[i] ? sum : most[i];
			assert_int_equal(demand.sums[i], sum);
			assert_int_equal(demand_most(&demand, i), most[i]);
		}
	}
}

static void a_day_is_remembered(void **state)
{
	(void)state;
	demand_init(&demand, 0);
	come(0, 9, 1);
	/* In steps as in life, and at once as after a long sleep. */
	for (uint64_t hour = 1; hour <= 23; hour++)
		demand_pass(&demand, hour * 3600 * SECOND);
	assert_int_equal(demand_most(&demand, 0), 9);
	demand_pass(&demand, 24 * 3600 * SECOND);
	assert_int_equal(demand_most(&demand, 0), 0);
	come(30 * 3600 * SECOND, 5, 1);
	demand_pass(&demand, 53 * 3600 * SECOND);
	assert_int_equal(demand_most(&demand, 0), 5);
	demand_pass(&demand, 100 * 3600 * SECOND);
	assert_int_equal(demand_most(&demand, 0), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rates),
		cmocka_unit_test(a_burst_is_seen_at_once),
		cmocka_unit_test(the_rest_of_a_burst_is_foreseen),
		cmocka_unit_test(two_at_once_after_a_rest_are_a_burst),
		cmocka_unit_test(a_young_pool_knows_less),
		cmocka_unit_test(sums_and_maxima_are_right),
		cmocka_unit_test(a_day_is_remembered),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
