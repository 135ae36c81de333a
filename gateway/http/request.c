#include "gateway/http/request.h"

#include "gateway/base/clock.h"
#include "gateway/http/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <utlist.h>

/* A response head may be as large as what Datasette may send. */
#define ANSWER_MAX (80 * 1024)
/* What an idle request object may keep allocated. */
#define KEEP_MAX   (16 * 1024)

/* --- life ------------------------------------------------------------------------------------------------------------ */

static struct http_request *new_request(struct http_server *server)
{
	struct http_request *request = server->free;
	if (request) {
		server->free = request->next;
		server->free_count--;
		return request;
	}
	request = calloc(1, sizeof *request);
	if (!request)
		return NULL;
	buf_init(&request->target, server->pool_size);
	buf_init(&request->answer, ANSWER_MAX);
	return request;
}

static void trim(struct buf *buf)
{
	if (buf->cap > KEEP_MAX)
		buf_deinit(buf);
	else
		buf_consume(buf, buf->len);
}

void request_free(struct http_request *request)
{
	buf_deinit(&request->target);
	buf_deinit(&request->answer);
	buf_deinit(&request->out);
	buf_deinit(&request->wire);
	free(request);
}

static void give_back(struct http_request *request)
{
	struct http_server *server = request->server;
	if (request->queued)
		DL_DELETE(server->ready, request);
	request->connection->request = NULL;
	trim(&request->target);
	trim(&request->answer);
	trim(&request->out);
	buf_deinit(&request->wire);
	request->queued = false;
	request->next = server->free;
	server->free = request;
	server->free_count++;
}

struct http_request *request_take(struct http_connection *connection, struct slice target)
{
	struct http_server *server = connection->server;
	struct http_request *request = new_request(server);
	if (!request)
		return NULL;
	struct buf kept_target = request->target, kept_answer = request->answer, kept_out = request->out;
	size_t head = offsetof(struct http_request, fields);
	memset(request, 0, head);
	memset((char *)request + head + sizeof request->fields, 0, sizeof *request - head - sizeof request->fields);
	request->fields.count = 0;
	request->target = kept_target;
	request->answer = kept_answer;
	request->out = kept_out;
	request->out.max = HTTP_REQUEST_BUFFER;
	request->server = server;
	request->connection = connection;
	if (buf_append(&request->target, target) < 0) {
		give_back(request);
		return NULL;
	}
	connection->request = request;
	return request;
}

/* --- the loop turn ----------------------------------------------------------------------------------------------------- */

void request_touch(struct http_request *request)
{
	if (request->queued)
		return;
	request->queued = true;
	DL_APPEND(request->server->ready, request);
	server_kick(request->server);
}

void request_suspend(struct http_request *request)
{
	if (!request->suspended)
		MHD_suspend_connection(request->connection->mhd);
	request->suspended = true;
}

static void resume(struct http_request *request)
{
	if (request->suspended)
		MHD_resume_connection(request->connection->mhd);
	request->suspended = false;
}

static void cut(struct http_request *request)
{
	request->aborted = true;
	request_touch(request);
}

/* The answer can still be influenced: something may be told to the sink and something may go wrong for it. */
static bool open_ended(const struct http_request *request)
{
	return !(request->answered && request->ended);
}

static void tell_gone(struct http_request *request)
{
	if (request->gone_told || request->aborted_by_user || !open_ended(request))
		return;
	request->gone_told = true;
	if (request->sink && request->sink->on_gone)
		request->sink->on_gone(request->ctx);
}

static void tell_body_end(struct http_request *request)
{
	if (request->end_told || !request->reading || !open_ended(request) || request->phase != PHASE_DONE)
		return;
	request->end_told = true;
	if (request->sink->on_body_end)
		request->sink->on_body_end(request->ctx);
}

static void tell_writable(struct http_request *request)
{
	if (!request->want_writable || request->out.len > HTTP_REQUEST_BUFFER / 2)
		return;
	request->want_writable = false;
	if (request->sink && request->sink->on_writable)
		request->sink->on_writable(request->ctx);
}

