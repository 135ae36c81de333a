#include "gateway/endpoint/origin.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

struct sent {
	const char *name, *value;
};

struct row {
	bool own;
	const char *method, *scheme;
	struct sent fields[4];
};

#define COOK {"Cookie", "ds_actor=x"}

static const struct row rows[] = {
	/* No browser. */
	{true, "POST", "http", {COOK}},
	{true, "POST", "http", {{"Authorization", "Basic eA=="}}},
	/* Reading is no danger: the answer cannot be read by others. */
	{true, "GET", "http", {COOK, {"Origin", "http://evil.example"}}},
	{true, "HEAD", "http", {COOK, {"Sec-Fetch-Site", "cross-site"}}},
	{true, "OPTIONS", "http", {COOK, {"Sec-Fetch-Site", "cross-site"}}},
	{false, "get", "http", {COOK, {"Sec-Fetch-Site", "cross-site"}}},
	{false, "DELETE", "http", {COOK, {"Sec-Fetch-Site", "cross-site"}}},
	/* A token that no browser adds by itself, and nothing beside it. */
	{true, "POST", "http", {{"Authorization", "bearer dstok_x"}, {"Origin", "http://evil.example"}, {"Sec-Fetch-Site", "cross-site"}}},
	{false, "POST", "http", {{"Authorization", "Bearer dstok_x"}, COOK, {"Origin", "http://evil.example"}}},
	{false, "POST", "http", {{"Authorization", "Bearer dstok_x"}, {"Cookie", ""}, {"Origin", "http://evil.example"}}},
	{false, "POST", "http", {{"Authorization", "Basic eA=="}, {"Sec-Fetch-Site", "cross-site"}}},
	{false, "POST", "http", {{"Authorization", "Bearerdstok_x"}, {"Sec-Fetch-Site", "cross-site"}}},
	/* What browsers say. */
	{true, "POST", "http", {COOK, {"Sec-Fetch-Site", "same-origin"}}},
	{true, "POST", "http", {COOK, {"Sec-Fetch-Site", "none"}}},
	{true, "POST", "http", {COOK, {"Sec-Fetch-Site", "same-origin"}, {"Origin", "http://evil.example"}}},
	{false, "POST", "http", {COOK, {"Sec-Fetch-Site", "same-site"}}},
	{false, "POST", "http", {COOK, {"Sec-Fetch-Site", "cross-site"}, {"Origin", "http://data.example"}}},
	{false, "POST", "http", {COOK, {"Sec-Fetch-Site", ""}}},
	{false, "POST", "http", {COOK, {"Sec-Fetch-Site", "Same-Origin"}}},
	{false, "POST", "http", {COOK, {"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "none"}}},
	/* Older ones. */
	{true, "POST", "http", {COOK, {"Origin", "http://data.example"}}},
	{true, "POST", "http", {COOK, {"Origin", "HTTP://DATA.example:80"}}},
	{true, "POST", "https", {COOK, {"Origin", "https://data.example:443"}}},
	{false, "POST", "https", {COOK, {"Origin", "http://data.example"}}},
	{false, "POST", "http", {COOK, {"Origin", "https://data.example"}}},
	{false, "POST", "http", {COOK, {"Origin", "http://data.example:8080"}}},
	{false, "POST", "http", {COOK, {"Origin", "http://evil.example"}}},
	{false, "POST", "http", {COOK, {"Origin", "http://data.example.evil.example"}}},
	{false, "POST", "http", {COOK, {"Origin", "http://evil.example@data.example"}}},
	{false, "POST", "http", {COOK, {"Origin", "http://data.example/"}}},
	{false, "POST", "http", {COOK, {"Origin", "null"}}},
	{false, "POST", "http", {COOK, {"Origin", ""}}},
	{false, "POST", "http", {COOK, {"Origin", "http://"}}},
	{false, "POST", "http", {COOK, {"Origin", "http://data.example"}, {"Origin", "http://evil.example"}}},
};

static void test_rows(void **state UNUSED)
{
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct http_fields fields = {0};
		for (size_t j = 0; j < ARRAY_LEN(rows[i].fields) && rows[i].fields[j].name; j++)
			assert_int_equal(http_fields_add(&fields, slice_str(rows[i].fields[j].name), slice_str(rows[i].fields[j].value)),
					 0);
		struct http_head head = {.method = slice_str(rows[i].method), .host = SLICE("data.example"), .fields = &fields};
		if (origin_is_own(&head, slice_str(rows[i].scheme)) != rows[i].own)
			fail_msg("row %zu", i);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_rows)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
