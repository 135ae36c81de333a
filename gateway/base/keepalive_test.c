#include "gateway/base/keepalive.h"

#include "gateway/base/attr.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

static int option(int fd, int level, int name)
{
	int value = -1;
	socklen_t len = sizeof value;
	assert_int_equal(getsockopt(fd, level, name, &value, &len), 0);
	return value;
}

static void test_the_last_probe_is_due_with_the_silence(void **state UNUSED)
{
	static const unsigned silences_s[] = {1, 2, 3, 75, 300, 3600, 86400};
	for (size_t i = 0; i < ARRAY_LEN(silences_s); i++) {
		int seconds = (int)silences_s[i], fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		assert_int_equal(keepalive_set(fd, silences_s[i] * 1000), 0);
		assert_int_equal(option(fd, SOL_SOCKET, SO_KEEPALIVE), 1);
		assert_int_equal(option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT), seconds * 1000);
		int before = option(fd, IPPROTO_TCP, TCP_KEEPIDLE), interval = option(fd, IPPROTO_TCP, TCP_KEEPINTVL);
		int last = before + interval * option(fd, IPPROTO_TCP, TCP_KEEPCNT);
		assert_true(before <= seconds && last >= seconds && last <= seconds + 3);
		close(fd);
	}
}

static void test_a_unix_socket_has_none(void **state UNUSED)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(keepalive_set(fd, 75000) < 0);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_last_probe_is_due_with_the_silence),
		cmocka_unit_test(test_a_unix_socket_has_none),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
