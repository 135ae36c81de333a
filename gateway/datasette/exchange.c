#include "gateway/datasette/exchange.h"

#include "gateway/base/clock.h"
#include "gateway/datasette/turn.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <utlist.h>

#define SWEEP_MS       250
#define DEFAULT_MS     60000
#define RECEIVE_MAX    (128 * 1024)
#define HEAD_MAX       (256 * 1024) /* a request head is bounded where it comes in */
#define KEEP_MAX       (16 * 1024)
#define READS_PER_TURN 8            /* then others get their turn */
/* A read this large is probably followed by more at once. */
#define READ_AGAIN (32 * 1024)
/* So much unsent body is not left lying until the end of the loop turn. */
#define FLUSH_AT (16 * 1024)

struct exchange {
	struct exchange *prev, *next; /* in the pool's active, dying or free list */
	struct exchange *next_asked;  /* in the list of those that have something to do at the end of the turn */
	struct exchange_pool *pool;
	const struct exchange_events *events; /* NULL once it has ended */
	void *ctx;
	struct connection *connection;
	struct connection_waiter waiter;
	struct response response;
	struct buf head; /* kept until the response begins, for the retry */
	size_t head_sent;
	struct buf out;  /* body bytes, framed */
	enum exchange_body body;
	uint64_t body_left;
	unsigned first_byte_ms, idle_ms;
	uint64_t started_us, connected_us, first_us, progress_ms;
	const char *later; /* why it fails at the end of the turn */
	bool to_head, may_retry, switches, reused, retried;
	bool body_ended;    /* the user has given all of it */
	bool deaf;          /* the other side does not take any more of the request */
	bool paused;        /* on_room gave 0 */
	bool want_writable;
	bool writable_watch;
	bool asked, flush_asked, read_asked;
	bool pulls;         /* the body leaves by exchange_pull() */
	bool hungry;        /* which has found nothing */
	char *into;         /* during exchange_pull(): where body bytes go */
	size_t pulled;
};

struct exchange_pool {
	struct connection_pool *connections;
	uv_loop_t *loop;
	struct exchange *active, *dying, *free, *asked;
	size_t active_count;
	struct turn turn;
	uv_timer_t sweep;
	bool timer_closed, turn_closed;
	char receive[RECEIVE_MAX];
};

const char *exchange_error_name(enum exchange_error error)
{
	static const char *const names[EXCHANGE_ERRORS] = {
		[EXCHANGE_CONNECT] = "connect",     [EXCHANGE_TIMEOUT] = "timeout",   [EXCHANGE_CLOSED] = "closed",
		[EXCHANGE_TRUNCATED] = "truncated", [EXCHANGE_PROTOCOL] = "protocol", [EXCHANGE_INTERNAL] = "internal",
		[EXCHANGE_HEAD] = "head_limit",
	};
	return names[error];
}

static uint64_t now_ms(const struct exchange *exchange)
{
	return uv_now(exchange->pool->loop);
}

static void ask_turn(struct exchange *exchange)
{
	struct exchange_pool *pool = exchange->pool;
	if (!exchange->asked) {
		exchange->asked = true;
		exchange->next_asked = pool->asked;
		pool->asked = exchange;
	}
	turn_ask(&pool->turn);
}

/* --- ending ------------------------------------------------------------------------------------------------------------- */

/* Unlinked now; the memory is used again only after this turn, since a parser or a list walk may still be on the stack. */
static void bury(struct exchange *exchange, bool reusable)
{
	struct exchange_pool *pool = exchange->pool;
	exchange->events = NULL;
	connection_cancel(pool->connections, &exchange->waiter);
	if (exchange->connection)
		connection_release(exchange->connection, reusable);
	exchange->connection = NULL;
	DL_DELETE(pool->active, exchange);
	pool->active_count--;
	DL_APPEND(pool->dying, exchange);
	turn_ask(&pool->turn);
}

static void fail(struct exchange *exchange, enum exchange_error error, const char *detail)
{
	const struct exchange_events *events = exchange->events;
	void *ctx = exchange->ctx;
	struct exchange_failure failure = {.error = error, .detail = detail};
	bury(exchange, false);
	events->on_failed(ctx, &failure);
}

