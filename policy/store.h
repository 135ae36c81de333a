/*
 * store - token records in Redis, for the command line
 *
 * Blocks, so it is never used by the serving program (that is link.h). Each call waits at most 2 s.
 *
 * Lifetime:   store_open … store_close.
 * Results:    0; STORE_E_MISSING: there is no such token; STORE_E_REDIS: it could not be done, store_reason() says why.
 */
#pragma once

#include "policy/record.h"

#define STORE_E_MISSING 1
#define STORE_E_REDIS   2

#define STORE_KIDS_MAX 100000

struct store;

struct store_usage {
	uint64_t running;
	uint64_t used_ms, held_ms, out_bytes, requests; /* today, UTC */
};

typedef char store_kid[TOKEN_KID_LEN + 1];

/* Always gives a store unless memory is short (NULL); whether it can be used is the result of the first call. */
struct store *store_open(struct slice url);
void store_close(struct store *store);

/* One plain phrase, valid until the next call. */
const char *store_reason(const struct store *store);

/* Redis' clock, ms since 1970: the only one that decides about expiry. */
MUST_CHECK int store_now(struct store *store, uint64_t *now_ms);

/* Record, index of the actor and audit entry, all or nothing. */
MUST_CHECK int store_create(struct store *store, struct slice kid, const struct record *record);
MUST_CHECK int store_load(struct store *store, struct slice kid, struct record *record);
MUST_CHECK int store_usage(struct store *store, struct slice kid, struct store_usage *usage);
/* Acts on the next call of the token; running commands are not touched. */
MUST_CHECK int store_revoke(struct store *store, struct slice kid);

/* All kids, sorted; *kids is the caller's to free. At most STORE_KIDS_MAX. */
MUST_CHECK int store_list(struct store *store, store_kid **kids, size_t *count);
