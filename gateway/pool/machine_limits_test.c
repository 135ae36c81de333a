/*
 * What the provider refuses because of a limit, and when it is asked again.
 */
#include "gateway/pool/machine_script.h"

#define WARM_TWO(...) SIZES(.warm = 2, .max = 10, __VA_ARGS__)

/* Two warm members, b newer than a, that are no longer running. */
#define TWO_WARM                                                                                                              \
	{"start", "list"}, {"listed ok", "create a, create b"}, {"created a ok", "prepare a"}, {"created b ok", "prepare b"}, \
		{"prepared a ok", "close a"}, {"wait 1000", ""}, {"prepared b ok", "close b"}, {"wait 40000", ""}, {"counts", "warm 2"}

static void a_refused_wake_loses_nothing(void **state)
{
	(void)state;
	/* Nothing is woken or created before the time that was said. The Sprite is where it was. */
	PLAY(false, WARM_TWO(.create_limit = 10), TWO_WARM, {"claim 1 60000", "wake b, create c"}, {"prepared b capacity 7000", "close b"},
	     {"counts", "creating 1, warm 2, waiting 1"}, {"creation", "capacity"}, {"claim 2 60000", ""}, {"wait 6999", ""},
	     {"wait 1", "wake b, wake a"}, {"prepared b ok", "grant 1 b warm"});
	/* The same for any other 429. */
	PLAY(false, WARM_TWO(.create_limit = 10), TWO_WARM, {"claim 1 60000", "wake b, create c"}, {"prepared b throttled 7000", "close b"},
	     {"creation", "throttled"}, {"wait 6999", ""}, {"wait 1", "wake b"});
	/* Without a time: as soon as a Sprite is gone. */
	PLAY(false, WARM_TWO(.create_limit = 10), TWO_WARM, {"claim 1 60000", "wake b, create c"}, {"created c unavailable", "destroy c"},
	     {"prepared b capacity", "close b"}, {"destroyed c ok", "wake b"});
	/* With one, even then not before. */
	PLAY(false, WARM_TWO(.create_limit = 10), TWO_WARM, {"claim 1 60000", "wake b, create c"}, {"created c unavailable", "destroy c"},
	     {"prepared b capacity 3000", "close b"}, {"destroyed c ok", ""}, {"wait 2999", ""}, {"wait 1", "wake b, create d"});
	/* However often: it is never in doubt. */
	PLAY(false, WARM_TWO(.create_limit = 2), TWO_WARM, {"claim 1 60000", "wake b"}, {"prepared b capacity 1000", "close b"},
	     {"wait 1000", "wake b"}, {"prepared b capacity 1000", "close b"}, {"wait 1000", "wake b"},
	     {"prepared b throttled 1000", "close b"}, {"wait 1000", "wake b"}, {"prepared b ok", "grant 1 b warm"});
}

static void the_budget_of_creations_is_left_alone(void **state)
{
	(void)state;
	static const char *const outcomes[] = {"prepared a throttled 1000", "prepared a capacity 1000"};
	for (size_t i = 0; i < ARRAY_LEN(outcomes); i++) {
		struct script script = {.now_us = 1000000000, .next_name = 'a', .out = BUF_MAX(1 << 16)};
		struct machine_options options = {.sizing = {.hot = 1, .max = 4, .create_limit = 10, .create_window_us = 60000000},
						  .max_waiters = 1,
						  .max_age_us = UINT64_C(3600000000),
						  .seed = 7};
		assert_int_equal(machine_init(&script.machine, &options), 0);
		static const char *const fills[] = {"start", "listed ok", "created a ok"};
		for (size_t j = 0; j < ARRAY_LEN(fills); j++)
			play(&script, fills[j]);
		play(&script, outcomes[i]);
		assert_int_equal(script.machine.gate.budget.count, 10);
		assert_int_equal(script.machine.gate.failures, 0);
		buf_deinit(&script.out);
		machine_deinit(&script.machine);
	}
}

