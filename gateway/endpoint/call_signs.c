#include "gateway/endpoint/call.h"

#include "gateway/base/clock.h"
#include "gateway/base/log.h"
#include "gateway/endpoint/accept.h"

#include <utlist.h>

#define SIGN_MS  5000 /* of silence */
#define TICK_MS  500
#define SIGN_MAX 2048 /* a token for progress may be 256 bytes, each of them escaped */

/* `json`: one line and its end. */
static int put_event(struct slice json, struct buf *out)
{
	int r = buf_append(out, SLICE("event: message\ndata: "));
	if (r == 0)
		r = buf_append(out, json);
	return r < 0 ? r : buf_append_char(out, '\n');
}

/* For who has asked for progress that, for others a comment. */
static int put_sign(const struct call *call, struct buf *out)
{
	CLEANUP(buf_deinit) struct buf progress = BUF_MAX(SIGN_MAX);
	uint64_t seconds = (clock_mono_us() - call->reply.head->start_us) / 1000000;
	int r = rpc_put_progress(&call->mcp->rpc, seconds, &progress);
	if (r < 0 || progress.len)
		return r < 0 ? r : put_event(buf_peek(&progress), out);
	return buf_append(out, SLICE(": the command is running\n\n"));
}

static void give_sign(struct call *call)
{
	CLEANUP(buf_deinit) struct buf text = BUF_MAX(2 * SIGN_MAX);
	/* A client that does not take the last one needs no other. */
	if (!call->request || call->pieces)
		return;
	struct exec_piece *piece = put_sign(call, &text) == 0 ? exec_piece_new(call->exec_id, &text) : NULL;
	if (piece)
		call_piece(call, piece);
	else
		log_warning_of(&call->subject, "exec: no memory for a sign of life");
}

static void tick(uv_timer_t *timer)
{
	struct exec_endpoint *endpoint = timer->data;
	uint64_t now = uv_now(endpoint->options.loop);
	struct call *call, *next;
	bool wanted = false;
	DL_FOREACH_SAFE (endpoint->calls, call, next) {
		if (!call->sign_due_ms)
			continue;
		wanted = true;
		if (now < call->sign_due_ms)
			continue;
		call->sign_due_ms = now + SIGN_MS;
		give_sign(call);
	}
	if (!wanted)
		uv_timer_stop(timer);
}

void call_signs_begin(struct call *call)
{
	struct exec_endpoint *endpoint = call->endpoint;
	if (!exec_accepts_events(call->reply.head->fields))
		return;
	call->format = STREAM_SSE;
	call->sign_due_ms = uv_now(endpoint->options.loop) + SIGN_MS;
	if (!uv_is_active((uv_handle_t *)&endpoint->signs_timer))
		uv_timer_start(&endpoint->signs_timer, tick, TICK_MS, TICK_MS);
}

void call_signs_end(struct call *call, struct exec_job *job)
{
	CLEANUP(buf_deinit) struct buf message = BUF_MAX(3 * EXEC_ANSWER_MAX), text = BUF_MAX(3 * EXEC_ANSWER_MAX);
	int r = 0;
	if (job->error < 0) {
		mcp_refuse(call->mcp, RPC_INTERNAL_ERROR, "The gateway failed.");
		r = mcp_put_refusal(call->mcp, &message);
	} else {
		r = exec_reply_job_message(&call->reply, job, &message);
	}
	if (r == 0)
		r = put_event(buf_peek(&message), &text);
	struct exec_piece *piece = r == 0 ? exec_piece_new(call->exec_id, &text) : NULL;
	call_end_with(call, piece);
}
