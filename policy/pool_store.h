/*
 * pool_store - the records of a shared pool in Redis: the pool script over a link of its own
 *
 * One call is under way at a time, and a call whose answer was lost is made again before any other, with the turn that it had: so what
 * takes effect does so in the order of the calls, and once. Notes are kept until they are acknowledged, of each Sprite the last.
 *
 * Owns:       its link, the calls and notes that are not answered yet.
 * Lifetime:   pool_store_new … pool_store_free (asynchronous), which is not to be called in a callback.
 * Runs on:    one loop.
 * Re-entry:   no callback runs inside a call; a callback may make any call but pool_store_free.
 * Ownership:  what is passed is copied; what a callback is given is valid during it.
 * Results:    0, -ENOMEM, -EINVAL (not a Sprite's name, too many): `done` does not run then. Else it runs exactly once, within 10 s.
 * Bounds:     one note for each Sprite and call; POOL_STORE_LIST_MAX names or records in one call, a few dozen in one round trip.
 */
#pragma once

#include "policy/link.h"
#include "policy/pool_reply.h"

#define POOL_STORE_LIST_MAX      5000
#define POOL_STORE_CLAIMANTS_MAX 2

struct pool_store;

struct pool_store_events {
	void (*revoked)(void *ctx, const char *name); /* it is another session's by now */
	void (*lost)(void *ctx);   /* Redis has no record of what was noted, or a note could not be kept */
	void (*fenced)(void *ctx); /* told by notes: */
	void (*flushed)(void *ctx);
	void *ctx;
};

struct pool_store_options {
	uv_loop_t *loop;
	const char *redis_url;
	unsigned timeout_ms;
	const char *pool;                /* [a-z0-9-] */
	const char *instance;            /* as it stands in Sprites' names */
	struct pool_store_events events; /* each may be NULL */
	void (*on_command)(void *ctx, uint64_t duration_us, const char *error_kind); /* link.h; may be NULL */
	void *command_ctx;
};

struct pool_store_result {
	struct pool_reply reply;
	const struct pool_fleet *fleet;   /* join and beat, POOL_REPLY_OK; else NULL */
	const struct pool_record *record; /* take, POOL_REPLY_OK; else NULL */
	bool fresh;         /* join: the records that were joined before are not there */
};

typedef void (*pool_store_done)(void *ctx, const struct pool_store_result *result);

/* One call per record of adopt; then `done`. */
typedef void (*pool_store_found)(void *ctx, const struct pool_record *record);

/* One call per name that has its second strike; then `done`. */
typedef void (*pool_store_struck)(void *ctx, const char *name, bool recorded);

struct pool_store_report {
	uint64_t hot_target, leased, waiting, claims, spent_nusd, limit_count, limit_window_ms, closed_ms;
	uint64_t claimants[POOL_STORE_CLAIMANTS_MAX]; /* tenants */
	size_t claimant_count;
	uint64_t running_limit; /* Sprites that may run at once, as far as is known; 0 = no limit is. Likewise below */
};

struct pool_store_wish {
	const char *name;
	uint64_t max, stock, create_limit, create_window_ms, running_limit;
};

struct pool_store_want {
	const char *name;       /* NULL: one that another session has parked, of this generation */
	const char *to;         /* "preparing" or "destroying" */
	const char *generation;
	uint64_t running_limit;
	bool for_stock;         /* nobody waits for it */
};

/* NULL: a URL that is not usable (logged), or no memory. */
struct pool_store *pool_store_new(const struct pool_store_options *options);
void pool_store_free(struct pool_store *store, void (*on_freed)(void *ctx), void *ctx);

/* Notes that were not sent are dropped. `whole`: what the last session had is still held, and will be written again if it must be. */
MUST_CHECK int pool_store_join(struct pool_store *store, bool whole, pool_store_done done, void *ctx);
MUST_CHECK int pool_store_beat(struct pool_store *store, const struct pool_store_report *report, pool_store_done done, void *ctx);
MUST_CHECK int pool_store_reserve(struct pool_store *store, const struct pool_store_wish *wish, pool_store_done done, void *ctx);

MUST_CHECK int pool_store_take(struct pool_store *store, const struct pool_store_want *want, pool_store_done done, void *ctx);

/* May this Sprite of a session, which is in use, be woken? */
MUST_CHECK int pool_store_run(struct pool_store *store, const char *name, uint64_t running_limit, pool_store_done done, void *ctx);
MUST_CHECK int pool_store_adopt(struct pool_store *store, size_t most, bool own, pool_store_found found, pool_store_done done, void *ctx);
MUST_CHECK int pool_store_sweep(struct pool_store *store, const char *const *names, size_t count, pool_store_struck struck,
				pool_store_done done, void *ctx);
MUST_CHECK int pool_store_restore(struct pool_store *store, const struct pool_record *records, size_t count, pool_store_done done,
				  void *ctx);
MUST_CHECK int pool_store_leave(struct pool_store *store, pool_store_done done, void *ctx);

/* Never awaited. */
void pool_store_note(struct pool_store *store, const struct pool_record *record);
void pool_store_forget(struct pool_store *store, const char *name);
