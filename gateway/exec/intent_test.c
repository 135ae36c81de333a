#include "gateway/exec/intent.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void pages(void **state UNUSED)
{
	struct http_fields fields = {0};
	assert_int_equal(http_fields_add(&fields, SLICE("Accept"), SLICE("*/*")), 0);
	assert_int_equal(http_fields_add(&fields, SLICE("cookie"), SLICE("ds_actor=x")), 0);
	assert_true(exec_intent_is_page(SLICE("/-/agent"), &fields));
	assert_true(exec_intent_is_page(SLICE("/-/agent/01M80PFX7C9FH8PH9HZBBVVV17/stream"), &fields));
	assert_false(exec_intent_is_page(SLICE("/-/agents"), &fields));
	assert_false(exec_intent_is_page(SLICE("/-/agen"), &fields));
	assert_false(exec_intent_is_page(SLICE("/db/-/agent"), &fields));
}

static void who_may_be_signed_in(void **state UNUSED)
{
	struct http_fields fields = {0};
	assert_false(exec_intent_is_page(SLICE("/-/agent"), &fields));
	assert_int_equal(http_fields_add(&fields, SLICE("User-Agent"), SLICE("a crawler")), 0);
	assert_false(exec_intent_is_page(SLICE("/-/agent"), &fields));
	assert_int_equal(http_fields_add(&fields, SLICE("authorization"), SLICE("Bearer dstok_x")), 0);
	assert_true(exec_intent_is_page(SLICE("/-/agent"), &fields));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pages),
		cmocka_unit_test(who_may_be_signed_in),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
