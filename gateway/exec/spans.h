/*
 * spans - what tracing tells of one command
 *
 *   exec                       from the request's head to the end of its answer (told by its call)
 *   ├ admit                    the decision in Redis (told by its call)
 *   ├ claim                    the wait for a Sprite
 *   │ └ wake, or create        as far as this command waited for it
 *   ├ run                      the command itself
 *   └ settle                   until Redis has taken back what it did not use
 *
 * Owns:       nothing.
 * Runs on:    the agent loop.
 * Bounds:     SPANS_SETTLING settlements are waited for; of older ones there is no span.
 */
#pragma once

#include "gateway/exec/job.h"

#define SPANS_SETTLING 64

struct settling {
	char lease[ADMISSION_LEASE_LEN + 1]; /* "" = none */
	char exec_id[ID_UUID_LEN + 1];
	struct trace_root root;
	uint64_t start_us;
};

struct spans {
	struct tracer *tracer; /* borrowed; NULL = none are told */
	struct settling settling[SPANS_SETTLING];
	size_t next;           /* of settling: the oldest */
};

/* What the agent knows, when the command is answered. */
void spans_of_run(struct spans *spans, const struct exec_job *job, const struct exec_result *result);

void spans_settled(struct spans *spans, const struct admission_lease *lease);