/* For what goes wrong inside a call of the user. */
static void fail_later(struct exchange *exchange, const char *why)
{
	exchange->later = why;
	ask_turn(exchange);
}

static bool request_is_sent(const struct exchange *exchange)
{
	return exchange->head_sent == exchange->head.len && !exchange->out.len && exchange->body_ended;
}

static void finish(struct exchange *exchange, bool clean)
{
	const struct exchange_events *events = exchange->events;
	void *ctx = exchange->ctx;
	bury(exchange, clean && request_is_sent(exchange) && !exchange->deaf && response_keep_alive(&exchange->response));
	events->on_end(ctx);
}

/* The connection is not ours any more. */
static void hand_over(struct exchange *exchange, struct slice early)
{
	if (!request_is_sent(exchange)) {
		fail(exchange, EXCHANGE_PROTOCOL, "it switched protocols before it had the whole request");
		return;
	}
	const struct exchange_events *events = exchange->events;
	void *ctx = exchange->ctx;
	struct connection *connection = TAKE(exchange->connection);
	bury(exchange, false);
	events->on_switched(ctx, &exchange->response.head, connection, early);
}

/* --- sending ------------------------------------------------------------------------------------------------------------- */

static void watch(struct exchange *exchange)
{
	if (connection_watch(exchange->connection, !exchange->paused, exchange->writable_watch) < 0)
		fail_later(exchange, "its connection cannot be watched");
}

static void take_sent(struct exchange *exchange, size_t sent)
{
	size_t head_left = exchange->head.len - exchange->head_sent;
	size_t of_head = sent < head_left ? sent : head_left;
	exchange->head_sent += of_head;
	buf_consume(&exchange->out, sent - of_head);
	exchange->progress_ms = now_ms(exchange);
}

static void flush(struct exchange *exchange)
{
	exchange->flush_asked = false;
	if (!exchange->connection || exchange->deaf)
		return;
	int r = 0;
	while (r == 0 && (exchange->head_sent < exchange->head.len || exchange->out.len)) {
		struct slice head = slice_from(buf_peek(&exchange->head), exchange->head_sent), body = buf_peek(&exchange->out);
		struct iovec pieces[2] = {{.iov_base = (void *)(uintptr_t)head.data, .iov_len = head.len},
					  {.iov_base = (void *)(uintptr_t)body.data, .iov_len = body.len}};
		size_t sent;
		r = connection_send(exchange->connection, pieces, body.len ? 2 : 1, &sent);
		take_sent(exchange, sent);
	}
	if (r == CONNECTION_E_CLOSED) {
		/* An answer may have come before: reading tells. */
		exchange->deaf = true;
		buf_consume(&exchange->out, exchange->out.len);
		ask_turn(exchange);
	}
	bool blocked = r == CONNECTION_E_AGAIN;
	if (blocked != exchange->writable_watch) {
		exchange->writable_watch = blocked;
		watch(exchange);
	}
}

static void ask_flush(struct exchange *exchange)
{
	exchange->flush_asked = true;
	ask_turn(exchange);
}

static void tell_writable(struct exchange *exchange)
{
	if (!exchange->want_writable || (!exchange->deaf && exchange->out.len > EXCHANGE_BUFFER / 2))
		return;
	exchange->want_writable = false;
	if (exchange->events->on_writable)
		exchange->events->on_writable(exchange->ctx);
}

/* --- receiving ------------------------------------------------------------------------------------------------------------ */

static bool ended(const struct exchange *exchange)
{
	return !exchange->events;
}

static void on_interim(void *ctx, const struct response_head *head)
{
	struct exchange *exchange = ctx;
	if (!ended(exchange) && exchange->events->on_interim)
		exchange->events->on_interim(exchange->ctx, head);
}

static void on_head(void *ctx, const struct response_head *head)
{
	struct exchange *exchange = ctx;
	if (!ended(exchange))
		exchange->events->on_head(exchange->ctx, head);
}

static void on_body(void *ctx, struct slice bytes)
{
	struct exchange *exchange = ctx;
	if (ended(exchange))
		return;
	if (exchange->into) {
		/* They are there already, but for the frames of chunks between them. */
		memmove(exchange->into + exchange->pulled, bytes.data, bytes.len);
		exchange->pulled += bytes.len;
		return;
	}
	exchange->events->on_body(exchange->ctx, bytes);
}

