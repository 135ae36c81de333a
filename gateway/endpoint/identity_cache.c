#include "gateway/endpoint/identity_cache.h"

#include "gateway/base/hmac.h"
#include "gateway/base/id.h"

#include <errno.h>
#include <stdlib.h>

#define WAYS 4
#define SETS (IDENTITY_CACHE_ENTRIES / WAYS)

struct identity_cache_entry {
	unsigned char key[IDENTITY_CACHE_KEY];
	uint64_t until_ms; /* 0 = empty */
	struct identity identity;
};

int identity_cache_init(struct identity_cache *cache, uint64_t keep_ms)
{
	*cache = (struct identity_cache){.keep_ms = keep_ms, .entries = calloc(IDENTITY_CACHE_ENTRIES, sizeof *cache->entries)};
	return cache->entries ? id_random(cache->key, sizeof cache->key) : -ENOMEM;
}

void identity_cache_deinit(struct identity_cache *cache)
{
	free(cache->entries);
	cache->entries = NULL;
	secret_wipe(cache->key, sizeof cache->key);
}

int identity_cache_key(const struct identity_cache *cache, struct slice sent, unsigned char key[IDENTITY_CACHE_KEY])
{
	unsigned char mac[HMAC_BYTES];
	int r = hmac_sha256(slice_of((const char *)cache->key, sizeof cache->key), sent, mac);
	if (r == 0)
		memcpy(key, mac, IDENTITY_CACHE_KEY);
	return r;
}

static struct identity_cache_entry *set_of(const struct identity_cache *cache, const unsigned char *key)
{
	return &cache->entries[(key[0] | (size_t)key[1] << 8) % SETS * WAYS];
}

void identity_cache_put(struct identity_cache *cache, const unsigned char key[IDENTITY_CACHE_KEY], const struct identity *identity,
			uint64_t now_ms)
{
	struct identity_cache_entry *set = set_of(cache, key), *place = set;
	for (size_t i = 0; i < WAYS; i++) {
		if (memcmp(set[i].key, key, IDENTITY_CACHE_KEY) == 0) {
			place = &set[i];
			break;
		}
		if (set[i].until_ms < place->until_ms)
			place = &set[i];
	}
	*place = (struct identity_cache_entry){.until_ms = now_ms + cache->keep_ms, .identity = *identity};
	memcpy(place->key, key, IDENTITY_CACHE_KEY);
}

const struct identity *identity_cache_find(const struct identity_cache *cache, const unsigned char key[IDENTITY_CACHE_KEY], uint64_t now_ms)
{
	const struct identity_cache_entry *set = set_of(cache, key);
	for (size_t i = 0; i < WAYS; i++)
		if (set[i].until_ms > now_ms && memcmp(set[i].key, key, IDENTITY_CACHE_KEY) == 0)
			return &set[i].identity;
	return NULL;
}
