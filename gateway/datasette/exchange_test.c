#include "gateway/datasette/exchange.h"

#include "gateway/base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define OK       "HTTP/1.1 200 OK\r\n"
#define PATIENCE 60000000 /* µs; reached only when a test fails */

/* A Datasette that the test plays itself, on a Unix socket in the same thread. */
struct world {
	uv_loop_t loop;
	struct curl_driver *driver;
	struct connection_pool *connections;
	struct exchange_pool *exchanges;
	char folder[32], path[64], url[80];
	int listener;
};

/* What one exchange became. */
struct user {
	struct exchange *exchange;
	unsigned status;
	char body[4096];
	size_t len, room;
	bool ended, failed;
	enum exchange_error error;
	size_t upload_left; /* written as room allows, then the end */
	unsigned more;      /* how often on_more was called */
};

static void on_head(void *ctx, const struct response_head *head)
{
	((struct user *)ctx)->status = head->status;
}

static size_t on_room(void *ctx)
{
	return ((struct user *)ctx)->room;
}

static void on_body(void *ctx, struct slice bytes)
{
	struct user *user = ctx;
	assert_true(bytes.len <= user->room);
	assert_true(user->len + bytes.len <= sizeof user->body);
	memcpy(user->body + user->len, bytes.data, bytes.len);
	user->len += bytes.len;
}

static void upload(struct user *user)
{
	static const char zeros[256 * 1024];
	while (user->upload_left) {
		size_t n = user->upload_left < sizeof zeros ? user->upload_left : sizeof zeros;
		size_t taken = exchange_write(user->exchange, slice_of(zeros, n));
		user->upload_left -= taken;
		if (taken < n)
			return;
	}
	exchange_end(user->exchange);
}

static void on_more(void *ctx)
{
	((struct user *)ctx)->more++;
}

static void on_writable(void *ctx)
{
	upload(ctx);
}

static void on_end(void *ctx)
{
	struct user *user = ctx;
	assert_false(user->ended || user->failed);
	user->ended = true;
}

static void on_failed(void *ctx, const struct exchange_failure *failure)
{
	struct user *user = ctx;
	assert_false(user->ended || user->failed);
	assert_non_null(failure->detail);
	user->failed = true;
	user->error = failure->error;
}

static const struct exchange_events events = {
	.on_head = on_head,
	.on_room = on_room,
	.on_body = on_body,
	.on_more = on_more,
	.on_writable = on_writable,
	.on_end = on_end,
	.on_failed = on_failed,
};

static void turn(struct world *world)
{
	uv_run(&world->loop, UV_RUN_NOWAIT);
}

/* Turns the loop until `done`, or fails the test. */
#define UNTIL(world, done)                                              \
	do {                                                            \
		uint64_t end_ = clock_mono_us() + PATIENCE;             \
		while (!(done)) {                                       \
			turn(world);                                    \
			if (clock_mono_us() > end_)                     \
				fail_msg("not within 60 s: %s", #done); \
		}                                                       \
	} while (0)

static int listen_on(const char *path)
{
	struct sockaddr_un name = {.sun_family = AF_UNIX};
	strcpy(name.sun_path, path);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&name, sizeof name), 0);
	assert_int_equal(listen(fd, 16), 0);
	return fd;
}

static void open_world(struct world *world, unsigned max_connections, unsigned wait_ms)
{
	char error[CONNECTION_ERROR_LEN];
	struct connection_pool_options options;
	memset(world, 0, sizeof *world);
	strcpy(world->folder, "/tmp/exchange-XXXXXX");
	assert_non_null(mkdtemp(world->folder));
	snprintf(world->path, sizeof world->path, "%s/socket", world->folder);
	snprintf(world->url, sizeof world->url, "http+unix://%s", world->path);
	world->listener = listen_on(world->path);
	assert_int_equal(uv_loop_init(&world->loop), 0);
	world->driver = curl_driver_new(&world->loop);
	assert_non_null(world->driver);
	connection_pool_defaults(&options);
	options.driver = world->driver;
	options.loop = &world->loop;
	options.url = world->url;
	options.max_connections = max_connections;
	options.wait_ms = wait_ms;
	world->connections = connection_pool_new(&options, error);
	assert_non_null(world->connections);
	world->exchanges = exchange_pool_new(world->connections, &world->loop);
	assert_non_null(world->exchanges);
}