static void a_refused_preparation_waits(void **state)
{
	(void)state;
	/* It is no failure of the Sprite, however often; what has been created meanwhile waits with it. */
	RUN(2, 10, 8, {"start", "list"}, {"listed ok", "create a, create b"}, {"created a ok", "prepare a"},
	    {"prepared a capacity 7000", "close a"}, {"counts", "creating 1, quarantine 1"}, {"created b ok", ""},
	    {"counts", "quarantine 2"}, {"wait 6999", ""}, {"wait 1", "prepare a, prepare b"}, {"prepared a throttled 2000", "close a"},
	    {"prepared b throttled 3000", "close b"}, {"wait 2999", ""}, {"wait 1", "prepare a, prepare b"}, {"prepared a ok", ""},
	    {"prepared b ok", ""}, {"counts", "hot 2"});
	/* A failure that says a time is asked again then, and holds nothing else back for so long. */
	RUN(2, 10, 8, {"start", "list"}, {"listed ok", "create a, create b"}, {"created a ok", "prepare a"},
	    {"prepared a unavailable 9000", "close a"}, {"created b ok", "prepare b"}, {"prepared b ok", ""},
	    {"claim 1 60000", "grant 1 b hot"}, {"wait 1000", "create c"}, {"wait 7999", ""}, {"wait 1", "prepare a"});
	/* One in doubt makes room for another try. */
	RUN(1, 1, 8, {"start", "list"}, {"listed ok", "create a"}, {"created a ok", "prepare a"}, {"prepared a unavailable", "close a"},
	    {"counts", "quarantine 1"}, {"claim 1 60000", "destroy a"});
	/* Their room is not needed for others who cannot be created either. */
	RUN(1, 1, 8, {"start", "list"}, {"listed ok", "create a"}, {"created a ok", "prepare a"}, {"prepared a capacity 7000", "close a"},
	    {"claim 1 60000", ""}, {"claim 2 60000", ""}, {"counts", "quarantine 1, waiting 2"});
}

static void a_channel_that_breaks_while_nothing_may_be_woken(void **state)
{
	(void)state;
	PLAY(false, SIZES(.hot = 1, .warm = 1, .max = 10), {"start", "list"}, {"listed ok", "create a, create b"},
	     {"created a ok", "prepare a"}, {"prepared a ok", ""}, {"created b ok", "prepare b"}, {"prepared b capacity 5000", "close b"},
	     {"lost a", "close a"}, {"counts", "warm 1, quarantine 1"}, {"wait 4999", ""}, {"wait 1", "prepare b, wake a"});
}

static void waiters_in_vain_are_told(void **state)
{
	(void)state;
	/* A wake takes no time at best, but it is not allowed before. */
	PLAY(false, WARM_TWO(.create_limit = 10), TWO_WARM, {"claim 1 6000", "wake b, create c"}, {"claim 2 9000", "wake a, create d"},
	     {"created c rate-limit 60000", ""}, {"created d rate-limit 60000", ""}, {"prepared b capacity 7000", "close b"},
	     {"prepared a capacity 7000", "close a, refuse 1 busy 60125"}, {"wait 7000", "wake b"});
	/* Without a time a Sprite that goes may end it at any moment. */
	PLAY(false, WARM_TWO(.create_limit = 2), TWO_WARM, {"claim 1 4000", "wake b"}, {"prepared b capacity", "close b"},
	     {"wait 3999", ""}, {"wait 1", "refuse 1 busy 15125"});
}

