/*
 * Those who were refused, and come back when they were told to.
 */
#include "gateway/pool/machine_script.h"

/* The only member is taken by 1, and 2 is refused; 3 of another tenant waits then. */
#define REFUSED                                                                                                                      \
	{"start", "list"}, {"listed ok", ""}, {"claim 1 60000 1", "create a"}, {"created a ok", "prepare a"},                        \
		{"prepared a ok", "grant 1 a cold"}, {"claim 2 1000 2", ""}, {"wait 1000", "refuse 2 busy 5500"}, {"wait 5000", ""}, \
		{"claim 3 60000 3", ""}
#define ONE_MORE(grant)                                                                                     \
	{"release a", "close a, destroy a"}, {"destroyed a ok", "create b"}, {"created b ok", "prepare b"}, \
	{                                                                                                   \
		"prepared b ok", grant                                                                      \
	}

static void whoever_comes_back_in_time_is_served_first(void **state)
{
	(void)state;
	RUN(0, 1, 8, REFUSED, {"wait 500", ""}, {"claim 4 60000 2", ""}, ONE_MORE("grant 4 b cold"));
	/* Too soon; and another one. */
	RUN(0, 1, 8, REFUSED, {"wait 499", ""}, {"claim 4 60000 2", ""}, ONE_MORE("grant 3 b cold"));
	RUN(0, 1, 8, REFUSED, {"wait 500", ""}, {"claim 4 60000 4", ""}, ONE_MORE("grant 3 b cold"));
	/* Once only. */
	RUN(0, 1, 8, REFUSED, {"wait 500", ""}, {"claim 4 60000 2", ""}, {"claim 5 60000 2", ""}, ONE_MORE("grant 4 b cold"),
	    {"release b", "close b, destroy b"}, {"destroyed b ok", "create c"}, {"created c ok", "prepare c"},
	    {"prepared c ok", "grant 3 c cold"});
}

static void whoever_holds_less_comes_before(void **state)
{
	(void)state;
	RUN(0, 2, 8, {"start", "list"}, {"listed ok", ""}, {"claim 1 60000 1", "create a"}, {"created a ok", "prepare a"},
	    {"prepared a ok", "grant 1 a cold"}, {"claim 2 60000 3", "create b"}, {"created b ok", "prepare b"},
	    {"prepared b ok", "grant 2 b cold"}, {"claim 3 1000 1", ""}, {"wait 1000", "refuse 3 busy 5500"}, {"wait 5500", ""},
	    {"claim 4 60000 2", ""}, {"claim 5 60000 1", ""}, {"release b", "close b, destroy b"}, {"destroyed b ok", "create c"},
	    {"created c ok", "prepare c"}, {"prepared c ok", "grant 4 c cold"});
}

static void nobody_is_told_a_time_that_is_taken(void **state)
{
	(void)state;
	RUN(0, 1, 8, {"start", "list"}, {"listed ok", ""}, {"claim 1 60000 1", "create a"}, {"created a ok", "prepare a"},
	    {"prepared a ok", "grant 1 a cold"}, {"claim 2 1000 2", ""}, {"wait 1000", "refuse 2 busy 5500"}, {"claim 3 1000 2", ""},
	    {"wait 1000", "refuse 3 busy 11000"}, {"claim 4 1000 3", ""}, {"wait 1000", "refuse 4 busy 11000"});
}

/* Nobody knows when the provider will be well again. */
static void while_the_provider_fails_nobody_has_a_turn(void **state)
{
	(void)state;
	struct script script;
	begin(&script, &(struct machine_options){.sizing = {.max = 4}, .max_waiters = 8});
	play(&script, "start");
	play(&script, "listed ok");
	play(&script, "claim 1 9000 1");
	play(&script, "created a unauthorized");
	assert_non_null(strstr(script.out.data, "refuse 1 unavailable"));
	assert_int_equal(bookings_ahead(&script.machine.bookings, 1), 0);
	buf_deinit(&script.out);
	machine_deinit(&script.machine);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(whoever_comes_back_in_time_is_served_first),
		cmocka_unit_test(whoever_holds_less_comes_before),
		cmocka_unit_test(nobody_is_told_a_time_that_is_taken),
		cmocka_unit_test(while_the_provider_fails_nobody_has_a_turn),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
