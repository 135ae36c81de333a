#include "gateway/pool/fair.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static struct fair fair;

static int setup(void **state)
{
	(void)state;
	return fair_init(&fair, 8);
}

static int teardown(void **state)
{
	(void)state;
	fair_deinit(&fair);
	return 0;
}

/* Takes as many as it may of a pool of `capacity`. */
static size_t take_all(uint64_t id, size_t capacity, uint64_t now_us)
{
	size_t taken = 0;
	struct fair_tenant *tenant = fair_claim(&fair, id, now_us);
	while (fair_allows(&fair, tenant, capacity, now_us)) {
		fair_hold(&fair, tenant);
		taken++;
	}
	return taken;
}

static void alone_it_may_have_all(void **state)
{
	(void)state;
	assert_int_equal(take_all(1, 10, 1), 10);
}

static void a_hog_gets_half_while_others_want(void **state)
{
	(void)state;
	fair_claim(&fair, 2, 1);
	assert_int_equal(take_all(1, 10, 1), 5);
	assert_int_equal(take_all(2, 10, 1), 3);
	assert_int_equal(take_all(3, 10, 1), 1);
	assert_int_equal(take_all(4, 10, 1), 1);
}

/* One after the other, each takes as long as it may. */
static void two_hogs_get_a_third_each(void **state)
{
	(void)state;
	struct fair_tenant *hogs[2];
	for (size_t i = 0; i < ARRAY_LEN(hogs); i++) {
		hogs[i] = fair_claim(&fair, i + 1, 1);
		fair_wait(&fair, hogs[i]);
	}
	for (size_t taken = 1; taken;) {
		taken = 0;
		for (size_t i = 0; i < ARRAY_LEN(hogs); i++)
			if (fair_allows(&fair, hogs[i], 9, 1)) {
				fair_hold(&fair, hogs[i]);
				taken++;
			}
	}
	assert_int_equal(hogs[0]->held, 3);
	assert_int_equal(hogs[1]->held, 3);
	/* Whoever comes new finds something. */
	assert_int_equal(take_all(3, 9, 1), 2);
}

static void how_many_more(void **state)
{
	(void)state;
	fair_claim(&fair, 2, 1);
	struct fair_tenant *hog = fair_claim(&fair, 1, 1);
	assert_int_equal(fair_allows(&fair, hog, 10, 1), 5);
	fair_hold(&fair, hog);
	fair_hold(&fair, hog);
	assert_int_equal(fair_allows(&fair, hog, 10, 1), 3);
	assert_int_equal(fair_allows(&fair, hog, 1, 1), 0);
}

static void a_last_claim_is_remembered_for_a_minute(void **state)
{
	(void)state;
	fair_claim(&fair, 2, 1000);
	struct fair_tenant *hog = fair_claim(&fair, 1, 2000);
	assert_int_equal(fair_allows(&fair, hog, 10, 2000), 5);
	assert_int_equal(fair_next_due(&fair, 2000), 1000 + FAIR_MEMORY_US);
	assert_int_equal(fair_allows(&fair, hog, 10, 1000 + FAIR_MEMORY_US), 10);
	assert_true(fair_next_due(&fair, 2000 + FAIR_MEMORY_US) == UINT64_MAX);
}

static void whoever_waits_wants(void **state)
{
	(void)state;
	struct fair_tenant *other = fair_claim(&fair, 2, 1);
	fair_wait(&fair, other);
	uint64_t later_us = 1 + 2 * FAIR_MEMORY_US;
	struct fair_tenant *hog = fair_claim(&fair, 1, later_us);
	assert_int_equal(fair_allows(&fair, hog, 10, later_us), 5);
	fair_unwait(&fair, other);
	assert_int_equal(fair_allows(&fair, hog, 10, later_us), 10);
}

static void what_it_holds_elsewhere_counts(void **state)
{
	(void)state;
	static const struct lease_tenant told[] = {{.id = 1, .held = 3}, {.id = 2, .held = 1}};
	fair_told(&fair, told, ARRAY_LEN(told));
	struct fair_tenant *hog = fair_claim(&fair, 1, 1);
	/* 6 of 10 are free, and it has 3. */
	assert_int_equal(fair_allows(&fair, hog, 6, 1), 2);
	assert_int_equal(fair_allows(&fair, hog, 3, 1), 0);
	assert_int_equal(take_all(3, 6, 1), 3);
	fair_told(&fair, NULL, 0);
	assert_int_equal(fair_allows(&fair, fair_claim(&fair, 1, 1), 6, 1), 2);
}

static void who_wants_something_elsewhere_counts(void **state)
{
	(void)state;
	static const struct lease_tenant itself[] = {{.id = 1, .held = 3}}, another[] = {{.id = 1, .held = 3}, {.id = 2, .held = 0}};
	struct fair_tenant *hog = fair_claim(&fair, 1, 1);
	fair_told(&fair, itself, ARRAY_LEN(itself));
	assert_int_equal(fair_allows(&fair, hog, 7, 1), 7);
	fair_told(&fair, another, ARRAY_LEN(another));
	assert_int_equal(fair_allows(&fair, hog, 7, 1), 2);
	fair_told(&fair, NULL, 0);
	assert_int_equal(fair_allows(&fair, hog, 7, 1), 7);
}

static void who_has_claimed_within_a_minute(void **state)
{
	(void)state;
	uint64_t ids[LEASE_CLAIMANTS];
	assert_int_equal(fair_claimants(&fair, 1, ids), 0);
	for (uint64_t id = 1; id <= 3; id++)
		fair_claim(&fair, id, 1000 * id);
	fair_claim(&fair, 3, 4000);
	assert_int_equal(fair_claimants(&fair, 4000, ids), 2);
	assert_true(ids[0] == 3 && ids[1] == 2);
	assert_int_equal(fair_claimants(&fair, 2000 + FAIR_MEMORY_US, ids), 1);
	assert_true(ids[0] == 3);
	assert_int_equal(fair_claimants(&fair, 4000 + FAIR_MEMORY_US, ids), 0);
}

static void records_are_given_back(void **state)
{
	(void)state;
	for (uint64_t id = 1; id < 100; id++) {
		struct fair_tenant *tenant = fair_claim(&fair, id, id);
		if (id % 3 == 0) {
			fair_hold(&fair, tenant);
			fair_wait(&fair, tenant);
			fair_unwait(&fair, tenant);
			fair_unhold(&fair, tenant);
		}
	}
	assert_int_equal(fair.held, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(alone_it_may_have_all, setup, teardown),
		cmocka_unit_test_setup_teardown(a_hog_gets_half_while_others_want, setup, teardown),
		cmocka_unit_test_setup_teardown(two_hogs_get_a_third_each, setup, teardown),
		cmocka_unit_test_setup_teardown(how_many_more, setup, teardown),
		cmocka_unit_test_setup_teardown(a_last_claim_is_remembered_for_a_minute, setup, teardown),
		cmocka_unit_test_setup_teardown(whoever_waits_wants, setup, teardown),
		cmocka_unit_test_setup_teardown(what_it_holds_elsewhere_counts, setup, teardown),
		cmocka_unit_test_setup_teardown(who_wants_something_elsewhere_counts, setup, teardown),
		cmocka_unit_test_setup_teardown(who_has_claimed_within_a_minute, setup, teardown),
		cmocka_unit_test_setup_teardown(records_are_given_back, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
