#include "gateway/sprites/preparation.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define MS 1000ull
#define S  1000000ull

static struct preparation preparation;
static uint64_t now_us;

static const struct verdict ok = {.code = PROVIDER_OK}, gone = {.code = PROVIDER_GONE},
			    starting = {.code = PROVIDER_UNAVAILABLE, .not_ready = true},
			    starting_hint = {.code = PROVIDER_UNAVAILABLE, .not_ready = true, .retry_after_ms = 5000},
			    invalid = {.code = PROVIDER_INVALID}, policy = {.code = PROVIDER_POLICY},
			    unauthorized = {.code = PROVIDER_UNAUTHORIZED};

static void begin_as(enum preparation_kind kind, enum preparation_step first)
{
	now_us = 7 * S;
	preparation_init(&preparation, kind, 60 * S, now_us);
	assert_int_equal(preparation.step, first);
}

static void begin(void)
{
	begin_as(PREPARATION_NEW, PREPARATION_CLOSE_NETWORK);
}

static struct preparation_action give(const struct verdict *verdict)
{
	struct preparation_action action = preparation_step(&preparation, verdict, now_us, 0);
	if (action.kind == PREPARATION_WAIT)
		now_us += action.wait_us;
	return action;
}

static void expect_do(const struct verdict *verdict, enum preparation_step step)
{
	assert_int_equal(give(verdict).kind, PREPARATION_DO);
	assert_int_equal(preparation.step, step);
}

static void expect_wait(const struct verdict *verdict, enum preparation_step step, uint64_t wait_us)
{
	struct preparation_action action = give(verdict);
	assert_int_equal(action.kind, PREPARATION_WAIT);
	assert_int_equal(action.wait_us, wait_us);
	assert_int_equal(preparation.step, step);
}

static void expect_finish(const struct verdict *verdict, enum provider_code code)
{
	struct preparation_action action = give(verdict);
	assert_int_equal(action.kind, PREPARATION_FINISH);
	assert_int_equal(action.code, code);
}

static void test_order(void **state UNUSED)
{
	begin();
	expect_do(&ok, PREPARATION_CHECK_NETWORK);
	expect_do(&ok, PREPARATION_DIAL);
	expect_do(&ok, PREPARATION_RUN);
	expect_finish(&ok, PROVIDER_OK);
}

static void test_other_orders(void **state UNUSED)
{
	begin_as(PREPARATION_WAKE, PREPARATION_CHECK_NETWORK);
	expect_do(&ok, PREPARATION_DIAL);
	expect_do(&ok, PREPARATION_RUN);
	expect_finish(&ok, PROVIDER_OK);
	begin_as(PREPARATION_RESTORABLE, PREPARATION_CLOSE_NETWORK);
	expect_do(&ok, PREPARATION_CHECK_NETWORK);
	expect_do(&ok, PREPARATION_DIAL);
	expect_do(&ok, PREPARATION_RUN);
	expect_do(&ok, PREPARATION_CHECKPOINT);
	expect_do(&ok, PREPARATION_MARK);
	/* The channel was lost: what the mark leaves may be in the next checkpoint, and would be found by the restore. */
	expect_wait(&starting, PREPARATION_DIAL, 100 * MS);
	expect_do(&ok, PREPARATION_RUN);
	expect_do(&ok, PREPARATION_CHECKPOINT);
	expect_do(&ok, PREPARATION_MARK);
	expect_finish(&ok, PROVIDER_OK);
	begin_as(PREPARATION_RESTORED, PREPARATION_RESTORE);
	expect_do(&ok, PREPARATION_CHECK_NETWORK);
	expect_do(&ok, PREPARATION_DIAL);
	expect_do(&ok, PREPARATION_MARK);
	expect_finish(&ok, PROVIDER_OK);
}

