/*
 * How Sprites are destroyed, when one that may yet appear is given up, and what an earlier run left.
 */
#include "gateway/pool/machine_script.h"

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
	    {"wait 1", "destroy a"}, {"destroyed a gone", ""}, {"counts", ""},
	    /* Nor two: what exists is looked up once more. */
	    {"wait 299999", ""}, {"wait 1", "list"}, {"found a", "destroy a"}, {"listed ok", ""}, {"destroyed a ok", ""},
	    {"wait 3600000", ""});
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_lost_creation_is_not_forgotten),
		cmocka_unit_test(one_not_found_is_no_licence_to_forget),
		cmocka_unit_test(destroy_is_retried_until_it_worked),
		cmocka_unit_test(a_working_destroy_hastens_the_others),
		cmocka_unit_test(what_an_earlier_run_left_goes_first),
		cmocka_unit_test(draining),
		cmocka_unit_test(at_most_eight_destroys_at_once),
		cmocka_unit_test(leftovers_beyond_the_bound_come_with_the_next_listing),
		cmocka_unit_test(failing_creations_do_not_pile_up_ghosts),
		cmocka_unit_test(destroying_is_put_off_while_others_wait),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
