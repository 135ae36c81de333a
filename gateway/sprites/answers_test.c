#include "gateway/sprites/answers.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

static struct verdict verdict;

static enum provider_code judge(enum sprites_call call, unsigned status, const char *body)
{
	struct answer answer = {.status = status, .body = slice_str(body), .rate = RATE_FIELDS_NONE, .failure = "it broke"};
	answers_judge(&verdict, call, "sg-1", &answer);
	assert_true(strlen(verdict.detail) > 0);
	assert_int_equal(verdict.status, status);
	return verdict.code;
}

static void test_create(void **state UNUSED)
{
	assert_int_equal(judge(SPRITES_CREATE, 201, "{\"id\":\"s\",\"name\":\"sg-1\",\"status\":\"cold\"}"), PROVIDER_OK);
	assert_int_equal(judge(SPRITES_CREATE, 200, "{\"name\":\"sg-1\"}"), PROVIDER_OK);
	assert_int_equal(judge(SPRITES_CREATE, 409, "{\"error\":\"A sprite named 'sg-1' already exists.\"}"), PROVIDER_OK);
	assert_int_equal(judge(SPRITES_CREATE, 409, "not JSON"), PROVIDER_OK);
	static const char *const wrong[] = {"",
					    "{}",
					    "[]",
					    "{\"name\":7}",
					    "{\"name\":\"sg-2\"}",
					    "{\"name\":\"sg-1\"",
					    "null",
					    "{\"name\":\"sg-1\",\"name\":\"sg-1\"}"};
	for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
		assert_int_equal(judge(SPRITES_CREATE, 201, wrong[i]), PROVIDER_INVALID);
	assert_int_equal(judge(SPRITES_CREATE, 400, "{\"errors\":[\"invalid sprite name format\"]}"), PROVIDER_INVALID);
	assert_non_null(strstr(verdict.detail, "invalid sprite name format"));
	assert_int_equal(judge(SPRITES_CREATE, 302, ""), PROVIDER_INVALID);
}

static void test_limits(void **state UNUSED)
{
	assert_int_equal(
		judge(SPRITES_CREATE, 429, "{\"error\":\"sprite_creation_rate_limited\",\"message\":\"slow\",\"retry_after_seconds\":42}"),
		PROVIDER_RATE_LIMIT);
	assert_int_equal(verdict.retry_after_ms, 42000);
	assert_int_equal(judge(SPRITES_CREATE, 429, "{\"error\":\"concurrent_sprite_limit_exceeded\",\"current_count\":3}"),
			 PROVIDER_CAPACITY);
	assert_int_equal(verdict.retry_after_ms, 0);
	assert_int_equal(judge(SPRITES_CREATE, 429, "slow down"), PROVIDER_RATE_LIMIT);
	assert_int_equal(judge(SPRITES_CREATE, 429, "{\"error\":7,\"retry_after_seconds\":\"x\"}"), PROVIDER_RATE_LIMIT);
	assert_int_equal(verdict.retry_after_ms, 0);
	assert_int_equal(judge(SPRITES_CREATE, 429, "{\"retry_after_seconds\":-1}"), PROVIDER_RATE_LIMIT);
	assert_int_equal(verdict.retry_after_ms, 0);
	assert_int_equal(judge(SPRITES_CREATE, 429, "{\"retry_after_seconds\":9223372036854775807}"), PROVIDER_RATE_LIMIT);
	assert_int_equal(verdict.retry_after_ms, 24ull * 3600 * 1000);
}

static void test_body_before_field(void **state UNUSED)
{
	struct answer answer = {
		.status = 429, .retry_after_ms = 9000, .rate = RATE_FIELDS_NONE, .body = SLICE("{\"retry_after_seconds\":3}")};
	answers_judge(&verdict, SPRITES_CREATE, "sg-1", &answer);
	assert_int_equal(verdict.retry_after_ms, 3000);
	answer.body = SLICE("{}");
	answers_judge(&verdict, SPRITES_CREATE, "sg-1", &answer);
	assert_int_equal(verdict.retry_after_ms, 9000);
}