static uint64_t body_left(const struct http_request *request)
{
	if (request->head.body == HTTP_BODY_NONE || request->phase == PHASE_DONE)
		return 0;
	return request->head.body == HTTP_BODY_CHUNKED ? UINT64_MAX : request->head.content_length - request->bytes_in;
}

/* An answer before the end of the body: when little is left of that, libmicrohttpd takes the answer a moment later and the connection can
 * be kept. */
static bool can_wait(const struct http_request *request)
{
	return body_left(request) <= DISCARD_MAX && !request->short_answer && !request->impatient;
}

static void answer_early(struct http_request *request)
{
	if (!can_wait(request)) {
		if (bypass_start(request) < 0)
			cut(request);
		else
			request_touch(request);
	}
	/* Once the answer is complete nobody wants the body any more. */
	if (request->ended)
		resume(request);
}

/* libmicrohttpd closes a connection when one of its callbacks says so, or when it sees the end of the socket. */
static void end_connection(struct http_request *request)
{
	if (request->suspended)
		resume(request);
	else
		shutdown(request->connection->fd, SHUT_RDWR);
}

static void settle_raw(struct http_request *request)
{
	bypass_pump(request);
	tell_writable(request);
	if (request->aborted)
		end_connection(request);
	else if (request->ended && request->phase == PHASE_BODY)
		resume(request);
}

static void settle_answer(struct http_request *request)
{
	if (request->phase == PHASE_BODY) {
		answer_early(request);
		return;
	}
	/* In PHASE_HEAD libmicrohttpd calls again after resuming, and request_step() decides then. */
	if (request->suspended && request->phase == PHASE_DONE && answer_commit(request) < 0)
		request->aborted = true;
	resume(request);
}

void request_settle(struct http_request *request)
{
	if (request->gone && open_ended(request)) {
		tell_gone(request);
		request->aborted = true;
	}
	if (request->aborted) {
		end_connection(request);
		return;
	}
	tell_body_end(request);
	tell_writable(request);
	if (request->raw)
		settle_raw(request);
	else if (request->answered && !request->committed)
		settle_answer(request);
	else if (request->committed && (request->out.len || request->ended))
		resume(request);
	else if (request->phase == PHASE_HEAD && request->reading)
		resume(request);
	if (request->phase == PHASE_BODY && open_ended(request) && !request->body_paused)
		resume(request);
}

/* --- libmicrohttpd's calls --------------------------------------------------------------------------------------------- */

static enum MHD_Result collect_field(void *ctx, enum MHD_ValueKind kind UNUSED, const char *name, size_t name_len,
				     const char *value, size_t value_len)
{
	struct http_request *request = ctx;
	request->fields_seen++;
	if (request->fields.count < HTTP_REQUEST_FIELDS_MAX)
		request->fields.at[request->fields.count++] =
			(struct http_field){slice_of(name, name_len), slice_of(value ? value : "", value_len)};
	return MHD_YES;
}

static void fill_head(struct http_request *request, struct slice method, const struct http_guard_verdict *verdict)
{
	struct http_head *head = &request->head;
	size_t method_len = method.len < sizeof request->method ? method.len : sizeof request->method;
	memcpy(request->method, method.data, method_len);
	head->method = slice_of(request->method, method_len);
	head->fields = &request->fields;
	head->peer = slice_str(request->connection->peer);
	head->id = slice_of(request->id, ID_UUID_LEN);
	head->target = verdict->target.origin.data ? verdict->target.origin : buf_peek(&request->target);
	head->path = verdict->target.path.data ? verdict->target.path : head->target;
	head->query = verdict->target.query;
	head->host = verdict->host;
	head->route = http_route_of(head->path);
	head->body = verdict->body;
	head->content_length = verdict->content_length;
	head->expect_continue = verdict->expect_continue;
	head->version_minor = verdict->version_minor;
	head->start_us = clock_mono_us();
}

