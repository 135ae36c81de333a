#include "gateway/limits.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "gateway/base/attr.h"

#include <uv.h>

#include <sys/resource.h>

#define KIB 1024ull
#define MIB (1024ull * 1024)

static struct limits_plan plan(uint64_t descriptors, uint64_t connections, uint64_t websockets, uint64_t sprites, unsigned workers)
{
	struct limits_wanted wanted = {.descriptors = descriptors,
				       .memory = UINT64_C(1) << 40,
				       .connections = connections,
				       .connection_bytes = 160 * KIB,
				       .requests = 4096,
				       .websockets = websockets,
				       .sprites = sprites,
				       .workers = workers};
	return limits_plan(&wanted);
}

static struct limits_plan plan_memory(uint64_t memory, uint64_t connections, uint64_t requests, uint64_t connection_bytes, unsigned workers)
{
	struct limits_wanted wanted = {.descriptors = 4000000,
				       .memory = memory,
				       .connections = connections,
				       .connection_bytes = connection_bytes,
				       .requests = requests,
				       .sprites = 10,
				       .workers = workers};
	return limits_plan(&wanted);
}

static void test_with_many_descriptors_all_is_as_wanted(void **state UNUSED)
{
	struct limits_plan all = plan(1000000, 16384, 10000, 10, 4);
	assert_int_equal(all.connections, 16384);
	assert_int_equal(all.websockets, 10000);
	assert_int_equal(all.datasette, 4096);
}

static void test_with_few_each_has_its_part(void **state UNUSED)
{
	struct limits_plan few = plan(20000, 16384, 0, 10, 4);
	assert_int_equal(few.datasette, 2431);
	assert_int_equal(few.connections, 14586);
	assert_int_equal(plan(1024, 16384, 0, 10, 1).connections, 498);
	assert_int_equal(plan(1024, 100, 0, 10, 1).connections, 100);
}

static void test_a_websocket_takes_room_from_clients(void **state UNUSED)
{
	struct limits_plan without = plan(20000, 16384, 0, 10, 4), with = plan(20000, 16384, 1000, 10, 4);
	assert_int_equal(with.websockets, 1000);
	assert_int_equal(with.datasette, without.datasette);
	assert_int_equal(with.connections, without.connections - 2000);
	assert_int_equal(plan(20000, 16384, 16384, 10, 4).websockets, 2431);
}

static void test_the_plan_fits(void **state UNUSED)
{
	for (uint64_t sprites = 1; sprites <= 1000; sprites += 333) {
		for (unsigned workers = 1; workers <= 64; workers *= 4) {
			uint64_t needed = plan(0, 1000000, 1000000, sprites, workers).needed;
			for (uint64_t more = 0; more < 100000; more += 997) {
				struct limits_plan all = plan(needed + more, 1000000, 1000000, sprites, workers);
				uint64_t spare = 64ull * workers,
					 used = all.connections + spare + 2 * (all.datasette + all.websockets) + 4 * sprites;
				assert_true(used + 256 <= needed + more);
				assert_true(all.connections >= 16ull * workers && all.datasette >= 4ull * workers);
			}
		}
	}
}

static void test_too_few_are_too_few(void **state UNUSED)
{
	assert_int_equal(plan(64, 16384, 0, 10, 1).needed, 392);
	assert_int_equal(plan(1024, 16384, 0, 10, 4).needed, 680);
	assert_int_equal(plan(1024, 16384, 0, 1000, 4).needed, 4640);
	assert_int_equal(plan(64, 16384, 10, 10, 1).connections, 0);
}

static void test_with_much_memory_all_is_as_wanted(void **state UNUSED)
{
	struct limits_plan all = plan_memory(3840 * MIB, 16384, 4096, 160 * KIB, 4);
	assert_int_equal(all.connections, 16384);
	assert_int_equal(all.requests, 4096);
	assert_false(all.memory_decides);
	assert_int_equal(all.memory_needed, 40 * MIB);
}

static void test_with_little_memory_each_has_its_half(void **state UNUSED)
{
	struct limits_plan few = plan_memory(256 * MIB, 16384, 4096, 160 * KIB, 1);
	assert_int_equal(few.requests, 409);
	assert_int_equal(few.connections, 820);
	assert_true(few.memory_decides);
	/* What requests do not want, connections get. */
	assert_int_equal(plan_memory(256 * MIB, 16384, 16, 160 * KIB, 1).connections, 1606);
}

static void test_the_memory_suffices(void **state UNUSED)
{
	for (uint64_t each = 160 * KIB; each <= 544 * KIB; each += 96 * KIB) {
		for (unsigned workers = 1; workers <= 64; workers *= 4) {
			uint64_t needed = plan_memory(0, 1000000, 1000000, each, workers).memory_needed;
			for (uint64_t more = 0; more < 4096 * MIB; more += 97 * MIB) {
				struct limits_plan all = plan_memory(needed + more, 1000000, 1000000, each, workers);
				assert_true(all.connections * each + all.requests * 320 * KIB <= needed + more);
				assert_true(all.connections >= 16ull * workers && all.requests >= 16ull * workers);
			}
		}
	}
	assert_int_equal(plan_memory(0, 16384, 4096, 160 * KIB, 4).connections, 0);
}

static void test_memory(void **state UNUSED)
{
	uint64_t memory = limits_memory();
	assert_true(memory > 64 * MIB && memory <= uv_get_total_memory());
}

static void test_memory_of_clients(void **state UNUSED)
{
	assert_int_equal(limits_client_memory(10 * MIB, 512 * MIB, 40 * MIB), 10 * MIB);
	assert_int_equal(limits_client_memory(0, 512 * MIB, 40 * MIB), 256 * MIB);
	assert_int_equal(limits_client_memory(0, 256 * MIB, 160 * MIB), 160 * MIB);
	assert_int_equal(limits_client_memory(0, 0, 160 * MIB), 1024 * 1024 * MIB);
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
	assert_int_equal(limits_most(), limit.rlim_max);
	assert_int_equal(limits_raise(), limit.rlim_max);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	assert_int_equal(limit.rlim_cur, limit.rlim_max);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_with_many_descriptors_all_is_as_wanted),
		cmocka_unit_test(test_with_few_each_has_its_part),
		cmocka_unit_test(test_a_websocket_takes_room_from_clients),
		cmocka_unit_test(test_the_plan_fits),
		cmocka_unit_test(test_too_few_are_too_few),
		cmocka_unit_test(test_with_much_memory_all_is_as_wanted),
		cmocka_unit_test(test_with_little_memory_each_has_its_half),
		cmocka_unit_test(test_the_memory_suffices),
		cmocka_unit_test(test_memory),
		cmocka_unit_test(test_memory_of_clients),
		cmocka_unit_test(test_shares_add_up),
		cmocka_unit_test(test_raising),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
