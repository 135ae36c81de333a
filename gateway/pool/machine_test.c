#include "gateway/pool/machine_script.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#define STARTED {"start", "list"}, {"listed ok", ""}

/* Two hot members, a newer than b. */
#define TWO_HOT                                                                                                   \
	{"start", "list"}, {"listed ok", "create a, create b"}, {"pass 2000", ""}, {"created a ok", "prepare a"}, \
		{"created b ok", "prepare b"}, {"pass 1000", ""}, {"prepared b ok", ""}, {"prepared a ok", ""}

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
	    {"wait 1000", "refuse 4 deadline 1000"});
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

static void a_lost_creation_is_not_forgotten(void **state)
{
	(void)state;
	RUN(1, 10, 8, {"start", "list"}, {"listed ok", "create a"}, {"created a unavailable", "destroy a"}, {"destroyed a gone", ""},
	    {"wait 500", "create b"}, {"created b ok", "prepare b"}, {"prepared b ok", ""}, {"wait 4500", "destroy a"},
	    {"destroyed a gone", ""}, {"counts", "hot 1, destroying 1"}, {"wait 14999", ""}, {"wait 1", "destroy a"},
	    {"destroyed a gone", ""}, {"counts", "hot 1"}, {"wait 299999", ""}, {"wait 1", "list"}, {"found a", "destroy a"},
	    {"listed ok", ""});
	/* Nobody answered for the API: it may appear much later. */
	RUN(1, 10, 8, {"start", "list"}, {"listed ok", "create a"}, {"created a lost", "destroy a"}, {"destroyed a gone", ""},
	    {"wait 500", "create b"}, {"created b ok", "prepare b"}, {"prepared b ok", ""}, {"wait 4500", "destroy a"},
	    {"destroyed a gone", ""}, {"wait 20000", "destroy a"}, {"destroyed a gone", ""}, {"wait 20000", "destroy a"},
	    {"destroyed a gone", ""}, {"wait 20000", "destroy a"}, {"destroyed a gone", ""}, {"wait 20000", "destroy a"},
	    {"destroyed a gone", ""}, {"counts", "hot 1, destroying 1"}, {"wait 4999", ""}, {"wait 1", "destroy a"},
	    {"destroyed a gone", ""}, {"counts", "hot 1"});
	/* Stopping waits for it until the deadline, and asks more often. */
	RUN(1, 10, 8, {"start", "list"}, {"listed ok", "create a"}, {"created a lost", "destroy a"}, {"destroyed a gone", ""},
	    {"stop 60000", ""}, {"wait 1999", ""}, {"wait 1", "destroy a"}, {"destroyed a gone", ""}, {"wait 40000", "destroy a"},
	    {"destroyed a gone", ""}, {"wait 2000", "destroy a"}, {"destroyed a ok", "stopped 0"});
	RUN(1, 10, 8, {"start", "list"}, {"listed ok", "create a"}, {"stop 5000", ""}, {"created a lost", "destroy a"},
	    {"destroyed a gone", ""}, {"wait 2000", "destroy a"}, {"destroyed a gone", ""}, {"wait 2000", "destroy a"},
	    {"destroyed a gone", ""}, {"wait 1000", "stopped 1"});
	RUN(1, 10, 8, {"start", "list"}, {"listed ok", "create a"}, {"created a lost", "destroy a"}, {"destroyed a gone", ""},
	    {"stop 120000", ""}, {"wait 90000", "destroy a"}, {"destroyed a gone", "stopped 0"});
	/* It appeared late. */
	RUN(1, 10, 8, {"start", "list"}, {"listed ok", "create a"}, {"created a unavailable", "destroy a"}, {"destroyed a gone", ""},
	    {"wait 5000", "create b, destroy a"}, {"destroyed a ok", ""}, {"counts", "creating 1"});
}

