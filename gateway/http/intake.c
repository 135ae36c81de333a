/*
 * intake - a request as libmicrohttpd hands it over: its head, its body in pieces, its end
 *
 * The first call decides: guard, then on_request. Later calls bring the body and, after it, ask for the answer.
 */
#include "gateway/base/clock.h"
#include "gateway/http/connection_events.h"
#include "gateway/http/internal.h"

#include <stdlib.h>
#include <utlist.h>

/* What an idle request object may keep allocated. */
#define KEEP_MAX (16 * 1024)

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
	buf_init(&request->answer, server->pool_size);
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
	connection_events_rest(request->connection->fd);
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
	/* All but the buffers, which keep their memory, and the fields, which are many: their count says that there are none. */
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
	if (http_target_append(target, &request->target) < 0) {
		give_back(request);
		return NULL;
	}
	connection->request = request;
	connection->used = true;
	return request;
}

/* --- head, body, end ---------------------------------------------------------------------------------------------------- */

static enum MHD_Result collect_field(void *ctx, enum MHD_ValueKind kind UNUSED, const char *name, size_t name_len, const char *value,
				     size_t value_len)
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

static void refuse_by_guard(struct http_request *request, const struct http_guard_verdict *verdict)
{
	struct http_problem problem = {.status = verdict->status, .code = verdict->code, .detail = slice_str(verdict->detail)};
	request->close = true;
	request_refuse(request, &problem, verdict->reason, verdict->allow);
}

static void refuse_busy(struct http_request *request)
{
	static const struct http_problem problem = {
		.status = 503, .code = "temporary-reduced-capacity", .detail = {.data = "Too many requests are under way.", .len = 32}};
	struct http_fields extra;
	http_fields_clear(&extra);
	if (http_fields_add(&extra, SLICE("Retry-After"), SLICE("1")) != 0 || http_request_respond_problem(request, &problem, &extra) < 0)
		request_cut(request);
}

/* OPTIONS * asks about the server as a whole (RFC 9110 section 9.3.7). */
static void answer_asterisk(struct http_request *request)
{
	struct http_fields fields;
	http_fields_clear(&fields);
	if (http_fields_add(&fields, SLICE("Allow"), SLICE(HTTP_GUARD_METHODS)) != 0 ||
	    http_request_respond(request, 204, &fields, (struct slice){0}) < 0)
		request_cut(request);
}

static enum MHD_Result begin(struct http_request *request, const char *method, const char *version)
{
	struct http_server *server = request->server;
	struct http_guard_limits limits = {.max_head = server->options.max_head};
	struct http_guard_verdict verdict;
	if (request->connection->closing)
		return MHD_NO;
	request->begun = true;
	connection_expect_head(request->connection, 0);
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
	return !request->head.expect_continue && request->head.body == HTTP_BODY_LENGTH && request->head.content_length <= DISCARD_MAX;
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

/* A chunked body that grew too large; one with a length was refused before it was read. An answer that has begun can only be cut. */
static enum MHD_Result refuse_mid_upload(struct http_request *request, size_t *size)
{
	if (request->answered) {
		request_tell_gone(request);
		request_cut(request);
		return MHD_NO;
	}
	struct http_problem problem = {.status = 413, .code = "body-too-large", .detail = SLICE("The request body is too large.")};
	request_tell_gone(request);
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
	if (!request_is_open(request))
		return swallow(request, size);
	if (request->bytes_in + *size > request->max_body)
		return refuse_mid_upload(request, size);
	size_t taken = request->sink->on_body ? request->sink->on_body(request->ctx, slice_of(data, *size)) : *size;
	request->bytes_in += taken;
	*size -= taken;
	if (request->aborted)
		return MHD_NO;
	if (*size && request_is_open(request)) {
		request->body_paused = true;
		request_suspend(request);
	}
	return MHD_YES;
}

static enum MHD_Result after_body(struct http_request *request)
{
	request->phase = PHASE_DONE;
	request_tell_body_end(request);
	if (request->aborted || request->wire_done)
		return MHD_NO;
	if (request->answered && !request->committed)
		return answer_commit(request) == 0 ? MHD_YES : MHD_NO;
	request_suspend(request);
	return MHD_YES;
}

enum MHD_Result request_step(struct http_request *request, const char *method, const char *version, const char *data, size_t *size)
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
	bool handed_over = request->bypassed ? request->wire_done : request->committed && code == MHD_REQUEST_TERMINATED_COMPLETED_OK;
	/* To libmicrohttpd an upgraded connection always ends well. */
	handed_over &= !(request->protocol && request->aborted);
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
	connection_expect_head(request->connection,
			       now + (uint64_t)(server->options.idle_timeout_ms + server->options.head_timeout_ms) * 1000);
	/* One that was upgraded is in none of libmicrohttpd's lists, and the lock that this takes is held. */
	if ((request->stuck_seconds || request->slow_seconds) && !request->protocol)
		connection_time_out(request->connection, server->options.idle_timeout_ms / 1000);
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
		request_tell_gone(request);
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
	request->stuck_seconds = request->slow_seconds = 0;
	request_complete(request, MHD_REQUEST_TERMINATED_WITH_ERROR);
}
