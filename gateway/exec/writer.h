/*
 * writer - rows of a command's standard output on their way into Datasette, in batches that its worker posts one after the other
 *
 * Each batch is written as a whole or not at all, and none follows one that was not: the rows that are written are the first ones.
 *
 * Owns:       rows that are read but not sent, and what is not read yet. Batches belong to the mailbox once they are sent.
 * Lifetime:   writer_init … writer_deinit; the job outlives what sends.
 * Runs on:    the agent loop.
 * Re-entry:   none: who feeds it looks at writer_is_done() afterwards.
 * Results:    0 or negative (no memory). What is wrong with the output is told by writer_put().
 * Bounds:     WRITER_BATCH_BYTES of a batch and a row; WRITER_UNDER_WAY batches and two more; WRITER_REST_MAX bytes that are fed while it is
 *             full. A caller that stops feeding then does not come near that.
 * Invariants: there are unread bytes only while it is full.
 */
#pragma once

#include "gateway/exec/job.h"
#include "gateway/exec/rows.h"

/* Below what Datasette takes (max_post_body_bytes, 2 MiB) with a row more. */
#define WRITER_BATCH_BYTES ((size_t)512 * 1024)
#define WRITER_UNDER_WAY   2
#define WRITER_REST_MAX    ((size_t)1024 * 1024)

struct writer {
	struct mailbox *to;
	const char *exec_id;
	const struct exec_rows_to *target; /* NULL = nothing is written */
	struct rows rows;
	uint64_t each;                     /* rows of a batch */
	struct buf rest;                   /* fed, not read */
	struct buf body;
	uint64_t in_body;                  /* rows */
	size_t under_way;                  /* batches */
	uint64_t rows_under_way, written, batches, in_doubt;
	bool stopped, ended, went_on;
	bool gap;     /* maybe, before or among the rows that were read */
	const char *missing;               /* as writer_end() was told */
	/* Why not all is written. */
	bool failed;
	uint64_t failed_row;
	unsigned status;                   /* of Datasette's answer; 0 = none */
	char detail[EXEC_WRITTEN_DETAIL];
};

void writer_init(struct writer *writer, const struct exec_job *job, uint64_t each);
void writer_deinit(struct writer *writer);

MUST_CHECK int writer_feed(struct writer *writer, struct slice bytes);

static inline bool writer_is_full(const struct writer *writer)
{
	return writer->under_way >= WRITER_UNDER_WAY;
}

/* There is no more. `missing`: why this is not all, a plain sentence that outlives it; NULL = it is. */
MUST_CHECK int writer_end(struct writer *writer, const char *missing);

/* Everything is written that ever will be; also of one that never began. */
static inline bool writer_is_done(const struct writer *writer)
{
	return !writer->target || (writer->ended && !writer->under_way);
}

/* How the oldest batch ended; reads on. */
MUST_CHECK int writer_written(struct writer *writer, const struct exec_written *written);

/* Whether anything was written since this was last asked. */
bool writer_went_on(struct writer *writer);

/* It is not waited for any more, `why` in a plain sentence: what is under way is in doubt, and what is fed is dropped. Nothing when it is done. */
void writer_give_up(struct writer *writer, const char *why);
#define WRITER_LATE "Datasette did not take the rows in time."

/* Not all output arrived, and what is missing need not be its end. Who says so ends it with what is missing, or gives it up. */
void writer_lost(struct writer *writer);

/* What became of all that was printed: "complete" (written), "refused" (by Datasette), "in_doubt" or "stopped" (rows that cannot be read or are
 * missing, or nobody took them). */
const char *writer_end_name(const struct writer *writer);

/* Appends what became of it, a JSON object. */
MUST_CHECK int writer_put(const struct writer *writer, struct buf *json);