static const struct response_events response_events = {.on_interim = on_interim, .on_head = on_head, .on_body = on_body};

static int connect_upstream(struct exchange *exchange, enum connection_want want);

static bool retry(struct exchange *exchange)
{
	if (!exchange->may_retry || !exchange->reused || response_started(&exchange->response))
		return false;
	exchange->retried = true; /* on a fresh connection, so there is no second time */
	exchange->reused = exchange->deaf = exchange->writable_watch = false;
	exchange->head_sent = 0;
	connection_release(exchange->connection, false);
	exchange->connection = NULL;
	if (connect_upstream(exchange, CONNECTION_FRESH) != 0)
		fail(exchange, EXCHANGE_INTERNAL, "it closed the connection, and no other could be had");
	return true;
}

static void on_closed(struct exchange *exchange, bool reset)
{
	if (!response_started(&exchange->response)) {
		if (!retry(exchange))
			fail(exchange, EXCHANGE_CLOSED,
			     reset ? "it reset the connection without an answer" : "it closed the connection without an answer");
		return;
	}
	int r = reset ? -EPROTO : response_eof(&exchange->response);
	if (r == RESPONSE_DONE)
		finish(exchange, false);
	else
		fail(exchange, EXCHANGE_TRUNCATED,
		     reset ? "it reset the connection in the middle of its answer" : exchange->response.error);
}

static void take_bytes(struct exchange *exchange, struct slice bytes)
{
	size_t used;
	if (!response_started(&exchange->response))
		exchange->first_us = clock_mono_us();
	exchange->progress_ms = now_ms(exchange);
	int r = response_feed(&exchange->response, bytes, &used);
	if (ended(exchange))
		return;
	if (r == RESPONSE_DONE && exchange->response.head.status == 101)
		hand_over(exchange, slice_from(bytes, used));
	else if (r == RESPONSE_DONE)
		finish(exchange, used == bytes.len);
	else if (r < 0)
		fail(exchange, response_head_too_large(&exchange->response) ? EXCHANGE_HEAD : EXCHANGE_PROTOCOL, exchange->response.error);
}

static void set_paused(struct exchange *exchange, bool paused)
{
	if (exchange->paused == paused)
		return;
	exchange->paused = paused;
	exchange->progress_ms = now_ms(exchange);
	if (exchange->connection)
		watch(exchange);
}

static void receive(struct exchange *exchange)
{
	struct exchange_pool *pool = exchange->pool;
	exchange->read_asked = false;
	for (int i = 0; i < READS_PER_TURN; i++) {
		size_t room = exchange->events->on_room(exchange->ctx), got;
		bool more, reset;
		if (ended(exchange))
			return;
		if (!room) {
			set_paused(exchange, true);
			return;
		}
		int r = connection_recv(exchange->connection, pool->receive, room < RECEIVE_MAX ? room : RECEIVE_MAX, &got, &more, &reset);
		if (r == CONNECTION_E_AGAIN)
			return;
		if (r == CONNECTION_E_CLOSED) {
			on_closed(exchange, reset);
			return;
		}
		take_bytes(exchange, slice_of(pool->receive, got));
		if (ended(exchange) || (!more && got < READ_AGAIN))
			return;
	}
	/* TLS keeps bytes that no event announces. */
	exchange->read_asked = true;
	ask_turn(exchange);
}

static void on_pullable(struct exchange *exchange)
{
	/* Who is not hungry will look when there is room again. */
	if (!exchange->hungry) {
		set_paused(exchange, true);
		return;
	}
	exchange->hungry = false;
	exchange->events->on_more(exchange->ctx);
}

size_t exchange_pull(struct exchange *exchange, char *into, size_t room)
{
	exchange->pulls = true;
	exchange->pulled = 0;
	while (!ended(exchange) && exchange->connection && !exchange->pulled) {
		size_t got;
		bool more, reset;
		int r = connection_recv(exchange->connection, into, room, &got, &more, &reset);
		if (r == CONNECTION_E_AGAIN) {
			exchange->hungry = true;
			set_paused(exchange, false);
			return 0;
		}
		if (r == CONNECTION_E_CLOSED) {
			on_closed(exchange, reset);
			return 0;
		}
		exchange->into = into;
		take_bytes(exchange, slice_of(into, got));
		exchange->into = NULL;
	}
	return exchange->pulled;
}

