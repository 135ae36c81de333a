#include "gateway/proxy/forward.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

static struct http_fields fields;
static struct forward_options options = {.pseudonym = {.data = "spritegate", .len = 10},
					 .default_host = {.data = "upstream:8001", .len = 13}};

static struct http_head make(const char *method, const char *target, const char *lines)
{
	struct slice rest = slice_str(*lines ? lines : NULL), line;
	http_fields_clear(&fields);
	while (slice_next(&rest, '\n', &line)) {
		const char *colon = memchr(line.data, ':', line.len);
		size_t name = (size_t)(colon - line.data);
		assert_int_equal(http_fields_add(&fields, slice_of(line.data, name), slice_trim(slice_from(line, name + 1))), 0);
	}
	return (struct http_head){.method = slice_str(method),
				  .target = slice_str(target),
				  .path = slice_str(target),
				  .host = http_fields_value(&fields, SLICE("host")),
				  .peer = SLICE("192.0.2.7"),
				  .id = SLICE("ID"),
				  .fields = &fields,
				  .version_minor = 1};
}

static char written[8192];

static int forward(const struct http_head *head)
{
	struct buf out = BUF_MAX(sizeof written - 1);
	int r = forward_request(head, &options, &out);
	struct slice text = buf_peek(&out);
	memcpy(written, text.len ? text.data : "", text.len);
	written[text.len] = '\0';
	buf_deinit(&out);
	return r;
}

/* The lines that we add at the end for a client at 192.0.2.7 that asked for `host`. */
#define OURS(host, port)                                                                                          \
	"Via: 1.1 spritegate\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: " host \
	"\r\nX-Forwarded-Port: " port "\r\nForwarded: for=192.0.2.7;proto=http;host=\"" host "\";by=_spritegate\r\nX-Request-Id: ID\r\n"

static void expect(const char *method, const char *target, const char *lines, const char *expected)
{
	struct http_head head = make(method, target, lines);
	assert_int_equal(forward(&head), 0);
	assert_string_equal(written, expected);
}

static void test_plain(void **state UNUSED)
{
	expect("GET", "/a?b",
	       "Accept: x\nHost: h:81\nX-Empty:", "GET /a?b HTTP/1.1\r\nHost: h:81\r\nAccept: x\r\nX-Empty: \r\n" OURS("h:81", "81"));
	expect("GET", "/", "Host: [::1]", "GET / HTTP/1.1\r\nHost: [::1]\r\n" OURS("[::1]", "80"));
	struct http_head old = make("GET", "/", "");
	old.version_minor = 0;
	assert_int_equal(forward(&old), 0);
	assert_non_null(strstr(written, "Host: upstream:8001\r\n"));
	assert_non_null(strstr(written, "Via: 1.0 spritegate\r\n"));
}

static void test_hop_by_hop(void **state UNUSED)
{
	expect("GET", "/",
	       "Host: h\nConnection: X-A, close\nX-A: 1\nKeep-Alive: 5\nTE: trailers\nTrailer: x\nUpgrade: h2c\nHTTP2-Settings: x\n"
	       "Proxy-Connection: x\nProxy-Authorization: x\nTransfer-Encoding: chunked\nContent-Length: 3\nExpect: 100-continue\n"
	       "connection: x-b\nX-B: 2\nX-C: 3",
	       "GET / HTTP/1.1\r\nHost: h\r\nX-C: 3\r\n" OURS("h", "80"));
}

static void test_identity_is_ours(void **state UNUSED)
{
	expect("GET", "/",
	       "Host: h\nX-Forwarded-For: 6.6.6.6\nX-Forwarded-Proto: https\nX-Forwarded-Own: x\nForwarded: for=6.6.6.6\nX-Real-IP: 6.6.6.6\n"
	       "Fly-Client-IP: 6.6.6.6\nFly-Region: ams\nfly-prefer-region: ams\nFly-Force-Instance-Id: x\nX-Request-Id: mine\n"
	       "X-Datasette-Authorization: secret",
	       "GET / HTTP/1.1\r\nHost: h\r\n" OURS("h", "80"));
}

