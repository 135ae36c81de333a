/*
 * sessions - Sprites that are kept for named sessions: from the pool to a session, from one command to the next, and to their end
 *
 * A session's first command takes a Sprite from the pool, which is the session's from then on: it never goes back. Who may use a session
 * is decided by the admission (admit.lua), one command at a time; that the command's lease holds is what makes its use exclusive, on
 * whatever gateway. After a command the channel stays open for a minute, then the provider pauses the Sprite. What has ended, by its
 * idle time, its age, its owner's wish or because it was lost, is destroyed by whichever gateway finds it first.
 *
 * Owns:       open channels of sessions that are not in use, uses, its link to Redis. Not the pool, not the provider, which outlive it.
 * Lifetime:   sessions_new, sessions_start … sessions_free; every use has ended before that.
 * Runs on:    the agent loop.
 * Re-entry:   `done` and on_known never run inside a call of this header.
 * Bounds:     Sprites by the pool's maximum, names by the tokens' allowances.
 * Invariants: a Sprite is written down as the session's before a command is started in it; from then on only a session that Redis says
 *             has ended is destroyed.
 */
#pragma once

#include "gateway/pool/pool.h"
#include "policy/session_store.h"

struct sessions;
struct session_use;

struct sessions_options {
	uv_loop_t *loop;
	struct provider provider;
	struct pool *pool;
	const char *redis_url;
	unsigned timeout_ms;
	const char *scope; /* session_store.h */
	uint64_t idle_ms, age_ms;
	/* It is known now which Sprites are kept: the pool may remove what nobody knows. Once. */
	void (*on_known)(void *ctx);
	void *ctx;
	void (*on_command)(void *ctx, uint64_t duration_us, const char *error_kind);
	void *command_ctx;
};

/* NULL: no memory, or a URL that is not usable (logged). */
struct sessions *sessions_new(const struct sessions_options *options);

/* The pool is made with sessions_is_kept, so it comes after sessions_new. */
void sessions_start(struct sessions *sessions, struct pool *pool);

/* For struct pool_options; ctx: the sessions. */
bool sessions_is_kept(void *ctx, const char *sprite);

/* Nothing is destroyed any more; channels are closed. Uses go on. */
void sessions_stop(struct sessions *sessions);
void sessions_free(struct sessions *sessions, void (*on_freed)(void *ctx), void *ctx);

struct sessions_counts {
	size_t kept; /* Sprites of sessions, ended ones too until they are gone, of this scope */
	uint64_t created, resumed, lost, destroyed;
};

void sessions_counts(const struct sessions *sessions, struct sessions_counts *counts);

/* --- one command's use of a session --- */

enum session_use_code {
	SESSION_USE_READY,
	SESSION_USE_LOST,    /* its Sprite does not exist any more, and with it the session */
	SESSION_USE_REFUSED, /* `refusal` is POOL_E_*, of its first command or of a wake */
	SESSION_USE_FAILED,  /* it could not be made ready in time; the session is as it was */
};

struct session_use_result {
	enum session_use_code code;
	int refusal;
	uint64_t retry_after_ms;
	struct sandbox *sandbox; /* READY; borrowed until session_use_end */
	const char *sprite, *tier;
	bool created;            /* READY: no command was started in it before */
	uint64_t ready_from_us, ready_us; /* READY: as in struct pool_grant */
	const char *detail;      /* otherwise: a plain sentence, static or valid during the call */
};

typedef void (*session_use_done)(void *ctx, const struct session_use_result *result);

struct session_want {
	struct session_ref ref;
	struct admission_session session; /* as the admission has granted it */
	const char *egress;               /* valid until `done` has run */
	uint64_t tenant, wait_ms;
};

/* Makes the session's Sprite ready for a command, or gives it one. NULL: no memory. */
struct session_use *session_use_start(struct sessions *sessions, const struct session_want *want, session_use_done done, void *ctx);

/* At any time, once. `idle`: nothing runs on the channel any more, so it may stay open. The command may begin another use. */
void session_use_end(struct session_use *use, bool idle);

/* The command has ended. `fresh`: nothing was ever started in the session. As session_store_release(). */
MUST_CHECK int sessions_release(struct sessions *sessions, const struct session_ref *ref, bool fresh, session_store_done done, void *ctx);
