/*
 * spans - what tracing tells of one command
 *
 *   exec                       from the request's head to the end of its answer (told by its call)
 *   ├ admit                    the decision in Redis (told by its call)
 *   ├ claim                    the wait for a Sprite
 *   │ └ wake, or create        as far as this command waited for it
 *   └ run                      the command itself
 *
 * Pure but for what tracer does.
 */
#pragma once

#include "gateway/exec/job.h"

/* What the agent knows, when the command is answered. */
void spans_of_run(struct tracer *tracer, const struct exec_job *job, const struct exec_result *result);
