#include "gateway/base/base64.h"
#include "gateway/base/clock.h"
#include "gateway/base/hmac.h"
#include "gateway/base/id.h"
#include "gateway/base/json_text.h"
#include "gateway/base/log.h"
#include "gateway/base/redact.h"
#include "gateway/base/secret.h"
#include "gateway/base/sha256.h"
#include "gateway/base/utf8.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void test_slices(void **state UNUSED)
{
	assert_true(slice_equal_nocase(SLICE("Content-Type"), SLICE("content-TYPE")));
	assert_false(slice_equal_nocase(SLICE("a"), SLICE("ab")));
	assert_true(slice_equal(slice_trim(SLICE(" \ta b\t ")), SLICE("a b")));
	struct slice rest = SLICE("a,,b"), part;
	static const char *const parts[] = {"a", "", "b"};
	for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
		assert_true(slice_next(&rest, ',', &part));
		assert_true(slice_equal(part, slice_str(parts[i])));
	}
	assert_false(slice_next(&rest, ',', &part));
}

static void test_numbers(void **state UNUSED)
{
	uint64_t value = 0;
	assert_int_equal(slice_to_u64(SLICE("18446744073709551615"), UINT64_MAX, &value), 0);
	assert_true(value == UINT64_MAX);
	assert_int_equal(slice_to_u64(SLICE("18446744073709551616"), UINT64_MAX, &value), -ERANGE);
	assert_int_equal(slice_to_u64(SLICE("11"), 10, &value), -ERANGE);
	static const char *const bad[] = {"", "+1", "-1", " 1", "1 ", "0x1", "1.0"};
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(slice_to_u64(slice_str(bad[i]), UINT64_MAX, &value), -EINVAL);
}

static void test_buf(void **state UNUSED)
{
	struct buf buf = BUF_MAX(10);
	assert_int_equal(buf_append(&buf, SLICE("0123456")), 0);
	assert_int_equal(buf_append(&buf, SLICE("789a")), -EMSGSIZE);
	assert_int_equal(buf.len, 7);
	buf_consume(&buf, 5);
	assert_int_equal(buf_printf(&buf, "%s", "789abcde"), 0);
	assert_true(slice_equal(buf_peek(&buf), SLICE("56789abcde")));
	assert_int_equal(buf_append_char(&buf, 'x'), -EMSGSIZE);
	assert_int_equal(buf.cap, 11); /* and not the next power of two */
	char *text = buf_take_string(&buf);
	assert_string_equal(text, "56789abcde");
	assert_int_equal(buf.len, 0);
	free(text);
}

static void test_buf_number(void **state UNUSED)
{
	CLEANUP(buf_deinit) struct buf buf = BUF_MAX(64);
	static const struct {
		uint64_t value;
		unsigned width;
		const char *text;
	} rows[] = {{0, 1, "0"}, {7, 3, "007"}, {1000, 3, "1000"}, {UINT64_MAX, 1, "18446744073709551615"}};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		assert_int_equal(buf_append_number(&buf, rows[i].value, rows[i].width), 0);
		assert_true(slice_equal(buf_peek(&buf), slice_str(rows[i].text)));
		buf_consume(&buf, buf.len);
	}
}

static void test_utf8(void **state UNUSED)
{
	static const struct {
		const char *text;
		size_t valid, tail;
	} rows[] = {
		{"", 0, 0},
		{"abc", 3, 0},
		{"\xc3\xbc", 2, 0},
		{"a\xc3", 1, 1},
		{"\xe2\x80", 0, 2},
		{"\xf0\x9f\x98", 0, 3},
		{"\xf0\x9f\x98\x80", 4, 0},
		{"\xc0\xaf", 0, 0},         /* overlong */
		{"\xed\xa0\x80", 0, 0},     /* surrogate */
		{"\xf4\x90\x80\x80", 0, 0}, /* above U+10FFFF */
		{"\x80", 0, 0},
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		assert_int_equal(utf8_valid_prefix(slice_str(rows[i].text)), rows[i].valid);
		assert_int_equal(utf8_unfinished_tail(slice_str(rows[i].text)), rows[i].tail);
	}
}

