#include "gateway/datasette/response.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define OK "HTTP/1.1 200 OK\r\n"

/* What one response became; compared between whole and byte-by-byte feeding. */
struct outcome {
	int result;      /* of the last call */
	int at_end;      /* of response_eof, when nothing ended it before */
	size_t used;
	unsigned status, interims;
	uint64_t length;
	bool has_body, keep_alive;
	char text[4096]; /* "name=value;" of the head, then '|' and the body */
	size_t len;
};

static void put(struct outcome *outcome, struct slice bytes)
{
	assert_true(outcome->len + bytes.len < sizeof outcome->text);
	memcpy(outcome->text + outcome->len, bytes.data, bytes.len);
	outcome->len += bytes.len;
	outcome->text[outcome->len] = '\0';
}

static void on_interim(void *ctx, const struct response_head *head UNUSED)
{
	((struct outcome *)ctx)->interims++;
}

static void on_head(void *ctx, const struct response_head *head)
{
	struct outcome *outcome = ctx;
	outcome->status = head->status;
	outcome->length = head->length;
	outcome->has_body = head->has_body;
	for (size_t i = 0; i < head->count; i++) {
		put(outcome, head->fields[i].name);
		put(outcome, SLICE("="));
		if (head->fields[i].value.len)
			put(outcome, head->fields[i].value);
		put(outcome, SLICE(";"));
	}
	put(outcome, SLICE("|"));
}

static void on_body(void *ctx, struct slice bytes)
{
	put(ctx, bytes);
}

static void ignore_head(void *ctx UNUSED, const struct response_head *head UNUSED)
{
}

static const struct response_events events = {on_interim, on_head, on_body};

static struct outcome feed(struct slice bytes, bool to_head, size_t step)
{
	struct outcome outcome = {.at_end = 99};
	struct response response;
	response_init(&response, &events, &outcome);
	response_begin(&response, to_head);
	while (outcome.result == 0 && outcome.used < bytes.len) {
		size_t left = bytes.len - outcome.used, used;
		outcome.result = response_feed(&response, slice_of(bytes.data + outcome.used, left < step ? left : step), &used);
		outcome.used += used;
	}
	if (outcome.result == 0)
		outcome.at_end = response_eof(&response);
	if (outcome.result < 0 || outcome.at_end == -EPROTO)
		assert_non_null(response.error);
	outcome.keep_alive = response_keep_alive(&response);
	response_deinit(&response);
	return outcome;
}

static struct outcome run(const char *text, bool to_head)
{
	struct outcome whole = feed(slice_str(text), to_head, SIZE_MAX), bytes = feed(slice_str(text), to_head, 1);
	assert_int_equal(whole.result, bytes.result);
	assert_int_equal(whole.at_end, bytes.at_end);
	assert_int_equal(whole.status, bytes.status);
	assert_int_equal(whole.interims, bytes.interims);
	if (whole.result == RESPONSE_DONE)
		assert_int_equal(whole.used, bytes.used);
	if (whole.result >= 0)
		assert_string_equal(whole.text, bytes.text);
	return whole;
}

/* How many bytes belong to the answer; negative when it is refused. Whole and byte by byte. */
static int switched(const char *text, const char *fields)
{
	int used_of[2] = {0};
	for (int i = 0; i < 2; i++) {
		struct outcome outcome = {0};
		size_t len = strlen(text), at = 0;
		struct response response;
		response_init(&response, &events, &outcome);
		response_begin(&response, false);
		response_allow_switch(&response);
		while (outcome.result == 0 && at < len) {
			size_t used;
			outcome.result = response_feed(&response, slice_of(text + at, i ? 1 : len - at), &used);
			at += used;
		}
		used_of[i] = outcome.result == RESPONSE_DONE && response.head.status == 101 ? (int)at : -1;
		if (used_of[i] >= 0) {
			assert_int_equal(outcome.status, 0);
			on_head(&outcome, &response.head);
			assert_string_equal(outcome.text, fields);
			assert_false(response_keep_alive(&response));
		}
		response_deinit(&response);
	}
	assert_int_equal(used_of[0], used_of[1]);
	return used_of[0];
}

