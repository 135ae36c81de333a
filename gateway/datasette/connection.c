#include "gateway/datasette/connection.h"

#include "gateway/base/clock.h"
#include "gateway/base/keepalive.h"
#include "gateway/base/log.h"
#include "gateway/datasette/turn.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <utlist.h>

#define SWEEP_MS 500
/* Names are resolved again this often, since addresses behind a name change when a machine restarts. */
#define DNS_CACHE_SECONDS 5L
/* One that vanished is noticed after 75 s without a byte. */
#define KEEPALIVE_SECONDS 15L
#define KEEPALIVE_PROBES  4L

struct connection {
	struct connection *prev, *next; /* in the idle list */
	struct connection_pool *pool;
	struct connection_waiter *waiter; /* whom it is being opened for */
	struct curl_transfer transfer;
	uv_poll_t poll;
	int fd;
	int watched;
	bool polled;  /* `poll` is a live handle */
	bool failed;  /* what came before is still read, but nothing else goes over it */
	bool idle;
	bool detached; /* not counted */
	uint64_t idle_since_us;
	void (*on_ready)(void *ctx, bool readable, bool writable);
	void *ctx;
	char error[CURL_ERROR_SIZE];
};

struct connection_pool {
	struct connection_pool_options options;
	char *url, *ca_file, *unix_path;
	struct slice authority;
	bool tls;
	struct connection *idle;            /* newest first */
	struct connection_waiter *waiting;  /* oldest first */
	struct connection_waiter *handover; /* waiters whose connection is released already */
	struct turn turn;
	uv_timer_t sweep;
	struct connection_counts counts;
	bool complained;
	bool timer_closed, turn_closed;
};

void connection_pool_defaults(struct connection_pool_options *options)
{
	*options = (struct connection_pool_options){
		.connect_timeout_ms = 3000,
		.idle_ms = 4000,
		.wait_ms = 10000,
		.max_connections = 1024,
		.max_waiting = 1024,
	};
}

/* --- opening ------------------------------------------------------------------------------------------------------------ */

static void on_poll_closed(uv_handle_t *handle)
{
	free(handle->data);
}

/* Unlinked and closed now, freed when the loop has let go of the watcher. */
static void destroy(struct connection *connection)
{
	struct connection_pool *pool = connection->pool;
	if (connection->idle) {
		DL_DELETE(pool->idle, connection);
		pool->counts.idle--;
	}
	pool->counts.open -= !connection->detached;
	if (connection->polled)
		uv_close((uv_handle_t *)&connection->poll, on_poll_closed);
	curl_transfer_stop(pool->options.driver, &connection->transfer);
	curl_easy_cleanup(connection->transfer.easy);
	if (!connection->polled)
		free(connection);
}

/* A silent event stream shows whether Datasette is still there. */
static CURLcode set_keepalive(CURL *easy)
{
	CURLcode code = curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
	if (code == CURLE_OK)
		code = curl_easy_setopt(easy, CURLOPT_TCP_KEEPIDLE, KEEPALIVE_SECONDS);
	if (code == CURLE_OK)
		code = curl_easy_setopt(easy, CURLOPT_TCP_KEEPINTVL, KEEPALIVE_SECONDS);
	return code == CURLE_OK ? curl_easy_setopt(easy, CURLOPT_TCP_KEEPCNT, KEEPALIVE_PROBES) : code;
}

static int set_url(struct connection *connection)
{
	const struct connection_pool *pool = connection->pool;
	CURL *easy = connection->transfer.easy;
	CURLcode code = curl_easy_setopt(easy, CURLOPT_URL, pool->url);
	if (code == CURLE_OK && pool->unix_path)
		code = curl_easy_setopt(easy, CURLOPT_UNIX_SOCKET_PATH, pool->unix_path);
	if (code == CURLE_OK && pool->ca_file)
		code = curl_easy_setopt(easy, CURLOPT_CAINFO, pool->ca_file);
	/* Its default would vouch as well. */
	if (code == CURLE_OK && pool->ca_file)
		code = curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
	if (code == CURLE_OK)
		code = curl_easy_setopt(easy, CURLOPT_CONNECT_ONLY, 1L);
	if (code == CURLE_OK)
		code = curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)pool->options.connect_timeout_ms);
	if (code == CURLE_OK)
		code = curl_easy_setopt(easy, CURLOPT_DNS_CACHE_TIMEOUT, DNS_CACHE_SECONDS);
	if (code == CURLE_OK)
		code = set_keepalive(easy);
	if (code == CURLE_OK)
		code = curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, connection->error);
	return code == CURLE_OK ? curl_set_common(easy) : -ENOMEM;
}