static void test_json_text(void **state UNUSED)
{
	struct buf out = BUF_MAX(256);
	assert_int_equal(json_text_string(&out, SLICE("a\"\\\n\x1f\x7f\xff\xc3\xbc")), 0);
	assert_true(slice_equal(buf_peek(&out), SLICE("\"a\\\"\\\\\\n\\u001f\\u007f\xef\xbf\xbd\xc3\xbc\"")));
	buf_deinit(&out);
}

static void test_json_text_len(void **state UNUSED)
{
	static const char all[] = "plain \"\\\n\r\t\001\033\177/ \303\244 \342\202\254 \360\237\230\200 \377 \303";
	for (size_t len = 0; len < sizeof all; len++) {
		CLEANUP(buf_deinit) struct buf buf = BUF_MAX(1024);
		assert_int_equal(json_text_string(&buf, slice_of(all, len)), 0);
		assert_int_equal(json_text_len(slice_of(all, len)), buf.len);
	}
}

static void test_base64(void **state UNUSED)
{
	static const struct {
		const char *plain, *text;
	} rows[] = {{"", ""}, {"f", "Zg=="}, {"fo", "Zm8="}, {"foo", "Zm9v"}, {"foobar", "Zm9vYmFy"}};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct buf out = BUF_MAX(64);
		assert_int_equal(base64_encode(&out, slice_str(rows[i].plain)), 0);
		assert_true(slice_equal(buf_peek(&out), slice_str(rows[i].text)));
		buf_deinit(&out);
		assert_int_equal(base64_decode(&out, slice_str(rows[i].text)), 0);
		assert_true(slice_equal(buf_peek(&out), slice_str(rows[i].plain)));
		buf_deinit(&out);
	}
	static const char *const bad[] = {"Zg", "Zg=", "Zh==", "Zg==\n", "Zm9=", "Z===", "====", "Zm 9", "Zm9v!"};
	for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
		struct buf out = BUF_MAX(64);
		assert_int_equal(base64_decode(&out, slice_str(bad[i])), -EINVAL);
		buf_deinit(&out);
	}
}

static void test_base64_is_whole_over_pieces(void **state UNUSED)
{
	size_t len = 200000;
	char *bytes = malloc(len);
	struct buf text = BUF_MAX(400000), back = BUF_MAX(400000);
	assert_int_equal(id_random(bytes, len), 0);
	assert_int_equal(base64_encode(&text, slice_of(bytes, len)), 0);
	assert_int_equal(text.len, (len + 2) / 3 * 4);
	assert_int_equal(base64_decode(&back, buf_peek(&text)), 0);
	assert_true(slice_equal(buf_peek(&back), slice_of(bytes, len)));
	buf_deinit(&text);
	buf_deinit(&back);
	free(bytes);
}

