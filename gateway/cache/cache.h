/*
 * cache - whole answers, kept in bounded memory and shared by all workers
 *
 * Owns:       the answers and a share of each for itself; whoever has one from cache_find() keeps it until cache_unref().
 * Lifetime:   cache_new … cache_free, when no answer is in use any more.
 * Runs on:    any thread: one lock, held for a look-up, never for a copy. Answers do not change once they are in.
 * Results:    cache_fill_*: false = this one is not kept; NULL = nothing there, or no memory.
 * Bounds:     max_bytes with all that an answer takes, as long as anybody has it; a quarter of that for those which are still arriving;
 *             CACHE_ANSWER_MAX each.
 * Invariants: one that is stale is renewed by one at a time; what was asked for before an invalidation of its database is not kept after
 *             it; the one that was used longest ago goes first.
 */
#pragma once

#include "gateway/cache/rules.h"

#define CACHE_ANSWER_MAX (1024 * 1024)

struct cache;

/* An answer; everything here is constant while it is held. */
struct cache_answer {
	unsigned status;
	bool with_length; /* it had Content-Length */
	struct slice body;
	size_t count;
	const struct http_field *fields;
	uint64_t asked_us, fresh_us, age_us; /* when it was asked for; until when it is fresh; how old it said it was when it came */
	uint64_t stale_us;                   /* until when it may be given while a newer one is fetched */
};

struct cache *cache_new(uint64_t max_bytes);
void cache_free(struct cache *cache);

/* An answer that may be given, fresh or stale, or NULL. Clock: clock_mono_us(). */
const struct cache_answer *cache_find(struct cache *cache, struct slice key, uint64_t now_us);
const struct cache_answer *cache_ref(const struct cache_answer *answer);
void cache_unref(const struct cache_answer *answer);

/* Who gets true is to fetch a newer one of this stale answer, and tells how that went: nobody else gets true before. */
MUST_CHECK bool cache_renew(const struct cache_answer *answer, uint64_t now_us);
/* It could not be fetched: the next one may try from then on. */
void cache_renew_failed(const struct cache_answer *answer, uint64_t retry_us);
/* There is none that may be kept: this one is not given any more. */
void cache_drop(const struct cache_answer *answer);

/* Drops what may have been changed by a request to this path. */
void cache_invalidate(struct cache *cache, struct slice path);

/* An answer that is arriving. One that is never ended is freed by cache_fill_free(). */
struct cache_fill;

/* When the request is sent, from which its lifetime counts (RFC 9111 section 4.2.3); key and path are copied. NULL: no memory. */
struct cache_fill *cache_fill_new(struct cache *cache, struct slice key, struct slice path, uint64_t now_us);
/* Copies the fields. */
MUST_CHECK bool cache_fill_head(struct cache_fill *fill, unsigned status, const struct http_fields *fields, bool with_length,
				const struct cache_lifetime *lifetime);
MUST_CHECK bool cache_fill_body(struct cache_fill *fill, struct slice bytes);
/* It is whole: keeps it, and frees the fill. The answer, which is the caller's to unref; NULL when it is not kept. */
const struct cache_answer *cache_fill_end(struct cache_fill *fill, uint64_t now_us);
void cache_fill_free(struct cache_fill *fill);

/* Of the answers that are in it, and of those that are not any more but in use. */
uint64_t cache_bytes(struct cache *cache);
