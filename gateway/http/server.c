#include "gateway/http/server.h"

#include "gateway/base/clock.h"
#include "gateway/base/log.h"
#include "gateway/http/connection_events.h"
#include "gateway/http/internal.h"
#include "gateway/http/listener.h"
#include "gateway/http/refusal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>
#include <utlist.h>

#define SWEEP_MS 1000
/* After the listening socket is closed: until when a first request is waited for. */
#define FIRST_REQUEST_US 3000000
#define RUNS_PER_TURN    4 /* then others on the loop get their turn */
/* Of clients, in a turn. The first of many would wait for its answer until the last is read. */
#define EVENTS_PER_TURN 16

/* What libmicrohttpd's pool of a connection needs beside the heads: its records of up to 100 fields, and the framing. */
#define POOL_RECORDS (16 * 1024)
/* Datasette repeats the target in Link and Location, there percent-encoded, and may set cookies of its own. */
#define ANSWER_HEAD_MIN (64 * 1024)

/* Inside one thread a resumed connection needs no wake-up through a descriptor, which would cost two system calls a request.
 * MHD_ALLOW_UPGRADE brings it along. */
#define SUSPEND_WITHOUT_ITC (MHD_ALLOW_SUSPEND_RESUME & ~MHD_USE_ITC)

void http_server_defaults(struct http_server_options *options)
{
	*options = (struct http_server_options){
		.listen_fd = -1,
		.max_head = 32 * 1024,
		.max_body = 128ull * 1024 * 1024,
		.max_connections = 16384,
		.max_in_flight = 4096,
		.head_timeout_ms = 10000,
		.idle_timeout_ms = 75000,
		.body_timeout_ms = 30000,
	};
}

void server_rejected(struct http_server *server)
{
	if (server->options.observer.on_rejected)
		server->options.observer.on_rejected(server->options.observer.ctx);
}

/* --- libmicrohttpd's callbacks ------------------------------------------------------------------------------------------ */

/* What libmicrohttpd says when it cannot read a request line and closes the connection without an answer. */
static bool is_bad_line(const char *message)
{
	return strstr(message, "request line") || strstr(message, "empty lines received before the request");
}

static void on_message(void *ctx, const char *format, va_list args)
{
	/* The message that tells of an answer which libmicrohttpd gives by itself. */
	static const char refusal[] = "Error processing request (HTTP response code is %u";
	if (strncmp(format, "%s", 2) == 0) {
		if (is_bad_line(va_arg(args, const char *)))
			server_rejected(ctx);
		return;
	}
	if (strncmp(format, refusal, sizeof refusal - 1) != 0)
		return;
	refusal_note(va_arg(args, unsigned));
	server_rejected(ctx);
}

static void *on_target(void *ctx UNUSED, const char *target, struct MHD_Connection *mhd)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	struct http_connection *connection = info ? info->socket_context : NULL;
	if (!connection)
		return NULL;
	struct http_request *request = request_take(connection, slice_str(target));
	/* libmicrohttpd would cut the query into arguments: needless work, and a limit on their number. */
	char *query = strchr((char *)(uintptr_t)target, '?');
	if (query && query[1])
		query[1] = '\0';
	return request;
}

static size_t leave_escaped(void *ctx UNUSED, struct MHD_Connection *mhd UNUSED, char *text)
{
	return strlen(text);
}

static enum MHD_Result on_access(void *ctx UNUSED, struct MHD_Connection *mhd UNUSED, const char *url UNUSED, const char *method,
				 const char *version, const char *data, size_t *size, void **request_ctx)
{
	struct http_request *request = *request_ctx;
	return request ? request_step(request, method, version, data, size) : MHD_NO;
}

static void on_completed(void *ctx UNUSED, struct MHD_Connection *mhd UNUSED, void **request_ctx, enum MHD_RequestTerminationCode code)
{
	struct http_request *request = *request_ctx;
	*request_ctx = NULL;
	if (request)
		request_complete(request, code);
}

