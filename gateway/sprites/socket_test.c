/* The real socket against a scripted peer on the same loop (127.0.0.1). Waits are for events; the few times are of timers under
 * test. */
#include "gateway/sprites/socket.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "gateway/sprites/test_peer.h"

#define SEEN_MAX ((size_t)8 << 20)

/* --- the socket --- */

static uv_loop_t loop;
static struct curl_driver *driver;
static struct secret token;
static struct socket *client;
static struct socket_options options;

static struct seen {
	int opened, refused, closed, drained, messages;
	struct socket_refusal refusal;
	char reason[256];
	struct buf bytes;
	bool close_when_opened, pause_at_message, close_at_message;
} seen;

static void on_open(void *ctx UNUSED)
{
	seen.opened++;
	if (seen.close_when_opened) {
		socket_close(client);
		client = NULL;
	}
}

static void on_refused(void *ctx UNUSED, const struct socket_refusal *refusal)
{
	seen.refused++;
	seen.refusal = *refusal;
	snprintf(seen.reason, sizeof seen.reason, "%s", refusal->reason);
}

static void on_message(void *ctx UNUSED, enum frame_message message, struct slice bytes, bool end)
{
	assert_int_equal(buf_append(&seen.bytes, bytes), 0);
	if (end && message == FRAME_MESSAGE_TEXT)
		assert_int_equal(buf_append_char(&seen.bytes, '\n'), 0);
	seen.messages += end;
	if (seen.pause_at_message)
		socket_pause(client);
	if (seen.close_at_message) {
		socket_close(client);
		client = NULL;
	}
}

static void on_drained(void *ctx UNUSED)
{
	seen.drained++;
}

static void on_closed(void *ctx UNUSED, const char *reason)
{
	seen.closed++;
	snprintf(seen.reason, sizeof seen.reason, "%s", reason);
}

static const struct socket_events events = {
	.on_open = on_open,
	.on_refused = on_refused,
	.on_message = on_message,
	.on_drained = on_drained,
	.on_closed = on_closed,
};

static int set_up(void **state UNUSED)
{
	seen = (struct seen){.bytes = BUF_MAX(SEEN_MAX)};
	assert_int_equal(uv_loop_init(&loop), 0);
	driver = curl_driver_new(&loop);
	assert_non_null(driver);
	assert_int_equal(secret_init(&token, SLICE("secret")), 0);
	peer_start(&loop);
	options = (struct socket_options){.loop = &loop,
					  .driver = driver,
					  .token = &token,
					  .connect_timeout_ms = 5000,
					  .handshake_timeout_ms = 5000,
					  .ping_interval_ms = 600000,
					  .dead_after_ms = 1800000,
					  .max_unsent = 1 << 20};
	return 0;
}

static int tear_down(void **state UNUSED)
{
	socket_close(client);
	client = NULL;
	peer_stop();
	uv_run(&loop, UV_RUN_DEFAULT);
	curl_driver_free(driver);
	uv_run(&loop, UV_RUN_DEFAULT);
	/* Nothing is left open: every handle of the socket has gone. */
	assert_int_equal(uv_loop_close(&loop), 0);
	peer_free();
	buf_deinit(&seen.bytes);
	secret_deinit(&token);
	return 0;
}

static void open_socket(void)
{
	char url[64];
	snprintf(url, sizeof url, "ws://127.0.0.1:%d/v1/sprites/a/control", peer.port);
	assert_int_equal(socket_open(&options, url, &events, NULL, &client), 0);
	assert_int_equal(seen.opened + seen.refused, 0);
}

/* The turn after which nothing is left to wait for may be the one that makes it true. */
#define RUN_UNTIL(condition)                                                    \
	for (int alive_ = 1; !(condition); alive_ = uv_run(&loop, UV_RUN_ONCE)) \
	assert_int_not_equal(alive_, 0)

static void open_whole(void)
{
	open_socket();
	RUN_UNTIL(seen.opened || seen.refused || seen.closed);
	assert_int_equal(seen.opened, 1);
}

/* --- opening --- */