/* The body's word first, then the fields; what is not said stays unsaid. */
static void test_creation_limit(void **state UNUSED)
{
	static const struct {
		unsigned status;
		const char *body;
		struct rate_fields rate;
		uint64_t count, window_ms, left, retry_after_ms, running;
	} rows[] = {
		{429, "{\"limit\":10,\"window_seconds\":60}", {4, 0, 5000}, 10, 60000, 0, 5000, 0},
		{429, "slow down", {4, 0, 5000}, 4, 0, 0, 5000, 0},
		{429, "slow down", {4, 0, 3600000}, 4, 0, 0, 60000, 0}, /* their clock or ours is wrong */
		{429, "{\"window_seconds\":90}", {4, 0, 3600000}, 4, 90000, 0, 90000, 0},
		{429, "{\"limit\":\"x\",\"window_seconds\":-1}", RATE_FIELDS_NONE, 0, 0, UINT64_MAX, 0, 0},
		{429, "{\"limit\":3,\"retry_after_seconds\":2}", {4, 0, 5000}, 3, 0, 0, 2000, 0},
		{429, "{\"error\":\"concurrent_sprite_limit_exceeded\",\"limit\":3}", {4, 0, 5000}, 0, 0, 0, 5000, 3},
		{201, "{\"name\":\"sg-1\"}", {10, 3, 5000}, 10, 0, 3, 0, 0},
		{201, "{\"name\":\"sg-1\"}", {10, 0, 5000}, 10, 0, 0, 5000, 0},
		{201, "{\"name\":\"sg-1\"}", RATE_FIELDS_NONE, 0, 0, UINT64_MAX, 0, 0},
		{429, "{\"error\":\"concurrent_sprite_limit_exceeded\",\"limit\":-3}", RATE_FIELDS_NONE, 0, 0, 0, 0, 0},
		{500, "{\"limit\":3}", RATE_FIELDS_NONE, 0, 0, 0, 0, 0},
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct answer answer = {.status = rows[i].status, .body = slice_str(rows[i].body), .rate = rows[i].rate};
		answers_judge(&verdict, SPRITES_CREATE, "sg-1", &answer);
		assert_int_equal(verdict.limit.count, rows[i].count);
		assert_int_equal(verdict.limit.window_ms, rows[i].window_ms);
		assert_int_equal(verdict.limit.left, rows[i].left);
		assert_int_equal(verdict.limit.running, rows[i].running);
		assert_int_equal(verdict.retry_after_ms, rows[i].retry_after_ms);
	}
}

/* Only a creation uses up creations, whatever the body says. */
static void test_limits_of_other_calls(void **state UNUSED)
{
	static const struct {
		const char *body;
		enum provider_code code;
		uint64_t running;
	} rows[] = {
		{"{\"error\":\"concurrent_sprite_limit_exceeded\",\"limit\":3,\"retry_after_seconds\":9}", PROVIDER_CAPACITY, 3},
		{"{\"error\":\"sprite_creation_rate_limited\",\"limit\":10,\"retry_after_seconds\":9}", PROVIDER_THROTTLED, 0},
		{"{\"error\":\"too many requests\",\"retry_after_seconds\":9}", PROVIDER_THROTTLED, 0},
		{"slow down", PROVIDER_THROTTLED, 0},
		{"", PROVIDER_THROTTLED, 0},
	};
	for (enum sprites_call call = SPRITES_CREATE + 1; call < SPRITES_CALLS; call++)
		for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
			struct answer answer = {
				.status = 429, .retry_after_ms = 9000, .body = slice_str(rows[i].body), .rate = {10, 0, 5000}};
			answers_judge(&verdict, call, "sg-1", &answer);
			assert_int_equal(verdict.code, rows[i].code);
			assert_int_equal(verdict.not_ready, rows[i].code == PROVIDER_THROTTLED);
			assert_int_equal(verdict.retry_after_ms, 9000);
			assert_int_equal(verdict.limit.count, 0);
			assert_int_equal(verdict.limit.running, rows[i].running);
		}
}

static void check_taken(const char *labels, bool told, uint64_t parking, uint64_t taker)
{
	char body[256];
	snprintf(body, sizeof body, "{\"name\":\"sg-1\"%s}", labels);
	assert_int_equal(judge(SPRITES_LABEL, 200, body), PROVIDER_OK);
	assert_int_equal(verdict.taken.told, told);
	assert_int_equal(verdict.taken.parking, parking);
	assert_int_equal(verdict.taken.taker, taker);
}

