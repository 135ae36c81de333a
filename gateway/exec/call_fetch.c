#include "gateway/exec/call.h"

#include "gateway/base/log.h"

#include <stdio.h>
#include <utlist.h>

#define HEAD_MAX (256 * 1024)
#define ROOM_MIN (4 * 1024)

static struct source_failure failure_of(unsigned status, const char *format, ...) PRINTF(2, 3);

static struct source_failure failure_of(unsigned status, const char *format, ...)
{
	struct source_failure failure = {.status = status};
	va_list args;
	va_start(args, format);
	vsnprintf(failure.detail, sizeof failure.detail, format, args);
	va_end(args);
	return failure;
}

/* Nothing more is asked of Datasette. */
static void leave(struct call *call)
{
	struct fetch *fetch = &call->fetch;
	if (!fetch->exchange)
		return;
	exchange_cancel(TAKE(fetch->exchange));
	DL_DELETE2(call->endpoint->fetching, call, fetch.prev, fetch.next);
}

/* --- to the agent --- */

static int send_piece(struct call *call, enum exec_input_end end, const struct source_failure *failure)
{
	struct fetch *fetch = &call->fetch;
	size_t len = fetch->read.len;
	struct exec_piece *piece = exec_piece_new(call->exec_id, &fetch->read);
	if (!piece)
		return -1;
	piece->message.kind = EXEC_INPUT;
	piece->end = end;
	if (failure)
		piece->failure = *failure;
	fetch->under_way += len;
	/* Not counted against the queue: what is under way is bounded. */
	if (mailbox_reply(call->endpoint->options.agent, &piece->message.item) != 0)
		exec_piece_free(piece);
	return 0;
}

/* What cannot be passed on must not look like the end: without one the command is canceled. */
static void pass_on(struct call *call, enum exec_input_end end, const struct source_failure *failure)
{
	if (send_piece(call, end, failure) == 0)
		return;
	log_error("exec %s: no memory for its input", call->exec_id);
	leave(call);
	call_cancel(call, call->exec_id);
}

void call_fetch_flush(void *ctx)
{
	struct exec_endpoint *endpoint = ctx;
	struct call *call, *next;
	DL_FOREACH_SAFE2(endpoint->fetching, call, next, fetch.next)
	if (call->fetch.read.len)
		pass_on(call, EXEC_INPUT_MORE, NULL);
}

/* The caller hears of it, from here if the agent has nothing yet. */
static void fail(struct call *call, const struct source_failure *failure)
{
	leave(call);
	if (!call->fetch.held) {
		buf_deinit(&call->fetch.read);
		pass_on(call, EXEC_INPUT_BROKEN, failure);
		return;
	}
	call_give_back(call, TAKE(call->fetch.held));
	call_refuse(call, exec_problem_source(failure, call->exec_id));
}

/* --- from Datasette --- */

static void note(struct call *call, const struct exchange_failure *failure)
{
	struct fetch *fetch = &call->fetch;
	const struct exec_endpoint_options *options = &call->endpoint->options;
	struct relay_summary summary = {.upstream = exchange_timing(fetch->exchange), .upstream_status = fetch->status};
	if (failure) {
		summary.failed = failure->error != EXCHANGE_HEAD;
		summary.head_refused = failure->error == EXCHANGE_HEAD;
		summary.error = failure->error;
	}
	options->on_fetched(options->client_ctx, &summary);
}

static bool is_too_long(const struct fetch *fetch, uint64_t len)
{
	return fetch->max && len > fetch->max;
}

static void fail_too_long(struct call *call)
{
	struct source_failure failure = failure_of(call->fetch.status,
						   "Datasette's answer is longer than the %llu bytes of standard input "
						   "that the token allows.",
						   (unsigned long long)call->fetch.max);
	note(call, NULL);
	fail(call, &failure);
}

