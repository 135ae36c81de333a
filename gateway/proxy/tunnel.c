#include "gateway/proxy/tunnel.h"

#include "gateway/base/buf.h"
#include "gateway/datasette/turn.h"

#include <errno.h>
#include <stdlib.h>
#include <utlist.h>

#define SWEEP_MS       250
#define READS_PER_TURN 8 /* then others get their turn */
/* What a client had sent ahead is at most half of libmicrohttpd's pool of its connection. */
#define WAITING_MAX (512 * 1024)
/* Once one side has ended the other one is waited for no longer than this, without a byte. */
#define HALF_CLOSED_MS 30000
/* A side that takes nothing while the other one is silent is idle: the orderly end comes before the kernel's. */
#define VANISHED_MS 3000

/* One direction. */
struct way {
	struct buf waiting; /* what the other side has not taken; nothing more is read before it has */
	bool ended;         /* the side that is read has */
	bool told;          /* and the other one has been told */
};

struct tunnel {
	struct tunnel *prev, *next;
	struct tunnels *tunnels;
	struct http_request *request;
	struct connection *connection; /* NULL before the 101, and when it is over */
	struct way up, down;           /* to Datasette, to the client */
	uint64_t moved_ms;
	enum tunnel_end end;
	bool opened, over;
	bool again; /* bytes may be there that no event will announce */
};

struct tunnels {
	struct tunnels_options options;
	struct tunnel *list;
	size_t count, open;
	uv_timer_t sweep;
	struct turn turn;
	uint64_t drain_ms; /* when they are ended */
	bool draining, timer_closed, turn_closed;
	char bytes[TUNNEL_BUFFER];
};

const char *tunnel_end_name(enum tunnel_end end)
{
	static const char *const names[TUNNEL_ENDS] = {
		[TUNNEL_CLIENT] = "client", [TUNNEL_DATASETTE] = "datasette", [TUNNEL_IDLE] = "idle",
		[TUNNEL_DRAIN] = "drain",   [TUNNEL_GATEWAY] = "gateway",
	};
	return names[end];
}

/* --- ending --------------------------------------------------------------------------------------------------------------- */

static void close_datasette(struct tunnel *tunnel)
{
	connection_release(TAKE(tunnel->connection), false);
	buf_deinit(&tunnel->up.waiting);
	buf_deinit(&tunnel->down.waiting);
	tunnel->tunnels->open -= tunnel->opened && !tunnel->over;
	tunnel->over = true;
}

static void note_end(struct tunnel *tunnel, enum tunnel_end end)
{
	if (tunnel->end == TUNNEL_ENDS)
		tunnel->end = end;
}

static void finish(struct tunnel *tunnel, enum tunnel_end end, bool cut)
{
	if (tunnel->over)
		return;
	note_end(tunnel, end);
	close_datasette(tunnel);
	/* The request is ended later in this turn; what happens to the client until then is nobody's business. */
	int r UNUSED = tunnel->opened ? http_upgraded_watch(tunnel->request, false, false) : 0;
	if (cut || !tunnel->opened)
		http_request_abort(tunnel->request);
	else
		http_request_end(tunnel->request);
}

/* --- moving bytes ----------------------------------------------------------------------------------------------------------- */

enum moved { MOVED, BLOCKED, CLOSED, RESET };

/* Both sides name their results alike. */
_Static_assert(HTTP_UPGRADED_E_AGAIN == CONNECTION_E_AGAIN, "one result has one number");

static enum moved receive(struct tunnel *tunnel, const struct way *way, size_t *got)
{
	struct tunnels *tunnels = tunnel->tunnels;
	bool reset = false, more = false;
	int r;
	if (way == &tunnel->up)
		r = http_upgraded_recv(tunnel->request, tunnels->bytes, sizeof tunnels->bytes, got, &reset);
	else
		r = connection_recv(tunnel->connection, tunnels->bytes, sizeof tunnels->bytes, got, &more, &reset);
	if (r == 0)
		return MOVED;
	return r == CONNECTION_E_AGAIN ? BLOCKED : reset ? RESET : CLOSED;
}

static enum moved send_some(struct tunnel *tunnel, const struct way *way, struct slice bytes, size_t *sent)
{
	struct iovec piece = {.iov_base = (void *)(uintptr_t)bytes.data, .iov_len = bytes.len};
	int r = way == &tunnel->up ? connection_send(tunnel->connection, &piece, 1, sent)
				   : http_upgraded_send(tunnel->request, bytes, sent);
	if (r == 0)
		tunnel->moved_ms = uv_now(tunnel->tunnels->options.loop);
	return r == 0 ? MOVED : r == CONNECTION_E_AGAIN ? BLOCKED : RESET;
}

/* As much as is taken now. */
static enum moved deliver(struct tunnel *tunnel, struct way *way, struct slice *bytes)
{
	enum moved moved = MOVED;
	while (moved == MOVED && bytes->len) {
		size_t sent;
		moved = send_some(tunnel, way, *bytes, &sent);
		*bytes = slice_from(*bytes, sent);
	}
	return moved;
}

