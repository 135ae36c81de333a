#include "gateway/exec/answer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

/* Feeds the text whole, then again byte by byte: both must read the same. */
static void expect(size_t cap, struct slice text, const char *json, const char *encoding)
{
	for (size_t step = text.len ? text.len : 1; step; step = step > 1 ? 1 : 0) {
		CLEANUP(buf_deinit) struct buf out = BUF_MAX(4096);
		struct output output;
		const char *got;
		output_init(&output, cap);
		for (size_t i = 0; i < text.len; i += step)
			assert_int_equal(output_feed(&output, slice_of(text.data + i, step)), 0);
		assert_int_equal(output.total, text.len);
		assert_int_equal(output_put(&output, &out, &got), 0);
		if (!slice_equal(buf_peek(&out), slice_str(json)))
			fail_msg("cap %zu: %.*s, expected %s", cap, SLICE_FMT(buf_peek(&out)), json);
		assert_string_equal(got, encoding);
		output_deinit(&output);
	}
}

static void test_whole(void **state UNUSED)
{
	expect(10, SLICE(""), "\"\"", "utf-8");
	expect(10, SLICE("a\n\"\\\x01"), "\"a\\n\\\"\\\\\\u0001\"", "utf-8");
	expect(10, SLICE("0123456789"), "\"0123456789\"", "utf-8");
	expect(10, SLICE("gr\xc3\xbc\xc3\x9f"), "\"gr\xc3\xbc\xc3\x9f\"", "utf-8");
	expect(10, SLICE("\xff\xfe"), "\"//4=\"", "base64");
	expect(10, SLICE("a\xc3"), "\"YcM=\"", "base64");
	expect(10, SLICE("\xed\xa0\x80"), "\"7aCA\"", "base64"); /* a surrogate is not UTF-8 */
}

static void test_head_and_tail(void **state UNUSED)
{
	expect(4, SLICE("abcdef"), "\"ab\\n[\xe2\x80\xa6 2 bytes cut \xe2\x80\xa6]\\nef\"", "utf-8");
	expect(5, SLICE("abcdefghij"), "\"ab\\n[\xe2\x80\xa6 5 bytes cut \xe2\x80\xa6]\\nhij\"", "utf-8");
	expect(1, SLICE("abc"), "\"\\n[\xe2\x80\xa6 2 bytes cut \xe2\x80\xa6]\\nc\"", "utf-8");
	expect(0, SLICE("abc"), "\"\\n[\xe2\x80\xa6 3 bytes cut \xe2\x80\xa6]\\n\"", "utf-8");
	/* the cut goes through a character on both sides: neither half is kept */
	expect(4,
	       SLICE("a\xc3\xbcxx\xc3\xbc"
		     "b"),
	       "\"a\\n[\xe2\x80\xa6 6 bytes cut \xe2\x80\xa6]\\nb\"", "utf-8");
	expect(4,
	       SLICE("\xff"
		     "bcdef"),
	       "\"/2JlZg==\"", "base64");
}

static void test_outcomes(void **state UNUSED)
{
	static const struct {
		enum exec_outcome outcome;
		unsigned status;
		const char *code, *has;
		enum exec_refusal refusal;
	} rows[] = {
		{EXEC_EXITED, 200, NULL, "\"outcome\":\"exited\",\"exit_code\":7,", 0},
		{EXEC_TIMED_OUT, 200, NULL, "\"outcome\":\"timed_out\",\"exit_code\":null,", 0},
		{EXEC_CANCELED, 200, NULL, "\"outcome\":\"canceled\",\"exit_code\":null,", 0},
		{EXEC_UNKNOWN, 502, "outcome-unknown", "\"may_have_run\":true,\"stdout\":\"partial\"", 0},
		{EXEC_NOT_STARTED, 503, "not-started", "\"may_have_run\":false,\"retry_after\":1", EXEC_REFUSED_BY_PROVIDER},
		{EXEC_NOT_STARTED, 503, "temporary-reduced-capacity", "\"retry_after\":1,\"violated-policies\":[\"fleet\"]",
		 EXEC_REFUSED_CAPACITY},
		{EXEC_NOT_STARTED, 422, "invalid-request", "\"may_have_run\":false,\"errors\":[{\"pointer\":\"\",\"detail\":\"why\"}]",
		 EXEC_REFUSED_TOO_LONG},
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct exec_result result = {
			.outcome = rows[i].outcome, .exit_code = 7, .refusal = rows[i].refusal, .tier = "hot", .detail = "why"};
		struct exec_answer answer;
		output_init(&result.streams[0], 100);
		output_init(&result.streams[1], 100);
		assert_int_equal(output_feed(&result.streams[0], SLICE("partial")), 0);
		assert_int_equal(exec_answer_write(&result, "id", &answer), 0);
		assert_int_equal(answer.status, rows[i].status);
		if (rows[i].code)
			assert_string_equal(answer.code, rows[i].code);
		else
			assert_null(answer.code);
		if (!memmem(answer.body.data, answer.body.len, rows[i].has, strlen(rows[i].has)))
			fail_msg("%s is not in %.*s", rows[i].has, SLICE_FMT(buf_peek(&answer.body)));
		exec_answer_deinit(&answer);
		output_deinit(&result.streams[0]);
		output_deinit(&result.streams[1]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_whole),
		cmocka_unit_test(test_head_and_tail),
		cmocka_unit_test(test_outcomes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
