#include "gateway/endpoint/call.h"

#include "gateway/base/clock.h"
#include "gateway/base/log.h"
#include "gateway/endpoint/pages.h"
#include "gateway/http/trace_of.h"

#include <stdlib.h>
#include <utlist.h>

static void audit_decision(struct call *call, const char *outcome, const char *reason, const char *code)
{
	struct audit_record record = AUDIT_RECORD("decision");
	if (!call->endpoint->options.audit)
		return;
	record.exec_id = slice_str(call->looked_for[0] ? call->looked_for : call->exec_id);
	record.request_id = call->reply.head->id;
	record.trace_id = slice_str(call->trace.id);
	record.client = call->reply.head->peer;
	record.kid = slice_str(call->kid);
	record.actor = slice_str(call->actor);
	record.policy = slice_str(call->policy);
	record.policy_version = call->policy_version;
	record.shadow = slice_str(call->shadowed);
	record.decision = outcome;
	record.reason = reason;
	record.code = code;
	record.command_sha256 = slice_str(call->trail.sha256);
	record.command = buf_peek(&call->trail.command);
	if (call->trail.sha256[0])
		record.stdin_bytes = call->trail.stdin_bytes;
	if (call->granted_ms)
		record.granted_ms = call->granted_ms;
	audit_write(call->endpoint->options.audit, &record);
}

void call_decide(struct call *call, const char *outcome, const char *reason, const char *code)
{
	audit_decision(call, outcome, reason, code);
	struct metrics_labels labels = {
		{metrics_value(METRIC_EXEC_DECISIONS, 0, outcome), metrics_value(METRIC_EXEC_DECISIONS, 1, reason)}};
	metrics_add(call->endpoint->options.metrics, METRIC_EXEC_DECISIONS, labels, 1);
}

void call_drop_body(struct call *call)
{
	call->endpoint->buffered -= call->buffered;
	call->buffered = 0;
	buf_deinit(&call->body);
}

void call_refuse(struct call *call, struct exec_problem problem)
{
	struct http_request *request = TAKE(call->request);
	call_decide(call, problem.outcome, problem.reason, problem.code);
	call->code = problem.code;
	call_drop_body(call);
	if (request && exec_reply_problem(request, &call->reply, &problem) < 0)
		log_error_of(&call->subject, "exec: the answer could not be sent");
	exec_problem_deinit(&problem);
}

void call_cancel(const struct call *call, const char *exec_id)
{
	struct exec_cancel *cancel = exec_cancel_new(exec_id, call->cancels, !call->cancels || call->cancels_again);
	if (!cancel) {
		log_error_of(&call->subject, "exec: could not be canceled, it ends at its timeout");
		return;
	}
	/* Not counted against the queue: a cancellation belongs to a job or a request that was. */
	if (mailbox_reply(call->endpoint->options.agent, &cancel->message.item) != 0)
		free(cancel);
}

static void on_gone(void *ctx)
{
	struct call *call = ctx;
	call->request = NULL;
	call_identity_stop(call);
	call_fetch_stop(call);
	call_write_stop(call);
	if (call->admission) {
		struct exec_endpoint *endpoint = call->endpoint;
		admission_cancel(endpoint->admission, call->admission);
		call->admission = NULL;
		endpoint->asked_until_ms = uv_now(endpoint->options.loop) + endpoint->options.admission.timeout_ms;
	}
	if (call->with_agent)
		call_cancel(call, call->exec_id);
}

static void write_log(const struct call *call, const struct http_summary *summary)
{
	const struct exec_endpoint_options *options = &call->endpoint->options;
	struct access_record record = {
		.trace_id = call->trace.id,
		.aborted = summary->end == HTTP_END_CUT ? "gateway" : NULL,
		.code = call->code,
		.exec_id = call->is_post ? slice_str(call->exec_id) : slice_str(call->looked_for),
		.kid = slice_str(call->kid),
		.actor = slice_str(call->actor),
		.policy = slice_str(call->policy),
		.policy_version = call->policy_version,
		.shadowed = slice_str(call->shadowed),
		.outcome = call->outcome,
		.tier = call->tier,
		.degraded = call->reply.degraded,
	};
	options->log_request(options->client_ctx, call->reply.head, summary, &record);
}