/* What is not said, or not as we say it, never reads as free. */
static void test_who_has_taken_it(void **state UNUSED)
{
	check_taken("", false, 0, 0);
	check_taken(",\"labels\":null", false, 0, 0);
	check_taken(",\"labels\":\"taken=0000000000000001-0000000000000001\"", false, 0, 0);
	check_taken(",\"labels\":[]", true, 0, 0);
	check_taken(",\"labels\":[\"spritegate\",7,\"pool=taken\"]", true, 0, 0);
	check_taken(",\"labels\":[\"taken=00000000000006a4-ffffffffffffffff\",\"pool=a\"]", true, 1700, UINT64_MAX);
	check_taken(",\"labels\":[\"taken=0000000000000002-0000000000000009\",\"taken=0000000000000001-0000000000000008\"]", true, 2, 9);
	static const char *const strange[] = {"",
					      "x",
					      "1-1",
					      "0000000000000001",
					      "0000000000000001-",
					      "-000000000000001-0000000000000001",
					      "00000000000000001-0000000000000001",
					      "0000000000000001-00000000000000011",
					      "000000000000000A-0000000000000001"};
	for (size_t i = 0; i < ARRAY_LEN(strange); i++) {
		char labels[128];
		snprintf(labels, sizeof labels, ",\"labels\":[\"taken=0000000000000002-0000000000000009\",\"taken=%s\"]", strange[i]);
		check_taken(labels, true, UINT64_MAX, 0);
	}
}

static void test_errors(void **state UNUSED)
{
	for (enum sprites_call call = SPRITES_CREATE; call < SPRITES_CALLS; call++) {
		assert_int_equal(judge(call, 401, "{\"error\":\"authentication failed\"}"), PROVIDER_UNAUTHORIZED);
		assert_non_null(strstr(verdict.detail, "authentication failed"));
		assert_non_null(strstr(verdict.detail, sprites_call_name(call)));
		assert_int_equal(judge(call, 403, ""), PROVIDER_UNAUTHORIZED);
		assert_int_equal(judge(call, 404, "{\"error\":\"sprite not found\"}"), PROVIDER_GONE);
		assert_false(verdict.not_ready);
		assert_int_equal(judge(call, 500, "oops\nmore"), PROVIDER_UNAVAILABLE);
		assert_null(strstr(verdict.detail, "more"));
		assert_false(verdict.not_ready);
		assert_int_equal(judge(call, 502, "<html>"), PROVIDER_UNAVAILABLE);
		assert_true(verdict.not_ready);
		assert_int_equal(judge(call, 503, "{\"error\":\"sprite_starting\",\"retry_after_seconds\":5}"), PROVIDER_UNAVAILABLE);
		assert_true(verdict.not_ready);
		assert_int_equal(verdict.retry_after_ms, 5000);
		assert_int_equal(judge(call, 0, ""), PROVIDER_UNAVAILABLE);
		assert_true(verdict.not_ready);
		assert_non_null(strstr(verdict.detail, "it broke"));
		assert_int_equal(judge(call, 418, ""), PROVIDER_INVALID);
		assert_int_equal(judge(call, 101, ""), PROVIDER_INVALID);
	}
}

static void test_delete(void **state UNUSED)
{
	assert_int_equal(judge(SPRITES_DELETE, 204, ""), PROVIDER_OK);
	assert_int_equal(judge(SPRITES_DELETE, 200, "whatever"), PROVIDER_OK);
	assert_int_equal(judge(SPRITES_DELETE, 410, ""), PROVIDER_GONE);
	assert_int_equal(judge(SPRITES_DELETE, 500, "{\"error\":\"failed to delete sprite\"}"), PROVIDER_UNAVAILABLE);
	assert_true(verdict.missing_quirk);
	assert_int_equal(judge(SPRITES_GET, 500, "{\"error\":\"failed to retrieve sprite\"}"), PROVIDER_UNAVAILABLE);
	assert_true(verdict.missing_quirk);
	assert_int_equal(judge(SPRITES_DELETE, 500, "failed to delete sprite"), PROVIDER_UNAVAILABLE);
	assert_false(verdict.missing_quirk);
	assert_int_equal(judge(SPRITES_DELETE, 502, "{\"error\":\"failed to delete sprite\"}"), PROVIDER_UNAVAILABLE);
	assert_false(verdict.missing_quirk);
}

