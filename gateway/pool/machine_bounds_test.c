/*
 * What the pool itself sets an end to: how often and how long a member is used, how many are paused, how long one is kept, how many
 * claims may be announced, how soon a wake is hedged.
 */
#include "gateway/pool/machine_script.h"

#define FIRST_READY                                                                                          \
	{"start", "list"}, {"listed ok", ""}, {"claim 1 9000 1", "create a"}, {"created a ok", "prepare a"}, \
		{"prepared a ok", "grant 1 a cold"}

static void play_rows(struct script *script, const struct row *rows, size_t count)
{
	for (size_t i = 0; i < count; i++)
		expect(script, rows[i].event, rows[i].actions);
}

#define ROWS(script, ...)                                        \
	do {                                                     \
		static const struct row rows_[] = {__VA_ARGS__}; \
		play_rows(script, rows_, ARRAY_LEN(rows_));      \
	} while (0)

/* --- using one again -------------------------------------------------------------------------- */

static void use_again(unsigned max_uses, unsigned expected)
{
	struct script script;
	begin(&script, &(struct machine_options){.sizing = {.max = 10, .create_limit = 1}, .recycle = true, .max_uses = max_uses});
	ROWS(&script, FIRST_READY);
	for (unsigned uses = 1; uses < expected; uses++)
		ROWS(&script, {"release a", "close a, restore a"}, {"restored a ok", "close a"}, {"claim 2 9000 1", "wake a"},
		     {"prepared a ok", "grant 2 a warm"});
	ROWS(&script, {"release a", "close a, destroy a"});
	end(&script);
}

static void no_member_is_used_more_often_than_may_be(void **state)
{
	(void)state;
	use_again(1, 1);
	use_again(3, 3);
	use_again(0, 50);
}

static void an_old_member_is_not_restored(void **state)
{
	(void)state;
	/* Creations are short each time: one of one a minute was made 10 s ago. */
	PLAY(true, SIZES(.max = 10, .create_limit = 1), FIRST_READY, {"wait 3589999", ""}, {"claim 2 9000 2", "create b"},
	     {"created b ok", "prepare b"}, {"prepared b ok", "grant 2 b cold"}, {"wait 10000", ""}, {"release a", "close a, restore a"});
	PLAY(true, SIZES(.max = 10, .create_limit = 1), FIRST_READY, {"wait 3590000", ""}, {"claim 2 9000 2", "create b"},
	     {"created b ok", "prepare b"}, {"prepared b ok", "grant 2 b cold"}, {"wait 10000", ""}, {"release a", "close a, destroy a"});
}

/* A member that is claimed so often within a minute, and used by the last one. */
static void claim_often(unsigned claims, const char *then)
{
	struct script script;
	begin(&script, &(struct machine_options){.sizing = {.hot = 1, .max = 1, .create_limit = 20}, .recycle = true});
	ROWS(&script, {"start", "list"}, {"listed ok", "create a"}, {"created a ok", "prepare a"}, {"prepared a ok", ""});
	for (unsigned i = 1; i < claims; i++)
		ROWS(&script, {"claim 1 9000 1", "grant 1 a hot"}, {"return a", ""});
	ROWS(&script, {"claim 1 9000 1", "grant 1 a hot"});
	expect(&script, "release a", then);
	end(&script);
}

static void creations_are_short_when_claims_come_almost_as_fast(void **state)
{
	(void)state;
	claim_often(14, "close a, destroy a");
	claim_often(15, "close a, restore a");
}

/* Said with a creation that was made, so that no budget is known. */
static void creations_are_short_until_the_time_that_the_provider_said(void **state)
{
	(void)state;
	PLAY(true, SIZES(.hot = 1, .max = 10), {"start", "list"}, {"listed ok", "create a"}, {"created a ok", "prepare a"},
	     {"prepared a ok", ""}, {"claim 1 9000 1", "grant 1 a hot, create b"}, {"created b ok 7000", "prepare b"},
	     {"prepared b ok", ""}, {"claim 2 9000 1", "grant 2 b hot"}, {"wait 6999", ""}, {"release a", "close a, restore a"},
	     {"wait 1", "create c"}, {"release b", "close b, destroy b"});
}

/* --- what is paused and what is kept ---------------------------------------------------------- */

