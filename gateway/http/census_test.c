#include "gateway/http/census.h"

#include "gateway/http/peer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdio.h>

struct address {
	unsigned char bytes[16];
};

static struct address address_of(const char *text)
{
	struct address address;
	assert_true(peer_parse(slice_str(text), address.bytes));
	return address;
}

static void test_each_address_has_its_own_limit(void **state UNUSED)
{
	struct census *census = census_new(2);
	struct address one = address_of("192.0.2.1"), other = address_of("192.0.2.2");
	assert_non_null(census);
	assert_true(census_enter(census, one.bytes));
	assert_true(census_enter(census, one.bytes));
	assert_false(census_enter(census, one.bytes));
	assert_true(census_enter(census, other.bytes));
	census_leave(census, one.bytes);
	assert_true(census_enter(census, one.bytes));
	assert_false(census_enter(census, one.bytes));
	census_free(census);
}

static void test_a_network_of_ipv6_is_one(void **state UNUSED)
{
	struct census *census = census_new(1);
	struct address one = address_of("2001:db8:0:1::1"), neighbour = address_of("2001:db8:0:1:ffff::2"),
		       other = address_of("2001:db8:0:2::1");
	assert_non_null(census);
	assert_true(census_enter(census, one.bytes));
	assert_false(census_enter(census, neighbour.bytes));
	assert_true(census_enter(census, other.bytes));
	census_free(census);
}

static void test_refusals_leave_nothing_behind(void **state UNUSED)
{
	struct census *census = census_new(1);
	struct address one = address_of("198.51.100.7");
	assert_non_null(census);
	assert_true(census_enter(census, one.bytes));
	for (unsigned i = 0; i < 1000; i++)
		assert_false(census_enter(census, one.bytes));
	census_leave(census, one.bytes);
	assert_true(census_enter(census, one.bytes));
	census_free(census);
}

static void test_many_addresses_do_not_disturb_each_other(void **state UNUSED)
{
	struct census *census = census_new(8);
	assert_non_null(census);
	for (unsigned i = 0; i < 16384; i++) {
		char text[24];
		snprintf(text, sizeof text, "10.%u.%u.%u", i >> 16, i >> 8 & 255, i & 255);
		assert_true(census_enter(census, address_of(text).bytes));
	}
	census_free(census);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_address_has_its_own_limit),
		cmocka_unit_test(test_a_network_of_ipv6_is_one),
		cmocka_unit_test(test_refusals_leave_nothing_behind),
		cmocka_unit_test(test_many_addresses_do_not_disturb_each_other),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
