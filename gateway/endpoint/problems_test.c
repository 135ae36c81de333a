#include "gateway/endpoint/problems.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdio.h>

static void expect(struct exec_problem problem, unsigned status, const char *code, const char *reason, const char *extra)
{
	assert_int_equal(problem.status, status);
	assert_string_equal(problem.code, code);
	assert_string_equal(problem.reason, reason);
	if (!slice_equal(buf_peek(&problem.extra), slice_str(extra)))
		fail_msg("%.*s is not %s", SLICE_FMT(buf_peek(&problem.extra)), extra);
	exec_problem_deinit(&problem);
}

static void test_quota(void **state UNUSED)
{
	struct admission_answer answer = {.violated = "[\"budget\"]", .retry_after_ms = 86000001};
	expect(exec_problem_quota(&answer), 429, "quota-exceeded", "budget", "\"violated-policies\":[\"budget\"],\"retry_after\":86001");
	strcpy(answer.exec_budget, "limit=600000, used=1000, held=30000, reset=86001");
	expect(exec_problem_quota(&answer), 429, "quota-exceeded", "budget",
	       "\"violated-policies\":[\"budget\"],\"retry_after\":86001,\"budget\":{\"limit\":600000,\"used\":1000,\"held\":30000,\"reset\":86001}");
	answer = (struct admission_answer){.violated = "[\"rate\",\"actor-concurrency\"]", .retry_after_ms = 1};
	expect(exec_problem_quota(&answer), 429, "quota-exceeded", "concurrency",
	       "\"violated-policies\":[\"rate\",\"actor-concurrency\"],\"retry_after\":1");
}

/* A name is cut between characters, and a policy told only when there is one. */
static void test_denied(void **state UNUSED)
{
	struct admission_answer answer = {.policy_version = 3};
	char program[300], extra[400];
	memset(program, 'x', sizeof program);
	memcpy(program + 255, "\303\244", 3);
	expect(exec_problem_denied("a\"b", &answer), 403, "command-denied", "command", "\"command\":\"a\\\"b\"");
	snprintf(extra, sizeof extra, "\"command\":\"%.255s\"", program);
	expect(exec_problem_denied(program, &answer), 403, "command-denied", "command", extra);
	strcpy(answer.policy, "agents");
	expect(exec_problem_denied("ls", &answer), 403, "command-denied", "command",
	       "\"command\":\"ls\",\"policy\":\"agents\",\"policy_version\":3");
	strcpy(answer.variable, "PATH");
	expect(exec_problem_variable(&answer), 403, "environment-denied", "environment",
	       "\"variable\":\"PATH\",\"policy\":\"agents\",\"policy_version\":3");
	expect(exec_problem_network(&answer), 403, "ip-denied", "network", "\"policy\":\"agents\",\"policy_version\":3");
	expect(exec_problem_scope(&answer), 403, "insufficient-scope", "scope",
	       "\"required\":\"exec:run\",\"policy\":\"agents\",\"policy_version\":3");
	answer.max_input_bytes = 5;
	expect(exec_problem_input(&answer), 413, "body-too-large", "body_limit",
	       "\"limit_bytes\":5,\"policy\":\"agents\",\"policy_version\":3");
	answer.policy[0] = '\0';
	expect(exec_problem_network(&answer), 403, "ip-denied", "network", "");
	expect(exec_problem_scope(&answer), 403, "insufficient-scope", "scope", "\"required\":\"exec:run\"");
}

static void test_bodies(void **state UNUSED)
{
	struct json_failure failure = {.text = "why", .pointer = "/a\"", .position = 7};
	struct exec_problem problem = exec_problem_malformed(&failure);
	assert_non_null(strstr(problem.detail, "why (byte 7;"));
	expect(problem, 400, "malformed-request", "invalid_request", "\"pointer\":\"/a\\\"\"");
	problem = exec_problem_too_large("body", 10);
	assert_non_null(strstr(problem.detail, "body is larger than the limit of 10 bytes"));
	expect(problem, 413, "body-too-large", "body_limit", "\"limit_bytes\":10");
	expect(exec_problem_capacity("draining", "why"), 503, "temporary-reduced-capacity", "draining",
	       "\"violated-policies\":[\"fleet\"],\"retry_after\":2");
}

static void test_retry_after(void **state UNUSED)
{
	assert_int_equal(exec_retry_after_seconds(0), 1);
	assert_int_equal(exec_retry_after_seconds(1), 1);
	assert_int_equal(exec_retry_after_seconds(1001), 2);
	assert_int_equal(exec_retry_after_seconds(10000), 10);
	for (int i = 0; i < 100; i++) {
		assert_in_range(exec_retry_after_seconds(100000), 100, 110);
		assert_in_range(exec_retry_after_seconds(3600000), 3600, 3630);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_quota), cmocka_unit_test(test_denied), cmocka_unit_test(test_bodies),
					   cmocka_unit_test(test_retry_after)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