void request_refuse(struct http_request *request, const struct http_problem *problem, enum http_guard_reason reason,
		    const char *allow)
{
	struct http_fields extra;
	http_fields_clear(&extra);
	if (allow && http_fields_add(&extra, SLICE("Allow"), slice_str(allow)) != 0)
		cut(request);
	request->refusal = reason;
	if (http_request_respond_problem(request, problem, &extra) < 0)
		cut(request);
}

static void refuse_by_guard(struct http_request *request, const struct http_guard_verdict *verdict)
{
	struct http_problem problem = {.status = verdict->status, .code = verdict->code, .detail = slice_str(verdict->detail)};
	request->close = true;
	request_refuse(request, &problem, verdict->reason, verdict->allow);
}

static void refuse_busy(struct http_request *request)
{
	static const struct http_problem problem = {.status = 503,
						    .code = "temporary-reduced-capacity",
						    .detail = {.data = "Too many requests are under way.", .len = 32}};
	struct http_fields extra;
	http_fields_clear(&extra);
	if (http_fields_add(&extra, SLICE("Retry-After"), SLICE("1")) != 0 ||
	    http_request_respond_problem(request, &problem, &extra) < 0)
		cut(request);
}

/* OPTIONS * asks about the server as a whole (RFC 9110 section 9.3.7). */
static void answer_asterisk(struct http_request *request)
{
	struct http_fields fields;
	http_fields_clear(&fields);
	if (http_fields_add(&fields, SLICE("Allow"), SLICE("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")) != 0 ||
	    http_request_respond(request, 204, &fields, (struct slice){0}) < 0)
		cut(request);
}

static enum MHD_Result begin(struct http_request *request, const char *method, const char *version)
{
	struct http_server *server = request->server;
	struct http_guard_limits limits = {.max_head = server->options.max_head};
	struct http_guard_verdict verdict;
	request->begun = true;
	request->connection->head_deadline_us = 0;
	server->in_flight++;
	MHD_get_connection_values_n(request->connection->mhd, MHD_HEADER_KIND, collect_field, request);
	struct http_guard_input input = {.method = slice_str(method),
					 .target = buf_peek(&request->target),
					 .version = slice_str(version),
					 .fields = &request->fields,
					 .fields_seen = request->fields_seen};
	http_guard_check(&input, &limits, &verdict);
	fill_head(request, input.method, &verdict);
	if (server->options.observer.on_begun)
		server->options.observer.on_begun(server->options.observer.ctx, &request->head);
	request->gone = request->connection->gone;
	if (request_id_next(&server->ids, clock_wall_ms(), request->id) < 0)
		return MHD_NO;
	if (verdict.reason != HTTP_GUARD_OK)
		refuse_by_guard(request, &verdict);
	else if (verdict.target.form == HTTP_TARGET_ASTERISK)
		answer_asterisk(request);
	else if (server->in_flight > server->options.max_in_flight)
		refuse_busy(request);
	else
		server->options.on_request(server->options.ctx, request);
	if (request->gone)
		request_touch(request);
	return MHD_YES;
}

static bool small_body(const struct http_request *request)
{
	return !request->head.expect_continue && request->head.body == HTTP_BODY_LENGTH &&
	       request->head.content_length <= DISCARD_MAX;
}

static enum MHD_Result after_head(struct http_request *request)
{
	bool has_body = request->head.body == HTTP_BODY_CHUNKED || request->head.content_length > 0;
	if (request->answered && (request->refusal || (has_body && !small_body(request))))
		return answer_commit(request) == 0 ? MHD_YES : MHD_NO;
	if (!request->answered && has_body && !request->reading) {
		request_suspend(request);
		return MHD_YES;
	}
	request->phase = has_body ? PHASE_BODY : PHASE_DONE;
	request->body_seen_us = clock_mono_us();
	return MHD_YES;
}

