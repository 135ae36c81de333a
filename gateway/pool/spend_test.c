#include "gateway/pool/spend.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define HOUR (UINT64_C(3600) * 1000000)

static void time_is_money(void **state)
{
	(void)state;
	struct spend spend;
	spend_init(&spend, 0, 5);
	spend_pass(&spend, 5 + HOUR, 2 * HOUR, 1);
	/* 2 × 4.86e-5 $/s + 6.81e-5 $/s, for an hour. */
	assert_int_equal(spend.total_nusd, 3600 * (2 * 48600 + 68100));
	assert_int_equal(spend.idle_us, 2 * HOUR);
	assert_int_equal(spend_level(&spend), SPEND_FREE);
}

static void what_is_saved_first(void **state)
{
	(void)state;
	struct spend spend;
	spend_init(&spend, 10 * UINT64_C(3600) * 48600, 0); /* ten idle hours */
	spend_pass(&spend, 8 * HOUR - 1000000, 8 * HOUR - 1000000, 0);
	assert_int_equal(spend_level(&spend), SPEND_FREE);
	spend_pass(&spend, 8 * HOUR, 1000000, 0);
	assert_int_equal(spend_level(&spend), SPEND_NO_IDLING);
	spend_pass(&spend, 9 * HOUR, HOUR, 0);
	assert_int_equal(spend_level(&spend), SPEND_NO_STOCK);
	spend_pass(&spend, 10 * HOUR, HOUR, 0);
	assert_int_equal(spend_level(&spend), SPEND_NOTHING);
	assert_int_equal(spend_renews_us(&spend), 24 * HOUR);
	spend_pass(&spend, 24 * HOUR, 0, 0);
	assert_int_equal(spend_level(&spend), SPEND_FREE);
	assert_int_equal(spend_renews_us(&spend), 48 * HOUR);
}

#define SECOND  UINT64_C(1000000)
#define DAY     (24 * HOUR)
#define NODES   3
#define EACH    4 /* Sprites of a gateway that does all it may */
#define ALLOWED UINT64_C(500000000)
#define BUSY    UINT64_C(68100) /* nano dollars a second */
#define BEAT    5 /* seconds */
/* What all can spend before the next beat of each. */
#define QUANTUM (NODES * EACH * BUSY * BEAT)

struct day {
	struct spend nodes[NODES];
	uint64_t begun_us;           /* the present one, by Redis */
	uint64_t redis, said[NODES];
	bool joined[NODES];
};

static void beat(struct day *day, size_t n, uint64_t now_us)
{
	struct spend *spend = &day->nodes[n];
	if (day->joined[n])
		day->redis += spend->total_nusd - day->said[n];
	day->said[n] = spend->total_nusd;
	spend_told(spend, now_us, day->redis, day->begun_us + DAY - now_us, spend->total_nusd, day->joined[n]);
	day->joined[n] = true;
}

static uint64_t total(const struct day *day)
{
	uint64_t sum = 0;
	for (size_t n = 0; n < NODES; n++)
		sum += day->nodes[n].total_nusd;
	return sum;
}

/* Each works as much as it may, and stops when it may not. */
static void work(struct day *day, uint64_t now_us)
{
	for (size_t n = 0; n < NODES; n++) {
		spend_pass(&day->nodes[n], now_us, 0, spend_level(&day->nodes[n]) == SPEND_NOTHING ? 0 : EACH);
		if (now_us / SECOND % BEAT == n)
			beat(day, n, now_us);
	}
}

static void three_have_one_allowance(void **state)
{
	(void)state;
	struct day day = {.begun_us = HOUR};
	uint64_t before = 0, now_us = 20 * HOUR;
	for (size_t n = 0; n < NODES; n++) {
		spend_init(&day.nodes[n], ALLOWED, now_us);
		beat(&day, n, now_us);
	}
	for (size_t days = 0; days < 3; days++) {
		for (; now_us < day.begun_us + DAY; now_us += SECOND) {
			work(&day, now_us);
			/* Of what it forgot nobody knows what the others said since the last time. */
			assert_true(total(&day) - before <= ALLOWED + (days == 2 ? 2 : 1) * QUANTUM);
			/* Redis forgets all, once it is used up and once before. */
			if ((days == 1 && now_us == day.begun_us + 5 * HOUR) || (days == 2 && now_us == day.begun_us + 300 * SECOND))
				day.redis = 0;
		}
		for (size_t n = 0; n < NODES; n++)
			assert_int_equal(spend_level(&day.nodes[n]), SPEND_NOTHING);
		assert_true(total(&day) - before >= ALLOWED);
		before = total(&day);
		day.begun_us += DAY;
		day.redis = 0;
	}
}

/* A session that begins anew says its total without having it counted. */
static void what_nobody_counts_is_ours(void **state)
{
	(void)state;
	struct spend spend;
	spend_init(&spend, 100 * 68100, 0);
	spend_told(&spend, 0, 0, DAY, 0, false);
	spend_pass(&spend, 60 * SECOND, 0, 1);
	spend_told(&spend, 60 * SECOND, 0, DAY - 60 * SECOND, 60 * 68100, false);
	assert_int_equal(spend_level(&spend), SPEND_FREE);
	spend_pass(&spend, 100 * SECOND, 0, 1);
	assert_int_equal(spend_level(&spend), SPEND_NOTHING);
	assert_int_equal(spend_renews_us(&spend), DAY);
	spend_told(&spend, 100 * SECOND, UINT64_MAX, UINT64_MAX, 100 * 68100, true);
	assert_int_equal(spend_level(&spend), SPEND_NOTHING);
	spend_pass(&spend, 100 * SECOND + DAY, 0, 0);
	assert_int_equal(spend_level(&spend), SPEND_FREE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(time_is_money),
		cmocka_unit_test(what_is_saved_first),
		cmocka_unit_test(three_have_one_allowance),
		cmocka_unit_test(what_nobody_counts_is_ours),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
