#include "gateway/sprites/socket.h"

#include "gateway/base/clock.h"
#include "gateway/sprites/handshake.h"
#include "gateway/sprites/heartbeat.h"
#include "gateway/sprites/outbox.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#define READ_BYTES     65536
#define READS_PER_TURN 32 /* then other sockets have their turn */
#define REASON_BYTES   512
#define CLOSE_NORMAL   1000

enum socket_state { CONNECTING, OPEN, ENDED };

struct socket {
	struct curl_transfer transfer;
	struct socket_options options;
	const struct socket_events *events;
	void *ctx;
	enum socket_state state;
	bool closed; /* by the owner: no callback any more */
	bool paused, want_write, polling;
	CURLcode send_failed; /* nothing is sent any more; what came before may still be read */
	bool drain_due;       /* data was queued and on_drained has not followed yet */
	int watched;          /* events that poll asks for */
	struct curl_slist *headers;
	struct handshake handshake;
	struct heartbeat heartbeat;
	struct outbox outbox;
	/* A control frame may come in pieces too. */
	char control[OUTBOX_CONTROL_MAX];
	size_t control_len;
	char reason[REASON_BYTES];
	char curl_error[CURL_ERROR_SIZE];
	uint64_t started_us;
	uv_poll_t poll;
	uv_timer_t timer; /* the heartbeat */
	uv_timer_t kick;  /* work that must not run inside a call */
	unsigned handles; /* open libuv handles */
};

static void turn(struct socket *socket);

/* --- the end --- */

static void on_handle_closed(uv_handle_t *handle)
{
	struct socket *socket = handle->data;
	if (--socket->handles)
		return;
	outbox_deinit(&socket->outbox);
	free(socket);
}

static void close_handle(struct socket *socket, uv_handle_t *handle)
{
	handle->data = socket;
	uv_close(handle, on_handle_closed);
}

static void wipe_headers(struct socket *socket)
{
	for (struct curl_slist *line = socket->headers; line; line = line->next)
		secret_wipe(line->data, strlen(line->data));
	curl_slist_free_all(socket->headers);
	socket->headers = NULL;
}

/* The connection goes; the handles of libuv stay until socket_close. */
static void disconnect(struct socket *socket)
{
	if (socket->polling)
		uv_poll_stop(&socket->poll);
	uv_timer_stop(&socket->timer);
	uv_timer_stop(&socket->kick);
	if (!socket->transfer.easy)
		return;
	/* libcurl closes the descriptor, so libuv must have let go of it. */
	if (socket->polling) {
		socket->polling = false;
		close_handle(socket, (uv_handle_t *)&socket->poll);
	}
	curl_transfer_stop(socket->options.driver, &socket->transfer);
	curl_easy_cleanup(socket->transfer.easy);
	socket->transfer.easy = NULL;
	wipe_headers(socket);
}

static void observe_closed(const struct socket *socket, bool by_us)
{
	const struct sprites_observer *observer = socket->options.observer;
	if (observer && observer->on_closed)
		observer->on_closed(observer->ctx, by_us);
}

static void observe_opened(const struct socket *socket, unsigned status)
{
	const struct sprites_observer *observer = socket->options.observer;
	if (observer && observer->on_opened)
		observer->on_opened(observer->ctx, clock_mono_us() - socket->started_us, status);
}

static void fail(struct socket *socket, const char *reason)
{
	if (socket->state != OPEN)
		return;
	socket->state = ENDED;
	disconnect(socket);
	observe_closed(socket, false);
	socket->events->on_closed(socket->ctx, reason);
}

static void say_goodbye(struct socket *socket)
{
	const char normal[2] = {(char)(CLOSE_NORMAL >> 8), (char)(CLOSE_NORMAL & 0xff)};
	size_t sent;
	if (!socket->outbox.current && socket->send_failed == CURLE_OK)
		(void)curl_ws_send(socket->transfer.easy, normal, sizeof normal, &sent, 0, CURLWS_CLOSE);
}

void socket_close(struct socket *socket)
{
	if (!socket || socket->closed)
		return;
	socket->closed = true;
	if (socket->state == OPEN) {
		say_goodbye(socket);
		observe_closed(socket, true);
	}
	socket->state = ENDED;
	disconnect(socket);
	close_handle(socket, (uv_handle_t *)&socket->timer);
	close_handle(socket, (uv_handle_t *)&socket->kick);
}