static void on_head(void *ctx, const struct response_head *head)
{
	struct call *call = ctx;
	struct fetch *fetch = &call->fetch;
	fetch->status = head->status;
	if (head->status != 200) {
		struct source_failure failure =
			failure_of(head->status, "Datasette answered %u; only what it answers with 200 is read.", head->status);
		note(call, NULL);
		fail(call, &failure);
	} else if (head->length != RESPONSE_LENGTH_UNKNOWN && is_too_long(fetch, head->length)) {
		fail_too_long(call);
	} else {
		call_send_job(call, TAKE(fetch->held));
		if (!call->with_agent)
			leave(call);
	}
}

static size_t on_room(void *ctx)
{
	const struct fetch *fetch = &((struct call *)ctx)->fetch;
	size_t used = fetch->under_way + fetch->read.len;
	return EXEC_INPUT_WINDOW - used >= ROOM_MIN ? EXEC_INPUT_WINDOW - used : 0;
}

static void on_body(void *ctx, struct slice bytes)
{
	struct call *call = ctx;
	struct fetch *fetch = &call->fetch;
	fetch->bytes += bytes.len;
	if (is_too_long(fetch, fetch->bytes)) {
		fail_too_long(call);
	} else if (buf_append(&fetch->read, bytes) < 0) {
		struct source_failure failure = failure_of(fetch->status, "The gateway ran out of memory for the source.");
		fail(call, &failure);
	} else {
		/* Datasette writes row by row. */
		turn_ask(&call->endpoint->fetch_turn);
	}
}

static void on_end(void *ctx)
{
	struct call *call = ctx;
	note(call, NULL);
	leave(call);
	pass_on(call, EXEC_INPUT_END, NULL);
}

static void on_failed(void *ctx, const struct exchange_failure *exchange_failure)
{
	struct call *call = ctx;
	struct source_failure failure = failure_of(call->fetch.status, "Datasette failed: %s.", exchange_failure->detail);
	note(call, exchange_failure);
	fail(call, &failure);
}

static const struct exchange_events events = {
	.on_head = on_head, .on_room = on_room, .on_body = on_body, .on_end = on_end, .on_failed = on_failed};

/* --- the way there --- */

static int start(struct call *call, const char *target)
{
	const struct exec_endpoint_options *options = &call->endpoint->options;
	CLEANUP(buf_deinit) struct buf head = BUF_MAX(HEAD_MAX);
	int r = forward_on_behalf(call->reply.head, &options->forward, SLICE("GET"), slice_str(target), &head);
	if (r != 0)
		return r;
	struct exchange_request request = {
		.head = buf_peek(&head),
		.may_retry = forward_may_retry(&(struct http_head){.method = SLICE("GET"), .path = slice_str(target)}),
		.first_byte_ms = options->datasette_ms,
		.idle_ms = options->datasette_ms,
	};
	return exchange_start(options->exchanges, &request, &events, call, &call->fetch.exchange);
}

void call_fetch(struct call *call, struct exec_job *job, uint64_t max)
{
	struct fetch *fetch = &call->fetch;
	*fetch = (struct fetch){.held = job, .max = max, .read = BUF_MAX(EXEC_INPUT_WINDOW)};
	job->feeds = true;
	int r = start(call, job->request->input_from);
	if (r == 0) {
		DL_APPEND2(call->endpoint->fetching, call, fetch.prev, fetch.next);
		return;
	}
	fetch->exchange = NULL;
	struct source_failure failure = failure_of(0, "%s",
						   r == FORWARD_E_LOOP    ? "DATASETTE_URL leads back to this gateway."
						   : r == EXCHANGE_E_BUSY ? "Too many requests wait for Datasette."
									  : "The gateway could not ask Datasette.");
	fail(call, &failure);
}

void call_fetch_credit(struct call *call, size_t bytes)
{
	struct fetch *fetch = &call->fetch;
	fetch->under_way -= bytes < fetch->under_way ? bytes : fetch->under_way;
	if (fetch->exchange && on_room(call))
		exchange_resume(fetch->exchange);
}

void call_fetch_stop(struct call *call)
{
	leave(call);
	buf_deinit(&call->fetch.read);
	if (call->fetch.held)
		call_give_back(call, TAKE(call->fetch.held));
}
