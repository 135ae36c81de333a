/*
 * job - the messages between a worker's endpoint and the agent
 *
 * A job is made by the endpoint, owned by the agent while it runs, and comes back once, answered. When its answer is streamed, pieces
 * come before it, and the endpoint gives credit for those that it has passed on. Everything else names a job by its exec id, so that
 * no pointer to a live object crosses.
 */
#pragma once

#include "gateway/base/id.h"
#include "gateway/base/mailbox.h"
#include "gateway/base/sha256.h"
#include "gateway/exec/request.h"
#include "gateway/exec/source.h"
#include "gateway/exec/stream.h"
#include "gateway/telemetry/tracer.h"
#include "policy/admission.h"

enum exec_message_kind {
	EXEC_START, /* a job: to the agent and back */
	EXEC_CANCEL,
	EXEC_INTENT,
	EXEC_CREDIT, /* both ways */
	EXEC_INPUT,
	EXEC_PIECE, /* to the endpoint */
	EXEC_BATCH, /* likewise, of rows for Datasette */
	EXEC_WROTE, /* to the agent */
};

/* The first member of every message. */
struct exec_message {
	struct mailbox_item item;
	enum exec_message_kind kind;
	char exec_id[ID_UUID_LEN + 1];
};

struct exec_job {
	struct exec_message message;
	struct mailbox *reply_to;        /* the worker's; open until its last job is back */
	struct exec_request *request;    /* owned */
	struct admission_lease lease;
	uint64_t timeout_ms;
	uint64_t max_output_bytes;       /* per stream */
	struct admission_caps caps;      /* the token's and the gateway's */
	uint64_t admit_us;
	struct fields_budget budget;     /* of its token, with what this job reserves */
	enum stream_format format;
	struct admission_kill kill; /* why it was ended before it was handed over: it is not run, and answered as canceled */
	bool feeds;        /* more standard input follows that of the request, in pieces (EXEC_INPUT) */
	struct admission_session session; /* of a request with one */
	char egress[ADMISSION_EGRESS_MAX + 1]; /* what it may reach; "" = nothing */
	char command_sha256[SHA256_HEX + 1]; /* "" = not audited */
	struct trace_root root;          /* of its spans */

	/* Filled in by the agent. */
	int error;         /* negative: a bug or no memory; answered as 500 */
	enum exec_outcome outcome;
	const char *tier;
	uint64_t wall_ms, output_bytes;
	uint64_t stdin_bytes;            /* sent to the command */
	bool streamed;                   /* all of the answer was told in pieces: its body is empty */
	struct exec_answer answer;
};

struct exec_cancel {
	struct exec_message message;
	bool on_request;                 /* somebody asked for it; else its client has left */
	bool at_once;                    /* by KILL; else TERM comes first */
};

/* Bytes of pieces that the client has taken, or of input that the sandbox has. */
struct exec_credit {
	struct exec_message message;
	size_t bytes;
};

/* Bytes of a job's standard input that may be under way. */
#define EXEC_INPUT_WINDOW ((size_t)256 * 1024)

enum exec_input_end { EXEC_INPUT_MORE, EXEC_INPUT_END, EXEC_INPUT_BROKEN };

#define EXEC_WRITTEN_DETAIL 500

enum exec_written_how {
	EXEC_WRITTEN,
	EXEC_NOT_WRITTEN,
	EXEC_WRITTEN_IN_DOUBT, /* Datasette did not say */
};

/* What became of a batch, in their order. None follows one that was not written. */
struct exec_written {
	struct exec_message message;
	enum exec_written_how how;
	uint64_t rows;
	unsigned status;  /* of Datasette's answer; 0 = it gave none */
	char detail[EXEC_WRITTEN_DETAIL]; /* a plain sentence */
};

/* A part of a streamed answer, as it is sent to the client, of a job's standard input (EXEC_INPUT), or the body of a request that writes rows
 * (EXEC_BATCH). */
struct exec_piece {
	struct exec_message message;
	struct buf text;
	/* Of input: */
	uint64_t stdin_bytes; /* of the text, the command's: the rest brings its files */
	enum exec_input_end end;
	struct source_failure failure; /* of EXEC_INPUT_BROKEN */
	uint64_t rows; /* of EXEC_BATCH */
	struct exec_piece *prev, *next; /* of whoever has it */
};

/* NULL when out of memory. */
struct exec_cancel *exec_cancel_new(const char *exec_id, bool on_request, bool at_once);

/* Gives credit to the other side. False: no memory, later with more. */
MUST_CHECK bool exec_credit_send(struct mailbox *to, const char *exec_id, size_t bytes);

/* Takes the text. NULL when out of memory. */
struct exec_piece *exec_piece_new(const char *exec_id, struct buf *text);
void exec_piece_free(struct exec_piece *piece);

/* NULL when out of memory. */
struct exec_job *exec_job_new(const char *exec_id);
void exec_job_free(struct exec_job *job);
