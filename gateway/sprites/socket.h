/*
 * socket - a WebSocket client connection (RFC 6455) over libcurl, never blocking
 *
 * libcurl connects, speaks TLS and does the framing (CONNECT_ONLY=2); the handshake is checked here, pings are sent and
 * answered here, and nothing is sent while a message is half out (all three because libcurl 8.14 does not, or fails).
 *
 * Owns:       the connection, the queue of unsent messages. Not the driver, not the token.
 * Lifetime:   socket_open … socket_close; memory is given back when the loop has closed the handles.
 * Runs on:    the loop of its driver.
 * Re-entry:   no callback runs inside a call; socket_close() may be called from any callback.
 * Results:    SOCKET_E_FULL, SOCKET_E_CLOSED (not open yet, or not any more), -ENOMEM, -EIO.
 * Bounds:     options.max_unsent bytes wait to be sent (or one larger message); per turn of the loop a bounded number of
 *             reads.
 * Invariants: exactly one of on_refused and on_closed ends it, unless socket_close() came first; on_message only after
 *             on_open.
 */
#pragma once

#include "gateway/base/secret.h"
#include "gateway/curl/curl_driver.h"
#include "gateway/sprites/frames.h"
#include "gateway/sprites/observer.h"

#define SOCKET_E_FULL   1
#define SOCKET_E_CLOSED 2

struct socket;

struct socket_refusal {
	unsigned status;         /* 0 when there was no answer */
	bool request_sent;       /* some of the request had gone to the network */
	bool from_agent;         /* the Sprite itself answered */
	const char *version;     /* … and says to be of this version; "" = not said. Valid during the call */
	uint64_t retry_after_ms; /* 0 = not said */
	const char *reason;      /* a plain sentence, valid during the call */
};

struct socket_events {
	void (*on_open)(void *ctx);
	void (*on_refused)(void *ctx, const struct socket_refusal *refusal);
	/* The next bytes of a message; `end` with its last ones. Valid during the call. */
	void (*on_message)(void *ctx, enum frame_message message, struct slice bytes, bool end);
	/* Everything queued was taken by the network. */
	void (*on_drained)(void *ctx);
	/* Gone. `reason` has the close code and its text where there were any; valid during the call. */
	void (*on_closed)(void *ctx, const char *reason);
};

struct socket_options {
	uv_loop_t *loop;
	struct curl_driver *driver;
	const struct secret *token; /* sent as Bearer; borrowed during socket_open */
	unsigned connect_timeout_ms;
	unsigned handshake_timeout_ms; /* everything up to the 101 */
	unsigned ping_interval_ms;
	unsigned dead_after_ms; /* without a byte from the peer */
	size_t max_unsent;
	const struct sprites_observer *observer; /* borrowed for the life of the socket; may be NULL */
};

/* `url` begins with ws:// or wss://. The options are copied, `events` must outlive the socket. */
MUST_CHECK int socket_open(const struct socket_options *options, const char *url, const struct socket_events *events, void *ctx,
			   struct socket **socket);

/* What the Sprite that answered says to be; "" = not said. Valid as long as the socket. */
const char *socket_version(const struct socket *socket);

/* Queues one message made of two parts (the second may be empty) and sends what the network takes at once. */
MUST_CHECK int socket_send(struct socket *socket, enum frame_message message, struct slice first, struct slice second);

/* How many messages were queued, and of how many of them at least the first byte was handed to libcurl. */
uint64_t socket_queued(const struct socket *socket);
uint64_t socket_handed(const struct socket *socket);

/* Bytes that wait to be sent. */
size_t socket_unsent(const struct socket *socket);

/* Forgets messages of which nothing was handed over. */
void socket_drop_unsent(struct socket *socket);

/* Back pressure: while paused nothing is read, and what libcurl holds is not passed on. */
void socket_pause(struct socket *socket);
void socket_resume(struct socket *socket);

/* Says goodbye if it can do so at once, and ends the connection. NULL is allowed. */
void socket_close(struct socket *socket);
