#include "gateway/endpoint/call.h"

#include "gateway/base/log.h"
#include "gateway/exec/launch.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <utlist.h>

#define HEAD_MAX (256 * 1024)
#define ROOM_MIN (4 * 1024)

static struct source_failure failure_of(const struct call *call, const char *format, ...) PRINTF(2, 3);

static struct source_failure failure_of(const struct call *call, const char *format, ...)
{
	const struct fetch *fetch = &call->fetch;
	struct source_failure failure = {.status = fetch->status, .unrun = !fetch->begun};
	if (fetch->at < fetch->count)
		memcpy(failure.pointer, fetch->sources[fetch->at].pointer, sizeof failure.pointer);
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

/* Its lease is the next owner's to hold. */
static struct exec_job *take_held(struct call *call)
{
	admission_let_go(call->endpoint->admission, &call->fetch.hold);
	return TAKE(call->fetch.held);
}

/* --- to the agent --- */

/* What was read goes after what is to be sent already. */
static int pack(struct fetch *fetch)
{
	bool file = fetch->at < fetch->count && fetch->sources[fetch->at].file;
	int r = file ? launch_put_piece(&fetch->out, buf_peek(&fetch->read)) : buf_append(&fetch->out, buf_peek(&fetch->read));
	fetch->stdin_bytes += file ? 0 : fetch->read.len;
	buf_consume(&fetch->read, fetch->read.len);
	return r;
}

static int send_piece(struct call *call, enum exec_input_end end, const struct source_failure *failure)
{
	struct fetch *fetch = &call->fetch;
	size_t len = fetch->out.len;
	struct exec_piece *piece = exec_piece_new(call->exec_id, &fetch->out);
	if (!piece)
		return -ENOMEM;
	piece->message.kind = EXEC_INPUT;
	piece->end = end;
	piece->stdin_bytes = fetch->stdin_bytes;
	fetch->stdin_bytes = 0;
	if (failure)
		piece->failure = *failure;
	fetch->under_way += len;
	/* Not counted against the queue: what is under way is bounded. */
	if (mailbox_reply(call->endpoint->options.agent, &piece->message.item) != 0)
		exec_piece_free(piece);
	return 0;
}

/* What cannot be passed on must not look like the end: without one the command is canceled. `r` is how it was written. */
static void pass_on(struct call *call, int r, enum exec_input_end end, const struct source_failure *failure)
{
	if (r == 0 && send_piece(call, end, failure) == 0)
		return;
	log_error_of(&call->subject, "exec: no memory for its input");
	leave(call);
	call_cancel(call, call->exec_id);
}

void call_fetch_flush(void *ctx)
{
	struct exec_endpoint *endpoint = ctx;
	struct call *call, *next;
	DL_FOREACH_SAFE2(endpoint->fetching, call, next, fetch.next)
	if (call->fetch.read.len)
		pass_on(call, pack(&call->fetch), EXEC_INPUT_MORE, NULL);
}

/* The caller hears of it, from here if the agent has nothing yet. */
static void fail(struct call *call, const struct source_failure *failure)
{
	leave(call);
	if (!call->fetch.held) {
		buf_deinit(&call->fetch.read);
		buf_deinit(&call->fetch.out);
		pass_on(call, 0, EXEC_INPUT_BROKEN, failure);
		return;
	}
	call_give_back(call, take_held(call));
	call_refuse(call, exec_problem_source(failure, call->exec_id));
}

/* The agent answers it as all that are ended, without a sandbox. */
static void on_ended(struct admission_hold *hold)
{
	struct call *call = CONTAINER_OF(hold, struct call, fetch.hold);
	leave(call);
	struct exec_job *job = take_held(call);
	job->kill = hold->kill;
	call_send_job(call, job);
}

/* --- from Datasette --- */

void call_note_exchange(const struct call *call, const struct exchange *exchange, unsigned status, const struct exchange_failure *failure)
{
	const struct exec_endpoint_options *options = &call->endpoint->options;
	struct relay_summary summary = {.upstream = exchange_timing(exchange), .upstream_status = status};
	if (failure) {
		summary.failed = failure->error != EXCHANGE_HEAD;
		summary.head_refused = failure->error == EXCHANGE_HEAD;
		summary.error = failure->error;
	}
	options->on_fetched(options->client_ctx, &summary);
}

static void note(const struct call *call, const struct exchange_failure *failure)
{
	call_note_exchange(call, call->fetch.exchange, call->fetch.status, failure);
}

static bool is_too_long(const struct fetch *fetch, uint64_t more)
{
	return fetch->max && (more > fetch->max || fetch->bytes > fetch->max - more);
}

static void fail_too_long(struct call *call)
{
	struct source_failure failure = failure_of(call,
						   "With Datasette's answer standard input and files are longer than the %llu bytes that "
						   "the token allows.",
						   (unsigned long long)call->fetch.max);
	note(call, NULL);
	fail(call, &failure);
}

/* What goes before the source's bytes. Before those of standard input all files are there. */
static int begin_source(struct fetch *fetch)
{
	struct fetch_source *source = &fetch->sources[fetch->at];
	fetch->begun |= !source->file;
	return buf_append(&fetch->out, buf_peek(&source->before));
}

static void on_head(void *ctx, const struct response_head *head)
{
	struct call *call = ctx;
	struct fetch *fetch = &call->fetch;
	fetch->status = head->status;
	if (head->status != 200) {
		struct source_failure failure =
			failure_of(call, "Datasette answered %u; only what it answers with 200 is read.", head->status);
		note(call, NULL);
		fail(call, &failure);
		return;
	}
	if (head->length != RESPONSE_LENGTH_UNKNOWN && is_too_long(fetch, head->length)) {
		fail_too_long(call);
		return;
	}
	if (fetch->held)
		call_send_job(call, take_held(call));
	if (!call->with_agent)
		leave(call);
	else if (begin_source(fetch) < 0)
		pass_on(call, -ENOMEM, EXEC_INPUT_MORE, NULL);
}

static size_t on_room(void *ctx)
{
	const struct fetch *fetch = &((struct call *)ctx)->fetch;
	size_t used = fetch->under_way + fetch->read.len + fetch->out.len;
	return used + ROOM_MIN <= EXEC_INPUT_WINDOW ? EXEC_INPUT_WINDOW - used : 0;
}

static void on_body(void *ctx, struct slice bytes)
{
	struct call *call = ctx;
	struct fetch *fetch = &call->fetch;
	if (is_too_long(fetch, bytes.len)) {
		fail_too_long(call);
	} else if (buf_append(&fetch->read, bytes) < 0) {
		struct source_failure failure = failure_of(call, "The gateway ran out of memory for the source.");
		fail(call, &failure);
	} else {
		fetch->bytes += bytes.len;
		/* Datasette writes row by row. */
		turn_ask(&call->endpoint->fetch_turn);
	}
}

static void ask(struct call *call);

static int end_source(struct fetch *fetch)
{
	int r = pack(fetch);
	if (r == 0 && fetch->sources[fetch->at].file)
		r = launch_put_end(&fetch->out);
	if (++fetch->at < fetch->count)
		return r;
	fetch->begun = true;
	fetch->stdin_bytes += fetch->after.len ? fetch->after.len - LAUNCH_FILES_END.len : 0;
	return r < 0 ? r : buf_append(&fetch->out, buf_peek(&fetch->after));
}

static void on_end(void *ctx)
{
	struct call *call = ctx;
	struct fetch *fetch = &call->fetch;
	note(call, NULL);
	leave(call);
	int r = end_source(fetch);
	bool last = fetch->at == fetch->count;
	pass_on(call, r, last ? EXEC_INPUT_END : EXEC_INPUT_MORE, NULL);
	if (r == 0 && !last)
		ask(call);
}

static void on_failed(void *ctx, const struct exchange_failure *exchange_failure)
{
	struct call *call = ctx;
	struct source_failure failure = failure_of(call, "Datasette failed: %s.", exchange_failure->detail);
	note(call, exchange_failure);
	fail(call, &failure);
}

static const struct exchange_events events = {
	.on_head = on_head, .on_room = on_room, .on_body = on_body, .on_end = on_end, .on_failed = on_failed};

/* --- the way there --- */

int call_ask_head(const struct call *call, struct slice method, struct slice target, struct buf *head)
{
	char traceparent[TRACE_PARENT_LEN + 1] = "";
	const char *span = call->root.span[0] ? call->root.span : call->trace.parent;
	/* Whether a trace that nobody has begun is recorded is Datasette's to decide. */
	if (span[0])
		trace_format(&call->trace, span, traceparent);
	return forward_on_behalf(call->reply.head, &call->endpoint->options.forward, method, target, call_credentials(call),
				 slice_str(traceparent), head);
}

static int start(struct call *call, const char *target)
{
	const struct exec_endpoint_options *options = &call->endpoint->options;
	CLEANUP(buf_deinit) struct buf head = BUF_MAX(HEAD_MAX);
	int r = call_ask_head(call, SLICE("GET"), slice_str(target), &head);
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

/* Of the next source. */
static void ask(struct call *call)
{
	struct fetch *fetch = &call->fetch;
	fetch->status = 0;
	int r = start(call, fetch->sources[fetch->at].target);
	if (r == 0) {
		DL_APPEND2(call->endpoint->fetching, call, fetch.prev, fetch.next);
		return;
	}
	fetch->exchange = NULL;
	struct source_failure failure = failure_of(call, "%s",
						   r == FORWARD_E_LOOP    ? "DATASETTE_URL leads back to this gateway."
						   : r == EXCHANGE_E_BUSY ? "Too many requests wait for Datasette."
									  : "The gateway could not ask Datasette.");
	fail(call, &failure);
}

static struct fetch_source *add_source(struct fetch *fetch, const char *target)
{
	struct fetch_source *source = &fetch->sources[fetch->count++];
	*source = (struct fetch_source){.target = slice_dup(slice_str(target)), .before = BUF_MAX(EXEC_MAX_PATH_BYTES + 64)};
	return source->target ? source : NULL;
}

static int add_file(struct fetch *fetch, const struct exec_file *file)
{
	struct fetch_source *source = add_source(fetch, file->from);
	if (!source)
		return -ENOMEM;
	source->file = true;
	snprintf(source->pointer, sizeof source->pointer, "/files");
	json_pointer_add(source->pointer, slice_str(file->path));
	return launch_put_file(&source->before, file);
}

/* With files from Datasette the end of them all is ours to send, and what follows it. */
static int add_input(struct fetch *fetch, struct exec_request *request)
{
	bool files = fetch->count;
	if (!request->input_from) {
		int r = buf_append(&fetch->after, LAUNCH_FILES_END);
		if (r == 0)
			r = buf_append(&fetch->after, buf_peek(&request->input));
		buf_deinit(&request->input);
		return r;
	}
	struct fetch_source *source = add_source(fetch, request->input_from);
	if (!source)
		return -ENOMEM;
	snprintf(source->pointer, sizeof source->pointer, "/stdin");
	return files ? buf_append(&source->before, LAUNCH_FILES_END) : 0;
}

static int list_sources(struct fetch *fetch, struct exec_request *request)
{
	int r = 0;
	fetch->sources = calloc(request->file_count + 1, sizeof *fetch->sources);
	if (!fetch->sources)
		return -ENOMEM;
	for (size_t i = 0; r == 0 && i < request->file_count; i++)
		if (request->files[i].from)
			r = add_file(fetch, &request->files[i]);
	return r < 0 ? r : add_input(fetch, request);
}

void call_fetch(struct call *call, struct exec_job *job, uint64_t max)
{
	struct fetch *fetch = &call->fetch;
	size_t input = job->request->input.len;
	*fetch = (struct fetch){.held = job,
				.hold = {.lease = job->lease, .on_end = on_ended},
				.max = max,
				.bytes = exec_request_input(job->request),
				.after = BUF_MAX(input + 8),
				.read = BUF_MAX(EXEC_INPUT_WINDOW),
				.out = BUF_MAX(2 * EXEC_INPUT_WINDOW + EXEC_MAX_PATH_BYTES + input)};
	job->feeds = true;
	admission_hold(call->endpoint->admission, &fetch->hold);
	if (list_sources(fetch, job->request) == 0) {
		ask(call);
		return;
	}
	call_give_back(call, take_held(call));
	call_refuse(call, exec_problem_internal);
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
	struct fetch *fetch = &call->fetch;
	leave(call);
	for (size_t i = 0; i < fetch->count; i++) {
		free(fetch->sources[i].target);
		buf_deinit(&fetch->sources[i].before);
	}
	free(TAKE(fetch->sources));
	fetch->count = fetch->at = 0;
	buf_deinit(&fetch->after);
	buf_deinit(&fetch->read);
	buf_deinit(&fetch->out);
	if (fetch->held)
		call_give_back(call, take_held(call));
}