static void on_ready(void *ctx, bool readable, bool writable)
{
	struct exchange *exchange = ctx;
	if (writable) {
		flush(exchange);
		tell_writable(exchange);
	}
	if (!readable || ended(exchange) || !exchange->connection)
		return;
	if (exchange->pulls)
		on_pullable(exchange);
	else
		receive(exchange);
}

/* --- connecting ------------------------------------------------------------------------------------------------------------ */

static void use_connection(struct exchange *exchange, struct connection *connection, bool reused)
{
	exchange->connection = connection;
	exchange->reused = reused;
	exchange->connected_us = clock_mono_us();
	exchange->progress_ms = now_ms(exchange);
	connection_set_handler(connection, on_ready, exchange);
	response_begin(&exchange->response, exchange->to_head);
	if (exchange->switches)
		response_allow_switch(&exchange->response);
}

static void on_connection(void *ctx, struct connection *connection, bool reused)
{
	struct exchange *exchange = ctx;
	use_connection(exchange, connection, reused);
	flush(exchange);
	tell_writable(exchange);
}

static void on_no_connection(void *ctx, enum connection_failure failure, const char *detail)
{
	fail(ctx, failure == CONNECTION_REFUSED ? EXCHANGE_CONNECT : EXCHANGE_TIMEOUT, detail);
}

static int connect_upstream(struct exchange *exchange, enum connection_want want)
{
	struct connection *connection;
	exchange->waiter = (struct connection_waiter){.on_ready = on_connection, .on_failed = on_no_connection, .ctx = exchange};
	int r = connection_acquire(exchange->pool->connections, &exchange->waiter, want, &connection);
	if (r == 0 && connection)
		use_connection(exchange, connection, true);
	return r;
}

static int write_head(struct exchange *exchange, const struct exchange_request *request)
{
	int r = buf_append(&exchange->head, request->head);
	if (r == 0 && request->body == EXCHANGE_BODY_LENGTH)
		r = buf_printf(&exchange->head, "Content-Length: %llu\r\n", (unsigned long long)request->length);
	if (r == 0 && request->body == EXCHANGE_BODY_CHUNKED)
		r = buf_append(&exchange->head, SLICE("Transfer-Encoding: chunked\r\n"));
	return r < 0 ? r : buf_append(&exchange->head, SLICE("\r\n"));
}

/* --- what users call -------------------------------------------------------------------------------------------------------- */

static struct exchange *take(struct exchange_pool *pool)
{
	struct exchange *exchange = pool->free;
	if (exchange) {
		pool->free = exchange->next;
		return exchange;
	}
	exchange = calloc(1, sizeof *exchange);
	if (!exchange)
		return NULL;
	exchange->pool = pool;
	buf_init(&exchange->head, HEAD_MAX);
	/* One write may be framed in as many chunks as there are bytes of room: room for the frame of each is kept. */
	buf_init(&exchange->out, EXCHANGE_BUFFER + 64);
	response_init(&exchange->response, &response_events, exchange);
	return exchange;
}

static void trim(struct buf *buf)
{
	if (buf->cap > KEEP_MAX)
		buf_deinit(buf);
	else
		buf_consume(buf, buf->len);
}

static void give_back(struct exchange *exchange)
{
	struct exchange_pool *pool = exchange->pool;
	trim(&exchange->head);
	trim(&exchange->out);
	trim(&exchange->response.text);
	exchange->next = pool->free;
	pool->free = exchange;
}

static void reset(struct exchange *exchange, const struct exchange_request *request)
{
	exchange->connection = NULL;
	exchange->head_sent = 0;
	exchange->body = request->body;
	exchange->body_left = request->length;
	exchange->first_byte_ms = request->first_byte_ms ? request->first_byte_ms : DEFAULT_MS;
	exchange->idle_ms = request->idle_ms ? request->idle_ms : DEFAULT_MS;
	exchange->started_us = clock_mono_us();
	exchange->progress_ms = now_ms(exchange);
	exchange->connected_us = exchange->first_us = 0;
	exchange->later = NULL;
	exchange->to_head = request->to_head;
	exchange->switches = request->switches && request->body == EXCHANGE_BODY_NONE;
	exchange->may_retry = request->may_retry && request->body == EXCHANGE_BODY_NONE;
	exchange->reused = exchange->retried = exchange->deaf = exchange->paused = false;
	exchange->pulls = exchange->hungry = false;
	exchange->want_writable = exchange->writable_watch = exchange->flush_asked = exchange->read_asked = exchange->asked = false;
	exchange->body_ended = request->body == EXCHANGE_BODY_NONE;
}

