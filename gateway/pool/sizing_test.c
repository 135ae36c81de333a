#include "gateway/pool/sizing.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define SECOND UINT64_C(1000000)

#define NEAR(value, expected) assert_true(fabs((value) - (expected)) < 1e-12)

static struct demand demand;
static double others_rate;

/* `count` claims at intervals of `every_ms`, up to now. */
static uint64_t come(uint64_t now_us, unsigned count, uint64_t every_ms)
{
	for (unsigned i = 0; i < count; i++) {
		now_us += every_ms * 1000;
		demand_claim(&demand, now_us);
	}
	return now_us;
}

static struct sizing decide(struct sizing_options options, enum spend_level level, size_t leased)
{
	struct sizing_input input = {
		.demand = &demand, .wake_s = 0.5, .supply_s = 2.5, .others_rate = others_rate, .level = level, .leased = leased};
	options.create_window_us = 60 * SECOND;
	return sizing_decide(&options, &input);
}

static void assert_sizes(struct sizing sizing, size_t hot, size_t warm)
{
	assert_int_equal(sizing.hot, hot);
	assert_int_equal(sizing.warm, warm);
}

#define AUTO .hot = SIZING_AUTO, .warm = SIZING_AUTO

/* (a^n / n!) / (sum of a^k / k! for k = 0 … n), worked out as fractions. */
static void erlang_b_is_exact(void **state)
{
	(void)state;
	NEAR(sizing_erlang_b(0, 1), 1);
	NEAR(sizing_erlang_b(1, 1), 1.0 / 2);
	NEAR(sizing_erlang_b(2, 1), 1.0 / 5);
	NEAR(sizing_erlang_b(3, 1), 1.0 / 16);
	NEAR(sizing_erlang_b(4, 1), 1.0 / 65);
	NEAR(sizing_erlang_b(5, 1), 1.0 / 326);
	NEAR(sizing_erlang_b(3, 2), 4.0 / 19);
	NEAR(sizing_erlang_b(2, 0.5), 1.0 / 13);
	NEAR(sizing_erlang_b(3, 0.5), 1.0 / 79);
	NEAR(sizing_erlang_b(5, 0), 0);
	assert_true(fabs(sizing_erlang_b(10, 10) - 0.21458) < 1e-5); /* as tables have it */
	assert_true(fabs(sizing_erlang_b(1000, 900) - 1.0e-4) < 1e-4);
}

static void the_stock_for_a_miss_rate(void **state)
{
	(void)state;
	static const struct {
		double offered;
		size_t stock[3]; /* for 5 %, 1 % and 0.1 % */
	} rows[] = {
		{0.25, {2, 3, 4}}, {0.5, {3, 4, 5}},   {1, {4, 5, 6}},     {2, {5, 7, 8}},
		{5, {9, 11, 14}},  {10, {15, 18, 21}}, {20, {26, 30, 35}},
	};
	static const double misses[] = {0.05, 0.01, 0.001};
	for (size_t row = 0; row < ARRAY_LEN(rows); row++)
		for (size_t i = 0; i < ARRAY_LEN(misses); i++) {
			size_t stock = sizing_stock(rows[row].offered, misses[i], 1000);
			assert_int_equal(stock, rows[row].stock[i]);
			assert_true(sizing_erlang_b(stock, rows[row].offered) <= misses[i]);
			assert_true(sizing_erlang_b(stock - 1, rows[row].offered) > misses[i]);
		}
	assert_int_equal(sizing_stock(0, 0.001, 1000), 0);
	assert_int_equal(sizing_stock(10, 0.001, 7), 7);
}

static void fixed_sizes_are_kept(void **state)
{
	(void)state;
	demand_init(&demand, 0);
	come(0, 500, 20);
	assert_sizes(decide((struct sizing_options){.hot = 2, .warm = 0, .max = 10}, SPEND_FREE, 0), 2, 0);
	assert_sizes(decide((struct sizing_options){.hot = 0, .warm = 0, .max = 10}, SPEND_FREE, 0), 0, 0);
	assert_sizes(decide((struct sizing_options){.hot = 0, .warm = 7, .max = 10}, SPEND_FREE, 9), 0, 7);
}

static void no_demand_keeps_nothing_running(void **state)
{
	(void)state;
	demand_init(&demand, 0);
	assert_sizes(decide((struct sizing_options){AUTO, .max = 40}, SPEND_FREE, 0), 0, 1);
	/* A claim is worth a running member for a minute, which costs as much as one wake. */
	uint64_t now_us = come(0, 30, 90000);
	assert_int_equal(decide((struct sizing_options){AUTO, .max = 40}, SPEND_FREE, 0).hot, 1);
	demand_pass(&demand, now_us + 61 * SECOND);
	assert_sizes(decide((struct sizing_options){AUTO, .max = 40}, SPEND_FREE, 0), 0, 2);
	assert_true(SIZING_KEEP_US > 60 * SECOND && SIZING_KEEP_US < 65 * SECOND);
}

static void hot_follows_the_rate_and_the_lead(void **state)
{
	(void)state;
	demand_init(&demand, 0);
	come(0, 600, 500); /* two a second: 1.0 offered to waking, 5 to creating */
	struct sizing sizing = decide((struct sizing_options){AUTO, .max = 100}, SPEND_FREE, 0);
	assert_int_equal(sizing.hot + sizing.warm, 14);
	assert_int_equal(sizing.hot, 5);
	/* Without a warm tier every one that is taken must be created anew. */
	size_t hot_only = decide((struct sizing_options){.hot = SIZING_AUTO, .max = 100}, SPEND_FREE, 0).hot;
	assert_true(hot_only >= 10 && hot_only <= 14);
}

