#include "policy/admission.h"
#include "policy/fields.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#define LIMIT_SIZE  sizeof(((struct admission_answer *)0)->rate_limit)
#define POLICY_SIZE sizeof(((struct admission_answer *)0)->rate_limit_policy)
#define BUDGET_SIZE sizeof(((struct admission_answer *)0)->exec_budget)

static void expect(const struct fields_state *fields, const char *limit, const char *policy, const char *budget)
{
	char out[512];
	fields_rate_limit(fields, out, LIMIT_SIZE);
	assert_string_equal(out, limit);
	fields_rate_limit_policy(fields, out, POLICY_SIZE);
	assert_string_equal(out, policy);
	fields_exec_budget(fields, out, BUDGET_SIZE);
	assert_string_equal(out, budget);
}

static void test_the_documented_example(void **state UNUSED)
{
	struct fields_state fields = {
		.rate = {.count = 60, .per_ms = 60000, .burst = 5, .left = 2, .reset_us = 2500000},
		.concurrency = {.limit = 3, .running = 3},
		.budget = {.limit_ms = 600000, .used_ms = 181200, .held_ms = 90000, .reset_us = 15576000001},
	};
	expect(&fields, "\"rate\";r=2;t=3, \"concurrency\";r=0",
	       "\"rate\";q=60;w=60;sg-burst=5, \"concurrency\";q=3;qu=\"concurrent-requests\"",
	       "limit=600000, used=181200, held=90000, reset=15577");
}

static void test_all_limits(void **state UNUSED)
{
	struct fields_state fields = {
		.rate = {.count = 1, .per_ms = 1000, .burst = 1, .left = 0, .reset_us = 1},
		.actor_rate = {.count = 100, .per_ms = 3600000, .burst = 20, .left = 20, .reset_us = 0},
		.concurrency = {.limit = 3, .running = 1},
		.actor_concurrency = {.limit = 2, .running = 5},
	};
	expect(&fields, "\"rate\";r=0;t=1, \"actor-rate\";r=20;t=0, \"concurrency\";r=2, \"actor-concurrency\";r=0",
	       "\"rate\";q=1;w=1;sg-burst=1, \"actor-rate\";q=100;w=3600;sg-burst=20, "
	       "\"concurrency\";q=3;qu=\"concurrent-requests\", \"actor-concurrency\";q=2;qu=\"concurrent-requests\"",
	       "");
}

static void test_output_alone(void **state UNUSED)
{
	struct fields_state fields = {.budget = {.out_limit = 10, .out_used = 3, .out_held = 2, .reset_us = 1}};
	expect(&fields, "", "", "out_limit=10, out_used=3, out_held=2, reset=1");
}

static void test_nothing(void **state UNUSED)
{
	expect(&(struct fields_state){0}, "", "", "");
}

/* The longest values that the bounds of `token create` allow fit into an answer, whole. */
static void test_the_longest(void **state UNUSED)
{
	struct fields_rate rate = {.count = 1000000, .per_ms = 31536000000, .burst = 1000000, .left = 1000000, .reset_us = UINT64_MAX};
	struct fields_state fields = {
		.rate = rate,
		.actor_rate = rate,
		.concurrency = {.limit = 1000},
		.actor_concurrency = {.limit = 1000},
		.budget = {1000000000000, 1000000000000, 1000000000000, 86400000000, 1099511627776, 1099511627776, 1099511627776},
	};
	expect(&fields,
	       "\"rate\";r=1000000;t=31536000, \"actor-rate\";r=1000000;t=31536000, \"concurrency\";r=1000, "
	       "\"actor-concurrency\";r=1000",
	       "\"rate\";q=1000000;w=31536000;sg-burst=1000000, \"actor-rate\";q=1000000;w=31536000;sg-burst=1000000, "
	       "\"concurrency\";q=1000;qu=\"concurrent-requests\", \"actor-concurrency\";q=1000;qu=\"concurrent-requests\"",
	       "limit=1000000000000, used=1000000000000, held=1000000000000, "
	       "out_limit=1099511627776, out_used=1099511627776, out_held=1099511627776, reset=86400");
}

/* What does not fit is left out whole, whatever the size. */
static void test_never_half_an_item(void **state UNUSED)
{
	struct fields_state fields = {
		.rate = {.count = 60, .per_ms = 60000, .burst = 5},
		.concurrency = {.limit = 3},
	};
	static const char *const allowed[] = {"", "\"concurrency\";r=3", "\"rate\";r=0;t=0", "\"rate\";r=0;t=0, \"concurrency\";r=3"};
	for (size_t size = 1; size < 60; size++) {
		char out[60];
		memset(out, 'x', sizeof out);
		fields_rate_limit(&fields, out, size);
		size_t i = 0;
		while (i < ARRAY_LEN(allowed) && strcmp(out, allowed[i]) != 0)
			i++;
		assert_true(i < ARRAY_LEN(allowed));
		assert_true(strlen(out) < size);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_documented_example),
		cmocka_unit_test(test_all_limits),
		cmocka_unit_test(test_nothing),
		cmocka_unit_test(test_output_alone),
		cmocka_unit_test(test_the_longest),
		cmocka_unit_test(test_never_half_an_item),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