static void test_on_behalf(void **state UNUSED)
{
	struct http_head head =
		make("POST", "/-/agent/exec",
		     "Host: h\nAuthorization: Bearer sgt_x\nX-Datasette-Authorization: Bearer dstok_x\nCookie: a=1\nCookie: b=2\n"
		     "Content-Type: application/json\nContent-Length: 9\nAccept-Encoding: gzip\nRange: bytes=0-1\nOrigin: http://e\n"
		     "Expect: 100-continue\nConnection: X-A, Cookie\nX-A: 1\nUser-Agent: me");
	struct buf out = BUF_MAX(sizeof written - 1);
	head.body = HTTP_BODY_LENGTH;
	head.expect_continue = true;
	assert_int_equal(forward_on_behalf(&head, &options, SLICE("GET"), SLICE("/db/t.csv?x"), SLICE("X-Datasette-Authorization"),
					   (struct slice){0}, &out),
			 0);
	const char *want =
		"GET /db/t.csv?x HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer dstok_x\r\nCookie: a=1; b=2\r\nUser-Agent: me\r\n" OURS("h",
																      "80");
	if (!slice_equal(buf_peek(&out), slice_str(want)))
		fail_msg("%.*s", SLICE_FMT(buf_peek(&out)));
	buf_deinit(&out);
	head = make("POST", "/", "Host: h\nX-Datasette-Authorization: Bearer sgt_x");
	assert_int_equal(
		forward_on_behalf(&head, &options, SLICE("GET"), SLICE("/"), SLICE("X-Datasette-Authorization"), (struct slice){0}, &out),
		0);
	assert_null(memmem(buf_peek(&out).data, out.len, "sgt_", 4));
	buf_deinit(&out);
	head = make("POST", "/", "Host: h\nVia: 1.1 spritegate");
	assert_int_equal(
		forward_on_behalf(&head, &options, SLICE("GET"), SLICE("/"), SLICE("X-Datasette-Authorization"), (struct slice){0}, &out),
		FORWARD_E_LOOP);
	buf_deinit(&out);
}

static void test_cookies_are_merged(void **state UNUSED)
{
	expect("GET", "/", "Host: h\nCookie: a=1\nAccept: x\ncookie: b=2\nCookie: c=3",
	       "GET / HTTP/1.1\r\nHost: h\r\nCookie: a=1; b=2; c=3\r\nAccept: x\r\n" OURS("h", "80"));
}

static void test_our_tokens_stay_here(void **state UNUSED)
{
	static const char *const ours[] = {"Bearer sgt_x",
					   "bearer   sgt_x",
					   "BEARER\tsgt_x",
					   "sgt_x",
					   "SGT_x",
					   "Basic sgt_",
					   "Bearer dstok_x, Bearer sgt_x",
					   "Digest username=\"sgt_x\"",
					   "Bearer dstok_x.sgt_aaaaaaaaaaaaaaaa_bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"};
	static const char *const theirs[] = {"Bearer dstok_x", "Basic c2d0Xw==", "Bearer xsgt_", "Bearer dstok_x_sgt_y-z", "Bearer"};
	char lines[128];
	for (size_t i = 0; i < ARRAY_LEN(ours); i++) {
		snprintf(lines, sizeof lines, "Host: h\nAuthorization: %s", ours[i]);
		struct http_head head = make("GET", "/", lines);
		assert_int_equal(forward(&head), 0);
		assert_null(strstr(written, "sgt_"));
		assert_null(strstr(written, "Authorization"));
	}
	for (size_t i = 0; i < ARRAY_LEN(theirs); i++) {
		snprintf(lines, sizeof lines, "Host: h\nAuthorization: %s", theirs[i]);
		struct http_head head = make("GET", "/", lines);
		assert_int_equal(forward(&head), 0);
		assert_non_null(strstr(written, theirs[i]));
	}
}

static void test_loops(void **state UNUSED)
{
	static const char *const loops[] = {"Via: 1.1 spritegate", "Via: 1.0 a, 1.1 SpriteGate (x)", "Via: 1.0 a\nVia: 2 spritegate"};
	for (size_t i = 0; i < ARRAY_LEN(loops); i++) {
		struct http_head head = make("GET", "/", loops[i]);
		assert_int_equal(forward(&head), FORWARD_E_LOOP);
	}
	struct http_head head = make("GET", "/", "Host: h\nVia: 1.0 a (spritegate)\nAccept: x\nVia: 2 fly.io");
	assert_int_equal(forward(&head), 0);
	assert_non_null(strstr(written, "Accept: x\r\nVia: 1.0 a (spritegate), 2 fly.io, 1.1 spritegate\r\n"));
}