static enum moved deliver_waiting(struct tunnel *tunnel, struct way *way)
{
	struct slice bytes = buf_peek(&way->waiting);
	size_t before = bytes.len;
	enum moved moved = deliver(tunnel, way, &bytes);
	buf_consume(&way->waiting, before - bytes.len);
	/* Those that rest keep no memory. */
	if (!way->waiting.len)
		buf_deinit(&way->waiting);
	return moved;
}

static enum tunnel_end source_of(const struct tunnel *tunnel, const struct way *way)
{
	return way == &tunnel->up ? TUNNEL_CLIENT : TUNNEL_DATASETTE;
}

static enum tunnel_end sink_of(const struct tunnel *tunnel, const struct way *way)
{
	return way == &tunnel->up ? TUNNEL_DATASETTE : TUNNEL_CLIENT;
}

/* Of the side that is read; when the other one fails the tunnel is finished here. */
static enum moved carry_on(struct tunnel *tunnel, struct way *way)
{
	size_t got;
	enum moved moved = receive(tunnel, way, &got);
	if (moved != MOVED)
		return moved;
	struct slice bytes = slice_of(tunnel->tunnels->bytes, got);
	moved = deliver(tunnel, way, &bytes);
	if (moved == RESET)
		finish(tunnel, sink_of(tunnel, way), true);
	else if (moved == BLOCKED && buf_append(&way->waiting, bytes) < 0)
		finish(tunnel, TUNNEL_GATEWAY, true);
	return tunnel->over ? BLOCKED : moved;
}

static void tell_end(struct tunnel *tunnel, struct way *way)
{
	if (way->told)
		return;
	way->told = true;
	if (way == &tunnel->down)
		http_upgraded_end(tunnel->request);
	else if (!connection_end(tunnel->connection))
		finish(tunnel, TUNNEL_CLIENT, false);
	if (tunnel->up.told && tunnel->down.told)
		finish(tunnel, TUNNEL_GATEWAY, false);
}

static void pump(struct tunnel *tunnel, struct way *way)
{
	for (int i = 0; i < READS_PER_TURN; i++) {
		if (tunnel->over)
			return;
		enum moved moved = deliver_waiting(tunnel, way);
		if (moved == RESET)
			finish(tunnel, sink_of(tunnel, way), true);
		if (moved != MOVED)
			return;
		if (way->ended) {
			tell_end(tunnel, way);
			return;
		}
		moved = carry_on(tunnel, way);
		if (moved == BLOCKED)
			return;
		if (moved == RESET) {
			finish(tunnel, source_of(tunnel, way), true);
			return;
		}
		if (moved == CLOSED) {
			note_end(tunnel, source_of(tunnel, way));
			way->ended = true;
			tunnel->moved_ms = uv_now(tunnel->tunnels->options.loop);
		}
	}
	tunnel->again = true;
	turn_ask(&tunnel->tunnels->turn);
}

static bool is_read(const struct way *way)
{
	return !way->ended && !way->waiting.len;
}

static void watch(struct tunnel *tunnel)
{
	if (tunnel->over)
		return;
	int r = http_upgraded_watch(tunnel->request, is_read(&tunnel->up), tunnel->down.waiting.len);
	if (r == 0)
		r = connection_watch(tunnel->connection, is_read(&tunnel->down), tunnel->up.waiting.len);
	if (r < 0)
		finish(tunnel, TUNNEL_GATEWAY, true);
}

/* `from` is what this side sends, `to` what it gets. A side that is not read says readable only when it has failed. */
static void on_side(struct tunnel *tunnel, struct way *from, struct way *to, bool readable, bool writable)
{
	if (tunnel->over)
		return;
	if (readable && !is_read(from)) {
		finish(tunnel, source_of(tunnel, from), true);
		return;
	}
	if (writable)
		pump(tunnel, to);
	if (readable)
		pump(tunnel, from);
	watch(tunnel);
}

static void on_datasette(void *ctx, bool readable, bool writable)
{
	struct tunnel *tunnel = ctx;
	on_side(tunnel, &tunnel->down, &tunnel->up, readable, writable);
}

void tunnel_ready(struct tunnel *tunnel, bool readable, bool writable)
{
	on_side(tunnel, &tunnel->up, &tunnel->down, readable, writable);
}

static void on_turn(void *ctx)
{
	struct tunnels *tunnels = ctx;
	struct tunnel *tunnel;
	DL_FOREACH (tunnels->list, tunnel) {
		if (!tunnel->again || tunnel->over)
			continue;
		tunnel->again = false;
		pump(tunnel, &tunnel->up);
		pump(tunnel, &tunnel->down);
		watch(tunnel);
	}
}

/* --- one of them ------------------------------------------------------------------------------------------------------------- */

