#include "gateway/cache/cache.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#define SECOND 1000000u

static const struct cache_lifetime five_seconds = {.fresh_ms = 5000, .age_ms = 1000};

static struct cache_fill *begin_for(struct cache *cache, const char *path, uint64_t now, const struct cache_lifetime *lifetime)
{
	struct cache_fill *fill = cache_fill_new(cache, slice_str(path), slice_str(path), now);
	struct http_fields fields;
	http_fields_clear(&fields);
	assert_int_equal(http_fields_add(&fields, SLICE("Content-Type"), SLICE("text/plain")), 0);
	assert_int_equal(http_fields_add(&fields, SLICE("Age"), SLICE("1")), 0);
	assert_int_equal(http_fields_add(&fields, SLICE("X-Empty"), SLICE("")), 0);
	assert_non_null(fill);
	assert_true(cache_fill_head(fill, 200, &fields, true, lifetime));
	return fill;
}

static struct cache_fill *begin(struct cache *cache, const char *path, uint64_t now)
{
	return begin_for(cache, path, now, &five_seconds);
}

static bool store(struct cache *cache, const char *path, const char *body, uint64_t now)
{
	struct cache_fill *fill = begin(cache, path, now);
	if (!cache_fill_body(fill, slice_str(body))) {
		cache_fill_free(fill);
		return false;
	}
	const struct cache_answer *answer = cache_fill_end(fill, now);
	cache_unref(answer);
	return answer;
}

static bool has(struct cache *cache, const char *key, uint64_t now)
{
	const struct cache_answer *answer = cache_find(cache, slice_str(key), now);
	cache_unref(answer);
	return answer;
}

static void test_what_is_stored_is_found(void **state UNUSED)
{
	struct cache *cache = cache_new(1 << 20);
	assert_non_null(cache);
	assert_false(has(cache, "/db/t", 0));
	assert_true(store(cache, "/db/t", "one", SECOND));
	const struct cache_answer *answer = cache_find(cache, SLICE("/db/t"), 2 * SECOND);
	assert_non_null(answer);
	assert_true(slice_equal(answer->body, SLICE("one")));
	assert_int_equal(answer->status, 200);
	assert_int_equal(answer->count, 2);
	assert_true(slice_equal(answer->fields[0].value, SLICE("text/plain")));
	assert_true(slice_equal(answer->fields[1].name, SLICE("X-Empty")) && !answer->fields[1].value.len);
	assert_int_equal(answer->age_us, SECOND);
	/* It stays valid while it is held, whatever happens to the cache. */
	assert_true(store(cache, "/db/t", "two", 3 * SECOND));
	cache_invalidate(cache, SLICE("/db/t"));
	assert_true(slice_equal(answer->body, SLICE("one")));
	cache_unref(answer);
	assert_int_equal(cache_bytes(cache), 0);
	cache_free(cache);
}

static const struct cache_answer *store_for(struct cache *cache, uint64_t now, const struct cache_lifetime *lifetime)
{
	return cache_fill_end(begin_for(cache, "/db/t", now, lifetime), now);
}

static void test_one_renews_what_is_stale(void **state UNUSED)
{
	static const struct cache_lifetime stale_later = {.fresh_ms = 5000, .stale_ms = 10000};
	struct cache *cache = cache_new(1 << 20);
	const struct cache_answer *old = store_for(cache, 0, &stale_later);
	assert_non_null(old);
	assert_false(cache_renew(old, 5 * SECOND - 1));
	assert_true(has(cache, "/db/t", 15 * SECOND - 1));
	assert_true(cache_renew(old, 5 * SECOND));
	assert_false(cache_renew(old, 14 * SECOND));
	cache_renew_failed(old, 8 * SECOND);
	assert_false(cache_renew(old, 8 * SECOND - 1));
	assert_true(cache_renew(old, 8 * SECOND));
	const struct cache_answer *newer = store_for(cache, 8 * SECOND, &stale_later);
	/* What was renewed is not there any more, and drops nothing. */
	cache_drop(old);
	assert_true(has(cache, "/db/t", 20 * SECOND));
	cache_drop(newer);
	assert_false(has(cache, "/db/t", 9 * SECOND));
	cache_unref(old);
	cache_unref(newer);
	const struct cache_answer *last = store_for(cache, 30 * SECOND, &stale_later);
	cache_unref(last);
	assert_false(has(cache, "/db/t", 45 * SECOND));
	assert_int_equal(cache_bytes(cache), 0);
	cache_free(cache);
}

static void test_what_comes_late_is_kept_while_it_may_be_stale(void **state UNUSED)
{
	static const struct cache_lifetime stale_later = {.fresh_ms = 5000, .stale_ms = 10000};
	struct cache *cache = cache_new(1 << 20);
	cache_unref(cache_fill_end(begin_for(cache, "/db/t", 0, &stale_later), 6 * SECOND));
	assert_true(has(cache, "/db/t", 6 * SECOND));
	cache_unref(cache_fill_end(begin_for(cache, "/db/u", 0, &stale_later), 15 * SECOND));
	assert_false(has(cache, "/db/u", 15 * SECOND));
	cache_free(cache);
}

static void test_nothing_outlives_its_freshness(void **state UNUSED)
{
	struct cache *cache = cache_new(1 << 20);
	assert_true(store(cache, "/db/t", "one", SECOND));
	assert_true(has(cache, "/db/t", 6 * SECOND - 1));
	assert_false(has(cache, "/db/t", 6 * SECOND));
	assert_int_equal(cache_bytes(cache), 0);
	cache_free(cache);
}