static void test_max_forwards(void **state UNUSED)
{
	struct http_head head = make("OPTIONS", "/", "Host: h\nMax-Forwards: 0");
	assert_int_equal(forward(&head), FORWARD_E_LAST);
	head = make("OPTIONS", "/", "Host: h\nMax-Forwards: 7");
	assert_int_equal(forward(&head), 0);
	assert_non_null(strstr(written, "Max-Forwards: 6\r\n"));
	head = make("GET", "/", "Host: h\nMax-Forwards: 0");
	assert_int_equal(forward(&head), 0);
	assert_non_null(strstr(written, "Max-Forwards: 0\r\n"));
}

static void trust(const char *networks)
{
	assert_int_equal(peer_set_parse(slice_str(networks), &options.trusted), 0);
}

static void client(const char *lines, const char *address, const char *scheme)
{
	struct http_head head = make("GET", "/", lines);
	struct forward_client found = forward_client_of(&head, &options);
	assert_true(slice_equal(found.address, slice_str(address)));
	assert_true(slice_equal(found.scheme, slice_str(scheme)));
}

static void test_trusted_peers_are_believed(void **state UNUSED)
{
	trust("10.0.0.0/8");
	client("X-Forwarded-For: 1.1.1.1\nX-Forwarded-Proto: https", "192.0.2.7", "http");
	trust("192.0.2.0/24");
	client("X-Forwarded-For: 1.1.1.1\nX-Forwarded-Proto: https", "1.1.1.1", "https");
	client("X-Forwarded-For: 6.6.6.6, 1.1.1.1, 192.0.2.9\nX-Forwarded-Proto: http, https", "1.1.1.1", "https");
	client("X-Forwarded-For: 6.6.6.6, 1.1.1.1\nX-Forwarded-For: 192.0.2.9, 192.0.2.8", "1.1.1.1", "http");
	client("X-Forwarded-For: 1.1.1.1\nX-Forwarded-For: junk, 192.0.2.9", "192.0.2.7", "http");
	client("X-Forwarded-For: 1.1.1.1\nFly-Client-IP: 2001:db8::5", "2001:db8::5", "http");
	client("X-Forwarded-For: junk\nFly-Client-IP: junk\nX-Forwarded-Proto: ftp", "192.0.2.7", "http");
	client("X-Forwarded-For: 192.0.2.1", "192.0.2.7", "http");
	client("", "192.0.2.7", "http");
	struct http_head head = make("GET", "/",
				     "Host: h\nFly-Client-IP: 2001:db8::5\nX-Forwarded-Proto: https\nFly-Region: ams\n"
				     "fly-replay-src: x\nfly-prefer-region: x");
	assert_int_equal(forward(&head), 0);
	assert_string_equal(written, "GET / HTTP/1.1\r\nHost: h\r\nFly-Client-IP: 2001:db8::5\r\nFly-Region: ams\r\nVia: 1.1 spritegate\r\n"
				     "X-Forwarded-For: 2001:db8::5\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: h\r\n"
				     "X-Forwarded-Port: 443\r\nForwarded: for=\"[2001:db8::5]\";proto=https;host=\"h\";by=_spritegate\r\n"
				     "X-Request-Id: ID\r\n");
	trust("");
}

static void test_nothing_is_injected(void **state UNUSED)
{
	struct http_head head = make("GET", "/", "Host: h");
	assert_int_equal(http_fields_add(&fields, SLICE("X"), SLICE("a\r\nEvil: 1")), 0);
	assert_int_equal(forward(&head), -EINVAL);
	head = make("GET", "/", "Host: h");
	assert_int_equal(http_fields_add(&fields, SLICE("X: a\r\nEvil"), SLICE("1")), 0);
	assert_int_equal(forward(&head), -EINVAL);
}

static void test_bounded(void **state UNUSED)
{
	struct http_head head = make("GET", "/", "Host: h");
	struct buf out = BUF_MAX(40);
	assert_int_equal(forward_request(&head, &options, &out), -EMSGSIZE);
	buf_deinit(&out);
}

static void test_retries(void **state UNUSED)
{
	static const struct {
		const char *method, *path;
		bool may;
	} cases[] = {
		{"GET", "/", true},
		{"HEAD", "/db", true},
		{"OPTIONS", "/", true},
		{"POST", "/", false},
		{"DELETE", "/", false},
		{"get", "/", false},
		{"GET", "/-/auth-token", false},
		{"HEAD", "/-/auth-token.json", false},
		{"GET", "/prefix/-/auth-token", false},
		{"OPTIONS", "/a/b/-/auth-token", false},
		{"GET", "/-/auth-tok", true},
	};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct http_head head = make(cases[i].method, cases[i].path, "");
		assert_int_equal(forward_may_retry(&head), cases[i].may);
	}
}

