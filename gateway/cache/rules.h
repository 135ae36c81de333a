/*
 * rules - what a shared cache may keep and for how long, and what it may answer (RFC 9111 sections 3 and 4)
 *
 * Only requests that are anonymous beyond doubt, whatever Vary says (RFC 9111 knows no rule for cookies): no Cookie, no Authorization and
 * no field that is not known to say nothing of who asks.
 *
 * Pure.
 */
#pragma once

#include "gateway/base/buf.h"
#include "gateway/http/request.h"

/* The longest lifetime of an answer to a target with a query, because Datasette lets everybody choose one by `_ttl`; and of all others. */
#define CACHE_QUERY_MAX_SECONDS 60
#define CACHE_MAX_SECONDS       86400

enum cache_use {
	CACHE_USE,               /* may be answered from the cache, and its answer kept */
	CACHE_BYPASS_METHOD,     /* not GET or HEAD, or with a body */
	CACHE_BYPASS_COOKIE,
	CACHE_BYPASS_AUTHORIZATION,
	CACHE_BYPASS_FIELD,      /* has a field that may say who asks, or change the answer in another way */
	CACHE_BYPASS_REQUEST,    /* asks for a part, has a condition, or says Cache-Control or Pragma */
	CACHE_USES,
};

enum cache_use cache_use_of(const struct http_head *head);

/* Cache-Status (RFC 9211) of an answer that came from Datasette. */
const char *cache_use_status(enum cache_use use, bool stored);

/* Appends what tells this request from others: scheme, host, coding asked for, target. Those of buf. */
MUST_CHECK int cache_key(const struct http_head *head, struct slice scheme, struct buf *key);

struct cache_lifetime {
	uint64_t fresh_ms; /* from when it was asked for, its age on arrival taken off */
	uint64_t age_ms;   /* on arrival */
	uint64_t stale_ms; /* how long it may be given after that while a newer one is fetched */
};

/* May this answer to a GET be kept? `fields` are those that go to the client. It may be stale for `stale_seconds`, or longer when it says so
 * itself (RFC 5861 section 3), if it does not forbid it. */
bool cache_may_keep(const struct http_head *head, unsigned status, const struct http_fields *fields, uint64_t stale_seconds,
		    struct cache_lifetime *lifetime);

/* Is it a field of one answer only, which is not kept? */
bool cache_drops_field(struct slice name);

/* Which answers a request that changes something may have changed: those whose path begins with the same database. */
struct cache_scope {
	struct slice database; /* empty: all of them */
};
struct cache_scope cache_scope_of(struct slice path);