int exchange_start(struct exchange_pool *pool, const struct exchange_request *request, const struct exchange_events *events, void *ctx,
		   struct exchange **out)
{
	struct exchange *exchange = take(pool);
	if (!exchange)
		return -ENOMEM;
	reset(exchange, request);
	exchange->events = events;
	exchange->ctx = ctx;
	int r = write_head(exchange, request);
	if (r == 0)
		r = connect_upstream(exchange, exchange->may_retry ? CONNECTION_ANY : CONNECTION_CHECKED);
	if (r != 0) {
		exchange->events = NULL;
		give_back(exchange);
		return r == CONNECTION_E_BUSY ? EXCHANGE_E_BUSY : r;
	}
	DL_APPEND(pool->active, exchange);
	pool->active_count++;
	*out = exchange;
	if (exchange->connection && exchange->body_ended)
		flush(exchange);
	else if (exchange->connection)
		ask_flush(exchange);
	return 0;
}

static int frame(struct exchange *exchange, struct slice bytes)
{
	if (exchange->body != EXCHANGE_BODY_CHUNKED)
		return buf_append(&exchange->out, bytes);
	int r = buf_printf(&exchange->out, "%zx\r\n", bytes.len);
	if (r == 0)
		r = buf_append(&exchange->out, bytes);
	return r < 0 ? r : buf_append(&exchange->out, SLICE("\r\n"));
}

/* Bytes that a chunk adds to its data, and the last chunk: always kept free. */
#define FRAME_MAX 32

static size_t free_room(const struct exchange *exchange)
{
	size_t used = exchange->out.len + FRAME_MAX;
	return used < EXCHANGE_BUFFER ? EXCHANGE_BUFFER - used : 0;
}

size_t exchange_write(struct exchange *exchange, struct slice bytes)
{
	size_t taken = 0;
	if (exchange->body == EXCHANGE_BODY_LENGTH && bytes.len > exchange->body_left && !ended(exchange))
		fail_later(exchange, "more body was given than announced");
	while (taken < bytes.len) {
		if (ended(exchange) || exchange->deaf || exchange->later)
			return bytes.len;
		size_t room = free_room(exchange), left = bytes.len - taken;
		size_t n = left < room ? left : room;
		/* No room: the last flush was blocked or there is no connection yet, and either ends in tell_writable(). */
		exchange->want_writable |= !n;
		if (!n)
			return taken;
		if (frame(exchange, slice_of(bytes.data + taken, n)) < 0) {
			fail_later(exchange, "there is no memory for the request");
			return bytes.len;
		}
		taken += n;
		exchange->body_left -= exchange->body == EXCHANGE_BODY_LENGTH ? n : 0;
		if (exchange->out.len >= FLUSH_AT)
			flush(exchange);
		else
			ask_flush(exchange);
	}
	return taken;
}

void exchange_end(struct exchange *exchange)
{
	if (ended(exchange) || exchange->body_ended || exchange->later)
		return;
	exchange->body_ended = true;
	if (exchange->body == EXCHANGE_BODY_LENGTH && exchange->body_left && !exchange->deaf)
		fail_later(exchange, "less body was given than announced");
	else if (exchange->body == EXCHANGE_BODY_CHUNKED && !exchange->deaf && buf_append(&exchange->out, SLICE("0\r\n\r\n")) < 0)
		fail_later(exchange, "there is no memory for the request");
	else
		flush(exchange);
}

void exchange_resume(struct exchange *exchange)
{
	if (ended(exchange) || exchange->pulls || !exchange->paused)
		return;
	set_paused(exchange, false);
	/* TLS may hold bytes already. */
	exchange->read_asked = true;
	ask_turn(exchange);
}

void exchange_set_idle(struct exchange *exchange, unsigned idle_ms)
{
	exchange->idle_ms = idle_ms;
}

void exchange_cancel(struct exchange *exchange)
{
	if (exchange && !ended(exchange))
		bury(exchange, false);
}