static void test_policy(void **state UNUSED)
{
	assert_int_equal(judge(SPRITES_SET_POLICY, 204, ""), PROVIDER_OK);
	assert_int_equal(judge(SPRITES_SET_POLICY, 200, "{}"), PROVIDER_OK);
	assert_int_equal(judge(SPRITES_GET_POLICY, 200, ANSWERS_POLICY), PROVIDER_OK);
	assert_int_equal(judge(SPRITES_GET_POLICY, 200, "{\"rules\" : [ {\"action\":\"deny\", \"domain\":\"*\"} ], \"v\": 1}"),
			 PROVIDER_OK);
	static const char *const wrong[] = {"",
					    "{}",
					    "{\"rules\":[]}",
					    "{\"rules\":null}",
					    "{\"rules\":[{\"domain\":\"*\",\"action\":\"allow\"}]}",
					    "{\"rules\":[{\"domain\":\"*\",\"action\":\"deny\",\"ports\":[443]}]}",
					    "{\"rules\":[{\"domain\":\"*\",\"action\":\"deny\"},{\"include\":\"defaults\"}]}",
					    "{\"rules\":{\"domain\":\"*\",\"action\":\"deny\"}}",
					    "{\"rules\":[{\"domain\":\"*\",\"action\":\"deny\"}],\"rules\":[]}",
					    "[{\"domain\":\"*\",\"action\":\"deny\"}]"};
	for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
		assert_int_equal(judge(SPRITES_GET_POLICY, 200, wrong[i]), PROVIDER_POLICY);
	assert_int_equal(judge(SPRITES_GET_POLICY, 204, ""), PROVIDER_INVALID);
}

static void test_kill(void **state UNUSED)
{
	assert_int_equal(judge(SPRITES_KILL, 200, "{\"type\":\"complete\",\"exit_code\":137}\n"), PROVIDER_OK);
	assert_int_equal(judge(SPRITES_KILL, 410, "gone"), PROVIDER_OK);
	assert_int_equal(judge(SPRITES_KILL, 404, "session not found: 1"), PROVIDER_GONE);
}

static json_t *page(const char *body, struct slice *token)
{
	struct answer answer = {.status = 200, .body = slice_str(body)};
	return answers_page(&verdict, &answer, token);
}

static void test_list(void **state UNUSED)
{
	struct slice token;
	/* "has_more" lies (sprites contract 2.3). */
	json_t *list = page("{\"sprites\":[],\"next_continuation_token\":null,\"has_more\":true}", &token);
	assert_non_null(list);
	assert_int_equal(token.len, 0);
	json_decref(list);
	list = page("{\"sprites\":[{\"name\":\"a\"},{\"name\":\"b\"}],\"next_continuation_token\":\"t\"}", &token);
	assert_non_null(list);
	assert_true(slice_equal(token, SLICE("t")));
	json_decref(list);
	list = page("{\"sprites\":[],\"next_continuation_token\":\"\"}", &token);
	assert_non_null(list);
	assert_int_equal(token.len, 0);
	json_decref(list);
	static const char *const wrong[] = {"",
					    "[]",
					    "{}",
					    "{\"sprites\":null}",
					    "{\"sprites\":{}}",
					    "{\"sprites\":[{\"id\":\"x\"}]}",
					    "{\"sprites\":[{\"name\":7}]}",
					    "{\"sprites\":[\"a\"]}",
					    "{\"sprites\":[],\"next_continuation_token\":7}",
					    "{\"sprites\":[]"};
	for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
		assert_null(page(wrong[i], &token));
		assert_int_equal(verdict.code, PROVIDER_INVALID);
	}
}

static void expect_limits(const char *counters, uint64_t running, uint64_t paused)
{
	struct slice token;
	char body[300];
	snprintf(body, sizeof body, "{\"sprites\":[]%s}", counters);
	json_t *list = page(body, &token);
	assert_non_null(list);
	json_decref(list);
	assert_int_equal(verdict.limit.running, running);
	assert_int_equal(verdict.limit.paused, paused);
	assert_int_equal(verdict.limit.count, 0);
	assert_int_equal(verdict.limit.left, UINT64_MAX);
}

