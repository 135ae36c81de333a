#include "gateway/pool/member_name.h"

#include "gateway/base/id.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define ULID "0123456789abcdefghjkmnpqrs"

static void instances_are_made_fit(void **state)
{
	(void)state;
	static const struct {
		const char *text, *instance;
	} rows[] = {
		{"7811340f773d98", "7811340f773d98"},
		{"a", "a"},
		{"gw-1", "gw-1"},
		{"abcdefghijklmnopqrstuvwxyz01", "abcdefghijklmnopqrstuvwxyz01"},
		{"web.example.org:8080", "web-example-org-8080-4d18c1"},
		{"GW-1", "gw-1-643df1"},
		{"gw--1", "gw-1-0b6a7c"},
		{"-gw", "gw-9ccc95"},
		{"gw-", "gw-2f7d35"},
		{"gw_1", "gw-1-9556b9"},
		{"abcdefghijklmnopqrstuvwxyz012", "abcdefghijklmnopqrstu-70036a"},
		{"abcdefghijklmnopqrstuvwxyz013", "abcdefghijklmnopqrstu-7002fc"},
		{"[::]", "23195f"},
		{"\xc3\xa9t\xc3\xa9", "t-b588e8"},
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		char out[MEMBER_NAME_INSTANCE_MAX + 1];
		assert_int_equal(member_name_instance(out, slice_str(rows[i].text)), 0);
		assert_string_equal(out, rows[i].instance);
	}
	char out[MEMBER_NAME_INSTANCE_MAX + 1];
	assert_int_equal(member_name_instance(out, SLICE("")), -EINVAL);
}

/* Whatever the text: 1 … 28 characters of the allowed set, no hyphen at either end. */
static void every_instance_is_a_valid_part_of_a_name(void **state)
{
	(void)state;
	char text[64];
	for (size_t len = 1; len <= sizeof text; len++)
		for (int round = 0; round < 200; round++) {
			assert_int_equal(id_random(text, len), 0);
			for (size_t i = 0; i < len && round % 2; i++)
				text[i] = "ab-._Z9"[(unsigned char)text[i] % 7];
			char out[MEMBER_NAME_INSTANCE_MAX + 1];
			assert_int_equal(member_name_instance(out, slice_of(text, len)), 0);
			size_t n = strlen(out);
			assert_true(n >= 1 && n <= MEMBER_NAME_INSTANCE_MAX);
			assert_int_equal(strspn(out, "abcdefghijklmnopqrstuvwxyz0123456789-"), n);
			assert_true(out[0] != '-' && out[n - 1] != '-');
		}
}

static void names_have_their_form(void **state)
{
	(void)state;
	char name[PROVIDER_NAME_MAX + 1], gen[MEMBER_NAME_GEN_LEN + 1], other[MEMBER_NAME_GEN_LEN + 1];
	member_name_generation(gen, SLICE("policy 1"));
	member_name_generation(other, SLICE("policy 2"));
	assert_string_not_equal(gen, other);
	assert_int_equal(strspn(gen, "0123456789abcdef"), 4);
	member_name_make(name, "abcdefghijklmnopqrstuvwxyz01", "0a1b", ULID);
	assert_string_equal(name, "sg-abcdefghijklmnopqrstuvwxyz01-0a1b-" ULID);
	assert_int_equal(strlen(name), 63);
	char prefix[MEMBER_NAME_PREFIX_MAX + 1];
	member_name_prefix(prefix, "gw");
	assert_string_equal(prefix, "sg-gw-");
}

static void a_name_belongs_to_one_instance(void **state)
{
	(void)state;
	static const struct {
		const char *name, *instance;
		bool belongs;
	} rows[] = {
		{"sg-gw-0a1b-" ULID, "gw", true},
		{"sg-gw-ffff-" ULID, "gw", true},
		{"sg-gw-2-0a1b-" ULID, "gw", false},
		{"sg-gw-2-0a1b-" ULID, "gw-2", true},
		{"sg-gw-beef-0a1b-" ULID, "gw", false},
		{"sg-gw-beef-0a1b-" ULID, "gw-beef", true},
		{"sg-gw-0a1b-" ULID "x", "gw", false},
		{"sg-gw-0a1b-0123456789abcdefghjkmnpqr", "gw", false},
		{"sg-gw-0a1b-0123456789ABCDEFGHJKMNPQRS", "gw", false},
		{"sg-gw-0A1B-" ULID, "gw", false},
		{"sg-gw-0a1b_" ULID, "gw", false},
		{"sg-gwx-0a1b-" ULID, "gw", false},
		{"gw-0a1b-" ULID, "gw", false},
		{"sg-gw-", "gw", false},
		{"", "gw", false},
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++)
		assert_int_equal(member_name_belongs(rows[i].name, rows[i].instance), rows[i].belongs);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(instances_are_made_fit),
		cmocka_unit_test(every_instance_is_a_valid_part_of_a_name),
		cmocka_unit_test(names_have_their_form),
		cmocka_unit_test(a_name_belongs_to_one_instance),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