static void no_more_are_paused_than_may_be(void **state)
{
	(void)state;
	/* What nobody waits for any more has no place: it is kept for a while, then destroyed. */
	PLAY(false, SIZES(.warm = SIZING_AUTO, .max = 3, .warm_limit = 1), {"start", "list"}, {"listed ok", "create a"},
	     {"created a ok", "prepare a"}, {"prepared a ok", "close a"}, {"claim 1 9000", "wake a, create b"},
	     {"claim 2 9000", "create c"}, {"cancel 1", ""}, {"cancel 2", ""}, {"created b ok", "prepare b"}, {"prepared b ok", "close b"},
	     {"created c ok", "prepare c"}, {"prepared c ok", ""}, {"prepared a ok", ""}, {"counts", "warm 1, hot 2"},
	     {"wait 30000", "close c, close a, destroy c, destroy a"}, {"counts", "warm 1, destroying 2"});
	/* An old one goes first, since its replacement has no place beside it. */
	PLAY(false, SIZES(.warm = 2, .max = 10, .warm_limit = 2), {"start", "list"}, {"listed ok", "create a, create b"},
	     {"created a ok", "prepare a"}, {"prepared a ok", "close a"}, {"created b ok", "prepare b"}, {"prepared b ok", "close b"},
	     {"wait 3600000", "create c, create d, destroy a"}, {"destroyed a ok", ""}, {"created c ok", "prepare c"},
	     {"prepared c ok", "close c"}, {"created d ok", "prepare d"}, {"prepared d ok", "destroy b"},
	     {"counts", "warm 1, hot 1, destroying 1"}, {"wait 30000", "close d"}, {"counts", "warm 2, destroying 1"});
	/* Nor of those that wait for their tenant. */
	PLAY(true, SIZES(.max = 10, .create_limit = 2, .warm_limit = 1), FIRST_READY, {"claim 2 9000 1", "create b"},
	     {"created b ok", "prepare b"}, {"prepared b ok", "grant 2 b cold"}, {"release a", "close a, restore a"},
	     {"release b", "close b, restore b"}, {"restored a ok", "close a"}, {"restored b ok", ""}, {"counts", "warm 1, hot 1"},
	     {"wait 29999", ""}, {"wait 1", "close b, destroy b"}, {"counts", "warm 1, destroying 1"});
	/* Nor is one created that has no place beside those. */
	PLAY(true, SIZES(.warm = 1, .max = 10, .create_limit = 2, .warm_limit = 1), {"start", "list"}, {"listed ok", "create a"},
	     {"created a ok", "prepare a"}, {"prepared a ok", "close a"}, {"claim 1 9000 1", "wake a, create b"},
	     {"prepared a ok", "grant 1 a warm"}, {"created b ok", "prepare b"}, {"prepared b ok", "close b"}, {"claim 2 9000 1", "wake b"},
	     {"prepared b ok", "grant 2 b warm"}, {"release a", "close a, restore a"}, {"restored a ok", "close a"}, {"wait 120000", ""},
	     {"counts", "warm 1, leased 1"});
}

static void what_idles_beyond_the_demand_is_kept_for_the_price_of_a_wake(void **state)
{
	(void)state;
	/* The demand of the claim ends after a minute, the keeping 61.7 s later. */
	PLAY(false, SIZES(.hot = SIZING_AUTO, .warm = SIZING_AUTO, .max = 10), {"start", "list"}, {"listed ok", "create a"},
	     {"created a ok", "prepare a"}, {"prepared a ok", "close a"}, {"claim 1 9000", "wake a, create b, create c"},
	     {"prepared a ok", "grant 1 a warm"}, {"created b ok", "prepare b"}, {"prepared b ok", ""}, {"created c ok", "prepare c"},
	     {"prepared c ok", "close c"}, {"wait 120000", ""}, {"counts", "warm 1, hot 1, leased 1"}, {"wait 3000", "close b"});
}

/* --- claims that are announced ---------------------------------------------------------------- */

#define WARM(n) SIZES(.warm = n, .max = 10)

