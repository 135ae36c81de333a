/*
 * relay - carries a request to Datasette and the answer back, both ways at once, in bounded memory
 *
 * Owns:       the exchanges it starts, also those that renew what is in the cache. Not the requests, not the pools.
 * Lifetime:   relay_new … relay_free; relay_free only when no request is under way (http_server_stop ends all).
 * Runs on:    the loop of its pools.
 * Re-entry:   relay_handle() is called inside on_request and answers at once only with problems; no callback runs inside a call.
 * Bounds:     2 * HTTP_REQUEST_BUFFER of the answer and EXCHANGE_BUFFER of the body, a request.
 *             A WebSocket is the bytes of a tunnel.
 * Invariants: what Datasette cuts is cut for the client; a client that leaves cancels its exchange; our own 502, 503 and 504 say whose
 *             fault it is, and how.
 */
#pragma once

#include "gateway/cache/cache.h"
#include "gateway/datasette/exchange.h"
#include "gateway/proxy/forward.h"
#include "gateway/proxy/tunnel.h"

struct relay;

enum relay_cache {
	RELAY_CACHE_OFF,
	RELAY_CACHE_HIT,
	RELAY_CACHE_COLLAPSED, /* answered with what another one had asked for a moment before */
	RELAY_CACHE_MISS,
	RELAY_CACHE_BYPASS,
	RELAY_CACHE_STALE,     /* answered from the cache while a newer answer is fetched */
};

/* How a proxied request went, for access log and metrics; `head` is valid during the call. */
struct relay_summary {
	struct http_summary http;
	struct exchange_timing upstream;
	bool failed;                  /* Datasette failed: `error` says how */
	enum exchange_error error;
	bool head_refused;            /* Datasette answered with a head beyond what the server sends */
	enum relay_cache cache;
	unsigned upstream_status;     /* 0 when Datasette did not answer */
	bool tunneled;                /* it became a WebSocket: */
	enum tunnel_end tunnel_end;
};

struct relay_options {
	struct exchange_pool *exchanges; /* borrowed */
	struct cache *cache;             /* of all relays; borrowed; NULL = none */
	unsigned cache_stale_seconds;    /* for so long stale answers may be given, or as they say themselves */
	uv_loop_t *loop;                 /* only needed with a cache */
	struct tunnels *tunnels;         /* borrowed; NULL: Upgrade is dropped, as of any request that asks for another protocol */
	struct forward_options forward;
	uint64_t max_body;               /* MAX_BODY_BYTES */
	unsigned first_byte_ms, idle_ms, event_stream_idle_ms; /* 60 s, 60 s, 15 min */
	/* May be NULL. */
	void (*on_renewed)(void *ctx,
			   const struct relay_summary *summary); /* what the cache asked for by itself: only what Datasette did */
	void (*on_finished)(void *ctx, const struct http_head *head, const struct relay_summary *summary);
	void *ctx;
};

void relay_defaults(struct relay_options *options);

/* Of exchanges that begin from now on: the largest body, and how long Datasette may be silent (event streams no less than usual). */
void relay_set_limits(struct relay *relay, uint64_t max_body, unsigned silence_ms);

struct relay *relay_new(const struct relay_options *options);
void relay_free(struct relay *relay);

/* Takes over a request inside on_request. */
void relay_handle(struct relay *relay, struct http_request *request);