static void one_not_found_is_no_licence_to_forget(void **state)
{
	(void)state;
	RUN(0, 10, 8, STARTED, {"claim 1 9000", "create a"}, {"created a ok", "prepare a"}, {"prepared a ok", "grant 1 a cold"},
	    {"release a", "close a, destroy a"}, {"destroyed a gone", ""}, {"counts", "destroying 1"}, {"wait 4999", ""},
	    {"wait 1", "destroy a"}, {"destroyed a gone", ""}, {"counts", ""});
	/* Two in a row, and not seen in between. */
	RUN(0, 10, 8, STARTED, {"found x", "destroy x"}, {"destroyed x gone", ""}, {"wait 5000", "destroy x"},
	    {"destroyed x unavailable", ""}, {"wait 500", "destroy x"}, {"destroyed x gone", ""}, {"counts", "destroying 1"},
	    {"wait 5000", "destroy x"}, {"destroyed x gone", ""}, {"counts", ""});
	RUN(0, 10, 8, STARTED, {"found x", "destroy x"}, {"destroyed x gone", ""}, {"wait 4999", ""}, {"found x", ""},
	    {"wait 1", "destroy x"}, {"destroyed x gone", ""}, {"counts", "destroying 1"}, {"wait 5000", "destroy x"},
	    {"destroyed x gone", ""}, {"counts", ""});
}

static void destroy_is_retried_until_it_worked(void **state)
{
	(void)state;
	RUN(0, 10, 8, STARTED, {"claim 1 9000", "create a"}, {"created a ok", "prepare a"}, {"prepared a ok", "grant 1 a cold"},
	    {"release a", "close a, destroy a"}, {"destroyed a unavailable", ""}, {"wait 500", "destroy a"}, {"destroyed a invalid", ""},
	    {"wait 1000", "destroy a"}, {"destroyed a unauthorized", ""}, {"wait 29999", ""}, {"wait 1", "destroy a"},
	    {"destroyed a rate-limit 45000", ""}, {"wait 44999", ""}, {"wait 1", "destroy a"}, {"destroyed a unsent", ""},
	    {"wait 8000", "destroy a"}, {"destroyed a policy", ""}, {"wait 30000", "destroy a"}, {"destroyed a ok", ""}, {"counts", ""});
}

