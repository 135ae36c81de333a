#include "gateway/sprites/handshake.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* RFC 6455 section 1.3. */
#define KEY    "dGhlIHNhbXBsZSBub25jZQ=="
#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

static struct handshake handshake;

static const char *answer(const char *const *lines)
{
	assert_int_equal(handshake_init_key(&handshake, KEY), 0);
	for (; *lines; lines++)
		handshake_header(&handshake, slice_str(*lines));
	return handshake_check(&handshake);
}

#define ANSWER(...) answer((const char *const[]){__VA_ARGS__, NULL})
#define UPGRADE     "HTTP/1.1 101 Switching Protocols\r\n", "Upgrade: WebSocket\r\n", "connection: keep-alive, UPGRADE\r\n"

static void test_proper_answer(void **state UNUSED)
{
	assert_null(ANSWER(UPGRADE, "Sec-WebSocket-Accept: " ACCEPT "\r\n", "\r\n"));
	assert_string_equal(handshake.accept, ACCEPT);
	assert_false(handshake.from_agent);
	assert_null(ANSWER(UPGRADE, "SEC-WEBSOCKET-ACCEPT:" ACCEPT "  \r\n", "Sprite-Version: v0.0.1-rc46\r\n"));
	assert_true(handshake.from_agent);
}

static void test_improper_answers(void **state UNUSED)
{
	assert_non_null(ANSWER("HTTP/1.1 101 x\r\n"));
	assert_non_null(ANSWER(UPGRADE));
	assert_non_null(ANSWER(UPGRADE, "Sec-WebSocket-Accept: " KEY));
	assert_non_null(ANSWER(UPGRADE, "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOO="));
	assert_non_null(ANSWER("Upgrade: websocket", "Sec-WebSocket-Accept: " ACCEPT));
	assert_non_null(ANSWER("Connection: upgrade", "Sec-WebSocket-Accept: " ACCEPT));
	assert_non_null(ANSWER("Upgrade: h2c", "Connection: upgrade", "Sec-WebSocket-Accept: " ACCEPT));
	assert_non_null(ANSWER(UPGRADE, "Sec-WebSocket-Accept: " ACCEPT, "Sec-WebSocket-Extensions: permessage-deflate"));
	assert_non_null(ANSWER(UPGRADE, "Sec-WebSocket-Accept: " ACCEPT, "Sec-WebSocket-Protocol: x"));
	/* Of an answer before the final one (103, for instance) nothing counts. */
	assert_non_null(ANSWER("HTTP/1.1 103 Early Hints", "Sec-WebSocket-Accept: " ACCEPT, UPGRADE));
	assert_non_null(ANSWER(UPGRADE, "Sec-WebSocket-Accept: " ACCEPT, "Sec-WebSocket-Accept: x"));
}

static void test_keys_differ(void **state UNUSED)
{
	struct handshake other;
	assert_int_equal(handshake_init(&handshake), 0);
	assert_int_equal(handshake_init(&other), 0);
	assert_int_equal(strlen(handshake.key), HANDSHAKE_KEY_LEN);
	assert_int_equal(strlen(handshake.accept), HANDSHAKE_ACCEPT_LEN);
	assert_string_not_equal(handshake.key, other.key);
	assert_string_not_equal(handshake.accept, other.accept);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_proper_answer),
		cmocka_unit_test(test_improper_answers),
		cmocka_unit_test(test_keys_differ),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
