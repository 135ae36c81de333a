#include "gateway/cache/cache_control.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static struct cache_control parse(const char *one, const char *two)
{
	struct cache_control control;
	struct http_fields fields;
	http_fields_clear(&fields);
	assert_int_equal(http_fields_add(&fields, SLICE("Cache-Control"), slice_str(one)), 0);
	if (two)
		assert_int_equal(http_fields_add(&fields, SLICE("cache-control"), slice_str(two)), 0);
	cache_control_parse(&fields, &control);
	return control;
}

static void test_lifetimes(void **state UNUSED)
{
	static const struct {
		const char *text;
		uint64_t max_age, s_maxage;
	} rows[] = {
		{"max-age=5", 5, CACHE_CONTROL_NONE},
		{"MAX-AGE=\"5\" , public", 5, CACHE_CONTROL_NONE},
		{",, max-age=0,", 0, CACHE_CONTROL_NONE},
		{"s-maxage=7,max-age=5", 5, 7},
		{"x=\"max-age=9, \\\"\", max-age=5", 5, CACHE_CONTROL_NONE},
		{"max-age=99999999999999999999", 1u << 31, CACHE_CONTROL_NONE},
		{"", CACHE_CONTROL_NONE, CACHE_CONTROL_NONE},
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct cache_control control = parse(rows[i].text, NULL);
		assert_true(control.present && !control.broken && !control.forbids);
		assert_true(control.max_age == rows[i].max_age && control.s_maxage == rows[i].s_maxage);
	}
	assert_true(parse("max-age=5", "max-age=5").max_age == 5);
}

static void test_what_cannot_be_read(void **state UNUSED)
{
	static const char *const rows[] = {"max-age",     "max-age=", "max-age=-1", "max-age=5x", "max-age=\"5", "max-age=5 6",
					   "max-age=1.5", "=5",       "a b",        "x=\"\\",     "max-age=5;x", "max-age=5, max-age=6"};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		assert_true(parse(rows[i], NULL).broken);
	assert_true(parse("max-age=5", "max-age=6").broken);
	assert_true(parse("public", "\"").broken);
}

static void test_what_forbids(void **state UNUSED)
{
	static const char *const rows[] = {"no-store", "private", "no-cache", "max-age=5, Private=\"x\"",
					   "no-cache=\"set-cookie\", max-age=5"};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		assert_true(parse(rows[i], NULL).forbids);
	assert_true(parse("max-age=5", "no-store").forbids);
	assert_false(parse("max-age=5, x=\"no-store\", no-stores", NULL).forbids);
}

static void test_what_may_be_stale(void **state UNUSED)
{
	assert_true(parse("max-age=5", NULL).stale == CACHE_CONTROL_NONE);
	assert_true(parse("max-age=5, Stale-While-Revalidate=60", NULL).stale == 60);
	assert_true(parse("max-age=5, stale-while-revalidate=x", NULL).broken);
	assert_true(parse("max-age=5, stale-while-revalidate=6, stale-while-revalidate=7", NULL).broken);
	assert_false(parse("max-age=5, stale-while-revalidate=60, stale-if-error=9", NULL).revalidates);
	static const char *const rows[] = {"must-revalidate", "max-age=5, Proxy-Revalidate", "s-maxage=5"};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		assert_true(parse(rows[i], NULL).revalidates);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lifetimes),
		cmocka_unit_test(test_what_cannot_be_read),
		cmocka_unit_test(test_what_forbids),
		cmocka_unit_test(test_what_may_be_stale),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