static void a_working_destroy_hastens_the_others(void **state)
{
	(void)state;
	RUN(2, 10, 8, TWO_HOT, {"claim 1 0", "grant 1 a hot, create c"}, {"claim 2 0", "grant 2 b hot, create d"},
	    {"release a", "close a, destroy a"}, {"release b", "close b, destroy b"}, {"destroyed a unavailable", ""},
	    {"destroyed b ok", "destroy a"});
	/* Not where the provider said how long to wait. */
	RUN(2, 10, 8, TWO_HOT, {"claim 1 0", "grant 1 a hot, create c"}, {"claim 2 0", "grant 2 b hot, create d"},
	    {"release a", "close a, destroy a"}, {"release b", "close b, destroy b"}, {"destroyed a rate-limit 4000", ""},
	    {"destroyed b ok", ""}, {"wait 3999", ""}, {"wait 1", "destroy a"});
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

static void what_an_earlier_run_left_goes_first(void **state)
{
	(void)state;
	RUN(1, 2, 8, {"start", "list"}, {"claim 1 9000", ""}, {"found x", "destroy x"}, {"found y", "destroy y"}, {"found z", "destroy z"},
	    {"listed ok", ""}, {"destroyed x ok", ""}, {"destroyed y ok", "create a"}, {"destroyed z ok", "create b"});
	/* Until it is known what there is nothing is created: what an earlier run left and what is new might be twice the maximum. */
	RUN(1, 2, 8, {"start", "list"}, {"claim 1 9000", ""}, {"wait 8999", ""}, {"wait 1", "refuse 1 deadline 2500"},
	    {"found x", "destroy x"}, {"listed unavailable", ""}, {"destroyed x ok", ""}, {"claim 2 600", ""},
	    {"wait 600", "refuse 2 unavailable 2500"}, {"wait 400", "list"}, {"found y", "destroy y"}, {"listed ok", "create a"});
	RUN(1, 2, 8, {"start", "list"}, {"claim 1 9000", ""}, {"listed unauthorized", "refuse 1 unavailable 32500"}, {"wait 1000", "list"},
	    {"listed ok", "create a"});
}

static void draining(void **state)
{
	(void)state;
	RUN(2, 10, 8, TWO_HOT, {"claim 1 0", "grant 1 a hot, create c"}, {"claim 2 0", "grant 2 b hot, create d"},
	    {"claim 3 9000", "create e"}, {"created c ok", "prepare c"}, {"stop 60000", "refuse 3 stopping 1000"},
	    {"claim 4 9000", "refuse 4 stopping 1000"}, {"created d ok", "destroy d"}, {"prepared c ok", "close c, destroy c"},
	    {"release a", "close a, destroy a"}, {"created e rate-limit", ""}, {"destroyed c ok", ""}, {"destroyed d ok", ""},
	    {"destroyed a ok", ""}, {"counts", "leased 1"}, {"release b", "close b, destroy b"}, {"destroyed b gone", ""},
	    {"wait 5000", "destroy b"}, {"destroyed b gone", "stopped 0"}, {"wait 60000", ""});
	RUN(2, 10, 8, TWO_HOT, {"claim 1 0", "grant 1 a hot, create c"}, {"stop 60000", "close b, destroy b"}, {"stop 70000", ""},
	    {"stop 1000", ""}, {"wait 999", ""}, {"wait 1", "stopped 3"}, {"wait 60000", ""});
	RUN(2, 10, 8, {"stop 1000", "stopped 0"});
	RUN(0, 10, 8, {"start", "list"}, {"listed ok", ""}, {"claim 1 9000", "create a"}, {"created a ok", "prepare a"},
	    {"prepared a ok", "grant 1 a cold"}, {"stop 60000", ""}, {"wait 59999", ""}, {"wait 1", "stopped 1"});
	RUN(2, 10, 8, {"start", "list"}, {"stop 1000", ""}, {"listed unavailable", "stopped 0"}, {"wait 60000", ""});
}

static void at_most_eight_destroys_at_once(void **state)
{
	(void)state;
	RUN(0, 1, 8, {"start", "list"}, {"found 1", "destroy 1"}, {"found 2", "destroy 2"}, {"found 3", "destroy 3"},
	    {"found 4", "destroy 4"}, {"found 5", "destroy 5"}, {"found 6", "destroy 6"}, {"found 7", "destroy 7"},
	    {"found 8", "destroy 8"}, {"found 9", ""}, {"destroyed 3 unavailable", "destroy 9"});
}

static void leftovers_beyond_the_bound_come_with_the_next_listing(void **state)
{
	(void)state;
	struct script script = {.now_us = 1000000000, .next_name = 'a', .out = BUF_MAX(1 << 16)};
	struct machine_options options = {.sizing = {.hot = 1, .max = 2}, .max_waiters = 1, .max_age_us = 1, .seed = 7};
	assert_int_equal(machine_init(&script.machine, &options), 0);
	play(&script, "start");
	char event[32];
	for (int i = 0; i < 100; i++) {
		snprintf(event, sizeof event, "found x%d", i);
		play(&script, event);
	}
	assert_int_equal(script.machine.roster.counts[POOL_DESTROYING], 2 + MACHINE_LEFTOVERS);
	play(&script, "listed ok");
	buf_deinit(&script.out);
	play(&script, "wait 5000");
	char *got = buf_take_string(&script.out);
	assert_string_equal(got, "list");
	free(got);
	machine_deinit(&script.machine);
}

static void failing_creations_do_not_pile_up_ghosts(void **state)
{
	(void)state;
	/* After the second failure in a row only one is tried at a time, and none while two may exist that cannot be destroyed. */
	RUN(1, 10, 8, {"start", "list"}, {"listed ok", "create a"}, {"created a unavailable", "destroy a"}, {"destroyed a unavailable", ""},
	    {"wait 500", "create b, destroy a"}, {"created b unavailable", "destroy b"}, {"destroyed a unavailable", ""},
	    {"destroyed b unavailable", ""}, {"wait 1000", "destroy b, destroy a"}, {"destroyed a unavailable", ""},
	    {"destroyed b gone", "create c"});
}

/* One warm member, a. */
#define ONE_WARM                                                                                                           \
	{"start", "list"}, {"listed ok", "create a"}, {"pass 1500", ""}, {"created a ok", "prepare a"}, {"pass 1000", ""}, \
		{"prepared a ok", "close a"}, {"counts", "warm 1"}

static void what_nobody_waits_for_is_parked(void **state)
{
	(void)state;
	PLAY(false, SIZES(.warm = 1, .max = 10), ONE_WARM, {"claim 1 9000", "wake a, create b"}, {"pass 400", ""},
	     {"prepared a ok", "grant 1 a warm"}, {"created b ok", "prepare b"}, {"prepared b ok", "close b"},
	     {"counts", "warm 1, leased 1"});
	/* Hot first, then warm. */
	PLAY(false, SIZES(.hot = 1, .warm = 1, .max = 10), {"start", "list"}, {"listed ok", "create a, create b"},
	     {"created a ok", "prepare a"}, {"created b ok", "prepare b"}, {"prepared b ok", ""}, {"prepared a ok", "close a"},
	     {"claim 1 9000", "grant 1 b hot, wake a, create c"}, {"prepared a ok", ""}, {"counts", "creating 1, hot 1, leased 1"});
}

static void the_freshest_is_woken_first(void **state)
{
	(void)state;
	PLAY(false, SIZES(.warm = 2, .max = 10), {"start", "list"}, {"listed ok", "create a, create b"}, {"created a ok", "prepare a"},
	     {"prepared a ok", "close a"}, {"pass 1000", ""}, {"created b ok", "prepare b"}, {"prepared b ok", "close b"},
	     {"claim 1 9000", "wake b, create c"});
}

static void one_that_may_have_fallen_cold_comes_after_what_is_on_its_way(void **state)
{
	(void)state;
	PLAY(false, SIZES(.warm = 2, .max = 10), {"start", "list"}, {"listed ok", "create a, create b"}, {"created a ok", "prepare a"},
	     {"prepared a ok", "close a"}, {"created b ok", "prepare b"}, {"prepared b ok", "close b"}, {"wait 3599999", ""},
	     {"claim 1 60000", "wake b, create c"}, {"claim 2 60000", "wake a, create d"});
	static const struct machine_options options = {.sizing = {.warm = 2, .max = 10}, .max_age_us = UINT64_C(36000000000)};
	static const struct row rows[] = {{"start", "list"},
					  {"listed ok", "create a, create b"},
					  {"created a ok", "prepare a"},
					  {"prepared a ok", "close a"},
					  {"created b ok", "prepare b"},
					  {"prepared b ok", "close b"},
					  {"wait 3600000", ""},
					  {"claim 1 60000", "wake b, create c"},
					  {"claim 2 60000", "create d"}};
	run(&options, rows, ARRAY_LEN(rows));
}

static void a_wake_that_fails(void **state)
{
	(void)state;
	/* From the beginning once more, then not again. */
	PLAY(false, SIZES(.warm = 1, .max = 10), ONE_WARM, {"claim 1 60000", "wake a, create b"}, {"prepared a policy", "close a"},
	     {"counts", "creating 1, quarantine 1, waiting 1"}, {"wait 1000", "prepare a"}, {"prepared a policy", "close a, destroy a"});
	/* That one has vanished holds nothing back. */
	PLAY(false, SIZES(.warm = 1, .max = 10), ONE_WARM, {"claim 1 60000", "wake a, create b"},
	     {"prepared a gone", "close a, create c, destroy a"}, {"creation", "open"});
}

static void a_slow_wake_is_hedged(void **state)
{
	(void)state;
	/* Until eight were measured a wake may take 2 s; then nine of ten, at least 0.4 s. One hedge, then one for each 20 claims. */
	PLAY(false, SIZES(.warm = 4, .max = 20), {"start", "list"}, {"listed ok", "create a, create b, create c, create d"},
	     {"created a ok", "prepare a"}, {"created b ok", "prepare b"}, {"created c ok", "prepare c"}, {"created d ok", "prepare d"},
	     {"prepared a ok", "close a"}, {"prepared b ok", "close b"}, {"prepared c ok", "close c"}, {"prepared d ok", "close d"},
	     {"claim 1 9000", "wake d, create e"}, {"wait 1999", ""}, {"wait 1", "wake c"}, {"wait 5000", ""},
	     {"prepared c ok", "grant 1 c warm"}, {"prepared d ok", ""}, {"counts", "creating 1, warm 2, hot 1, leased 1"},
	     /* The loser stays open for a while, then it is warm again. */
	     {"wait 30000", "close d"}, {"counts", "creating 1, warm 3, leased 1"});
	/* Not the last ones. */
	PLAY(false, SIZES(.warm = 2, .max = 20), {"start", "list"}, {"listed ok", "create a, create b"}, {"created a ok", "prepare a"},
	     {"created b ok", "prepare b"}, {"prepared a ok", "close a"}, {"prepared b ok", "close b"},
	     {"claim 1 9000", "wake b, create c"}, {"wait 8000", ""});
	/* While nothing may be woken it waits. */
	PLAY(false, SIZES(.warm = 4, .max = 4), {"start", "list"}, {"listed ok", "create a, create b, create c, create d"},
	     {"created a ok", "prepare a"}, {"created b ok", "prepare b"}, {"created c ok", "prepare c"}, {"created d ok", "prepare d"},
	     {"prepared a ok", "close a"}, {"prepared b ok", "close b"}, {"prepared c ok", "close c"}, {"claim 1 60000", "wake c"},
	     {"wait 1000", ""}, {"prepared d throttled 9000", "close d"}, {"wait 8999", ""}, {"wait 1", "prepare d, wake b"});
}

static void an_intent_wakes_and_creates_nothing(void **state)
{
	(void)state;
	PLAY(false, SIZES(.warm = 1, .max = 10), ONE_WARM, {"intent 60000", "wake a"}, {"prepared a ok", ""},
	     {"claim 1 0", "grant 1 a hot, create b"});
	/* Nobody came. */
	PLAY(false, SIZES(.warm = 1, .max = 10), ONE_WARM, {"intent 5000", "wake a"}, {"prepared a ok", ""}, {"wait 34999", ""},
	     {"counts", "hot 1"}, {"wait 1", "close a"}, {"counts", "warm 1"});
	PLAY(false, SIZES(.max = 10), STARTED, {"intent 60000", ""}, {"counts", ""});
}

static void the_limit_on_running_holds(void **state)
{
	(void)state;
	/* One that was just parked runs on; waking it lets no more run. */
	PLAY(false, SIZES(.warm = 2, .max = 10, .running_limit = 2), {"start", "list"}, {"listed ok", "create a, create b"},
	     {"created a ok", "prepare a"}, {"created b ok", "prepare b"}, {"prepared a ok", "close a"}, {"prepared b ok", "close b"},
	     {"claim 1 60000", "wake b"}, {"claim 2 60000", "wake a"}, {"claim 3 60000", ""}, {"prepared b ok", "grant 1 b warm"},
	     {"prepared a ok", "grant 2 a warm"}, {"release a", "close a, destroy a"}, {"wait 500", ""}, {"destroyed a ok", "create c"});
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
	    {"claim 4 60000 2", "refuse 3 full 13500"}, {"claim 5 60000 1", "refuse 5 full 19000"});
}