static void test_frames_in_the_segment_of_the_101(void **state UNUSED)
{
	char frames[3 * 299];
	for (size_t i = 0; i < sizeof frames; i += 3)
		memcpy(frames + i, "\x82\x01x", 3);
	peer.with_101 = slice_of(frames, sizeof frames);
	open_socket();
	RUN_UNTIL(seen.messages == 299);
	assert_int_equal(seen.opened, 1);
}

static void test_refusals(void **state UNUSED)
{
	peer.answer = "HTTP/1.1 503 Service Unavailable\r\nSprite-Version: dev\r\nRetry-After: 7\r\nContent-Length: "
		      "0\r\n\r\n";
	open_socket();
	RUN_UNTIL(seen.refused);
	assert_int_equal(seen.refusal.status, 503);
	assert_int_equal(seen.refusal.retry_after_ms, 7000);
	assert_true(seen.refusal.request_sent);
	assert_true(seen.refusal.from_agent);
	assert_non_null(strstr(seen.reason, "503"));
	assert_int_equal(socket_send(client, FRAME_MESSAGE_TEXT, SLICE("x"), SLICE("")), SOCKET_E_CLOSED);
}

static void test_not_a_websocket(void **state UNUSED)
{
	peer.answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
		      "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
	open_socket();
	RUN_UNTIL(seen.refused || seen.opened);
	assert_int_equal(seen.opened, 0);
	assert_int_equal(seen.refusal.status, 0);
	assert_true(seen.refusal.request_sent);
	assert_non_null(strstr(seen.reason, "Accept"));
}

static void test_ordinary_answer(void **state UNUSED)
{
	peer.answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
	open_socket();
	RUN_UNTIL(seen.refused || seen.opened);
	assert_int_equal(seen.opened, 0);
	assert_int_equal(seen.refusal.status, 200);
}

static void test_nobody_listens(void **state UNUSED)
{
	close_peer(&peer.listener);
	uv_run(&loop, UV_RUN_NOWAIT);
	open_socket();
	RUN_UNTIL(seen.refused);
	assert_int_equal(seen.refusal.status, 0);
	assert_false(seen.refusal.request_sent);
}

static void test_silent_handshake(void **state UNUSED)
{
	peer.answer = "";
	options.handshake_timeout_ms = 30;
	open_socket();
	RUN_UNTIL(seen.refused);
	assert_int_equal(seen.refusal.status, 0);
	assert_true(seen.refusal.request_sent);
}

static void test_close_while_opening(void **state UNUSED)
{
	peer.answer = "";
	open_socket();
	RUN_UNTIL(peer.answered);
	socket_close(client);
	client = NULL;
	RUN_UNTIL(peer_has("eof"));
	assert_int_equal(seen.opened + seen.refused + seen.closed, 0);
}

static void test_close_in_on_open(void **state UNUSED)
{
	peer.with_101 = SLICE("\x82\x01x");
	seen.close_when_opened = true;
	open_whole();
	RUN_UNTIL(peer_has("eof"));
	assert_true(peer_has("8:\x03\xe8\n"));
	assert_int_equal(seen.messages + seen.closed, 0);
}

/* --- the end --- */

static void test_close_code_and_reason(void **state UNUSED)
{
	open_whole();
	peer_frame(0x88, SLICE("\x03\xf3the sandbox is gone"));
	RUN_UNTIL(seen.closed);
	assert_string_equal(seen.reason, "the server closed the connection: 1011 the sandbox is gone");
	RUN_UNTIL(peer_has("eof"));
	assert_true(peer_has("8:\x03\xf3the sandbox is gone\n"));
}

static void test_close_without_a_code(void **state UNUSED)
{
	open_whole();
	peer_frame(0x88, SLICE(""));
	RUN_UNTIL(seen.closed);
	assert_non_null(strstr(seen.reason, "without a close code"));
}

static void test_connection_ends(void **state UNUSED)
{
	open_whole();
	peer_frame(0x82, SLICE("\001last words"));
	close_peer(peer.connection);
	RUN_UNTIL(seen.closed);
	assert_true(slice_equal(buf_peek(&seen.bytes), SLICE("\001last words")));
	assert_non_null(strstr(seen.reason, "without a close frame"));
}