/* Of what Redis has decided; strangers have no spans. The agent tells of the command itself (spans.h). */
static void tell_spans(const struct call *call, const struct http_summary *summary)
{
	struct tracer *tracer = call->endpoint->options.tracer;
	uint64_t start_us = call->reply.head->start_us;
	if (!call->kid[0])
		return;
	tracer_span(tracer, &call->root,
		    &(struct span){.name = "admit",
				   .kind = SPAN_INTERNAL,
				   .start_us = call->admit_start_us,
				   .end_us = call->admit_start_us + call->reply.admit_us,
				   .exec_id = call->exec_id});
	tracer_span(tracer, &call->root,
		    &(struct span){.name = "exec",
				   .kind = SPAN_SERVER,
				   .id = call->root.span,
				   .start_us = start_us,
				   .end_us = start_us + summary->duration_us,
				   .exec_id = call->exec_id,
				   .outcome = call->outcome,
				   .tier = call->tier,
				   .status = summary->status,
				   .error = call->code                    ? call->code
					    : summary->end != HTTP_END_OK ? "aborted"
									  : NULL});
}

static void on_finished(void *ctx, const struct http_summary *summary)
{
	struct call *call = ctx;
	struct exec_endpoint *endpoint = call->endpoint;
	write_log(call, summary);
	tell_spans(call, summary);
	if (call->with_agent)
		DL_DELETE(endpoint->calls, call);
	call_drop_body(call);
	call_drop_pieces(call);
	call_identity_stop(call);
	call_fetch_stop(call);
	call_write_stop(call);
	trail_deinit(&call->trail);
	exec_request_free(call->command);
	call_mcp_free(call);
	free(call);
}

static const struct http_sink sink = {.on_body = call_on_body,
				      .on_body_end = call_on_body_end,
				      .on_writable = call_on_writable,
				      .on_gone = on_gone,
				      .on_finished = on_finished};

void call_answer(struct call *call, struct exec_job *job)
{
	call->outcome = exec_outcome_name(job->outcome);
	call->tier = job->tier;
	call->code = job->answer.code;
	call_fetch_stop(call);
	call_write_stop(call);
	if (!call->request)
		return;
	if (call->streaming && call->mcp) {
		call_signs_end(call, job);
		return;
	}
	if (call->streaming) {
		call_end_stream(call, job);
		return;
	}
	struct http_request *request = TAKE(call->request);
	int r = job->error < 0 ? job->error : exec_reply_job(request, &call->reply, job);
	if (r < 0) {
		log_error_of(&call->subject, "exec: its answer could not be sent: %s", strerror(-r));
		call->request = request;
		call_refuse(call, exec_problem_internal);
	}
}

static void handle(struct call *call, const struct http_head *head)
{
	struct http_request *request = call->request;
	struct slice method = head->method, exec_id, name;
	if (head->route == HTTP_ROUTE_EXEC && slice_equal(method, SLICE("POST"))) {
		call_post(call, head);
		return;
	}
	if (exec_path_is_mcp(head) && call_mcp_is_foreign(call, head)) {
		call_refuse(call, exec_problem_foreign_origin);
		return;
	}
	if (exec_path_is_mcp(head) && slice_equal(method, SLICE("POST"))) {
		call_mcp(call, head);
		return;
	}
	bool gets = slice_equal(method, SLICE("GET")) || slice_equal(method, SLICE("HEAD"));
	if (exec_path_id(head, &exec_id) && (gets || slice_equal(method, SLICE("DELETE")))) {
		call_look(call, exec_id, !gets);
		return;
	}
	if (gets && exec_path_is_quota(head)) {
		call_quota(call);
		return;
	}
	if (gets && exec_path_is_sessions(head)) {
		call_list_sessions(call);
		return;
	}
	if (exec_path_session(head, &name) && slice_equal(method, SLICE("DELETE"))) {
		call_close_session(call, name);
		return;
	}
	call->request = NULL;
	if (exec_page_reply(request, &call->reply, &call->code) < 0)
		log_error_of(&call->subject, "exec: the answer could not be sent");
}

void call_start(struct exec_endpoint *endpoint, struct http_request *request)
{
	struct call *call = calloc(1, sizeof *call);
	struct log_subject subject = http_subject_of(http_request_head(request));
	if (!call || id_uuid7(call->exec_id, clock_wall_ms()) < 0) {
		free(call);
		struct http_problem problem = {.status = 500, .code = "internal"};
		if (http_request_respond_problem(request, &problem, NULL) < 0)
			log_error_of(&subject, "exec: out of memory");
		return;
	}
	call->endpoint = endpoint;
	call->request = request;
	call->subject = subject;
	buf_init(&call->body, endpoint->options.limits.max_body);
	exec_reply_init(&call->reply, http_request_head(request), call->exec_id);
	(void)http_trace_of(call->reply.head, &call->trace);
	http_request_attach(request, &sink, call);
	handle(call, http_request_head(request));
}