/* --- sending --- */

static unsigned flags_of(enum outbox_kind kind)
{
	static const unsigned flags[] = {
		[OUTBOX_TEXT] = CURLWS_TEXT, [OUTBOX_BINARY] = CURLWS_BINARY, [OUTBOX_PING] = CURLWS_PING, [OUTBOX_PONG] = CURLWS_PONG};
	return flags[kind];
}

/* Hands over what the network takes. CURLE_AGAIN is success: the rest goes when the socket is writable. */
static CURLcode flush(struct socket *socket)
{
	struct outbox_piece piece;
	socket->want_write = false;
	while (outbox_next(&socket->outbox, &piece)) {
		size_t sent = 0;
		CURLcode code = curl_ws_send(socket->transfer.easy, piece.bytes.data, piece.bytes.len, &sent, 0, flags_of(piece.kind));
		if (code != CURLE_OK && code != CURLE_AGAIN)
			return code;
		if (code == CURLE_OK)
			outbox_sent(&socket->outbox, sent);
		if (code == CURLE_AGAIN || sent < piece.bytes.len) {
			socket->want_write = true;
			return CURLE_OK;
		}
	}
	return CURLE_OK;
}

static void on_poll(uv_poll_t *poll, int status, int events);

static void watch(struct socket *socket)
{
	int events = (socket->paused ? 0 : UV_READABLE) | (socket->want_write ? UV_WRITABLE : 0);
	if (!socket->polling || events == socket->watched)
		return;
	socket->watched = events;
	if (events)
		(void)uv_poll_start(&socket->poll, events, on_poll);
	else
		uv_poll_stop(&socket->poll);
}

static void on_kick(uv_timer_t *timer)
{
	turn(timer->data);
}

static void schedule_turn(struct socket *socket)
{
	if (!uv_is_active((uv_handle_t *)&socket->kick))
		uv_timer_start(&socket->kick, on_kick, 0, 0);
}

int socket_send(struct socket *socket, enum frame_message message, struct slice first, struct slice second)
{
	if (socket->state != OPEN || socket->send_failed != CURLE_OK)
		return SOCKET_E_CLOSED;
	enum outbox_kind kind = message == FRAME_MESSAGE_TEXT ? OUTBOX_TEXT : OUTBOX_BINARY;
	int r = outbox_push(&socket->outbox, kind, first, second);
	if (r != 0)
		return r == OUTBOX_E_FULL ? SOCKET_E_FULL : r;
	socket->drain_due = true;
	if (!socket->want_write) {
		socket->send_failed = flush(socket);
		/* The end of the queue and a failure are told in a turn, where callbacks may run. */
		schedule_turn(socket);
	}
	watch(socket);
	return 0;
}

const char *socket_version(const struct socket *socket)
{
	return socket->handshake.version;
}

uint64_t socket_queued(const struct socket *socket)
{
	return socket->outbox.pushed;
}

uint64_t socket_handed(const struct socket *socket)
{
	return socket->outbox.handed;
}

size_t socket_unsent(const struct socket *socket)
{
	return socket->outbox.bytes;
}

void socket_drop_unsent(struct socket *socket)
{
	outbox_drop(&socket->outbox);
}

/* Sends what waits. A failure ends only the sending: the peer's last words may be here already. */
static void flush_waiting(struct socket *socket)
{
	if (socket->send_failed == CURLE_OK)
		socket->send_failed = flush(socket);
	if (socket->send_failed != CURLE_OK) {
		outbox_deinit(&socket->outbox);
		socket->want_write = socket->drain_due = false;
	} else if (socket->drain_due && !socket->outbox.bytes) {
		socket->drain_due = false;
		socket->events->on_drained(socket->ctx);
	}
}

/* --- receiving --- */

static void closed_by_peer(struct socket *socket)
{
	struct slice payload = slice_of(socket->control, socket->control_len);
	size_t sent;
	if (!socket->outbox.current && socket->send_failed == CURLE_OK)
		(void)curl_ws_send(socket->transfer.easy, payload.data, payload.len, &sent, 0, CURLWS_CLOSE);
	if (payload.len < 2) {
		fail(socket, "the server closed the connection without a close code");
		return;
	}
	unsigned code = (unsigned)(unsigned char)payload.data[0] << 8 | (unsigned char)payload.data[1];
	struct slice text = slice_from(payload, 2);
	snprintf(socket->reason, sizeof socket->reason, "the server closed the connection: %u%s%.*s", code, text.len ? " " : "",
		 SLICE_FMT(text));
	fail(socket, socket->reason);
}

