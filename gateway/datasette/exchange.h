/*
 * exchange - one request to Datasette and its response, on a pooled connection
 *
 * Owns:       its connection while it lasts, unsent bytes, the parser. Exchanges are kept on a free list of their pool.
 * Lifetime:   exchange_start … on_end, on_switched or on_failed (the last call, the exchange is gone after it), or exchange_cancel.
 * Runs on:    the loop of its pool.
 * Re-entry:   no callback runs inside a call but exchange_pull(); exchange_cancel() may be called from any callback.
 * Results:    exchange_start: 0, EXCHANGE_E_BUSY, -ENOMEM, -EINVAL.
 * Bounds:     EXCHANGE_BUFFER bytes of unsent body; of the response only the head is kept; reads are as large as on_room allows.
 * Invariants: at most one retry, only when `may_retry`, on a reused connection that died before the first response byte; an answer that
 *             is cut ends in on_failed, never in on_end; a connection whose request or response is not whole is closed.
 */
#pragma once

#include "gateway/datasette/connection.h"
#include "gateway/datasette/response.h"

#define EXCHANGE_BUFFER (64 * 1024)

#define EXCHANGE_E_BUSY 1 /* too many wait for a connection */

enum exchange_error {
	EXCHANGE_CONNECT,   /* no connection: refused, no such name, TLS */
	EXCHANGE_TIMEOUT,   /* connecting, waiting for a free connection, for the first byte, or in the middle */
	EXCHANGE_CLOSED,    /* closed before a response began */
	EXCHANGE_TRUNCATED, /* closed in the middle of a response */
	EXCHANGE_PROTOCOL,  /* the response breaks HTTP */
	EXCHANGE_HEAD,      /* the head of the response is beyond RESPONSE_HEAD_MAX, which is no fault of Datasette */
	EXCHANGE_INTERNAL,  /* no memory */
	EXCHANGE_ERRORS,    /* how many there are */
};

/* "connect", "timeout", … for metrics. */
const char *exchange_error_name(enum exchange_error error);

struct exchange_failure {
	enum exchange_error error;
	const char *detail; /* a plain sentence about Datasette, valid during the call */
};

enum exchange_body { EXCHANGE_BODY_NONE, EXCHANGE_BODY_LENGTH, EXCHANGE_BODY_CHUNKED };

struct exchange_request {
	struct slice head;        /* request line and fields, each with CRLF, without framing fields and the empty line; copied */
	enum exchange_body body;
	uint64_t length;          /* of EXCHANGE_BODY_LENGTH */
	bool to_head;             /* the method is HEAD */
	bool may_retry;           /* safe to send twice; ignored with a body */
	bool switches;            /* the head asks for another protocol; without a body */
	unsigned first_byte_ms;   /* from the end of the request; 0 = 60 s */
	unsigned idle_ms;         /* silence in the middle; 0 = 60 s; exchange_set_idle() changes it */
};

struct exchange_events {
	void (*on_interim)(void *ctx, const struct response_head *head); /* may be NULL */
	void (*on_head)(void *ctx, const struct response_head *head);
	/* How many body bytes on_body may get right now; 0 = none until exchange_resume(). */
	size_t (*on_room)(void *ctx);
	void (*on_body)(void *ctx, struct slice bytes);
	/* exchange_pull() gave 0 and may give something now; NULL when it is not used. */
	void (*on_more)(void *ctx);
	/* exchange_write() took less than it was given and has room again; may be NULL without a body. */
	void (*on_writable)(void *ctx);
	void (*on_end)(void *ctx);
	/* In place of on_head and on_end, when `switches`: a 101, after which the connection is the user's. `early`: what came after it;
	 * both are valid during the call. */
	void (*on_switched)(void *ctx, const struct response_head *head, struct connection *connection, struct slice early);
	void (*on_failed)(void *ctx, const struct exchange_failure *failure);
};

struct exchange;
struct exchange_pool;

/* Exchanges over one connection pool (borrowed). */
struct exchange_pool *exchange_pool_new(struct connection_pool *connections, uv_loop_t *loop);
/* Every exchange must have ended. */
void exchange_pool_free(struct exchange_pool *pool);

/* `events` must stay valid until the end. The head leaves together with what is written in the same loop turn. */
MUST_CHECK int exchange_start(struct exchange_pool *pool, const struct exchange_request *request, const struct exchange_events *events,
			      void *ctx, struct exchange **exchange);

/* How many bytes were taken; fewer than bytes.len: on_writable follows. Everything is taken and dropped once Datasette has answered
 * in full or stopped reading. */
MUST_CHECK size_t exchange_write(struct exchange *exchange, struct slice bytes);

/* The request body is complete. With a length that is not reached the connection is closed and on_failed follows. */
void exchange_end(struct exchange *exchange);

/* on_room would give more than 0 again. */
void exchange_resume(struct exchange *exchange);

/* Reads what has come of the response's body straight into `into`, at most `room` bytes, and says how many. 0: nothing now and on_more
 * follows, or on_end or on_failed was called. From the first time on, on_body is not called any more; all that it has been given comes
 * before. Only after on_head. */
MUST_CHECK size_t exchange_pull(struct exchange *exchange, char *into, size_t room);

void exchange_set_idle(struct exchange *exchange, unsigned idle_ms);

/* No further callback; the connection is closed. NULL is allowed. */
void exchange_cancel(struct exchange *exchange);

/* For logs: how the exchange went so far. May also be asked inside on_end and on_failed. */
struct exchange_timing {
	uint64_t connect_us;    /* waiting for a connection */
	uint64_t first_byte_us; /* from the start; 0 when none came */
	bool reused, retried;
};
struct exchange_timing exchange_timing(const struct exchange *exchange);

size_t exchange_pool_active(const struct exchange_pool *pool);
