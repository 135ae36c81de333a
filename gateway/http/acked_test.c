#include "gateway/http/acked.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PATIENCE_MS 60000

/* Two ends of a connection over loopback. */
static void connect_both(int ends[2])
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof address;
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &len), 0);
	ends[0] = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(connect(ends[0], (struct sockaddr *)&address, sizeof address), 0);
	ends[1] = accept(listener, NULL, NULL);
	assert_true(ends[1] >= 0);
	close(listener);
}

/* Until the look says so; a kernel that is busy acknowledges later. */
static struct acked until(int fd, bool blocked, uint64_t bytes)
{
	struct acked acked;
	for (int ms = 0; ms < PATIENCE_MS; ms += 5) {
		assert_true(acked_look(fd, &acked));
		if (acked.blocked == blocked && acked.bytes >= bytes)
			return acked;
		poll(NULL, 0, 5);
	}
	fail_msg("blocked is %d, %llu bytes are acked", acked.blocked, (unsigned long long)acked.bytes);
	return acked;
}

static void test_who_takes_all_blocks_nothing(void **state UNUSED)
{
	int ends[2];
	char bytes[4096] = "";
	connect_both(ends);
	for (unsigned i = 1; i <= 20; i++) {
		assert_int_equal(send(ends[1], bytes, sizeof bytes, 0), sizeof bytes);
		until(ends[1], false, (uint64_t)i * sizeof bytes);
		assert_int_equal(recv(ends[0], bytes, sizeof bytes, MSG_WAITALL), sizeof bytes);
	}
	close(ends[0]);
	close(ends[1]);
}

static void test_who_does_not_read_does(void **state UNUSED)
{
	int ends[2];
	static char bytes[65536];
	size_t sent = 0;
	ssize_t n;
	connect_both(ends);
	while ((n = send(ends[1], bytes, sizeof bytes, MSG_DONTWAIT)) > 0)
		sent += (size_t)n;
	assert_int_equal(errno, EAGAIN);
	struct acked acked = until(ends[1], true, 1);
	assert_true(acked.bytes < sent);
	/* And when it reads it does not any more. */
	for (size_t got = 0; got < sent; got += (size_t)n) {
		n = recv(ends[0], bytes, sizeof bytes, 0);
		assert_true(n > 0);
	}
	until(ends[1], false, sent);
	close(ends[0]);
	close(ends[1]);
}

static void test_what_is_no_connection(void **state UNUSED)
{
	struct acked acked;
	int ends[2];
	assert_int_equal(pipe(ends), 0);
	assert_false(acked_look(ends[0], &acked));
	close(ends[0]);
	close(ends[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_who_takes_all_blocks_nothing),
					   cmocka_unit_test(test_who_does_not_read_does), cmocka_unit_test(test_what_is_no_connection)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