static void the_running_limit_is_learnt(void **state)
{
	(void)state;
	/* Three may run: that many are kept hot, and a fourth is not asked for. After an hour it may have been raised. */
	static const struct machine_options options = {.sizing = {.hot = 4, .max = 10}, .max_age_us = UINT64_C(36000000000)};
	static const struct row rows[] = {{"start", "list"},
					  {"listed ok", "create a, create b, create c, create d"},
					  {"created d capacity 1000 3", ""},
					  {"created a ok", ""},
					  {"wait 1000", "prepare a"},
					  {"prepared a ok", ""},
					  {"created b ok", "prepare b"},
					  {"prepared b ok", ""},
					  {"created c ok", "prepare c"},
					  {"prepared c ok", ""},
					  {"wait 60000", ""},
					  {"claim 1 60000", "grant 1 c hot"},
					  {"release c", "close c, destroy c"},
					  {"destroyed c ok", "create e"},
					  {"created e ok", "prepare e"},
					  {"prepared e ok", ""},
					  {"wait 3538999", ""},
					  {"wait 1", "create f"}};
	run(&options, rows, ARRAY_LEN(rows));
	/* The setting holds when it is less, the provider's word when that is. */
	PLAY(false, SIZES(.hot = 4, .max = 10, .running_limit = 2), {"start", "list"}, {"listed ok", "create a, create b"},
	     {"created a ok", "prepare a"}, {"prepared a capacity 1000 3", "close a"}, {"wait 1000", "prepare a"}, {"prepared a ok", ""},
	     {"created b ok", "prepare b"}, {"prepared b ok", ""}, {"wait 60000", ""}, {"counts", "hot 2"});
	PLAY(false, SIZES(.hot = 4, .max = 10, .running_limit = 9), {"start", "list"},
	     {"listed ok", "create a, create b, create c, create d"}, {"created d capacity 1000 1", ""}, {"created c capacity 1000 1", ""},
	     {"created b capacity 1000 1", ""}, {"created a ok", ""}, {"wait 1000", "prepare a"}, {"prepared a ok", ""}, {"wait 60000", ""},
	     {"counts", "hot 1"});
}

static void a_list_does_not_raise_what_a_refusal_said(void **state)
{
	(void)state;
	/* Three may run, whatever a list says meanwhile: for an hour. */
	static const struct machine_options options = {.sizing = {.hot = 4, .max = 10}, .max_age_us = UINT64_C(36000000000)};
	static const struct row rows[] = {{"start", "list"},     {"listed ok 0 8", "create a, create b, create c, create d"},
					  {"wait 600000", ""},   {"created d capacity 1000 3", ""},
					  {"created a ok", ""},  {"wait 1000", "prepare a"},
					  {"prepared a ok", ""}, {"created b ok", "prepare b"},
					  {"prepared b ok", ""}, {"created c ok", "prepare c"},
					  {"prepared c ok", ""}, {"wait 2939000", "list"},
					  {"listed ok 0 8", ""}, {"wait 659999", ""},
					  {"wait 1", "create e"}};
	run(&options, rows, ARRAY_LEN(rows));
}

static void a_list_tells_the_limits(void **state)
{
	(void)state;
	/* Known before anything is met: three of the four are created. */
	PLAY(false, SIZES(.hot = 4, .max = 10), {"start", "list"}, {"listed ok 0 3", "create a, create b, create c"});
	/* The smaller one counts, whichever that is. */
	PLAY(false, SIZES(.hot = 4, .max = 10, .running_limit = 2), {"start", "list"}, {"listed ok 0 3", "create a, create b"});
	PLAY(false, SIZES(.hot = 4, .max = 10, .running_limit = 3), {"start", "list"}, {"listed ok 0 2", "create a, create b"});
	/* Of those that are paused likewise. */
	PLAY(false, SIZES(.warm = 4, .max = 10), {"start", "list"}, {"listed ok 0 0 2", "create a, create b"});
	PLAY(false, SIZES(.warm = 4, .max = 10, .warm_limit = 1), {"start", "list"}, {"listed ok 0 0 2", "create a"});
	PLAY(false, SIZES(.warm = 4, .max = 10, .warm_limit = 2), {"start", "list"}, {"listed ok 0 0 1", "create a"});
	/* One that fails tells nothing. */
	PLAY(false, SIZES(.hot = 2, .max = 10), {"start", "list"}, {"listed ok 0 1", "create a"}, {"created a ok", "prepare a"},
	     {"prepared a ok", ""}, {"wait 3539999", ""}, {"wait 1", "list"}, {"listed unavailable", ""}, {"counts", "hot 1"});
}

