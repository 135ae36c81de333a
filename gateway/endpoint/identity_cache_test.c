#include "gateway/endpoint/identity_cache.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define KEEP_MS 5000

struct key {
	unsigned char bytes[IDENTITY_CACHE_KEY];
};

static struct key key_of(const struct identity_cache *cache, const char *sent)
{
	struct key key;
	assert_int_equal(identity_cache_key(cache, slice_str(sent), key.bytes), 0);
	return key;
}

static struct identity ann(void)
{
	return (struct identity){.result = IDENTITY_KNOWN, .who = {.actor = "ann", .policy = "staff"}};
}

static void test_so_long_and_no_longer(void **state UNUSED)
{
	struct identity_cache cache;
	assert_int_equal(identity_cache_init(&cache, KEEP_MS), 0);
	struct key key = key_of(&cache, "Cookie: a"), other = key_of(&cache, "Cookie: b");
	struct identity identity = ann();
	identity_cache_put(&cache, key.bytes, &identity, 1000);
	assert_string_equal(identity_cache_find(&cache, key.bytes, 1000)->who.actor, "ann");
	assert_non_null(identity_cache_find(&cache, key.bytes, 1000 + KEEP_MS - 1));
	assert_null(identity_cache_find(&cache, key.bytes, 1000 + KEEP_MS));
	assert_null(identity_cache_find(&cache, other.bytes, 1000));
	identity.result = IDENTITY_ANONYMOUS;
	identity_cache_put(&cache, key.bytes, &identity, 2000);
	assert_int_equal(identity_cache_find(&cache, key.bytes, 2000)->result, IDENTITY_ANONYMOUS);
	identity_cache_deinit(&cache);
}

static void test_nothing_is_kept_without_a_time(void **state UNUSED)
{
	struct identity_cache cache;
	assert_int_equal(identity_cache_init(&cache, 0), 0);
	struct key key = key_of(&cache, "Cookie: a");
	struct identity identity = ann();
	identity_cache_put(&cache, key.bytes, &identity, 1000);
	assert_null(identity_cache_find(&cache, key.bytes, 1000));
	identity_cache_deinit(&cache);
}

static void test_keys_differ_between_endpoints(void **state UNUSED)
{
	struct identity_cache a, b;
	assert_int_equal(identity_cache_init(&a, KEEP_MS), 0);
	assert_int_equal(identity_cache_init(&b, KEEP_MS), 0);
	struct key in_a = key_of(&a, "Cookie: a"), again = key_of(&a, "Cookie: a"), in_b = key_of(&b, "Cookie: a");
	assert_memory_equal(in_a.bytes, again.bytes, sizeof in_a.bytes);
	assert_memory_not_equal(in_a.bytes, in_b.bytes, sizeof in_a.bytes);
	identity_cache_deinit(&a);
	identity_cache_deinit(&b);
}

/* Ten times as many as there is room for: the newest are known, nothing is taken for another. */
static void test_more_than_fit(void **state UNUSED)
{
	struct identity_cache cache;
	assert_int_equal(identity_cache_init(&cache, KEEP_MS), 0);
	char sent[32];
	for (unsigned i = 0; i < 10 * IDENTITY_CACHE_ENTRIES; i++) {
		struct identity identity = ann();
		snprintf(identity.who.actor, sizeof identity.who.actor, "%u", i);
		snprintf(sent, sizeof sent, "Cookie: %u", i);
		struct key key = key_of(&cache, sent);
		identity_cache_put(&cache, key.bytes, &identity, i);
		assert_string_equal(identity_cache_find(&cache, key.bytes, i)->who.actor, identity.who.actor);
	}
	size_t found = 0;
	for (unsigned i = 0; i < 10 * IDENTITY_CACHE_ENTRIES; i++) {
		snprintf(sent, sizeof sent, "Cookie: %u", i);
		struct key key = key_of(&cache, sent);
		const struct identity *identity = identity_cache_find(&cache, key.bytes, 0);
		if (!identity)
			continue;
		assert_string_equal(identity->who.actor, sent + strlen("Cookie: "));
		found++;
	}
	assert_in_range(found, 1, IDENTITY_CACHE_ENTRIES);
	identity_cache_deinit(&cache);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_so_long_and_no_longer),
		cmocka_unit_test(test_nothing_is_kept_without_a_time),
		cmocka_unit_test(test_keys_differ_between_endpoints),
		cmocka_unit_test(test_more_than_fit),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
