/*
 * status_view - what the status page shows, as one JSON object, with a few minutes of history
 *
 * Owns:       its samples of the metrics.
 * Runs on:    the agent's loop.
 * Results:    writing: those of buf.
 * Bounds:     STATUS_SAMPLES samples; STATUS_RUNNING commands, STATUS_BUDGETS budgets and RECENT_RUNS outcomes are listed.
 * Rule:       no command, output, address, actor or secret: tokens by their public id.
 */
#pragma once

#include "gateway/admin.h"
#include "gateway/exec/agent.h"

#define STATUS_SAMPLE_S 5
#define STATUS_SAMPLES  60 /* five minutes */
#define STATUS_RUNNING  50
#define STATUS_BUDGETS  8
#define STATUS_MAX      (48UL * 1024)

struct status_view;

/* NULL when out of memory. */
struct status_view *status_view_new(const struct metrics *metrics);
void status_view_free(struct status_view *view);

/* Every STATUS_SAMPLE_S seconds, with the gauges up to date. */
void status_view_sample(struct status_view *view);

struct status_now {
	const char *instance;
	const struct admin_health *health;
	const struct exec_agent *agent;
	bool may_cancel;
};

MUST_CHECK int status_view_write(const struct status_view *view, const struct status_now *now, struct buf *out);
