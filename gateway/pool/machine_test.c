/*
 * What claims get, or are refused with, what failures of the provider change in it, and what the machine never does.
 */
#include "gateway/pool/machine_script.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void fills_and_refills(void **state)
{
	(void)state;
	RUN(2, 10, 8, TWO_HOT, {"counts", "hot 2"}, {"claim 1 1000", "grant 1 a hot, create c"},
	    {"claim 2 1000", "grant 2 b hot, create d"}, {"release a", "close a, destroy a"}, {"created c ok", "prepare c"},
	    {"prepared c ok", ""}, {"counts", "creating 1, hot 1, leased 1, destroying 1"}, {"destroyed a ok", ""},
	    {"counts", "creating 1, hot 1, leased 1"});
}

static void cold_claims_join_what_is_on_its_way(void **state)
{
	(void)state;
	RUN(1, 10, 8, {"start", "list"}, {"listed ok", "create a"}, {"claim 1 9000", "create b"}, {"claim 2 9000", "create c"},
	    {"created b ok", "prepare b"}, {"prepared b ok", "grant 1 b cold"}, {"created a ok", "prepare a"},
	    {"prepared a ok", "grant 2 a cold"}, {"created c ok", "prepare c"}, {"prepared c ok", ""}, {"counts", "hot 1, leased 2"});
}

static void nothing_hot_wanted(void **state)
{
	(void)state;
	RUN(0, 10, 8, STARTED, {"claim 1 9000", "create a"}, {"created a ok", "prepare a"}, {"prepared a ok", "grant 1 a cold"},
	    {"release a", "close a, destroy a"}, {"destroyed a ok", ""}, {"counts", ""});
}

static void what_a_canceled_claim_asked_for_does_not_stay(void **state)
{
	(void)state;
	RUN(0, 10, 8, STARTED, {"claim 1 9000", "create a"}, {"cancel 1", ""}, {"created a ok", "prepare a"}, {"prepared a ok", ""},
	    {"counts", "hot 1"}, {"wait 29999", ""}, {"counts", "hot 1"}, {"wait 1", "close a, destroy a"});
	RUN(0, 10, 8, STARTED, {"claim 1 9000", "create a"}, {"cancel 1", ""}, {"claim 2 9000", ""}, {"created a ok", "prepare a"},
	    {"prepared a ok", "grant 2 a cold"});
}

static void max_counts_everything(void **state)
{
	(void)state;
	RUN(1, 2, 8, {"start", "list"}, {"listed ok", "create a"}, {"created a ok", "prepare a"}, {"prepared a ok", ""},
	    {"claim 1 9000", "grant 1 a hot, create b"}, {"claim 2 60000", ""}, {"created b ok", "prepare b"},
	    {"prepared b ok", "grant 2 b cold"}, {"claim 3 60000", ""}, {"counts", "leased 2, waiting 1"},
	    {"release a", "close a, destroy a"}, {"destroyed a unavailable", ""}, {"wait 500", "destroy a"}, {"destroyed a ok", "create c"},
	    {"created c ok", "prepare c"}, {"prepared c ok", "grant 3 c cold"});
}

static void refuses_when_the_queue_is_full(void **state)
{
	(void)state;
	/* Nothing measured: 1.5 s to create and 1 s to prepare are assumed, the second one after a lease of 5 s and 0.5 s. */
	RUN(0, 1, 1, STARTED, {"claim 1 9000", "create a"}, {"claim 2 9000", "refuse 2 full 8000"}, {"counts", "creating 1, waiting 1"});
	RUN(0, 4, 1, STARTED, {"claim 1 9000", "create a"}, {"claim 2 9000", "refuse 2 full 2500"});
}

static void refuses_at_the_deadline(void **state)
{
	(void)state;
	RUN(0, 4, 8, STARTED, {"claim 1 3000", "create a"}, {"claim 2 2000", "create b"}, {"wait 1999", ""},
	    {"wait 1", "refuse 2 deadline 1000"}, {"wait 1000", "refuse 1 deadline 1000"});
	RUN(0, 4, 8, STARTED, {"claim 1 0", "create a, refuse 1 deadline 2500"});
	/* Those refused together are not sent to come back together. */
	RUN(0, 1, 8, STARTED, {"claim 1 9000", "create a"}, {"claim 2 9000", ""}, {"claim 3 9000", ""},
	    {"created a rate-limit 60000", "refuse 1 busy 62500, refuse 2 busy 80000, refuse 3 busy 97500"});
}