static void what_a_list_told_is_asked_for_again(void **state)
{
	(void)state;
	/* Before it is not believed any more. */
	static const struct machine_options options = {.sizing = {.hot = 2, .max = 10}, .max_age_us = UINT64_C(36000000000)};
	static const struct row rows[] = {{"start", "list"},
					  {"listed ok 0 1", "create a"},
					  {"created a ok", "prepare a"},
					  {"prepared a ok", ""},
					  {"wait 3539999", ""},
					  {"wait 1", "list"},
					  {"listed ok 0 1", ""},
					  {"wait 3540000", "list"},
					  {"listed ok 0 2", "create b"},
					  {"created b ok", "prepare b"},
					  {"prepared b ok", ""}};
	run(&options, rows, ARRAY_LEN(rows));
	/* One that told nothing is not repeated, and what was said before ends with its hour. */
	static const struct row once[] = {{"start", "list"},     {"listed ok 0 1", "create a"}, {"created a ok", "prepare a"},
					  {"prepared a ok", ""}, {"wait 3540000", "list"},      {"listed ok", ""},
					  {"wait 59999", ""},    {"wait 1", "create b"},        {"created b ok", "prepare b"},
					  {"prepared b ok", ""}, {"wait 7200000", ""}};
	run(&options, once, ARRAY_LEN(once));
	/* What was given up is looked for as soon as ever. */
	PLAY(false, SIZES(.hot = 1, .max = 10), {"start", "list"}, {"listed ok 0 9", "create a"}, {"created a unavailable", "destroy a"},
	     {"destroyed a gone", ""}, {"wait 500", "create b"}, {"created b ok", "prepare b"}, {"prepared b ok", ""},
	     {"wait 4500", "destroy a"}, {"destroyed a gone", ""}, {"wait 20000", "destroy a"}, {"destroyed a gone", ""},
	     {"wait 299999", ""}, {"wait 1", "list"});
}

/* What may run is for those whom a wake serves; the stock is filled again afterwards. */
static void a_burst_comes_before_the_stock(void **state)
{
	(void)state;
	/* When all of the warm ones were woken nothing else could run: the first claim after a rest may be a burst. */
	PLAY(false, SIZES(.warm = 2, .max = 10, .running_limit = 2), TWO_WARM, {"claim 1 60000", "wake b"},
	     {"prepared b ok", "grant 1 b warm"}, {"claim 2 60000", "wake a"}, {"prepared a ok", "grant 2 a warm"},
	     {"release b", "close b, destroy b"}, {"destroyed b ok", "create c"});
	PLAY(false, SIZES(.warm = 2, .max = 10, .running_limit = 2), TWO_WARM, {"claim 1 60000", "wake b"},
	     {"prepared b ok", "grant 1 b warm"}, {"wait 4000", ""}, {"wait 3000", "create c"});
	PLAY(false, SIZES(.warm = 2, .max = 10, .running_limit = 4), TWO_WARM, {"claim 1 60000", "wake b, create c"});
	/* So it is with a limit that was learnt, though no size is to be decided. */
	RUN(4, 10, 8, {"start", "list"}, {"listed ok", "create a, create b, create c, create d"}, {"created d capacity 1000 4", ""},
	    {"created a ok", ""}, {"wait 1000", "prepare a"}, {"prepared a ok", ""}, {"created b ok", "prepare b, create e"},
	    {"prepared b ok", ""}, {"created c ok", "prepare c"}, {"prepared c ok", ""}, {"created e ok", "prepare e"},
	    {"prepared e ok", ""}, {"wait 60000", ""}, {"claim 1 0", "grant 1 e hot"}, {"claim 2 0", "grant 2 c hot"},
	    {"claim 3 0", "grant 3 b hot"}, {"release b", "close b, destroy b"}, {"destroyed b ok", ""}, {"wait 4000", ""},
	    {"wait 3000", "create f"});
	/* A limit that so many cannot meet holds nothing back. */
	static const char *const lists[] = {"listed ok 0 10", "listed ok 0 100"};
	static const struct machine_options options = {.sizing = {.hot = 2, .max = 10}, .max_age_us = UINT64_C(36000000000)};
	for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
		const struct row rows[] = {{"start", "list"},
					   {lists[i], "create a, create b"},
					   {"created a ok", "prepare a"},
					   {"prepared a ok", ""},
					   {"created b ok", "prepare b"},
					   {"prepared b ok", ""},
					   {"wait 60000", ""},
					   {"claim 1 0", "grant 1 b hot, create c"},
					   {"claim 2 0", "grant 2 a hot, create d"},
					   {"created c ok", "prepare c"},
					   {"prepared c ok", ""},
					   {"claim 3 0", "grant 3 c hot, create e"}};
		run(&options, rows, ARRAY_LEN(rows));
	}
}

