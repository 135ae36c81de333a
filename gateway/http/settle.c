/*
 * settle - carries out, once a loop turn, what users have asked of a request meanwhile
 *
 * Users' calls only set flags and touch the request. Here, outside of libmicrohttpd and of every callback, they become resumed
 * connections, committed answers and calls of the sink.
 */
#include "gateway/http/connection_events.h"
#include "gateway/http/internal.h"

#include <sys/socket.h>
#include <utlist.h>

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
	if (!request->suspended) {
		connection_events_suspend(request->connection->fd);
		MHD_suspend_connection(request->connection->mhd);
	}
	request->suspended = true;
}

static void resume(struct http_request *request)
{
	if (request->suspended)
		MHD_resume_connection(request->connection->mhd);
	request->suspended = false;
}

void request_cut(struct http_request *request)
{
	request->aborted = true;
	request_touch(request);
}

bool request_is_open(const struct http_request *request)
{
	return !(request->answered && request->ended);
}

void request_tell_gone(struct http_request *request)
{
	if (request->gone_told || request->aborted_by_user || !request_is_open(request))
		return;
	request->gone_told = true;
	if (request->sink && request->sink->on_gone)
		request->sink->on_gone(request->ctx);
}

void request_tell_body_end(struct http_request *request)
{
	if (request->end_told || !request->reading || !request_is_open(request) || request->phase != PHASE_DONE)
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
			request_cut(request);
		else
			request_touch(request);
	}
	/* Once the answer is complete nobody wants the body any more. */
	if (request->ended)
		resume(request);
}

void request_show_cut(struct http_request *request)
{
	bool framed = request->head.version_minor > 0 || request->length != HTTP_LENGTH_UNKNOWN || request->bodyless;
	if (!request->committed || framed)
		return;
	request_reset(request);
}

/* libmicrohttpd closes a connection when one of its callbacks says so, or when it sees the end of the socket. */
static void end_connection(struct http_request *request)
{
	request_show_cut(request);
	if (request->suspended)
		resume(request);
	else
		shutdown(request->connection->fd, SHUT_RDWR);
}

static void settle_bypassed(struct http_request *request)
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
	if (request->gone && request_is_open(request)) {
		request_tell_gone(request);
		request->aborted = true;
	}
	if (request->upgraded) {
		upgraded_settle(request);
		return;
	}
	if (request->aborted) {
		end_connection(request);
		return;
	}
	request_tell_body_end(request);
	tell_writable(request);
	if (request->bypassed)
		settle_bypassed(request);
	else if (request->answered && !request->committed)
		settle_answer(request);
	else if (request->committed && (request->out.len || request->ended || request->more))
		resume(request);
	else if (request->phase == PHASE_HEAD && request->reading)
		resume(request);
	if (request->phase == PHASE_BODY && request_is_open(request) && !request->body_paused)
		resume(request);
}
