/*
 * connection - connections to Datasette: opened by libcurl (DNS, happy eyeballs, TLS, Unix sockets), used raw, kept for the next
 *
 * Owns:       every connection, its libcurl handle, its socket watcher, and the queue of those who wait for one.
 * Lifetime:   connection_pool_new … connection_pool_free; every user must have released or cancelled before that. Its memory is given
 *             back after the loop has closed its handles.
 * Runs on:    one loop; every worker has its own pool.
 * Re-entry:   no callback runs inside a call.
 * Results:    0, CONNECTION_E_AGAIN, CONNECTION_E_CLOSED, CONNECTION_E_BUSY; negative = no memory.
 * Bounds:     max_connections connections, max_waiting waiters; an idle one lives at most idle_ms.
 * Invariants: idle list newest first; waiters oldest first; an idle connection that becomes readable is closed, never used;
 *             our side is never half-closed while there is an exchange (uvicorn would drop the answer); a detached one does not count.
 */
#pragma once

#include "gateway/base/slice.h"
#include "gateway/curl/curl_driver.h"

#include <sys/uio.h>

#define CONNECTION_E_AGAIN  1 /* would block: connection_watch() tells when to try again */
#define CONNECTION_E_CLOSED 2 /* the other side closed or reset it */
#define CONNECTION_E_BUSY   3 /* too many are waiting already */

#define CONNECTION_ERROR_LEN 256

struct connection;
struct connection_pool;

struct connection_pool_options {
	struct curl_driver *driver; /* borrowed */
	uv_loop_t *loop;
	const char *url;            /* http://host:port, https://host:port, http+unix:///path or unix:/path; copied */
	const char *ca_file;        /* NULL or "" = the system's; copied */
	unsigned connect_timeout_ms; /* 3 s: name, TCP and TLS together */
	unsigned idle_ms;           /* at most 4 s, since uvicorn closes at 5 s */
	unsigned wait_ms;           /* how long one may wait for a free connection */
	unsigned max_connections;
	size_t max_waiting;
};

void connection_pool_defaults(struct connection_pool_options *options);

/* NULL and a sentence that names what is wrong with the URL or says that there is no memory. */
struct connection_pool *connection_pool_new(const struct connection_pool_options *options, char error[CONNECTION_ERROR_LEN]);
void connection_pool_free(struct connection_pool *pool);

/* What Host should be for requests of our own: the URL's authority, "localhost" for a Unix socket. */
struct slice connection_pool_authority(const struct connection_pool *pool);

enum connection_failure {
	CONNECTION_REFUSED,     /* name, TCP, TLS: `detail` says */
	CONNECTION_TIMED_OUT,   /* not connected in time */
	CONNECTION_WAITED,      /* no free one in time */
};

/* One that wants a connection; embedded in its owner, zeroed before first use. */
struct connection_waiter {
	/* Ownership of the connection moves to the waiter; `reused` when it has carried an exchange before. */
	void (*on_ready)(void *ctx, struct connection *connection, bool reused);
	void (*on_failed)(void *ctx, enum connection_failure failure, const char *detail);
	void *ctx;

	struct connection_waiter *prev, *next;
	struct connection *opening;
	uint64_t since_us;
	bool queued;
};

enum connection_want {
	CONNECTION_ANY,     /* the newest idle one, which may have died a moment ago */
	CONNECTION_CHECKED, /* the same after a look at its socket: for a request that may not be sent twice */
	CONNECTION_FRESH,   /* never one that was used before */
};

/* An idle connection at once (*connection, always a reused one), or *connection is NULL and the waiter hears later.
 * CONNECTION_E_BUSY, -ENOMEM. */
MUST_CHECK int connection_acquire(struct connection_pool *pool, struct connection_waiter *waiter, enum connection_want want,
				  struct connection **connection);
void connection_cancel(struct connection_pool *pool, struct connection_waiter *waiter);

/* Gives it back for reuse, or closes it. NULL is allowed. */
void connection_release(struct connection *connection, bool reusable);

/* It will carry no other exchange: from now on it takes nobody's place. connection_release() closes it. A Datasette that vanishes is given
 * up after `silence_ms` (keepalive.h). */
void connection_detach(struct connection *connection, unsigned silence_ms);

/* Of a detached one: nothing more will be sent. False when that cannot be told without ending both directions (TLS). */
MUST_CHECK bool connection_end(struct connection *connection);

/* 0 and *sent > 0, CONNECTION_E_AGAIN, CONNECTION_E_CLOSED. */
MUST_CHECK int connection_send(struct connection *connection, const struct iovec *pieces, size_t count, size_t *sent);

/* 0 and *got > 0, CONNECTION_E_AGAIN, CONNECTION_E_CLOSED (orderly end or reset: `reset` tells). *more: bytes may be waiting that no
 * event will announce (TLS): read again before watching. */
MUST_CHECK int connection_recv(struct connection *connection, char *into, size_t room, size_t *got, bool *more, bool *reset);

/* Hears readiness until released; level-triggered. Set once after acquiring. */
void connection_set_handler(struct connection *connection, void (*on_ready)(void *ctx, bool readable, bool writable), void *ctx);
MUST_CHECK int connection_watch(struct connection *connection, bool readable, bool writable);

struct connection_counts {
	size_t open, idle, opening, waiting;
};
struct connection_counts connection_pool_counts(const struct connection_pool *pool);