struct tunnel *tunnel_new(struct tunnels *tunnels, struct http_request *request)
{
	if (tunnels->draining || tunnels->count >= tunnels->options.max)
		return NULL;
	struct tunnel *tunnel = calloc(1, sizeof *tunnel);
	if (!tunnel)
		return NULL;
	tunnel->tunnels = tunnels;
	tunnel->request = request;
	tunnel->end = TUNNEL_ENDS;
	buf_init(&tunnel->up.waiting, WAITING_MAX);
	buf_init(&tunnel->down.waiting, WAITING_MAX);
	DL_APPEND(tunnels->list, tunnel);
	tunnels->count++;
	return tunnel;
}

void tunnel_free(struct tunnel *tunnel)
{
	if (!tunnel)
		return;
	close_datasette(tunnel);
	DL_DELETE(tunnel->tunnels->list, tunnel);
	tunnel->tunnels->count--;
	free(tunnel);
}

int tunnel_take(struct tunnel *tunnel, struct connection *connection, struct slice early)
{
	tunnel->connection = connection;
	tunnel->moved_ms = uv_now(tunnel->tunnels->options.loop);
	connection_detach(connection, tunnel->tunnels->options.idle_ms + VANISHED_MS);
	connection_set_handler(connection, on_datasette, tunnel);
	int r = connection_watch(connection, false, false);
	if (r == 0)
		r = buf_append(&tunnel->down.waiting, early);
	if (r < 0)
		close_datasette(tunnel);
	return r;
}

void tunnel_open(struct tunnel *tunnel, struct slice early)
{
	/* It may have been given up since. */
	if (tunnel->over)
		return;
	tunnel->opened = true;
	http_upgraded_set_silence(tunnel->request, tunnel->tunnels->options.idle_ms + VANISHED_MS);
	tunnel->tunnels->open++;
	if (buf_append(&tunnel->up.waiting, early) < 0) {
		finish(tunnel, TUNNEL_GATEWAY, true);
		return;
	}
	pump(tunnel, &tunnel->up);
	pump(tunnel, &tunnel->down);
	watch(tunnel);
}

void tunnel_stop(struct tunnel *tunnel)
{
	note_end(tunnel, TUNNEL_GATEWAY);
	close_datasette(tunnel);
}

bool tunnel_ended(const struct tunnel *tunnel, enum tunnel_end *end)
{
	*end = tunnel->end == TUNNEL_ENDS ? TUNNEL_GATEWAY : tunnel->end;
	return tunnel->opened;
}

/* --- all of them -------------------------------------------------------------------------------------------------------------- */

static void on_sweep(uv_timer_t *timer)
{
	struct tunnels *tunnels = timer->data;
	uint64_t now = uv_now(tunnels->options.loop);
	struct tunnel *tunnel;
	DL_FOREACH (tunnels->list, tunnel) {
		unsigned most = tunnels->options.idle_ms;
		if ((tunnel->up.ended || tunnel->down.ended) && most > HALF_CLOSED_MS)
			most = HALF_CLOSED_MS;
		if (!tunnel->connection)
			continue;
		if (tunnels->draining && now >= tunnels->drain_ms)
			finish(tunnel, TUNNEL_DRAIN, false);
		else if (now - tunnel->moved_ms >= most)
			finish(tunnel, TUNNEL_IDLE, false);
	}
}

struct tunnels *tunnels_new(const struct tunnels_options *options)
{
	struct tunnels *tunnels = calloc(1, sizeof *tunnels);
	if (!tunnels)
		return NULL;
	tunnels->options = *options;
	turn_init(&tunnels->turn, options->loop, on_turn, tunnels);
	uv_timer_init(options->loop, &tunnels->sweep);
	tunnels->sweep.data = tunnels;
	uv_timer_start(&tunnels->sweep, on_sweep, SWEEP_MS, SWEEP_MS);
	return tunnels;
}

void tunnels_drain(struct tunnels *tunnels)
{
	if (!tunnels->draining)
		tunnels->drain_ms = uv_now(tunnels->options.loop) + tunnels->options.drain_ms;
	tunnels->draining = true;
}

size_t tunnels_open(const struct tunnels *tunnels)
{
	return tunnels->open;
}

static void on_turn_closed(void *ctx)
{
	struct tunnels *tunnels = ctx;
	tunnels->turn_closed = true;
	if (tunnels->timer_closed)
		free(tunnels);
}

static void on_timer_closed(uv_handle_t *timer)
{
	struct tunnels *tunnels = timer->data;
	tunnels->timer_closed = true;
	if (tunnels->turn_closed)
		free(tunnels);
}

void tunnels_free(struct tunnels *tunnels)
{
	if (!tunnels)
		return;
	turn_close(&tunnels->turn, on_turn_closed);
	uv_close((uv_handle_t *)&tunnels->sweep, on_timer_closed);
}
