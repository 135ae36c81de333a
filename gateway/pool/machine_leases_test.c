/*
 * What one machine does with what it hears of the others of a shared pool.
 */
#include "gateway/pool/machine_script.h"

#define SHARE(sizes, ...)                                                                         \
	do {                                                                                      \
		static const struct machine_options options_ = {.sizing = sizes, .shared = true}; \
		static const struct row rows_[] = {__VA_ARGS__};                                  \
		run(&options_, rows_, ARRAY_LEN(rows_));                                          \
	} while (0)

/* Beats are heard every 5 s, or nothing would be done. */
#define HALF_A_MINUTE(beat)                                                                                                         \
	{"wait 5000", ""}, {beat, ""}, {"wait 5000", ""}, {beat, ""}, {"wait 5000", ""}, {beat, ""}, {"wait 5000", ""}, {beat, ""}, \
		{"wait 5000", ""}, {beat, ""}

/* Three members that are ready, and what becomes of them. */
#define THREE(of_a, of_b, of_c)                                                                                                            \
	{"start", ""}, {"fleet", "reserve a 3, reserve b 3, reserve c 3"}, {"reserved a", "note a creating, create a"},                    \
		{"reserved b", "note b creating, create b"}, {"reserved c", "note c creating, create c"},                                  \
		{"created a ok", "note a preparing, prepare a"}, {"prepared a ok", of_a}, {"created b ok", "note b preparing, prepare b"}, \
		{"prepared b ok", of_b}, {"created c ok", "note c preparing, prepare c"},                                                  \
	{                                                                                                                                  \
		"prepared c ok", of_c                                                                                                      \
	}

/* c newer than b newer than a. */
#define THREE_PARKED THREE("close a, note a warm", "close b, note b warm", "close c, note c warm")
#define THREE_HOT    THREE("note a hot", "note b hot", "note c hot")

/* --- how much is kept ready ------------------------------------------------------------------- */

static void stock_is_asked_for_beside_what_the_others_keep_hot(void **state)
{
	(void)state;
	SHARE(SIZES(.hot = 1, .warm = 2, .max = 9), {"start", ""}, {"fleet", "reserve a 3, reserve b 3, reserve c 3"});
	SHARE(SIZES(.hot = 1, .warm = 2, .max = 9), {"start", ""}, {"fleet hot=4", "reserve a 7, reserve b 7, reserve c 7"});
	/* Who waits is not told to come back because others have some. */
	SHARE(SIZES(.max = 9), {"start", ""}, {"fleet hot=4", ""}, {"claim 1 9000", "reserve a 0"});
}

static void what_the_others_have_parked_is_stock(void **state)
{
	(void)state;
	SHARE(SIZES(.warm = 3, .max = 9), {"start", ""}, {"fleet warm=1", "reserve a 3, reserve b 3"});
	SHARE(SIZES(.warm = 3, .max = 9), {"start", ""}, {"fleet warm=3", ""}, {"wait 4000", ""}, {"fleet warm=2", "reserve a 3"});
	/* What is to be hot is taken from it; what that lacks then is created. */
	SHARE(SIZES(.hot = 1, .warm = 2, .max = 9), {"start", ""}, {"fleet warm=2", "take any preparing, reserve a 3"});
}

static void stock_follows_the_claims_of_all(void **state)
{
	(void)state;
	SHARE(SIZES(.warm = SIZING_AUTO, .max = 9), {"start", ""}, {"fleet", "reserve a 1"});
	SHARE(SIZES(.warm = SIZING_AUTO, .max = 9), {"start", ""},
	      {"fleet claims=100", "reserve a 4, reserve b 4, reserve c 4, reserve d 4"});
}

/* --- what is too much ------------------------------------------------------------------------- */