/* Whatever was done before, its label comes last. */
static void test_of_one_that_others_may_have(void **state UNUSED)
{
	static const struct verdict taken = {.code = PROVIDER_TAKEN};
	begin_as(PREPARATION_WAKE, PREPARATION_CHECK_NETWORK);
	preparation.fenced = true;
	expect_do(&ok, PREPARATION_DIAL);
	expect_do(&ok, PREPARATION_RUN);
	expect_do(&ok, PREPARATION_CHECK_TAKEN);
	expect_wait(&starting, PREPARATION_CHECK_TAKEN, 100 * MS);
	expect_do(&ok, PREPARATION_LABEL_TAKEN);
	expect_wait(&starting, PREPARATION_LABEL_TAKEN, 100 * MS);
	expect_finish(&ok, PROVIDER_OK);
	begin_as(PREPARATION_RESTORED, PREPARATION_RESTORE);
	preparation.fenced = true;
	expect_do(&ok, PREPARATION_CHECK_NETWORK);
	expect_do(&ok, PREPARATION_DIAL);
	expect_do(&ok, PREPARATION_MARK);
	expect_do(&ok, PREPARATION_CHECK_TAKEN);
	expect_finish(&taken, PROVIDER_TAKEN);
}

static void test_restoring_fails(void **state UNUSED)
{
	static const struct verdict unseen = {.code = PROVIDER_UNAVAILABLE, .not_ready = true},
				    refused = {.code = PROVIDER_UNAVAILABLE, .not_ready = true, .status = 503};
	begin_as(PREPARATION_RESTORED, PREPARATION_RESTORE);
	expect_wait(&refused, PREPARATION_RESTORE, 100 * MS);
	expect_finish(&unseen, PROVIDER_UNAVAILABLE);
	begin_as(PREPARATION_RESTORED, PREPARATION_RESTORE);
	expect_finish(&invalid, PROVIDER_INVALID);
	begin_as(PREPARATION_RESTORED, PREPARATION_RESTORE);
	expect_do(&ok, PREPARATION_CHECK_NETWORK);
	expect_finish(&policy, PROVIDER_POLICY);
	begin_as(PREPARATION_RESTORED, PREPARATION_RESTORE);
	expect_do(&ok, PREPARATION_CHECK_NETWORK);
	expect_do(&ok, PREPARATION_DIAL);
	expect_do(&ok, PREPARATION_MARK);
	expect_finish(&invalid, PROVIDER_INVALID);
}

static void test_waking(void **state UNUSED)
{
	begin();
	expect_wait(&starting, PREPARATION_CLOSE_NETWORK, 100 * MS);
	expect_wait(&starting, PREPARATION_CLOSE_NETWORK, 200 * MS);
	expect_wait(&starting_hint, PREPARATION_CLOSE_NETWORK, 5 * S);
	expect_wait(&starting, PREPARATION_CLOSE_NETWORK, 800 * MS);
	expect_wait(&starting, PREPARATION_CLOSE_NETWORK, 1600 * MS);
	expect_wait(&starting, PREPARATION_CLOSE_NETWORK, 2 * S);
	expect_wait(&starting, PREPARATION_CLOSE_NETWORK, 2 * S);
	expect_do(&ok, PREPARATION_CHECK_NETWORK);
	expect_wait(&starting, PREPARATION_CHECK_NETWORK, 100 * MS); /* starts over */
}

/* A throttled step had no effect and is done again, when it is said; not when that is too late, nor when no other may run. */
static void test_limits(void **state UNUSED)
{
	static const struct verdict throttled = {.code = PROVIDER_THROTTLED, .not_ready = true, .status = 429, .retry_after_ms = 7000},
				    for_long = {.code = PROVIDER_THROTTLED, .not_ready = true, .status = 429, .retry_after_ms = 60000},
				    full = {.code = PROVIDER_CAPACITY, .status = 429, .retry_after_ms = 1000};
	begin();
	expect_wait(&throttled, PREPARATION_CLOSE_NETWORK, 7 * S);
	expect_do(&ok, PREPARATION_CHECK_NETWORK);
	expect_do(&ok, PREPARATION_DIAL);
	expect_wait(&throttled, PREPARATION_DIAL, 7 * S);
	expect_finish(&for_long, PROVIDER_THROTTLED);
	begin_as(PREPARATION_RESTORED, PREPARATION_RESTORE);
	expect_wait(&throttled, PREPARATION_RESTORE, 7 * S);
	begin_as(PREPARATION_WAKE, PREPARATION_CHECK_NETWORK);
	expect_finish(&full, PROVIDER_CAPACITY);
}

