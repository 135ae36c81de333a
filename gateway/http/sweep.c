/*
 * sweep - clients that take too long: to send a head, to send a body, to read an answer
 *
 * Only what libmicrohttpd does not time itself; it closes idle connections and those whose answer does not move.
 */
#include "gateway/base/clock.h"
#include "gateway/http/internal.h"
#include "gateway/http/problem_types.h"

#include <stdio.h>
#include <sys/socket.h>
#include <utlist.h>

/* So long an answer waits for the end of a small body, to keep the connection. */
#define EARLY_ANSWER_US 1000000
/* A body that has been waited for this long must have come at the minimum rate. */
#define SLOW_AFTER_SECONDS    10
#define SLOW_BYTES_PER_SECOND 1024

static void say_timeout(int fd)
{
	static const char body[] = "{\"type\":\"" HTTP_PROBLEM_BASE "request-timeout\",\"title\":\"The request took too long to arrive\","
				   "\"status\":408,\"code\":\"request-timeout\",\"ok\":false}\n";
	char answer[512];
	int len = snprintf(answer, sizeof answer,
			   "HTTP/1.1 408 Request Timeout\r\nContent-Type: application/problem+json\r\n"
			   "Cache-Control: no-store\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n%s",
			   sizeof body - 1, body);
	/* Whether it arrives or not, the connection ends. */
	ssize_t sent UNUSED = send(fd, answer, (size_t)len, MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* libmicrohttpd sees the end of the connection and cleans up. */
void connection_hang_up(struct http_connection *connection)
{
	shutdown(connection->fd, SHUT_RDWR);
	connection->head_deadline_us = 0;
}

static void sweep_head(struct http_connection *connection, uint64_t now)
{
	if (!connection->head_deadline_us || now < connection->head_deadline_us)
		return;
	/* Without a request line it may be a connection that a browser opened ahead: nothing is said then. */
	if (connection->request) {
		say_timeout(connection->fd);
		server_rejected(connection->server, "timeout");
	}
	connection_hang_up(connection);
}

/* Past libmicrohttpd, which takes no answer in the middle of a body. */
static int answer_timeout(struct http_request *request)
{
	CLEANUP(buf_deinit) struct buf body = BUF_MAX(HTTP_REQUEST_BUFFER), answer = BUF_MAX(HTTP_REQUEST_BUFFER);
	struct http_problem problem = {.status = 408,
				       .code = "request-timeout",
				       .detail = SLICE("The body of the request came too slowly."),
				       .request_id = request->head.id};
	int r = http_problem_write(&problem, &body);
	if (r == 0)
		r = buf_printf(&answer,
			       "HTTP/1.1 408 Request Timeout\r\nContent-Type: application/problem+json\r\nCache-Control: no-store\r\n"
			       "X-Content-Type-Options: nosniff\r\nX-Request-Id: %s\r\nConnection: close\r\nContent-Length: %zu\r\n\r\n",
			       request->id, body.len);
	if (r == 0)
		r = buf_append(&answer, buf_peek(&body));
	if (r < 0)
		return r;
	struct slice bytes = buf_peek(&answer);
	ssize_t sent UNUSED = send(request->connection->fd, bytes.data, bytes.len, MSG_NOSIGNAL | MSG_DONTWAIT);
	request->status = problem.status;
	request->bytes_out = body.len;
	request->first_byte_us = clock_mono_us() - request->head.start_us;
	return 0;
}

static void too_slow(struct http_request *request)
{
	request_tell_gone(request);
	request->slow = request->aborted = true;
	if (!request->committed)
		request->committed = answer_timeout(request) == 0;
	server_rejected(request->server, "timeout");
	connection_hang_up(request->connection);
	request_touch(request);
}

static void sweep_body(struct http_request *request, uint64_t now)
{
	if (request->phase != PHASE_BODY || request->suspended || request->aborted)
		return;
	uint64_t silent_ms = (now - request->body_seen_us) / 1000;
	request->slow_seconds++;
	bool crawls =
		request->slow_seconds > SLOW_AFTER_SECONDS && request->bytes_in < (uint64_t)request->slow_seconds * SLOW_BYTES_PER_SECOND;
	if (silent_ms >= request->server->options.body_timeout_ms || crawls)
		too_slow(request);
}

/* An answer that began before the end of the body. */
static void sweep_early_answer(struct http_request *request, uint64_t now)
{
	if (request->aborted || request->phase == PHASE_HEAD)
		return;
	if (request->bypassed && request->wire.len && now - request->wire_us >= (uint64_t)request->server->options.idle_timeout_ms * 1000) {
		too_slow(request);
	} else if (request->answered && !request->committed && now - request->answered_us >= EARLY_ANSWER_US) {
		request->impatient = true;
		request_touch(request);
	}
}

static void sweep_request(struct http_request *request, uint64_t now)
{
	if (request->held && !request->answered && now - request->head.start_us >= (uint64_t)HTTP_HOLD_MS * 1000)
		http_request_go_on(request);
	sweep_body(request, now);
	sweep_early_answer(request, now);
}

void sweep_connections(struct http_server *server, uint64_t now)
{
	struct http_connection *connection, *next;
	DL_FOREACH_SAFE (server->connections, connection, next) {
		if (connection->request && connection->request->begun)
			sweep_request(connection->request, now);
		else
			sweep_head(connection, now);
	}
}
