/*
 * redis_poll - runs a hiredis connection on a libuv loop
 *
 * hiredis' own adapter leaks when the poll handle cannot be made and tells nobody when its memory is gone; a loop can only be
 * closed after that.
 *
 * Owns:       the poll handle. It lives as long as the hiredis context, plus the time libuv needs to close it.
 * Runs on:    one loop.
 */
#pragma once

#include "gateway/base/attr.h"

#include <uv.h>

struct redisAsyncContext;

struct redis_poll_events {
	/* hiredis is about to free the context, whatever the reason; all its reply callbacks have run. */
	void (*on_gone)(void *ctx);
	/* The handle's memory is gone too. */
	void (*on_closed)(void *ctx);
	void *ctx;
};

/* -ENOMEM or libuv's -errno: then neither event ever runs. */
MUST_CHECK int redis_poll_attach(struct redisAsyncContext *context, uv_loop_t *loop, const struct redis_poll_events *events);