static void test_pauses_differ(void **state UNUSED)
{
	begin();
	struct preparation_action a = preparation_step(&preparation, &starting, now_us, 0x3ff);
	assert_in_range(a.wait_us, 149 * MS, 150 * MS);
}

static void test_budget(void **state UNUSED)
{
	begin();
	struct preparation_action action;
	do
		action = give(&starting);
	while (action.kind == PREPARATION_WAIT);
	assert_int_equal(action.kind, PREPARATION_FINISH);
	assert_int_equal(action.code, PROVIDER_UNAVAILABLE);
	assert_in_range(now_us, 7 * S + 57 * S, 7 * S + 60 * S);
	/* A pause that would end too late is not begun. */
	begin();
	now_us += 56 * S;
	expect_finish(&starting_hint, PROVIDER_UNAVAILABLE);
}

static void test_lost_channel_is_dialled_again(void **state UNUSED)
{
	begin();
	expect_do(&ok, PREPARATION_CHECK_NETWORK);
	expect_do(&ok, PREPARATION_DIAL);
	expect_do(&ok, PREPARATION_RUN);
	expect_wait(&starting, PREPARATION_DIAL, 100 * MS);
	expect_do(&ok, PREPARATION_RUN);
	expect_finish(&ok, PROVIDER_OK);
}

static void test_network_that_cannot_be_closed(void **state UNUSED)
{
	begin();
	expect_finish(&invalid, PROVIDER_POLICY);
	begin();
	expect_do(&ok, PREPARATION_CHECK_NETWORK);
	expect_finish(&policy, PROVIDER_POLICY);
	begin();
	expect_do(&ok, PREPARATION_CHECK_NETWORK);
	expect_finish(&invalid, PROVIDER_POLICY);
	begin();
	expect_finish(&unauthorized, PROVIDER_UNAUTHORIZED);
}

static void test_first_command_fails(void **state UNUSED)
{
	begin();
	expect_do(&ok, PREPARATION_CHECK_NETWORK);
	expect_do(&ok, PREPARATION_DIAL);
	expect_do(&ok, PREPARATION_RUN);
	expect_finish(&invalid, PROVIDER_INVALID);
}

static void test_missing(void **state UNUSED)
{
	begin();
	expect_wait(&gone, PREPARATION_CLOSE_NETWORK, 100 * MS);
	expect_wait(&gone, PREPARATION_CLOSE_NETWORK, 200 * MS);
	expect_do(&gone, PREPARATION_CONFIRM);
	expect_finish(&gone, PROVIDER_GONE);
	/* On the list: the 404s were false. */
	begin();
	(void)give(&gone);
	(void)give(&gone);
	expect_do(&gone, PREPARATION_CONFIRM);
	expect_do(&ok, PREPARATION_CLOSE_NETWORK);
	expect_do(&ok, PREPARATION_CHECK_NETWORK);
	/* The list does not answer. */
	begin();
	(void)give(&gone);
	(void)give(&gone);
	expect_do(&gone, PREPARATION_CONFIRM);
	expect_wait(&starting, PREPARATION_CONFIRM, 400 * MS);
	/* One 404 among others is not remembered. */
	begin();
	(void)give(&gone);
	(void)give(&gone);
	(void)give(&starting);
	assert_int_equal(give(&gone).kind, PREPARATION_WAIT);
	assert_int_equal(preparation.step, PREPARATION_CLOSE_NETWORK);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_other_orders),
		cmocka_unit_test(test_of_one_that_others_may_have),
		cmocka_unit_test(test_restoring_fails),
		cmocka_unit_test(test_waking),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_pauses_differ),
		cmocka_unit_test(test_budget),
		cmocka_unit_test(test_lost_channel_is_dialled_again),
		cmocka_unit_test(test_network_that_cannot_be_closed),
		cmocka_unit_test(test_first_command_fails),
		cmocka_unit_test(test_missing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
