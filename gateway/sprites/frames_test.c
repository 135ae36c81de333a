#include "gateway/sprites/frames.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define TEXT   FRAME_MESSAGE_TEXT
#define BINARY FRAME_MESSAGE_BINARY

/* One message and what it must be; `bytes` and `id` as the frame's. */
struct sample {
	enum frame_message message;
	struct slice wire;
	int frames; /* 0 or FRAMES_FRAME */
	struct frame expect;
};

static const struct sample samples[] = {
	{BINARY, SLICE("\001hi\n"), 1, {.kind = FRAME_STDOUT, .bytes = SLICE("hi\n")}},
	{BINARY, SLICE("\002\001\003\000x"), 1, {.kind = FRAME_STDERR, .bytes = SLICE("\001\003\000x")}},
	{BINARY, SLICE("\001"), 0, {0}},
	{BINARY, SLICE("\003\000"), 1, {.kind = FRAME_EXIT, .code = 0}},
	{BINARY, SLICE("\003\377"), 1, {.kind = FRAME_EXIT, .code = 255}},
	{BINARY, SLICE("\003"), 1, {.kind = FRAME_INVALID}},
	{BINARY, SLICE("\003\000\000\000\001"), 1, {.kind = FRAME_INVALID}}, /* 32 bits, as old documents have it */
	{BINARY, SLICE("\003\001\000"), 1, {.kind = FRAME_INVALID}},
	{BINARY, SLICE(""), 1, {.kind = FRAME_INVALID}},
	{BINARY, SLICE("\000x"), 1, {.kind = FRAME_INVALID}},
	{BINARY, SLICE("\004"), 1, {.kind = FRAME_INVALID}},
	{BINARY, SLICE("$ raw terminal bytes"), 1, {.kind = FRAME_INVALID}},
	{TEXT, SLICE("control:{\"type\":\"op.ack\",\"id\":\"7\"}"), 1, {.kind = FRAME_ACK, .id = SLICE("7")}},
	{TEXT, SLICE("control:{\"type\":\"op.ack\",\"id\":7}"), 1, {.kind = FRAME_ACK}},
	{TEXT, SLICE("control:{\"type\":\"op.ack\"}"), 1, {.kind = FRAME_ACK}},
	{TEXT,
	 SLICE("control:{\"type\":\"op.complete\",\"id\":\"1\",\"args\":{\"ok\":true,\"exitCode\":3}}"),
	 1,
	 {.kind = FRAME_COMPLETE, .id = SLICE("1")}},
	{TEXT,
	 SLICE("control:{\"type\":\"op.complete\",\"args\":{\"ok\":false,\"error\":\"gone\"}}"),
	 1,
	 {.kind = FRAME_COMPLETE, .bytes = SLICE("gone")}},
	{TEXT, SLICE("control:{\"type\":\"op.complete\",\"args\":[]}"), 1, {.kind = FRAME_COMPLETE}},
	{TEXT,
	 SLICE("control:{\"type\":\"op.error\",\"args\":{\"code\":\"op.busy\",\"message\":\"no\"}}"),
	 1,
	 {.kind = FRAME_REFUSED, .refusal = REFUSAL_BUSY, .bytes = SLICE("no")}},
	{TEXT,
	 SLICE("control:{\"type\":\"op.error\",\"args\":{\"code\":\"op.not_found\",\"error\":\"e\"}}"),
	 1,
	 {.kind = FRAME_REFUSED, .refusal = REFUSAL_NOT_FOUND, .bytes = SLICE("e")}},
	{TEXT,
	 SLICE("control:{\"type\":\"op.error\",\"args\":{\"code\":\"op.not_active\"}}"),
	 1,
	 {.kind = FRAME_REFUSED, .refusal = REFUSAL_NOT_ACTIVE}},
	{TEXT, SLICE("control:{\"type\":\"op.error\"}"), 1, {.kind = FRAME_REFUSED, .refusal = REFUSAL_OTHER}},
	{TEXT, SLICE("control:{\"type\":\"op.error\",\"args\":{\"code\":3}}"), 1, {.kind = FRAME_REFUSED, .refusal = REFUSAL_OTHER}},
	{TEXT, SLICE("control:{\"type\":\"op.new\"}"), 1, {.kind = FRAME_OTHER}},
	{TEXT, SLICE("control:{\"type\":3}"), 1, {.kind = FRAME_INVALID}},
	{TEXT, SLICE("control:{\"id\":\"1\"}"), 1, {.kind = FRAME_INVALID}},
	{TEXT, SLICE("control:[]"), 1, {.kind = FRAME_INVALID}},
	{TEXT, SLICE("control:{\"type\":\"op.ack\",\"type\":\"op.error\"}"), 1, {.kind = FRAME_INVALID}},
	{TEXT, SLICE("control:{"), 1, {.kind = FRAME_INVALID}},
	{TEXT, SLICE("control:"), 1, {.kind = FRAME_INVALID}},
	{TEXT,
	 SLICE("{\"type\":\"session_info\",\"session_id\":\"332\",\"tty\":false}"),
	 1,
	 {.kind = FRAME_SESSION, .bytes = SLICE("332")}},
	{TEXT, SLICE("{\"type\":\"session_info\",\"session_id\":332}"), 1, {.kind = FRAME_SESSION}},
	{TEXT, SLICE("{\"type\":\"error\",\"message\":\"no such file\"}"), 1, {.kind = FRAME_NOTE, .bytes = SLICE("no such file")}},
	{TEXT, SLICE("{\"type\":\"error\",\"error\":\"no such file\"}"), 1, {.kind = FRAME_NOTE, .bytes = SLICE("no such file")}},
	/* The text exit is not the status, whatever it says. */
	{TEXT, SLICE("{\"type\":\"exit\",\"exit_code\":0}"), 1, {.kind = FRAME_OTHER}},
	{TEXT, SLICE("{\"type\":\"port_opened\",\"port\":1}"), 1, {.kind = FRAME_OTHER}},
	{TEXT, SLICE("{\"type\":\"debug\",\"msg\":\"x\"}"), 1, {.kind = FRAME_OTHER}},
	{TEXT, SLICE("{\"type\":null}"), 1, {.kind = FRAME_OTHER}},
	{TEXT, SLICE("hello"), 1, {.kind = FRAME_OTHER}},
	{TEXT, SLICE("{\"type\":\"op.complete\"}"), 1, {.kind = FRAME_OTHER}}, /* without the prefix it is none */
	{TEXT, SLICE(""), 1, {.kind = FRAME_OTHER}},
};

