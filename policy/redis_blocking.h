/*
 * redis_blocking - one command at a time to Redis, waiting for the answer
 *
 * For the command line; the serving program has link.h.
 *
 * Lifetime:   redis_blocking_init … redis_blocking_deinit. Connects and logs in with the first command.
 * Results:    0, or REDIS_BLOCKING_E_FAILED with `reason`: no connection, or Redis answered with an error.
 * Bounds:     2 s to connect, 2 s for each answer; REDIS_BLOCKING_ARGS_MAX arguments.
 */
#pragma once

#include "policy/redis_url.h"

#define REDIS_BLOCKING_E_FAILED 2
#define REDIS_BLOCKING_ARGS_MAX 80

struct redisContext;
struct redisReply;
struct ssl_ctx_st;

struct redis_blocking {
	struct redis_url url;
	struct ssl_ctx_st *tls;
	struct redisContext *context;
	bool usable;      /* the URL is */
	char reason[200]; /* one plain phrase about the last failure */
};

/* A URL that is not usable fails the first command. */
void redis_blocking_init(struct redis_blocking *redis, struct slice url);
void redis_blocking_deinit(struct redis_blocking *redis);

/* *reply is the caller's (redis_reply_free) and no error. */
MUST_CHECK int redis_blocking_ask(struct redis_blocking *redis, const struct slice *args, size_t count, struct redisReply **reply);

/* When only whether it worked matters. */
MUST_CHECK int redis_blocking_tell(struct redis_blocking *redis, const struct slice *args, size_t count);

/* Notes a failure of the caller's own and returns REDIS_BLOCKING_E_FAILED. */
int redis_blocking_fail(struct redis_blocking *redis, const char *reason);

/* Scope clean-up: `CLEANUP(redis_reply_free) struct redisReply *reply = NULL`. */
void redis_reply_free(struct redisReply **reply);
