#include "gateway/endpoint/throttle.h"

#include "gateway/http/peer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <string.h>

static uint64_t charge(struct throttle *throttle, const char *address, uint64_t now_ms)
{
	unsigned char bytes[16];
	assert_true(peer_parse(slice_str(address), bytes));
	return throttle_charge(throttle, bytes, now_ms);
}

static void test_burst_and_refill(void **state UNUSED)
{
	struct throttle throttle;
	assert_int_equal(throttle_init(&throttle, 3), 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(charge(&throttle, "192.0.2.1", 1000), 0);
	assert_int_equal(charge(&throttle, "192.0.2.1", 1000), THROTTLE_INTERVAL_MS);
	/* What is above the limit does not make it worse. */
	assert_int_equal(charge(&throttle, "192.0.2.1", 2000), THROTTLE_INTERVAL_MS - 1000);
	assert_int_equal(charge(&throttle, "192.0.2.2", 2000), 0);
	assert_int_equal(charge(&throttle, "192.0.2.1", 1000 + THROTTLE_INTERVAL_MS), 0);
	assert_true(charge(&throttle, "192.0.2.1", 1000 + THROTTLE_INTERVAL_MS) > 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(charge(&throttle, "192.0.2.1", 1000000), 0);
	assert_true(charge(&throttle, "192.0.2.1", 1000000) > 0);
	throttle_deinit(&throttle);
}

static void test_networks(void **state UNUSED)
{
	struct throttle throttle;
	assert_int_equal(throttle_init(&throttle, 1), 0);
	assert_int_equal(charge(&throttle, "2001:db8::1", 1), 0);
	assert_true(charge(&throttle, "2001:db8::2:3:4:5", 1) > 0);
	assert_int_equal(charge(&throttle, "2001:db8:0:1::1", 1), 0);
	assert_int_equal(charge(&throttle, "192.0.2.1", 1), 0);
	assert_int_equal(charge(&throttle, "192.0.2.2", 1), 0);
	assert_true(charge(&throttle, "::ffff:192.0.2.1", 1) > 0);
	throttle_deinit(&throttle);
}

static void test_off(void **state UNUSED)
{
	struct throttle throttle;
	assert_int_equal(throttle_init(&throttle, 0), 0);
	for (int i = 0; i < 1000; i++)
		assert_int_equal(charge(&throttle, "192.0.2.1", 1), 0);
	throttle_deinit(&throttle);
}

/* More addresses than there is room for: nobody is refused for the failures of others. */
static void test_flood(void **state UNUSED)
{
	struct throttle throttle;
	unsigned char address[16] = {[10] = 0xff, [11] = 0xff};
	assert_int_equal(throttle_init(&throttle, 1), 0);
	for (unsigned i = 0; i < 10 * THROTTLE_ADDRESSES; i++) {
		memcpy(address + 12, &i, 4);
		assert_int_equal(throttle_charge(&throttle, address, 1), 0);
		assert_true(throttle_charge(&throttle, address, 1) > 0);
	}
	throttle_deinit(&throttle);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_burst_and_refill), cmocka_unit_test(test_networks),
					   cmocka_unit_test(test_off), cmocka_unit_test(test_flood)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