/* A chunked body that grew too large; one with a length was refused before it was read. */
static enum MHD_Result refuse_mid_upload(struct http_request *request, size_t *size)
{
	struct http_problem problem = {.status = 413, .code = "body-too-large", .detail = SLICE("The request body is too large.")};
	tell_gone(request);
	request->refusal = HTTP_GUARD_BODY_LIMIT;
	if (http_request_respond_problem(request, &problem, NULL) < 0 || bypass_start(request) < 0)
		return MHD_NO;
	*size = 0;
	return MHD_YES;
}

static enum MHD_Result swallow(struct http_request *request, size_t *size)
{
	request->lingered += *size;
	request->bytes_in += *size;
	*size = 0;
	return request->wire_done && request->lingered > LINGER_MAX ? MHD_NO : MHD_YES;
}

static enum MHD_Result take_body(struct http_request *request, const char *data, size_t *size)
{
	request->body_seen_us = clock_mono_us();
	if (!open_ended(request))
		return swallow(request, size);
	if (request->bytes_in + *size > request->max_body)
		return refuse_mid_upload(request, size);
	size_t taken = request->sink->on_body ? request->sink->on_body(request->ctx, slice_of(data, *size)) : *size;
	request->bytes_in += taken;
	*size -= taken;
	if (request->aborted)
		return MHD_NO;
	if (*size && open_ended(request)) {
		request->body_paused = true;
		request_suspend(request);
	}
	return MHD_YES;
}

static enum MHD_Result after_body(struct http_request *request)
{
	request->phase = PHASE_DONE;
	tell_body_end(request);
	if (request->aborted || request->wire_done)
		return MHD_NO;
	if (request->answered && !request->committed)
		return answer_commit(request) == 0 ? MHD_YES : MHD_NO;
	request_suspend(request);
	return MHD_YES;
}

enum MHD_Result request_step(struct http_request *request, const char *method, const char *version, const char *data,
			     size_t *size)
{
	if (request->aborted)
		return MHD_NO;
	if (!request->begun && begin(request, method, version) == MHD_NO)
		return MHD_NO;
	if (*size)
		return take_body(request, data, size);
	return request->phase == PHASE_HEAD ? after_head(request) : after_body(request);
}

static enum http_end end_of(const struct http_request *request, enum MHD_RequestTerminationCode code)
{
	bool handed_over = request->raw ? request->wire_done : request->committed && code == MHD_REQUEST_TERMINATED_COMPLETED_OK;
	if (handed_over && !request->short_answer)
		return HTTP_END_OK;
	if (request->slow || code == MHD_REQUEST_TERMINATED_TIMEOUT_REACHED)
		return HTTP_END_TIMEOUT;
	if (request->server->stopping)
		return HTTP_END_STOPPED;
	if (request->aborted_by_user || request->short_answer || (request->aborted && !request->gone))
		return HTTP_END_CUT;
	return HTTP_END_GONE;
}

void request_complete(struct http_request *request, enum MHD_RequestTerminationCode code)
{
	struct http_server *server = request->server;
	uint64_t now = clock_mono_us();
	request->connection->head_deadline_us =
		now + (uint64_t)(server->options.idle_timeout_ms + server->options.head_timeout_ms) * 1000;
	if (!request->begun) {
		give_back(request);
		return;
	}
	struct http_summary summary = {
		.status = request->committed ? request->status : 0,
		.end = end_of(request, code),
		.bytes_in = request->bytes_in,
		.bytes_out = request->bytes_out,
		.first_byte_us = request->first_byte_us,
		.duration_us = now - request->head.start_us,
	};
	/* libmicrohttpd may have overwritten the fields to answer a broken body by itself. */
	if (code == MHD_REQUEST_TERMINATED_WITH_ERROR && request->phase != PHASE_DONE) {
		request->fields.count = 0;
		request->head.host = (struct slice){0};
	}
	if (summary.end != HTTP_END_OK)
		tell_gone(request);
	if (request->sink)
		request->sink->on_finished(request->ctx, &summary);
	if (server->options.observer.on_finished)
		server->options.observer.on_finished(server->options.observer.ctx, &request->head, &summary, request->refusal);
	server->in_flight--;
	give_back(request);
}

