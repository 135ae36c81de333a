#include "gateway/exec/spans.h"

#include "gateway/base/clock.h"

static bool has_failed(enum exec_outcome outcome)
{
	return outcome == EXEC_UNKNOWN || outcome == EXEC_NOT_STARTED;
}

/* How its Sprite became ready, as far as this command waited for it. */
static void tell_ready(struct tracer *tracer, const struct exec_job *job, const struct exec_result *result, const char *claim)
{
	uint64_t from_us = result->ready_from_us > result->claim_start_us ? result->ready_from_us : result->claim_start_us;
	if (result->ready_us <= from_us)
		return;
	tracer_span(tracer, &job->root,
		    &(struct span){.name = strcmp(result->tier, "warm") == 0 ? "wake" : "create",
				   .kind = SPAN_INTERNAL,
				   .parent = claim,
				   .start_us = from_us,
				   .end_us = result->ready_us,
				   .exec_id = job->message.exec_id});
}

static void await_settlement(struct spans *spans, const struct exec_job *job)
{
	struct settling *settling = &spans->settling[spans->next++ % SPANS_SETTLING];
	memcpy(settling->lease, job->lease.id, sizeof settling->lease);
	memcpy(settling->exec_id, job->message.exec_id, sizeof settling->exec_id);
	settling->root = job->root;
	settling->start_us = clock_mono_us();
}

void spans_settled(struct spans *spans, const struct admission_lease *lease)
{
	for (size_t i = 0; i < SPANS_SETTLING; i++) {
		struct settling *settling = &spans->settling[i];
		if (!settling->lease[0] || strcmp(settling->lease, lease->id) != 0)
			continue;
		tracer_span(spans->tracer, &settling->root,
			    &(struct span){.name = "settle",
					   .kind = SPAN_INTERNAL,
					   .start_us = settling->start_us,
					   .end_us = clock_mono_us(),
					   .exec_id = settling->exec_id});
		settling->lease[0] = '\0';
	}
}

void spans_of_run(struct spans *spans, const struct exec_job *job, const struct exec_result *result)
{
	struct tracer *tracer = spans->tracer;
	char claim[TRACE_SPAN_LEN + 1];
	const char *outcome = exec_outcome_name(job->outcome);
	bool ran = result->run_start_us > 0;
	if (!job->root.span[0] || trace_span_id(claim) < 0)
		return;
	await_settlement(spans, job);
	tell_ready(tracer, job, result, claim);
	tracer_span(tracer, &job->root,
		    &(struct span){.name = "claim",
				   .kind = SPAN_INTERNAL,
				   .id = claim,
				   .start_us = result->claim_start_us,
				   .end_us = result->claim_us ? result->claim_start_us + result->claim_us : clock_mono_us(),
				   .exec_id = job->message.exec_id,
				   .tier = job->tier,
				   .error = !ran && has_failed(job->outcome) ? outcome : NULL});
	if (ran)
		tracer_span(tracer, &job->root,
			    &(struct span){.name = "run",
					   .kind = SPAN_INTERNAL,
					   .start_us = result->run_start_us,
					   .end_us = result->run_start_us + result->run_us,
					   .exec_id = job->message.exec_id,
					   .outcome = outcome,
					   .error = has_failed(job->outcome) ? outcome : NULL});
}