static void used_members_are_restored_when_creations_are_short(void **state)
{
	(void)state;
	/* Two a minute, both made: a comes back, for its tenant only. */
	PLAY(true, SIZES(.hot = 1, .max = 10, .create_limit = 2), {"start", "list"}, {"listed ok", "create a"},
	     {"created a ok", "prepare a"}, {"prepared a ok", ""}, {"claim 1 9000 1", "grant 1 a hot, create b"},
	     {"release a", "close a, restore a"}, {"pass 1500", ""}, {"restored a ok", ""}, {"counts", "creating 1, hot 1"},
	     {"claim 2 9000 2", ""}, {"created b ok", "prepare b"}, {"prepared b ok", "grant 2 b cold"},
	     {"claim 3 9000 1", "grant 3 a hot"}, {"release a", "close a, restore a"}, {"restored a invalid", "close a, destroy a"});
	/* After a failure not at once again. */
	PLAY(true, SIZES(.hot = 2, .max = 10, .create_limit = 2), {"start", "list"}, {"listed ok", "create a, create b"},
	     {"created a ok", "prepare a"}, {"created b ok", "prepare b"}, {"prepared a ok", ""}, {"prepared b ok", ""},
	     {"claim 1 9000 1", "grant 1 b hot"}, {"claim 2 9000 1", "grant 2 a hot"}, {"release a", "close a, restore a"},
	     {"pass 1500", ""}, {"restored a unavailable", "close a, destroy a"}, {"release b", "close b, destroy b"});
	PLAY(true, SIZES(.hot = 2, .max = 10, .create_limit = 2), {"start", "list"}, {"listed ok", "create a, create b"},
	     {"created a ok", "prepare a"}, {"created b ok", "prepare b"}, {"prepared a ok", ""}, {"prepared b ok", ""},
	     {"claim 1 9000 1", "grant 1 b hot"}, {"claim 2 9000 1", "grant 2 a hot"}, {"release a", "close a, restore a"},
	     {"pass 1500", ""}, {"restored a unavailable", "close a, destroy a"}, {"pass 500", ""}, {"release b", "close b, restore b"});
	/* Not while there are enough. */
	PLAY(true, SIZES(.hot = 1, .max = 10, .create_limit = 20), {"start", "list"}, {"listed ok", "create a"},
	     {"created a ok", "prepare a"}, {"prepared a ok", ""}, {"claim 1 9000 1", "grant 1 a hot, create b"},
	     {"release a", "close a, destroy a"});
	/* It is no hot one for others: the next that becomes ready is. It is paused when its tenant has not come back for a while. */
	PLAY(true, SIZES(.hot = 1, .warm = 1, .max = 10, .create_limit = 3), {"start", "list"}, {"listed ok", "create a, create b"},
	     {"created a ok", "prepare a"}, {"created b ok", "prepare b"}, {"prepared a ok", ""}, {"prepared b ok", "close b"},
	     {"claim 1 9000 1", "grant 1 a hot, wake b, create c"}, {"claim 2 9000 2", ""}, {"prepared b ok", "grant 2 b warm"},
	     {"release a", "close a, restore a"}, {"restored a ok", ""}, {"created c ok", "prepare c"}, {"prepared c ok", ""},
	     {"counts", "hot 2, leased 1"}, {"wait 29999", ""}, {"wait 1", "close a"}, {"counts", "warm 1, hot 1, leased 1"},
	     {"claim 3 9000 2", "grant 3 c hot"});
	/* A waiter of the same tenant takes it; one that is paused meanwhile is woken for it, not for another. */
	PLAY(true, SIZES(.max = 10, .create_limit = 1), STARTED, {"claim 1 9000 1", "create a"}, {"created a ok", "prepare a"},
	     {"prepared a ok", "grant 1 a cold"}, {"claim 2 90000 1", ""}, {"release a", "close a, restore a"},
	     {"restored a ok", "grant 2 a cold"}, {"release a", "close a, restore a"}, {"restored a ok", "close a"},
	     {"claim 3 90000 2", ""}, {"claim 4 90000 1", "wake a"}, {"prepared a ok", "grant 4 a warm"});
	/* What was used is not prepared again: a wake that fails ends it. */
	PLAY(true, SIZES(.max = 10, .create_limit = 1), STARTED, {"claim 1 9000 1", "create a"}, {"created a ok", "prepare a"},
	     {"prepared a ok", "grant 1 a cold"}, {"release a", "close a, restore a"}, {"restored a ok", "close a"},
	     {"claim 2 90000 1", "wake a"}, {"prepared a unavailable", "close a, destroy a"});
	/* It goes when its tenant does not come back. */
	PLAY(true, SIZES(.max = 10, .create_limit = 1), STARTED, {"claim 1 9000 1", "create a"}, {"created a ok", "prepare a"},
	     {"prepared a ok", "grant 1 a cold"}, {"release a", "close a, restore a"}, {"restored a ok", "close a"}, {"wait 599999", ""},
	     {"wait 1", "destroy a"});
	/* Its room is for others who wait. */
	PLAY(true, SIZES(.max = 1, .create_limit = 1), STARTED, {"claim 1 9000 1", "create a"}, {"created a ok", "prepare a"},
	     {"prepared a ok", "grant 1 a cold"}, {"release a", "close a, restore a"}, {"restored a ok", "close a"},
	     {"claim 2 90000 2", "destroy a"});
}

