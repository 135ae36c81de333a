/*
 * internal - what the files of the relay share (relay, cached, renewal); nobody else includes it
 */
#pragma once

#include "gateway/proxy/relay.h"

struct flight;
struct renewal;

/* One request on its way. It lives until the request has finished; the exchange is always over by then. */
struct carry {
	struct carry *next; /* in the free list */
	struct relay *relay;
	struct http_request *request;
	struct exchange *exchange; /* NULL when it has ended */
	struct relay_summary summary;
	bool passes_body;
	bool head_passed;
	struct tunnel *tunnel; /* it asks for WebSocket */
	bool asked;     /* something may have been sent to Datasette */

	enum cache_use use;
	struct flight *leads, *waits;              /* the one it fetches for, or waits for; at most one of them */
	struct carry *waiting_prev, *waiting_next; /* in a flight's list */
	uint64_t waiting_since_us;
	bool alone;    /* it neither waits nor lets others wait */
	const struct cache_answer *answer;         /* what it is answered with */
};

struct relay {
	struct relay_options options;
	struct carry *free;
	struct buf head, key;      /* reused for every request */
	struct http_fields fields; /* reused for every response */
	struct flight *flights;
	struct renewal *renewals;
	size_t renewal_count;
	uv_timer_t *timer;         /* for those who wait; NULL without a cache */
};

/* relay.c */
void relay_pass_on(struct carry *carry);
void relay_refuse_head(struct carry *carry);

/* cached.c; without a cache none of them does anything. */
MUST_CHECK int cached_init(struct relay *relay);
void cached_deinit(struct relay *relay);
/* True: it is answered from the cache, now or when what another one asked for has come. */
bool cached_answer(struct carry *carry);
/* Of the answer that goes to the client: adds to its fields. Called before it is begun. */
void cached_head(struct carry *carry, unsigned status, struct http_fields *fields, bool with_length);
/* After it was begun: those who cannot use it go on their own. */
void cached_begun(struct carry *carry);
/* The body must come by cached_body(). */
bool cached_keeps(const struct carry *carry);
/* Whether the client can take any. */
void cached_room(struct carry *carry, bool any);
void cached_body(struct carry *carry, struct slice bytes);
void cached_end(struct carry *carry);
/* Whatever was under way is not: the exchange failed, the client left, the request has finished. */
void cached_quit(struct carry *carry);
void cached_finished(struct carry *carry);

/* renewal.c: unless somebody does already. */
void renewal_start(struct carry *carry, const struct cache_answer *stale, struct slice key);
void renewals_cancel(struct relay *relay);