/* Whoever had to wait for room is told so, also when one was on its way for it at last. */
static void a_full_pool_is_told_from_a_slow_one(void **state)
{
	(void)state;
	RUN(0, 1, 8, STARTED, {"claim 1 9000", "create a"}, {"created a ok", "prepare a"}, {"prepared a ok", "grant 1 a cold"},
	    {"claim 2 1000", ""}, {"claim 3 4000", ""}, {"wait 1000", "refuse 2 busy 5500"}, {"release a", "close a, destroy a"},
	    {"destroyed a ok", "create b"}, {"wait 3000", "refuse 3 busy 1000"}, {"claim 4 1000", ""},
	    {"wait 1000", "refuse 4 deadline 2000"});
	/* Its fair share. */
	RUN(2, 4, 8, TWO_HOT, {"claim 1 9000 1", "grant 1 a hot, create c"}, {"claim 2 9000 1", "grant 2 b hot, create d"},
	    {"created c ok", "prepare c"}, {"prepared c ok", ""}, {"claim 3 9000 2", "grant 3 c hot"},
	    {"claim 4 500 1", "refuse 4 busy 2625"});
}

static void refuses_at_once_what_is_certainly_in_vain(void **state)
{
	(void)state;
	/* Once 2 s + 1 s are measured with the spread of one sample, a quarter of it is the least that is assumed: 0.75 s. */
	RUN(1, 4, 8, {"start", "list"}, {"listed ok", "create a"}, {"pass 2000", ""}, {"created a ok", "prepare a"}, {"pass 1000", ""},
	    {"prepared a ok", ""}, {"claim 1 0", "grant 1 a hot, create b"}, {"claim 2 750", "create c, refuse 2 deadline 3000"},
	    {"claim 3 751", ""}, {"wait 750", ""}, {"wait 1", "refuse 3 deadline 2249"});
}

static void rate_limit_is_obeyed(void **state)
{
	(void)state;
	RUN(2, 10, 8, {"start", "list"}, {"listed ok", "create a, create b"}, {"created a rate-limit 7000", ""},
	    {"created b rate-limit 7000", ""}, {"creation", "rate-limit"}, {"counts", ""}, {"wait 6999", ""},
	    /* One at a time until one succeeds. */
	    {"wait 1", "create c"},
	    /* Half of 10 a minute, and one more after a success: 6. */
	    {"created c ok", "prepare c"}, {"creation", "budget"}, {"wait 9999", ""}, {"wait 1", "create d"});
	RUN(1, 10, 8, {"start", "list"}, {"listed ok", "create a"}, {"created a rate-limit", ""}, {"wait 9999", ""},
	    {"wait 1", "create b"});
	/* A waiter who cannot live to see the end of it need not wait; one who can, waits. */
	RUN(0, 10, 8, STARTED, {"claim 1 6000", "create a"}, {"claim 2 8000", "create b"}, {"created a rate-limit 7000", ""},
	    {"created b rate-limit 7000", "refuse 1 busy 9500"}, {"wait 7000", "create c"}, {"created c ok", "prepare c"},
	    {"prepared c ok", "grant 2 c cold"});
}

static void only_those_for_whom_none_is_on_its_way_are_refused(void **state)
{
	(void)state;
	RUN(0, 10, 8, STARTED, {"claim 1 9000", "create a"}, {"claim 2 9000", "create b"},
	    {"created b rate-limit 30000", "refuse 2 busy 32500"}, {"created a ok", "prepare a"}, {"prepared a ok", "grant 1 a cold"});
}

static void capacity_waits_for_a_destroy(void **state)
{
	(void)state;
	RUN(1, 10, 8, {"start", "list"}, {"listed ok", "create a"}, {"created a ok", "prepare a"}, {"prepared a ok", ""},
	    {"claim 1 0", "grant 1 a hot, create b"}, {"created b capacity", ""}, {"creation", "capacity"},
	    {"release a", "close a, destroy a"}, {"destroyed a ok", "create c"}, {"created c capacity", ""}, {"wait 4999", ""},
	    {"wait 1", "create d"});
}

static void failures_back_off(void **state)
{
	(void)state;
	/* The answer was lost: the Sprite may exist and is destroyed under its name; a new one gets a new name. */
	RUN(1, 10, 8, {"start", "list"}, {"listed ok", "create a"}, {"created a unavailable", "destroy a"}, {"creation", "unavailable"},
	    {"destroyed a ok", ""}, {"wait 249", ""}, {"wait 251", "create b"}, {"created b ok", "prepare b"},
	    {"prepared b unavailable", "close b"}, {"counts", "quarantine 1"}, {"wait 499", ""}, {"wait 501", "prepare b"},
	    {"prepared b unavailable", "close b, destroy b"}, {"wait 999", ""}, {"wait 1001", "create c"});
}