static void test_a_lifetime_counts_from_when_it_was_asked_for(void **state UNUSED)
{
	struct cache *cache = cache_new(1 << 20);
	const struct cache_answer *answer = cache_fill_end(begin(cache, "/db/t", SECOND), 4 * SECOND);
	assert_non_null(answer);
	assert_int_equal(answer->asked_us, SECOND);
	cache_unref(answer);
	assert_true(has(cache, "/db/t", 6 * SECOND - 1));
	assert_false(has(cache, "/db/t", 6 * SECOND));
	assert_null(cache_fill_end(begin(cache, "/db/t", SECOND), 6 * SECOND));
	cache_free(cache);
}

static void test_a_change_drops_its_database(void **state UNUSED)
{
	static const struct {
		const char *changed, *kept;
	} rows[] = {
		{"/db/t/-/insert", "/other/t"},
		{"/db/-/create", "/other/t"},
		{"/db", "/other/t"},
		{"/db.json", "/other/t"},
		{"/~64b/t/-/insert", NULL},
		{"/%64b/t", NULL},
		{"/-/x", NULL},
		{"/", NULL},
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct cache *cache = cache_new(1 << 20);
		static const char *const all[] = {"/db/t", "/db", "/db.json?sql=1", "/", "/-/x.json", "/~64b/t"};
		for (size_t j = 0; j < ARRAY_LEN(all); j++)
			assert_true(store(cache, all[j], "body", SECOND));
		assert_true(store(cache, "/other/t", "body", SECOND));
		cache_invalidate(cache, slice_str(rows[i].changed));
		for (size_t j = 0; j < ARRAY_LEN(all); j++)
			assert_false(has(cache, all[j], SECOND));
		assert_int_equal(has(cache, "/other/t", SECOND), rows[i].kept != NULL);
		cache_free(cache);
	}
}

static void test_what_was_asked_before_a_change_is_not_kept(void **state UNUSED)
{
	static const char *const changes[] = {"/db/t/-/insert", "/-/anything", "/~64b/t"};
	for (size_t i = 0; i < ARRAY_LEN(changes); i++) {
		struct cache *cache = cache_new(1 << 20);
		struct cache_fill *fill = begin(cache, "/db/t", SECOND);
		struct cache_fill *page = begin(cache, "/", SECOND);
		cache_invalidate(cache, slice_str(changes[i]));
		assert_null(cache_fill_end(fill, SECOND));
		assert_null(cache_fill_end(page, SECOND));
		assert_true(store(cache, "/db/t", "after", SECOND));
		cache_free(cache);
	}
}

static void test_the_one_used_longest_ago_goes(void **state UNUSED)
{
	struct cache *cache = cache_new(64 * 1024);
	char path[32], *body = malloc(8001);
	memset(body, 'x', 8000);
	body[8000] = '\0';
	for (unsigned i = 0; i < 40; i++) {
		snprintf(path, sizeof path, "/db/%u", i);
		assert_true(store(cache, path, body, SECOND));
		assert_true(has(cache, "/db/0", SECOND));
		assert_true(cache_bytes(cache) <= 64 * 1024);
	}
	assert_true(has(cache, "/db/39", SECOND) && has(cache, "/db/38", SECOND));
	assert_false(has(cache, "/db/1", SECOND));
	free(body);
	cache_free(cache);
}

static void test_what_is_in_use_counts_until_it_is_given_back(void **state UNUSED)
{
	struct cache *cache = cache_new(64 * 1024);
	const struct cache_answer *held[16];
	static char body[8001];
	unsigned count = 0;
	memset(body, 'x', sizeof body - 1);
	while (count < 16 && store(cache, "/db/t", body, SECOND)) {
		held[count++] = cache_find(cache, SLICE("/db/t"), SECOND);
		cache_invalidate(cache, SLICE("/db/t"));
	}
	assert_in_range(count, 4, 8);
	assert_in_range(cache_bytes(cache), count * 8000, 64 * 1024);
	cache_unref(held[0]);
	assert_true(store(cache, "/db/t", body, SECOND));
	for (unsigned i = 1; i < count; i++)
		cache_unref(held[i]);
	cache_invalidate(cache, SLICE("/"));
	assert_int_equal(cache_bytes(cache), 0);
	cache_free(cache);
}

static void test_what_is_arriving_is_bounded(void **state UNUSED)
{
	struct cache *cache = cache_new(64 * 1024);
	static char body[9000];
	struct cache_fill *first = begin(cache, "/db/1", SECOND), *second = begin(cache, "/db/2", SECOND);
	assert_true(cache_fill_body(first, slice_of(body, sizeof body)));
	assert_false(cache_fill_body(second, slice_of(body, sizeof body)));
	cache_fill_free(second);
	cache_unref(cache_fill_end(first, SECOND));
	assert_true(has(cache, "/db/1", SECOND));
	assert_true(store(cache, "/db/2", "x", SECOND));
	cache_free(cache);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_is_stored_is_found),
		cmocka_unit_test(test_nothing_outlives_its_freshness),
		cmocka_unit_test(test_one_renews_what_is_stale),
		cmocka_unit_test(test_what_comes_late_is_kept_while_it_may_be_stale),
		cmocka_unit_test(test_a_change_drops_its_database),
		cmocka_unit_test(test_what_was_asked_before_a_change_is_not_kept),
		cmocka_unit_test(test_a_lifetime_counts_from_when_it_was_asked_for),
		cmocka_unit_test(test_what_is_in_use_counts_until_it_is_given_back),
		cmocka_unit_test(test_the_one_used_longest_ago_goes),
		cmocka_unit_test(test_what_is_arriving_is_bounded),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