/* RFC 4231, test case 2 */
static void test_hmac(void **state UNUSED)
{
	unsigned char mac[HMAC_BYTES];
	char hex[2 * HMAC_BYTES + 1];
	assert_int_equal(hmac_sha256(SLICE("Jefe"), SLICE("what do ya want for nothing?"), mac), 0);
	hex_encode(mac, sizeof mac, hex);
	assert_string_equal(hex, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
}

static void test_ids(void **state UNUSED)
{
	char a[ID_UUID_LEN + 1], b[ID_UUID_LEN + 1], ulid[ID_ULID_LEN + 1], word[33];
	assert_int_equal(id_uuid7(a, 0x0193e3f01234), 0);
	assert_int_equal(id_uuid7(b, 0x0193e3f01234), 0);
	assert_memory_equal(a, "0193e3f0-1234-7", 15);
	assert_non_null(strchr("89ab", a[19]));
	assert_string_not_equal(a, b);
	assert_int_equal(id_ulid(ulid, 1469918176385), 0);
	assert_memory_equal(ulid, "01aryz6s41", 10); /* the example of the ULID specification, in lower case */
	assert_int_equal(id_base62(word, 32), 0);
	assert_int_equal(strlen(word), 32);
}

static void test_sha256(void **state UNUSED)
{
	/* The examples of FIPS 180-2. */
	static const char abc[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
	static const char longer[] = "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1";
	struct sha256 digest = {0};
	char hex[SHA256_HEX + 1];
	assert_int_equal(sha256_init(&digest), 0);
	assert_int_equal(sha256_feed(&digest, SLICE("a")), 0);
	assert_int_equal(sha256_hex(&digest, hex), 0);
	assert_int_equal(sha256_feed(&digest, SLICE("bc")), 0);
	assert_int_equal(sha256_hex(&digest, hex), 0);
	assert_string_equal(hex, abc);
	assert_int_equal(sha256_init(&digest), 0);
	assert_int_equal(sha256_feed(&digest, SLICE("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")), 0);
	assert_int_equal(sha256_hex(&digest, hex), 0);
	assert_string_equal(hex, longer);
	sha256_deinit(&digest);
}

static void test_secret(void **state UNUSED)
{
	struct secret secret;
	assert_int_equal(secret_init(&secret, SLICE("abc")), 0);
	assert_true(secret_equal(&secret, SLICE("abc")));
	assert_false(secret_equal(&secret, SLICE("abd")));
	assert_false(secret_equal(&secret, SLICE("ab")));
	secret_deinit(&secret);
	assert_null(secret.bytes);
}

#define KID    "0123456789abcdEF"
#define SECRET "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345678901"

static void test_tokens_in_text(void **state UNUSED)
{
	static const struct {
		const char *text, *secret;
	} cases[] = {
		{"/x/sgt_" KID "_" SECRET, SECRET},
		{"sgt_" KID "_" SECRET "/y", SECRET},
		{"/sgt_sgt_" KID "_" SECRET "~", SECRET},
		{"/SGT_" KID "_ABC", "ABC"},
		{"/sgt_" KID "_", ""},
		{"/sgt_short_" SECRET, ""},
		{"/sgt_" KID "x_" SECRET, ""},
		{"/sgt_" KID, ""},
		{"", ""},
		{"sgt", ""},
		{"_sgt_" KID "_" SECRET, SECRET},
		{"/a_b_sgt__sgt_" KID "_" SECRET, SECRET},
		{"sgt_", ""},
		{"___", ""},
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct slice found = redact_find(slice_str(cases[i].text));
		assert_true(slice_equal(found, slice_str(cases[i].secret)));
	}
}

static void test_clock(void **state UNUSED)
{
	char text[25];
	clock_format(1769855293366, text);
	assert_string_equal(text, "2026-01-31T10:28:13.366Z");
	clock_format(0, text);
	assert_string_equal(text, "1970-01-01T00:00:00.000Z");
}

/* What follows its time and level. */
static void assert_logged(const struct log_subject *subject, const char *want)
{
	char line[512];
	int ends[2], kept = dup(STDERR_FILENO);
	assert_int_equal(pipe(ends), 0);
	assert_int_equal(dup2(ends[1], STDERR_FILENO), STDERR_FILENO);
	log_write(LOG_LEVEL_INFO, subject, "it %s", "\"is\"");
	assert_int_equal(dup2(kept, STDERR_FILENO), STDERR_FILENO);
	ssize_t len = read(ends[0], line, sizeof line - 1);
	assert_true(len > 0);
	line[len] = '\0';
	assert_string_equal(strchr(line, 'Z'), want);
	close(kept);
	close(ends[0]);
	close(ends[1]);
}

static void test_log_subject(void **state UNUSED)
{
	static const struct log_subject nobody, whole = {.request_id = "r", .exec_id = "e", .trace_id = "t"}, page = {.request_id = "r"};
	static const char plain[] = "Z\",\"level\":\"info\",\"message\":\"it \\\"is\\\"\"}\n";
	assert_logged(NULL, plain);
	assert_logged(&nobody, plain);
	assert_logged(&page, "Z\",\"level\":\"info\",\"message\":\"it \\\"is\\\"\",\"request_id\":\"r\"}\n");
	assert_logged(&whole,
		      "Z\",\"level\":\"info\",\"message\":\"it \\\"is\\\"\",\"request_id\":\"r\",\"exec_id\":\"e\",\"trace_id\":\"t\"}\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_slices),        cmocka_unit_test(test_numbers), cmocka_unit_test(test_buf),
		cmocka_unit_test(test_buf_number),    cmocka_unit_test(test_utf8),    cmocka_unit_test(test_json_text),
		cmocka_unit_test(test_json_text_len), cmocka_unit_test(test_base64),  cmocka_unit_test(test_base64_is_whole_over_pieces),
		cmocka_unit_test(test_hmac),          cmocka_unit_test(test_ids),     cmocka_unit_test(test_sha256),
		cmocka_unit_test(test_secret),        cmocka_unit_test(test_clock),   cmocka_unit_test(test_tokens_in_text),
		cmocka_unit_test(test_log_subject),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