static void an_announcement_is_fulfilled_by_one_claim(void **state)
{
	(void)state;
	PLAY(false, WARM(1), {"start", "list"}, {"listed ok", "create a"}, {"created a ok", "prepare a"}, {"prepared a ok", "close a"},
	     {"intent 60000", "wake a"}, {"prepared a ok", ""}, {"claim 1 0", "grant 1 a hot, create b"}, {"created b ok", "prepare b"},
	     {"prepared b ok", "close b"});
	/* The one that would have ended first: the other one is kept until 60 s, and for 30 s more. */
	PLAY(false, WARM(2), {"start", "list"}, {"listed ok", "create a, create b"}, {"created a ok", "prepare a"},
	     {"prepared a ok", "close a"}, {"created b ok", "prepare b"}, {"prepared b ok", "close b"}, {"intent 60000", "wake b"},
	     {"intent 5000", "wake a"}, {"prepared a ok", ""}, {"prepared b ok", ""}, {"claim 1 0", "grant 1 b hot, create c"},
	     {"created c ok", "prepare c"}, {"prepared c ok", "close c"}, {"wait 89999", ""}, {"wait 1", "close a"});
}

static void four_announcements_are_remembered(void **state)
{
	(void)state;
	PLAY(false, WARM(5), {"start", "list"}, {"listed ok", "create a, create b, create c, create d, create e"},
	     {"created a ok", "prepare a"}, {"prepared a ok", "close a"}, {"created b ok", "prepare b"}, {"prepared b ok", "close b"},
	     {"created c ok", "prepare c"}, {"prepared c ok", "close c"}, {"created d ok", "prepare d"}, {"prepared d ok", "close d"},
	     {"created e ok", "prepare e"}, {"prepared e ok", "close e"}, {"intent 60000", "wake e"}, {"intent 60000", "wake d"},
	     {"intent 60000", "wake c"}, {"intent 60000", "wake b"}, {"intent 60000", ""});
}

static void nothing_is_woken_on_announcement_when_money_is_short(void **state)
{
	(void)state;
	for (unsigned percent = 79; percent <= 80; percent++) {
		struct script script;
		begin(&script, &(struct machine_options){.sizing = {.warm = 1, .max = 4}, .day_nusd = 1000000000});
		ROWS(&script, {"start", "list"}, {"listed ok", "create a"}, {"created a ok", "prepare a"}, {"prepared a ok", "close a"});
		script.machine.spend.day_nusd = percent * UINT64_C(10000000);
		expect(&script, "intent 60000", percent < 80 ? "wake a" : "");
		end(&script);
	}
}

/* --- hedging ---------------------------------------------------------------------------------- */

static void a_wake_is_hedged_after_its_usual_time(void **state)
{
	(void)state;
	static const struct {
		uint64_t usual_us;
		const char *before;
	} cases[] = {{100000, "wait 399"}, {1000000, "wait 999"}};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct script script;
		begin(&script, &(struct machine_options){.sizing = {.warm = 3, .max = 10}});
		for (size_t n = 0; n < 8; n++)
			quantile_add(&script.machine.wakes, cases[i].usual_us);
		ROWS(&script, {"start", "list"}, {"listed ok", "create a, create b, create c"}, {"created a ok", "prepare a"},
		     {"prepared a ok", "close a"}, {"created b ok", "prepare b"}, {"prepared b ok", "close b"},
		     {"created c ok", "prepare c"}, {"prepared c ok", "close c"}, {"claim 1 9000", "wake c, create d"});
		expect(&script, cases[i].before, "");
		expect(&script, "wait 1", "wake b");
		end(&script);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_member_is_used_more_often_than_may_be),
		cmocka_unit_test(an_old_member_is_not_restored),
		cmocka_unit_test(creations_are_short_when_claims_come_almost_as_fast),
		cmocka_unit_test(creations_are_short_until_the_time_that_the_provider_said),
		cmocka_unit_test(no_more_are_paused_than_may_be),
		cmocka_unit_test(what_idles_beyond_the_demand_is_kept_for_the_price_of_a_wake),
		cmocka_unit_test(an_announcement_is_fulfilled_by_one_claim),
		cmocka_unit_test(four_announcements_are_remembered),
		cmocka_unit_test(nothing_is_woken_on_announcement_when_money_is_short),
		cmocka_unit_test(a_wake_is_hedged_after_its_usual_time),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