/* Warm is for all gateways of a shared pool, hot for this one's claims alone. */
static void warm_follows_the_rate_of_all(void **state)
{
	(void)state;
	struct sizing_options options = {AUTO, .max = 100};
	demand_init(&demand, 0);
	others_rate = 2;
	assert_sizes(decide(options, SPEND_FREE, 0), 0, 14);
	come(0, 600, 500);
	struct sizing both = decide(options, SPEND_FREE, 0);
	assert_int_equal(both.hot, 5);
	assert_int_equal(both.hot + both.warm, 21);
	options.max = 10;
	both = decide(options, SPEND_FREE, 0);
	assert_int_equal(both.hot + both.warm, 10);
	others_rate = 1e300;
	both = decide(options, SPEND_FREE, 0);
	assert_int_equal(both.hot + both.warm, 10);
	/* A fixed size is what it is. */
	assert_sizes(decide((struct sizing_options){.hot = 1, .warm = 3, .max = 10}, SPEND_FREE, 0), 1, 3);
	others_rate = 0;
}

static void a_burst_that_creations_cannot_follow_is_stocked(void **state)
{
	(void)state;
	demand_init(&demand, 0);
	uint64_t now_us = come(60 * SECOND, 20, 100);
	demand_pass(&demand, now_us + 3600 * SECOND);
	/* 20 within 2 s: half of them in its first second, before any creation could be done; 8 of all of them while 3 s last. */
	struct sizing known = decide((struct sizing_options){AUTO, .max = 100, .create_limit = 10}, SPEND_FREE, 0);
	struct sizing unknown = decide((struct sizing_options){AUTO, .max = 100}, SPEND_FREE, 0);
	assert_sizes(unknown, 0, 10);
	assert_sizes(known, 0, 12);
	/* 60 within a minute, of which 8 can be created: the limit less what is kept for those who wait. */
	demand_init(&demand, 0);
	now_us = come(60 * SECOND, 60, 1000);
	demand_pass(&demand, now_us + 3600 * SECOND);
	known = decide((struct sizing_options){AUTO, .max = 100, .create_limit = 10}, SPEND_FREE, 0);
	assert_sizes(known, 0, 52);
	/* A day later it is forgotten. */
	demand_pass(&demand, now_us + 25 * 3600 * SECOND);
	assert_sizes(decide((struct sizing_options){AUTO, .max = 100, .create_limit = 10}, SPEND_FREE, 0), 0, 1);
}

static void the_rest_of_a_burst_is_woken(void **state)
{
	(void)state;
	demand_init(&demand, 0);
	come(60 * SECOND, 20, 10);
	come(3600 * SECOND, 3, 10);
	struct sizing_options options = {AUTO, .max = 100, .create_limit = 10};
	assert_sizes(decide(options, SPEND_FREE, 0), 17, 3); /* it is taken from the stock */
	options.running_limit = 12;
	assert_int_equal(decide(options, SPEND_FREE, 2).hot, 10);
	assert_int_equal(decide(options, SPEND_NO_IDLING, 2).hot, 0);
	options.warm = 0; /* there is nothing to wake */
	assert_true(decide(options, SPEND_FREE, 0).hot < 10);
	options = (struct sizing_options){.hot = 2, .warm = 20, .max = 100};
	assert_int_equal(decide(options, SPEND_FREE, 0).hot, 2);
}

static void caps_cut(void **state)
{
	(void)state;
	demand_init(&demand, 0);
	come(0, 600, 200);
	struct sizing_options options = {AUTO, .max = 100};
	assert_true(decide(options, SPEND_FREE, 0).hot > 5);
	options.running_limit = 6;
	assert_int_equal(decide(options, SPEND_FREE, 2).hot, 4);
	assert_int_equal(decide(options, SPEND_FREE, 9).hot, 0);
	options.warm_limit = 3;
	assert_int_equal(decide(options, SPEND_FREE, 0).warm, 3);
	options.max = 4;
	assert_int_equal(decide(options, SPEND_FREE, 1).hot, 3);
}

static void idling_is_saved_first(void **state)
{
	(void)state;
	demand_init(&demand, 0);
	come(0, 600, 200);
	struct sizing_options fixed = {.hot = 2, .warm = 3, .max = 10};
	assert_sizes(decide(fixed, SPEND_NO_IDLING, 0), 0, 3);
	assert_sizes(decide(fixed, SPEND_NO_STOCK, 0), 0, 0);
	assert_sizes(decide(fixed, SPEND_NOTHING, 0), 0, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(erlang_b_is_exact),
		cmocka_unit_test(the_stock_for_a_miss_rate),
		cmocka_unit_test(fixed_sizes_are_kept),
		cmocka_unit_test(no_demand_keeps_nothing_running),
		cmocka_unit_test(hot_follows_the_rate_and_the_lead),
		cmocka_unit_test(warm_follows_the_rate_of_all),
		cmocka_unit_test(a_burst_that_creations_cannot_follow_is_stocked),
		cmocka_unit_test(the_rest_of_a_burst_is_woken),
		cmocka_unit_test(caps_cut),
		cmocka_unit_test(idling_is_saved_first),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
