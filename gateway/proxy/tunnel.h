/*
 * tunnel - the bytes of a WebSocket between a client and Datasette, both ways, with back pressure
 *
 * A tunnel has a place from the request on (tunnel_new), gets Datasette's side with the 101 (tunnel_take) and the client's when that has
 * left (tunnel_open). It ends with both directions, with a side that fails, when nothing has moved for too long, or by the drain; the
 * request is ended or aborted then. Nothing in the bytes is looked at.
 *
 * Owns:       Datasette's connection, bytes that a side does not take yet. Not the request.
 * Lifetime:   tunnel_new … tunnel_free, at the latest when its request has finished; tunnels_free when there is none.
 * Runs on:    one loop.
 * Re-entry:   no callback.
 * Bounds:     options.max tunnels; TUNNEL_BUFFER bytes each way, and at first what the client sent ahead of the 101.
 * Invariants: a side is not read while the other one does not take what came before.
 */
#pragma once

#include "gateway/datasette/connection.h"
#include "gateway/http/upgraded.h"

#define TUNNEL_BUFFER (64 * 1024)

struct tunnel;
struct tunnels;

struct tunnels_options {
	uv_loop_t *loop;
	unsigned max;
	unsigned idle_ms;  /* without a byte in either direction */
	unsigned drain_ms; /* what they have left after tunnels_drain() */
};

struct tunnels *tunnels_new(const struct tunnels_options *options);
void tunnels_free(struct tunnels *tunnels);

/* From now on there are no new ones. */
void tunnels_drain(struct tunnels *tunnels);

/* Those that carry bytes. */
size_t tunnels_open(const struct tunnels *tunnels);

enum tunnel_end {
	TUNNEL_CLIENT,    /* the client's side ended first, or failed */
	TUNNEL_DATASETTE, /* so did Datasette's */
	TUNNEL_IDLE,
	TUNNEL_DRAIN,
	TUNNEL_GATEWAY,   /* the gateway stopped, or had no memory */
	TUNNEL_ENDS,      /* how many there are */
};

/* "client", "datasette", … for metrics. */
const char *tunnel_end_name(enum tunnel_end end);

/* NULL: there are too many, or it drains, or no memory. */
struct tunnel *tunnel_new(struct tunnels *tunnels, struct http_request *request);
/* NULL is allowed. */
void tunnel_free(struct tunnel *tunnel);

/* Takes the connection; `early` came after the 101. -ENOMEM: the connection is closed. */
MUST_CHECK int tunnel_take(struct tunnel *tunnel, struct connection *connection, struct slice early);

/* From the request's sink: on_upgraded, on_ready, on_gone. */
void tunnel_open(struct tunnel *tunnel, struct slice early);
void tunnel_ready(struct tunnel *tunnel, bool readable, bool writable);
void tunnel_stop(struct tunnel *tunnel);

/* Has it carried anything, or could it have? Then how it ended. */
bool tunnel_ended(const struct tunnel *tunnel, enum tunnel_end *end);
