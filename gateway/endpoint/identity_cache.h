/*
 * identity_cache - what Datasette said a moment ago of the same request for an actor
 *
 * An entry is found by a keyed digest of all that Datasette was sent, credentials included; nobody outside can choose one. Set-associative;
 * the oldest of a full set goes.
 *
 * Owns:     its table and its key, a random one. Pure but for that.
 * Runs on:  one loop; each endpoint has its own.
 * Bounds:   IDENTITY_CACHE_ENTRIES, 300 KiB, touched as it fills.
 */
#pragma once

#include "gateway/endpoint/identity.h"

#define IDENTITY_CACHE_ENTRIES 1024
#define IDENTITY_CACHE_KEY     16

struct identity_cache_entry;

struct identity_cache {
	struct identity_cache_entry *entries;
	unsigned char key[32];
	uint64_t keep_ms; /* 0 = nothing is kept */
};

/* -ENOMEM, -EIO. */
MUST_CHECK int identity_cache_init(struct identity_cache *cache, uint64_t keep_ms);
void identity_cache_deinit(struct identity_cache *cache);

/* What `sent` is found by. -EIO. */
MUST_CHECK int identity_cache_key(const struct identity_cache *cache, struct slice sent, unsigned char key[IDENTITY_CACHE_KEY]);

void identity_cache_put(struct identity_cache *cache, const unsigned char key[IDENTITY_CACHE_KEY], const struct identity *identity,
			uint64_t now_ms);

/* NULL: not known, or not any more. Valid until the next put. */
const struct identity *identity_cache_find(const struct identity_cache *cache, const unsigned char key[IDENTITY_CACHE_KEY],
					   uint64_t now_ms);