static void each_gives_up_its_share_of_what_is_too_much(void **state)
{
	(void)state;
	/* Three here and three there where three are wanted: two are kept here, one of them too many until the other has done the same. */
	SHARE(SIZES(.warm = 3, .max = 9), THREE_PARKED, {"fleet own=3 warm=3", ""}, HALF_A_MINUTE("fleet own=3 warm=3"), {"wait 4999", ""},
	      {"wait 1", "take a destroying"}, {"taken a", "destroy a"}, {"fleet own=3 warm=3", ""}, {"destroyed a ok", "forget a"},
	      HALF_A_MINUTE("fleet own=2 warm=2"), {"wait 10000", ""}, {"counts", "warm 2"});
	/* Rounded up, so that all together never give up too much: of four where three are wanted none. */
	SHARE(SIZES(.warm = 3, .max = 9), THREE_PARKED, {"fleet own=3 warm=1", ""}, HALF_A_MINUTE("fleet own=3 warm=1"), {"wait 10000", ""},
	      {"counts", "warm 3"});
	/* The others have far more: two of three are too many here. */
	SHARE(SIZES(.warm = 3, .max = 20), THREE_PARKED, {"fleet own=3 warm=6", ""}, HALF_A_MINUTE("fleet own=3 warm=6"),
	      {"wait 5000", "take a destroying, take b destroying"});
}

/* --- fairness --------------------------------------------------------------------------------- */

static void what_others_lease_is_not_free(void **state)
{
	(void)state;
	/* Of 10 others have 6: two of the four that are left are half of them. */
	SHARE(SIZES(.hot = 3, .max = 10), THREE_HOT, {"fleet own=3 leased=6 wants=2", ""},
	      {"claim 1 9000 1", "note c leased, grant 1 c hot, reserve d 3"},
	      {"claim 2 9000 1", "note b leased, grant 2 b hot, reserve e 3"}, {"claim 3 9000 1", ""},
	      {"claim 4 9000 2", "note a leased, grant 4 a hot, reserve f 3"});
	/* They have given back. */
	SHARE(SIZES(.hot = 3, .max = 10), THREE_HOT, {"fleet own=3 leased=8 wants=2", ""},
	      {"claim 1 9000 1", "note c leased, grant 1 c hot, reserve d 3"},
	      {"claim 2 9000 1", "note b leased, grant 2 b hot, reserve e 3"}, {"claim 3 9000 1", ""},
	      {"fleet own=3 leased=4 wants=2", "note a leased, grant 3 a cold, reserve f 3"});
	/* Alone it may have all that is left. */
	SHARE(SIZES(.hot = 3, .max = 10), THREE_HOT, {"fleet own=3 leased=6 first=6", ""},
	      {"claim 1 9000 1", "note c leased, grant 1 c hot, reserve d 3"},
	      {"claim 2 9000 1", "note b leased, grant 2 b hot, reserve e 3"},
	      {"claim 3 9000 1", "note a leased, grant 3 a hot, reserve f 3"});
}

static void what_a_tenant_holds_elsewhere_counts(void **state)
{
	(void)state;
	SHARE(SIZES(.hot = 3, .max = 10), THREE_HOT, {"fleet own=3 leased=4 first=4 wants=2", ""},
	      {"claim 1 9000 1", "note c leased, grant 1 c hot, reserve d 3"}, {"claim 2 9000 1", ""},
	      {"claim 3 9000 2", "note b leased, grant 3 b hot, reserve e 3"},
	      /* The other one has enough, and it has given back. */
	      {"fleet own=3", "note a leased, grant 2 a cold, reserve f 3"});
}

/* What is here nobody else has, though they had everything when they were asked last. */
static void what_is_here_is_not_leased_elsewhere(void **state)
{
	(void)state;
	SHARE(SIZES(.hot = 3, .max = 10), THREE_HOT, {"fleet own=3 leased=10 more=7 wants=2", ""},
	      {"claim 1 9000 1", "note c leased, grant 1 c hot"}, {"claim 2 9000 2", "note b leased, grant 2 b hot"});
}

/* Of 10 six are kept for sessions, wherever they run: of the four that are left one tenant may have two. */
static void what_is_kept_anywhere_is_not_free(void **state)
{
	(void)state;
	SHARE(SIZES(.hot = 3, .max = 10), {"kept 6", ""}, THREE_HOT, {"fleet own=3 more=6 wants=2", ""},
	      {"claim 1 9000 1", "note c leased, grant 1 c hot, reserve d 3"}, {"claim 2 9000 1", "note b leased, grant 2 b hot"},
	      {"claim 3 9000 1", ""}, {"claim 4 9000 2", "note a leased, grant 4 a hot"});
}

/* --- what may run ----------------------------------------------------------------------------- */

