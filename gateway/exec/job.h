/*
 * job - the messages between a worker's endpoint and the agent
 *
 * A job is made by the endpoint, owned by the agent while it runs, and comes back once, answered. A cancellation names a job by its
 * exec id, so that no pointer to a live object crosses.
 */
#pragma once

#include "gateway/base/id.h"
#include "gateway/base/mailbox.h"
#include "gateway/exec/answer.h"
#include "gateway/exec/request.h"
#include "policy/admission.h"

enum exec_message_kind { EXEC_START, EXEC_CANCEL, EXEC_INTENT };

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
	uint64_t admit_us;

	/* Filled in by the agent. */
	int error;                       /* negative: a bug or no memory; answered as 500 */
	enum exec_outcome outcome;
	const char *tier;
	uint64_t wall_ms, output_bytes;
	struct exec_answer answer;
};

struct exec_cancel {
	struct exec_message message;
};

/* NULL when out of memory. */
struct exec_job *exec_job_new(const char *exec_id);
void exec_job_free(struct exec_job *job);