static void on_opened(struct curl_transfer *transfer, CURLcode result);

static int open_for(struct connection_pool *pool, struct connection_waiter *waiter)
{
	struct connection *connection = calloc(1, sizeof *connection);
	if (!connection)
		return -ENOMEM;
	connection->pool = pool;
	connection->fd = -1;
	connection->transfer.easy = curl_easy_init();
	connection->transfer.done = on_opened;
	connection->transfer.ctx = connection;
	if (!connection->transfer.easy || set_url(connection) < 0 ||
	    curl_transfer_start_kept(pool->options.driver, &connection->transfer) < 0) {
		curl_easy_cleanup(connection->transfer.easy);
		free(connection);
		return -ENOMEM;
	}
	connection->waiter = waiter;
	waiter->opening = connection;
	pool->counts.open++;
	pool->counts.opening++;
	return 0;
}

/* One line when Datasette goes, one when it is back; not one a request. */
static void complain(struct connection_pool *pool, const char *error)
{
	if (!pool->complained)
		log_warning("datasette: no connection could be made: %s", error);
	pool->complained = true;
}

static void recovered(struct connection_pool *pool)
{
	if (pool->complained)
		log_info("datasette: connected again");
	pool->complained = false;
}

static void fail_waiter(struct connection_pool *pool, struct connection_waiter *waiter, CURLcode result, const char *error)
{
	char detail[128];
	bool late = result == CURLE_OPERATION_TIMEDOUT;
	/* What libcurl says of this connection names addresses of the inside: clients get its general words. */
	snprintf(detail, sizeof detail, "no connection could be made: %s", curl_easy_strerror(result));
	complain(pool, *error ? error : curl_easy_strerror(result));
	waiter->on_failed(waiter->ctx, late ? CONNECTION_TIMED_OUT : CONNECTION_REFUSED, detail);
}

/* There is room for one more: who waits longest gets it. */
static void open_next(struct connection_pool *pool)
{
	struct connection_waiter *waiter = pool->waiting;
	if (!waiter || pool->counts.open >= pool->options.max_connections)
		return;
	DL_DELETE(pool->waiting, waiter);
	pool->counts.waiting--;
	waiter->queued = false;
	if (open_for(pool, waiter) < 0)
		waiter->on_failed(waiter->ctx, CONNECTION_REFUSED, "no connection could be made: there is no memory");
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
	struct connection *connection = poll->data;
	if (connection->idle) {
		/* Closed, or it says something that nobody asked for: either way it is of no use. */
		destroy(connection);
		return;
	}
	/* An error condition shows itself when reading, behind the bytes that came before it; libuv has stopped watching. A user that does
	 * not read now is told again when it watches again. */
	if (status < 0) {
		bool reads = connection->watched & UV_READABLE;
		connection->failed = true;
		connection->watched = 0;
		if (connection_watch(connection, reads, false) < 0)
			connection->watched = 0;
	}
	bool readable = status < 0 || (events & UV_READABLE);
	connection->on_ready(connection->ctx, readable, events & UV_WRITABLE);
}

static int start_polling(struct connection *connection)
{
	curl_socket_t fd;
	if (curl_easy_getinfo(connection->transfer.easy, CURLINFO_ACTIVESOCKET, &fd) != CURLE_OK || fd == CURL_SOCKET_BAD)
		return -EIO;
	connection->fd = fd;
	int r = uv_poll_init_socket(connection->pool->options.loop, &connection->poll, fd);
	if (r < 0)
		return r;
	connection->poll.data = connection;
	connection->polled = true;
	return connection_watch(connection, true, false);
}

