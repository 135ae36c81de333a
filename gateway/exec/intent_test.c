#include "gateway/exec/intent.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void pages(void **state UNUSED)
{
	assert_true(exec_intent_is_page(SLICE("/-/agent")));
	assert_true(exec_intent_is_page(SLICE("/-/agent/01M80PFX7C9FH8PH9HZBBVVV17/stream")));
	assert_false(exec_intent_is_page(SLICE("/-/agents")));
	assert_false(exec_intent_is_page(SLICE("/-/agen")));
	assert_false(exec_intent_is_page(SLICE("/db/-/agent")));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pages),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
