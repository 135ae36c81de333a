/*
 * redis_poll - runs a hiredis connection on a libuv loop
 *
 * hiredis' own adapter leaks when the poll handle cannot be made and tells nobody when its memory is gone; a loop can only be
 * closed after that.
 *
 * Owns:       the handles. They live as long as the hiredis context, plus the time libuv needs to close them.
 * Runs on:    one loop.
 * Writing:    all commands of one turn of the loop leave together, in that turn: before the loop sleeps, and before older check
 *             handles run when they were asked from a poll. With TLS, and what the socket does not take, when the loop finds it
 *             writable.
 */
#pragma once

#include "gateway/base/attr.h"

#include <uv.h>

struct redisAsyncContext;

struct redis_poll_events {
	/* hiredis is about to free the context, whatever the reason; all its reply callbacks have run. */
	void (*on_gone)(void *ctx);
	/* The handles' memory is gone too. */
	void (*on_closed)(void *ctx);
	void *ctx;
};

/* -ENOMEM or libuv's -errno: then neither event ever runs. */
MUST_CHECK int redis_poll_attach(struct redisAsyncContext *context, uv_loop_t *loop, const struct redis_poll_events *events);

/* What was asked leaves now, not at the end of the turn; of a context that is attached and not gone. */
void redis_poll_flush(struct redisAsyncContext *context);
