/*
 * dial - opens a connection to Redis and logs in, without blocking the loop
 *
 * Names are resolved by uv_getaddrinfo, anew for every attempt; hiredis itself would block on them.
 *
 * Owns:       the hiredis context and every handle under it.
 * Lifetime:   dial_init … dial_close (asynchronous, on_closed).
 * Runs on:    one loop.
 * Re-entry:   on_ended may run inside dial_start() and dial_drop().
 * Bounds:     100 ms to connect, 500 ms to log in. A name server may take its time: uv_getaddrinfo cannot be hurried.
 * Invariants: every dial_start is followed by one on_ended, with on_ready before it or not; when on_ended runs, hiredis has given
 *             every command its NULL reply. After dial_close only on_closed runs.
 */
#pragma once

#include "policy/redis_url.h"

#include <uv.h>

struct redisAsyncContext;

struct dial_events {
	void (*on_ready)(void *ctx);
	void (*on_ended)(void *ctx, const char *reason); /* valid during the call */
	void (*on_closed)(void *ctx);
	void *ctx;
};

enum dial_phase { DIAL_IDLE, DIAL_RESOLVING, DIAL_CONNECTING, DIAL_GREETING, DIAL_READY, DIAL_ENDING, DIAL_CLOSED };

struct dial {
	enum dial_phase phase;
	struct redisAsyncContext *context; /* for commands while DIAL_READY */
	/* The dial's own: */
	uv_loop_t *loop;
	struct redis_url url;
	struct ssl_ctx_st *tls;
	uv_timer_t deadline;
	uv_getaddrinfo_t resolve;
	unsigned attempt;
	char reason[160];
	unsigned handles; /* libuv still holds */
	struct dial_events events;
};

/* -EINVAL: the URL is not usable (logged); -EIO: OpenSSL failed. */
MUST_CHECK int dial_init(struct dial *dial, uv_loop_t *loop, struct slice url, const struct dial_events *events);

/* `attempt` counts up from one attempt to the next: each takes the next address of the name. */
void dial_start(struct dial *dial, unsigned attempt);

/* Ends the attempt or the connection; nothing happens when there is none. */
void dial_drop(struct dial *dial, const char *reason);

void dial_close(struct dial *dial);
