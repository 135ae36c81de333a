/*
 * run_parts - what the files of a run share; nobody else includes it
 *
 *   run         its states, what the sandbox says of the command, canceling, its end
 *   run_claim   getting a Sprite
 *   run_answer  what is told: the stream, and the answer with its settlement
 *   run_check   between the command's end and the answer: comparing the output, rows, files
 */
#pragma once

#include "gateway/exec/collect.h"
#include "gateway/exec/copy.h"
#include "gateway/exec/delivery.h"
#include "gateway/exec/feed.h"
#include "gateway/exec/run.h"
#include "gateway/exec/verify.h"
#include "gateway/exec/writer.h"

#define RUN_TERM_MS 2000 /* from TERM to KILL */
#define RUN_KILL_MS 1000 /* from KILL to giving up */

enum run_state { CLAIMING, OPENING, RUNNING, TERMINATING, KILLING, CHECKING, LINGERING, FREED };

struct run {
	const struct run_owner *owner;
	enum run_state state;
	struct exec_job *job;        /* NULL once answered */
	struct pool_claim *claim;
	struct pool_member *member;
	struct session_use *use;     /* of a job with a session, instead of claim and member */
	struct session_ref session;  /* name "" = none */
	struct admission_session kept; /* as the next use finds it */
	bool idle;     /* nothing of the command runs on the channel any more */
	struct sandbox *sandbox;
	struct launch launch;
	struct feed feed;            /* of a job that feeds */
	struct delivery delivery;    /* of a job that wants its answer streamed */
	struct copy copy;            /* likewise */
	struct verify verify;
	struct collect collect;      /* of a job that wants files back */
	struct writer writer;        /* of a job whose output is rows for Datasette */
	uint64_t limit_ms;           /* of its time: the timeout, or when it was told to stop */
	enum exec_outcome late;      /* … and what one is that ends after that */
	enum exec_outcome outcome;          /* of the command whose output is being checked */
	bool started; /* known at the timeout or later */
	unsigned tries;
	struct exec_result result;
	uv_timer_t timer, ping;
	unsigned handles;
};

/* --- run --- */

void run_enter(struct run *run, enum run_state state, uint64_t timeout_ms);

/* The command, in the Sprite that it has. */
void run_launch(struct run *run);

/* Answers and gives the Sprite back. */
void run_finish(struct run *run, enum exec_outcome outcome);
void run_refuse(struct run *run, enum exec_refusal refusal, uint64_t retry_after_ms, const char *detail);

/* --- run_claim --- */

MUST_CHECK int run_claim(struct run *run);

/* Gives the Sprite back and, when nothing was started, tries another one. */
void run_try_again(struct run *run, const char *reason);

/* --- run_answer --- */

/* Where what the command prints goes. */
void run_init_outputs(struct run *run);
MUST_CHECK int run_begin_stream(struct run *run);

/* There may be room for more of its output. */
void run_go_on(struct run *run);

/* What comes after its time is waiting for its end to be seen. */
uint64_t run_ran_us(const struct run *run);

/* The outcome of a run that it is told to. */
enum exec_outcome run_without_memory(struct run *run);

/* Settles and hands the job back; the Sprite is still ours afterwards. */
void run_answer(struct run *run, enum exec_outcome outcome);

/* --- run_check --- */

/* What a command leaves of its time its check may have. */
uint64_t run_check_left_ms(const struct run *run);

/* Of its output, unless that needs no comparison, and reading its files. */
void run_check(struct run *run, bool compare);
void run_check_time(struct run *run);

/* With what is known by now. */
void run_end_check(struct run *run);
