#include "gateway/endpoint/call.h"

#include "gateway/base/log.h"
#include "gateway/exec/delivery.h"

#include <stdlib.h>
#include <utlist.h>

#define CREDIT_STEP (DELIVERY_WINDOW / 8) /* less is given with what follows */

static void give_credit(struct call *call)
{
	if (call->taken >= CREDIT_STEP && exec_credit_send(call->endpoint->options.agent, call->exec_id, call->taken))
		call->taken = 0;
}

static void free_first(struct call *call)
{
	struct exec_piece *piece = call->pieces;
	DL_DELETE(call->pieces, piece);
	exec_piece_free(piece);
}

static void pump(struct call *call)
{
	while (call->pieces) {
		struct buf *text = &call->pieces->text;
		size_t taken = http_request_write(call->request, buf_peek(text));
		call->taken += taken;
		buf_consume(text, taken);
		if (text->len)
			break;
		free_first(call);
	}
	if (call->with_agent)
		give_credit(call);
	if (!call->pieces && call->complete)
		http_request_end(TAKE(call->request));
}

/* The client can tell that the answer is not whole. */
static void cut(struct call *call)
{
	log_error_of(&call->subject, "exec: its answer could not be streamed");
	http_request_abort(TAKE(call->request));
	if (call->with_agent)
		call_cancel(call, call->exec_id);
}

void call_piece(struct call *call, struct exec_piece *piece)
{
	if (!call->request) {
		exec_piece_free(piece);
		return;
	}
	DL_APPEND(call->pieces, piece);
	if (!call->streaming && exec_reply_stream(call->request, &call->reply, call->format) != 0) {
		cut(call);
		return;
	}
	call->streaming = true;
	pump(call);
}

/* Whatever happened, the last object is a result. */
static struct exec_piece *failure_of(const struct call *call)
{
	struct stream stream;
	struct buf text = BUF_MAX(4096);
	stream_init(&stream, call->format);
	int r = stream_failure(&stream, call->exec_id, &text);
	struct exec_piece *piece = r == 0 ? exec_piece_new(call->exec_id, &text) : NULL;
	buf_deinit(&text);
	return piece;
}

void call_end_with(struct call *call, struct exec_piece *last)
{
	if (!last) {
		cut(call);
		return;
	}
	DL_APPEND(call->pieces, last);
	call->complete = true;
	pump(call);
}

void call_end_stream(struct call *call, const struct exec_job *job)
{
	if (job->error < 0) {
		call_end_with(call, failure_of(call));
		return;
	}
	call->complete = true;
	pump(call);
}

void call_on_writable(void *ctx)
{
	struct call *call = ctx;
	if (call->request)
		pump(call);
}

void call_drop_pieces(struct call *call)
{
	while (call->pieces)
		free_first(call);
}