static void test_which_bodies_are_passed_on(void **state UNUSED)
{
	static const char *const without[] = {"GET", "HEAD", "OPTIONS"};
	static const char *const with[] = {"POST", "PUT", "PATCH", "DELETE", "QUERY", "get"};
	for (size_t i = 0; i < ARRAY_LEN(without); i++) {
		struct http_head head = make(without[i], "/", "");
		assert_false(forward_passes_body(&head));
	}
	for (size_t i = 0; i < ARRAY_LEN(with); i++) {
		struct http_head head = make(with[i], "/", "");
		assert_true(forward_passes_body(&head));
	}
}

static struct response_head answer;

static void add(const char *name, const char *value)
{
	answer.fields[answer.count++] = (struct response_field){slice_str(name), slice_str(value)};
}

static void test_responses(void **state UNUSED)
{
	struct http_fields out;
	answer.count = 0;
	add("Set-Cookie", "a=1");
	add("Connection", "keep-alive, X-Drop");
	add("Link", "</1>");
	add("set-cookie", "b=2");
	add("X-Drop", "1");
	add("Content-Length", "3");
	add("Transfer-Encoding", "chunked");
	add("Keep-Alive", "x");
	add("Trailer", "x");
	add("Upgrade", "x");
	add("Fly-Replay", "app=evil");
	add("fly-replay-cache", "x");
	add("Alt-Svc", "x");
	add("X-Request-Id", "theirs");
	add("Date", "today");
	add("Server", "uvicorn");
	add("link", "</2>");
	add("Set-Cookie", "a=1");
	assert_int_equal(forward_response(&answer, &out), 0);
	static const char *const kept[] = {"Set-Cookie", "Link", "set-cookie", "Date", "Server", "link", "Set-Cookie"};
	assert_int_equal(out.count, ARRAY_LEN(kept));
	for (size_t i = 0; i < ARRAY_LEN(kept); i++)
		assert_true(slice_equal(out.at[i].name, slice_str(kept[i])));
}

static void test_event_streams(void **state UNUSED)
{
	answer.count = 0;
	assert_false(forward_is_event_stream(&answer));
	add("content-type", "text/event-stream; charset=utf-8");
	assert_true(forward_is_event_stream(&answer));
	answer.count = 0;
	add("Content-Type", "text/csv");
	assert_false(forward_is_event_stream(&answer));
}

static void check_expect(const char *method, enum http_body_kind body, uint64_t length, bool asked)
{
	struct http_head head = make(method, "/", "Host: h\nExpect: 100-continue\nexpect: 100-Continue");
	head.body = body;
	head.content_length = length;
	head.expect_continue = true;
	assert_int_equal(forward_awaits_continue(&head), asked);
	assert_int_equal(forward(&head), 0);
	const char *found = strcasestr(written, "\r\nexpect:");
	assert_int_equal(found != NULL, asked);
	if (found)
		assert_null(strcasestr(found + 1, "\r\nexpect:"));
}

/* Once, and only for a body that is passed on. */
static void test_expectation(void **state UNUSED)
{
	check_expect("POST", HTTP_BODY_LENGTH, 3, true);
	check_expect("DELETE", HTTP_BODY_CHUNKED, 0, true);
	check_expect("POST", HTTP_BODY_LENGTH, 0, false);
	check_expect("POST", HTTP_BODY_NONE, 0, false);
	check_expect("GET", HTTP_BODY_LENGTH, 3, false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plain),
		cmocka_unit_test(test_hop_by_hop),
		cmocka_unit_test(test_identity_is_ours),
		cmocka_unit_test(test_on_behalf),
		cmocka_unit_test(test_cookies_are_merged),
		cmocka_unit_test(test_our_tokens_stay_here),
		cmocka_unit_test(test_loops),
		cmocka_unit_test(test_max_forwards),
		cmocka_unit_test(test_trusted_peers_are_believed),
		cmocka_unit_test(test_nothing_is_injected),
		cmocka_unit_test(test_bounded),
		cmocka_unit_test(test_retries),
		cmocka_unit_test(test_which_bodies_are_passed_on),
		cmocka_unit_test(test_responses),
		cmocka_unit_test(test_event_streams),
		cmocka_unit_test(test_expectation),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
