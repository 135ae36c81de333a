#include "gateway/http/connection_events.h"

#include "gateway/base/attr.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct rig {
	int epoll_fd, ours, theirs;
	char object; /* its address is what libmicrohttpd wants to see */
};

static int set_up(void **state)
{
	static struct rig rig;
	int pair[2];
	rig.epoll_fd = epoll_create1(0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
	rig.ours = pair[0];
	rig.theirs = pair[1];
	connection_events_expect(UINT_MAX);
	*state = &rig;
	return 0;
}

static int tear_down(void **state)
{
	struct rig *rig = *state;
	connection_events_end(rig->ours);
	close(rig->ours);
	close(rig->theirs);
	close(rig->epoll_fd);
	return 0;
}

static void add(struct rig *rig)
{
	struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = &rig->object};
	assert_int_equal(microhttpd_epoll_ctl(rig->epoll_fd, EPOLL_CTL_ADD, rig->ours, &event), 0);
}

static void begin(struct rig *rig)
{
	connection_events_begin(rig->ours);
	add(rig);
}

static void suspend(struct rig *rig)
{
	connection_events_suspend(rig->ours);
	assert_int_equal(microhttpd_epoll_ctl(rig->epoll_fd, EPOLL_CTL_DEL, rig->ours, NULL), 0);
}

/* What libmicrohttpd makes of all events there are: told that it may read? */
static bool told(struct rig *rig)
{
	struct epoll_event events[4];
	bool readable = false;
	int count = microhttpd_epoll_wait(rig->epoll_fd, events, ARRAY_LEN(events), 0);
	for (int i = 0; i < count; i++) {
		if (!events[i].data.ptr)
			continue;
		assert_ptr_equal(events[i].data.ptr, &rig->object);
		readable |= (events[i].events & EPOLLIN) != 0;
	}
	return readable;
}

static void say(struct rig *rig, const char *text)
{
	assert_int_equal(send(rig->theirs, text, strlen(text), 0), strlen(text));
}

static void assert_reads(struct rig *rig, const char *text)
{
	char got[16];
	ssize_t n = microhttpd_recv(rig->ours, got, sizeof got, 0);
	assert_int_equal(n, strlen(text));
	assert_memory_equal(got, text, strlen(text));
}

static void assert_reads_nothing(struct rig *rig)
{
	char got[16];
	assert_int_equal(microhttpd_recv(rig->ours, got, sizeof got, 0), -1);
	assert_int_equal(errno, EAGAIN);
}

static void test_bytes_are_told_once(void **state)
{
	struct rig *rig = *state;
	begin(rig);
	assert_false(told(rig));
	assert_reads_nothing(rig);
	say(rig, "one");
	assert_true(told(rig));
	assert_reads(rig, "one");
	assert_reads_nothing(rig);
	assert_false(told(rig));
}

static void test_what_was_heard_since_the_last_request(void **state)
{
	struct rig *rig = *state;
	begin(rig);
	assert_false(connection_events_heard(rig->ours));
	say(rig, "GE");
	assert_true(told(rig));
	assert_false(connection_events_heard(rig->ours));
	assert_reads(rig, "GE");
	assert_true(connection_events_heard(rig->ours));
	connection_events_rest(rig->ours);
	assert_false(connection_events_heard(rig->ours));
	assert_reads_nothing(rig);
	assert_false(connection_events_heard(rig->ours));
}

static void test_no_read_before_an_event(void **state)
{
	struct rig *rig = *state;
	begin(rig);
	assert_false(told(rig));
	say(rig, "one");
	assert_reads_nothing(rig);
	assert_true(told(rig));
	assert_reads(rig, "one");
}

static void test_nothing_is_asked_when_nothing_is_expected(void **state)
{
	struct rig *rig = *state;
	begin(rig);
	say(rig, "one");
	connection_events_expect(0);
	assert_false(told(rig));
	connection_events_expect(UINT_MAX);
	assert_true(told(rig));
}

static void test_what_is_too_many_for_once_is_told_the_next_time(void **state)
{
	struct rig *rig = *state;
	struct epoll_event own = {.events = EPOLLIN | EPOLLET, .data.ptr = rig}, events[4];
	begin(rig);
	say(rig, "one");
	assert_int_equal(microhttpd_epoll_ctl(rig->epoll_fd, EPOLL_CTL_ADD, rig->theirs, &own), 0);
	assert_int_equal(send(rig->ours, "two", 3, 0), 3);
	connection_events_expect(1);
	assert_int_equal(microhttpd_epoll_wait(rig->epoll_fd, events, ARRAY_LEN(events), 0), 1);
	assert_ptr_equal(events[0].data.ptr, &rig->object);
	assert_int_equal(microhttpd_epoll_wait(rig->epoll_fd, events, ARRAY_LEN(events), 0), 1);
	assert_ptr_equal(events[0].data.ptr, rig);
	assert_int_equal(microhttpd_epoll_wait(rig->epoll_fd, events, ARRAY_LEN(events), 0), 0);
}

