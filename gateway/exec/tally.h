/*
 * tally - what a command has come to, told as metrics and to the audit
 *
 * Owns:     nothing.
 * Runs on:  the agent loop, once for each command that was answered.
 */
#pragma once

#include "gateway/exec/answer.h"
#include "gateway/exec/job.h"
#include "gateway/telemetry/audit.h"
#include "gateway/telemetry/metrics.h"

/* `ended_by`: who canceled it, if it was canceled; a word of METRIC_EXEC_KILLED. */
void tally_metrics(struct metrics_shard *metrics, const struct exec_job *job, const struct exec_result *result, const char *ended_by);

/* `killed_by`: who ended it, "" = that is not known; NULL = no operator has. */
void tally_audit(struct audit *audit, const struct exec_job *job, const struct exec_result *result, const char *killed_by);
