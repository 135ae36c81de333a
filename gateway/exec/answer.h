/*
 * answer - what a finished run is told to the caller as: status, JSON body or problem
 *
 * Pure but for the memory of the body.
 * Results:    0, -ENOMEM, -EMSGSIZE (the answer would pass EXEC_ANSWER_MAX).
 * Invariants: 200 only when the command is known to have run, and on all of its input; an exit code only with the outcome `exited`.
 */
#pragma once

#include "gateway/base/buf.h"
#include "gateway/base/id.h"
#include "gateway/exec/check.h"
#include "gateway/exec/outfiles.h"
#include "gateway/exec/source.h"

struct writer;

#define EXEC_ANSWER_MAX (1024UL * 1024 * 1024)

enum exec_outcome {
	EXEC_EXITED,
	EXEC_SIGNALED,    /* only when the sandbox names the signal; Sprites reports 128+n as an exit code today */
	EXEC_TIMED_OUT,
	EXEC_CANCELED,
	EXEC_UNKNOWN,     /* it may have run: the connection broke before the exit frame */
	EXEC_NOT_STARTED, /* it certainly did not run */
	EXEC_OUTCOMES,
};

/* Why a command was not started. */
enum exec_refusal {
	EXEC_REFUSED_BY_PROVIDER, /* no sandbox could be had, or it refused the command */
	EXEC_REFUSED_CAPACITY,    /* every sandbox is in use and none will be free in time */
	EXEC_REFUSED_DRAINING,
	EXEC_REFUSED_TOO_LONG,    /* it does not fit the sandbox's API: no retry helps (422) */
	EXEC_REFUSED_SOURCE,      /* Datasette did not give all of its input: also of EXEC_CANCELED */
	EXEC_REFUSED_SESSION_LOST, /* the session's sandbox does not exist any more (410) */
};

struct exec_result {
	enum exec_outcome outcome;
	unsigned exit_code;         /* of EXEC_EXITED */
	enum exec_refusal refusal;  /* of EXEC_NOT_STARTED */
	struct source_failure source; /* of EXEC_REFUSED_SOURCE */
	uint64_t retry_after_ms;    /* of EXEC_NOT_STARTED */
	char sandbox[64];           /* the Sprite's name; "" = it had none */
	const char *tier;           /* "hot", "warm", "cold" or "none" */
	const char *session;        /* its name, which needs no escape; NULL = none. Outlives the result */
	bool session_created;       /* no command was started in it before */
	struct output streams[2];   /* stdout, stderr */
	const char *encoding[2];    /* of their text once it was told: "utf-8" or "base64" */
	bool copied;                /* of a streamed answer: streams and files hold all that it has told (copy.h) */
	enum check_verdict check;
	const struct outfiles *files; /* borrowed; NULL = none were asked for */
	const struct writer *writer;  /* borrowed; NULL = rows of standard output are written nowhere */
	uint64_t admit_us, claim_us, run_us;
	/* Monotonic: when the claim and the command began, and how the Sprite became ready; 0 = it did not, or is not known. */
	uint64_t claim_start_us, run_start_us, ready_from_us, ready_us;
	char detail[200];           /* a plain sentence for EXEC_UNKNOWN and EXEC_NOT_STARTED */
};

struct exec_answer {
	unsigned status;
	const char *code;           /* problem code, NULL for a 200 */
	uint64_t retry_after_ms;    /* 0 = none */
	struct buf body;            /* the JSON answer, or the problem's further members without braces */
	char detail[200];           /* of a problem */
};

const char *exec_outcome_name(enum exec_outcome outcome);

MUST_CHECK int exec_answer_write(struct exec_result *result, const char *exec_id, struct exec_answer *answer);

/* Without the text of output and files (of a stream, which has told it already): every other member, without braces, into `text`; of a command that
 * may not have run also those of the problem. answer->body stays empty. */
MUST_CHECK int exec_answer_result(struct exec_result *result, const char *exec_id, struct exec_answer *answer, struct buf *text);
void exec_answer_deinit(struct exec_answer *answer);
