#include "gateway/http/listener.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <linux/capability.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

static void test_addresses(void **state UNUSED)
{
	struct listener_address address;
	char error[LISTENER_ERROR_LEN];
	static const char *const good[] = {"127.0.0.1:0", "[::]:8080", "[::1]:65535", "0.0.0.0:80"};
	static const char *const bad[] = {"",
					  "8080",
					  "127.0.0.1",
					  "127.0.0.1:",
					  "127.0.0.1:x",
					  "127.0.0.1:65536",
					  "::1:80",
					  "[::1]",
					  "localhost:80",
					  "[127.0.0.1]:80",
					  "[]:80",
					  ":80",
					  "[aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa]:80"};
	for (size_t i = 0; i < ARRAY_LEN(good); i++)
		assert_int_equal(listener_parse(slice_str(good[i]), &address, error), 0);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		assert_int_equal(listener_parse(slice_str(bad[i]), &address, error), -EINVAL);
		assert_true(strlen(error) > 0);
	}
}

#define WORKERS    3
#define SILENCE_MS 75000

static void open_all(const char *text, int fds[WORKERS])
{
	struct listener_address address;
	char error[LISTENER_ERROR_LEN];
	assert_int_equal(listener_parse(slice_str(text), &address, error), 0);
	assert_int_equal(listener_open(&address, SILENCE_MS, fds, WORKERS, error), 0);
}

static void close_all(const int fds[WORKERS])
{
	for (int i = 0; i < WORKERS; i++)
		close(fds[i]);
}

static unsigned port_of(int fd)
{
	struct sockaddr_in name;
	socklen_t len = sizeof name;
	assert_int_equal(getsockname(fd, (struct sockaddr *)&name, &len), 0);
	assert_true(name.sin_port > 0);
	return ntohs(name.sin_port);
}

/* With so many connections a socket without any is out of the group, not out of luck. */
static void test_workers_share_the_connections(void **state UNUSED)
{
	int fds[WORKERS], clients[100];
	open_all("127.0.0.1:0", fds);
	struct sockaddr_in to = {
		.sin_family = AF_INET, .sin_port = htons((uint16_t)port_of(fds[0])), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	for (size_t i = 0; i < ARRAY_LEN(clients); i++) {
		clients[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		assert_int_equal(connect(clients[i], (struct sockaddr *)&to, sizeof to), 0);
	}
	size_t all = 0;
	for (int i = 0; i < WORKERS; i++) {
		size_t taken = 0;
		unsigned silence_ms = 0;
		socklen_t len = sizeof silence_ms;
		assert_int_equal(port_of(fds[i]), port_of(fds[0]));
		for (int fd; (fd = accept(fds[i], NULL, NULL)) >= 0; taken++) {
			assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &silence_ms, &len), 0);
			assert_int_equal(silence_ms, SILENCE_MS);
			close(fd);
		}
		assert_true(taken > 0);
		all += taken;
	}
	assert_int_equal(all, ARRAY_LEN(clients));
	for (size_t i = 0; i < ARRAY_LEN(clients); i++)
		close(clients[i]);
	close_all(fds);
}

static void test_an_address_in_use_is_refused(void **state UNUSED)
{
	static const char *const overlapping[] = {"127.0.0.1", "0.0.0.0", "[::]"};
	struct listener_address address;
	char error[LISTENER_ERROR_LEN], text[32];
	int fds[WORKERS], other[WORKERS];
	open_all("127.0.0.1:0", fds);
	for (size_t i = 0; i < ARRAY_LEN(overlapping); i++) {
		snprintf(text, sizeof text, "%s:%u", overlapping[i], port_of(fds[0]));
		assert_int_equal(listener_parse(slice_str(text), &address, error), 0);
		assert_int_equal(listener_open(&address, SILENCE_MS, other, WORKERS, error), -EADDRINUSE);
		assert_non_null(strstr(error, "in use"));
	}
	snprintf(text, sizeof text, "127.0.0.1:%u", port_of(fds[0]));
	close_all(fds);
	open_all(text, fds);
	close_all(fds);
}

static int begin_connection(unsigned port)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), -1);
	assert_int_equal(errno, EINPROGRESS);
	return fd;
}

/* Which has succeeded, been refused or been reset. */
static int outcome_of(int fd)
{
	struct pollfd done = {.fd = fd, .events = POLLOUT};
	int error = -1;
	assert_int_equal(poll(&done, 1, 60000), 1);
	assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &(socklen_t){sizeof error}), 0);
	return error;
}

static void test_a_close_resets_nobody(void **state UNUSED)
{
	int fds[WORKERS];
	open_all("127.0.0.1:0", fds);
	int early = begin_connection(port_of(fds[0])), accepted = -1;
	assert_int_equal(outcome_of(early), 0);
	for (int i = 0; i < WORKERS; i++)
		assert_int_equal(listener_refuse(fds[i]), 0);
	int late = begin_connection(port_of(fds[0]));
	struct pollfd any[WORKERS];
	for (int i = 0; i < WORKERS; i++)
		any[i] = (struct pollfd){.fd = fds[i], .events = POLLIN};
	assert_int_equal(poll(any, WORKERS, 60000), 1);
	for (int i = 0; i < WORKERS; i++) {
		assert_int_equal(listener_has_backlog(fds[i]), any[i].revents != 0);
		if (any[i].revents)
			accepted = accept(fds[i], NULL, NULL);
		assert_false(listener_has_backlog(fds[i]));
	}
	close_all(fds);
	assert_true(accepted >= 0);
	assert_int_equal(write(accepted, "x", 1), 1);
	assert_int_equal(read(early, (char[1]){0}, 1), 1);
	assert_int_equal(outcome_of(late), ECONNREFUSED);
	close(early);
	close(late);
	close(accepted);
}

/* As when it serves. */
static void test_a_close_resets_nobody_without_capabilities(void **state)
{
	struct __user_cap_header_struct own = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct has[_LINUX_CAPABILITY_U32S_3], less[_LINUX_CAPABILITY_U32S_3];
	assert_int_equal(syscall(SYS_capget, &own, has), 0);
	memcpy(less, has, sizeof less);
	for (unsigned i = 0; i < ARRAY_LEN(less); i++)
		less[i].effective = 0;
	assert_int_equal(syscall(SYS_capset, &own, less), 0);
	test_a_close_resets_nobody(state);
	assert_int_equal(syscall(SYS_capset, &own, has), 0);
}

static void test_errors_are_named(void **state UNUSED)
{
	struct listener_address address;
	char error[LISTENER_ERROR_LEN];
	int fd;
	assert_int_equal(listener_parse(SLICE("192.0.2.1:80"), &address, error), 0);
	assert_int_equal(listener_open(&address, SILENCE_MS, &fd, 1, error), -EADDRNOTAVAIL);
	assert_memory_equal(error, "bind: ", 6);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_addresses),
		cmocka_unit_test(test_workers_share_the_connections),
		cmocka_unit_test(test_an_address_in_use_is_refused),
		cmocka_unit_test(test_a_close_resets_nobody),
		cmocka_unit_test(test_a_close_resets_nobody_without_capabilities),
		cmocka_unit_test(test_errors_are_named),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
