/*
 * leases - the pool's records in Redis: joins pool/lease.h and policy/pool_store.h, which must not know each other
 *
 * Owns:       its store with a link of its own, and what the pool has asked and not been answered.
 * Lifetime:   leases_new … leases_free (asynchronous); not to be freed in a callback. The table outlives the pool that uses it.
 * Runs on:    the agent loop.
 * Re-entry:   that of lease.h.
 * Results:    those of lease.h. -EINVAL: a name or a word that cannot stand in a record.
 */
#pragma once

#include "gateway/pool/lease.h"

#include <uv.h>

#define LEASES_POOL_MAX 40

struct leases;

struct leases_options {
	uv_loop_t *loop;
	const char *redis_url;
	unsigned timeout_ms;
	const char *pool;     /* [a-z0-9-], at most LEASES_POOL_MAX */
	const char *instance; /* this gateway's name among others */
	void (*on_command)(void *ctx, uint64_t duration_us, const char *error_kind); /* policy/link.h; may be NULL */
	void *ctx;
};

/* NULL: no memory, or options that are not usable (logged). */
struct leases *leases_new(const struct leases_options *options);

/* What was asked and is not answered yet ends as LEASE_LOST before on_freed. Nothing may be asked from now on, and no listener hears any
 * more. */
void leases_free(struct leases *leases, void (*on_freed)(void *ctx), void *ctx);

struct lease_table leases_table(struct leases *leases);

/* For metrics. */
struct leases_counts {
	uint64_t joins, revoked;
	uint64_t fenced, flushed; /* sessions that ended so */
	uint64_t beat_age_us; /* since the last beat that was acknowledged was asked for; 0 = there was none */
	uint64_t total, instances;
	bool recovering;
};

void leases_counts(const struct leases *leases, struct leases_counts *counts);
