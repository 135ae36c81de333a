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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(time_is_money),
		cmocka_unit_test(what_is_saved_first),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