static void test_broken_framing(void **state UNUSED)
{
	open_whole();
	peer_frame(0xf2, SLICE("x"));
	RUN_UNTIL(seen.closed);
	assert_int_equal(seen.messages, 0);
}

/* What came before the end is read, though sending has failed already. */
static void test_last_words_after_a_failed_send(void **state UNUSED)
{
	static char block[1 << 19];
	peer.deaf = true;
	open_whole();
	assert_int_equal(socket_send(client, FRAME_MESSAGE_BINARY, slice_of(block, sizeof block), SLICE("")), 0);
	peer_frame(0x82, SLICE("\003\007"));
	uv_run(&loop, UV_RUN_NOWAIT);
	assert_int_equal(uv_tcp_close_reset(peer.connection, NULL), 0);
	while (!seen.closed) {
		(void)!socket_send(client, FRAME_MESSAGE_BINARY, slice_of(block, sizeof block), SLICE(""));
		assert_true(uv_run(&loop, UV_RUN_ONCE) != 0);
	}
	assert_true(slice_equal(buf_peek(&seen.bytes), SLICE("\003\007")));
}

static void test_close_in_on_message(void **state UNUSED)
{
	seen.close_at_message = true;
	open_whole();
	peer_frame(0x82, SLICE("a"));
	peer_frame(0x82, SLICE("b"));
	RUN_UNTIL(peer_has("eof"));
	assert_int_equal(seen.messages, 1);
	assert_int_equal(seen.closed, 0);
}

/* --- messages --- */

static void test_sending(void **state UNUSED)
{
	open_whole();
	assert_int_equal(socket_send(client, FRAME_MESSAGE_TEXT, SLICE("{}"), SLICE("")), 0);
	assert_int_equal(socket_send(client, FRAME_MESSAGE_BINARY, SLICE("0"), SLICE("abc")), 0);
	assert_int_equal(seen.drained, 0);
	assert_int_equal(socket_queued(client), 2);
	assert_int_equal(socket_handed(client), 2);
	RUN_UNTIL(peer_has("1:{}\n2:0abc\n"));
	RUN_UNTIL(seen.drained);
	assert_int_equal(socket_unsent(client), 0);
}

static void test_fragments_and_a_ping_between(void **state UNUSED)
{
	open_whole();
	peer_frame(0x01, SLICE("one "));
	peer_frame(0x89, SLICE("p"));
	peer_frame(0x00, SLICE(""));
	peer_frame(0x80, SLICE("two"));
	peer_frame(0x81, SLICE(""));
	RUN_UNTIL(seen.messages == 2);
	assert_true(slice_equal(buf_peek(&seen.bytes), SLICE("one two\n\n")));
	RUN_UNTIL(peer_has("a:p\n"));
}

static void test_large_message(void **state UNUSED)
{
	static char block[3000000];
	open_whole();
	memset(block, 'z', sizeof block);
	peer_frame(0x82, slice_of(block, sizeof block));
	RUN_UNTIL(seen.messages);
	assert_int_equal(seen.bytes.len, sizeof block);
}

/* Until the network takes no more for good, so that a message is half out. How many were queued. */
static int fill_the_network(struct slice message)
{
	int sent = 0;
	for (int idle = 0; idle < 20; idle++) {
		int r;
		while ((r = socket_send(client, FRAME_MESSAGE_BINARY, message, SLICE(""))) == 0) {
			sent++;
			idle = 0;
		}
		assert_int_equal(r, SOCKET_E_FULL);
		uv_run(&loop, UV_RUN_NOWAIT);
	}
	return sent;
}