static void the_last_creations_are_for_those_who_wait(void **state)
{
	(void)state;
	/* Eight of ten: with half of the stock in hand two are left. */
	PLAY(false, SIZES(.warm = 12, .max = 40, .create_limit = 10), {"start", "list"},
	     {"listed ok", "create a, create b, create c, create d, create e, create f, create g, create h"}, {"creation", "open"},
	     {"claim 1 9000", ""}, {"claim 2 9000", ""}, {"claim 3 9000", ""}, {"wait 1", ""});
	PLAY(false, SIZES(.warm = 5, .max = 40, .create_limit = 5), {"start", "list"},
	     {"listed ok", "create a, create b, create c, create d, create e"}, {"claim 1 90000", ""}, {"creation", "budget"});
}

static void destroying_is_put_off_while_others_wait(void **state)
{
	(void)state;
	RUN(0, 10, 8, STARTED, {"claim 1 9000", "create a"}, {"created a ok", "prepare a"}, {"prepared a ok", "grant 1 a cold"},
	    {"claim 2 60000", "create b"}, {"release a", "close a"}, {"wait 4999", ""}, {"wait 1", "destroy a"});
	RUN(0, 10, 8, STARTED, {"claim 1 9000", "create a"}, {"created a ok", "prepare a"}, {"prepared a ok", "grant 1 a cold"},
	    {"claim 2 60000", "create b"}, {"release a", "close a"}, {"cancel 2", "destroy a"});
	/* Not when room is what they wait for. */
	RUN(0, 1, 8, STARTED, {"claim 1 9000", "create a"}, {"created a ok", "prepare a"}, {"prepared a ok", "grant 1 a cold"},
	    {"claim 2 60000", ""}, {"release a", "close a, destroy a"});
}

