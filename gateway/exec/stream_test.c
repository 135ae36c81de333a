#include "gateway/exec/stream.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define ID "0193e3f0-0000-7000-8000-000000000000"

static void is_text(const struct buf *text, const char *want)
{
	if (!slice_equal(buf_peek(text), slice_str(want)))
		fail_msg("%.*s, not %s", SLICE_FMT(buf_peek(text)), want);
}

static void test_formats(void **state UNUSED)
{
	CLEANUP(buf_deinit) struct buf lines = BUF_MAX(4096), events = BUF_MAX(4096);
	struct stream ndjson, sse;
	stream_init(&ndjson, STREAM_NDJSON);
	stream_init(&sse, STREAM_SSE);
	assert_int_equal(stream_accepted(&ndjson, ID, &lines), 0);
	assert_int_equal(stream_output(&ndjson, 1, SLICE("a\nb"), &lines), 0);
	assert_int_equal(stream_ping(&ndjson, &lines), 0);
	is_text(&lines, "{\"type\":\"accepted\",\"exec_id\":\"" ID "\"}\n"
			"{\"type\":\"stderr\",\"data\":\"a\\nb\",\"encoding\":\"utf-8\"}\n{\"type\":\"ping\"}\n");
	assert_int_equal(stream_accepted(&sse, ID, &events), 0);
	assert_int_equal(stream_output(&sse, 0, SLICE("\xff"), &events), 0);
	assert_int_equal(stream_ping(&sse, &events), 0);
	is_text(&events, "event: accepted\ndata: {\"type\":\"accepted\",\"exec_id\":\"" ID "\"}\n\n"
			 "event: stdout\ndata: {\"type\":\"stdout\",\"data\":\"/w==\",\"encoding\":\"base64\"}\n\n"
			 "event: ping\ndata: {\"type\":\"ping\"}\n\n");
}

/* Cut at every byte, twice: what comes is the same, and each piece is whole characters. */
static void test_characters(void **state UNUSED)
{
	static const char text[] = "a\xc3\xbc\xe2\x82\xac\xf0\x9f\x8c\xa1z";
	for (size_t a = 0; a < sizeof text; a++) {
		for (size_t b = a; b < sizeof text; b++) {
			CLEANUP(buf_deinit) struct buf out = BUF_MAX(4096), data = BUF_MAX(4096);
			struct stream stream;
			stream_init(&stream, STREAM_NDJSON);
			assert_int_equal(stream_output(&stream, 0, slice_of(text, a), &out), 0);
			/* The other stream has its own. */
			assert_int_equal(stream_output(&stream, 1, SLICE("!"), &out), 0);
			assert_int_equal(stream_output(&stream, 0, slice_of(text + a, b - a), &out), 0);
			assert_int_equal(stream_output(&stream, 0, slice_of(text + b, sizeof text - 1 - b), &out), 0);
			struct slice rest = buf_peek(&out), line;
			while (slice_next(&rest, '\n', &line) && line.len) {
				static const char head[] = "{\"type\":\"stdout\",\"data\":\"", tail[] = "\",\"encoding\":\"utf-8\"}";
				if (slice_has_prefix(line, SLICE(head)))
					assert_int_equal(buf_append(&data, slice_of(line.data + sizeof head - 1,
										    line.len - sizeof head - sizeof tail + 2)),
							 0);
			}
			is_text(&data, text);
			assert_false(stream.outputs[0].binary);
		}
	}
}

/* One that changed while it was read was told up to the middle of a character. */
static void test_a_file_after_one_that_failed(void **state UNUSED)
{
	CLEANUP(buf_deinit) struct buf out = BUF_MAX(4096);
	struct stream stream;
	stream_init(&stream, STREAM_NDJSON);
	stream_file_begin(&stream);
	assert_int_equal(stream_file(&stream, "a", SLICE("x\xe2\x82"), false, &out), 0);
	stream_file_begin(&stream);
	assert_int_equal(stream_file(&stream, "b", SLICE("y\xc3"), false, &out), 0);
	assert_int_equal(stream_file(&stream, "b", SLICE("\xbc"), true, &out), 0);
	is_text(&out, "{\"type\":\"file\",\"path\":\"a\",\"data\":\"x\",\"encoding\":\"utf-8\"}\n"
		      "{\"type\":\"file\",\"path\":\"b\",\"data\":\"y\",\"encoding\":\"utf-8\"}\n"
		      "{\"type\":\"file\",\"path\":\"b\",\"data\":\"\xc3\xbc\",\"encoding\":\"utf-8\"}\n");
}

