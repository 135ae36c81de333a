#include "gateway/endpoint/call.h"

#include "gateway/base/log.h"
#include "gateway/json/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <utlist.h>

#define HEAD_MAX  (256 * 1024)
#define REPLY_MAX ((size_t)16 * 1024)
#define MAX_DEPTH 32

static void free_first(struct deposit *deposit)
{
	struct exec_piece *piece = deposit->batches;
	DL_DELETE(deposit->batches, piece);
	exec_piece_free(piece);
}

static void post_next(struct call *call);

/* Of the oldest batch. None follows one that was not written. */
static void report(struct call *call, enum exec_written_how how, const char *detail)
{
	struct deposit *deposit = &call->deposit;
	struct exec_written *written = calloc(1, sizeof *written);
	deposit->exchange = NULL; /* has ended */
	if (!written) {
		log_error_of(&call->subject, "exec: no memory for what was written");
		call_write_stop(call);
		call_cancel(call, call->exec_id);
		return;
	}
	written->message.kind = EXEC_WROTE;
	memcpy(written->message.exec_id, call->exec_id, sizeof written->message.exec_id);
	written->how = how;
	written->status = deposit->status;
	written->rows = deposit->batches->rows;
	snprintf(written->detail, sizeof written->detail, "%s", detail);
	deposit->failed = how != EXEC_WRITTEN;
	free_first(deposit);
	/* Not counted against the queue: there are no more of them than batches. */
	if (mailbox_reply(call->endpoint->options.agent, &written->message.item) != 0)
		free(written);
	if (deposit->failed)
		call_write_stop(call);
	else
		post_next(call);
}

/* --- Datasette's answer --- */

static void on_head(void *ctx, const struct response_head *head)
{
	struct call *call = ctx;
	call->deposit.status = head->status;
}

static size_t on_room(void *ctx UNUSED)
{
	return REPLY_MAX;
}

/* Only the beginning says anything. */
static void on_body(void *ctx, struct slice bytes)
{
	struct call *call = ctx;
	struct buf *reply = &call->deposit.reply;
	size_t room = reply->max - reply->len;
	if (bytes.len > room)
		bytes.len = room;
	if (buf_append(reply, bytes) < 0)
		log_warning_of(&call->subject, "exec: no memory for an answer of Datasette");
}

/* Its "errors", or nothing of it when it is not JSON. */
static void describe(const struct deposit *deposit, char detail[EXEC_WRITTEN_DETAIL])
{
	struct json_failure failure;
	CLEANUP(json_decref_ptr) json_t *root = json_parse(buf_peek(&deposit->reply), MAX_DEPTH, &failure);
	const char *error = json_string_value(json_array_get(json_object_get(root, "errors"), 0));
	snprintf(detail, EXEC_WRITTEN_DETAIL, "Datasette answered %u%s%s", deposit->status, error ? ": " : ".", error ? error : "");
}

static void changed(struct call *call)
{
	const struct exec_endpoint_options *options = &call->endpoint->options;
	options->on_written(options->client_ctx, slice_str(call->deposit.path));
}

static void on_end(void *ctx)
{
	struct call *call = ctx;
	struct deposit *deposit = &call->deposit;
	char detail[EXEC_WRITTEN_DETAIL];
	call_note_exchange(call, deposit->exchange, deposit->status, NULL);
	if (deposit->status == 200 || deposit->status == 201) {
		changed(call);
		report(call, EXEC_WRITTEN, "");
		return;
	}
	describe(deposit, detail);
	/* A server that failed may have failed after it. */
	if (deposit->status >= 500)
		changed(call);
	report(call, deposit->status >= 500 ? EXEC_WRITTEN_IN_DOUBT : EXEC_NOT_WRITTEN, detail);
}

static void on_failed(void *ctx, const struct exchange_failure *failure)
{
	struct call *call = ctx;
	struct deposit *deposit = &call->deposit;
	char detail[EXEC_WRITTEN_DETAIL];
	call_note_exchange(call, deposit->exchange, deposit->status, failure);
	changed(call);
	snprintf(detail, sizeof detail, "Datasette failed: %s.", failure->detail);
	report(call, failure->error == EXCHANGE_CONNECT ? EXEC_NOT_WRITTEN : EXEC_WRITTEN_IN_DOUBT, detail);
}

/* --- the way there --- */

static void on_writable(void *ctx)
{
	struct deposit *deposit = &((struct call *)ctx)->deposit;
	struct buf *text = &deposit->batches->text;
	if (!text->len)
		return;
	buf_consume(text, exchange_write(deposit->exchange, buf_peek(text)));
	if (!text->len)
		exchange_end(deposit->exchange);
}

static const struct exchange_events events = {
	.on_head = on_head, .on_room = on_room, .on_body = on_body, .on_writable = on_writable, .on_end = on_end, .on_failed = on_failed};

static int start(struct call *call)
{
	const struct exec_endpoint_options *options = &call->endpoint->options;
	struct deposit *deposit = &call->deposit;
	CLEANUP(buf_deinit) struct buf head = BUF_MAX(HEAD_MAX);
	int r = call_ask_head(call, SLICE("POST"), slice_str(deposit->path), &head);
	if (r == 0)
		r = buf_append(&head, SLICE("Content-Type: application/json\r\n"));
	if (r != 0)
		return r;
	struct exchange_request request = {
		.head = buf_peek(&head),
		.body = EXCHANGE_BODY_LENGTH,
		.length = deposit->batches->text.len,
		.first_byte_ms = options->datasette_ms,
		.idle_ms = options->datasette_ms,
	};
	return exchange_start(options->exchanges, &request, &events, call, &deposit->exchange);
}

static void post_next(struct call *call)
{
	struct deposit *deposit = &call->deposit;
	if (deposit->exchange || !deposit->batches)
		return;
	deposit->status = 0;
	buf_deinit(&deposit->reply);
	deposit->reply = BUF_MAX(REPLY_MAX);
	int r = start(call);
	if (r == 0) {
		on_writable(call);
		return;
	}
	report(call, EXEC_NOT_WRITTEN,
	       r == FORWARD_E_LOOP    ? "DATASETTE_URL leads back to this gateway."
	       : r == EXCHANGE_E_BUSY ? "Too many requests wait for Datasette."
				      : "The gateway could not ask Datasette.");
}

void call_batch(struct call *call, struct exec_piece *piece)
{
	struct deposit *deposit = &call->deposit;
	if (!call->request || deposit->failed) {
		exec_piece_free(piece);
		return;
	}
	DL_APPEND(deposit->batches, piece);
	post_next(call);
}

void call_write_stop(struct call *call)
{
	struct deposit *deposit = &call->deposit;
	if (deposit->exchange) {
		exchange_cancel(TAKE(deposit->exchange));
		changed(call);
	}
	while (deposit->batches)
		free_first(deposit);
	deposit->failed = true;
	buf_deinit(&deposit->reply);
}
