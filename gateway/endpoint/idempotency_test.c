#include "gateway/endpoint/idempotency.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>

static int key_of(const char *value, char out[SHA256_HEX + 1])
{
	struct http_fields fields = {0};
	assert_int_equal(http_fields_add(&fields, SLICE("idempotency-key"), slice_str(value)), 0);
	return idempotency_key(&fields, out);
}

static void test_keys(void **state UNUSED)
{
	static const char *const same[][2] = {
		{"abc", "abc"}, {"\"abc\"", "abc"}, {"  \"abc\" ", "abc"}, {"\"a b\"", "a b"}, {"\"a\\\"b\\\\\"", "\"a\\\"b\\\\\""},
		{"'x'", "'x'"},
	};
	static const char *const refused[] = {"", "\"\"", "\"", "a\"b", "\"a\"b\"", "\"a\\b\"", "\"a\\\"", "\x7f", "\xc3\xbc"};
	char a[SHA256_HEX + 1], b[SHA256_HEX + 1];
	for (size_t i = 0; i < ARRAY_LEN(same); i++) {
		assert_int_equal(key_of(same[i][0], a), 0);
		assert_int_equal(key_of(same[i][1], b), 0);
		assert_string_equal(a, b);
		assert_int_equal(strlen(a), SHA256_HEX);
	}
	for (size_t i = 0; i < ARRAY_LEN(refused); i++)
		if (key_of(refused[i], a) != -EINVAL)
			fail_msg("\"%s\" was taken", refused[i]);
	assert_int_equal(key_of("A", a), 0);
	assert_int_equal(key_of("a", b), 0);
	assert_string_not_equal(a, b);
}

static void test_lengths_and_lines(void **state UNUSED)
{
	char text[IDEMPOTENCY_KEY_MAX + 2], out[SHA256_HEX + 1];
	struct http_fields fields = {0};
	assert_int_equal(idempotency_key(&fields, out), 0);
	assert_string_equal(out, "");
	memset(text, 'k', sizeof text);
	text[IDEMPOTENCY_KEY_MAX] = '\0';
	assert_int_equal(key_of(text, out), 0);
	text[IDEMPOTENCY_KEY_MAX] = 'k';
	text[IDEMPOTENCY_KEY_MAX + 1] = '\0';
	assert_int_equal(key_of(text, out), -EINVAL);
	assert_int_equal(http_fields_add(&fields, SLICE("Idempotency-Key"), SLICE("a")), 0);
	assert_int_equal(http_fields_add(&fields, SLICE("Idempotency-Key"), SLICE("a")), 0);
	assert_int_equal(idempotency_key(&fields, out), -EINVAL);
}

static void fingerprint(const char *body, char out[SHA256_HEX + 1])
{
	struct json_failure failure;
	CLEANUP(json_decref_ptr) json_t *json = json_parse_reals(slice_str(body), 32, &failure);
	assert_non_null(json);
	assert_int_equal(idempotency_fingerprint(json, out), 0);
}

static void test_fingerprints(void **state UNUSED)
{
	char a[SHA256_HEX + 1], b[SHA256_HEX + 1];
	fingerprint("{\"command\":\"true\",\"timeout_seconds\":30,\"env\":{\"A\":\"1\",\"B\":\"2\"}}", a);
	fingerprint(" { \"env\": {\"B\":\"2\", \"A\":\"\\u0031\"}, \"timeout_seconds\": 3e1, \"command\": \"true\" }", b);
	assert_string_equal(a, b);
	fingerprint("{\"argv\":[\"a\",\"b\"]}", a);
	fingerprint("{\"argv\":[\"b\",\"a\"]}", b);
	assert_string_not_equal(a, b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_keys), cmocka_unit_test(test_lengths_and_lines),
					   cmocka_unit_test(test_fingerprints)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
