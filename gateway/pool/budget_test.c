#include "gateway/pool/budget.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define SECOND UINT64_C(1000000)

static const struct provider_limit unsaid = {.left = UINT64_MAX};
static const struct provider_limit ten = {.count = 10, .window_ms = 60000, .left = UINT64_MAX};

static void nothing_known_holds_nothing_back(void **state)
{
	(void)state;
	struct budget budget = {0};
	for (int i = 0; i < 1000; i++)
		budget_spend(&budget, SECOND);
	budget_raise(&budget);
	budget_learn(&budget, SECOND, &unsaid);
	assert_int_equal(budget_opens_us(&budget, 0, false), 0);
}

static void a_refusal_halves_and_successes_raise(void **state)
{
	(void)state;
	static const struct {
		struct provider_limit said;
		uint64_t halves[5], ceiling;
	} rows[] = {
		{{.count = 10, .window_ms = 60000}, {5, 2, 1, 1, 1}, 10},
		{{0}, {5, 2, 1, 1, 1}, 10},
		{{.count = 3}, {1, 1, 1, 1, 1}, 3},
		{{.count = UINT64_MAX, .window_ms = UINT64_MAX}, {500, 250, 125, 62, 31}, 1000},
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct budget budget = {0};
		for (size_t j = 0; j < ARRAY_LEN(rows[i].halves); j++) {
			budget_halve(&budget, 5 * SECOND, &rows[i].said);
			assert_int_equal(budget.count, rows[i].halves[j]);
			assert_true(budget_opens_us(&budget, 0, false) >= 5 * SECOND);
		}
		for (int j = 0; j < 2000; j++)
			budget_raise(&budget);
		assert_int_equal(budget.count, rows[i].ceiling);
	}
}

/* Demand that never ends is spread; only what an idle time has saved goes at once. No minute has more than five. */
static void demand_is_spread(void **state)
{
	(void)state;
	struct budget budget = {0};
	uint64_t made[100], n = 0;
	budget_halve(&budget, 20 * SECOND, &ten);
	for (uint64_t now = 0; n < ARRAY_LEN(made); now += SECOND / 4) {
		if (now > 300 * SECOND && now < 500 * SECOND)
			continue; /* nothing is wanted for a while */
		while (n < ARRAY_LEN(made) && budget_opens_us(&budget, 0, false) <= now) {
			budget_spend(&budget, now);
			budget_learn(&budget, now, &ten);
			made[n++] = now;
		}
	}
	assert_int_equal(made[0], 20 * SECOND);
	assert_int_equal(made[1], 32 * SECOND);
	size_t at_once = 0;
	for (size_t i = 5; i < n; i++) {
		at_once += made[i] == made[i - 1];
		assert_true(made[i] - made[i - 5] >= 60 * SECOND);
		assert_true(!at_once || made[i] >= 500 * SECOND);
	}
	assert_true(at_once >= 4);
}

static void what_is_left_fits_at_once(void **state)
{
	(void)state;
	struct budget budget = {0};
	budget_learn(&budget, 100 * SECOND, &(struct provider_limit){.count = 10, .window_ms = 60000, .left = 3});
	for (int i = 0; i < 3; i++) {
		assert_true(budget_opens_us(&budget, 0, false) <= 100 * SECOND);
		budget_spend(&budget, 100 * SECOND);
	}
	assert_int_equal(budget_opens_us(&budget, 0, false), 106 * SECOND);
	assert_int_equal(budget_opens_us(&budget, 2, false), 118 * SECOND);
	budget_halve(&budget, 110 * SECOND, &unsaid);
	assert_int_equal(budget_opens_us(&budget, 0, false), 110 * SECOND);
	assert_int_equal(budget_opens_us(&budget, 1, false), 122 * SECOND);
	assert_int_equal(budget_opens_us(&budget, 1, true), 110 * SECOND);
	budget_postpone(&budget, 105 * SECOND);
	assert_int_equal(budget_opens_us(&budget, 0, false), 110 * SECOND);
	budget_postpone(&budget, 120 * SECOND);
	assert_int_equal(budget_opens_us(&budget, 0, false), 120 * SECOND);
	/* Two a minute now, of which three are already made. */
	budget_halve(&budget, 110 * SECOND, &unsaid);
	assert_int_equal(budget_opens_us(&budget, 0, false), 160 * SECOND);
	assert_int_equal(budget_opens_us(&budget, 1, false), 160 * SECOND);
	assert_int_equal(budget_opens_us(&budget, 2, false), 220 * SECOND);
}

