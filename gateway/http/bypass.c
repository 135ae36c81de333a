/*
 * bypass - an answer that begins before the request has ended, sent past libmicrohttpd
 *
 * libmicrohttpd takes an answer before the body or after it, never in between. Until the body has ended it only reads from the socket, so
 * the other direction is ours: head and body are framed here and sent directly, and the connection closes afterwards.
 */
#include "gateway/http/answer_head.h"
#include "gateway/http/internal.h"
#include "gateway/http/status.h"

#include <errno.h>
#include <sys/epoll.h>

/* Bytes of the answer that are framed ahead. */
#define FRAMED_MAX (16 * 1024)

static int write_head(struct http_request *request)
{
	struct buf *wire = &request->wire;
	int r = buf_printf(wire, "HTTP/1.1 %u %s\r\n", request->status, http_status_phrase(request->status));
	struct slice rest = buf_peek(&request->answer);
	struct answer_part part;
	while (r == 0 && answer_head_next(&rest, &part))
		r = buf_printf(wire, "%.*s: %.*s\r\n", SLICE_FMT(part.name), SLICE_FMT(part.value));
	if (r == 0)
		r = buf_printf(wire, "X-Request-Id: %s\r\nConnection: close\r\n", request->id);
	if (r == 0 && request->length != HTTP_LENGTH_UNKNOWN && request->status != 204)
		r = buf_printf(wire, "Content-Length: %llu\r\n", (unsigned long long)request->length);
	else if (r == 0 && request->wire_chunked)
		r = buf_append(wire, SLICE("Transfer-Encoding: chunked\r\n"));
	return r < 0 ? r : buf_append(wire, SLICE("\r\n"));
}

int bypass_start(struct http_request *request)
{
	buf_init(&request->wire, HTTP_REQUEST_BUFFER + request->server->pool_size);
	request->bypassed = request->committed = true;
	request->wire_chunked = request->length == HTTP_LENGTH_UNKNOWN && request->head.version_minor > 0 && !request->bodyless;
	return write_head(request);
}

static int frame(struct http_request *request)
{
	int r = 0;
	while (r == 0 && request->out.len && request->wire.len < FRAMED_MAX) {
		struct slice bytes = buf_peek(&request->out);
		bytes.len = bytes.len < FRAMED_MAX ? bytes.len : FRAMED_MAX;
		if (request->wire_chunked)
			r = buf_printf(&request->wire, "%zx\r\n", bytes.len);
		if (r == 0)
			r = buf_append(&request->wire, bytes);
		if (r == 0 && request->wire_chunked)
			r = buf_append(&request->wire, SLICE("\r\n"));
		request->bytes_out += bytes.len;
		buf_consume(&request->out, bytes.len);
	}
	if (r < 0 || request->out.len || !request->ended || request->wire_ended)
		return r;
	request->wire_ended = true;
	return request->wire_chunked && !request->short_answer ? buf_append(&request->wire, SLICE("0\r\n\r\n")) : 0;
}

/* Edge-triggered, like the watch for a client that leaves. */
static void watch_writable(struct http_request *request)
{
	struct http_connection *connection = request->connection;
	struct epoll_event event = {.events = EPOLLRDHUP | EPOLLOUT | EPOLLET, .data.ptr = connection};
	if (epoll_ctl(request->server->gone_fd, EPOLL_CTL_MOD, connection->fd, &event) < 0)
		request->aborted = true;
}

static void finish(struct http_request *request)
{
	request->wire_done = true;
	/* The rest of the upload is swallowed, so that no reset destroys the answer on its way. */
	if (!request->short_answer)
		shutdown(request->connection->fd, SHUT_WR);
	request->aborted |= request->short_answer || request->phase == PHASE_DONE;
}

void bypass_pump(struct http_request *request)
{
	while (!request->wire_done && !request->aborted) {
		if (frame(request) < 0) {
			request->aborted = true;
			return;
		}
		struct slice bytes = buf_peek(&request->wire);
		if (!bytes.len && !request->wire_ended)
			return;
		ssize_t sent = bytes.len ? send(request->connection->fd, bytes.data, bytes.len, MSG_NOSIGNAL | MSG_DONTWAIT) : 0;
		if (sent < 0 && errno != EAGAIN && errno != EWOULDBLOCK) {
			request->aborted = true;
			return;
		}
		if (sent < 0) {
			watch_writable(request);
			return;
		}
		buf_consume(&request->wire, (size_t)sent);
		if (!request->wire.len && request->wire_ended)
			finish(request);
	}
}
