/*
 * link - one asynchronous connection to Redis that comes back by itself
 *
 * Owns:       the hiredis connection, its handles, the commands under way (their memory is the caller's).
 * Lifetime:   link_new … link_free (asynchronous). link_free ends every command with LINK_LOST before it returns.
 * Runs on:    one loop. Nothing blocks it: names are resolved by uv_getaddrinfo, anew for every connection.
 * Re-entry:   a command's event never runs inside link_send(); inside link_free() LINK_LOST does.
 * Results:    LINK_E_DOWN; -ENOMEM.
 * Bounds:     timeout_ms a command, 100 ms to connect, 500 ms to log in; reconnects wait 50 to 500 ms.
 * Invariants: after LINK_REPLY or LINK_LOST the command's memory is the caller's again. After LINK_TIMEOUT alone it is not: the
 *             command may still run, and one of the two follows.
 *
 * The breaker: no connection, or 5 failures in a row, and link_send refuses at once. PING is then tried about every 500 ms; the
 * first answer in time closes it. A connection that answers nothing for about 2 s is given up. An error that a key is of another type
 * (WRONGTYPE) is no failure: it is about that key.
 */
#pragma once

#include "gateway/base/slice.h"

#include <uv.h>

#define LINK_E_DOWN 1

struct link;
struct redisReply;

enum link_event {
	LINK_REPLY,   /* answered, maybe with an error; the reply is valid during the call */
	LINK_TIMEOUT, /* not answered in time; it may have run or may run yet */
	LINK_LOST,    /* the connection ended first; it may have run */
};

/* Lies in the caller's own struct. Set `event`, zero the rest. */
struct link_command {
	void (*event)(struct link_command *command, enum link_event event, const struct redisReply *reply);
	bool refused_before; /* an error that it is answered with says nothing new about Redis */
	/* The link's own: */
	struct link *link;
	struct link_command *prev, *next;
	uint64_t sent_us, deadline_us;
	bool late, probe;
};

enum link_breaker { LINK_BREAKER_CLOSED, LINK_BREAKER_OPEN, LINK_BREAKER_HALF_OPEN };

struct link_options {
	uv_loop_t *loop;
	struct slice url; /* redis_url.h; copied */
	unsigned timeout_ms;
	/* Each may be NULL. on_state runs on every change; not inside link_send. */
	void (*on_state)(void *ctx, enum link_breaker breaker);
	void (*on_command)(void *ctx, uint64_t duration_us, const char *error_kind); /* NULL, "timeout", "lost", "error" */
	void *ctx;
};

/* NULL when the URL is wrong (logged) or memory is short. */
struct link *link_new(const struct link_options *options);
void link_free(struct link *link, void (*on_freed)(void *ctx), void *ctx);

/* The arguments are copied. A command that is sent again inside its own LINK_REPLY keeps its deadline. */
MUST_CHECK int link_send(struct link *link, struct link_command *command, int argc, const char **argv, const size_t *lengths);

/* What was sent leaves now; without this, with all else that is sent in this turn of the loop. No event runs inside. */
void link_flush(struct link *link);

enum link_breaker link_breaker(const struct link *link);
