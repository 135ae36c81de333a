#include "gateway/endpoint/call.h"

#include "gateway/base/clock.h"
#include "gateway/base/log.h"
#include "gateway/endpoint/quota.h"
#include "gateway/exec/stored.h"

#include <stdio.h>

void call_respond(struct call *call, unsigned status, struct slice body)
{
	struct http_request *request = TAKE(call->request);
	if (request && exec_reply_json(request, &call->reply, status, body) < 0)
		log_error_of(&call->subject, "exec: the answer could not be sent");
}

static void respond_state(struct call *call, unsigned status, const char *state)
{
	char body[128];
	int len = snprintf(body, sizeof body, "{\"ok\":true,\"exec_id\":\"%s\",\"state\":\"%s\"}\n", call->looked_for, state);
	call_respond(call, status, slice_of(body, (size_t)len));
}

static void respond_finished(struct call *call, struct slice stored)
{
	struct stored found;
	CLEANUP(buf_deinit) struct buf body = BUF_MAX(stored.len + 64);
	if (!stored_read(stored, &found) || buf_append(&body, SLICE("{\"state\":\"finished\",")) < 0 ||
	    buf_append(&body, slice_from(found.object, 1)) < 0) {
		call_refuse(call, exec_problem_internal);
		return;
	}
	call_respond(call, 200, buf_peek(&body));
}

void call_replay(struct call *call, const struct admission_answer *answer)
{
	struct stored found;
	if (!stored_read(answer->result, &found)) {
		call_refuse(call, exec_problem_internal);
		return;
	}
	memcpy(call->exec_id, answer->prior, sizeof call->exec_id);
	memcpy(call->subject.exec_id, answer->prior, sizeof call->subject.exec_id);
	call_decide(call, "allow", "replayed", NULL);
	struct http_request *request = TAKE(call->request);
	enum stream_format format = found.cut ? STREAM_NONE : call->format;
	if (request && exec_reply_again(request, &call->reply, found.status, format, found.object) < 0) {
		log_error_of(&call->subject, "exec: an answer could not be sent again");
		call->request = request;
		call_refuse(call, exec_problem_internal);
	}
}

static void on_known(void *ctx, const struct admission_answer *answer)
{
	struct call *call = ctx;
	call->admission = NULL;
	call_remember(call, answer);
	switch (answer->code) {
	case ADMISSION_RUNNING:
	case ADMISSION_ENDING:
		/* Another gateway sees the mark that it has now; here it need not wait for that. */
		if (call->cancels) {
			call_decide(call, "allow", "canceled", NULL);
			call->cancels_again = answer->code == ADMISSION_ENDING;
			call_cancel(call, call->looked_for);
		}
		respond_state(call, call->cancels ? 202 : 200, call->cancels ? "canceling" : "running");
		break;
	case ADMISSION_FINISHED:
		respond_finished(call, answer->result);
		break;
	case ADMISSION_NO_COMMAND:
		call_refuse(call, exec_problem_no_command);
		break;
	default:
		call_refuse_decision(call, answer);
	}
}

static void on_quota(void *ctx, const struct admission_answer *answer)
{
	struct call *call = ctx;
	CLEANUP(buf_deinit) struct buf body = BUF_MAX(8192);
	call->admission = NULL;
	call_remember(call, answer);
	const struct admission_caps caps = call_caps(call, answer);
	if (answer->code != ADMISSION_NO_COMMAND)
		call_refuse_decision(call, answer);
	else if (quota_write(answer, &caps, &body) < 0)
		call_refuse(call, exec_problem_internal);
	else
		call_respond(call, 200, buf_peek(&body));
}

static void ask(struct call *call)
{
	unsigned char address[16];
	struct admission_request request = {.token = call->token,
					    .identity = call->by_identity ? &call->identity : NULL,
					    .exec_id = call->asked,
					    .look = true,
					    .kill = call->asked_ends,
					    .session = call->session,
					    .address = call_address(call, address) ? address : NULL};
	call->admit_start_us = clock_mono_us();
	if (admission_decide(call->endpoint->admission, &request, call->asked_done, call, &call->admission) < 0)
		call_refuse(call, exec_problem_internal);
}

void call_ask(struct call *call, struct slice what, bool ends, admission_done done)
{
	if (call_token(call, call->reply.head) < 0)
		return;
	call->asked = what;
	call->asked_ends = ends;
	call->asked_done = done;
	call_identify(call, ask);
}

void call_look(struct call *call, struct slice exec_id, bool cancels)
{
	snprintf(call->looked_for, sizeof call->looked_for, "%.*s", SLICE_FMT(exec_id));
	memcpy(call->subject.exec_id, call->looked_for, sizeof call->subject.exec_id);
	call->reply.exec_id = call->looked_for;
	call->cancels = cancels;
	call_ask(call, slice_str(call->looked_for), cancels, on_known);
}

/* As a look at a command that there is not: every answer tells the limits, and this one uses up nothing. */
void call_quota(struct call *call)
{
	call_ask(call, SLICE("-"), false, on_quota);
}
