#include "gateway/pool/bookings.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define SECOND UINT64_C(1000000)

static struct bookings bookings;

static void book(uint64_t tenant, size_t n, uint64_t due_us)
{
	for (size_t i = 0; i < n; i++)
		bookings_add(&bookings, tenant, due_us);
}

static int setup(void **state)
{
	(void)state;
	bookings = (struct bookings){0};
	return 0;
}

static void it_is_taken_once_and_not_before_its_time(void **state)
{
	(void)state;
	assert_false(bookings_take(&bookings, 1, 100 * SECOND));
	book(1, 1, 10 * SECOND);
	assert_false(bookings_take(&bookings, 1, 10 * SECOND - 1));
	assert_false(bookings_take(&bookings, 2, 10 * SECOND));
	assert_true(bookings_take(&bookings, 1, 10 * SECOND));
	assert_false(bookings_take(&bookings, 1, 11 * SECOND));
}

static void the_first_that_is_due_is_taken(void **state)
{
	(void)state;
	book(1, 1, 30 * SECOND);
	book(1, 1, 10 * SECOND);
	book(1, 1, 20 * SECOND);
	assert_true(bookings_take(&bookings, 1, 20 * SECOND));
	assert_true(bookings_take(&bookings, 1, 20 * SECOND));
	assert_false(bookings_take(&bookings, 1, 20 * SECOND));
	assert_true(bookings_take(&bookings, 1, 30 * SECOND));
}

static void who_comes_much_too_late_has_none(void **state)
{
	(void)state;
	book(1, 1, 10 * SECOND);
	book(1, 1, 20 * SECOND);
	bookings_expire(&bookings, 10 * SECOND + BOOKINGS_LATE_US);
	assert_int_equal(bookings_ahead(&bookings, 1), 2);
	bookings_expire(&bookings, 10 * SECOND + BOOKINGS_LATE_US + 1);
	assert_int_equal(bookings_ahead(&bookings, 1), 1);
	assert_true(bookings_take(&bookings, 1, 100 * SECOND));
	assert_int_equal(bookings_ahead(&bookings, 1), 0);
}

static void each_tenant_has_its_turn(void **state)
{
	(void)state;
	book(1, 5, SECOND);
	assert_int_equal(bookings_ahead(&bookings, 1), 6);
	assert_int_equal(bookings_ahead(&bookings, 2), 1);
	book(2, 1, SECOND);
	assert_int_equal(bookings_ahead(&bookings, 2), 3);
	assert_int_equal(bookings_ahead(&bookings, 3), 2);
	assert_int_equal(bookings_ahead(&bookings, 1), 7);
}

static void some_places_go_to_newcomers(void **state)
{
	(void)state;
	book(1, 4, SECOND);
	assert_int_equal(bookings_ahead(&bookings, 1), 4);
	book(1, 1, SECOND);
	assert_int_equal(bookings_ahead(&bookings, 1), 6);
	book(1, 5, SECOND);
	assert_int_equal(bookings_ahead(&bookings, 1), 12);
}

static void there_is_room_for_so_many(void **state)
{
	(void)state;
	for (uint64_t tenant = 0; tenant < BOOKINGS_TENANTS + 1; tenant++)
		book(tenant, BOOKINGS_EACH + 1, SECOND);
	for (size_t i = 0; i < BOOKINGS_EACH; i++)
		assert_true(bookings_take(&bookings, 0, SECOND));
	assert_false(bookings_take(&bookings, 0, SECOND));
	assert_false(bookings_take(&bookings, BOOKINGS_TENANTS, SECOND));
	/* The first has left its place to another. */
	book(BOOKINGS_TENANTS, 1, SECOND);
	assert_true(bookings_take(&bookings, BOOKINGS_TENANTS, SECOND));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(it_is_taken_once_and_not_before_its_time, setup),
		cmocka_unit_test_setup(the_first_that_is_due_is_taken, setup),
		cmocka_unit_test_setup(who_comes_much_too_late_has_none, setup),
		cmocka_unit_test_setup(each_tenant_has_its_turn, setup),
		cmocka_unit_test_setup(some_places_go_to_newcomers, setup),
		cmocka_unit_test_setup(there_is_room_for_so_many, setup),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
