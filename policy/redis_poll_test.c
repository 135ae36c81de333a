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

#define ASKED "*1\r\n$4\r\nPING\r\n"
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
	redisContextFuncs functions; /* hiredis', writes counted */
	ssize_t (*write)(redisContext *connection);
	unsigned writes;
	uv_check_t check; /* older than any command */
	uv_prepare_t prepare;
	size_t arrived; /* when `check` ran */
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

static ssize_t counted_write(redisContext *connection)
{
	const redisAsyncContext *context = CONTAINER_OF(connection, redisAsyncContext, c);
	struct line *line = context->data;
	line->writes++;
	return line->write(connection);
}

static void ask(struct line *line, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		assert_int_equal(redisAsyncCommand(line->context, on_answer, line, "PING"), REDIS_OK);
}

/* What has arrived, and nothing but commands. */
static size_t take(struct line *line)
{
	char bytes[1024];
	ssize_t n = read(line->server, bytes, sizeof bytes);
	for (ssize_t i = 0; i < n; i++)
		assert_int_equal(bytes[i], ASKED[(size_t)i % strlen(ASKED)]);
	return n < 0 ? 0 : (size_t)n;
}

static void answer(struct line *line, unsigned count)
{
	unsigned want = line->answers + count;
	for (unsigned i = 0; i < count; i++)
		assert_int_equal(write(line->server, "+PONG\r\n", 7), 7);
	while (line->answers < want)
		uv_run(&line->loop, UV_RUN_ONCE);
	assert_int_equal(line->losses, 0);
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
	line->functions = *line->context->c.funcs;
	line->write = line->functions.write;
	line->functions.write = counted_write;
	line->context->c.funcs = &line->functions;
	uv_check_init(&line->loop, &line->check);
	uv_prepare_init(&line->loop, &line->prepare);
	line->check.data = line->prepare.data = line;
	return 0;
}

static int remove_line(void **state)
{
	struct line *line = *state;
	if (!line->gone)
		redisAsyncFree(line->context);
	uv_close((uv_handle_t *)&line->check, NULL);
	uv_close((uv_handle_t *)&line->prepare, NULL);
	while (!line->closed)
		uv_run(&line->loop, UV_RUN_ONCE);
	uv_run(&line->loop, UV_RUN_NOWAIT);
	assert_int_equal(uv_loop_close(&line->loop), 0);
	if (line->server >= 0)
		close(line->server);
	unlink(line->address.sun_path);
	rmdir(line->folder);
	free(line);
	return 0;
}

static void test_what_one_turn_asks_is_one_write(void **state)
{
	struct line *line = *state;
	for (unsigned turn = 1; turn <= 3; turn++) {
		ask(line, 10);
		assert_int_equal(line->writes, turn - 1);
		uv_run(&line->loop, UV_RUN_NOWAIT);
		assert_int_equal(line->writes, turn);
		assert_int_equal(take(line), 10 * strlen(ASKED));
		answer(line, 10);
	}
}

static void on_answer_ask_ten(redisAsyncContext *context, void *reply, void *data)
{
	on_answer(context, reply, data);
	ask(data, 10);
}

static void on_check(uv_check_t *check)
{
	struct line *line = check->data;
	if (!line->arrived)
		line->arrived = take(line);
}

static void test_what_an_answer_asks_leaves_before_an_older_check(void **state)
{
	struct line *line = *state;
	assert_int_equal(redisAsyncCommand(line->context, on_answer_ask_ten, line, "PING"), REDIS_OK);
	uv_run(&line->loop, UV_RUN_NOWAIT);
	assert_int_equal(take(line), strlen(ASKED));
	uv_check_start(&line->check, on_check);
	assert_int_equal(write(line->server, "+PONG\r\n", 7), 7);
	while (!line->answers)
		uv_run(&line->loop, UV_RUN_ONCE);
	assert_int_equal(line->arrived, 10 * strlen(ASKED));
	assert_int_equal(line->writes, 2);
	uv_check_stop(&line->check);
	answer(line, 10);
}

static void on_check_ask(uv_check_t *check)
{
	ask(check->data, 1);
	uv_check_stop(check);
}

static void on_prepare_ask(uv_prepare_t *prepare)
{
	ask(prepare->data, 1);
	uv_prepare_stop(prepare);
}

/* uv_run would never return. */
static void test_the_loop_does_not_sleep_on_what_is_asked(void **state)
{
	struct line *line = *state;
	uv_prepare_start(&line->prepare, on_prepare_ask);
	uv_run(&line->loop, UV_RUN_ONCE);
	assert_int_equal(take(line), strlen(ASKED));
	uv_check_start(&line->check, on_check_ask);
	ask(line, 1);
	for (size_t got = 0; got < 2 * strlen(ASKED); got += take(line))
		uv_run(&line->loop, UV_RUN_ONCE);
	answer(line, 3);
}

static void test_a_flush_is_at_once(void **state)
{
	struct line *line = *state;
	ask(line, 2);
	redis_poll_flush(line->context);
	assert_int_equal(take(line), 2 * strlen(ASKED));
	redis_poll_flush(line->context);
	uv_run(&line->loop, UV_RUN_NOWAIT);
	assert_int_equal(line->writes, 1);
	answer(line, 2);
}

static void test_a_connection_may_end_with_what_was_asked(void **state)
{
	struct line *line = *state;
	ask(line, 2);
	redisAsyncFree(line->context);
	assert_true(line->gone);
	assert_int_equal(line->losses, 2);
	while (!line->closed)
		uv_run(&line->loop, UV_RUN_ONCE);
	assert_int_equal(line->writes, 0);
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
		cmocka_unit_test_setup_teardown(test_what_one_turn_asks_is_one_write, make_line, remove_line),
		cmocka_unit_test_setup_teardown(test_what_an_answer_asks_leaves_before_an_older_check, make_line, remove_line),
		cmocka_unit_test_setup_teardown(test_the_loop_does_not_sleep_on_what_is_asked, make_line, remove_line),
		cmocka_unit_test_setup_teardown(test_a_flush_is_at_once, make_line, remove_line),
		cmocka_unit_test_setup_teardown(test_a_connection_may_end_with_what_was_asked, make_line, remove_line),
		cmocka_unit_test_setup_teardown(test_what_the_socket_does_not_take_follows, make_line, remove_line),
		cmocka_unit_test_setup_teardown(test_a_connection_that_is_gone_is_told_from_the_loop, make_line, remove_line),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