void request_lost(struct http_request *request)
{
	request->fields.count = 0;
	request->head.host = (struct slice){0};
	request_complete(request, MHD_REQUEST_TERMINATED_WITH_ERROR);
}

/* --- what users call --------------------------------------------------------------------------------------------------- */

const struct http_head *http_request_head(const struct http_request *request)
{
	return &request->head;
}

void http_request_attach(struct http_request *request, const struct http_sink *sink, void *ctx)
{
	request->sink = sink;
	request->ctx = ctx;
}

int http_request_read(struct http_request *request, uint64_t max_body)
{
	if (request->answered || request->aborted)
		return HTTP_REQUEST_E_ANSWERED;
	uint64_t ceiling = request->server->options.max_body;
	request->max_body = max_body < ceiling ? max_body : ceiling;
	if (request->head.body == HTTP_BODY_LENGTH && request->head.content_length > request->max_body) {
		char extra[48];
		snprintf(extra, sizeof extra, "\"limit_bytes\":%llu", (unsigned long long)request->max_body);
		struct http_problem problem = {.status = 413,
					       .code = "body-too-large",
					       .detail = SLICE("The request body is too large."),
					       .extra = slice_str(extra)};
		request_refuse(request, &problem, HTTP_GUARD_BODY_LIMIT, NULL);
		return HTTP_REQUEST_E_TOO_LARGE;
	}
	request->reading = true;
	request_touch(request);
	return 0;
}

void http_request_resume_body(struct http_request *request)
{
	if (!request->body_paused)
		return;
	request->body_paused = false;
	request->body_seen_us = clock_mono_us();
	request_touch(request);
}

static int copy_field(struct buf *answer, const struct http_field *field)
{
	if (!http_is_token(field->name) || !http_is_value(field->value))
		return -EINVAL;
	int r = buf_append(answer, field->name);
	if (r == 0)
		r = buf_append_char(answer, '\0');
	if (r == 0)
		r = buf_append(answer, slice_trim(field->value));
	return r < 0 ? r : buf_append_char(answer, '\0');
}

/* libmicrohttpd would close the connection without a word. */
static bool answer_fits(const struct http_request *request)
{
	const size_t record = 72, own_fields = 512, framing = 4;
	size_t used = request->target.len + own_fields;
	for (size_t i = 0; i < request->fields.count; i++)
		used += request->fields.at[i].name.len + request->fields.at[i].value.len + framing + record;
	return used + request->answer.len + request->answer_count * framing < request->server->pool_size;
}

static int start_answer(struct http_request *request, unsigned status, const struct http_fields *fields, uint64_t length)
{
	if (request->answered || request->aborted)
		return HTTP_REQUEST_E_ANSWERED;
	for (size_t i = 0; fields && i < fields->count; i++) {
		int r = copy_field(&request->answer, &fields->at[i]);
		if (r < 0) {
			cut(request);
			return r;
		}
	}
	request->answer_count = fields ? fields->count : 0;
	if (!answer_fits(request)) {
		buf_consume(&request->answer, request->answer.len);
		return HTTP_REQUEST_E_HEAD;
	}
	request->answered = true;
	request->status = status;
	request->length = length;
	request->bodyless = slice_equal(request->head.method, SLICE("HEAD")) || status == 204 || status == 304;
	request->answered_us = clock_mono_us();
	request->first_byte_us = request->answered_us - request->head.start_us;
	request_touch(request);
	return 0;
}

int http_request_respond_stream(struct http_request *request, unsigned status, const struct http_fields *fields,
				uint64_t length)
{
	return start_answer(request, status, fields, length);
}

int http_request_respond(struct http_request *request, unsigned status, const struct http_fields *fields, struct slice body)
{
	int r = start_answer(request, status, fields, body.len);
	if (r != 0)
		return r;
	request->ended = true;
	if (request->bodyless)
		return 0;
	request->out.max = body.len > HTTP_REQUEST_BUFFER ? body.len : HTTP_REQUEST_BUFFER;
	r = buf_append(&request->out, body);
	if (r < 0)
		cut(request);
	return r;
}

