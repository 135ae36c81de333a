/*
 * What is paused, woken, restored and created ahead, how much of it, and at what price.
 */
#include "gateway/pool/machine_script.h"

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

/* a for tenant 1, while tenant 2 has b. */
#define FIRST_IS_RESTORED                                                                                              \
	{"start", "list"}, {"listed ok", "create a"}, {"created a ok", "prepare a"}, {"prepared a ok", ""},            \
		{"claim 1 9000 1", "grant 1 a hot, create b"}, {"release a", "close a, restore a"}, {"pass 1500", ""}, \
		{"restored a ok", ""}, {"claim 2 9000 2", ""}, {"created b ok", "prepare b"}, {"prepared b ok", "grant 2 b cold"}

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
	/* Its place to run is for others who wait, */
	PLAY(true, SIZES(.hot = 1, .max = 10, .create_limit = 3, .running_limit = 2), FIRST_IS_RESTORED,
	     {"claim 3 90000 2", "close a, destroy a"}, {"destroyed a ok", "create c"});
	/* … unless that is not all that they lack. */
	PLAY(true, SIZES(.hot = 1, .max = 10, .create_limit = 2, .running_limit = 2), FIRST_IS_RESTORED, {"claim 3 90000 2", ""},
	     {"wait 29999", ""}, {"wait 1", "close a"});
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
	assert_non_null(strstr(got, "refuse 2 budget 3600000"));
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_nobody_waits_for_is_parked),
		cmocka_unit_test(the_freshest_is_woken_first),
		cmocka_unit_test(one_that_may_have_fallen_cold_comes_after_what_is_on_its_way),
		cmocka_unit_test(a_wake_that_fails),
		cmocka_unit_test(a_slow_wake_is_hedged),
		cmocka_unit_test(an_intent_wakes_and_creates_nothing),
		cmocka_unit_test(the_limit_on_running_holds),
		cmocka_unit_test(used_members_are_restored_when_creations_are_short),
		cmocka_unit_test(the_last_creations_are_for_those_who_wait),
		cmocka_unit_test(sizes_follow_the_demand),
		cmocka_unit_test(a_stalled_refill_is_seen),
		cmocka_unit_test(what_cannot_be_destroyed_stalls_the_refill),
		cmocka_unit_test(money_ends),
		cmocka_unit_test(what_lingers_costs),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