struct exchange_timing exchange_timing(const struct exchange *exchange)
{
	return (struct exchange_timing){
		.connect_us = exchange->connected_us ? exchange->connected_us - exchange->started_us : 0,
		.first_byte_us = exchange->first_us ? exchange->first_us - exchange->started_us : 0,
		.reused = exchange->reused,
		.retried = exchange->retried,
	};
}

size_t exchange_pool_active(const struct exchange_pool *pool)
{
	return pool->active_count;
}

/* --- the loop ------------------------------------------------------------------------------------------------------------------ */

static void settle(struct exchange *exchange)
{
	if (exchange->later) {
		fail(exchange, EXCHANGE_INTERNAL, exchange->later);
		return;
	}
	if (exchange->flush_asked)
		flush(exchange);
	tell_writable(exchange);
	if (!ended(exchange) && exchange->read_asked && exchange->connection && !exchange->paused && !exchange->pulls)
		receive(exchange);
}

static void on_turn(void *ctx)
{
	struct exchange_pool *pool = ctx;
	struct exchange *asked = pool->asked;
	pool->asked = NULL;
	while (asked) {
		struct exchange *exchange = asked;
		asked = exchange->next_asked;
		exchange->asked = false;
		if (!ended(exchange))
			settle(exchange);
	}
	/* What was asked for meanwhile keeps its memory until the next turn. */
	while (!pool->asked && pool->dying) {
		struct exchange *exchange = pool->dying;
		DL_DELETE(pool->dying, exchange);
		give_back(exchange);
	}
}

/* Which silence is too long right now; 0 = none. */
static unsigned limit_ms(const struct exchange *exchange, const char **why)
{
	if (!exchange->connection || exchange->paused)
		return 0;
	*why = "it fell silent in the middle of its answer";
	if (response_started(&exchange->response))
		return exchange->idle_ms;
	*why = "it did not answer in time";
	if (exchange->deaf || request_is_sent(exchange))
		return exchange->first_byte_ms;
	*why = "it stopped reading the request";
	return exchange->writable_watch ? exchange->idle_ms : 0;
}

static void on_sweep(uv_timer_t *timer)
{
	struct exchange_pool *pool = timer->data;
	uint64_t now = uv_now(pool->loop);
	for (struct exchange *exchange = pool->active, *next; exchange; exchange = next) {
		const char *why = NULL;
		unsigned limit = limit_ms(exchange, &why);
		next = exchange->next;
		if (!limit || now - exchange->progress_ms < limit)
			continue;
		fail(exchange, EXCHANGE_TIMEOUT, why);
		/* on_failed may have ended others. */
		next = pool->active;
	}
}

struct exchange_pool *exchange_pool_new(struct connection_pool *connections, uv_loop_t *loop)
{
	struct exchange_pool *pool = calloc(1, sizeof *pool);
	if (!pool)
		return NULL;
	pool->connections = connections;
	pool->loop = loop;
	turn_init(&pool->turn, loop, on_turn, pool);
	uv_timer_init(loop, &pool->sweep);
	pool->sweep.data = pool;
	uv_timer_start(&pool->sweep, on_sweep, SWEEP_MS, SWEEP_MS);
	return pool;
}

static void free_pool(struct exchange_pool *pool)
{
	struct exchange *lists[] = {pool->dying, pool->free};
	for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
		for (struct exchange *exchange = lists[i], *next; exchange; exchange = next) {
			next = exchange->next;
			buf_deinit(&exchange->head);
			buf_deinit(&exchange->out);
			response_deinit(&exchange->response);
			free(exchange);
		}
	}
	free(pool);
}

static void on_turn_closed(void *ctx)
{
	struct exchange_pool *pool = ctx;
	pool->turn_closed = true;
	if (pool->timer_closed)
		free_pool(pool);
}

static void on_timer_closed(uv_handle_t *handle)
{
	struct exchange_pool *pool = handle->data;
	pool->timer_closed = true;
	if (pool->turn_closed)
		free_pool(pool);
}

void exchange_pool_free(struct exchange_pool *pool)
{
	if (!pool)
		return;
	turn_close(&pool->turn, on_turn_closed);
	uv_close((uv_handle_t *)&pool->sweep, on_timer_closed);
}
