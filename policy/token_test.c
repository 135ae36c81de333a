#include "policy/token.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdio.h>

/* Checksums and MACs computed with Python's zlib and hmac. */
#define GOOD "sgt_KKKKKKKKKKKKKKKK_ssssssssssssssssssssssssssssssss0cF3rH"

static void test_known_tokens(void **state UNUSED)
{
	static const char *const tokens[] = {
		GOOD, "sgt_0123456789abcdef_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB2KGkym",
		"sgt_0123456789abcdef_AFYCscxF3nKvdm3LQy1MNNccugtQDovs00aCID", /* a checksum with leading zeros */
	};
	for (size_t i = 0; i < ARRAY_LEN(tokens); i++) {
		struct token_parts parts;
		assert_int_equal(token_parse(slice_str(tokens[i]), &parts), 0);
		assert_true(slice_equal(parts.kid, slice_of(tokens[i] + 4, 16)));
		assert_true(slice_equal(parts.secret, slice_of(tokens[i] + 21, 32)));
	}
}

static void test_refuses(void **state UNUSED)
{
	static const char *const bad[] = {
		"",
		"sgt_",
		"sgt",
		GOOD "0",
		" " GOOD,
		GOOD " ",
		GOOD "\n",
		"Sgt_KKKKKKKKKKKKKKKK_ssssssssssssssssssssssssssssssss0cF3rH",
		"sgt-KKKKKKKKKKKKKKKK_ssssssssssssssssssssssssssssssss0cF3rH",
		"sgt_KKKKKKKKKKKKKKKK-ssssssssssssssssssssssssssssssss0cF3rH",
		"sgt_KKKKKKKKKKKKKKK__ssssssssssssssssssssssssssssssss0cF3rH",
		"sgt_KKKKKKKKKKKKKKKK_sssssssssssssssssssssssssssssss-0cF3rH",
		"sgt_KKKKKKK KKKKKKKK_ssssssssssssssssssssssssssssssss0cF3rH",
		"sgt_KKKKKKKKKKKKKKKK_ssssssssssssssssssssssssssssssss0cF3r+",
		"dstok_KKKKKKKKKKKKKK_ssssssssssssssssssssssssssssssss0cF3rH",
	};
	struct token_parts parts;
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_int_equal(token_parse(slice_str(bad[i]), &parts), TOKEN_E_FORM);
}

/* Any one character changed for another of the alphabet is noticed: CRC-32 finds every error burst this short. */
static void test_every_typo_is_found(void **state UNUSED)
{
	char text[] = GOOD;
	struct token_parts parts;
	for (size_t i = 4; i < TOKEN_LEN; i++) {
		if (i == 20)
			continue;
		char kept = text[i];
		for (char c = 'A'; c <= 'Z'; c++) {
			text[i] = c;
			int want = c == kept ? 0 : TOKEN_E_CHECKSUM;
			assert_int_equal(token_parse(slice_of(text, TOKEN_LEN), &parts), want);
		}
		text[i] = kept;
	}
}

static void test_every_byte_outside_the_alphabet_is_refused(void **state UNUSED)
{
	char text[] = GOOD;
	struct token_parts parts;
	for (int c = 0; c < 256; c++) {
		bool letter = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
		text[30] = (char)c;
		int r = token_parse(slice_of(text, TOKEN_LEN), &parts);
		assert_int_equal(r == TOKEN_E_FORM, !letter);
	}
}

static void test_mint(void **state UNUSED)
{
	char first[TOKEN_LEN + 1], second[TOKEN_LEN + 1];
	struct token_parts parts;
	assert_int_equal(token_mint(first), 0);
	assert_int_equal(token_mint(second), 0);
	assert_string_not_equal(first, second);
	assert_int_equal(strlen(first), TOKEN_LEN);
	assert_int_equal(token_parse(slice_str(first), &parts), 0);
	assert_true(token_kid_is_valid(parts.kid));
}

static void test_kid(void **state UNUSED)
{
	assert_true(token_kid_is_valid(SLICE("0123456789abcDEF")));
	assert_false(token_kid_is_valid(SLICE("0123456789abcDE")));
	assert_false(token_kid_is_valid(SLICE("0123456789abcDEF0")));
	assert_false(token_kid_is_valid(SLICE("0123456789abcDE*")));
	assert_false(token_kid_is_valid((struct slice){0}));
}

static void test_mac(void **state UNUSED)
{
	struct secret pepper, other;
	char mac[TOKEN_MAC_LEN + 1], id[TOKEN_PEPPER_ID_LEN + 1], other_id[TOKEN_PEPPER_ID_LEN + 1];
	assert_int_equal(secret_init(&pepper, SLICE("pepper")), 0);
	assert_int_equal(secret_init(&other, SLICE("salt")), 0);
	assert_int_equal(token_mac(&pepper, SLICE("ssssssssssssssssssssssssssssssss"), mac), 0);
	assert_string_equal(mac, "777313a1341fe846c0277385007a375a52e7358cd483c99053d93a383b163a71");
	assert_int_equal(token_pepper_id(&pepper, id), 0);
	assert_string_equal(id, "75e06a2b");
	assert_int_equal(token_pepper_id(&other, other_id), 0);
	assert_string_not_equal(id, other_id);
	secret_deinit(&pepper);
	secret_deinit(&other);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_known_tokens),
		cmocka_unit_test(test_refuses),
		cmocka_unit_test(test_every_typo_is_found),
		cmocka_unit_test(test_every_byte_outside_the_alphabet_is_refused),
		cmocka_unit_test(test_mint),
		cmocka_unit_test(test_kid),
		cmocka_unit_test(test_mac),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