static void test_ping_while_a_message_is_half_out(void **state UNUSED)
{
	static char block[1 << 19];
	peer.deaf = true;
	open_whole();
	int sent = fill_the_network(slice_of(block, sizeof block));
	peer_frame(0x89, SLICE("hello"));
	peer_frame(0x82, SLICE("x"));
	RUN_UNTIL(seen.messages);
	assert_int_equal(uv_read_start((uv_stream_t *)peer.connection, on_allocate, on_peer_read), 0);
	RUN_UNTIL(peer_has("a:hello\n"));
	RUN_UNTIL(seen.drained);
	/* The pong went out behind whichever message was half out: none was broken, none is missing. */
	char message[32];
	snprintf(message, sizeof message, "2:#%zu\n", sizeof block);
	RUN_UNTIL(peer_count(message) == (size_t)sent);
	assert_int_equal(seen.closed, 0);
}

static void test_unsent_is_bounded_and_can_be_dropped(void **state UNUSED)
{
	static char block[1 << 19];
	peer.deaf = true;
	open_whole();
	fill_the_network(slice_of(block, sizeof block));
	assert_true(socket_unsent(client) <= options.max_unsent);
	assert_true(socket_handed(client) < socket_queued(client));
	socket_drop_unsent(client);
	assert_true(socket_unsent(client) <= sizeof block);
	assert_int_equal(socket_send(client, FRAME_MESSAGE_TEXT, SLICE("after"), SLICE("")), 0);
	assert_int_equal(uv_read_start((uv_stream_t *)peer.connection, on_allocate, on_peer_read), 0);
	RUN_UNTIL(peer_has("1:after\n"));
}

static void test_pause(void **state UNUSED)
{
	static char block[1 << 20];
	open_whole();
	seen.pause_at_message = true;
	/* In one segment: the second one is in libcurl already, where nothing shows it. */
	peer_send(SLICE("\x82\x01"
			"a\x82\x01"
			"b"));
	RUN_UNTIL(seen.messages == 1);
	for (int i = 0; i < 50; i++)
		uv_run(&loop, UV_RUN_NOWAIT);
	assert_int_equal(seen.messages, 1);
	socket_resume(client);
	assert_int_equal(seen.messages, 1);
	RUN_UNTIL(seen.messages == 2);
	peer_frame(0x82, slice_of(block, sizeof block));
	for (int i = 0; i < 50; i++)
		uv_run(&loop, UV_RUN_NOWAIT);
	assert_int_equal(seen.bytes.len, 2);
	seen.pause_at_message = false;
	socket_resume(client);
	RUN_UNTIL(seen.messages == 3);
	assert_int_equal(seen.bytes.len, sizeof block + 2);
}

/* --- the heartbeat --- */

static void test_silent_peer_is_dead(void **state UNUSED)
{
	peer.answers_pings = false;
	options.ping_interval_ms = 10;
	options.dead_after_ms = 300;
	open_whole();
	RUN_UNTIL(seen.closed);
	assert_non_null(strstr(seen.reason, "nothing was heard"));
	assert_true(peer_has("9:\n9:\n"));
}

static void test_answering_peer_lives(void **state UNUSED)
{
	options.ping_interval_ms = 5;
	options.dead_after_ms = 500;
	open_whole();
	RUN_UNTIL(peer_has("9:\n9:\n9:\n9:\n9:\n9:\n9:\n9:\n9:\n9:\n"));
	assert_int_equal(seen.closed, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(test_frames_in_the_segment_of_the_101),
		TEST(test_refusals),
		TEST(test_not_a_websocket),
		TEST(test_ordinary_answer),
		TEST(test_nobody_listens),
		TEST(test_silent_handshake),
		TEST(test_close_while_opening),
		TEST(test_close_in_on_open),
		TEST(test_close_code_and_reason),
		TEST(test_close_without_a_code),
		TEST(test_connection_ends),
		TEST(test_broken_framing),
		TEST(test_last_words_after_a_failed_send),
		TEST(test_close_in_on_message),
		TEST(test_sending),
		TEST(test_fragments_and_a_ping_between),
		TEST(test_large_message),
		TEST(test_ping_while_a_message_is_half_out),
		TEST(test_unsent_is_bounded_and_can_be_dropped),
		TEST(test_pause),
		TEST(test_silent_peer_is_dead),
		TEST(test_answering_peer_lives),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
