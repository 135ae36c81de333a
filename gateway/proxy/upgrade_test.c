#include "gateway/proxy/upgrade.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define KEY "dGhlIHNhbXBsZSBub25jZQ=="

static bool asks(const char *method, unsigned minor, enum http_body_kind body, const char *const lines[])
{
	struct http_fields fields;
	http_fields_clear(&fields);
	for (size_t i = 0; lines[i]; i += 2)
		assert_int_equal(http_fields_add(&fields, slice_str(lines[i]), slice_str(lines[i + 1])), 0);
	struct http_head head = {.method = slice_str(method), .version_minor = minor, .body = body, .fields = &fields};
	return upgrade_is_asked(&head);
}

#define ASKS(...) asks("GET", 1, HTTP_BODY_NONE, (const char *const[]){__VA_ARGS__, NULL})

static void test_asked(void **state UNUSED)
{
	static const char *const usual[] = {"Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Key", KEY, NULL};
	assert_true(asks("GET", 1, HTTP_BODY_NONE, usual));
	assert_true(ASKS("upgrade", "WebSocket", "connection", "keep-alive", "Connection", "x, UPGRADE", "sec-websocket-key", KEY));
	assert_false(asks("GET", 0, HTTP_BODY_NONE, usual));
	assert_false(asks("POST", 1, HTTP_BODY_NONE, usual));
	assert_false(asks("HEAD", 1, HTTP_BODY_NONE, usual));
	assert_false(asks("GET", 1, HTTP_BODY_LENGTH, usual));
	assert_false(asks("GET", 1, HTTP_BODY_CHUNKED, usual));
	assert_false(ASKS("Connection", "keep-alive", "Upgrade", "websocket", "Sec-WebSocket-Key", KEY));
	assert_false(ASKS("Connection", "Upgrade", "Sec-WebSocket-Key", KEY));
	assert_false(ASKS("Connection", "Upgrade", "Upgrade", "h2c", "Sec-WebSocket-Key", KEY));
	assert_false(ASKS("Connection", "Upgrade", "Upgrade", "websocket, h2c", "Sec-WebSocket-Key", KEY));
	assert_false(ASKS("Connection", "Upgrade", "Upgrade", "websocket", "Upgrade", "websocket", "Sec-WebSocket-Key", KEY));
	assert_false(ASKS("Connection", "Upgrade", "Upgrade", "websocket"));
	assert_false(ASKS("Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Key", ""));
	assert_false(ASKS("Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Key", KEY "A"));
	assert_false(ASKS("Connection", "Upgrade", "Upgrade", "websocket", "Sec-WebSocket-Key", KEY, "Sec-WebSocket-Key", KEY));
}

static bool grants(const char *const lines[])
{
	struct http_fields fields;
	http_fields_clear(&fields);
	assert_int_equal(http_fields_add(&fields, SLICE("Sec-WebSocket-Key"), SLICE(KEY)), 0);
	struct http_head head = {.fields = &fields};
	static struct response_head answer;
	answer = (struct response_head){.status = 101};
	for (size_t i = 0; lines[i]; i += 2)
		answer.fields[answer.count++] = (struct response_field){slice_str(lines[i]), slice_str(lines[i + 1])};
	return upgrade_is_granted(&head, &answer);
}

#define GRANTS(...) grants((const char *const[]){__VA_ARGS__, NULL})

static void test_granted(void **state UNUSED)
{
	/* RFC 6455 section 1.3. */
	static const char accept[] = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
	assert_true(GRANTS("Upgrade", "websocket", "Connection", "Upgrade", "Sec-WebSocket-Accept", accept));
	assert_true(GRANTS("Set-Cookie", "a", "sec-websocket-accept", accept, "upgrade", "WebSocket"));
	assert_false(GRANTS("Upgrade", "h2c", "Sec-WebSocket-Accept", accept));
	assert_false(GRANTS("Upgrade", "websocket"));
	assert_false(GRANTS("Sec-WebSocket-Accept", accept));
	assert_false(GRANTS("Upgrade", "websocket", "Upgrade", "websocket", "Sec-WebSocket-Accept", accept));
	assert_false(GRANTS("Upgrade", "websocket", "Sec-WebSocket-Accept", accept, "Sec-WebSocket-Accept", accept));
	assert_false(GRANTS("Upgrade", "websocket", "Sec-WebSocket-Accept", "S3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
	assert_false(GRANTS("Upgrade", "websocket", "Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xO"));
	assert_false(GRANTS("Upgrade", "websocket", "Sec-WebSocket-Accept", ""));
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_asked), cmocka_unit_test(test_granted)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
