/*
 * server - the HTTP/1.1 front end of one worker: libmicrohttpd in external epoll mode on a libuv loop
 *
 * Owns:       the listening socket given to it, the daemon, its connections and requests, its loop handles.
 * Lifetime:   http_server_new … http_server_stop, whose on_stopped is the last thing; the server is freed right after.
 * Runs on:    the loop given to it.
 * Re-entry:   on_request and all sinks run from the loop, never inside a call.
 * Results:    NULL / negative = no memory or libmicrohttpd refused to start.
 * Bounds:     options.max_connections connections (beyond, the one that is idle for longest makes room), options.max_in_flight requests
 *             under way (then 503), max_head bytes of head; a client that sends a body or takes an answer at less than
 *             HTTP_SLOW_BYTES_PER_SECOND is cut.
 * Invariants: on_request sees only requests that the guard passed; every request ends in exactly one on_finished of the observer.
 */
#pragma once

#include "gateway/http/census.h"
#include "gateway/http/peer.h"
#include "gateway/http/request.h"

#include <uv.h>

struct http_server;

/* The rate that a client must keep up once its body has been waited for so long in all, or its taking the answer for the idle time. */
#define HTTP_SLOW_BYTES_PER_SECOND 1024
#define HTTP_SLOW_SECONDS          10

/* Connections beyond max_connections that may be on their way out, so that it is crowd.c who chooses. */
#define HTTP_CROWD_SPARE 64

enum http_crowd {
	HTTP_CROWD_IDLE,    /* the one that was idle for longest, to make room */
	HTTP_CROWD_TOTAL,   /* a new one, since none is idle: it was told 503 */
	HTTP_CROWD_ADDRESS, /* a new one of an address that has as many as it may have: it was told 429 */
};

/* Everything here may be NULL. Runs on the loop, for logs and metrics. */
struct http_observer {
	void *ctx;
	/* Every request with a complete head, also those the guard or the server refused. One on_finished follows with the same path. */
	void (*on_begun)(void *ctx, const struct http_head *head);
	/* `refusal` is HTTP_GUARD_OK for those that were not refused. */
	void (*on_finished)(void *ctx, const struct http_head *head, const struct http_summary *summary, enum http_guard_reason refusal);
	/* libmicrohttpd refused bytes that never became a request (or a connection was closed for being slow). */
	void (*on_rejected)(void *ctx);
	/* A connection was closed because there are too many. */
	void (*on_crowded)(void *ctx, enum http_crowd crowd);
};

struct http_server_options {
	uv_loop_t *loop;
	int listen_fd; /* taken, also on failure */
	size_t max_head;            /* 32 KiB; up to 128 KiB */
	uint64_t max_body;          /* ceiling of every http_request_read() */
	unsigned max_connections;
	struct census *census;         /* of all servers; borrowed; NULL = no limit of one address */
	const struct peer_set *exempt; /* peers that are not counted in it; borrowed */
	unsigned max_in_flight;
	bool upgrades;              /* http_request_upgrade() may be used; costs two system calls a request */
	unsigned head_timeout_ms;   /* 10 s for a whole head */
	unsigned idle_timeout_ms;   /* 75 s between requests, and for a client that does not read */
	unsigned body_timeout_ms;   /* 30 s without a byte of an unfinished body */
	void (*on_request)(void *ctx, struct http_request *request);
	void *ctx;
	struct http_observer observer;
};

/* Options with the defaults above; loop, listen_fd and on_request are left to the caller. */
void http_server_defaults(struct http_server_options *options);

struct http_server *http_server_new(const struct http_server_options *options);

/* From now on every answer says `Connection: close`. */
void http_server_drain(struct http_server *server);

/* No more connections can begin, and idle ones are closed; those that have begun are still accepted. Implies http_server_drain(). */
void http_server_refuse(struct http_server *server);

/* Closes the listening socket, some time after http_server_refuse(). Requests under way go on; a connection without any has a moment left to
 * send its first. Not done, and false, while connections wait to be accepted, which it would reset. */
MUST_CHECK bool http_server_quiesce(struct http_server *server);

/* Cuts what is left (on_gone, on_finished) and gives everything back; on_stopped runs later from the loop. */
void http_server_stop(struct http_server *server, void (*on_stopped)(void *ctx), void *ctx);

/* Of requests that are read from now on. */
void http_server_set_max_body(struct http_server *server, uint64_t max_body);

size_t http_server_connections(const struct http_server *server);

/* Of memory, that a connection takes at most without what its request holds. */
size_t http_server_connection_bytes(size_t max_head);
