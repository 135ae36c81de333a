#include "gateway/limits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "gateway/base/attr.h"

#include <sys/resource.h>

static void test_connections_fit_into_the_descriptors(void **state UNUSED)
{
	assert_int_equal(limits_connections(16384, 1000000), 16384);
	assert_int_equal(limits_connections(16384, 20000), 14744);
	assert_int_equal(limits_connections(16384, 1024), 512);
	assert_int_equal(limits_connections(100, 1024), 100);
	assert_int_equal(limits_connections(16384, 64), 16);
}

static void test_shares_add_up(void **state UNUSED)
{
	assert_int_equal(limits_share(16384, 4), 4096);
	assert_int_equal(limits_share(100, 3), 34);
	assert_int_equal(limits_share(16, 64), 1);
}

static void test_raising(void **state UNUSED)
{
	struct rlimit limit;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	assert_int_equal(limits_raise(), limit.rlim_max);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	assert_int_equal(limit.rlim_cur, limit.rlim_max);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_connections_fit_into_the_descriptors),
		cmocka_unit_test(test_shares_add_up),
		cmocka_unit_test(test_raising),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