static void unsafe_members_are_never_handed_out(void **state)
{
	(void)state;
	RUN(0, 10, 8, STARTED, {"claim 1 9000", "create a"}, {"created a ok", "prepare a"}, {"prepared a policy", "close a"},
	    {"wait 1000", "prepare a"}, {"prepared a policy", "close a, destroy a"}, {"wait 1000", "create b"},
	    {"created b ok", "prepare b"}, {"prepared b ok", "grant 1 b cold"});
	/* Once more is enough for one that was only slow. */
	RUN(0, 10, 8, STARTED, {"claim 1 9000", "create a"}, {"created a ok", "prepare a"}, {"prepared a unavailable", "close a"},
	    {"wait 1000", "prepare a"}, {"prepared a ok", "grant 1 a cold"});
	/* What does not exist is not tried again. */
	RUN(0, 10, 8, STARTED, {"claim 1 9000", "create a"}, {"created a ok", "prepare a"}, {"prepared a gone", "close a, destroy a"});
	RUN(0, 10, 8, STARTED, {"claim 1 9000", "create a"}, {"created a ok", "prepare a"},
	    {"prepared a taken", "close a, create b, destroy a"});
}

static void unauthorized_refuses_waiters(void **state)
{
	(void)state;
	RUN(0, 10, 8, STARTED, {"claim 1 60000", "create a"}, {"created a unauthorized", "refuse 1 unavailable 32500"},
	    {"creation", "unauthorized"}, {"claim 2 60000", "refuse 2 unavailable 32500"}, {"wait 30000", ""},
	    {"claim 3 60000", "create b"}, {"created b ok", "prepare b"}, {"prepared b ok", "grant 3 b cold"});
	/* Hot members are served all the same. */
	RUN(1, 10, 8, {"start", "list"}, {"listed ok", "create a"}, {"created a ok", "prepare a"}, {"prepared a ok", ""},
	    {"claim 1 0", "grant 1 a hot, create b"}, {"return a", ""}, {"created b unauthorized", ""}, {"claim 2 0", "grant 2 a hot"});
}

static void a_lost_channel_is_dialled_once_more(void **state)
{
	(void)state;
	RUN(1, 10, 8, {"start", "list"}, {"listed ok", "create a"}, {"created a ok", "prepare a"}, {"prepared a ok", ""},
	    {"lost a", "close a, prepare a"}, {"claim 1 9000", "create b"}, {"prepared a ok", "grant 1 a warm"});
	RUN(1, 10, 8, {"start", "list"}, {"listed ok", "create a"}, {"created a ok", "prepare a"}, {"prepared a ok", ""},
	    {"lost a", "close a, prepare a"}, {"prepared a ok", ""}, {"lost a", "close a, create b, destroy a"});
	/* That one idle Sprite has vanished holds nothing back. */
	RUN(1, 10, 8, {"start", "list"}, {"listed ok", "create a"}, {"created a ok", "prepare a"}, {"prepared a ok", ""},
	    {"lost a", "close a, prepare a"}, {"prepared a gone", "close a, create b, destroy a"}, {"creation", "open"});
	/* A user's channel is the user's affair. */
	RUN(0, 10, 8, STARTED, {"claim 1 9000", "create a"}, {"created a ok", "prepare a"}, {"prepared a ok", "grant 1 a cold"},
	    {"lost a", ""}, {"counts", "leased 1"});
}

static void never_handed_over_goes_to_the_next(void **state)
{
	(void)state;
	RUN(0, 1, 8, STARTED, {"claim 1 9000", "create a"}, {"created a ok", "prepare a"}, {"prepared a ok", "grant 1 a cold"},
	    {"claim 2 9000", ""}, {"return a", "grant 2 a cold"}, {"return a", ""}, {"claim 3 0", "grant 3 a hot"});
}

/* The channel breaks between the grant and its delivery: another one, if there is, else it waits; nothing was used. */
static void what_is_lost_before_it_is_handed_over(void **state)
{
	(void)state;
	RUN(2, 4, 8, TWO_HOT, {"claim 1 9000", "grant 1 a hot, create c"}, {"lost a 1", "close a, prepare a, grant 1 b hot"},
	    {"counts", "creating 1, preparing 1, leased 1"}, {"prepared a ok", ""}, {"counts", "creating 1, hot 1, leased 1"});
	RUN(1, 4, 8, {"start", "list"}, {"listed ok", "create a"}, {"created a ok", "prepare a"}, {"prepared a ok", ""},
	    {"claim 1 9000", "grant 1 a hot, create b"}, {"lost a 1", "close a, prepare a"},
	    {"counts", "creating 1, preparing 1, waiting 1"}, {"prepared a ok", "grant 1 a warm"});
	RUN(1, 4, 8, {"start", "list"}, {"listed ok", "create a"}, {"created a ok", "prepare a"}, {"prepared a ok", ""},
	    {"claim 1 9000", "grant 1 a hot, create b"}, {"stop 9000", ""}, {"lost a 1", "close a, refuse 1 stopping 1000, destroy a"});
}