static void control_frame(struct socket *socket, unsigned flags, struct slice bytes, bool first, bool end)
{
	if (first)
		socket->control_len = 0;
	if (bytes.len > sizeof socket->control - socket->control_len) {
		fail(socket, "a control frame is longer than RFC 6455 allows");
		return;
	}
	if (bytes.len)
		memcpy(socket->control + socket->control_len, bytes.data, bytes.len);
	socket->control_len += bytes.len;
	if (!end)
		return;
	if (flags & CURLWS_CLOSE)
		closed_by_peer(socket);
	else if ((flags & CURLWS_PING) &&
		 outbox_push(&socket->outbox, OUTBOX_PONG, slice_of(socket->control, socket->control_len), (struct slice){0}) < 0)
		fail(socket, "out of memory");
}

static void lost(struct socket *socket, CURLcode code)
{
	/* libcurl cannot tell an orderly end from a reset here. */
	if (code == CURLE_GOT_NOTHING)
		snprintf(socket->reason, sizeof socket->reason, "the connection ended without a close frame");
	else
		snprintf(socket->reason, sizeof socket->reason, "the connection broke: %s",
			 socket->curl_error[0] ? socket->curl_error : curl_easy_strerror(code));
	fail(socket, socket->reason);
}

/* One read. False when there is no more to do now: nothing there, paused, or the connection is gone. */
static bool receive(struct socket *socket, char *buffer)
{
	const struct curl_ws_frame *meta;
	size_t len = 0;
	socket->curl_error[0] = '\0';
	CURLcode code = curl_ws_recv(socket->transfer.easy, buffer, READ_BYTES, &len, &meta);
	if (code == CURLE_AGAIN)
		return false;
	if (code != CURLE_OK || !meta) {
		lost(socket, code);
		return false;
	}
	heartbeat_heard(&socket->heartbeat, clock_mono_us());
	unsigned flags = (unsigned)meta->flags;
	bool first = meta->offset == 0, end = meta->bytesleft == 0;
	struct slice bytes = slice_of(buffer, len);
	if (flags & (CURLWS_TEXT | CURLWS_BINARY))
		socket->events->on_message(socket->ctx, flags & CURLWS_TEXT ? FRAME_MESSAGE_TEXT : FRAME_MESSAGE_BINARY, bytes,
					   end && !(flags & CURLWS_CONT));
	else
		control_frame(socket, flags, bytes, first, end);
	return socket->state == OPEN && !socket->paused;
}

/* libcurl holds bytes that no readiness shows, so it is read until it has no more (CURLE_AGAIN). False when others have their
 * turn first. */
static bool drain(struct socket *socket)
{
	char buffer[READ_BYTES];
	for (unsigned reads = 0; reads < READS_PER_TURN; reads++) {
		if (!receive(socket, buffer))
			return true;
	}
	schedule_turn(socket);
	return false;
}

static void turn(struct socket *socket)
{
	if (socket->state == OPEN)
		flush_waiting(socket);
	if (socket->state == OPEN && !socket->paused && drain(socket) && socket->state == OPEN && !socket->paused &&
	    socket->send_failed != CURLE_OK) {
		snprintf(socket->reason, sizeof socket->reason, "sending failed: %s", curl_easy_strerror(socket->send_failed));
		fail(socket, socket->reason);
	}
	/* Reading may have queued a pong. */
	if (socket->state == OPEN && socket->outbox.pong)
		flush_waiting(socket);
	if (socket->state == OPEN)
		watch(socket);
}

static void on_poll(uv_poll_t *poll, int status, int events UNUSED)
{
	struct socket *socket = poll->data;
	/* After an error libuv does not watch any more; what can still be read is read, and libcurl knows the reason.
	 */
	if (status < 0)
		socket->watched = 0;
	turn(socket);
	if (status < 0 && socket->state == OPEN && !socket->paused)
		fail(socket, "the connection broke");
}

void socket_pause(struct socket *socket)
{
	if (socket->paused || socket->state == ENDED)
		return;
	socket->paused = true;
	heartbeat_pause(&socket->heartbeat, true, clock_mono_us());
	watch(socket);
}

