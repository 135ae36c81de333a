#include "gateway/http/status.h"

#include "gateway/base/attr.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <microhttpd.h>

static void test_phrases(void **state UNUSED)
{
	assert_string_equal(http_status_phrase(404), "Not Found");
	static const unsigned nameless[] = {0, 99, 299, 419, 512, 599, 600, 1000, 0x80000000 | 200};
	for (size_t i = 0; i < ARRAY_LEN(nameless); i++)
		assert_string_equal(http_status_phrase(nameless[i]), "");
}

/* libmicrohttpd must ask us. */
static void test_libmicrohttpd(void **state UNUSED)
{
	assert_string_equal(MHD_get_reason_phrase_for(418), "I'm a Teapot");
	assert_int_equal(MHD_get_reason_phrase_len_for(299), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_phrases), cmocka_unit_test(test_libmicrohttpd)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
