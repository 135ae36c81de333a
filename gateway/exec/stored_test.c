#include "gateway/exec/stored.h"

#include "gateway/exec/copy.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define ID   "0193e3f0-0000-7000-8000-000000000000"
#define ROOM ((size_t)4096)

static int pass(void *ctx, const struct output *output, struct slice bytes)
{
	struct copy *copy = ctx;
	copy_output(copy, (unsigned)(output - copy->streams), bytes);
	return 0;
}

/* Of a command that has printed `text` on both streams, and was streamed. */
static unsigned store(struct slice text, size_t cap, size_t max, struct buf *object)
{
	CLEANUP(buf_deinit) struct buf stored = BUF_MAX(ROOM + STORED_HEAD_MAX);
	struct exec_result result = {.tier = "hot", .admit_us = 400};
	struct outfiles outfiles = {0};
	struct exec_job *job = exec_job_new(ID);
	struct stored found;
	struct copy copy;
	job->streamed = true;
	job->answer.status = 200;
	for (size_t i = 0; i < 2; i++)
		output_init_passing(&result.streams[i], cap, pass, &copy);
	copy_init(&copy, result.streams, &outfiles, max);
	for (size_t i = 0; i < 2; i++)
		assert_int_equal(output_feed(&result.streams[i], text), 0);
	assert_int_equal(copy.whole, 2 * (text.len < cap ? text.len : cap) <= max);
	for (size_t i = 0; i < 2; i++)
		assert_true(copy.whole || !result.streams[i].bytes.data);
	result.copied = copy.whole;
	assert_int_equal(stored_write(job, &result, false, max, &stored), 0);
	assert_true(stored_read(buf_peek(&stored), &found));
	assert_int_equal(buf_append(object, found.object), 0);
	assert_false(found.cut);
	for (size_t i = 0; i < 2; i++)
		output_deinit(&result.streams[i]);
	exec_job_free(job);
	return found.status;
}

static bool has(const struct buf *text, struct slice part)
{
	return memmem(text->data + text->start, text->len, part.data, part.len);
}

#define RESULT "{\"type\":\"result\",\"ok\":true,\"exec_id\":\"" ID "\",\"outcome\":\"exited\",\"exit_code\":0,"

static void test_streamed_again(void **state UNUSED)
{
	const struct {
		struct slice text;
		size_t cap;
		const char *data, *encoding;
	} rows[] = {
		{SLICE("a\nb"), 100, "a\\nb", "utf-8"},
		{SLICE("a\0b"), 100, "a\\u0000b", "utf-8"},
		{SLICE("\xff"), 100, "/w==", "base64"},
		{SLICE("\xc3\xbc\xc3\xbc"), 3, "\xc3\xbc", "utf-8"},
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		CLEANUP(buf_deinit) struct buf object = BUF_MAX(2 * ROOM), text = BUF_MAX(2 * ROOM), want = BUF_MAX(ROOM);
		assert_int_equal(store(rows[i].text, rows[i].cap, ROOM, &object), 200);
		assert_int_equal(stored_stream(buf_peek(&object), ID, STREAM_NDJSON, &text), 0);
		assert_int_equal(buf_printf(&want,
					    "{\"type\":\"accepted\",\"exec_id\":\"" ID "\"}\n"
					    "{\"type\":\"stdout\",\"data\":\"%s\",\"encoding\":\"%s\"}\n"
					    "{\"type\":\"stderr\",\"data\":\"%s\",\"encoding\":\"%s\"}\n" RESULT,
					    rows[i].data, rows[i].encoding, rows[i].data, rows[i].encoding),
				 0);
		if (!slice_has_prefix(buf_peek(&text), buf_peek(&want)))
			fail_msg("%.*s, not %.*s", SLICE_FMT(buf_peek(&text)), SLICE_FMT(buf_peek(&want)));
		assert_true(has(&text, SLICE("\"timing_ms\":{\"admit\":0.4,\"claim\":0.0,\"exec\":0.0}}\n")));
	}
}