int http_request_respond_buf(struct http_request *request, unsigned status, const struct http_fields *fields, struct buf *body)
{
	int r = start_answer(request, status, fields, body->len);
	if (r == 0 && !request->bodyless) {
		buf_deinit(&request->out);
		request->out = *body;
		*body = BUF_MAX(body->max);
	}
	buf_deinit(body);
	request->ended |= r == 0;
	return r;
}

int http_request_respond_problem(struct http_request *request, const struct http_problem *problem,
				 const struct http_fields *extra_fields)
{
	CLEANUP(buf_deinit) struct buf body = BUF_MAX(HTTP_REQUEST_BUFFER);
	struct http_problem full = *problem;
	struct http_fields fields;
	http_fields_clear(&fields);
	full.request_id = request->head.id;
	int r = http_problem_fields(&fields);
	for (size_t i = 0; r == 0 && extra_fields && i < extra_fields->count; i++)
		r = http_fields_add(&fields, extra_fields->at[i].name, extra_fields->at[i].value) == 0 ? 0 : -E2BIG;
	if (r == 0)
		r = http_problem_write(&full, &body);
	if (r < 0) {
		cut(request);
		return r;
	}
	return http_request_respond(request, problem->status, &fields, buf_peek(&body));
}

static bool drops_body(const struct http_request *request)
{
	return request->aborted || request->bodyless || request->ended;
}

size_t http_request_room(struct http_request *request)
{
	size_t room = drops_body(request) ? HTTP_REQUEST_BUFFER : HTTP_REQUEST_BUFFER - request->out.len;
	if (room >= HTTP_REQUEST_ROOM_MIN)
		return room;
	request->want_writable = true;
	return 0;
}

size_t http_request_write(struct http_request *request, struct slice bytes)
{
	if (drops_body(request))
		return bytes.len;
	size_t room = HTTP_REQUEST_BUFFER - request->out.len;
	size_t n = bytes.len < room ? bytes.len : room;
	if (buf_append(&request->out, slice_of(bytes.data, n)) < 0) {
		cut(request);
		return bytes.len;
	}
	request->want_writable |= n < bytes.len;
	request_touch(request);
	return n;
}

void http_request_end(struct http_request *request)
{
	if (!request->answered || request->ended)
		return;
	request->ended = true;
	if (!request->committed && request->length == HTTP_LENGTH_UNKNOWN && !request->bodyless)
		request->length = request->out.len;
	request_touch(request);
}

void http_request_abort(struct http_request *request)
{
	request->aborted_by_user = true;
	if (!request->answered || request->ended || request->bodyless) {
		cut(request);
		return;
	}
	request->ended = request->short_answer = true;
	request_touch(request);
}

void http_request_inform(struct http_request *request, unsigned status, const struct http_fields *fields)
{
	/* libmicrohttpd has no interim answers of its own but 100; while nothing is queued the socket's send side is ours. */
	if (request->head.version_minor == 0 || request->answered || request->aborted || !request->suspended)
		return;
	CLEANUP(buf_deinit) struct buf text = BUF_MAX(HTTP_REQUEST_BUFFER);
	int r = buf_printf(&text, "HTTP/1.1 %u %s\r\n", status, http_status_phrase(status));
	for (size_t i = 0; r == 0 && fields && i < fields->count; i++)
		r = buf_printf(&text, "%.*s: %.*s\r\n", SLICE_FMT(fields->at[i].name), SLICE_FMT(fields->at[i].value));
	if (r == 0)
		r = buf_append(&text, SLICE("\r\n"));
	if (r < 0)
		return;
	struct slice bytes = buf_peek(&text);
	ssize_t sent = send(request->connection->fd, bytes.data, bytes.len, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (sent >= 0 && (size_t)sent < bytes.len)
		cut(request);
}

void http_request_close_after(struct http_request *request)
{
	request->close = true;
}