static void waiters_are_served_oldest_first(void **state)
{
	(void)state;
	RUN(0, 3, 8, STARTED, {"claim 1 9000", "create a"}, {"claim 2 9000", "create b"}, {"claim 3 9000", "create c"},
	    {"created c ok", "prepare c"}, {"prepared c ok", "grant 1 c cold"}, {"cancel 2", ""}, {"created b ok", "prepare b"},
	    {"prepared b ok", "grant 3 b cold"});
}

static void old_members_are_replaced(void **state)
{
	(void)state;
	RUN(1, 10, 8, {"start", "list"}, {"listed ok", "create a"}, {"created a ok", "prepare a"}, {"prepared a ok", ""},
	    {"wait 3599999", ""}, {"wait 1", "create b"}, {"counts", "creating 1, hot 1"}, {"created b ok", "prepare b"},
	    {"prepared b ok", "close a, destroy a"});
	/* No room for the replacement: it makes room. */
	RUN(1, 1, 8, {"start", "list"}, {"listed ok", "create a"}, {"created a ok", "prepare a"}, {"prepared a ok", ""},
	    {"wait 3600000", "close a, destroy a"}, {"destroyed a ok", "create b"});
	/* An old one is better than none while there is no replacement. */
	RUN(1, 10, 8, {"start", "list"}, {"listed ok", "create a"}, {"created a ok", "prepare a"}, {"prepared a ok", ""},
	    {"wait 3600000", "create b"}, {"created b capacity", ""}, {"claim 1 0", "grant 1 a hot"});
}

static void tenants_share(void **state)
{
	(void)state;
	/* Alone it may have all. */
	RUN(2, 4, 8, TWO_HOT, {"claim 1 9000 1", "grant 1 a hot, create c"}, {"claim 2 9000 1", "grant 2 b hot, create d"},
	    {"created c ok", "prepare c"}, {"prepared c ok", ""}, {"claim 3 9000 1", "grant 3 c hot"});
	/* While another wants something it holds as many as are free: the third waits though one is hot. */
	RUN(2, 4, 8, TWO_HOT, {"claim 1 9000 1", "grant 1 a hot, create c"}, {"claim 2 9000 1", "grant 2 b hot, create d"},
	    {"created c ok", "prepare c"}, {"prepared c ok", ""}, {"created d ok", "prepare d"}, {"prepared d ok", ""},
	    {"claim 3 9000 2", "grant 3 d hot"}, {"claim 4 9000 1", ""}, {"counts", "hot 1, leased 3, waiting 1"},
	    {"release a", "close a, grant 4 c cold, destroy a"});
	/* Whoever holds less comes first. */
	RUN(0, 2, 8, STARTED, {"claim 1 60000 1", "create a"}, {"created a ok", "prepare a"}, {"prepared a ok", "grant 1 a cold"},
	    {"claim 2 60000 1", "create b"}, {"claim 3 60000 2", ""}, {"created b ok", "prepare b"}, {"prepared b ok", "grant 3 b cold"});
	/* The queue, too: the youngest of whoever has most of it gives way. */
	RUN(0, 1, 3, STARTED, {"claim 1 60000 1", "create a"}, {"claim 2 60000 1", ""}, {"claim 3 60000 1", ""},
	    {"claim 4 60000 2", "refuse 3 full 13500"}, {"claim 5 60000 1", "refuse 5 full 24500"});
}

static void options_have_bounds(void **state)
{
	(void)state;
	static const struct machine_options bad[] = {
		{.sizing = {.hot = 0, .max = 0}, .max_waiters = 1, .max_age_us = 1, .seed = 1},
		{.sizing = {.hot = 2, .max = 1}, .max_waiters = 1, .max_age_us = 1, .seed = 1},
		{.sizing = {.hot = 0, .max = 1001}, .max_waiters = 1, .max_age_us = 1, .seed = 1},
		{.sizing = {.hot = 0, .max = 1}, .max_waiters = 0, .max_age_us = 1, .seed = 1},
		{.sizing = {.hot = 0, .max = 1}, .max_waiters = 1, .max_age_us = 1, .seed = 0},
	};
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct machine machine;
		assert_int_equal(machine_init(&machine, &bad[i]), -EINVAL);
	}
}

