#include "gateway/http/request.h"

#include "gateway/base/clock.h"
#include "gateway/http/answer_head.h"
#include "gateway/http/internal.h"
#include "gateway/http/status.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>

const struct http_head *http_request_head(const struct http_request *request)
{
	return &request->head;
}

void http_request_attach(struct http_request *request, const struct http_sink *sink, void *ctx)
{
	request->sink = sink;
	request->ctx = ctx;
}

void request_refuse(struct http_request *request, const struct http_problem *problem, enum http_guard_reason reason, const char *allow)
{
	struct http_fields extra;
	http_fields_clear(&extra);
	if (allow && http_fields_add(&extra, SLICE("Allow"), slice_str(allow)) != 0)
		request_cut(request);
	request->refusal = reason;
	if (http_request_respond_problem(request, problem, &extra) < 0)
		request_cut(request);
}

/* 0, or the answer has been given. */
static int admit_body(struct http_request *request, uint64_t max_body)
{
	if (request->answered || request->aborted)
		return HTTP_REQUEST_E_ANSWERED;
	uint64_t ceiling = request->server->options.max_body;
	request->max_body = max_body < ceiling ? max_body : ceiling;
	if (request->head.body != HTTP_BODY_LENGTH || request->head.content_length <= request->max_body)
		return 0;
	char extra[48];
	snprintf(extra, sizeof extra, "\"limit_bytes\":%llu", (unsigned long long)request->max_body);
	struct http_problem problem = {
		.status = 413, .code = "body-too-large", .detail = SLICE("The request body is too large."), .extra = slice_str(extra)};
	request_refuse(request, &problem, HTTP_GUARD_BODY_LIMIT, NULL);
	return HTTP_REQUEST_E_TOO_LARGE;
}

int http_request_read(struct http_request *request, uint64_t max_body)
{
	int r = admit_body(request, max_body);
	if (r != 0)
		return r;
	request->reading = true;
	request_touch(request);
	return 0;
}

int http_request_hold(struct http_request *request, uint64_t max_body)
{
	int r = admit_body(request, max_body);
	request->held = r == 0;
	return r;
}

void http_request_go_on(struct http_request *request)
{
	if (!request->held)
		return;
	request->held = false;
	request->reading = true;
	request_touch(request);
}

void http_request_resume_body(struct http_request *request)
{
	if (!request->body_paused)
		return;
	request->body_paused = false;
	request->body_seen_us = clock_mono_us();
	request_touch(request);
}

/* libmicrohttpd would close the connection without a word. */
static bool answer_fits(const struct http_request *request)
{
	const size_t record = 72, own_fields = 512, framing = 4;
	size_t used = request->target.len + own_fields;
	for (size_t i = 0; i < request->fields.count; i++)
		used += request->fields.at[i].name.len + request->fields.at[i].value.len + framing + record;
	return used + request->answer.len < request->server->pool_size;
}

static int copy_fields(struct http_request *request, const struct http_fields *fields)
{
	int r = 0;
	for (size_t i = 0; r == 0 && fields && i < fields->count; i++)
		r = answer_head_add(&request->answer, fields->at[i].name, fields->at[i].value);
	return r == -EMSGSIZE || (r == 0 && !answer_fits(request)) ? HTTP_REQUEST_E_HEAD : r;
}

static int start_answer(struct http_request *request, unsigned status, const struct http_fields *fields, uint64_t length)
{
	if (request->answered || request->aborted)
		return HTTP_REQUEST_E_ANSWERED;
	int r = copy_fields(request, fields);
	if (r < 0)
		request_cut(request);
	if (r != 0) {
		buf_consume(&request->answer, request->answer.len);
		return r;
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

int http_request_respond_stream(struct http_request *request, unsigned status, const struct http_fields *fields, uint64_t length)
{
	return start_answer(request, status, fields, length);
}

int http_request_upgrade(struct http_request *request, const char *protocol, const struct http_fields *fields)
{
	int r = start_answer(request, 101, fields, HTTP_LENGTH_UNKNOWN);
	if (r == 0)
		request->protocol = protocol;
	return r;
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
		request_cut(request);
	return r;
}

int http_request_respond_lent(struct http_request *request, unsigned status, const struct http_fields *fields, struct slice body)
{
	/* With a body of its own the request may be answered in the middle of that, from `out`. */
	if (request->head.body != HTTP_BODY_NONE)
		return http_request_respond(request, status, fields, body);
	int r = start_answer(request, status, fields, body.len);
	request->ended |= r == 0;
	if (r == 0 && !request->bodyless)
		request->lent = body;
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

int http_request_respond_problem(struct http_request *request, const struct http_problem *problem, const struct http_fields *extra_fields)
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
		request_cut(request);
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
		request_cut(request);
		return bytes.len;
	}
	request->want_writable |= n < bytes.len;
	request_touch(request);
	return n;
}

void http_request_more(struct http_request *request)
{
	request->more = true;
	request_touch(request);
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
		request_cut(request);
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
		request_cut(request);
}