static void other_calls_wait_too(void **state)
{
	(void)state;
	RUN(1, 4, 8, {"start", "list"}, {"listed throttled 8000", ""}, {"wait 7999", ""}, {"wait 1", "list"}, {"listed ok", "create a"});
	RUN(1, 4, 8, {"start", "list"}, {"found x", "destroy x"}, {"listed ok", "create a"}, {"destroyed x throttled 400000", ""},
	    {"created a ok", "prepare a"}, {"prepared a ok", ""}, {"wait 399999", ""}, {"wait 1", "destroy x"});
}

/* What is kept for sessions is out of the pool's hands, but takes room and runs. */
static void what_is_kept_takes_room(void **state)
{
	(void)state;
	RUN(1, 3, 8, {"start", "list"}, {"listed ok", "create a"}, {"created a ok", "prepare a"}, {"prepared a ok", ""},
	    {"claim 1 0", "grant 1 a hot, create b"}, {"kept 1", ""}, {"keep a", "close a"}, {"created b ok", "prepare b"},
	    {"prepared b ok", ""}, {"counts", "hot 1"}, {"claim 2 0", "grant 2 b hot, create c"}, {"kept 2", ""}, {"keep b", "close b"},
	    {"created c ok", "prepare c"}, {"prepared c ok", ""}, {"claim 3 0", "grant 3 c hot"}, {"release c", "close c, destroy c"},
	    {"destroyed c ok", "create d"}, {"kept 3", ""}, {"created d unavailable", "destroy d"}, {"destroyed d ok", ""},
	    {"wait 60000", ""}, {"counts", ""}, {"kept 2", "create e"});
	PLAY(false, SIZES(.hot = 2, .max = 10, .running_limit = 3), {"kept 2 2", ""}, {"start", "list"}, {"listed ok", "create a"},
	     {"created a ok", "prepare a"}, {"prepared a ok", ""}, {"kept 2 1", "create b"});
}

/* Six of ten are sessions': of the four that are free one tenant among others ends at two. */
static void what_is_kept_is_nobodys_share(void **state)
{
	(void)state;
	RUN(0, 10, 8, {"start", "list"}, {"listed ok", ""}, {"kept 6", ""}, {"claim 1 90000 2", "create a"}, {"cancel 1", ""},
	    {"claim 2 90000 1", ""}, {"claim 3 90000 1", "create b"}, {"claim 4 90000 1", ""}, {"claim 5 90000 1", ""},
	    {"created a ok", "prepare a"}, {"prepared a ok", "grant 2 a cold"}, {"created b ok", "prepare b"},
	    {"prepared b ok", "grant 3 b cold"}, {"counts", "leased 2, waiting 2"}, {"kept 4", "create c"}, {"created c ok", "prepare c"},
	    {"prepared c ok", "grant 4 c cold"}, {"counts", "leased 3, waiting 1"});
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_refused_wake_loses_nothing),
		cmocka_unit_test(the_budget_of_creations_is_left_alone),
		cmocka_unit_test(a_refused_preparation_waits),
		cmocka_unit_test(a_channel_that_breaks_while_nothing_may_be_woken),
		cmocka_unit_test(waiters_in_vain_are_told),
		cmocka_unit_test(the_running_limit_is_learnt),
		cmocka_unit_test(a_list_does_not_raise_what_a_refusal_said),
		cmocka_unit_test(a_list_tells_the_limits),
		cmocka_unit_test(what_a_list_told_is_asked_for_again),
		cmocka_unit_test(a_burst_comes_before_the_stock),
		cmocka_unit_test(other_calls_wait_too),
		cmocka_unit_test(what_is_kept_takes_room),
		cmocka_unit_test(what_is_kept_is_nobodys_share),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