static void format_peer(struct http_connection *connection)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection->mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
	if (!info || !info->client_addr)
		return;
	union {
		struct sockaddr_storage storage;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	} address = {.storage = {.ss_family = 0}};
	bool v6 = info->client_addr->sa_family == AF_INET6;
	memcpy(&address, info->client_addr, v6 ? sizeof address.v6 : sizeof address.v4);
	if (v6 && IN6_IS_ADDR_V4MAPPED(&address.v6.sin6_addr))
		inet_ntop(AF_INET, address.v6.sin6_addr.s6_addr + 12, connection->peer, sizeof connection->peer);
	else if (v6)
		inet_ntop(AF_INET6, &address.v6.sin6_addr, connection->peer, sizeof connection->peer);
	else
		inet_ntop(AF_INET, &address.v4.sin_addr, connection->peer, sizeof connection->peer);
}

static void connection_started(struct http_server *server, struct MHD_Connection *mhd, void **socket_ctx)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
	struct http_connection *connection = info ? calloc(1, sizeof *connection) : NULL;
	*socket_ctx = connection;
	if (!connection)
		return;
	connection->server = server;
	connection->mhd = mhd;
	connection->fd = info->connect_fd;
	connection_expect_head(connection, clock_mono_us() + (uint64_t)server->options.head_timeout_ms * 1000);
	format_peer(connection);
	DL_APPEND(server->connections, connection);
	server->connection_count++;
	connection_events_begin(connection->fd);
	crowd_enter(connection);
	/* Suspended connections are not looked at by libmicrohttpd: this tells of a client that leaves meanwhile. */
	struct epoll_event event = {.events = EPOLLRDHUP | EPOLLET, .data.ptr = connection};
	if (epoll_ctl(server->gone_fd, EPOLL_CTL_ADD, connection->fd, &event) < 0)
		log_warning("http: cannot watch a connection: %s", strerror(errno));
}

static void connection_closed(struct http_server *server, void **socket_ctx)
{
	struct http_connection *connection = *socket_ctx;
	*socket_ctx = NULL;
	if (!connection)
		return;
	/* libmicrohttpd 1.0.1 says nothing of a request whose chunk line outgrew its buffer: it refuses it twice and then forgets it. */
	if (connection->request)
		request_lost(connection->request);
	connection_events_end(connection->fd);
	connection_expect_head(connection, 0);
	crowd_leave(connection);
	DL_DELETE(server->connections, connection);
	server->connection_count--;
	free(connection);
}

static void on_connection(void *ctx, struct MHD_Connection *mhd, void **socket_ctx, enum MHD_ConnectionNotificationCode code)
{
	if (code == MHD_CONNECTION_NOTIFY_STARTED)
		connection_started(ctx, mhd, socket_ctx);
	else
		connection_closed(ctx, socket_ctx);
}

/* --- the loop ----------------------------------------------------------------------------------------------------------- */

static void on_idle(uv_idle_t *idle UNUSED)
{
	/* Only there to keep the loop from sleeping while something is ready. */
}

void server_kick(struct http_server *server)
{
	if (!server->stopping)
		uv_idle_start(&server->idle, on_idle);
}

static void settle_all(struct http_server *server)
{
	while (server->ready) {
		struct http_request *request = server->ready;
		DL_DELETE(server->ready, request);
		request->queued = false;
		request_settle(request);
	}
}

static void on_handle_closed(uv_handle_t *handle)
{
	struct http_server *server = handle->data;
	if (--server->open_handles)
		return;
	void (*on_stopped)(void *) = server->on_stopped;
	void *ctx = server->stopped_ctx;
	while (server->free) {
		struct http_request *request = server->free;
		server->free = request->next;
		request_free(request);
	}
	if (server->gone_fd >= 0)
		close(server->gone_fd);
	free(server);
	if (on_stopped)
		on_stopped(ctx);
}

static void close_handles(struct http_server *server)
{
	uv_handle_t *handles[] = {(uv_handle_t *)&server->check, (uv_handle_t *)&server->idle, (uv_handle_t *)&server->sweep,
				  (uv_handle_t *)&server->gone_poll};
	for (size_t i = 0; i < ARRAY_LEN(handles); i++)
		uv_close(handles[i], on_handle_closed);
}