static void sizes_follow_the_demand(void **state)
{
	(void)state;
	/* Nothing hot at rest; a claim is worth a hot member for a minute or two. */
	PLAY(false, SIZES(.hot = SIZING_AUTO, .warm = SIZING_AUTO, .max = 10), ONE_WARM, {"claim 1 9000", "wake a, create b, create c"},
	     {"prepared a ok", "grant 1 a warm"}, {"created b ok", "prepare b"}, {"prepared b ok", ""}, {"created c ok", "prepare c"},
	     {"prepared c ok", "close c"}, {"counts", "warm 1, hot 1, leased 1"}, {"wait 60000", ""}, {"counts", "warm 1, hot 1, leased 1"},
	     {"wait 65000", "close b"}, {"counts", "warm 2, leased 1"});
}

static void a_stalled_refill_is_seen(void **state)
{
	(void)state;
	struct script script = {.now_us = 1000000000, .next_name = 'a', .out = BUF_MAX(1 << 16)};
	struct machine_options options = {.sizing = {.hot = 1, .max = 4}, .max_waiters = 1, .max_age_us = UINT64_C(3600000000), .seed = 7};
	assert_int_equal(machine_init(&script.machine, &options), 0);
	play(&script, "start");
	play(&script, "listed ok");
	play(&script, "wait 59999");
	assert_false(machine_is_stalled(&script.machine, script.now_us));
	play(&script, "wait 1");
	assert_true(machine_is_stalled(&script.machine, script.now_us));
	play(&script, "created a ok");
	assert_true(machine_is_stalled(&script.machine, script.now_us));
	play(&script, "prepared a ok");
	assert_false(machine_is_stalled(&script.machine, script.now_us + 3600000000));
	buf_deinit(&script.out);
	machine_deinit(&script.machine);
}

