/*
 * sweep - clients that take too long: to send a head, to send a body, to read an answer
 *
 * Only what libmicrohttpd does not time itself; it closes idle connections.
 */
#include "gateway/base/clock.h"
#include "gateway/base/log.h"
#include "gateway/http/acked.h"
#include "gateway/http/internal.h"
#include "gateway/http/status.h"
#include "gateway/http/trace_of.h"

#include <errno.h>
#include <sys/socket.h>
#include <utlist.h>

/* So long an answer waits for the end of a small body, to keep the connection. */
#define EARLY_ANSWER_US 1000000

/* Past libmicrohttpd, which takes an answer neither before a request nor in the middle of a body. Whether it arrives or not, the connection
 * ends. How many bytes of body it has, or negative. */
static ssize_t say(int fd, const struct http_problem *problem)
{
	CLEANUP(buf_deinit) struct buf body = BUF_MAX(HTTP_REQUEST_BUFFER), answer = BUF_MAX(HTTP_REQUEST_BUFFER);
	struct http_fields fields;
	http_fields_clear(&fields);
	int r = http_problem_write(problem, &body);
	if (r == 0)
		r = http_problem_fields(&fields);
	if (r == 0 && problem->request_id.len)
		r = http_fields_add(&fields, SLICE("X-Request-Id"), problem->request_id) == 0 ? 0 : -E2BIG;
	if (r == 0 && problem->status != 408)
		r = http_fields_add(&fields, SLICE("Retry-After"), SLICE("1")) == 0 ? 0 : -E2BIG;
	if (r == 0)
		r = buf_printf(&answer, "HTTP/1.1 %u %s\r\n", problem->status, http_status_phrase(problem->status));
	for (size_t i = 0; r == 0 && i < fields.count; i++)
		r = buf_printf(&answer, "%.*s: %.*s\r\n", SLICE_FMT(fields.at[i].name), SLICE_FMT(fields.at[i].value));
	if (r == 0)
		r = buf_printf(&answer, "Connection: close\r\nContent-Length: %zu\r\n\r\n", body.len);
	if (r == 0)
		r = buf_append(&answer, buf_peek(&body));
	if (r < 0)
		return r;
	struct slice bytes = buf_peek(&answer);
	ssize_t sent UNUSED = send(fd, bytes.data, bytes.len, MSG_NOSIGNAL | MSG_DONTWAIT);
	return (ssize_t)body.len;
}

void connection_say(struct http_connection *connection, const struct http_problem *problem)
{
	ssize_t said UNUSED = say(connection->fd, problem);
}

void connection_time_out(struct http_connection *connection, unsigned seconds)
{
	MHD_set_connection_option(connection->mhd, MHD_CONNECTION_OPTION_TIMEOUT, seconds);
}

void connection_expect_head(struct http_connection *connection, uint64_t deadline_us)
{
	if (connection->head_deadline_us)
		DL_DELETE2(connection->server->resting, connection, rest_prev, rest_next);
	connection->head_deadline_us = deadline_us;
	if (deadline_us)
		DL_APPEND2(connection->server->resting, connection, rest_prev, rest_next);
}

/* libmicrohttpd sees the end of the connection and cleans up. */
void connection_hang_up(struct http_connection *connection)
{
	connection->closing = true;
	shutdown(connection->fd, SHUT_RDWR);
	connection_expect_head(connection, 0);
}