static void test_too_large(void **state UNUSED)
{
	static char printed[ROOM];
	for (size_t len = 1; len < sizeof printed; len = 2 * len + 1) {
		CLEANUP(buf_deinit) struct buf object = BUF_MAX(2 * ROOM), text = BUF_MAX(8 * ROOM);
		memset(printed, 'p', sizeof printed);
		assert_int_equal(store(slice_of(printed, len), sizeof printed, ROOM, &object), 200);
		int r = stored_stream(buf_peek(&object), ID, STREAM_SSE, &text);
		assert_int_equal(r, len > ROOM / 4 ? STORED_NO_TEXT : 0);
		assert_int_equal(has(&object, SLICE("\"stdout\":\"p")), r == 0);
		assert_true(has(&object, SLICE("\"stdout_bytes\":")));
	}
}

/* A stream tells the beginning: it cannot be made of head and tail. */
static void test_without_the_middle(void **state UNUSED)
{
	for (size_t which = 0; which < 2; which++)
		for (size_t cap = 3; cap < 6; cap++)
			for (size_t unrun = 0; unrun < 2; unrun++) {
				CLEANUP(buf_deinit) struct buf text = BUF_MAX(ROOM + STORED_HEAD_MAX);
				struct exec_result result = {.tier = "hot"};
				struct exec_job *job = exec_job_new(ID);
				struct stored found;
				output_init(&result.streams[which], cap);
				output_init(&result.streams[!which], 10);
				for (size_t i = 0; i < 2; i++)
					assert_int_equal(output_feed(&result.streams[i], SLICE("12345")), 0);
				assert_int_equal(exec_answer_write(&result, ID, &job->answer), 0);
				assert_int_equal(stored_write(job, &result, unrun, ROOM, &text), 0);
				assert_true(stored_read(buf_peek(&text), &found));
				assert_int_equal(found.cut, cap < 5 && !unrun);
				assert_int_equal(slice_has_prefix(buf_peek(&text), SLICE("200 unrun\n")), unrun);
				assert_true(slice_has_prefix(found.object, SLICE("{\"ok\":true,")));
				output_deinit(&result.streams[0]);
				output_deinit(&result.streams[1]);
				exec_job_free(job);
			}
}

static void test_files(void **state UNUSED)
{
	CLEANUP(buf_deinit) struct buf text = BUF_MAX(ROOM);
	const struct slice object =
		SLICE("{\"stdout\":\"\",\"stderr\":\"\",\"encoding\":{\"stdout\":\"utf-8\",\"stderr\":\"utf-8\"},\"files\":{"
		      "\"a\":{\"text\":\"x\",\"bytes\":1},\"b\":{\"base64\":\"/w==\",\"bytes\":1},\"c\":{\"error\":\"not_found\"}}}\n");
	assert_int_equal(stored_stream(object, ID, STREAM_NDJSON, &text), 0);
	assert_true(has(&text, SLICE("{\"type\":\"file\",\"path\":\"a\",\"data\":\"x\",\"encoding\":\"utf-8\"}\n"
				     "{\"type\":\"file\",\"path\":\"b\",\"data\":\"/w==\",\"encoding\":\"base64\"}\n"
				     "{\"type\":\"result\",")));
	assert_true(has(&text, SLICE("\"files\":{\"a\":{\"bytes\":1},\"b\":{\"bytes\":1},\"c\":{\"error\":\"not_found\"}}}\n")));
}

static void test_no_answer(void **state UNUSED)
{
	static const char *const rows[] = {
		"",
		"{",
		"[]",
		"{\"stdout\":\"\"}",
		"{\"stdout\":1,\"stderr\":\"\",\"encoding\":{}}",
		"{\"stdout\":\"!\",\"stderr\":\"\",\"encoding\":{\"stdout\":\"base64\",\"stderr\":\"utf-8\"}}",
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		CLEANUP(buf_deinit) struct buf text = BUF_MAX(ROOM);
		assert_int_equal(stored_stream(slice_str(rows[i]), ID, STREAM_NDJSON, &text), -EINVAL);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_streamed_again), cmocka_unit_test(test_too_large),
					   cmocka_unit_test(test_without_the_middle), cmocka_unit_test(test_files),
					   cmocka_unit_test(test_no_answer)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
