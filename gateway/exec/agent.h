/*
 * agent - everything about Sprites, on one loop: the pool, the running commands, their settlement
 *
 * Workers post jobs and cancellations into its mailbox and get every job back, answered, through their own.
 *
 * Owns:       its mailbox, the pool, the runs, its link to Redis. Not the provider, not the loop.
 * Lifetime:   exec_agent_new, then exec_agent_drain … on_drained, exec_agent_free … on_freed.
 * Runs on:    its loop; only exec_agent_mailbox's posts come from other threads.
 * Results:    NULL = no memory, or options out of bounds (logged).
 * Bounds:     max_jobs jobs waiting in the mailbox (beyond it the endpoint answers 503), the pool's waiters behind that.
 */
#pragma once

#include "gateway/exec/job.h"
#include "gateway/exec/recent.h"
#include "gateway/pool/pool.h"
#include "gateway/telemetry/audit.h"
#include "gateway/telemetry/metrics.h"
#include "gateway/telemetry/tracer.h"

struct exec_agent;

struct exec_agent_options {
	uv_loop_t *loop;
	struct provider provider;
	const char *instance;
	struct sizing_options sizing;
	uint64_t usd_per_day;
	bool recycle;
	uint64_t session_idle_ms, session_age_ms; /* admission.h */
	const char *pool_name; /* shared with other gateways under this name; NULL = not */
	uint64_t pool_wait_ms;
	uint64_t verify_bytes, result_bytes, insert_rows; /* as in struct run_owner */
	size_t max_jobs;
	struct admission_options settlement; /* loop and observer are filled in here */
	struct metrics_shard *metrics;
	struct audit *audit;   /* NULL = none */
	struct tracer *tracer; /* NULL = none */
	/* Another process has begun as this instance later: the caller drains, as on SIGTERM. Once. */
	void (*on_superseded)(void *ctx);
	void *ctx;
};

struct exec_agent *exec_agent_new(const struct exec_agent_options *options);

/* Where jobs and cancellations go; valid until exec_agent_free(). */
struct mailbox *exec_agent_mailbox(struct exec_agent *agent);

/* Other sizes of the pool from now on. */
void exec_agent_resize(struct exec_agent *agent, size_t hot, size_t warm);

/* Sets the gauges that are only read when scraped. */
void exec_agent_collect(struct exec_agent *agent);

/*
 * No new jobs (they come back refused), idle Sprites destroyed; what runs may end by itself until the deadline and is canceled then.
 * on_drained runs once, when the last run is answered, every Sprite destroyed and every lease settled, or 5 s after the deadline.
 * A second call only brings the deadline nearer.
 */
void exec_agent_drain(struct exec_agent *agent, uint64_t deadline_ms, void (*on_drained)(void *ctx), void *ctx);

/* After on_drained. */
void exec_agent_free(struct exec_agent *agent, void (*on_freed)(void *ctx), void *ctx);

/* For health: hot members right now, and have as many as wanted become ready since the start. */
void exec_agent_counts(const struct exec_agent *agent, struct pool_counts *counts);
bool exec_agent_filled(const struct exec_agent *agent);

/* For the status page: commands that have not been answered yet, the oldest first, as many as fit. */
struct exec_running {
	const char *exec_id, *kid; /* borrowed until the loop goes on */
	const char *phase;         /* as in run.h */
	uint64_t for_us, timeout_ms;
};
size_t exec_agent_running(const struct exec_agent *agent, struct exec_running *out, size_t max);
const struct recent *exec_agent_recent(const struct exec_agent *agent);

/* Ends a command for an operator, `by` whom the audit tells, as run_stop(). False when none of this id runs here. */
bool exec_agent_kill(struct exec_agent *agent, struct slice exec_id, const char *by);