static void what_cannot_be_destroyed_stalls_the_refill(void **state)
{
	(void)state;
	struct script script = {.now_us = 1000000000, .next_name = 'a', .out = BUF_MAX(1 << 16)};
	struct machine_options options = {.sizing = {.hot = 1, .max = 1}, .max_waiters = 1, .max_age_us = UINT64_C(3600000000), .seed = 7};
	assert_int_equal(machine_init(&script.machine, &options), 0);
	static const char *const course[] = {"start", "listed ok", "created a ok", "prepared a ok", "claim 1 0", "wait 600000"};
	for (size_t i = 0; i < ARRAY_LEN(course); i++)
		play(&script, course[i]);
	assert_false(machine_is_stalled(&script.machine, script.now_us)); /* it is in use */
	play(&script, "release a");
	play(&script, "wait 59999");
	assert_false(machine_is_stalled(&script.machine, script.now_us));
	play(&script, "wait 1");
	assert_true(machine_is_stalled(&script.machine, script.now_us));
	buf_deinit(&script.out);
	machine_deinit(&script.machine);
}

static void money_ends(void **state)
{
	(void)state;
	/* 0.2 dollars: a hot one costs 0.175 an hour. */
	static const struct machine_options options = {.sizing = {.hot = 1, .warm = 1, .max = 4}, .day_nusd = 200000000};
	struct script script = {.now_us = 1000000000, .next_name = 'a', .out = BUF_MAX(1 << 20)};
	struct machine_options own = options;
	own.seed = 7;
	own.max_waiters = 8;
	own.max_age_us = UINT64_C(360000000000);
	assert_int_equal(machine_init(&script.machine, &own), 0);
	static const char *const fills[] = {"start", "listed ok", "created a ok", "created b ok", "prepared a ok", "prepared b ok"};
	for (size_t i = 0; i < ARRAY_LEN(fills); i++)
		play(&script, fills[i]);
	assert_int_equal(script.machine.target.hot, 1);
	play(&script, "wait 3300000"); /* 0.16 and a little */
	assert_int_equal(script.machine.target.hot, 0);
	assert_int_equal(script.machine.target.warm, 1);
	play(&script, "claim 1 9000");
	assert_null(script.machine.roster.lists[POOL_HOT]);
	script.machine.spend.day_nusd = own.day_nusd;
	buf_deinit(&script.out);
	script.out = (struct buf)BUF_MAX(4096);
	play(&script, "claim 2 9000");
	char *got = buf_take_string(&script.out);
	assert_non_null(strstr(got, "refuse 2 budget 300000"));
	free(got);
	buf_deinit(&script.out);
	machine_deinit(&script.machine);
}