void socket_resume(struct socket *socket)
{
	if (!socket->paused || socket->state == ENDED)
		return;
	socket->paused = false;
	heartbeat_pause(&socket->heartbeat, false, clock_mono_us());
	watch(socket);
	if (socket->state == OPEN)
		schedule_turn(socket);
}

/* --- the heartbeat --- */

static void on_timer(uv_timer_t *timer)
{
	struct socket *socket = timer->data;
	uint64_t now_us = clock_mono_us(), next_us;
	enum heartbeat_action action = heartbeat_step(&socket->heartbeat, now_us, &next_us);
	if (action == HEARTBEAT_DEAD) {
		snprintf(socket->reason, sizeof socket->reason, "nothing was heard from the server for %u s",
			 socket->options.dead_after_ms / 1000);
		fail(socket, socket->reason);
		return;
	}
	uv_timer_start(timer, on_timer, (next_us - now_us) / 1000 + 1, 0);
	if (action != HEARTBEAT_PING)
		return;
	if (outbox_push(&socket->outbox, OUTBOX_PING, (struct slice){0}, (struct slice){0}) == 0)
		turn(socket);
}

/* --- opening --- */

static void refuse(struct socket *socket, unsigned status, const char *reason)
{
	long sent = 0;
	curl_off_t retry_after = 0;
	curl_easy_getinfo(socket->transfer.easy, CURLINFO_REQUEST_SIZE, &sent);
	curl_easy_getinfo(socket->transfer.easy, CURLINFO_RETRY_AFTER, &retry_after);
	struct socket_refusal refusal = {
		.status = status,
		.request_sent = sent > 0,
		.from_agent = socket->handshake.from_agent,
		.version = socket->handshake.version,
		.retry_after_ms = retry_after > 0 ? (uint64_t)retry_after * 1000 : 0,
		.reason = reason,
	};
	socket->state = ENDED;
	disconnect(socket);
	observe_opened(socket, status);
	socket->events->on_refused(socket->ctx, &refusal);
}

static const char *watch_connection(struct socket *socket)
{
	curl_socket_t fd = CURL_SOCKET_BAD;
	curl_easy_getinfo(socket->transfer.easy, CURLINFO_ACTIVESOCKET, &fd);
	if (fd == CURL_SOCKET_BAD)
		return "the connection was lost right after the handshake";
	if (uv_poll_init_socket(socket->options.loop, &socket->poll, fd) < 0)
		return "the connection cannot be watched";
	socket->poll.data = socket;
	socket->polling = true;
	socket->handles++;
	return NULL;
}

static void on_done(struct curl_transfer *transfer, CURLcode result)
{
	struct socket *socket = transfer->ctx;
	long status = 0;
	curl_easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &status);
	if (result != CURLE_OK || status != 101) {
		if (status)
			snprintf(socket->reason, sizeof socket->reason, "the WebSocket handshake was answered %ld", status);
		else
			snprintf(socket->reason, sizeof socket->reason, "the WebSocket handshake failed: %s",
				 socket->curl_error[0] ? socket->curl_error : curl_easy_strerror(result));
		refuse(socket, (unsigned)status, socket->reason);
		return;
	}
	const char *wrong = handshake_check(&socket->handshake);
	if (!wrong)
		wrong = watch_connection(socket);
	if (wrong) {
		/* Not the server's answer to our request, whatever its status. */
		refuse(socket, 0, wrong);
		return;
	}
	wipe_headers(socket);
	socket->state = OPEN;
	uint64_t now_us = clock_mono_us();
	heartbeat_init(&socket->heartbeat, (uint64_t)socket->options.ping_interval_ms * 1000,
		       (uint64_t)socket->options.dead_after_ms * 1000, now_us);
	if (socket->paused)
		heartbeat_pause(&socket->heartbeat, true, now_us);
	uv_timer_start(&socket->timer, on_timer, 0, 0);
	watch(socket);
	schedule_turn(socket); /* frames that came with the 101 are in libcurl already */
	observe_opened(socket, 101);
	socket->events->on_open(socket->ctx);
}

static size_t on_header(char *data, size_t size, size_t count, void *ctx)
{
	struct socket *socket = ctx;
	handshake_header(&socket->handshake, slice_of(data, size * count));
	return size * count;
}

