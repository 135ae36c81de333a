/*
 * store - token records in Redis, for the command line
 *
 * Blocks, so it is never used by the serving program (that is link.h). Each call waits at most 2 s.
 *
 * Lifetime:   store_open … store_close.
 * Results:    0; STORE_E_MISSING: there is no such token or policy; STORE_E_REDIS: it could not be done, store_reason() says why;
 *             STORE_E_BROKEN: the record holds a field that is not known or cannot be read (the gateways refuse it), store_reason()
 *             says which; what can be read is there; STORE_E_CHANGED: somebody else changed at the same time what was watched, nothing
 *             is written.
 */
#pragma once

#include "policy/record.h"

#define STORE_E_MISSING 1
#define STORE_E_REDIS   2
#define STORE_E_BROKEN  3
#define STORE_E_CHANGED 4

#define STORE_NAMES_MAX 100000

struct store;

struct store_usage {
	uint64_t running;
	uint64_t used_ms, held_ms, out_bytes, requests; /* today, UTC */
};

/* A kid, or the name of a policy. */
typedef char store_name[RECORD_NAME_MAX + 1];

struct store_lease {
	char id[25];
	uint64_t granted_ms;
	uint64_t since_ms, end_ms; /* since 1970 */
};

/* A named session that has not ended (scripts/admit.lua, session.lua). */
struct store_session {
	store_name kid;
	char name[65], sprite[64]; /* sprite "" = it has none yet */
	char lease[25];            /* of the command that runs in it; "" = none does */
	uint64_t created_ms, used_ms;
	uint64_t end_ms;           /* 0 = not before it has a Sprite */
};

/* A Sprite as a shared pool has it recorded (scripts/pool.lua). */
struct store_member {
	char name[64];
	char state[16];
	char session[64];  /* <instance>/<epoch>: whose it is */
	char exec_id[37];  /* of a leased one, when it is known */
	uint64_t since_ms, created_ms, uses;
};

/* What to list: all tokens, all policies, the tokens that have leases or sessions. */
enum store_kind { STORE_TOKENS, STORE_POLICIES, STORE_LEASES, STORE_SESSIONS };

/* Always gives a store unless memory is short (NULL); whether it can be used is the result of the first call. `by`: who makes changes, for
 * the audit; printable ASCII without blanks, "" = not known. Copied. */
struct store *store_open(struct slice url, const char *by);
void store_close(struct store *store);

/* One plain phrase, valid until the next call. */
const char *store_reason(const struct store *store);

/* Redis' clock, ms since 1970: the only one that decides about expiry. */
MUST_CHECK int store_now(struct store *store, uint64_t *now_ms);

/* Record, index of the actor and audit entry, all or nothing. */
MUST_CHECK int store_create(struct store *store, struct slice kid, const struct record *record);
MUST_CHECK int store_load(struct store *store, struct slice kid, struct record *record);
MUST_CHECK int store_usage(struct store *store, struct slice kid, struct store_usage *usage);

/* A change is: watch, load, change. When somebody else changed the record in between, the change fails and nothing is written. */
MUST_CHECK int store_watch(struct store *store, enum store_kind kind, struct slice name);

/* Writes the fields that are present, removes those of `removed`, raises the version. Acts on the next call of the token; running
 * commands are not touched. `action` is what the audit says; `loaded` is the record as it was. */
MUST_CHECK int store_change(struct store *store, struct slice kid, const struct record *loaded, const struct record *changes,
			    uint64_t removed, const char *action);

/* Marks what runs under a kid or a lease (`what` says which: "kid" or "lease") to be ended by whatever gateway has it. The mark
 * stays as long as a lease can last. */
MUST_CHECK int store_kill(struct store *store, const char *what, struct slice name);

/* version 0: the present one. */
MUST_CHECK int store_load_policy(struct store *store, struct slice name, uint64_t version, struct record *policy);
/* As a whole, under policy->ver, which is also kept under that number. */
MUST_CHECK int store_put_policy(struct store *store, struct slice name, const struct record *policy);

/* Sorted; *names is the caller's to free. At most STORE_NAMES_MAX. */
MUST_CHECK int store_list(struct store *store, enum store_kind kind, store_name **names, size_t *count);

/* All of one token or actor, sorted by id, ended ones too until somebody reaps them; *leases is the caller's to free. */
MUST_CHECK int store_leases(struct store *store, struct slice kid, struct store_lease **leases, size_t *count);
MUST_CHECK int store_actor_leases(struct store *store, struct slice actor, struct store_lease **leases, size_t *count);

/* NULL = it is not among them. */
const struct store_lease *store_find_lease(const struct store_lease *leases, size_t count, const char *id);

/* Those of one token; *sessions is the caller's to free. */
MUST_CHECK int store_sessions(struct store *store, struct slice kid, struct store_session **sessions, size_t *count);
/* Frees its name, has its command killed and its Sprite destroyed; the one that it has got since it was read, too. Sessions of its token
 * may change meanwhile: it is tried a few times. STORE_E_MISSING: it has ended. */
MUST_CHECK int store_session_close(struct store *store, const struct store_session *session);

/* Of the pool of this name, sorted; *members is the caller's to free. None if there is no such pool. */
MUST_CHECK int store_pool(struct store *store, struct slice pool, struct store_member **members, size_t *count);