static void check_frame(const struct sample *sample, const struct frame *got)
{
	assert_int_equal(got->kind, sample->expect.kind);
	if (got->kind == FRAME_INVALID) {
		assert_true(got->bytes.len > 0);
		return;
	}
	assert_int_equal(got->code, sample->expect.code);
	assert_int_equal(got->refusal, sample->expect.refusal);
	assert_true(slice_equal(got->id, sample->expect.id));
	assert_true(slice_equal(got->bytes, sample->expect.bytes));
}

static void test_whole(void **state UNUSED)
{
	for (size_t i = 0; i < ARRAY_LEN(samples); i++) {
		struct frames frames;
		struct frame frame = {0};
		frames_init(&frames);
		assert_int_equal(frames_feed(&frames, samples[i].message, samples[i].wire, true, &frame), samples[i].frames);
		if (samples[i].frames)
			check_frame(&samples[i], &frame);
		frames_deinit(&frames);
	}
}

static bool is_output(const struct frame *frame)
{
	return frame->kind == FRAME_STDOUT || frame->kind == FRAME_STDERR;
}

/* The end comes with the last byte, or alone after it. */
static void feed_bytes(const struct sample *sample, bool end_alone)
{
	struct frames frames;
	struct frame frame = {0}, last = {0};
	char output[64];
	size_t len = 0;
	int count = 0;
	frames_init(&frames);
	for (size_t i = 0; i < sample->wire.len + end_alone; i++) {
		struct slice byte = i < sample->wire.len ? slice_of(sample->wire.data + i, 1) : (struct slice){0};
		bool end = end_alone ? i == sample->wire.len : i + 1 == sample->wire.len;
		int r = frames_feed(&frames, sample->message, byte, end, &frame);
		assert_true(r == 0 || r == FRAMES_FRAME);
		if (!r)
			continue;
		last = frame;
		count++;
		if (is_output(&frame)) {
			assert_int_equal(frame.bytes.len, 1);
			output[len++] = frame.bytes.data[0];
		}
	}
	if (count && is_output(&last)) {
		last.bytes = slice_of(output, len);
		count = 1;
	}
	assert_int_equal(count, sample->frames);
	if (count)
		check_frame(sample, &last);
	frames_deinit(&frames);
}