static void who_finds_no_place_asks_again(void **state)
{
	(void)state;
	/* Who waits does not wait for what stock was told. */
	SHARE(SIZES(.hot = 1, .max = 9), {"start", ""}, {"fleet", "reserve a 1"}, {"crowded a 5000", ""}, {"wait 1000", ""},
	      {"claim 1 9000", "reserve b 0"}, {"crowded b 500", ""}, {"wait 499", ""}, {"wait 1", "reserve c 0"}, {"cancel 1", ""},
	      {"crowded c 500", ""}, {"wait 3000", ""}, {"wait 500", "reserve d 1"}, {"reserved d", "note d creating, create d"});
}

static void what_finds_no_place_is_woken_later(void **state)
{
	(void)state;
	SHARE(SIZES(.warm = 3, .max = 3), THREE_PARKED, {"fleet own=3", ""}, {"claim 1 9000", "take c preparing"},
	      {"crowded c 500", "take b preparing"}, {"crowded b 500", "take a preparing"}, {"crowded a 500", ""},
	      {"counts", "warm 3, waiting 1"}, {"wait 499", ""}, {"wait 1", "take a preparing"}, {"taken a", "wake a"});
	/* Nor is anything of the others'. */
	SHARE(SIZES(.max = 3), {"start", ""}, {"fleet warm=2", ""}, {"claim 1 9000", "take any preparing"}, {"crowded any 500", ""},
	      {"counts", "waiting 1"}, {"wait 500", "take any preparing"});
	/* A pool that is being stopped leaves it to the others. */
	SHARE(SIZES(.warm = 3, .max = 3), THREE_PARKED, {"fleet own=3", ""}, {"claim 1 9000", "take c preparing"},
	      {"stop 9000", "refuse 1 stopping 1000"}, {"crowded c 500", "stopped 0"});
}

static void what_idles_makes_way_for_who_waits(void **state)
{
	(void)state;
	SHARE(SIZES(.hot = 3, .max = 9), THREE_HOT,
	      {"fleet own=3 crowd=1 way=2", "close a, note a destroying, close b, note b destroying, destroy a, destroy b"},
	      {"destroyed a ok", "forget a"}, {"destroyed b ok", "forget b"}, {"fleet own=1", "reserve d 3, reserve e 3"});
	/* A named session of this machine's. */
	SHARE(SIZES(.hot = 3, .max = 9), THREE_HOT, {"fleet own=3", ""}, {"kept 1 1", ""},
	      {"unplaced", "close a, note a destroying, reserve d 3, destroy a"},
	      /* It is refused again, and what makes way for it is not gone yet. */
	      {"unplaced", ""}, {"fleet own=3 crowd=1 way=1", ""}, {"destroyed a ok", "forget a"},
	      {"unplaced", "close b, note b destroying, destroy b"});
}

/* The limit is one that only another machine was told of. */
static void what_was_used_is_destroyed_at_once_when_a_place_is_missing(void **state)
{
	(void)state;
#define A_IS_USED                                                                                                   \
	{"start", ""}, {"fleet", ""}, {"claim 1 9000", "reserve a 0"}, {"reserved a", "note a creating, create a"}, \
		{"created a ok", "note a preparing, prepare a"}, {"prepared a ok", "note a hot, note a leased, grant 1 a cold"}
	SHARE(SIZES(.max = 9), A_IS_USED, {"claim 2 90000", "reserve b 0"}, {"reserved b", "note b creating, create b"},
	      {"release a", "close a, note a destroying"}, {"wait 4999", ""}, {"wait 1", "destroy a"});
	SHARE(SIZES(.max = 9), A_IS_USED, {"claim 2 90000", "reserve b 0"}, {"crowded b 500", ""},
	      {"release a", "close a, note a destroying, destroy a"});
	SHARE(SIZES(.max = 9), A_IS_USED, {"claim 2 90000", "reserve b 0"}, {"reserved b", "note b creating, create b"},
	      {"release a", "close a, note a destroying"}, {"fleet own=2 crowd=1", "destroy a"});
}

