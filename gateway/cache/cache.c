#include "gateway/cache/cache.h"

#include "gateway/base/id.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <uv.h>

/* About one bucket for so many bytes, but no fewer than that. */
#define BUCKET_BYTES 8192
#define BUCKETS_MIN  1024
/* Invalidations are counted by a hash of the database: that two share a counter costs an answer that is not kept. */
#define EPOCHS 64
/* Of an entry beside its bytes, with what malloc takes. */
#define FIXED_BYTES (sizeof(struct entry) + 64)
#define HEAD_MAX    (64 * 1024)
#define NEVER       UINT64_MAX

struct entry {
	struct cache_answer answer; /* first: callers have it, and give it back */
	struct cache *cache;
	struct entry *next;         /* in its bucket */
	struct entry *newer, *older;
	_Atomic unsigned refs;
	_Atomic uint64_t renew_us; /* from when on it may be renewed; NEVER while it is */
	uint64_t hash;
	struct slice key, database;
	size_t charge;
	char bytes[];
};

struct cache {
	uv_mutex_t lock;
	uint64_t max_bytes, seed;
	_Atomic uint64_t bytes; /* grows with the lock held only */
	_Atomic uint64_t arriving;
	struct entry *newest, *oldest;
	_Atomic unsigned epochs[EPOCHS], epoch_of_all;
	size_t mask;
	struct entry **buckets; /* mask + 1, a power of 2 */
};

struct cache_fill {
	struct cache *cache;
	struct buf key, path, head, body; /* head: name NUL value NUL … */
	size_t count, charged;
	unsigned status, epoch, epoch_of_all;
	bool with_length;
	uint64_t asked_us;
	struct cache_lifetime lifetime;
};

static uint64_t hash_of(const struct cache *cache, struct slice bytes)
{
	uint64_t hash = cache->seed ^ bytes.len;
	for (size_t i = 0; i < bytes.len; i += sizeof hash) {
		uint64_t word = 0;
		memcpy(&word, bytes.data + i, bytes.len - i < sizeof word ? bytes.len - i : sizeof word);
		hash = (hash ^ word) * 0x9fb21c651e98df25ULL;
		hash ^= hash >> 32;
	}
	return hash;
}

struct cache *cache_new(uint64_t max_bytes)
{
	struct cache *cache = calloc(1, sizeof *cache);
	if (!cache)
		return NULL;
	size_t buckets = BUCKETS_MIN;
	while (buckets < max_bytes / BUCKET_BYTES)
		buckets *= 2;
	cache->max_bytes = max_bytes;
	cache->mask = buckets - 1;
	cache->buckets = calloc(buckets, sizeof *cache->buckets);
	if (!cache->buckets || id_random(&cache->seed, sizeof cache->seed) < 0 || uv_mutex_init(&cache->lock) < 0) {
		free(cache->buckets);
		free(cache);
		return NULL;
	}
	return cache;
}

static struct entry *entry_of(const struct cache_answer *answer)
{
	return (struct entry *)(uintptr_t)answer;
}

const struct cache_answer *cache_ref(const struct cache_answer *answer)
{
	atomic_fetch_add(&entry_of(answer)->refs, 1);
	return answer;
}

void cache_unref(const struct cache_answer *answer)
{
	struct entry *entry = entry_of(answer);
	if (!entry || atomic_fetch_sub(&entry->refs, 1) != 1)
		return;
	atomic_fetch_sub(&entry->cache->bytes, entry->charge);
	free(entry);
}

/* --- with the lock held ------------------------------------------------------------------------------------------------- */

static struct entry **place_of(struct cache *cache, struct slice key, uint64_t hash)
{
	struct entry **at = &cache->buckets[hash & cache->mask];
	while (*at && ((*at)->hash != hash || !slice_equal((*at)->key, key)))
		at = &(*at)->next;
	return at;
}

static void unlink_from_age(struct cache *cache, struct entry *entry)
{
	*(entry->newer ? &entry->newer->older : &cache->newest) = entry->older;
	*(entry->older ? &entry->older->newer : &cache->oldest) = entry->newer;
}

static void make_newest(struct cache *cache, struct entry *entry)
{
	entry->newer = NULL;
	entry->older = cache->newest;
	*(cache->newest ? &cache->newest->newer : &cache->oldest) = entry;
	cache->newest = entry;
}

static void drop(struct cache *cache, struct entry **at)
{
	struct entry *entry = *at;
	*at = entry->next;
	unlink_from_age(cache, entry);
	cache_unref(&entry->answer);
}

