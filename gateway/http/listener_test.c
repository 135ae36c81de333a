#include "gateway/http/listener.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

static void test_addresses(void **state UNUSED)
{
	struct listener_address address;
	char error[LISTENER_ERROR_LEN];
	static const char *const good[] = {"127.0.0.1:0", "[::]:8080", "[::1]:65535", "0.0.0.0:80"};
	static const char *const bad[] = {"", "8080", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536", "::1:80",
					  "[::1]", "localhost:80", "[127.0.0.1]:80", "[]:80", ":80",
					  "[aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa]:80"};
	for (size_t i = 0; i < ARRAY_LEN(good); i++)
		assert_int_equal(listener_parse(slice_str(good[i]), &address, error), 0);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		assert_int_equal(listener_parse(slice_str(bad[i]), &address, error), -EINVAL);
		assert_true(strlen(error) > 0);
	}
}

static void test_two_workers_share_a_port(void **state UNUSED)
{
	struct listener_address address;
	char error[LISTENER_ERROR_LEN];
	int first, second;
	unsigned port = 0, same = 0;
	assert_int_equal(listener_parse(SLICE("127.0.0.1:0"), &address, error), 0);
	assert_int_equal(listener_open(&address, &first, error), 0);
	assert_int_equal(listener_port(first, &port), 0);
	assert_true(port > 0);
	char text[32];
	snprintf(text, sizeof text, "127.0.0.1:%u", port);
	assert_int_equal(listener_parse(slice_str(text), &address, error), 0);
	assert_int_equal(listener_open(&address, &second, error), 0);
	assert_int_equal(listener_port(second, &same), 0);
	assert_int_equal(port, same);
	close(first);
	close(second);
}

static void test_errors_are_named(void **state UNUSED)
{
	struct listener_address address;
	char error[LISTENER_ERROR_LEN];
	int fd;
	assert_int_equal(listener_parse(SLICE("192.0.2.1:80"), &address, error), 0);
	assert_int_equal(listener_open(&address, &fd, error), -EADDRNOTAVAIL);
	assert_memory_equal(error, "bind: ", 6);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_addresses), cmocka_unit_test(test_two_workers_share_a_port), cmocka_unit_test(test_errors_are_named)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