static void close_world(struct world *world)
{
	assert_int_equal(exchange_pool_active(world->exchanges), 0);
	exchange_pool_free(world->exchanges);
	connection_pool_free(world->connections);
	curl_driver_free(world->driver);
	uv_run(&world->loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&world->loop), 0);
	close(world->listener);
	unlink(world->path);
	rmdir(world->folder);
}

static int accept_one(struct world *world)
{
	int fd = -1;
	UNTIL(world, (fd = accept4(world->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0);
	return fd;
}

/* Reads until what came ends with `end`. */
static void hear(struct world *world, int fd, const char *end)
{
	char text[4096];
	size_t len = 0, want = strlen(end);
	do {
		ssize_t n = -1;
		UNTIL(world, (n = read(fd, text + len, sizeof text - 1 - len)) >= 0);
		assert_true(n > 0);
		len += (size_t)n;
	} while (len < want || memcmp(text + len - want, end, want) != 0);
}

static size_t swallow_all(struct world *world, int fd, const struct user *user, size_t wanted)
{
	static char sink[64 * 1024];
	size_t total = 0;
	uint64_t end = clock_mono_us() + PATIENCE;
	while (total < wanted && !user->failed && clock_mono_us() < end) {
		turn(world);
		ssize_t n = read(fd, sink, sizeof sink);
		total += n > 0 ? (size_t)n : 0;
	}
	return total;
}

static void say(int fd, const char *text)
{
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

/* An answer and the reset of its connection: both are there when the gateway looks. */
static void say_and_reset(struct world *world, const char *text)
{
	char byte;
	int fd = accept_one(world);
	UNTIL(world, recv(fd, &byte, 1, MSG_PEEK) == 1);
	say(fd, text);
	/* What was not read makes it a reset. */
	close(fd);
}

static bool hung_up(int fd)
{
	char byte;
	return read(fd, &byte, 1) == 0;
}

static void start(struct world *world, struct user *user, const char *method, enum exchange_body body, uint64_t length)
{
	char head[64];
	snprintf(head, sizeof head, "%s / HTTP/1.1\r\n", method);
	bool get = strcmp(method, "GET") == 0;
	struct exchange_request request = {.head = slice_str(head), .body = body, .length = length, .may_retry = get};
	*user = (struct user){.room = sizeof user->body};
	assert_int_equal(exchange_start(world->exchanges, &request, &events, user, &user->exchange), 0);
}

static void get(struct world *world, struct user *user)
{
	start(world, user, "GET", EXCHANGE_BODY_NONE, 0);
}

/* One whole exchange; gives the connection it used, which is idle now. */
static int warm_up(struct world *world)
{
	struct user user;
	get(world, &user);
	int fd = accept_one(world);
	hear(world, fd, "\r\n\r\n");
	say(fd, OK "Content-Length: 2\r\n\r\nhi");
	UNTIL(world, user.ended);
	assert_int_equal(user.status, 200);
	assert_memory_equal(user.body, "hi", 2);
	assert_int_equal(connection_pool_counts(world->connections).idle, 1);
	return fd;
}

static void test_a_connection_is_used_again(void **state UNUSED)
{
	struct world world;
	struct user user;
	open_world(&world, 4, 1000);
	int fd = warm_up(&world);
	get(&world, &user);
	hear(&world, fd, "\r\n\r\n");
	say(fd, OK "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n");
	UNTIL(&world, user.ended);
	assert_true(exchange_timing(user.exchange).reused);
	assert_int_equal(connection_pool_counts(world.connections).open, 1);
	close(fd);
	UNTIL(&world, connection_pool_counts(world.connections).open == 0);
	close_world(&world);
}

static void test_a_safe_request_is_sent_again_once(void **state UNUSED)
{
	struct world world;
	struct user user;
	open_world(&world, 4, 1000);
	int fd = warm_up(&world);
	get(&world, &user);
	hear(&world, fd, "\r\n\r\n");
	close(fd);
	fd = accept_one(&world);
	hear(&world, fd, "GET / HTTP/1.1\r\n\r\n");
	close(fd);
	UNTIL(&world, user.failed);
	assert_int_equal(user.error, EXCHANGE_CLOSED);
	assert_int_equal(connection_pool_counts(world.connections).open, 0);
	close_world(&world);
}

static void test_what_may_have_acted_is_not_sent_again(void **state UNUSED)
{
	struct world world;
	struct user user;
	open_world(&world, 4, 1000);
	int fd = warm_up(&world);
	start(&world, &user, "POST", EXCHANGE_BODY_LENGTH, 0);
	exchange_end(user.exchange);
	hear(&world, fd, "Content-Length: 0\r\n\r\n");
	close(fd);
	UNTIL(&world, user.failed);
	assert_int_equal(user.error, EXCHANGE_CLOSED);
	close_world(&world);
}

static void test_a_connection_that_died_idle_is_noticed(void **state UNUSED)
{
	struct world world;
	struct user user;
	open_world(&world, 4, 1000);
	close(warm_up(&world));
	/* Without a loop turn in between: only a look at the socket can tell. */
	start(&world, &user, "POST", EXCHANGE_BODY_LENGTH, 0);
	exchange_end(user.exchange);
	int fd = accept_one(&world);
	hear(&world, fd, "\r\n\r\n");
	say(fd, "HTTP/1.1 204 No Content\r\n\r\n");
	UNTIL(&world, user.ended);
	close(fd);
	close_world(&world);
}

static void test_a_reset_together_with_bytes_is_noticed(void **state UNUSED)
{
	static const char *const cuts[] = {"HTTP/1.1 20", OK "Content-Length: 5\r\n\r\nab",
					   OK "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"};
	struct world world;
	struct user user;
	open_world(&world, 4, 1000);
	for (size_t i = 0; i < ARRAY_LEN(cuts); i++) {
		get(&world, &user);
		say_and_reset(&world, cuts[i]);
		UNTIL(&world, user.failed);
		assert_int_equal(user.error, EXCHANGE_TRUNCATED);
	}
	/* An answer is whole without its connection, which is of no use any more. */
	get(&world, &user);
	say_and_reset(&world, OK "Content-Length: 2\r\n\r\nhi");
	UNTIL(&world, user.ended);
	assert_int_equal(connection_pool_counts(world.connections).open, 0);
	close_world(&world);
}

static void test_a_cut_is_a_failure(void **state UNUSED)
{
	static const struct {
		const char *text;
		enum exchange_error error;
	} cuts[] = {
		{"", EXCHANGE_CLOSED},
		{"HTTP/1.1 20", EXCHANGE_TRUNCATED},
		{OK "Content-Length: 5\r\n\r\nab", EXCHANGE_TRUNCATED},
		{OK "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", EXCHANGE_TRUNCATED},
		{OK "Content-Length: 1\r\nContent-Length: 1\r\n\r\na", EXCHANGE_PROTOCOL},
	};
	for (size_t i = 0; i < ARRAY_LEN(cuts); i++) {
		struct world world;
		struct user user;
		open_world(&world, 4, 1000);
		get(&world, &user);
		int fd = accept_one(&world);
		hear(&world, fd, "\r\n\r\n");
		say(fd, cuts[i].text);
		close(fd);
		UNTIL(&world, user.failed);
		assert_int_equal(user.error, cuts[i].error);
		assert_int_equal(connection_pool_counts(world.connections).open, 0);
		close_world(&world);
	}
}

static void test_bytes_nobody_asked_for_end_the_connection(void **state UNUSED)
{
	struct world world;
	struct user user;
	open_world(&world, 4, 1000);
	get(&world, &user);
	int fd = accept_one(&world);
	hear(&world, fd, "\r\n\r\n");
	say(fd, OK "Content-Length: 2\r\n\r\nhiHTTP/1.1 200 OK\r\n");
	UNTIL(&world, user.ended);
	assert_int_equal(connection_pool_counts(world.connections).open, 0);
	close(fd);
	fd = warm_up(&world);
	say(fd, "junk");
	UNTIL(&world, connection_pool_counts(world.connections).open == 0);
	close(fd);
	close_world(&world);
}

static void test_no_room_holds_the_answer_back(void **state UNUSED)
{
	struct world world;
	struct user user;
	open_world(&world, 4, 1000);
	get(&world, &user);
	user.room = 40;
	int fd = accept_one(&world);
	hear(&world, fd, "\r\n\r\n");
	say(fd, OK "Content-Length: 8\r\n\r\n");
	UNTIL(&world, user.status);
	user.room = 0;
	say(fd, "abcdefgh");
	for (int i = 0; i < 100; i++)
		turn(&world);
	assert_int_equal(user.len, 0);
	user.room = 3;
	exchange_resume(user.exchange);
	UNTIL(&world, user.ended);
	assert_memory_equal(user.body, "abcdefgh", 8);
	close(fd);
	close_world(&world);
}

static size_t pull(struct user *user, size_t room)
{
	assert_true(user->len + room <= sizeof user->body);
	size_t n = exchange_pull(user->exchange, user->body + user->len, room);
	assert_true(n <= room);
	user->len += n;
	return n;
}

/* The head and `bytes` have come, and nothing is left to pull. */
static int begin_pulling(struct world *world, struct user *user, const char *head, const char *bytes)
{
	get(world, user);
	int fd = accept_one(world);
	hear(world, fd, "\r\n\r\n");
	say(fd, head);
	UNTIL(world, user->status == 200);
	assert_int_equal(pull(user, 64), 0);
	say(fd, bytes);
	UNTIL(world, user->more == 1);
	return fd;
}

static void test_a_body_is_pulled(void **state UNUSED)
{
	struct world world;
	struct user user;
	open_world(&world, 4, 1000);
	int fd = begin_pulling(&world, &user, OK "Content-Length: 10\r\n\r\n", "hello");
	assert_int_equal(pull(&user, 64), 5);
	assert_int_equal(pull(&user, 64), 0);
	say(fd, "world");
	UNTIL(&world, user.more == 2);
	assert_int_equal(pull(&user, 64), 5);
	assert_true(user.ended);
	assert_memory_equal(user.body, "helloworld", 10);
	assert_int_equal(connection_pool_counts(world.connections).idle, 1);
	close(fd);
	close_world(&world);
}

static void test_chunks_are_pulled_without_their_frames(void **state UNUSED)
{
	struct world world;
	struct user user;
	open_world(&world, 4, 1000);
	int fd = begin_pulling(&world, &user, OK "Transfer-Encoding: chunked\r\n\r\n", "5\r\nhello\r\n5;x=y\r\nworld\r\n0\r\n\r\n");
	assert_int_equal(pull(&user, 64), 10);
	assert_true(user.ended);
	assert_memory_equal(user.body, "helloworld", 10);
	close(fd);
	close_world(&world);
}

static void test_who_has_not_pulled_everything_is_not_told_of_more(void **state UNUSED)
{
	struct world world;
	struct user user;
	open_world(&world, 4, 1000);
	int fd = begin_pulling(&world, &user, OK "Content-Length: 10\r\n\r\n", "hello");
	assert_int_equal(pull(&user, 4), 4);
	say(fd, "world");
	for (int i = 0; i < 20; i++)
		turn(&world);
	assert_int_equal(user.more, 1);
	assert_int_equal(user.len, 4);
	assert_int_equal(pull(&user, 4), 4);
	assert_int_equal(pull(&user, 4), 2);
	assert_true(user.ended);
	assert_memory_equal(user.body, "helloworld", 10);
	close(fd);
	close_world(&world);
}

static void test_a_cut_shows_when_pulling(void **state UNUSED)
{
	struct world world;
	struct user user;
	open_world(&world, 4, 1000);
	int fd = begin_pulling(&world, &user, OK "Content-Length: 10\r\n\r\n", "hello");
	close(fd);
	assert_int_equal(pull(&user, 64), 5);
	assert_int_equal(pull(&user, 64), 0);
	assert_true(user.failed && !user.ended);
	assert_int_equal(user.error, EXCHANGE_TRUNCATED);
	close_world(&world);
}

static void test_a_large_body_goes_out_whole(void **state UNUSED)
{
	static const struct {
		enum exchange_body body;
		size_t framing; /* bytes that come on top, at least */
	} kinds[] = {{EXCHANGE_BODY_LENGTH, 0}, {EXCHANGE_BODY_CHUNKED, 5}};
	const size_t size = 5000000;
	for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
		struct world world;
		struct user user;
		open_world(&world, 4, 1000);
		start(&world, &user, "POST", kinds[i].body, size);
		user.upload_left = size;
		upload(&user);
		assert_true(user.upload_left > 0);
		int fd = accept_one(&world);
		size_t total = swallow_all(&world, fd, &user, size + kinds[i].framing);
		assert_true(total >= size + kinds[i].framing);
		assert_int_equal(user.upload_left, 0);
		say(fd, OK "Content-Length: 0\r\n\r\n");
		UNTIL(&world, user.ended);
		close(fd);
		close_world(&world);
	}
}

static void test_a_body_of_the_wrong_length_is_a_failure(void **state UNUSED)
{
	struct world world;
	struct user user;
	open_world(&world, 4, 1000);
	start(&world, &user, "POST", EXCHANGE_BODY_LENGTH, 5);
	assert_int_equal(exchange_write(user.exchange, SLICE("abc")), 3);
	exchange_end(user.exchange);
	UNTIL(&world, user.failed);
	assert_int_equal(user.error, EXCHANGE_INTERNAL);
	start(&world, &user, "POST", EXCHANGE_BODY_LENGTH, 2);
	assert_int_equal(exchange_write(user.exchange, SLICE("abc")), 3);
	UNTIL(&world, user.failed);
	close_world(&world);
}

static void test_an_early_answer_ends_the_connection(void **state UNUSED)
{
	struct world world;
	struct user user;
	open_world(&world, 4, 1000);
	start(&world, &user, "POST", EXCHANGE_BODY_LENGTH, 100);
	assert_int_equal(exchange_write(user.exchange, SLICE("abc")), 3);
	int fd = accept_one(&world);
	hear(&world, fd, "abc");
	say(fd, "HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n");
	UNTIL(&world, user.ended);
	assert_int_equal(user.status, 413);
	UNTIL(&world, hung_up(fd));
	close(fd);
	close_world(&world);
}

static void test_who_waits_gets_the_next_connection(void **state UNUSED)
{
	struct world world;
	struct user first, second, third;
	open_world(&world, 1, 300);
	get(&world, &first);
	int fd = accept_one(&world);
	hear(&world, fd, "\r\n\r\n");
	get(&world, &second);
	get(&world, &third);
	assert_int_equal(connection_pool_counts(world.connections).waiting, 2);
	say(fd, OK "Content-Length: 0\r\n\r\n");
	hear(&world, fd, "\r\n\r\n");
	assert_true(first.ended);
	/* The third one has to wait for too long. */
	UNTIL(&world, third.failed);
	assert_int_equal(third.error, EXCHANGE_TIMEOUT);
	say(fd, OK "Content-Length: 0\r\n\r\n");
	UNTIL(&world, second.ended);
	close(fd);
	close_world(&world);
}

static void test_cancelled_at_every_stage(void **state UNUSED)
{
	struct world world;
	struct user user, waiting;
	open_world(&world, 1, 1000);
	get(&world, &user);
	get(&world, &waiting);
	exchange_cancel(waiting.exchange);
	exchange_cancel(user.exchange);
	UNTIL(&world, connection_pool_counts(world.connections).open == 0);
	static const char *const said[] = {"", "HTTP/1.1 2", OK "Content-Length: 5\r\n\r\nab"};
	for (size_t i = 0; i < ARRAY_LEN(said); i++) {
		get(&world, &user);
		int fd;
		/* The very first attempt was cancelled before it was accepted; its connection may be among these. */
		do {
			fd = accept_one(&world);
		} while (hung_up(fd) && close(fd) == 0);
		hear(&world, fd, "\r\n\r\n");
		say(fd, said[i]);
		for (int n = 0; n < 20; n++)
			turn(&world);
		exchange_cancel(user.exchange);
		UNTIL(&world, hung_up(fd));
		assert_false(user.ended || user.failed);
		close(fd);
	}
	assert_int_equal(connection_pool_counts(world.connections).open, 0);
	close_world(&world);
}

static void test_nobody_listens(void **state UNUSED)
{
	struct world world;
	struct user user;
	open_world(&world, 4, 1000);
	unlink(world.path);
	get(&world, &user);
	UNTIL(&world, user.failed);
	assert_int_equal(user.error, EXCHANGE_CONNECT);
	close_world(&world);
}

static void test_urls(void **state UNUSED)
{
	static const char *const good[] = {"http://127.0.0.1:8001", "http://[::1]:8001/", "https://datasette.internal", "unix:/run/d.sock",
					   "http+unix:///run/d.sock"};
	static const char *const bad[] = {
		"",           "127.0.0.1:8001", "ftp://h", "http://",       "http:///",    "http://h/path", "http://h?q", "http://u:p@h",
		"http://h#f", "http://a b",     "unix:",   "unix:relative", "http+unix://"};
	char error[CONNECTION_ERROR_LEN];
	struct connection_pool_options options;
	uv_loop_t loop;
	assert_int_equal(uv_loop_init(&loop), 0);
	connection_pool_defaults(&options);
	options.loop = &loop;
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		options.url = good[i];
		struct connection_pool *pool = connection_pool_new(&options, error);
		assert_non_null(pool);
		assert_true(connection_pool_authority(pool).len > 0);
		connection_pool_free(pool);
	}
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		options.url = bad[i];
		*error = '\0';
		assert_null(connection_pool_new(&options, error));
		assert_true(*error);
	}
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&loop), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_connection_is_used_again),
		cmocka_unit_test(test_a_safe_request_is_sent_again_once),
		cmocka_unit_test(test_what_may_have_acted_is_not_sent_again),
		cmocka_unit_test(test_a_connection_that_died_idle_is_noticed),
		cmocka_unit_test(test_a_reset_together_with_bytes_is_noticed),
		cmocka_unit_test(test_a_cut_is_a_failure),
		cmocka_unit_test(test_bytes_nobody_asked_for_end_the_connection),
		cmocka_unit_test(test_no_room_holds_the_answer_back),
		cmocka_unit_test(test_a_body_is_pulled),
		cmocka_unit_test(test_chunks_are_pulled_without_their_frames),
		cmocka_unit_test(test_who_has_not_pulled_everything_is_not_told_of_more),
		cmocka_unit_test(test_a_cut_shows_when_pulling),
		cmocka_unit_test(test_a_large_body_goes_out_whole),
		cmocka_unit_test(test_a_body_of_the_wrong_length_is_a_failure),
		cmocka_unit_test(test_an_early_answer_ends_the_connection),
		cmocka_unit_test(test_who_waits_gets_the_next_connection),
		cmocka_unit_test(test_cancelled_at_every_stage),
		cmocka_unit_test(test_nobody_listens),
		cmocka_unit_test(test_urls),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