static void test_switching(void **state UNUSED)
{
	static const char head[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX: y\r\n\r\n";
	static const char fields[] = "Upgrade=websocket;Connection=Upgrade;X=y;|";
	char text[512];
	assert_int_equal(switched(head, fields), sizeof head - 1);
	snprintf(text, sizeof text, "%sHTTP/1.1 200 OK\r\n\r\n", head);
	assert_int_equal(switched(text, fields), sizeof head - 1);
	snprintf(text, sizeof text, "HTTP/1.1 103 Early Hints\r\n\r\n%s\x81", head);
	assert_int_equal(switched(text, fields), strlen(text) - 1);
	static const char *const bad[] = {
		"HTTP/1.1 101 X\r\n\r\n",
		"HTTP/1.1 101 X\r\nUpgrade: websocket\r\n\r\n",
		"HTTP/1.1 101 X\r\nConnection: Upgrade\r\n\r\n",
		"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 3\r\n\r\nabc",
		"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n",
	};
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(switched(bad[i], ""), -1);
}

static void complete(const char *text, unsigned status, const char *expected)
{
	struct outcome outcome = run(text, false);
	assert_int_equal(outcome.result, RESPONSE_DONE);
	assert_int_equal(outcome.used, strlen(text));
	assert_int_equal(outcome.status, status);
	assert_string_equal(outcome.text, expected);
	assert_true(outcome.keep_alive);
}

static void test_complete(void **state UNUSED)
{
	complete(OK "Content-Length: 3\r\n\r\nabc", 200, "Content-Length=3;|abc");
	complete(OK "Content-Length: 0\r\n\r\n", 200, "Content-Length=0;|");
	complete(OK "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer-Field: 1\r\n\r\n", 200,
		 "Transfer-Encoding=chunked;|abcde");
	complete(OK "Set-Cookie: a=1\r\nset-cookie:b=2 \r\nX-Empty:\r\nContent-Length: 0\r\n\r\n", 200,
		 "Set-Cookie=a=1;set-cookie=b=2;X-Empty=;Content-Length=0;|");
	complete("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", 204, "Content-Length=5;|");
	complete("HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n", 304, "ETag=\"x\";|");
	complete("HTTP/1.1 599 \r\nContent-Length: 0\r\n\r\n", 599, "Content-Length=0;|");
	complete("HTTP/1.1 102 Processing\r\nContent-Length: 9\r\n\r\n" OK "Content-Length: 1\r\n\r\na", 200, "Content-Length=1;|a");
	complete("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", 204, "Transfer-Encoding=chunked;|");
	complete("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" OK "Content-Length: 1\r\n\r\na", 200,
		 "Content-Length=1;|a");
}

static void test_interims_are_told(void **state UNUSED)
{
	assert_int_equal(run("HTTP/1.1 103 E\r\nLink: x\r\n\r\nHTTP/1.1 100 C\r\n\r\n" OK "Content-Length: 0\r\n\r\n", false).interims, 2);
}

static void test_to_head(void **state UNUSED)
{
	struct outcome outcome = run(OK "Content-Length: 30\r\n\r\n", true);
	assert_int_equal(outcome.result, RESPONSE_DONE);
	assert_true(outcome.length == 30);
	assert_false(outcome.has_body);
	assert_true(outcome.keep_alive);
	outcome = run(OK "Transfer-Encoding: chunked\r\n\r\n", true);
	assert_int_equal(outcome.result, RESPONSE_DONE);
	assert_true(outcome.length == RESPONSE_LENGTH_UNKNOWN);
}

static void test_until_the_end(void **state UNUSED)
{
	struct outcome outcome = run(OK "\r\nabc", false);
	assert_int_equal(outcome.result, 0);
	assert_int_equal(outcome.at_end, RESPONSE_DONE);
	assert_string_equal(outcome.text, "|abc");
	assert_false(outcome.keep_alive);
	outcome = run("HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc", false);
	assert_int_equal(outcome.result, RESPONSE_DONE);
	assert_false(outcome.keep_alive);
	outcome = run(OK "Connection: close\r\nContent-Length: 3\r\n\r\nabc", false);
	assert_int_equal(outcome.result, RESPONSE_DONE);
	assert_false(outcome.keep_alive);
}

static void test_cut(void **state UNUSED)
{
	static const char *const cut[] = {
		"",
		"HTTP/1.1 20",
		OK "X: a",
		OK "Content-Length: 3\r\n\r\nab",
		OK "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
		OK "Transfer-Encoding: chunked\r\n\r\n3\r\nab",
		OK "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
		"HTTP/1.1 100 Continue\r\n\r\n",
	};
	for (size_t i = 0; i < ARRAY_LEN(cut); i++) {
		struct outcome outcome = run(cut[i], false);
		assert_int_equal(outcome.result, 0);
		assert_int_equal(outcome.at_end, -EPROTO);
	}
}

static void test_more_than_asked(void **state UNUSED)
{
	struct outcome outcome = run(OK "Content-Length: 3\r\n\r\nabcHTTP/1.1 200 OK\r\n", false);
	assert_int_equal(outcome.result, RESPONSE_DONE);
	assert_string_equal(outcome.text, "Content-Length=3;|abc");
	assert_int_equal(outcome.used, strlen(OK "Content-Length: 3\r\n\r\nabc"));
}

static void test_refused(void **state UNUSED)
{
	static const char *const bad[] = {
		OK "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
		OK "Content-Length: 3\r\nContent-Length: 5\r\n\r\nabc",
		OK "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
		OK "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
		OK "Transfer-Encoding: gzip\r\n\r\nabc",
		OK "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
		OK "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		OK "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
		"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		OK "Content-Length: -1\r\n\r\n",
		OK "Content-Length: abc\r\n\r\n",
		OK "Content-Length: 3, 3\r\n\r\nabc",
		OK "Content-Length:\r\n\r\n",
		OK "Content-Length: 99999999999999999999\r\n\r\n",
		OK "X: a\rb\r\n\r\n",
		OK "X: a\r\n b\r\n\r\n",
		OK "X : a\r\n\r\n",
		OK "X(: a\r\n\r\n",
		OK ": a\r\n\r\n",
		OK "X: a\x01\r\n\r\n",
		"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
		"hello",
		"HTTP/3.0 200 OK\r\n\r\n",
		"HTTP/1.1 099 X\r\n\r\n",
		"HTTP/1.1 600 X\r\n\r\n",
		"HTTP/1.1 999 X\r\n\r\n",
		"HTTP/1.1 20 X\r\n\r\n",
		"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
		OK "Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
		OK "Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n",
		OK "Transfer-Encoding: chunked\r\n\r\n3\nabc\n0\n\n",
		OK "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
	};
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		if (run(bad[i], false).result >= 0)
			fail_msg("accepted: %s", bad[i]);
	static const char nul[] = OK "X: a\0b\r\nContent-Length: 0\r\n\r\n";
	assert_true(feed(slice_of(nul, sizeof nul - 1), false, SIZE_MAX).result < 0);
}

static void test_endless_interims(void **state UNUSED)
{
	char text[1024] = "";
	for (int i = 0; i < RESPONSE_INTERIM_MAX; i++)
		strcat(text, "HTTP/1.1 100 Continue\r\n\r\n");
	strcat(text, OK "Content-Length: 0\r\n\r\n");
	complete(text, 200, "Content-Length=0;|");
	memmove(text + 25, text, strlen(text) + 1);
	memcpy(text, "HTTP/1.1 100 Continue\r\n\r\n", 25);
	assert_true(run(text, false).result < 0);
}

/* The result for a response that begins so and goes on with `count` fields of `width` bytes. */
static int feed_large(const char *start, size_t count, int width)
{
	struct buf text = BUF_MAX(4 * 1024 * 1024);
	struct outcome outcome = {.at_end = 0};
	struct response response;
	static const struct response_events quiet = {.on_head = ignore_head, .on_body = on_body};
	size_t used;
	int r = buf_append(&text, slice_str(start));
	for (size_t i = 0; r == 0 && i < count; i++)
		r = buf_printf(&text, "X: %0*d\r\n", width, 0);
	assert_int_equal(r, 0);
	assert_int_equal(buf_append(&text, SLICE("\r\n")), 0);
	response_init(&response, &quiet, &outcome);
	response_begin(&response, false);
	r = response_feed(&response, buf_peek(&text), &used);
	response_deinit(&response);
	buf_deinit(&text);
	return r;
}

static void test_bounds(void **state UNUSED)
{
	assert_int_equal(feed_large(OK, RESPONSE_FIELDS_MAX, 10), 0);
	assert_true(feed_large(OK, RESPONSE_FIELDS_MAX + 1, 10) < 0);
	assert_int_equal(feed_large(OK, 1, RESPONSE_HEAD_MAX - 100), 0);
	assert_true(feed_large(OK, 1, RESPONSE_HEAD_MAX + 10) < 0);
	assert_true(feed_large(OK, 90, RESPONSE_HEAD_MAX / 80) < 0);
	/* Trailers and chunk extensions do not escape the bounds either. */
	assert_int_equal(feed_large(OK "Transfer-Encoding: chunked\r\n\r\n0\r\n", 10, 100), RESPONSE_DONE);
	assert_true(feed_large(OK "Transfer-Encoding: chunked\r\n\r\n0\r\n", 200, RESPONSE_HEAD_MAX / 100) < 0);
	char extension[1024];
	snprintf(extension, sizeof extension, OK "Transfer-Encoding: chunked\r\n\r\n1;%0400d\r\na\r\n0\r\n\r\n", 0);
	assert_true(run(extension, false).result < 0);
}

static void test_reuse_after_failure(void **state UNUSED)
{
	struct outcome outcome = {.at_end = 0};
	struct response response;
	size_t used;
	response_init(&response, &events, &outcome);
	response_begin(&response, false);
	assert_int_equal(response_feed(&response, SLICE("junk"), &used), -EPROTO);
	assert_int_equal(response_feed(&response, SLICE(OK), &used), -EPROTO);
	response_begin(&response, false);
	assert_false(response_started(&response));
	assert_int_equal(response_feed(&response, SLICE(OK "Content-Length: 1\r\n\r\na"), &used), RESPONSE_DONE);
	assert_string_equal(outcome.text, "Content-Length=1;|a");
	response_deinit(&response);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_complete),
		cmocka_unit_test(test_interims_are_told),
		cmocka_unit_test(test_to_head),
		cmocka_unit_test(test_until_the_end),
		cmocka_unit_test(test_cut),
		cmocka_unit_test(test_more_than_asked),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_endless_interims),
		cmocka_unit_test(test_switching),
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_reuse_after_failure),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