static void finish(struct stream *stream, size_t cap, struct slice bytes, struct buf *out, struct exec_answer *answer)
{
	struct exec_result result = {.outcome = EXEC_UNKNOWN, .tier = "hot", .detail = "The connection broke."};
	output_init(&result.streams[0], cap);
	output_init(&result.streams[1], cap);
	assert_int_equal(output_feed(&result.streams[0], bytes), 0);
	struct slice told = bytes;
	if (told.len > cap)
		told.len = cap;
	assert_int_equal(stream_output(stream, 0, told, out), 0);
	assert_int_equal(stream_result(stream, &result, ID, answer, out), 0);
	output_deinit(&result.streams[0]);
	output_deinit(&result.streams[1]);
}

static bool has(const struct buf *text, const char *part)
{
	return memmem(text->data + text->start, text->len, part, strlen(part));
}

static void test_result(void **state UNUSED)
{
	CLEANUP(buf_deinit) struct buf unfinished = BUF_MAX(4096), cut = BUF_MAX(4096);
	struct exec_answer answer;
	struct stream stream;
	stream_init(&stream, STREAM_NDJSON);
	finish(&stream, 100, SLICE("a\xe2\x82"), &unfinished, &answer);
	assert_true(has(&unfinished,
			"\"data\":\"a\",\"encoding\":\"utf-8\"}\n{\"type\":\"stdout\",\"data\":\"4oI=\",\"encoding\":\"base64\"}\n"));
	assert_true(
		has(&unfinished, "{\"type\":\"result\",\"ok\":false,\"exec_id\":\"" ID "\",\"outcome\":\"unknown\",\"exit_code\":null"));
	assert_true(has(&unfinished, "\"encoding\":{\"stdout\":\"base64\",\"stderr\":\"utf-8\"},\"stdout_bytes\":3"));
	assert_true(has(&unfinished,
			",\"status\":502,\"code\":\"outcome-unknown\",\"may_have_run\":true,\"detail\":\"The connection broke.\"}\n"));
	assert_string_equal(answer.code, "outcome-unknown");
	assert_int_equal(answer.body.len, 0);

	stream_init(&stream, STREAM_NDJSON);
	finish(&stream, 3, SLICE("a\xe2\x82\xac"), &cut, &answer);
	assert_true(has(&cut, "\"data\":\"a\",\"encoding\":\"utf-8\"}\n{\"type\":\"result\""));
	assert_true(has(&cut, "\"encoding\":{\"stdout\":\"utf-8\",\"stderr\":\"utf-8\"},\"stdout_bytes\":4,\"stdout_truncated\":true"));
}

static void test_large_output_falls_in_pieces(void **state UNUSED)
{
	CLEANUP(buf_deinit) struct buf out = BUF_MAX(4 * STREAM_PIECE);
	static char printed[2 * STREAM_PIECE + 1];
	struct stream stream;
	memset(printed, 'p', sizeof printed);
	stream_init(&stream, STREAM_NDJSON);
	assert_int_equal(stream_output(&stream, 0, slice_of(printed, sizeof printed), &out), 0);
	struct slice rest = buf_peek(&out), line;
	size_t lines = 0;
	while (slice_next(&rest, '\n', &line) && line.len)
		lines++;
	assert_int_equal(lines, 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_formats),
		cmocka_unit_test(test_characters),
		cmocka_unit_test(test_a_file_after_one_that_failed),
		cmocka_unit_test(test_result),
		cmocka_unit_test(test_large_output_falls_in_pieces),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
