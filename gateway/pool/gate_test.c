#include "gateway/pool/gate.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define SECOND UINT64_C(1000000)

static const struct provider_limit unsaid = {.left = UINT64_MAX};

static void reasons_end_at_their_own_time(void **state)
{
	(void)state;
	struct gate gate;
	gate_init(&gate, 1);
	assert_true(gate_is_open(&gate));
	assert_string_equal(gate_text(&gate), "open");
	assert_true(gate_next_due(&gate) == UINT64_MAX);

	gate_failed(&gate, 100 * SECOND, 99 * SECOND, PROVIDER_RATE_LIMIT, 20000, &unsaid);
	gate_failed(&gate, 100 * SECOND, 99 * SECOND, PROVIDER_RATE_LIMIT, 5000, &unsaid); /* a short one does not cut it off */
	gate_failed(&gate, 100 * SECOND, 99 * SECOND, PROVIDER_CAPACITY, 0, &unsaid);
	assert_true(gate_next_due(&gate) == 105 * SECOND);
	assert_true(gate_opens_us(&gate, false) == 120 * SECOND);
	assert_string_equal(gate_text(&gate), "rate-limit");
	gate_room(&gate);
	assert_true(gate_next_due(&gate) == 120 * SECOND);
	gate_tick(&gate, 120 * SECOND - 1);
	assert_false(gate_is_open(&gate));
	gate_tick(&gate, 120 * SECOND);
	assert_true(gate_is_open(&gate));
}

static void rate_limits_have_a_default_and_a_bound(void **state)
{
	(void)state;
	static const struct {
		uint64_t retry_after_ms, seconds;
	} rows[] = {{0, 10}, {1000, 1}, {59000, 59}, {3600000, 3600}, {UINT64_MAX, 3600}};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct gate gate;
		gate_init(&gate, 1);
		gate_failed(&gate, SECOND, 1, PROVIDER_RATE_LIMIT, rows[i].retry_after_ms, &unsaid);
		assert_true(gate_opens_us(&gate, false) == (1 + rows[i].seconds) * SECOND);
	}
}

/* `capacity` without a time ends when a Sprite is gone; with one, at that time. Nothing of it, nor a throttled request, touches the
 * budget of creations. */
static void what_was_said_of_the_time_holds(void **state)
{
	(void)state;
	static const struct {
		enum provider_code code;
		uint64_t retry_after_ms, seconds, room_seconds, wakes_seconds;
		const char *text;
	} rows[] = {
		{PROVIDER_CAPACITY, 0, 5, 0, 5, "capacity"},
		{PROVIDER_CAPACITY, 2000, 2, 2, 2, "capacity"},
		{PROVIDER_CAPACITY, 70000, 70, 70, 70, "capacity"},
		{PROVIDER_CAPACITY, UINT64_MAX, 3600, 3600, 3600, "capacity"},
		{PROVIDER_THROTTLED, 0, 1, 1, 1, "throttled"},
		{PROVIDER_THROTTLED, 70000, 70, 70, 70, "throttled"},
		{PROVIDER_UNAVAILABLE, 70000, 70, 70, 0, "unavailable"},
		{PROVIDER_INVALID, 70000, 70, 70, 0, "unavailable"},
		{PROVIDER_UNAUTHORIZED, 0, 30, 30, 0, "unauthorized"},
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct gate gate;
		gate_init(&gate, 1);
		budget_configure(&gate.budget, 10, 60 * SECOND);
		gate_failed(&gate, 100 * SECOND, 99 * SECOND, rows[i].code, rows[i].retry_after_ms, &unsaid);
		assert_string_equal(gate_text(&gate), rows[i].text);
		assert_true(gate_opens_us(&gate, false) == (100 + rows[i].seconds) * SECOND);
		assert_true(gate_wakes_open_us(&gate, false) == (rows[i].wakes_seconds ? (100 + rows[i].wakes_seconds) * SECOND : 0));
		assert_int_equal(gate.budget.count, 10);
		uint64_t room_us = rows[i].room_seconds ? (100 + rows[i].room_seconds) * SECOND : 0;
		assert_true(gate_opens_us(&gate, true) == room_us);
		gate_room(&gate);
		assert_true(gate_opens_us(&gate, false) == room_us);
		gate_tick(&gate, (100 + rows[i].seconds) * SECOND);
		assert_true(gate_is_open(&gate));
		assert_true(gate_wakes_open_us(&gate, false) == 0);
	}
}

static void a_short_time_does_not_shorten_a_long_one(void **state)
{
	(void)state;
	struct gate gate;
	gate_init(&gate, 1);
	gate_failed(&gate, 100 * SECOND, 99 * SECOND, PROVIDER_CAPACITY, 3000, &unsaid);
	gate_failed(&gate, 100 * SECOND, 99 * SECOND, PROVIDER_CAPACITY, 2000, &unsaid);
	gate_failed(&gate, 100 * SECOND, 99 * SECOND, PROVIDER_CAPACITY, 0, &unsaid);
	assert_true(gate_opens_us(&gate, false) == 105 * SECOND);
	gate_room(&gate);
	assert_true(gate_opens_us(&gate, false) == 103 * SECOND);
	/* Failures of attempts that were on their way say nothing new, but for the time. */
	gate_failed(&gate, 100 * SECOND, 99 * SECOND, PROVIDER_UNAVAILABLE, 0, &unsaid);
	gate_failed(&gate, 100 * SECOND, 99 * SECOND, PROVIDER_UNAVAILABLE, 9000, &unsaid);
	assert_int_equal(gate.failures, 1);
	assert_true(gate_opens_us(&gate, false) == 109 * SECOND);
}

