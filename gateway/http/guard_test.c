#include "gateway/http/guard.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

static const struct http_guard_limits limits = {.max_head = 32 * 1024};

/* `lines`: "Name: value" separated by '\n'. */
static void split(const char *lines, struct http_fields *fields)
{
	struct slice rest = slice_str(*lines ? lines : NULL), line;
	http_fields_clear(fields);
	while (slice_next(&rest, '\n', &line)) {
		const char *colon = memchr(line.data, ':', line.len);
		size_t name = colon ? (size_t)(colon - line.data) : line.len;
		assert_int_equal(http_fields_add(fields, slice_of(line.data, name), slice_trim(slice_from(line, name + 1))), 0);
	}
}

static struct http_fields fields;

static struct http_guard_verdict guard(const char *method, const char *target, const char *version, const char *lines)
{
	struct http_guard_verdict verdict;
	split(lines, &fields);
	struct http_guard_input input = {.method = slice_str(method),
					 .target = slice_str(target),
					 .version = slice_str(version),
					 .fields = &fields,
					 .fields_seen = fields.count};
	http_guard_check(&input, &limits, &verdict);
	return verdict;
}

static void refused(const char *method, const char *target, const char *version, const char *lines, unsigned status,
		    enum http_guard_reason reason)
{
	struct http_guard_verdict verdict = guard(method, target, version, lines);
	assert_int_equal(verdict.reason, reason);
	assert_int_equal(verdict.status, status);
	assert_non_null(verdict.code);
	assert_non_null(verdict.detail);
	assert_true(verdict.close);
}

static void accepted(const char *method, const char *target, const char *version, const char *lines)
{
	assert_int_equal(guard(method, target, version, lines).reason, HTTP_GUARD_OK);
}

static void test_accepted(void **state UNUSED)
{
	struct http_guard_verdict verdict = guard("POST", "/a?b", "HTTP/1.1", "Host: h:1\nContent-Length: 42\nExpect: 100-Continue");
	assert_int_equal(verdict.reason, HTTP_GUARD_OK);
	assert_int_equal(verdict.body, HTTP_BODY_LENGTH);
	assert_true(verdict.content_length == 42);
	assert_true(verdict.expect_continue);
	assert_int_equal(verdict.version_minor, 1);
	assert_true(slice_equal(verdict.host, SLICE("h:1")));
	assert_true(slice_equal(verdict.target.path, SLICE("/a")));
	assert_int_equal(guard("PUT", "/", "HTTP/1.1", "Host: h\nTransfer-Encoding: Chunked").body, HTTP_BODY_CHUNKED);
	assert_int_equal(guard("GET", "/", "HTTP/1.0", "").version_minor, 0);
	accepted("GET", "http://H/", "HTTP/1.1", "Host: h:80");
	accepted("OPTIONS", "*", "HTTP/1.1", "Host: h");
	accepted("FOO", "/", "HTTP/1.1", "Host: h");
	accepted("GET", "/", "HTTP/1.0", "Expect: anything");
	accepted("GET", "/", "HTTP/1.1", "Host: h\nConnection: keep-alive, X-Own, Upgrade\nConnection: close");
	accepted("GET", "/", "HTTP/1.1", "Host: h\nAccept: a\nAccept: b\nX-Empty:");
}

static void test_framing(void **state UNUSED)
{
	static const char *const bad[] = {
		"Host: h\nContent-Length: 3\nContent-Length: 3",
		"Host: h\nContent-Length: 3\nTransfer-Encoding: chunked",
		"Host: h\nTransfer-Encoding: chunked\nContent-Length: 3",
		"Host: h\nContent-Length: 3, 3",
		"Host: h\nContent-Length: +3",
		"Host: h\nContent-Length: -1",
		"Host: h\nContent-Length: 0x3",
		"Host: h\nContent-Length:",
		"Host: h\nContent-Length: 9223372036854775808",
		"Host: h\nTransfer-Encoding: chunked\nTransfer-Encoding: chunked",
	};
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		refused("POST", "/", "HTTP/1.1", bad[i], 400, HTTP_GUARD_FRAMING);
	refused("POST", "/", "HTTP/1.1", "Host: h\nTransfer-Encoding: gzip, chunked", 501, HTTP_GUARD_FRAMING);
	refused("POST", "/", "HTTP/1.1", "Host: h\nTransfer-Encoding: identity", 501, HTTP_GUARD_FRAMING);
	refused("POST", "/", "HTTP/1.0", "Transfer-Encoding: chunked", 400, HTTP_GUARD_FRAMING);
}

static void test_hosts_and_targets(void **state UNUSED)
{
	refused("GET", "/", "HTTP/1.1", "", 400, HTTP_GUARD_HOST);
	refused("GET", "/", "HTTP/1.1", "Host: a\nHost: a", 400, HTTP_GUARD_HOST);
	refused("GET", "/", "HTTP/1.1", "Host:", 400, HTTP_GUARD_HOST);
	refused("GET", "/", "HTTP/1.1", "Host: u@h", 400, HTTP_GUARD_HOST);
	refused("GET", "/", "HTTP/1.0", "Host: a\nHost: b", 400, HTTP_GUARD_HOST);
	refused("GET", "http://evil/", "HTTP/1.1", "Host: h", 400, HTTP_GUARD_TARGET);
	refused("GET", "http://h/", "HTTP/1.0", "", 400, HTTP_GUARD_TARGET);
	refused("GET", "h:80", "HTTP/1.1", "Host: h", 400, HTTP_GUARD_TARGET);
	refused("GET", "*", "HTTP/1.1", "Host: h", 400, HTTP_GUARD_TARGET);
	refused("GET", "/a#b", "HTTP/1.1", "Host: h", 400, HTTP_GUARD_TARGET);
	refused("POST", "/-/agent/%65xec", "HTTP/1.1", "Host: h", 400, HTTP_GUARD_AMBIGUOUS_PATH);
	assert_string_equal(guard("POST", "//-/agent/exec", "HTTP/1.1", "Host: h").code, "ambiguous-path");
}