/* libmicrohttpd may not be stopped while connections are suspended. */
static void stop_now(struct http_server *server)
{
	struct http_connection *connection;
	DL_FOREACH (server->connections, connection) {
		struct http_request *request = connection->request;
		if (request && request->upgraded) {
			request_tell_gone(request);
			request->aborted = true;
			upgraded_close(request);
		} else if (request && request->suspended) {
			request->suspended = false;
			MHD_resume_connection(connection->mhd);
		}
	}
	/* While the descriptor is libmicrohttpd's: once it is closed its number may be another thread's. */
	uv_close((uv_handle_t *)&server->daemon_poll, on_handle_closed);
	MHD_stop_daemon(server->daemon);
	server->daemon = NULL;
	close_handles(server);
}

/* Is there more to do at once? */
static bool run(struct http_server *server)
{
	uint64_t wait_ms;
	settle_all(server);
	if (!server->readable)
		connection_events_expect(0);
	else
		connection_events_expect(server->sweep_due ? UINT_MAX : EVENTS_PER_TURN);
	server->readable = false;
	MHD_run(server->daemon);
	if (server->sweep_due)
		sweep_connections(server, clock_mono_us());
	server->sweep_due = false;
	return server->ready || (MHD_get_timeout64(server->daemon, &wait_ms) == MHD_YES && wait_ms == 0);
}

static void on_check(uv_check_t *check)
{
	struct http_server *server = check->data;
	if (server->stopping) {
		stop_now(server);
		return;
	}
	if (!server->readable && !server->ready && !uv_is_active((uv_handle_t *)&server->idle))
		return;
	bool pending = true;
	for (int i = 0; pending && i < RUNS_PER_TURN; i++)
		pending = run(server);
	if (!pending && !server->stopping)
		uv_idle_stop(&server->idle);
	else
		uv_idle_start(&server->idle, on_idle);
}

static void on_daemon_poll(uv_poll_t *poll, int status UNUSED, int events UNUSED)
{
	struct http_server *server = poll->data;
	server->readable = true;
}

static void on_gone_poll(uv_poll_t *poll, int status UNUSED, int events UNUSED)
{
	struct http_server *server = poll->data;
	struct epoll_event ready[64];
	int n;
	while ((n = epoll_wait(server->gone_fd, ready, ARRAY_LEN(ready), 0)) > 0) {
		for (int i = 0; i < n; i++) {
			struct http_connection *connection = ready[i].data.ptr;
			connection->gone |= (ready[i].events & ~EPOLLOUT) != 0;
			if (connection->request && connection->request->begun) {
				connection->request->gone = connection->gone;
				request_touch(connection->request);
			}
		}
		if (n < (int)ARRAY_LEN(ready))
			return;
	}
}

static void on_sweep(uv_timer_t *timer)
{
	struct http_server *server = timer->data;
	/* After libmicrohttpd has run, which also closes idle connections: what came while this loop was held up is not late. */
	server->readable = server->sweep_due = true;
}

/* --- life ---------------------------------------------------------------------------------------------------------------- */

static struct MHD_Daemon *start_daemon(struct http_server *server)
{
	const struct http_server_options *options = &server->options;
	unsigned suspend = options->upgrades ? (unsigned)MHD_ALLOW_UPGRADE : (unsigned)SUSPEND_WITHOUT_ITC;
	return MHD_start_daemon(suspend | MHD_USE_EPOLL | MHD_USE_ERROR_LOG, 0, NULL, NULL, on_access, server, MHD_OPTION_LISTEN_SOCKET,
				options->listen_fd, MHD_OPTION_CONNECTION_MEMORY_LIMIT, server->pool_size, MHD_OPTION_CONNECTION_LIMIT,
				options->max_connections + HTTP_CROWD_SPARE, MHD_OPTION_CONNECTION_TIMEOUT, options->idle_timeout_ms / 1000,
				MHD_OPTION_CLIENT_DISCIPLINE_LVL, 1, MHD_OPTION_EXTERNAL_LOGGER, on_message, server,
				MHD_OPTION_URI_LOG_CALLBACK, on_target, server, MHD_OPTION_UNESCAPE_CALLBACK, leave_escaped, server,
				MHD_OPTION_NOTIFY_COMPLETED, on_completed, server, MHD_OPTION_NOTIFY_CONNECTION, on_connection, server,
				MHD_OPTION_END);
}

