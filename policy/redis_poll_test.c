#include "policy/redis_poll.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <hiredis/async.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define LARGE ((size_t)4 * 1024 * 1024) /* more than a socket takes */

/* A connection, and the server's end of it. */
struct line {
	uv_loop_t loop;
	char folder[32];
	struct sockaddr_un address;
	int server;
	redisAsyncContext *context;
	bool connected, gone, closed;
	unsigned answers, losses;
};

static void on_connected(const redisAsyncContext *context, int status)
{
	struct line *line = context->data;
	line->connected = status == REDIS_OK;
}

static void on_gone(void *ctx)
{
	((struct line *)ctx)->gone = true;
}

static void on_closed(void *ctx)
{
	((struct line *)ctx)->closed = true;
}

static void on_answer(redisAsyncContext *context, void *answer, void *data)
{
	struct line *line = data;
	(void)context;
	*(answer ? &line->answers : &line->losses) += 1;
}

static int make_line(void **state)
{
	struct line *line = calloc(1, sizeof *line);
	assert_non_null(line);
	*state = line;
	assert_int_equal(uv_loop_init(&line->loop), 0);
	snprintf(line->folder, sizeof line->folder, "/tmp/redis-poll-XXXXXX");
	assert_non_null(mkdtemp(line->folder));
	line->address.sun_family = AF_UNIX;
	snprintf(line->address.sun_path, sizeof line->address.sun_path, "%s/s", line->folder);
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(listener, (struct sockaddr *)&line->address, sizeof line->address), 0);
	assert_int_equal(listen(listener, 1), 0);
	line->context = redisAsyncConnectUnix(line->address.sun_path);
	assert_non_null(line->context);
	assert_int_equal(line->context->err, 0);
	line->context->data = line;
	struct redis_poll_events events = {.on_gone = on_gone, .on_closed = on_closed, .ctx = line};
	assert_int_equal(redis_poll_attach(line->context, &line->loop, &events), 0);
	assert_int_equal(redisAsyncSetConnectCallback(line->context, on_connected), REDIS_OK);
	line->server = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	assert_true(line->server >= 0);
	while (!line->connected) {
		assert_false(line->gone);
		uv_run(&line->loop, UV_RUN_ONCE);
	}
	/* Not before: hiredis connects once more to see that it has. */
	close(listener);
	return 0;
}

static int remove_line(void **state)
{
	struct line *line = *state;
	if (!line->gone)
		redisAsyncFree(line->context);
	while (!line->closed)
		uv_run(&line->loop, UV_RUN_ONCE);
	assert_int_equal(uv_loop_close(&line->loop), 0);
	if (line->server >= 0)
		close(line->server);
	unlink(line->address.sun_path);
	rmdir(line->folder);
	free(line);
	return 0;
}

static void test_a_command_has_left_when_it_was_asked(void **state)
{
	struct line *line = *state;
	static const char asked[] = "*1\r\n$4\r\nPING\r\n";
	char bytes[64];
	for (unsigned i = 1; i <= 3; i++) {
		assert_int_equal(redisAsyncCommand(line->context, on_answer, line, "PING"), REDIS_OK);
		assert_int_equal(read(line->server, bytes, sizeof bytes), strlen(asked));
		assert_memory_equal(bytes, asked, strlen(asked));
		assert_int_equal(write(line->server, "+PONG\r\n", 7), 7);
		while (line->answers < i)
			uv_run(&line->loop, UV_RUN_ONCE);
	}
	assert_int_equal(line->losses, 0);
}

static void test_what_the_socket_does_not_take_follows(void **state)
{
	struct line *line = *state;
	char *value = calloc(1, LARGE), bytes[65536];
	assert_non_null(value);
	assert_int_equal(redisAsyncCommand(line->context, on_answer, line, "ECHO %b", value, LARGE), REDIS_OK);
	assert_int_equal(redisAsyncCommand(line->context, on_answer, line, "PING"), REDIS_OK);
	free(value);
	size_t want = strlen("*2\r\n$4\r\nECHO\r\n$4194304\r\n") + LARGE + strlen("\r\n*1\r\n$4\r\nPING\r\n"), got = 0;
	while (got < want) {
		ssize_t n = read(line->server, bytes, sizeof bytes);
		if (n > 0)
			got += (size_t)n;
		else
			uv_run(&line->loop, UV_RUN_ONCE);
	}
	assert_int_equal(got, want);
	assert_int_equal(write(line->server, "+OK\r\n+PONG\r\n", 12), 12);
	while (line->answers < 2)
		uv_run(&line->loop, UV_RUN_ONCE);
}

static void test_a_connection_that_is_gone_is_told_from_the_loop(void **state)
{
	struct line *line = *state;
	close(line->server);
	line->server = -1;
	assert_int_equal(redisAsyncCommand(line->context, on_answer, line, "PING"), REDIS_OK);
	assert_int_equal(line->losses, 0);
	assert_false(line->gone);
	while (!line->gone)
		uv_run(&line->loop, UV_RUN_ONCE);
	assert_int_equal(line->losses, 1);
}

int main(void)
{
	/* As in the gateway: what is written to nobody is an error, no end. */
	signal(SIGPIPE, SIG_IGN);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_a_command_has_left_when_it_was_asked, make_line, remove_line),
		cmocka_unit_test_setup_teardown(test_what_the_socket_does_not_take_follows, make_line, remove_line),
		cmocka_unit_test_setup_teardown(test_a_connection_that_is_gone_is_told_from_the_loop, make_line, remove_line),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