static void test_methods_and_versions(void **state UNUSED)
{
	refused("CONNECT", "h:80", "HTTP/1.1", "Host: h", 405, HTTP_GUARD_METHOD);
	refused("TRACE", "/", "HTTP/1.1", "Host: h", 405, HTTP_GUARD_METHOD);
	assert_non_null(guard("TRACE", "/", "HTTP/1.1", "Host: h").allow);
	refused("TRACE", "/-/agent/execute", "HTTP/1.1", "Host: h", 405, HTTP_GUARD_METHOD);
	refused("TRACE", "//-/agent/exec", "HTTP/1.1", "Host: h", 405, HTTP_GUARD_METHOD);
	accepted("TRACE", "/-/agent/exec", "HTTP/1.1", "Host: h");
	accepted("CONNECT", "/-/agent/exec/quota", "HTTP/1.1", "Host: h");
	accepted("TRACE", "/-/gateway/health", "HTTP/1.1", "Host: h");
	refused("FO(O", "/", "HTTP/1.1", "Host: h", 400, HTTP_GUARD_METHOD);
	refused("DISPATCH_REQUEST", "/", "HTTP/1.1", "Host: h", 501, HTTP_GUARD_METHOD);
	refused("ABCDEFGHIJKLMNOPQRSTUVWXYZABCDEFG", "/", "HTTP/1.1", "Host: h", 501, HTTP_GUARD_METHOD);
	refused("GET", "/", "HTTP/1.2", "Host: h", 505, HTTP_GUARD_VERSION);
	refused("GET", "/", "HTTP/2.0", "Host: h", 505, HTTP_GUARD_VERSION);
}

static void test_fields(void **state UNUSED)
{
	refused("GET", "/", "HTTP/1.1", "Host: h\nX A: b", 400, HTTP_GUARD_FIELD);
	refused("GET", "/", "HTTP/1.1", "Host: h\nX-A: b\x01", 400, HTTP_GUARD_FIELD);
	refused("GET", "/", "HTTP/1.1", "Host: h\nX-A: b\rc", 400, HTTP_GUARD_FIELD);
	refused("GET", "/", "HTTP/1.1", "Host: h\nExpect: 200-maybe", 417, HTTP_GUARD_EXPECT);
	static const char *const named[] = {"Host",
					    "content-length",
					    "Authorization",
					    "COOKIE",
					    "Via",
					    "Cache-Control",
					    "X-Forwarded-For",
					    "x-forwarded-own",
					    "Fly-Client-IP",
					    "close, cookie",
					    "a b"};
	for (size_t i = 0; i < ARRAY_LEN(named); i++) {
		char lines[64];
		snprintf(lines, sizeof lines, "Host: h\nConnection: %s", named[i]);
		refused("GET", "/", "HTTP/1.1", lines, 400, HTTP_GUARD_FIELD);
	}
}

static void test_dropped(void **state UNUSED)
{
	accepted("GET", "/", "HTTP/1.1",
		 "Host: h\nProxy: x\nContent_Length: 3\nX_Forwarded_For: 1\nX-Forwarded_For: 2\nfly_client_ip: 3\nmy_own: 4");
	assert_int_equal(fields.count, 2);
	assert_true(slice_equal(fields.at[1].name, SLICE("my_own")));
}

static void test_limits(void **state UNUSED)
{
	struct http_guard_verdict verdict;
	size_t size = limits.max_head;
	char *text = malloc(size + 1);
	assert_non_null(text);
	memset(text, 'a', size);
	text[0] = '/';
	text[size] = '\0';
	refused("GET", text, "HTTP/1.1", "Host: h", 414, HTTP_GUARD_TARGET_LIMIT);
	http_fields_clear(&fields);
	assert_int_equal(http_fields_add(&fields, SLICE("Host"), SLICE("h")), 0);
	assert_int_equal(http_fields_add(&fields, SLICE("X"), slice_of(text, size)), 0);
	struct http_guard_input input = {
		.method = SLICE("GET"), .target = SLICE("/"), .version = SLICE("HTTP/1.1"), .fields = &fields, .fields_seen = 2};
	http_guard_check(&input, &limits, &verdict);
	assert_int_equal(verdict.status, 431);
	assert_int_equal(verdict.reason, HTTP_GUARD_HEADER_LIMIT);
	fields.count = 1;
	input.fields_seen = HTTP_REQUEST_FIELDS_MAX + 1;
	http_guard_check(&input, &limits, &verdict);
	assert_int_equal(verdict.status, 431);
	input.fields_seen = HTTP_REQUEST_FIELDS_MAX;
	http_guard_check(&input, &limits, &verdict);
	assert_int_equal(verdict.reason, HTTP_GUARD_OK);
	text[size - 60] = '\0';
	accepted("GET", text, "HTTP/1.1", "Host: h");
	free(text);
}

static void test_names(void **state UNUSED)
{
	for (int reason = 0; reason < HTTP_GUARD_REASONS; reason++)
		assert_non_null(http_guard_reason_name((enum http_guard_reason)reason));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_accepted),
		cmocka_unit_test(test_framing),
		cmocka_unit_test(test_hosts_and_targets),
		cmocka_unit_test(test_methods_and_versions),
		cmocka_unit_test(test_fields),
		cmocka_unit_test(test_dropped),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_names),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