static void test_a_full_read_may_be_followed_by_more(void **state)
{
	struct rig *rig = *state;
	begin(rig);
	say(rig, "0123456789abcdefrest");
	assert_true(told(rig));
	assert_reads(rig, "0123456789abcdef");
	assert_reads(rig, "rest");
	assert_reads_nothing(rig);
}

static void test_suspended_it_is_not_told_and_nothing_is_lost(void **state)
{
	struct rig *rig = *state;
	begin(rig);
	suspend(rig);
	say(rig, "one");
	assert_false(told(rig));
	assert_false(told(rig));
	add(rig);
	assert_true(told(rig));
	assert_reads(rig, "one");
}

static void test_resumed_it_may_read_before_it_is_watched(void **state)
{
	struct rig *rig = *state;
	begin(rig);
	suspend(rig);
	say(rig, "one");
	assert_false(told(rig));
	assert_reads(rig, "one");
	assert_reads_nothing(rig);
	say(rig, "two");
	assert_false(told(rig));
	add(rig);
	assert_true(told(rig));
	assert_reads(rig, "two");
}

static void test_bytes_after_it_is_watched_again(void **state)
{
	struct rig *rig = *state;
	begin(rig);
	suspend(rig);
	assert_false(told(rig));
	add(rig);
	say(rig, "one");
	assert_true(told(rig));
	assert_reads(rig, "one");
}

/* One event for both, and the first read is short. */
static void test_an_end_that_came_with_bytes(void **state)
{
	struct rig *rig = *state;
	begin(rig);
	assert_false(told(rig));
	say(rig, "one");
	shutdown(rig->theirs, SHUT_WR);
	assert_true(told(rig));
	assert_reads(rig, "one");
	assert_true(told(rig));
	assert_reads(rig, "");
	assert_reads(rig, "");
	assert_false(told(rig));
}

static void test_an_end_that_came_with_bytes_while_suspended(void **state)
{
	struct rig *rig = *state;
	begin(rig);
	assert_false(told(rig));
	suspend(rig);
	say(rig, "one");
	shutdown(rig->theirs, SHUT_WR);
	assert_false(told(rig));
	assert_reads(rig, "one");
	assert_false(told(rig));
	add(rig);
	assert_true(told(rig));
	assert_reads(rig, "");
}

static void test_removed_it_is_not_watched(void **state)
{
	struct rig *rig = *state;
	begin(rig);
	assert_int_equal(microhttpd_epoll_ctl(rig->epoll_fd, EPOLL_CTL_DEL, rig->ours, NULL), 0);
	say(rig, "one");
	assert_false(told(rig));
	assert_reads(rig, "one");
	assert_reads_nothing(rig);
}

static void test_left_while_suspended_it_wakes_nobody(void **state)
{
	struct rig *rig = *state;
	struct epoll_event event;
	begin(rig);
	assert_false(told(rig));
	suspend(rig);
	connection_events_leave(rig->epoll_fd, rig->ours);
	say(rig, "one");
	assert_int_equal(epoll_wait(rig->epoll_fd, &event, 1, 0), 0);
	assert_reads(rig, "one");
}

static void test_a_descriptor_that_is_used_again(void **state)
{
	struct rig *rig = *state;
	int number = rig->ours, pair[2];
	begin(rig);
	suspend(rig);
	say(rig, "old");
	assert_false(told(rig));
	connection_events_end(rig->ours);
	close(rig->ours);
	close(rig->theirs);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
	assert_int_equal(pair[0], number);
	rig->theirs = pair[1];
	begin(rig);
	assert_false(told(rig));
	assert_reads_nothing(rig);
	say(rig, "new");
	assert_true(told(rig));
	assert_reads(rig, "new");
}

static void test_what_is_not_known_is_left_alone(void **state)
{
	struct rig *rig = *state;
	add(rig);
	connection_events_suspend(rig->ours);
	say(rig, "one");
	assert_reads(rig, "one");
	say(rig, "two");
	assert_true(told(rig));
	assert_int_equal(microhttpd_epoll_ctl(rig->epoll_fd, EPOLL_CTL_DEL, rig->ours, NULL), 0);
	assert_int_equal(microhttpd_epoll_ctl(rig->epoll_fd, EPOLL_CTL_DEL, rig->ours, NULL), -1);
	assert_reads(rig, "two");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_bytes_are_told_once, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_what_was_heard_since_the_last_request, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_no_read_before_an_event, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_nothing_is_asked_when_nothing_is_expected, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_what_is_too_many_for_once_is_told_the_next_time, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_a_full_read_may_be_followed_by_more, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_suspended_it_is_not_told_and_nothing_is_lost, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_resumed_it_may_read_before_it_is_watched, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_bytes_after_it_is_watched_again, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_an_end_that_came_with_bytes, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_an_end_that_came_with_bytes_while_suspended, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_removed_it_is_not_watched, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_left_while_suspended_it_wakes_nobody, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_a_descriptor_that_is_used_again, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_what_is_not_known_is_left_alone, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
