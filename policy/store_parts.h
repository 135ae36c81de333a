/*
 * store_parts - what the files of the store share; nobody else includes it
 *
 * Results: those of the store.
 */
#pragma once

#include "policy/redis_blocking.h"
#include "policy/store.h"

#define STORE_KEY_MAX 200
#define STORE_KILL_MS "7200000" /* longer than a gateway lets a command wait and run */

struct redisReply;

struct store {
	struct redis_blocking redis;
	char by[RECORD_TEXT_MAX + 1];
};

/* redis_blocking.h: *reply is the caller's; an answer that must not be an error. */
MUST_CHECK int store_ask(struct store *store, const struct slice *args, size_t count, struct redisReply **reply);
MUST_CHECK int store_tell(struct store *store, const struct slice *args, size_t count);

/* STORE_E_REDIS, for this reason. */
int store_fail(struct store *store, const char *reason);

/* Empty, or 0, when it is neither. */
struct slice store_text(const struct redisReply *reply);
uint64_t store_number(const struct redisReply *reply);

struct slice store_key(char key[STORE_KEY_MAX], const char *prefix, struct slice name);

/* False when it does not fit, or could not stand in JSON as it is. */
bool store_copy_text(struct slice from, char *to, size_t size);

/* A transaction; every command of it must have worked. */
MUST_CHECK int store_begin(struct store *store);
MUST_CHECK int store_commit(struct store *store);

/* What runs under a kid or a lease is to end, and who wants that. */
MUST_CHECK int store_mark(struct store *store, struct slice name);

/* `what` is "kid" or "policy", `who` the token's actor. */
MUST_CHECK int store_audit(struct store *store, const char *action, const char *what, struct slice name, struct slice who);
