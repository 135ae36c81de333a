/*
 * audit - one JSON object a decision and a run, appended to a file, out of the way of requests
 *
 * Any thread makes its record into a line and posts it; one loop writes the lines through libuv's thread pool, one write at a time, so
 * that a slow disk stops neither requests nor that loop. Every object has every member, null where it has no value: a line is a row.
 *
 * Owns:       its descriptor unless it is stdout or stderr, the lines that wait.
 * Lifetime:   audit_new … audit_free (asynchronous: what waits is written first, if it is taken within a second).
 * Runs on:    the loop given to audit_new; audit_write() on any thread.
 * Re-entry:   on_line runs from the loop only.
 * Bounds:     AUDIT_RECORDS records and AUDIT_BYTES on their way to the loop, AUDIT_BYTES of lines waiting to be written. Beyond that they
 *             are dropped and counted, and as soon as there is room a record `lost` says how many.
 */
#pragma once

#include "gateway/base/buf.h"

#include <uv.h>

#define AUDIT_RECORDS 4096
#define AUDIT_BYTES   (8 * 1024 * 1024)

struct audit;

struct audit_options {
	uv_loop_t *loop;
	int fd;               /* of access_log_open(where); taken, -1 = none */
	const char *where;    /* what is opened anew; borrowed */
	const char *instance; /* of this gateway; borrowed */
	/* Every line as well, without its end; may be NULL. */
	void (*on_line)(void *ctx, struct slice line);
	void *ctx;
};

/* A member that is empty, NULL or AUDIT_NONE is null. */
#define AUDIT_NONE UINT64_MAX

struct audit_record {
	const char *kind;     /* "decision", "run", "lost" */
	struct slice exec_id, request_id, trace_id, client, kid, actor, policy;
	uint64_t policy_version; /* 0 = none */
	struct slice shadow;  /* JSON array of limits that would have refused */
	const char *decision, *reason, *by, *code; /* by: who wanted it so, other than its caller */
	struct slice command_sha256;
	struct slice command; /* JSON text; empty unless it is to be recorded */
	uint64_t stdin_bytes, granted_ms;
	const char *egress;   /* what the command may reach */
	struct slice sandbox;
	const char *tier, *outcome;
	uint64_t exit_code, wait_ms, wall_ms, stdout_bytes, stderr_bytes;
	uint64_t lost;        /* records */
};

/* Of a record of which nothing is known yet. */
#define AUDIT_RECORD(k)                                    \
	((struct audit_record){.kind = (k),                \
			       .stdin_bytes = AUDIT_NONE,  \
			       .granted_ms = AUDIT_NONE,   \
			       .exit_code = AUDIT_NONE,    \
			       .wait_ms = AUDIT_NONE,      \
			       .wall_ms = AUDIT_NONE,      \
			       .stdout_bytes = AUDIT_NONE, \
			       .stderr_bytes = AUDIT_NONE, \
			       .lost = AUDIT_NONE})

/* Their names and SQLite types, in order; NULL ends the list. "id" is unique. */
struct audit_column {
	const char *name, *type;
};
extern const struct audit_column audit_columns[];

/* NULL: no memory, and the descriptor is the caller's still. */
struct audit *audit_new(const struct audit_options *options);
void audit_free(struct audit *audit, void (*on_freed)(void *ctx), void *ctx);

/* NULL is no audit: nothing is recorded. */
void audit_write(struct audit *audit, const struct audit_record *record);

/* Opens the file anew, after it has been moved away. */
void audit_reopen(struct audit *audit);

/* Records that could not be kept, so far. */
uint64_t audit_dropped(const struct audit *audit);