static int add_header(struct socket *socket, const char *name, struct slice value)
{
	/* One append, so that no copy of a secret is left behind by a buffer that grew. */
	CLEANUP(buf_deinit) struct buf line = BUF_MAX(8192);
	int r = buf_printf(&line, "%s: %.*s", name, SLICE_FMT(value));
	struct curl_slist *longer = r == 0 ? curl_slist_append(socket->headers, buf_peek(&line).data) : NULL;
	if (line.data)
		secret_wipe(line.data, line.cap);
	if (!longer)
		return r < 0 ? r : -ENOMEM;
	socket->headers = longer;
	return 0;
}

static int add_token(struct socket *socket)
{
	CLEANUP(buf_deinit) struct buf value = BUF_MAX(8192);
	int r = buf_printf(&value, "Bearer %.*s", SLICE_FMT(secret_peek(socket->options.token)));
	if (r == 0)
		r = add_header(socket, "Authorization", buf_peek(&value));
	if (value.data)
		secret_wipe(value.data, value.cap);
	return r;
}

/* libcurl reads on, into memory without a bound, as long as each of its reads of 64 KiB is filled: faster than it is emptied, if the peer is
 * fast. A TLS record never fills one; without TLS no more than this is there to be read. */
static int bound_reads(void *ctx UNUSED, curl_socket_t fd, curlsocktype purpose UNUSED)
{
	int bytes = READ_BYTES / 2; /* which the kernel doubles, for its own bookkeeping too */
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
	return CURL_SOCKOPT_OK;
}

static int set_options(struct socket *socket, const char *url)
{
	CURL *easy = socket->transfer.easy;
	int r = curl_set_common(easy);
	if (r == 0)
		r = add_token(socket);
	if (r == 0)
		r = add_header(socket, "Sec-WebSocket-Key", slice_str(socket->handshake.key));
	if (r == 0)
		r = add_header(socket, "User-Agent", SLICE("spritegate"));
	if (r < 0)
		return r;
	CURLcode code = curl_easy_setopt(easy, CURLOPT_URL, url);
	if (code == CURLE_OK)
		code = curl_easy_setopt(easy, CURLOPT_CONNECT_ONLY, 2L);
	if (code == CURLE_OK)
		code = curl_easy_setopt(easy, CURLOPT_WS_OPTIONS, (long)CURLWS_NOAUTOPONG);
	if (code == CURLE_OK && slice_has_prefix(slice_str(url), SLICE("ws://")))
		code = curl_easy_setopt(easy, CURLOPT_SOCKOPTFUNCTION, bound_reads);
	if (code == CURLE_OK)
		code = curl_easy_setopt(easy, CURLOPT_HTTPHEADER, socket->headers);
	if (code == CURLE_OK)
		code = curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header);
	if (code == CURLE_OK)
		code = curl_easy_setopt(easy, CURLOPT_HEADERDATA, (void *)socket);
	if (code == CURLE_OK)
		code = curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, socket->curl_error);
	if (code == CURLE_OK)
		code = curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)socket->options.connect_timeout_ms);
	if (code == CURLE_OK)
		code = curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)socket->options.handshake_timeout_ms);
	return code == CURLE_OK ? 0 : code == CURLE_OUT_OF_MEMORY ? -ENOMEM : -EIO;
}

int socket_open(const struct socket_options *options, const char *url, const struct socket_events *events, void *ctx, struct socket **out)
{
	struct socket *socket = calloc(1, sizeof *socket);
	if (!socket)
		return -ENOMEM;
	socket->options = *options;
	socket->events = events;
	socket->ctx = ctx;
	socket->started_us = clock_mono_us();
	outbox_init(&socket->outbox, options->max_unsent);
	uv_timer_init(options->loop, &socket->timer);
	uv_timer_init(options->loop, &socket->kick);
	socket->timer.data = socket->kick.data = socket;
	socket->handles = 2;
	socket->transfer = (struct curl_transfer){.easy = curl_easy_init(), .done = on_done, .ctx = socket};
	int r = socket->transfer.easy ? handshake_init(&socket->handshake) : -ENOMEM;
	if (r == 0)
		r = set_options(socket, url);
	if (r == 0)
		r = curl_transfer_start_kept(options->driver, &socket->transfer);
	if (r < 0) {
		socket_close(socket);
		return r;
	}
	*out = socket;
	return 0;
}