bool connection_has_spoken(const struct http_connection *connection)
{
	char byte;
	return recv(connection->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0;
}

void request_reset(struct http_request *request)
{
	static const struct sockaddr nobody = {.sa_family = AF_UNSPEC};
	if (connect(request->connection->fd, &nobody, sizeof nobody) == 0)
		return;
	const char *reason = strerror(errno);
	const struct log_subject subject = http_subject_of(&request->head);
	log_warning_of(&subject, "http: a connection could not be reset: %s", reason);
}

static void sweep_head(struct http_connection *connection, uint64_t now)
{
	uint64_t patience_us = (uint64_t)connection->server->options.head_timeout_ms * 1000;
	/* The request line is there. A connection that was used before had been given its idle time as well. */
	if (connection->request && connection->head_deadline_us > now + patience_us)
		connection_expect_head(connection, now + patience_us);
	if (!connection->head_deadline_us || now < connection->head_deadline_us)
		return;
	/* Without a request line it may be a connection that a browser opened ahead: nothing is said then. */
	if (connection->request) {
		static const struct http_problem problem = {.status = 408, .code = "request-timeout"};
		connection_say(connection, &problem);
		server_rejected(connection->server);
	}
	connection_hang_up(connection);
}

static int answer_timeout(struct http_request *request)
{
	struct http_problem problem = {.status = 408,
				       .code = "request-timeout",
				       .detail = SLICE("The body of the request came too slowly."),
				       .request_id = request->head.id};
	ssize_t said = say(request->connection->fd, &problem);
	if (said < 0)
		return (int)said;
	request->status = problem.status;
	request->bytes_out = (uint64_t)said;
	request->first_byte_us = clock_mono_us() - request->head.start_us;
	return 0;
}

static void too_slow(struct http_request *request)
{
	request_tell_gone(request);
	request->slow = request->aborted = true;
	server_rejected(request->server);
	request_touch(request);
}

static void body_too_slow(struct http_request *request)
{
	if (!request->committed)
		request->committed = answer_timeout(request) == 0;
	too_slow(request);
	connection_hang_up(request->connection);
}

static void reader_too_slow(struct http_request *request)
{
	too_slow(request);
	/* In order it would not end before the client has taken what the kernel still has for it. */
	request_reset(request);
}

static bool crawls(unsigned seconds, uint64_t bytes)
{
	return bytes < (uint64_t)seconds * HTTP_SLOW_BYTES_PER_SECOND;
}

static void sweep_body(struct http_request *request, uint64_t now)
{
	if (request->phase != PHASE_BODY || request->suspended || request->aborted)
		return;
	uint64_t silent_ms = (now - request->body_seen_us) / 1000;
	/* libmicrohttpd's own limit is the idle time, and when that is less it would end the connection without a word. */
	if (!request->slow_seconds++)
		connection_time_out(request->connection, 0);
	bool silent = silent_ms >= request->server->options.body_timeout_ms;
	if (silent || (request->slow_seconds > HTTP_SLOW_SECONDS && crawls(request->slow_seconds, request->bytes_in)))
		body_too_slow(request);
}

/* Is there some of the answer that has not left? libmicrohttpd's connection is suspended when there is nothing to send. */
static bool has_more(const struct http_request *request)
{
	if (request->bypassed)
		return request->wire.len > 0;
	return request->committed && request->phase == PHASE_DONE && !request->suspended;
}

/* And does the client keep it from leaving? A piece of a stream may have come a moment ago, and libmicrohttpd not have looked for more. */
static bool is_stuck(const struct http_request *request, struct acked *acked)
{
	return has_more(request) && acked_look(request->connection->fd, acked) && (request->bypassed || acked->blocked);
}

/* libmicrohttpd sees only that the socket takes something, which for a steady but slow reader happens once in a megabyte. */
static void sweep_reader(struct http_request *request, uint64_t now)
{
	struct acked acked;
	uint64_t patience_us = (uint64_t)request->server->options.idle_timeout_ms * 1000;
	if (request->aborted || !is_stuck(request, &acked))
		return;
	if (!request->stuck_seconds++) {
		connection_time_out(request->connection, 0);
		request->acked_before = acked.bytes;
		request->acked_us = now;
	}
	if (acked.bytes != request->acked_last)
		request->acked_us = now;
	request->acked_last = acked.bytes;
	bool long_enough = request->stuck_seconds > patience_us / 1000000;
	if (now - request->acked_us >= patience_us || (long_enough && crawls(request->stuck_seconds, acked.bytes - request->acked_before)))
		reader_too_slow(request);
}

/* An answer that began before the end of the body. */
static void sweep_early_answer(struct http_request *request, uint64_t now)
{
	if (request->aborted || request->phase == PHASE_HEAD)
		return;
	if (request->answered && !request->committed && now - request->answered_us >= EARLY_ANSWER_US) {
		request->impatient = true;
		request_touch(request);
	}
}

static void sweep_request(struct http_request *request, uint64_t now)
{
	if (request->upgraded)
		return;
	if (request->held && !request->answered && now - request->head.start_us >= (uint64_t)HTTP_HOLD_MS * 1000)
		http_request_go_on(request);
	sweep_body(request, now);
	sweep_early_answer(request, now);
	sweep_reader(request, now);
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