/* False: too much is in use by those who had it from here. */
static bool insert(struct cache *cache, struct entry *entry)
{
	struct entry **at = place_of(cache, entry->key, entry->hash);
	if (*at)
		drop(cache, at);
	while (cache->oldest && atomic_load(&cache->bytes) + entry->charge > cache->max_bytes)
		drop(cache, place_of(cache, cache->oldest->key, cache->oldest->hash));
	if (atomic_load(&cache->bytes) + entry->charge > cache->max_bytes)
		return false;
	at = &cache->buckets[entry->hash & cache->mask];
	entry->next = *at;
	*at = entry;
	make_newest(cache, entry);
	atomic_fetch_add(&cache->bytes, entry->charge);
	return true;
}

/* --- what callers see ---------------------------------------------------------------------------------------------------- */

const struct cache_answer *cache_find(struct cache *cache, struct slice key, uint64_t now_us)
{
	uint64_t hash = hash_of(cache, key);
	uv_mutex_lock(&cache->lock);
	struct entry **at = place_of(cache, key, hash), *entry = *at;
	if (entry && now_us >= entry->answer.stale_us) {
		drop(cache, at);
		entry = NULL;
	}
	if (entry) {
		atomic_fetch_add(&entry->refs, 1);
		unlink_from_age(cache, entry);
		make_newest(cache, entry);
	}
	uv_mutex_unlock(&cache->lock);
	return entry ? &entry->answer : NULL;
}

bool cache_renew(const struct cache_answer *answer, uint64_t now_us)
{
	struct entry *entry = entry_of(answer);
	uint64_t from = atomic_load(&entry->renew_us);
	return now_us >= answer->fresh_us && now_us >= from && atomic_compare_exchange_strong(&entry->renew_us, &from, NEVER);
}

void cache_renew_failed(const struct cache_answer *answer, uint64_t retry_us)
{
	atomic_store(&entry_of(answer)->renew_us, retry_us);
}

void cache_drop(const struct cache_answer *answer)
{
	struct entry *entry = entry_of(answer);
	struct cache *cache = entry->cache;
	uv_mutex_lock(&cache->lock);
	struct entry **at = place_of(cache, entry->key, entry->hash);
	/* There may be a newer one. */
	if (*at == entry)
		drop(cache, at);
	uv_mutex_unlock(&cache->lock);
}

static _Atomic unsigned *epoch_at(struct cache *cache, struct slice database)
{
	return &cache->epochs[hash_of(cache, database) % EPOCHS];
}

void cache_invalidate(struct cache *cache, struct slice path)
{
	struct slice database = cache_scope_of(path).database;
	uv_mutex_lock(&cache->lock);
	atomic_fetch_add(database.len ? epoch_at(cache, database) : &cache->epoch_of_all, 1);
	/* Pages of no database tell of all of them. */
	atomic_fetch_add(epoch_at(cache, (struct slice){0}), 1);
	for (struct entry *entry = cache->newest, *next; entry; entry = next) {
		next = entry->older;
		if (!database.len || !entry->database.len || slice_equal(entry->database, database))
			drop(cache, place_of(cache, entry->key, entry->hash));
	}
	uv_mutex_unlock(&cache->lock);
}

uint64_t cache_bytes(struct cache *cache)
{
	return atomic_load(&cache->bytes);
}

void cache_free(struct cache *cache)
{
	if (!cache)
		return;
	while (cache->oldest)
		drop(cache, place_of(cache, cache->oldest->key, cache->oldest->hash));
	uv_mutex_destroy(&cache->lock);
	free(cache->buckets);
	free(cache);
}

/* --- filling ----------------------------------------------------------------------------------------------------------------- */

static unsigned epoch_of(const struct cache_fill *fill)
{
	return atomic_load(epoch_at(fill->cache, cache_scope_of(buf_peek(&fill->path)).database));
}

struct cache_fill *cache_fill_new(struct cache *cache, struct slice key, struct slice path, uint64_t now_us)
{
	struct cache_fill *fill = calloc(1, sizeof *fill);
	if (!fill)
		return NULL;
	fill->cache = cache;
	fill->asked_us = now_us;
	buf_init(&fill->key, CACHE_ANSWER_MAX);
	buf_init(&fill->path, CACHE_ANSWER_MAX);
	buf_init(&fill->head, HEAD_MAX);
	buf_init(&fill->body, CACHE_ANSWER_MAX);
	if (buf_append(&fill->key, key) < 0 || buf_append(&fill->path, path) < 0) {
		cache_fill_free(fill);
		return NULL;
	}
	fill->epoch = epoch_of(fill);
	fill->epoch_of_all = atomic_load(&cache->epoch_of_all);
	return fill;
}

