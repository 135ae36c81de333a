#include "gateway/http/problem.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>

static void test_problem(void **state UNUSED)
{
	struct buf body = BUF_MAX(4096);
	struct http_problem problem = {.status = 422,
				       .code = "invalid-request",
				       .detail = SLICE("a \"quoted\"\n\xff thing"),
				       .request_id = SLICE("0193"),
				       .extra = SLICE("\"errors\":[]")};
	assert_int_equal(http_problem_write(&problem, &body), 0);
	assert_true(slice_equal(
		buf_peek(&body),
		SLICE("{\"type\":\"https://spritegate.invalid/problems/invalid-request\",\"title\":\"Some fields of the request cannot be used\",\"status\":422,"
		      "\"detail\":\"a \\\"quoted\\\"\\n\xef\xbf\xbd thing\",\"code\":\"invalid-request\","
		      "\"request_id\":\"0193\",\"instance\":\"urn:uuid:0193\",\"ok\":false,\"errors\":[]}\n")));
	buf_deinit(&body);
	struct buf small = BUF_MAX(20);
	assert_int_equal(http_problem_write(&problem, &small), -EMSGSIZE);
	buf_deinit(&small);
	struct http_fields fields;
	http_fields_clear(&fields);
	assert_int_equal(http_problem_fields(&fields), 0);
	assert_true(slice_equal(http_fields_value(&fields, SLICE("cache-control")), SLICE("no-store")));
	fields.count = HTTP_FIELDS_MAX - 1;
	assert_int_equal(http_problem_fields(&fields), -E2BIG);
}

static void test_types(void **state UNUSED)
{
	CLEANUP(buf_deinit) struct buf body = BUF_MAX(4096);
	struct http_problem problem = {.status = 429, .code = "quota-exceeded"};
	assert_int_equal(http_problem_write(&problem, &body), 0);
	assert_non_null(memmem(body.data, body.len, "\"https://iana.org/assignments/http-problem-types#quota-exceeded\"", 64));
	problem.code = "nobody-knows";
	assert_int_equal(http_problem_write(&problem, &body), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_problem), cmocka_unit_test(test_types)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