static int start_handles(struct http_server *server)
{
	uv_loop_t *loop = server->options.loop;
	const union MHD_DaemonInfo *info = MHD_get_daemon_info(server->daemon, MHD_DAEMON_INFO_EPOLL_FD);
	if (!info)
		return -EIO;
	server->epoll_fd = info->epoll_fd;
	uv_check_init(loop, &server->check);
	uv_idle_init(loop, &server->idle);
	uv_timer_init(loop, &server->sweep);
	server->check.data = server->idle.data = server->sweep.data = server;
	server->open_handles = 3;
	int r = uv_poll_init(loop, &server->daemon_poll, server->epoll_fd);
	if (r < 0)
		return r;
	server->daemon_poll.data = server;
	server->open_handles++;
	r = uv_poll_init(loop, &server->gone_poll, server->gone_fd);
	if (r < 0)
		return r;
	server->gone_poll.data = server;
	server->open_handles++;
	uv_check_start(&server->check, on_check);
	uv_timer_start(&server->sweep, on_sweep, SWEEP_MS, SWEEP_MS);
	r = uv_poll_start(&server->daemon_poll, UV_READABLE, on_daemon_poll);
	return r < 0 ? r : uv_poll_start(&server->gone_poll, UV_READABLE, on_gone_poll);
}

/* Up to half of a pool is what libmicrohttpd has read: this request's head, and others that the client sent ahead. */
size_t http_server_connection_bytes(size_t max_head)
{
	size_t answer_head = 2 * max_head > ANSWER_HEAD_MIN ? 2 * max_head : ANSWER_HEAD_MIN;
	return 2 * (answer_head + POOL_RECORDS);
}

struct http_server *http_server_new(const struct http_server_options *options)
{
	struct http_server *server = calloc(1, sizeof *server);
	if (!server) {
		close(options->listen_fd);
		return NULL;
	}
	server->options = *options;
	server->pool_size = http_server_connection_bytes(options->max_head);
	server->gone_fd = epoll_create1(EPOLL_CLOEXEC);
	server->daemon = server->gone_fd < 0 ? NULL : start_daemon(server);
	if (!server->daemon) {
		close(options->listen_fd);
		if (server->gone_fd >= 0)
			close(server->gone_fd);
		free(server);
		return NULL;
	}
	if (start_handles(server) < 0) {
		log_error("http: the loop refused a handle");
		MHD_stop_daemon(server->daemon);
		if (server->open_handles == 0) {
			close(server->gone_fd);
			free(server);
		}
		return NULL;
	}
	/* The first run puts the listening socket into libmicrohttpd's epoll. */
	server_kick(server);
	return server;
}

void http_server_drain(struct http_server *server)
{
	server->draining = true;
}

void http_server_refuse(struct http_server *server)
{
	struct http_connection *connection;
	http_server_drain(server);
	int r = listener_refuse(server->options.listen_fd);
	if (r < 0)
		log_warning("http: connections that begin while the port is closed may be reset: %s", strerror(-r));
	DL_FOREACH (server->connections, connection) {
		if (connection->used && !connection->request && !connection_has_spoken(connection) &&
		    !connection_events_heard(connection->fd))
			connection_hang_up(connection);
	}
}

bool http_server_quiesce(struct http_server *server)
{
	struct http_connection *connection;
	if (listener_has_backlog(server->options.listen_fd))
		return false;
	MHD_socket fd = MHD_quiesce_daemon(server->daemon);
	if (fd != MHD_INVALID_SOCKET)
		close(fd);
	uint64_t deadline_us = clock_mono_us() + FIRST_REQUEST_US;
	DL_FOREACH (server->connections, connection) {
		if (connection->head_deadline_us > deadline_us)
			connection->head_deadline_us = deadline_us;
	}
	return true;
}

void http_server_stop(struct http_server *server, void (*on_stopped)(void *ctx), void *ctx)
{
	server_kick(server);
	server->stopping = server->draining = true;
	server->on_stopped = on_stopped;
	server->stopped_ctx = ctx;
}

void http_server_set_max_body(struct http_server *server, uint64_t max_body)
{
	server->options.max_body = max_body;
}

size_t http_server_connections(const struct http_server *server)
{
	return server->connection_count;
}