static void what_was_restored_makes_way_last(void **state)
{
	(void)state;
	static const struct machine_options two = {.sizing = SIZES(.hot = 2, .max = 9, .create_limit = 2), .shared = true, .recycle = true};
	static const struct row told[] = {{"start", ""},
					  {"fleet", "reserve a 2, reserve b 2"},
					  {"reserved a", "note a creating, create a"},
					  {"reserved b", "note b creating, create b"},
					  {"created a ok", "note a preparing, prepare a"},
					  {"prepared a ok", "note a hot"},
					  {"created b ok", "note b preparing, prepare b"},
					  {"prepared b ok", "note b hot"},
					  {"claim 1 9000 1", "note b leased, grant 1 b hot"},
					  {"release b", "close b, note b recycling, restore b"},
					  {"restored b ok", "note b hot"},
					  {"fleet own=2 crowd=1 way=1", "close a, note a destroying, destroy a"},
					  {"fleet own=2 crowd=1 way=2", "close b, note b destroying, destroy b"}};
	run(&two, told, ARRAY_LEN(told));
	/* Another tenant waits here, and is told that as many run as may. */
	static const struct machine_options one = {.sizing = SIZES(.hot = 1, .max = 9, .create_limit = 2), .shared = true, .recycle = true};
	static const struct row refused[] = {{"start", ""},
					     {"fleet", "reserve a 1"},
					     {"reserved a", "note a creating, create a"},
					     {"created a ok", "note a preparing, prepare a"},
					     {"prepared a ok", "note a hot"},
					     {"claim 1 9000 1", "note a leased, grant 1 a hot, reserve b 1"},
					     {"crowded b 5000", ""},
					     {"release a", "close a, note a recycling, restore a"},
					     {"restored a ok", "note a hot"},
					     {"claim 2 9000 2", "reserve c 0"},
					     {"crowded c 500", "close a, note a destroying, destroy a"},
					     {"wait 500", "reserve d 0"}};
	run(&one, refused, ARRAY_LEN(refused));
}

/* --- second strikes --------------------------------------------------------------------------- */

static void a_parked_one_that_two_lists_did_not_show_is_asked_for_and_destroyed(void **state)
{
	(void)state;
	SHARE(SIZES(.warm = 3, .max = 9), THREE_PARKED, {"struck b", "take b destroying, reserve d 3"}, {"struck b", ""},
	      {"counts", "intent 1, warm 3"}, {"taken b", "destroy b"}, {"destroyed b ok", "forget b"}, {"counts", "intent 1, warm 2"});
}

static void others_that_two_lists_did_not_show(void **state)
{
	(void)state;
	SHARE(SIZES(.hot = 2, .max = 9), {"start", ""}, {"fleet", "reserve a 2, reserve b 2"}, {"reserved a", "note a creating, create a"},
	      {"created a ok", "note a preparing, prepare a"}, {"prepared a ok", "note a hot"}, {"reserved b", "note b creating, create b"},
	      {"created b ok", "note b preparing, prepare b"}, {"prepared b ok", "note b hot"},
	      {"claim 1 9000", "note b leased, grant 1 b hot, reserve c 2"},
	      {"struck a", "close a, note a destroying, reserve d 2, destroy a"},
	      /* Its command will tell. */
	      {"struck b", ""},
	      /* A Sprite without a record: it has one by now. */
	      {"struck x", "destroy x"}, {"counts", "intent 2, leased 1, destroying 2"});
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(stock_is_asked_for_beside_what_the_others_keep_hot),
		cmocka_unit_test(what_the_others_have_parked_is_stock),
		cmocka_unit_test(stock_follows_the_claims_of_all),
		cmocka_unit_test(each_gives_up_its_share_of_what_is_too_much),
		cmocka_unit_test(what_others_lease_is_not_free),
		cmocka_unit_test(what_a_tenant_holds_elsewhere_counts),
		cmocka_unit_test(what_is_here_is_not_leased_elsewhere),
		cmocka_unit_test(what_is_kept_anywhere_is_not_free),
		cmocka_unit_test(who_finds_no_place_asks_again),
		cmocka_unit_test(what_finds_no_place_is_woken_later),
		cmocka_unit_test(what_idles_makes_way_for_who_waits),
		cmocka_unit_test(what_was_used_is_destroyed_at_once_when_a_place_is_missing),
		cmocka_unit_test(what_was_restored_makes_way_last),
		cmocka_unit_test(a_parked_one_that_two_lists_did_not_show_is_asked_for_and_destroyed),
		cmocka_unit_test(others_that_two_lists_did_not_show),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
