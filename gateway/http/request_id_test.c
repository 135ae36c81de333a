#include "gateway/http/request_id.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <string.h>

static void test_ids(void **state UNUSED)
{
	struct request_id_source source = {.left = 0};
	char first[ID_UUID_LEN + 1], next[ID_UUID_LEN + 1];
	assert_int_equal(request_id_next(&source, 0x0123456789ab, first), 0);
	assert_memory_equal(first, "01234567-89ab-7", 15);
	assert_true(strchr("89ab", first[19]) != NULL);
	assert_int_equal(strlen(first), ID_UUID_LEN);
	for (size_t i = 0; i < 3 * REQUEST_ID_BATCH; i++) {
		assert_int_equal(request_id_next(&source, 0x0123456789ab, next), 0);
		assert_string_not_equal(first, next);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_ids)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
