/*
 * admin - the listener for operators: the status page, /metrics, /health/live, /health/ready
 *
 * Owns:       its HTTP server, the status page.
 * Lifetime:   admin_new … admin_stop, whose on_stopped is the last thing.
 * Runs on:    the agent's loop.
 * Results:    NULL = no memory.
 */
#pragma once

#include "gateway/base/secret.h"
#include "gateway/exec/agent.h"
#include "gateway/http/server.h"
#include "gateway/telemetry/metrics.h"

struct admin;

/*
 * Ready: the pool has been full once, and nothing is being shut down. A claim does not take that back (a command then waits for a Sprite
 * or gets one made), nor does Redis being away: pages need neither, and every instance would be taken out of service at the same time.
 */
struct admin_health {
	bool draining, filled;
	bool redis_up, datasette_up;
	bool degrades; /* a little goes on without Redis */
	size_t hot, leased, hot_target;
};

struct admin_options {
	uv_loop_t *loop;
	int listen_fd; /* taken, also on failure */
	const struct metrics *metrics;
	const char *instance;       /* of this gateway; borrowed */
	const struct secret *token; /* who may cancel commands; empty = nobody; borrowed */
	/* Brings the gauges up to date before a scrape. */
	void (*collect)(void *ctx);
	void (*health)(void *ctx, struct admin_health *health);
	/* NULL when it has ended. */
	struct exec_agent *(*agent)(void *ctx);
	void *ctx;
};

struct admin *admin_new(const struct admin_options *options);
void admin_stop(struct admin *admin, void (*on_stopped)(void *ctx), void *ctx);