static void test_limits_of_a_list(void **state UNUSED)
{
	expect_limits("", 0, 0);
	expect_limits(",\"running_limit\":10,\"warm_limit\":20", 10, 20);
	expect_limits(",\"org\":{\"running_limit\":10,\"warm_limit\":20}", 10, 20);
	expect_limits(",\"running_limit\":null,\"warm_limit\":null,\"org\":{\"running_limit\":10}", 10, 0);
	expect_limits(",\"running_limit\":3,\"org\":{\"running_limit\":10,\"warm_limit\":20}", 3, 20);
	/* Nonsense is as good as nothing: the names of the list are true all the same. */
	expect_limits(",\"running_limit\":\"10\",\"warm_limit\":-1,\"org\":[7]", 0, 0);
	expect_limits(",\"running_limit\":1.5,\"warm_limit\":1e99", 0, 0);
}

/* Whatever a body holds, a detail is one bounded text. */
static void test_long_detail(void **state UNUSED)
{
	char body[5000];
	memset(body, 'x', sizeof body - 1);
	body[sizeof body - 1] = '\0';
	assert_int_equal(judge(SPRITES_DELETE, 500, body), PROVIDER_UNAVAILABLE);
	assert_true(strlen(verdict.detail) < ANSWERS_DETAIL);
}

static bool opens(const char *profile, const char *rules)
{
	struct buf text = BUF_MAX(4096);
	char wanted[512];
	snprintf(wanted, sizeof wanted, "{\"rules\":[%s{\"domain\":\"*\",\"action\":\"deny\"}]}", rules);
	bool same = answers_open_policy(slice_str(profile), &text) == 0 && slice_equal(buf_peek(&text), slice_str(wanted));
	buf_deinit(&text);
	return same;
}

static void test_open_policy(void **state UNUSED)
{
	assert_true(opens("defaults", "{\"include\":\"defaults\"},"));
	assert_true(
		opens("a.test *.b.test", "{\"domain\":\"a.test\",\"action\":\"allow\"},{\"domain\":\"*.b.test\",\"action\":\"allow\"},"));
	static const char *const wrong[] = {"",         " ",        "*",         "none",     "com",      "a.test  b.test",
					    "A.test",   "a..test",  ".a.test",   "a.test.",  "-a.test",  "a-.test",
					    "a_b.test", "a.*.test", "**.a.test", "a.test\"", "a.test\n", "1.2.3.4/8"};
	for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
		struct buf text = BUF_MAX(4096);
		assert_int_equal(answers_open_policy(slice_str(wrong[i]), &text), -EINVAL);
		buf_deinit(&text);
	}
}

/* What was set for a claim is what must be read back; a closed network is not. */
static void test_open_policy_read_back(void **state UNUSED)
{
	static const char policy[] = "{\"rules\":[{\"domain\":\"a.test\",\"action\":\"allow\"},{\"domain\":\"*\",\"action\":\"deny\"}]}";
	static const struct {
		const char *body;
		enum provider_code code;
	} cases[] = {{policy, PROVIDER_OK}, {ANSWERS_POLICY, PROVIDER_POLICY}, {"{\"rules\":[]}", PROVIDER_POLICY}, {"", PROVIDER_POLICY}};
	for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
		struct answer answer = {
			.status = 200, .body = slice_str(cases[i].body), .rate = RATE_FIELDS_NONE, .failure = "", .policy = policy};
		answers_judge(&verdict, SPRITES_GET_POLICY, "sg-1", &answer);
		assert_int_equal(verdict.code, cases[i].code);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_create),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_body_before_field),
		cmocka_unit_test(test_creation_limit),
		cmocka_unit_test(test_limits_of_other_calls),
		cmocka_unit_test(test_who_has_taken_it),
		cmocka_unit_test(test_errors),
		cmocka_unit_test(test_delete),
		cmocka_unit_test(test_policy),
		cmocka_unit_test(test_kill),
		cmocka_unit_test(test_list),
		cmocka_unit_test(test_limits_of_a_list),
		cmocka_unit_test(test_long_detail),
		cmocka_unit_test(test_open_policy),
		cmocka_unit_test(test_open_policy_read_back),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