/* It runs on when it is parked, also when nothing happens until long after. */
static void what_lingers_costs(void **state)
{
	(void)state;
	struct script script = {.now_us = 1000000000, .next_name = 'a', .out = BUF_MAX(1 << 16)};
	struct machine_options options = {.sizing = {.warm = 1, .max = 4}, .max_waiters = 1, .max_age_us = UINT64_C(3600000000), .seed = 7};
	assert_int_equal(machine_init(&script.machine, &options), 0);
	static const char *const course[] = {"start",         "listed ok",   "created a ok", "pass 1000",
					     "prepared a ok", "wait 600000", "intent 1000"};
	for (size_t i = 0; i < ARRAY_LEN(course); i++)
		play(&script, course[i]);
	assert_int_equal(script.machine.spend.idle_us, 36000000);
	buf_deinit(&script.out);
	machine_deinit(&script.machine);
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
		cmocka_unit_test(a_lost_creation_is_not_forgotten),
		cmocka_unit_test(one_not_found_is_no_licence_to_forget),
		cmocka_unit_test(destroy_is_retried_until_it_worked),
		cmocka_unit_test(a_working_destroy_hastens_the_others),
		cmocka_unit_test(unsafe_members_are_never_handed_out),
		cmocka_unit_test(unauthorized_refuses_waiters),
		cmocka_unit_test(a_lost_channel_is_dialled_once_more),
		cmocka_unit_test(never_handed_over_goes_to_the_next),
		cmocka_unit_test(what_is_lost_before_it_is_handed_over),
		cmocka_unit_test(waiters_are_served_oldest_first),
		cmocka_unit_test(old_members_are_replaced),
		cmocka_unit_test(what_an_earlier_run_left_goes_first),
		cmocka_unit_test(draining),
		cmocka_unit_test(at_most_eight_destroys_at_once),
		cmocka_unit_test(leftovers_beyond_the_bound_come_with_the_next_listing),
		cmocka_unit_test(failing_creations_do_not_pile_up_ghosts),
		cmocka_unit_test(what_nobody_waits_for_is_parked),
		cmocka_unit_test(the_freshest_is_woken_first),
		cmocka_unit_test(one_that_may_have_fallen_cold_comes_after_what_is_on_its_way),
		cmocka_unit_test(a_wake_that_fails),
		cmocka_unit_test(a_slow_wake_is_hedged),
		cmocka_unit_test(an_intent_wakes_and_creates_nothing),
		cmocka_unit_test(the_limit_on_running_holds),
		cmocka_unit_test(tenants_share),
		cmocka_unit_test(used_members_are_restored_when_creations_are_short),
		cmocka_unit_test(the_last_creations_are_for_those_who_wait),
		cmocka_unit_test(destroying_is_put_off_while_others_wait),
		cmocka_unit_test(sizes_follow_the_demand),
		cmocka_unit_test(a_stalled_refill_is_seen),
		cmocka_unit_test(what_cannot_be_destroyed_stalls_the_refill),
		cmocka_unit_test(money_ends),
		cmocka_unit_test(what_lingers_costs),
		cmocka_unit_test(options_have_bounds),
		cmocka_unit_test(what_cannot_be_is_not_done),
		cmocka_unit_test(the_table_has_no_way_back),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