static void test_byte_by_byte(void **state UNUSED)
{
	for (size_t i = 0; i < ARRAY_LEN(samples); i++) {
		if (samples[i].wire.len)
			feed_bytes(&samples[i], false);
		feed_bytes(&samples[i], true);
	}
}

static void test_sequence(void **state UNUSED)
{
	struct frames frames;
	struct frame frame;
	frames_init(&frames);
	assert_int_equal(frames_feed(&frames, TEXT, SLICE("{\"type\":"), false, &frame), 0);
	assert_int_equal(frames_feed(&frames, TEXT, SLICE("\"session_info\"}"), true, &frame), FRAMES_FRAME);
	assert_int_equal(frame.kind, FRAME_SESSION);
	assert_int_equal(frames_feed(&frames, BINARY, SLICE("\001a"), false, &frame), FRAMES_FRAME);
	assert_int_equal(frames_feed(&frames, BINARY, SLICE("\003b"), true, &frame), FRAMES_FRAME);
	assert_int_equal(frame.kind, FRAME_STDOUT);
	assert_true(slice_equal(frame.bytes, SLICE("\003b")));
	assert_int_equal(frames_feed(&frames, BINARY, SLICE("\003\005"), true, &frame), FRAMES_FRAME);
	assert_int_equal(frame.kind, FRAME_EXIT);
	assert_int_equal(frame.code, 5);
	frames_deinit(&frames);
}

static void test_dead_after_an_error(void **state UNUSED)
{
	struct frames frames;
	struct frame frame;
	frames_init(&frames);
	assert_int_equal(frames_feed(&frames, BINARY, SLICE("\011"), true, &frame), FRAMES_FRAME);
	assert_int_equal(frame.kind, FRAME_INVALID);
	assert_int_equal(frames_feed(&frames, BINARY, SLICE("\003\000"), true, &frame), 0);
	assert_int_equal(frames_feed(&frames, TEXT, SLICE("control:{\"type\":\"op.ack\"}"), true, &frame), 0);
	frames_deinit(&frames);
}

static void test_type_changes_in_the_middle(void **state UNUSED)
{
	struct frames frames;
	struct frame frame;
	frames_init(&frames);
	assert_int_equal(frames_feed(&frames, BINARY, SLICE("\003"), false, &frame), 0);
	assert_int_equal(frames_feed(&frames, TEXT, SLICE("x"), true, &frame), FRAMES_FRAME);
	assert_int_equal(frame.kind, FRAME_INVALID);
	frames_deinit(&frames);
}

static void test_bounds(void **state UNUSED)
{
	static char block[FRAMES_TEXT_MAX + 1];
	struct frames frames;
	struct frame frame;
	memset(block, 'x', sizeof block);
	frames_init(&frames);
	assert_int_equal(frames_feed(&frames, TEXT, slice_of(block, FRAMES_TEXT_MAX), true, &frame), FRAMES_FRAME);
	assert_int_equal(frame.kind, FRAME_OTHER);
	assert_int_equal(frames_feed(&frames, TEXT, slice_of(block, FRAMES_TEXT_MAX), false, &frame), 0);
	assert_int_equal(frames_feed(&frames, TEXT, SLICE("x"), true, &frame), FRAMES_FRAME);
	assert_int_equal(frame.kind, FRAME_INVALID);
	frames_deinit(&frames);
}