void cache_fill_free(struct cache_fill *fill)
{
	if (!fill)
		return;
	atomic_fetch_sub(&fill->cache->arriving, fill->charged);
	buf_deinit(&fill->key);
	buf_deinit(&fill->path);
	buf_deinit(&fill->head);
	buf_deinit(&fill->body);
	free(fill);
}

static bool charge(struct cache_fill *fill, size_t bytes)
{
	fill->charged += bytes;
	return atomic_fetch_add(&fill->cache->arriving, bytes) + bytes <= fill->cache->max_bytes / 4;
}

bool cache_fill_head(struct cache_fill *fill, unsigned status, const struct http_fields *fields, bool with_length,
		     const struct cache_lifetime *lifetime)
{
	fill->status = status;
	fill->with_length = with_length;
	fill->lifetime = *lifetime;
	for (size_t i = 0; i < fields->count; i++) {
		const struct http_field *field = &fields->at[i];
		if (cache_drops_field(field->name))
			continue;
		fill->count++;
		if (buf_append(&fill->head, field->name) < 0 || buf_append_char(&fill->head, '\0') < 0 ||
		    buf_append(&fill->head, field->value) < 0 || buf_append_char(&fill->head, '\0') < 0)
			return false;
	}
	return charge(fill, fill->head.len + fill->key.len + FIXED_BYTES);
}

bool cache_fill_body(struct cache_fill *fill, struct slice bytes)
{
	return charge(fill, bytes.len) && buf_append(&fill->body, bytes) == 0;
}

static struct slice put_bytes(char **to, struct slice bytes)
{
	struct slice copy = slice_of(*to, bytes.len);
	if (bytes.len)
		memcpy(*to, bytes.data, bytes.len);
	*to += bytes.len;
	return copy;
}

static void put_fields(struct http_field *fields, size_t count, struct slice head)
{
	for (size_t i = 0; i < count; i++) {
		fields[i].name = slice_str(head.data);
		fields[i].value = slice_str(head.data + fields[i].name.len + 1);
		head = slice_from(head, fields[i].name.len + fields[i].value.len + 2);
	}
}

static struct entry *new_entry(const struct cache_fill *fill)
{
	size_t table = fill->count * sizeof(struct http_field);
	size_t len = table + fill->head.len + fill->key.len + fill->body.len;
	struct entry *entry = malloc(sizeof *entry + len);
	if (!entry)
		return NULL;
	*entry = (struct entry){.cache = fill->cache, .charge = FIXED_BYTES + len, .hash = hash_of(fill->cache, buf_peek(&fill->key))};
	atomic_init(&entry->refs, 2);
	struct http_field *fields = (struct http_field *)(void *)entry->bytes;
	char *to = entry->bytes + table;
	put_fields(fields, fill->count, put_bytes(&to, buf_peek(&fill->head)));
	entry->key = put_bytes(&to, buf_peek(&fill->key));
	/* The target is the last part of the key, and its path begins with the database. */
	struct slice path = buf_peek(&fill->path), database = cache_scope_of(path).database;
	size_t from = database.len ? (size_t)(database.data - path.data) : 0;
	const char *target = memmem(entry->key.data, entry->key.len, path.data, path.len);
	entry->database = database.len && target ? slice_of(target + from, database.len) : (struct slice){0};
	entry->answer = (struct cache_answer){
		.status = fill->status,
		.with_length = fill->with_length,
		.body = put_bytes(&to, buf_peek(&fill->body)),
		.count = fill->count,
		.fields = fields,
		.asked_us = fill->asked_us,
		.fresh_us = fill->asked_us + fill->lifetime.fresh_ms * 1000,
		.age_us = fill->lifetime.age_ms * 1000,
		.stale_us = fill->asked_us + (fill->lifetime.fresh_ms + fill->lifetime.stale_ms) * 1000,
	};
	return entry;
}

const struct cache_answer *cache_fill_end(struct cache_fill *fill, uint64_t now_us)
{
	struct cache *cache = fill->cache;
	struct entry *entry = new_entry(fill);
	bool kept = false;
	if (entry) {
		uv_mutex_lock(&cache->lock);
		kept = now_us < entry->answer.stale_us && entry->charge <= cache->max_bytes / 4 && fill->epoch == epoch_of(fill) &&
		       fill->epoch_of_all == atomic_load(&cache->epoch_of_all);
		kept = kept && insert(cache, entry);
		uv_mutex_unlock(&cache->lock);
	}
	cache_fill_free(fill);
	if (!kept)
		free(entry);
	return kept ? &entry->answer : NULL;
}
