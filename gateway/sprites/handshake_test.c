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
	assert_string_equal(handshake.version, "v0.0.1-rc46");
}

static void test_versions(void **state UNUSED)
{
	static const struct {
		const char *line, *version;
	} lines[] = {
		{"sprite-version:dev\n", "dev"},
		{"Sprite-Version: 1.2.3+build.4", "1.2.3+build.4"},
		{"Sprite-Version:", ""},
		{"Sprite-Version: 1.0\x1b[2J", ""},
		{"Sprite-Version: 1 2", ""},
		{"Sprite-Version: 1234567890123456789012345678901", "1234567890123456789012345678901"},
		{"Sprite-Version: 12345678901234567890123456789012", ""},
	};
	for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
		(void)ANSWER(UPGRADE, "Sprite-Version: v0.0.1-rc31", lines[i].line);
		assert_true(handshake.from_agent);
		assert_string_equal(handshake.version, lines[i].version);
	}
	(void)ANSWER("HTTP/1.1 103 Early Hints", "Sprite-Version: v0.0.1-rc31", UPGRADE);
	assert_false(handshake.from_agent);
	assert_string_equal(handshake.version, "");
}

static void test_outdated_versions(void **state UNUSED)
{
	static const char *const outdated[] = {"v0.0.1-rc32", "0.0.1-rc32", "v0.0.1-rc1", "v0.0.1-rc0"};
	static const char *const others[] = {"v0.0.1-rc33", "0.0.1-rc46", "v0.0.1-rc100", "v0.0.1",
					     "v0.1.0",      "1.0.0",      "dev",          "",
					     "v",           "v0.0.1-rc",  "v0.0.1-rc3x",  "v0.0.1-rc99999999999999999999"};
	for (size_t i = 0; i < ARRAY_LEN(outdated); i++)
		assert_true(handshake_is_outdated(outdated[i]));
	for (size_t i = 0; i < ARRAY_LEN(others); i++)
		assert_false(handshake_is_outdated(others[i]));
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
		cmocka_unit_test(test_proper_answer),    cmocka_unit_test(test_versions),    cmocka_unit_test(test_outdated_versions),
		cmocka_unit_test(test_improper_answers), cmocka_unit_test(test_keys_differ),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