static void test_write_start(void **state UNUSED)
{
	static const char *const argv[] = {"sh", "-c", "echo \"a\"\n\xc3\xa4"};
	CLEANUP(buf_deinit) struct buf out = BUF_MAX(FRAMES_START_MAX);
	assert_int_equal(frames_write_start(&out, 12, argv, ARRAY_LEN(argv)), 0);
	assert_true(slice_equal(buf_peek(&out),
				SLICE("control:{\"type\":\"op.start\",\"id\":\"12\",\"op\":\"exec\",\"args\":{\"cmd\":[\"sh\",\"-c\","
				      "\"echo \\\"a\\\"\\n\xc3\xa4\"],\"path\":\"sh\",\"stdin\":\"true\"}}")));
}

static void test_write_query(void **state UNUSED)
{
	static const char *const argv[] = {"echo", "a b&c=%+/~\xc3\xa4", ""};
	CLEANUP(buf_deinit) struct buf out = BUF_MAX(FRAMES_QUERY_MAX);
	assert_int_equal(frames_write_query(&out, argv, ARRAY_LEN(argv)), 0);
	assert_true(slice_equal(buf_peek(&out), SLICE("cmd=echo&cmd=a%20b%26c%3D%25%2B%2F~%C3%A4&cmd=&path=echo&stdin=true")));
}

static void test_write_signal(void **state UNUSED)
{
	CLEANUP(buf_deinit) struct buf out = BUF_MAX(256);
	assert_int_equal(frames_write_signal(&out, "TERM"), 0);
	assert_true(slice_equal(buf_peek(&out), SLICE("{\"type\":\"signal\",\"signal\":\"TERM\"}")));
}

typedef int (*writer)(struct buf *out, const char *const *argv, size_t argc);

static int write_start(struct buf *out, const char *const *argv, size_t argc)
{
	return frames_write_start(out, 1, argv, argc);
}

static int try_writer(writer write, size_t max, const char *const *argv, size_t argc)
{
	CLEANUP(buf_deinit) struct buf out = BUF_MAX(max);
	return write(&out, argv, argc);
}

static void test_refused_arguments(void **state UNUSED)
{
	static char longest[FRAMES_ARG_MAX + 2];
	static char quotes[FRAMES_ARG_MAX + 1];
	static const char *const latin1[] = {"echo", "\xe4"}, *const nameless[] = {"", "x"};
	const char *const many[] = {"echo", quotes, quotes, quotes};
	const char *const one[] = {"echo", longest};
	memset(quotes, '\n', FRAMES_ARG_MAX);
	memset(longest, 'x', FRAMES_ARG_MAX);
	assert_int_equal(try_writer(write_start, FRAMES_START_MAX, latin1, 2), -EINVAL);
	assert_int_equal(try_writer(frames_write_query, FRAMES_QUERY_MAX, latin1, 2), -EINVAL);
	assert_int_equal(try_writer(write_start, FRAMES_START_MAX, nameless, 2), -EINVAL);
	assert_int_equal(try_writer(write_start, FRAMES_START_MAX, nameless, 0), -EINVAL);
	assert_int_equal(try_writer(write_start, FRAMES_START_MAX, one, 2), 0);
	assert_int_equal(try_writer(frames_write_query, FRAMES_QUERY_MAX, one, 2), FRAMES_E_TOO_LONG);
	assert_int_equal(try_writer(write_start, FRAMES_START_MAX, many, 4), FRAMES_E_TOO_LONG);
	longest[FRAMES_ARG_MAX] = 'x';
	assert_int_equal(try_writer(write_start, FRAMES_START_MAX, one, 2), FRAMES_E_TOO_LONG);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_whole),
		cmocka_unit_test(test_byte_by_byte),
		cmocka_unit_test(test_sequence),
		cmocka_unit_test(test_dead_after_an_error),
		cmocka_unit_test(test_type_changes_in_the_middle),
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_write_start),
		cmocka_unit_test(test_write_query),
		cmocka_unit_test(test_write_signal),
		cmocka_unit_test(test_refused_arguments),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
