/*
 * probe - asks Datasette whether it is back, while it is wanted and nobody else asks
 *
 * Owns:       a timer, and the exchange it starts: one HEAD request at a time, at most one a second.
 * Lifetime:   probe_new … probe_free, before the pool of exchanges is freed.
 * Runs on:    the loop of its pool.
 * Re-entry:   no callback runs inside a call.
 */
#pragma once

#include "gateway/datasette/exchange.h"

struct probe_options {
	uv_loop_t *loop;
	struct exchange_pool *exchanges; /* borrowed */
	struct slice host;               /* of the request; borrowed */
	/* Asked every second: shall Datasette be asked? */
	bool (*is_wanted)(void *ctx);
	/* It answered, whatever the status, or failed. */
	void (*on_outcome)(void *ctx, bool answered);
	void *ctx;
};

struct probe;

struct probe *probe_new(const struct probe_options *options);
void probe_free(struct probe *probe);
