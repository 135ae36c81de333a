#include "policy/known_bad.h"

#include "gateway/base/id.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdio.h>

#define KID "0123456789abcdef"

static void mac_of(unsigned number, char out[TOKEN_MAC_LEN + 1])
{
	unsigned char bytes[HMAC_BYTES];
	assert_int_equal(hmac_sha256(SLICE("pepper"), slice_of((const char *)&number, sizeof number), bytes), 0);
	hex_encode(bytes, sizeof bytes, out);
}

static void test_for_its_time(void **state UNUSED)
{
	struct known_bad known;
	char mac[TOKEN_MAC_LEN + 1], other[TOKEN_MAC_LEN + 1];
	mac_of(1, mac);
	mac_of(2, other);
	assert_int_equal(known_bad_init(&known), 0);
	assert_null(known_bad_find(&known, KID, mac, 0));
	known_bad_add(&known, KID, mac, "unknown", 1000);
	assert_string_equal(known_bad_find(&known, KID, mac, 1000), "unknown");
	assert_string_equal(known_bad_find(&known, KID, mac, 1000 + KNOWN_BAD_MS - 1), "unknown");
	assert_null(known_bad_find(&known, KID, mac, 1000 + KNOWN_BAD_MS));
	/* Neither the kid nor the secret alone is refused. */
	assert_null(known_bad_find(&known, KID, other, 1000));
	assert_null(known_bad_find(&known, "fedcba9876543210", mac, 1000));
	known_bad_add(&known, KID, mac, "bad-mac", 3000);
	assert_string_equal(known_bad_find(&known, KID, mac, 3000 + KNOWN_BAD_MS - 1), "bad-mac");
	known_bad_deinit(&known);
}

/* A flood pushes out the oldest; the table does not grow, and the newest is always there. */
static void test_flood(void **state UNUSED)
{
	struct known_bad known;
	char mac[TOKEN_MAC_LEN + 1];
	unsigned found = 0;
	assert_int_equal(known_bad_init(&known), 0);
	for (unsigned i = 0; i < 2 * KNOWN_BAD_ENTRIES; i++) {
		mac_of(i, mac);
		known_bad_add(&known, KID, mac, "unknown", 1 + i / 100);
		assert_non_null(known_bad_find(&known, KID, mac, 1 + i / 100));
	}
	for (unsigned i = 0; i < 2 * KNOWN_BAD_ENTRIES; i++) {
		mac_of(i, mac);
		found += known_bad_find(&known, KID, mac, 1000) != NULL;
	}
	assert_in_range(found, KNOWN_BAD_ENTRIES / 2, KNOWN_BAD_ENTRIES);
	known_bad_deinit(&known);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_for_its_time), cmocka_unit_test(test_flood)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