static void backoff_doubles_with_jitter_up_to_30_s(void **state)
{
	(void)state;
	uint64_t random = 42;
	for (unsigned attempt = 1; attempt < 100; attempt++) {
		uint64_t full = attempt < 7 ? SECOND / 2 << (attempt - 1) : 30 * SECOND;
		uint64_t least = UINT64_MAX, most = 0;
		for (int i = 0; i < 100; i++) {
			uint64_t us = gate_backoff_us(attempt, &random);
			least = us < least ? us : least;
			most = us > most ? us : most;
		}
		assert_true(least >= full / 2 && most <= full);
		assert_true(most - least > full / 4);
	}
}

static void a_burst_of_failures_counts_once(void **state)
{
	(void)state;
	struct gate gate;
	gate_init(&gate, 1);
	for (int i = 0; i < 5; i++)
		gate_failed(&gate, 20 * SECOND + i, 10 * SECOND, PROVIDER_UNAVAILABLE, 0, &unsaid);
	assert_int_equal(gate.failures, 1);
	assert_true(gate_opens_us(&gate, false) <= 21 * SECOND);
	gate_failed(&gate, 30 * SECOND, 25 * SECOND, PROVIDER_POLICY, 0, &unsaid);
	assert_int_equal(gate.failures, 2);
	assert_int_equal(gate.window, 1);
	gate_ready(&gate);
	assert_int_equal(gate.failures, 0);
}

static void refusals_start_slowly_again(void **state)
{
	(void)state;
	struct gate gate;
	gate_init(&gate, 1);
	assert_int_equal(gate.window, GATE_WINDOW_MAX);
	gate_failed(&gate, 20 * SECOND, 10 * SECOND, PROVIDER_RATE_LIMIT, 0, &unsaid);
	assert_int_equal(gate.window, 1);
	gate_created(&gate, 31 * SECOND, 15 * SECOND, 0, &unsaid); /* was on the wire before the refusal: proves nothing */
	assert_int_equal(gate.window, 1);
	gate_created(&gate, 31 * SECOND, 30 * SECOND, 0, &unsaid);
	gate_created(&gate, 31 * SECOND, 30 * SECOND, 0, &unsaid);
	assert_int_equal(gate.window, 4);
	for (int i = 0; i < 100; i++)
		gate_created(&gate, 31 * SECOND, 30 * SECOND, 0, &unsaid);
	assert_int_equal(gate.window, GATE_WINDOW_MAX);
}

static void one_burst_of_refusals_halves_the_budget_once(void **state)
{
	(void)state;
	static const struct provider_limit said = {.count = 8, .window_ms = 40000, .left = UINT64_MAX};
	struct gate gate;
	gate_init(&gate, 1);
	for (int i = 0; i < 5; i++)
		gate_failed(&gate, 20 * SECOND + i, 19 * SECOND, PROVIDER_RATE_LIMIT, 3000, &said);
	assert_int_equal(gate.budget.count, 4);
	gate_tick(&gate, 23 * SECOND + 4);
	assert_true(gate_is_open(&gate));
	/* Four in 40 s: one each 10 s, though nothing refuses. */
	gate_creating(&gate, 23 * SECOND + 4);
	assert_string_equal(gate_text(&gate), "budget");
	assert_true(gate_opens_us(&gate, false) == 33 * SECOND + 4);
	gate_created(&gate, 24 * SECOND, 23 * SECOND + 4, 0, &unsaid);
	assert_int_equal(gate.budget.count, 5);
	gate_tick(&gate, 33 * SECOND);
	gate_failed(&gate, 34 * SECOND, 33 * SECOND, PROVIDER_RATE_LIMIT, 3000, &said);
	assert_int_equal(gate.budget.count, 2);
}

static void a_success_that_was_the_last_one_closes(void **state)
{
	(void)state;
	static const struct provider_limit last = {.count = 10, .left = 0};
	struct gate gate;
	gate_init(&gate, 1);
	gate_creating(&gate, 9 * SECOND);
	gate_created(&gate, 10 * SECOND, 9 * SECOND, 33000, &last);
	assert_true(gate_opens_us(&gate, false) == 43 * SECOND);
	assert_int_equal(gate.budget.count, 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reasons_end_at_their_own_time),
		cmocka_unit_test(rate_limits_have_a_default_and_a_bound),
		cmocka_unit_test(what_was_said_of_the_time_holds),
		cmocka_unit_test(a_short_time_does_not_shorten_a_long_one),
		cmocka_unit_test(backoff_doubles_with_jitter_up_to_30_s),
		cmocka_unit_test(a_burst_of_failures_counts_once),
		cmocka_unit_test(refusals_start_slowly_again),
		cmocka_unit_test(one_burst_of_refusals_halves_the_budget_once),
		cmocka_unit_test(a_success_that_was_the_last_one_closes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