/* Ten in 10 s, named once; then the provider says nothing more. */
static void a_limit_that_is_not_repeated_is_outgrown(void **state)
{
	(void)state;
	static const struct provider_limit said = {.count = 10, .window_ms = 10000, .left = UINT64_MAX};
	struct budget budget = {0};
	budget_halve(&budget, 5 * SECOND, &said);
	budget_spend(&budget, 105 * SECOND - 1);
	assert_int_equal(budget.ceiling, 10);
	budget_spend(&budget, 105 * SECOND);
	assert_int_equal(budget.ceiling, 20);
	budget_learn(&budget, 114 * SECOND, &unsaid);
	assert_int_equal(budget.ceiling, 20);
	budget_learn(&budget, 115 * SECOND, &unsaid);
	assert_int_equal(budget.ceiling, 40);
	assert_int_equal(budget.count, 5); /* one more with each success, as ever */
	/* Named again, or refused again: the waiting begins anew. */
	budget_learn(&budget, 116 * SECOND, &said);
	assert_int_equal(budget.ceiling, 10);
	budget_spend(&budget, 215 * SECOND);
	assert_int_equal(budget.ceiling, 10);
	budget_halve(&budget, 216 * SECOND, &unsaid);
	budget_spend(&budget, 315 * SECOND);
	assert_int_equal(budget.ceiling, 10);
	budget_postpone(&budget, 320 * SECOND);
	budget_spend(&budget, 419 * SECOND);
	assert_int_equal(budget.ceiling, 10);
	/* Seven doublings are above all there is. */
	budget_spend(&budget, 420 * SECOND + 60 * SECOND - 1);
	assert_int_equal(budget.ceiling, 640);
	budget_spend(&budget, 480 * SECOND);
	assert_int_equal(budget_opens_us(&budget, 500, false), 0);
	budget_raise(&budget);
	assert_int_equal(budget.count, 0);
	budget_halve(&budget, 500 * SECOND, &said);
	assert_int_equal(budget.count, 5);
	assert_int_equal(budget_opens_us(&budget, 0, false), 500 * SECOND);
}

static void what_is_configured_is_not_outgrown(void **state)
{
	(void)state;
	static const struct {
		struct provider_limit said;
	} rows[] = {{{.count = 3, .window_ms = 60000}}, {{.count = 3, .window_ms = 1000}}, {{.count = 900}}, {{0}}};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct budget budget = {0};
		budget_configure(&budget, 12, 60 * SECOND);
		budget_spend(&budget, 100000 * SECOND);
		assert_int_equal(budget.count, 12);
		budget_halve(&budget, 100000 * SECOND, &rows[i].said);
		budget_spend(&budget, 110000 * SECOND);
		assert_int_equal(budget.ceiling, 12);
		assert_int_equal(budget.period_us, 60 * SECOND);
		assert_true(budget.count >= 1 && budget.count <= 12);
		for (int j = 0; j < 20; j++)
			budget_raise(&budget);
		assert_int_equal(budget.count, 12);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_known_holds_nothing_back),
		cmocka_unit_test(a_refusal_halves_and_successes_raise),
		cmocka_unit_test(demand_is_spread),
		cmocka_unit_test(what_is_left_fits_at_once),
		cmocka_unit_test(a_limit_that_is_not_repeated_is_outgrown),
		cmocka_unit_test(what_is_configured_is_not_outgrown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
