#include "gateway/http/headers.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void test_tokens(void **state UNUSED)
{
	assert_true(http_is_token(SLICE("Content-Type")));
	assert_true(http_is_token(SLICE("!#$%&'*+-.^_`|~09azAZ")));
	assert_false(http_is_token(SLICE("")));
	for (int c = 0; c < 256; c++) {
		char byte = (char)c;
		bool word = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
		bool sign = c && c < 0x80 && strchr("!#$%&'*+-.^_`|~", c);
		assert_int_equal(http_is_token(slice_of(&byte, 1)), word || sign);
	}
}

static void test_values(void **state UNUSED)
{
	assert_true(http_is_value(SLICE("")));
	for (int c = 0; c < 256; c++) {
		char byte = (char)c;
		assert_int_equal(http_is_value(slice_of(&byte, 1)), c == '\t' || (c >= 0x20 && c != 0x7f));
	}
}

/* Every byte at every place of values of every length up to three words, among bytes that are near the bounds. */
static void test_values_by_words(void **state UNUSED)
{
	static const char around[] = {' ', '~', '\t', '\x80', '\xff'};
	char text[25];
	for (size_t kind = 0; kind < sizeof around; kind++)
		for (size_t len = 1; len < sizeof text; len++)
			for (size_t at = 0; at < len; at++)
				for (int c = 0; c < 256; c++) {
					memset(text, '\0', sizeof text);
					memset(text, around[kind], len);
					text[at] = (char)c;
					assert_int_equal(http_is_value(slice_of(text, len)), c == '\t' || (c >= 0x20 && c != 0x7f));
				}
}

static void test_lists(void **state UNUSED)
{
	assert_true(http_list_has(SLICE("close, X-A"), SLICE("x-a")));
	assert_true(http_list_has(SLICE(" , ,close"), SLICE("close")));
	assert_false(http_list_has(SLICE("close, X-AB"), SLICE("x-a")));
	assert_false(http_list_has(SLICE(""), SLICE("x")));
}

static void test_fields(void **state UNUSED)
{
	struct http_fields fields;
	http_fields_clear(&fields);
	for (int i = 0; i < HTTP_FIELDS_MAX; i++)
		assert_int_equal(http_fields_add(&fields, i % 2 ? SLICE("Odd") : SLICE("even"), i ? SLICE("x") : SLICE("first")), 0);
	assert_int_equal(http_fields_add(&fields, SLICE("a"), SLICE("b")), HTTP_FIELDS_E_FULL);
	assert_int_equal(http_fields_count(&fields, SLICE("ODD")), HTTP_FIELDS_MAX / 2);
	assert_true(slice_equal(http_fields_value(&fields, SLICE("Even")), SLICE("first")));
	assert_null(http_fields_value(&fields, SLICE("none")).data);
	assert_null(http_fields_find(&fields, SLICE("eve")));
}

static void test_known(void **state UNUSED)
{
	static const struct {
		const char *name;
		enum http_known_id id;
		unsigned flags;
	} cases[] = {
		{"VIA", HTTP_VIA, HTTP_PROTECTED},
		{"date", HTTP_DATE, 0},
		{"Host", HTTP_HOST, HTTP_PROTECTED | HTTP_SINGLE},
		{"CONNECTION", HTTP_CONNECTION, HTTP_HOP},
		{"te", HTTP_OTHER, HTTP_HOP},
		{"Transfer-Encoding", HTTP_TRANSFER_ENCODING, HTTP_HOP | HTTP_SINGLE},
		{"Proxy-Authorization", HTTP_OTHER, HTTP_HOP},
		{"http2-settings", HTTP_OTHER, HTTP_HOP},
		{"X-Datasette-Authorization", HTTP_OTHER, HTTP_DROP_REQUEST},
		{"Proxy", HTTP_OTHER, HTTP_DROP_REQUEST},
		{"Cookie", HTTP_COOKIE, HTTP_PROTECTED},
		{"Expect", HTTP_EXPECT, HTTP_DROP_REQUEST},
		{"Alt-Svc", HTTP_OTHER, HTTP_DROP_RESPONSE},
		{"Trailer", HTTP_OTHER, HTTP_HOP},
		{"Upgrade", HTTP_OTHER, HTTP_HOP},
		{"Forwarded", HTTP_FORWARDED, HTTP_IDENTITY | HTTP_PROTECTED},
		{"X-Real-IP", HTTP_OTHER, HTTP_IDENTITY | HTTP_PROTECTED},
		{"Keep-Alive", HTTP_OTHER, HTTP_HOP},
		{"Content-Type", HTTP_CONTENT_TYPE, 0},
		{"Max-Forwards", HTTP_MAX_FORWARDS, HTTP_SINGLE},
		{"X-Request-Id", HTTP_OTHER, HTTP_DROP_REQUEST | HTTP_DROP_RESPONSE},
		{"Authorization", HTTP_AUTHORIZATION, HTTP_PROTECTED},
		{"Cache-Control", HTTP_OTHER, HTTP_PROTECTED},
		{"Fly-Client-IP", HTTP_FLY_CLIENT_IP, HTTP_IDENTITY | HTTP_PROTECTED},
		{"Content-Length", HTTP_CONTENT_LENGTH, HTTP_HOP | HTTP_PROTECTED | HTTP_SINGLE},
		{"X-Forwarded-For", HTTP_X_FORWARDED_FOR, HTTP_IDENTITY | HTTP_PROTECTED},
		{"Proxy-Connection", HTTP_OTHER, HTTP_HOP},
		{"X-Forwarded-Proto", HTTP_X_FORWARDED_PROTO, HTTP_IDENTITY | HTTP_PROTECTED},
		{"Proxy-Authenticate", HTTP_OTHER, HTTP_HOP},
		{"X-Forwarded-Anything", HTTP_OTHER, HTTP_IDENTITY | HTTP_PROTECTED},
		{"Fly-Replay-Cache", HTTP_OTHER, HTTP_DROP_REQUEST | HTTP_DROP_RESPONSE | HTTP_PROTECTED},
		{"fly-prefer-region", HTTP_OTHER, HTTP_DROP_REQUEST | HTTP_PROTECTED},
		{"Fly-Region", HTTP_OTHER, HTTP_IDENTITY | HTTP_PROTECTED},
		{"Accept", HTTP_OTHER, 0},
		{"X-Custom", HTTP_OTHER, 0},
		{"X-Datasette-Authorizations", HTTP_OTHER, 0},
		{"f", HTTP_OTHER, 0},
		{"", HTTP_OTHER, 0},
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		const struct http_known *known = http_known_find(slice_str(cases[i].name));
		assert_int_equal(known->id, cases[i].id);
		assert_int_equal(known->flags, cases[i].flags);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tokens), cmocka_unit_test(test_values), cmocka_unit_test(test_values_by_words),
		cmocka_unit_test(test_lists),  cmocka_unit_test(test_fields), cmocka_unit_test(test_known),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