static void on_opened(struct curl_transfer *transfer, CURLcode result)
{
	struct connection *connection = transfer->ctx;
	struct connection_pool *pool = connection->pool;
	struct connection_waiter *waiter = connection->waiter;
	connection->waiter = NULL;
	waiter->opening = NULL;
	pool->counts.opening--;
	if (result == CURLE_OK && start_polling(connection) < 0)
		result = CURLE_OUT_OF_MEMORY;
	if (result == CURLE_OK) {
		recovered(pool);
		waiter->on_ready(waiter->ctx, connection, false);
		return;
	}
	char error[CURL_ERROR_SIZE];
	memcpy(error, connection->error, sizeof error);
	destroy(connection);
	fail_waiter(pool, waiter, result, error);
	open_next(pool);
}

/* --- asking and giving back ---------------------------------------------------------------------------------------------- */

static bool is_stale(const struct connection *connection, uint64_t now)
{
	return now - connection->idle_since_us >= (uint64_t)connection->pool->options.idle_ms * 1000;
}

/* Nothing may be there to read on an idle connection. */
static bool is_quiet(const struct connection *connection)
{
	char byte;
	return recv(connection->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
}

static struct connection *take_idle(struct connection_pool *pool, enum connection_want want)
{
	uint64_t now = clock_mono_us();
	while (pool->idle && want != CONNECTION_FRESH) {
		struct connection *connection = pool->idle;
		if (is_stale(connection, now) || (want == CONNECTION_CHECKED && !is_quiet(connection))) {
			destroy(connection);
			continue;
		}
		DL_DELETE(pool->idle, connection);
		pool->counts.idle--;
		connection->idle = false;
		return connection;
	}
	return NULL;
}

/* Makes room by closing the connection that has been idle longest. */
static bool close_oldest_idle(struct connection_pool *pool)
{
	if (!pool->idle)
		return false;
	destroy(pool->idle->prev);
	return true;
}

int connection_acquire(struct connection_pool *pool, struct connection_waiter *waiter, enum connection_want want,
		       struct connection **connection)
{
	*connection = take_idle(pool, want);
	if (*connection)
		return 0;
	if (pool->counts.open < pool->options.max_connections || close_oldest_idle(pool))
		return open_for(pool, waiter);
	if (pool->counts.waiting >= pool->options.max_waiting)
		return CONNECTION_E_BUSY;
	waiter->since_us = clock_mono_us();
	waiter->queued = true;
	DL_APPEND(pool->waiting, waiter);
	pool->counts.waiting++;
	return 0;
}

void connection_cancel(struct connection_pool *pool, struct connection_waiter *waiter)
{
	if (waiter->queued) {
		DL_DELETE(pool->waiting, waiter);
		pool->counts.waiting--;
		waiter->queued = false;
	} else if (waiter->opening) {
		struct connection *connection = waiter->opening;
		waiter->opening = NULL;
		if (connection->waiter) {
			pool->counts.opening--;
			destroy(connection);
			turn_ask(&pool->turn);
		} else {
			/* It was about to be handed over. */
			DL_DELETE(pool->handover, waiter);
			connection_release(connection, true);
		}
	}
}

static void hand_over(struct connection *connection, struct connection_waiter *waiter)
{
	struct connection_pool *pool = connection->pool;
	DL_DELETE(pool->waiting, waiter);
	pool->counts.waiting--;
	waiter->queued = false;
	waiter->opening = connection;
	DL_APPEND(pool->handover, waiter);
	turn_ask(&pool->turn);
}

void connection_release(struct connection *connection, bool reusable)
{
	if (!connection)
		return;
	struct connection_pool *pool = connection->pool;
	reusable = reusable && !connection->failed;
	struct connection_waiter *waiter = reusable ? pool->waiting : NULL;
	/* Between two owners nobody would hear an event. */
	if (!reusable || connection_watch(connection, !waiter, false) < 0) {
		destroy(connection);
		turn_ask(&pool->turn);
	} else if (waiter) {
		hand_over(connection, waiter);
	} else {
		connection->idle = true;
		connection->idle_since_us = clock_mono_us();
		DL_PREPEND(pool->idle, connection);
		pool->counts.idle++;
	}
}

static void on_turn(void *ctx)
{
	struct connection_pool *pool = ctx;
	while (pool->handover) {
		struct connection_waiter *waiter = pool->handover;
		struct connection *connection = waiter->opening;
		DL_DELETE(pool->handover, waiter);
		waiter->opening = NULL;
		if (connection_watch(connection, true, false) < 0) {
			destroy(connection);
			waiter->on_failed(waiter->ctx, CONNECTION_REFUSED, "its connection cannot be watched");
			continue;
		}
		waiter->on_ready(waiter->ctx, connection, true);
	}
	while (pool->waiting && pool->counts.open < pool->options.max_connections)
		open_next(pool);
}

static void on_sweep(uv_timer_t *timer)
{
	struct connection_pool *pool = timer->data;
	uint64_t now = clock_mono_us();
	while (pool->idle && is_stale(pool->idle->prev, now))
		destroy(pool->idle->prev);
	while (pool->waiting && now - pool->waiting->since_us >= (uint64_t)pool->options.wait_ms * 1000) {
		struct connection_waiter *waiter = pool->waiting;
		DL_DELETE(pool->waiting, waiter);
		pool->counts.waiting--;
		waiter->queued = false;
		waiter->on_failed(waiter->ctx, CONNECTION_WAITED, "all connections to it stayed busy");
	}
}

void connection_detach(struct connection *connection, unsigned silence_ms)
{
	struct connection_pool *pool = connection->pool;
	/* A Unix socket has none of this and needs none. */
	int r UNUSED = keepalive_set(connection->fd, silence_ms);
	connection->detached = true;
	pool->counts.open--;
	turn_ask(&pool->turn);
}

bool connection_end(struct connection *connection)
{
	return !connection->pool->tls && shutdown(connection->fd, SHUT_WR) == 0;
}

/* --- bytes ----------------------------------------------------------------------------------------------------------------- */

static int send_tls(struct connection *connection, const struct iovec *pieces, size_t count, size_t *sent)
{
	for (size_t i = 0; i < count; i++) {
		size_t n = 0;
		if (!pieces[i].iov_len)
			continue;
		CURLcode code = curl_easy_send(connection->transfer.easy, pieces[i].iov_base, pieces[i].iov_len, &n);
		*sent += n;
		if (code == CURLE_AGAIN || (code == CURLE_OK && n < pieces[i].iov_len))
			return *sent ? 0 : CONNECTION_E_AGAIN;
		if (code != CURLE_OK)
			return CONNECTION_E_CLOSED;
	}
	return 0;
}

int connection_send(struct connection *connection, const struct iovec *pieces, size_t count, size_t *sent)
{
	*sent = 0;
	if (connection->pool->tls)
		return send_tls(connection, pieces, count, sent);
	struct msghdr message = {.msg_iov = (struct iovec *)(uintptr_t)pieces, .msg_iovlen = count};
	ssize_t n = sendmsg(connection->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n < 0)
		return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? CONNECTION_E_AGAIN : CONNECTION_E_CLOSED;
	*sent = (size_t)n;
	return 0;
}

static int recv_tls(struct connection *connection, char *into, size_t room, size_t *got, bool *reset)
{
	CURLcode code = curl_easy_recv(connection->transfer.easy, into, room, got);
	if (code == CURLE_AGAIN)
		return CONNECTION_E_AGAIN;
	*reset = code != CURLE_OK;
	return code == CURLE_OK && *got ? 0 : CONNECTION_E_CLOSED;
}

int connection_recv(struct connection *connection, char *into, size_t room, size_t *got, bool *more, bool *reset)
{
	*got = 0;
	*reset = false;
	*more = connection->pool->tls;
	if (connection->pool->tls)
		return recv_tls(connection, into, room, got, reset);
	ssize_t n = recv(connection->fd, into, room, MSG_DONTWAIT);
	if (n > 0) {
		*got = (size_t)n;
		*more = *got == room;
		return 0;
	}
	if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
		return CONNECTION_E_AGAIN;
	*reset = n < 0;
	return CONNECTION_E_CLOSED;
}

void connection_set_handler(struct connection *connection, void (*on_ready)(void *ctx, bool readable, bool writable), void *ctx)
{
	connection->on_ready = on_ready;
	connection->ctx = ctx;
}

int connection_watch(struct connection *connection, bool readable, bool writable)
{
	int events = (readable ? UV_READABLE : 0) | (writable ? UV_WRITABLE : 0);
	if (events == connection->watched)
		return 0;
	connection->watched = events;
	return events ? uv_poll_start(&connection->poll, events, on_poll) : uv_poll_stop(&connection->poll);
}

/* --- life ------------------------------------------------------------------------------------------------------------------- */

static bool parse_unix(struct connection_pool *pool, struct slice url)
{
	struct slice path = slice_has_prefix(url, SLICE("http+unix://")) ? slice_from(url, 12) : slice_from(url, 5);
	if (!path.len || path.data[0] != '/' || path.len > 107)
		return false;
	pool->unix_path = slice_dup(path);
	pool->url = slice_dup(SLICE("http://localhost/"));
	pool->authority = SLICE("localhost");
	return true;
}

static bool parse_http(struct connection_pool *pool, struct slice url)
{
	pool->tls = slice_has_prefix_nocase(url, SLICE("https://"));
	if (!pool->tls && !slice_has_prefix_nocase(url, SLICE("http://")))
		return false;
	size_t scheme = pool->tls ? 8 : 7;
	struct slice rest = slice_from(url, scheme);
	if (rest.len && rest.data[rest.len - 1] == '/')
		rest.len--;
	for (size_t i = 0; i < rest.len; i++)
		if (strchr("/?#@ \\", rest.data[i]) || rest.data[i] < 0x21)
			return false;
	if (!rest.len)
		return false;
	pool->url = slice_dup(slice_of(url.data, scheme + rest.len));
	pool->authority = pool->url ? slice_str(pool->url + scheme) : (struct slice){0};
	return true;
}

static void free_pool(struct connection_pool *pool)
{
	free(pool->url);
	free(pool->ca_file);
	free(pool->unix_path);
	free(pool);
}

struct connection_pool *connection_pool_new(const struct connection_pool_options *options, char error[CONNECTION_ERROR_LEN])
{
	struct connection_pool *pool = calloc(1, sizeof *pool);
	struct slice url = slice_str(options->url);
	if (!pool) {
		snprintf(error, CONNECTION_ERROR_LEN, "out of memory");
		return NULL;
	}
	pool->options = *options;
	bool is_unix = slice_has_prefix(url, SLICE("http+unix://")) || slice_has_prefix(url, SLICE("unix:"));
	if (!(is_unix ? parse_unix(pool, url) : parse_http(pool, url))) {
		snprintf(error, CONNECTION_ERROR_LEN,
			 "must be http://host:port, https://host:port or unix:/path, without a path, query or user");
		free_pool(pool);
		return NULL;
	}
	bool own_ca = options->ca_file && *options->ca_file;
	pool->ca_file = own_ca ? slice_dup(slice_str(options->ca_file)) : NULL;
	if (!pool->url || (is_unix && !pool->unix_path) || (own_ca && !pool->ca_file)) {
		snprintf(error, CONNECTION_ERROR_LEN, "out of memory");
		free_pool(pool);
		return NULL;
	}
	turn_init(&pool->turn, options->loop, on_turn, pool);
	uv_timer_init(options->loop, &pool->sweep);
	pool->sweep.data = pool;
	uv_timer_start(&pool->sweep, on_sweep, SWEEP_MS, SWEEP_MS);
	return pool;
}

static void on_turn_closed(void *ctx)
{
	struct connection_pool *pool = ctx;
	pool->turn_closed = true;
	if (pool->timer_closed)
		free_pool(pool);
}

static void on_timer_closed(uv_handle_t *handle)
{
	struct connection_pool *pool = handle->data;
	pool->timer_closed = true;
	if (pool->turn_closed)
		free_pool(pool);
}

void connection_pool_free(struct connection_pool *pool)
{
	if (!pool)
		return;
	while (pool->idle)
		destroy(pool->idle);
	turn_close(&pool->turn, on_turn_closed);
	uv_close((uv_handle_t *)&pool->sweep, on_timer_closed);
}

struct slice connection_pool_authority(const struct connection_pool *pool)
{
	return pool->authority;
}

struct connection_counts connection_pool_counts(const struct connection_pool *pool)
{
	return pool->counts;
}
