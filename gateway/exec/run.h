/*
 * run - one command's life: claim a Sprite, run, time out, cancel, settle, give the Sprite back
 *
 *   CLAIMING → (OPENING →) RUNNING → (TERMINATING → KILLING →) (CHECKING →) answered → LINGERING → freed
 *
 * The job is answered exactly once and its lease settled exactly once, together. A Sprite that was used is never used again, unless it is
 * a session's (exec/sessions.h).
 * While a streamed answer is full the Sprite's output is not read; the timeout goes on.
 *
 * Owns:       its job until it is answered, its claim, its member.
 * Lifetime:   run_start … on_freed, which comes after the job was answered and the member released.
 * Runs on:    the agent loop.
 * Re-entry:   on_answered may run inside run_cancel and run_stop, never inside run_start; on_freed runs inside neither.
 * Bounds:     a command ends at its timeout, or when it is told to stop before that, plus 2 s (TERM to KILL) plus 1 s (KILL to giving up; 8 s
 *             when rows wait for Datasette), and 13 s after that time its output is checked or no longer is, or sooner when 10 s brought
 *             nothing; two tries to start it, the second only if the first certainly did not.
 */
#pragma once

#include "gateway/exec/job.h"
#include "gateway/exec/launch.h"
#include "gateway/exec/sessions.h"
#include "gateway/pool/pool.h"

struct run;

struct run_owner {
	uv_loop_t *loop;
	struct pool *pool;
	struct sessions *sessions;
	struct admission *settlement;
	uint64_t session_idle_ms;
	uint64_t wait_ms;        /* longest wait for a Sprite, both tries together */
	uint64_t verify_bytes;   /* output is compared with its record from so many bytes of a stream on; 0 = no record is kept */
	uint64_t insert_rows;    /* that Datasette takes at once */
	size_t result_bytes;     /* what a command ended with is kept up to this size, and beyond without its output; 0 = not at all */
	/* Takes the job; `result` is valid during the call. */
	void (*on_answered)(void *ctx, struct exec_job *job, const struct exec_result *result);
	void (*on_freed)(void *ctx, struct run *run);
	void *ctx;
};

/* Takes the job. NULL when out of memory: the job is still the caller's. `owner` outlives the run. */
struct run *run_start(const struct run_owner *owner, struct exec_job *job);

/* Kills the command; the job is answered with `canceled` at once. */
void run_cancel(struct run *run);

/* The same of one that is ending already or does not run yet. Another is ended as at its timeout, and answered with `canceled` when it has. */
void run_stop(struct run *run);

/* "waiting" (for a Sprite), "running", "ending" or "checking"; NULL once it is answered. */
const char *run_phase(const struct run *run);

/* What became of a batch of rows. */
void run_written(struct run *run, const struct exec_written *written);

/* Takes a piece of the command's standard input (job.feeds). */
void run_input(struct run *run, struct exec_piece *piece);

/* The worker has passed on so many bytes of a streamed answer. */
void run_credit(struct run *run, size_t bytes);
