#include "gateway/endpoint/call.h"

#include "gateway/endpoint/quota.h"
#include "gateway/mcp/origin.h"
#include "gateway/mcp/tools.h"

#include <stdlib.h>

#define MESSAGE_MAX (512UL * 1024) /* of what is answered without a command */

bool call_mcp_is_foreign(const struct call *call, const struct http_head *head)
{
	return !mcp_origin_is_allowed(head->fields, head->host, call->endpoint->options.mcp_hosts);
}

/* `r`: how writing `message` went. */
static void respond(struct call *call, unsigned status, int r, const struct buf *message)
{
	if (r < 0)
		call_refuse(call, exec_problem_internal);
	else
		call_respond(call, status, buf_peek(message));
}

static void respond_refusal(struct call *call)
{
	CLEANUP(buf_deinit) struct buf message = BUF_MAX(MESSAGE_MAX);
	respond(call, call->mcp->status, mcp_put_refusal(call->mcp, &message), &message);
}

static void respond_welcome(struct call *call)
{
	CLEANUP(buf_deinit) struct buf message = BUF_MAX(MESSAGE_MAX);
	respond(call, 200, mcp_put_welcome(call->mcp, &message), &message);
}

static void respond_tools(struct call *call, const struct admission_answer *answer)
{
	const struct exec_endpoint_limits *limits = &call->endpoint->options.limits;
	CLEANUP(buf_deinit) struct buf message = BUF_MAX(MESSAGE_MAX), policy = BUF_MAX(16384);
	const struct admission_caps caps = call_caps(call, answer);
	int r = quota_write_policy(answer, &caps, limits->timeout_ms, limits->max_timeout_ms, call_output_max(call), &policy);
	if (r == 0)
		r = mcp_put_tools(call->mcp, call->endpoint->tools, buf_peek(&policy), answer->max_sessions > 0, &message);
	respond(call, 200, r, &message);
}

/* From here on it is a command like any other, whose answers are those of a tool. */
static void call_tool(struct call *call)
{
	CLEANUP(buf_deinit) struct buf faults = BUF_MAX(EXEC_FAULTS_MAX);
	json_t *fields = NULL;
	int r = mcp_tool_fields(call->mcp, &fields, &faults);
	if (r == MCP_TOOL_UNKNOWN) {
		mcp_refuse(call->mcp, RPC_INVALID_PARAMS, "There is no such tool.");
		respond_refusal(call);
		return;
	}
	call->is_post = true;
	memcpy(call->subject.exec_id, call->exec_id, sizeof call->subject.exec_id);
	call->reply.exec_id = call->exec_id;
	call->reply.mcp = call->mcp;
	if (r == 0)
		r = exec_request_read(fields, NULL, &call->command, &faults);
	else if (r == MCP_TOOL_INVALID)
		r = EXEC_REQUEST_INVALID;
	call_admit(call, r, &faults);
}

static void dispatch(struct call *call, const struct admission_answer *answer)
{
	if (call->mcp->code) {
		respond_refusal(call);
		return;
	}
	switch (call->mcp->method) {
	case MCP_NOTHING:
		call_respond(call, 202, (struct slice){0});
		break;
	case MCP_INITIALIZE:
	case MCP_DISCOVER:
	case MCP_PING:
		respond_welcome(call);
		break;
	case MCP_TOOLS_LIST:
		respond_tools(call, answer);
		break;
	case MCP_TOOLS_CALL:
		call_tool(call);
		break;
	}
}

/* The token comes first: nothing of the message is looked at for anybody else. */
static void on_token(void *ctx, const struct admission_answer *answer)
{
	struct call *call = ctx;
	call->admission = NULL;
	call_remember(call, answer);
	if (answer->code != ADMISSION_NO_COMMAND) {
		call_refuse_decision(call, answer);
		return;
	}
	call->mcp = calloc(1, sizeof *call->mcp);
	int r = call->mcp ? mcp_read(buf_peek(&call->body), call->reply.head->fields, call->mcp) : -ENOMEM;
	buf_deinit(&call->body);
	if (r < 0)
		call_refuse(call, exec_problem_internal);
	else
		dispatch(call, answer);
}

void call_mcp_body(struct call *call)
{
	call_ask(call, SLICE("-"), false, on_token);
}

void call_mcp_free(struct call *call)
{
	if (call->mcp)
		mcp_deinit(call->mcp);
	free(call->mcp);
}

void call_mcp(struct call *call, const struct http_head *head)
{
	call->is_mcp = true;
	call->reply.exec_id = NULL;
	call_read(call, head);
}