/* True when it was without effect. */
static bool double_release(struct machine *machine)
{
	machine_step(machine, 1, &(struct machine_event){.type = MACHINE_FOUND, .name = "x"});
	machine_step(machine, 1, &(struct machine_event){.type = MACHINE_RELEASE, .member = machine->roster.lists[POOL_DESTROYING]});
	return machine->roster.counts[POOL_DESTROYING] == 1;
}

static bool more_actions_than_there_can_be(struct machine *machine)
{
	struct machine_action action;
	machine->action_cap = 1;
	machine_step(machine, 1, &(struct machine_event){.type = MACHINE_START});
	machine_step(machine, 1, &(struct machine_event){.type = MACHINE_FOUND, .name = "x"});
	return machine_next_action(machine, &action) && action.type == MACHINE_DO_LIST && !machine_next_action(machine, &action);
}

/* A bug is a crash in a debug build, counted and without effect in a release build. */
static void expect_impossible(bool (*provoke)(struct machine *machine))
{
	fflush(NULL);
	pid_t child = fork();
	if (child == 0) {
		signal(SIGABRT, SIG_DFL);
		close(STDERR_FILENO); /* assert() would write there */
		struct machine machine;
		struct machine_options options = {.sizing = {.hot = 1, .max = 2}, .max_waiters = 1, .max_age_us = 1, .seed = 7};
		if (machine_init(&machine, &options) < 0)
			_exit(9);
		_exit(provoke(&machine) && machine.roster.impossible == 1 ? 1 : 2);
	}
	int status;
	assert_int_equal(waitpid(child, &status, 0), child);
#ifdef NDEBUG
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
#else
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
#endif
}

static void what_cannot_be_is_not_done(void **state)
{
	(void)state;
	expect_impossible(double_release);
	expect_impossible(more_actions_than_there_can_be);
}

static void the_table_has_no_way_back(void **state)
{
	(void)state;
	for (int s = 0; s < POOL_STATES; s++) {
		assert_false(pool_state_allows(POOL_GONE, (enum pool_state)s));
		assert_int_equal(pool_state_allows(POOL_DESTROYING, (enum pool_state)s), s == POOL_GONE);
		/* A Sprite that may exist leaves through DESTROYING only, but for a warm one that somebody else has, and one that becomes
		 * a session's. */
		if (s != POOL_INTENT && s != POOL_CREATING && s != POOL_DESTROYING && s != POOL_WARM && s != POOL_LEASED)
			assert_false(pool_state_allows((enum pool_state)s, POOL_GONE));
		/* Only a hot one is handed out. */
		assert_int_equal(pool_state_allows((enum pool_state)s, POOL_LEASED), s == POOL_HOT);
		assert_true(strlen(pool_state_name((enum pool_state)s)) > 2);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(fills_and_refills),
		cmocka_unit_test(cold_claims_join_what_is_on_its_way),
		cmocka_unit_test(nothing_hot_wanted),
		cmocka_unit_test(what_a_canceled_claim_asked_for_does_not_stay),
		cmocka_unit_test(max_counts_everything),
		cmocka_unit_test(refuses_when_the_queue_is_full),
		cmocka_unit_test(refuses_at_the_deadline),
		cmocka_unit_test(a_full_pool_is_told_from_a_slow_one),
		cmocka_unit_test(refuses_at_once_what_is_certainly_in_vain),
		cmocka_unit_test(rate_limit_is_obeyed),
		cmocka_unit_test(only_those_for_whom_none_is_on_its_way_are_refused),
		cmocka_unit_test(capacity_waits_for_a_destroy),
		cmocka_unit_test(failures_back_off),
		cmocka_unit_test(unsafe_members_are_never_handed_out),
		cmocka_unit_test(unauthorized_refuses_waiters),
		cmocka_unit_test(a_lost_channel_is_dialled_once_more),
		cmocka_unit_test(never_handed_over_goes_to_the_next),
		cmocka_unit_test(what_is_lost_before_it_is_handed_over),
		cmocka_unit_test(waiters_are_served_oldest_first),
		cmocka_unit_test(old_members_are_replaced),
		cmocka_unit_test(tenants_share),
		cmocka_unit_test(options_have_bounds),
		cmocka_unit_test(what_cannot_be_is_not_done),
		cmocka_unit_test(the_table_has_no_way_back),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
