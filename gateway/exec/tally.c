#include "gateway/exec/tally.h"

#include "gateway/exec/writer.h"

static void count_rows(struct metrics_shard *metrics, const struct writer *writer)
{
	struct metrics_labels ends = {{metrics_value(METRIC_EXEC_ROW_WRITERS, 0, writer_end_name(writer))}};
	metrics_add(metrics, METRIC_EXEC_ROW_WRITERS, ends, 1);
	struct metrics_labels written = {{metrics_value(METRIC_EXEC_ROWS, 0, "written")}},
			      in_doubt = {{metrics_value(METRIC_EXEC_ROWS, 0, "in_doubt")}};
	metrics_add(metrics, METRIC_EXEC_ROWS, written, writer->written);
	metrics_add(metrics, METRIC_EXEC_ROWS, in_doubt, writer->in_doubt);
}

void tally_metrics(struct metrics_shard *metrics, const struct exec_job *job, const struct exec_result *result, const char *ended_by)
{
	struct metrics_labels labels = {{job->outcome, metrics_value(METRIC_EXEC_TOTAL, 1, job->tier)}};
	metrics_add(metrics, METRIC_EXEC_TOTAL, labels, 1);
	metrics_observe(metrics, METRIC_EXEC_QUEUE_SECONDS, METRICS_NONE, result->claim_us);
	metrics_add(metrics, METRIC_EXEC_OUTPUT_BYTES, METRICS_NONE, job->output_bytes);
	if (job->outcome == EXEC_NOT_STARTED)
		return;
	struct metrics_labels checks = {{metrics_value(METRIC_EXEC_CHECKS, 0, check_verdict_name(result->check))}};
	metrics_add(metrics, METRIC_EXEC_CHECKS, checks, 1);
	if (result->writer)
		count_rows(metrics, result->writer);
	metrics_observe(metrics, METRIC_EXEC_SECONDS, METRICS_NONE, result->run_us);
	metrics_add(metrics, METRIC_EXEC_SANDBOX_SECONDS, METRICS_NONE, result->run_us);
	if (result->refusal == EXEC_REFUSED_SOURCE)
		ended_by = "source";
	const char *reason = job->outcome == EXEC_TIMED_OUT ? "timeout" : ended_by;
	if (job->outcome == EXEC_TIMED_OUT || job->outcome == EXEC_CANCELED) {
		struct metrics_labels killed = {{metrics_value(METRIC_EXEC_KILLED, 0, reason)}};
		metrics_add(metrics, METRIC_EXEC_KILLED, killed, 1);
	}
}

void tally_audit(struct audit *audit, const struct exec_job *job, const struct exec_result *result, const char *killed_by)
{
	struct audit_record record = AUDIT_RECORD("run");
	record.exec_id = slice_str(job->message.exec_id);
	record.trace_id = slice_str(job->root.trace.id);
	record.kid = slice_str(job->lease.kid);
	record.actor = slice_str(job->lease.actor);
	record.reason = killed_by ? "killed" : NULL;
	record.by = killed_by;
	record.code = job->answer.code;
	record.command_sha256 = slice_str(job->command_sha256);
	record.stdin_bytes = job->stdin_bytes;
	record.granted_ms = job->timeout_ms;
	record.egress = job->egress;
	record.sandbox = slice_str(result->sandbox);
	record.tier = job->tier;
	record.outcome = exec_outcome_name(job->outcome);
	record.exit_code = job->outcome == EXEC_EXITED ? result->exit_code : AUDIT_NONE;
	record.wait_ms = result->claim_us / 1000;
	record.wall_ms = job->wall_ms;
	record.stdout_bytes = output_written(&result->streams[0]);
	record.stderr_bytes = output_written(&result->streams[1]);
	audit_write(audit, &record);
}
