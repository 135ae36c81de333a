#include "gateway/endpoint/reply.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void test_bearer(void **state UNUSED)
{
	static const struct {
		const char *value, *token;
		int result;
	} rows[] = {
		{"Bearer abc", "abc", 0},
		{"bearer   a.b-c_~+/==", "a.b-c_~+/==", 0},
		{" Bearer abc ", "abc", 0},
		{"", NULL, EXEC_BEARER_MISSING},
		{"Basic abc", NULL, EXEC_BEARER_MISSING},
		{"Bearerabc", NULL, EXEC_BEARER_MISSING},
		{"Bearer", NULL, EXEC_BEARER_SYNTAX},
		{"Bearer ", NULL, EXEC_BEARER_SYNTAX},
		{"Bearer =", NULL, EXEC_BEARER_SYNTAX},
		{"Bearer a b", NULL, EXEC_BEARER_SYNTAX},
		{"Bearer a,b", NULL, EXEC_BEARER_SYNTAX},
		{"Bearer a\"", NULL, EXEC_BEARER_SYNTAX},
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct slice token;
		int r = exec_bearer_token(slice_str(rows[i].value), &token);
		if (r != rows[i].result)
			fail_msg("\"%s\": %d, expected %d", rows[i].value, r, rows[i].result);
		if (r == 0)
			assert_true(slice_equal(token, slice_str(rows[i].token)));
	}
}

/* The first of two could be what one of two readers sees, the second what the other sees. */
static void test_two_authorizations(void **state UNUSED)
{
	struct http_fields fields = {0};
	struct slice token;
	assert_int_equal(exec_authorization(&fields, &token), EXEC_BEARER_MISSING);
	assert_int_equal(http_fields_add(&fields, SLICE("authorization"), SLICE("Bearer abc")), 0);
	assert_int_equal(exec_authorization(&fields, &token), 0);
	assert_true(slice_equal(token, SLICE("abc")));
	assert_int_equal(http_fields_add(&fields, SLICE("Authorization"), SLICE("Bearer abc")), 0);
	assert_int_equal(exec_authorization(&fields, &token), EXEC_BEARER_SYNTAX);
}

/* A command whose end is not known has printed a lot: all of it is told. */
static void test_large_problem(void **state UNUSED)
{
	struct exec_result result = {.outcome = EXEC_UNKNOWN, .tier = "hot", .detail = "The connection broke."};
	struct http_head head = {.id = SLICE("the-request")};
	struct exec_reply reply;
	struct exec_job *job = exec_job_new("0193e3f0-0000-7000-8000-000000000000");
	CLEANUP(buf_deinit) struct buf body = BUF_MAX(EXEC_ANSWER_MAX + 4096);
	static char printed[300000];
	memset(printed, 'p', sizeof printed);
	output_init(&result.streams[0], sizeof printed);
	output_init(&result.streams[1], 100);
	assert_int_equal(output_feed(&result.streams[0], slice_of(printed, sizeof printed)), 0);
	assert_int_equal(exec_answer_write(&result, job->message.exec_id, &job->answer), 0);
	exec_reply_init(&reply, &head, job->message.exec_id);
	assert_int_equal(exec_reply_job_body(&reply, job, &body), 0);
	struct json_failure failure;
	json_t *json = json_parse(buf_peek(&body), 32, &failure);
	assert_int_equal(json_string_length(json_object_get(json, "stdout")), sizeof printed);
	assert_string_equal(json_string_value(json_object_get(json, "code")), "outcome-unknown");
	assert_string_equal(json_string_value(json_object_get(json, "request_id")), "the-request");
	assert_true(json_is_true(json_object_get(json, "may_have_run")));
	json_decref(json);
	exec_job_free(job);
	output_deinit(&result.streams[0]);
	output_deinit(&result.streams[1]);
}

static void test_media_type(void **state UNUSED)
{
	assert_true(exec_is_json(SLICE("application/json")));
	assert_true(exec_is_json(SLICE("Application/JSON; charset=utf-8")));
	assert_false(exec_is_json(SLICE("")));
	assert_false(exec_is_json(SLICE("text/plain")));
	assert_false(exec_is_json(SLICE("application/jsonx")));
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_bearer), cmocka_unit_test(test_media_type),
					   cmocka_unit_test(test_two_authorizations), cmocka_unit_test(test_large_problem)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
