#include "gateway/sprites/heartbeat.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define S 1000000ull

static struct heartbeat heartbeat;
static uint64_t next_us;

static void expect(uint64_t now_us, enum heartbeat_action action, uint64_t next)
{
	assert_int_equal(heartbeat_step(&heartbeat, now_us, &next_us), action);
	if (action != HEARTBEAT_DEAD)
		assert_int_equal(next_us, next);
}

static void test_pings(void **state UNUSED)
{
	heartbeat_init(&heartbeat, 15 * S, 45 * S, 100 * S);
	expect(100 * S, HEARTBEAT_WAIT, 115 * S);
	expect(115 * S - 1, HEARTBEAT_WAIT, 115 * S);
	expect(115 * S, HEARTBEAT_PING, 130 * S);
	expect(115 * S, HEARTBEAT_WAIT, 130 * S);
	heartbeat_heard(&heartbeat, 116 * S);
	expect(130 * S, HEARTBEAT_PING, 145 * S);
}

static void test_dead(void **state UNUSED)
{
	heartbeat_init(&heartbeat, 15 * S, 45 * S, 0);
	expect(15 * S, HEARTBEAT_PING, 30 * S);
	heartbeat_heard(&heartbeat, 16 * S);
	expect(30 * S, HEARTBEAT_PING, 45 * S);
	expect(45 * S, HEARTBEAT_PING, 60 * S);
	expect(60 * S, HEARTBEAT_PING, 61 * S); /* asked again at the moment of death, not later */
	expect(61 * S - 1, HEARTBEAT_WAIT, 61 * S);
	expect(61 * S, HEARTBEAT_DEAD, 0);
}

static void test_time_in_which_we_do_not_read_does_not_count(void **state UNUSED)
{
	heartbeat_init(&heartbeat, 15 * S, 45 * S, 0);
	heartbeat_pause(&heartbeat, true, 10 * S);
	expect(100 * S, HEARTBEAT_PING, 115 * S);
	heartbeat_pause(&heartbeat, false, 200 * S);
	expect(200 * S, HEARTBEAT_PING, 215 * S);
	expect(244 * S, HEARTBEAT_PING, 245 * S);
	expect(245 * S, HEARTBEAT_DEAD, 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pings),
		cmocka_unit_test(test_dead),
		cmocka_unit_test(test_time_in_which_we_do_not_read_does_not_count),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
