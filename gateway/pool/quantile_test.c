#include "gateway/pool/quantile.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void few_say_nothing(void **state)
{
	(void)state;
	struct quantile quantile = {0};
	for (int i = 0; i < 7; i++)
		quantile_add(&quantile, 1000);
	assert_int_equal(quantile_us(&quantile, 0.5, 42), 42);
	quantile_add(&quantile, 1000);
	assert_int_equal(quantile_us(&quantile, 0.5, 42), 1000);
}

static void quantiles(void **state)
{
	(void)state;
	struct quantile quantile = {0};
	for (uint64_t ms = 20; ms; ms--)
		quantile_add(&quantile, ms * 1000);
	assert_int_equal(quantile_us(&quantile, 0, 0), 1000);
	assert_int_equal(quantile_us(&quantile, 0.5, 0), 11000);
	assert_int_equal(quantile_us(&quantile, 0.95, 0), 20000);
	assert_int_equal(quantile_us(&quantile, 1, 0), 20000);
}

static void the_oldest_are_forgotten(void **state)
{
	(void)state;
	struct quantile quantile = {0};
	for (int i = 0; i < QUANTILE_SAMPLES; i++)
		quantile_add(&quantile, 9000000);
	for (int i = 0; i < QUANTILE_SAMPLES; i++)
		quantile_add(&quantile, 5000);
	assert_int_equal(quantile_us(&quantile, 1, 0), 5000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(few_say_nothing),
		cmocka_unit_test(quantiles),
		cmocka_unit_test(the_oldest_are_forgotten),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
