#include "gateway/exec/recent.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdio.h>

static struct admission_lease lease(const char *kid, uint64_t granted_ms)
{
	struct admission_lease lease = {.granted_ms = granted_ms};
	snprintf(lease.kid, sizeof lease.kid, "%s", kid);
	return lease;
}

static void grant(struct recent *recent, const char *kid, uint64_t limit_ms, uint64_t held_ms, uint64_t wall_ms)
{
	struct admission_lease l = lease(kid, held_ms);
	struct fields_budget budget = {.limit_ms = limit_ms, .held_ms = held_ms, .reset_us = 1000000};
	recent_grant(recent, &l, &budget, wall_ms);
}

static void end(struct recent *recent, const char *kid, uint64_t granted_ms, uint64_t used_ms)
{
	struct admission_lease l = lease(kid, granted_ms);
	struct recent_run run = {.outcome = "exited", .tier = "hot", .run_us = used_ms * 1000};
	recent_end(recent, &l, &run, used_ms);
}

static void test_newest_first_and_bounded(void **state UNUSED)
{
	struct recent recent = {0};
	assert_null(recent_run(&recent, 0));
	for (unsigned i = 0; i < 3 * RECENT_RUNS + 5; i++)
		end(&recent, "a", 0, i);
	assert_int_equal(recent_run(&recent, 0)->run_us, (3 * RECENT_RUNS + 4) * 1000);
	assert_int_equal(recent_run(&recent, RECENT_RUNS - 1)->run_us, (2 * RECENT_RUNS + 5) * 1000);
	assert_null(recent_run(&recent, RECENT_RUNS));
}

static void test_nearest_exhaustion_first(void **state UNUSED)
{
	struct recent recent = {0};
	const struct recent_budget *out[2];
	grant(&recent, "much", 1000, 100, 10);
	grant(&recent, "little", 100000, 99000, 10);
	grant(&recent, "some", 1000, 500, 10);
	grant(&recent, "none of its own", 0, 500, 10);
	assert_int_equal(recent_budgets(&recent, 10, out, 2), 2);
	assert_string_equal(out[0]->kid, "little");
	assert_int_equal(out[0]->left_ms, 1000);
	assert_string_equal(out[1]->kid, "some");
	assert_int_equal(recent_budgets(&recent, 1010, out, 2), 0);
}

static void test_nothing_is_learned_of_a_budget_while_redis_is_away(void **state UNUSED)
{
	struct recent recent = {0};
	const struct recent_budget *out[2];
	struct admission_lease l = lease("a", 500);
	const struct fields_budget none = {0};
	const struct recent_run run = {.outcome = "exited", .tier = "hot"};
	l.degraded = true;
	grant(&recent, "a", 1000, 400, 10);
	recent_grant(&recent, &l, &none, 20);
	recent_end(&recent, &l, &run, 100);
	assert_int_equal(recent_budgets(&recent, 20, out, 2), 1);
	assert_int_equal(out[0]->left_ms, 600);
}

static void test_what_was_not_used_comes_back(void **state UNUSED)
{
	struct recent recent = {0};
	const struct recent_budget *out[1];
	grant(&recent, "a", 1000, 300, 10);
	end(&recent, "a", 300, 50);
	end(&recent, "other", 300, 50);
	assert_int_equal(recent_budgets(&recent, 10, out, 1), 1);
	assert_int_equal(out[0]->left_ms, 950);
	end(&recent, "a", 300, 0);
	assert_int_equal(out[0]->left_ms, 1000);
	end(&recent, "a", 300, 400);
	assert_int_equal(out[0]->left_ms, 1000);
	grant(&recent, "a", 0, 300, 11);
	assert_int_equal(recent_budgets(&recent, 11, out, 1), 0);
}

static void test_the_oldest_budget_gives_way(void **state UNUSED)
{
	struct recent recent = {0};
	const struct recent_budget *out[RECENT_BUDGETS];
	for (unsigned i = 0; i <= RECENT_BUDGETS; i++) {
		char kid[17];
		snprintf(kid, sizeof kid, "kid%u", i);
		grant(&recent, kid, 1000, 0, 1 + i);
	}
	assert_int_equal(recent_budgets(&recent, 1, out, RECENT_BUDGETS), RECENT_BUDGETS);
	for (unsigned i = 0; i < RECENT_BUDGETS; i++)
		assert_string_not_equal(out[i]->kid, "kid0");
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_newest_first_and_bounded), cmocka_unit_test(test_nearest_exhaustion_first),
					   cmocka_unit_test(test_nothing_is_learned_of_a_budget_while_redis_is_away),
					   cmocka_unit_test(test_what_was_not_used_comes_back),
					   cmocka_unit_test(test_the_oldest_budget_gives_way)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
