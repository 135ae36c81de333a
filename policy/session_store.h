/*
 * session_store - what a gateway says of the Sprites of named sessions, in Redis: the session script over a link of its own
 *
 * admit.lua decides who may use a session; here its Sprite is written down, and what has ended is handed out to be destroyed.
 *
 * Owns:       its link, the calls that are not answered yet.
 * Lifetime:   session_store_new … session_store_free (asynchronous), which is not to be called in a callback.
 * Runs on:    one loop.
 * Re-entry:   no callback runs inside a call.
 * Ownership:  what is passed is copied; what a callback is given is valid during it.
 * Order:      calls take effect in the order in which they were made, or not at all.
 * Errors:     a call whose answer does not come (connection lost) may have taken effect.
 */
#pragma once

#include "policy/admission.h"
#include "policy/link.h"

struct session_store;

struct session_store_options {
	uv_loop_t *loop;
	const char *redis_url;
	unsigned timeout_ms;
	const char *scope; /* where what is kept here counts; [a-z0-9~-] */
	uint64_t idle_ms, age_ms;
	void (*on_command)(void *ctx, uint64_t duration_us, const char *error_kind); /* link.h; may be NULL */
	void *command_ctx;
};

/* Which session, and the command that uses it. */
struct session_ref {
	char name[ADMISSION_SESSION_MAX + 1];
	char kid[ADMISSION_KID_LEN + 1];
	char lease[ADMISSION_LEASE_LEN + 1];
	struct log_subject subject; /* the command, in the log */
};

enum session_store_code {
	SESSION_STORE_OK,
	SESSION_STORE_ENDED, /* the session was closed, or the command's lease has ended: nothing was changed */
	SESSION_STORE_LOST,  /* no answer, or one that makes no sense */
};

typedef void (*session_store_done)(void *ctx, enum session_store_code code);

/* What is due; the arrays are of `kept` names of this scope and `due` names of any. LOST: they are empty. */
struct session_store_due {
	enum session_store_code code;
	const struct slice *kept, *due;
	size_t kept_count, due_count;
};

typedef void (*session_store_listed)(void *ctx, const struct session_store_due *due);

/* NULL: a URL that is not usable (logged), or no memory. */
struct session_store *session_store_new(const struct session_store_options *options);

/* Callbacks of releases run inside it, no other does, and none after it. */
void session_store_free(struct session_store *store, void (*on_freed)(void *ctx), void *ctx);

/* The session has this Sprite from now on. Negative: `done` will not run. SESSION_STORE_E_DOWN: nor has anything been asked. */
#define SESSION_STORE_E_DOWN 1
MUST_CHECK int session_store_bind(struct session_store *store, const struct session_ref *ref, const char *sprite, session_store_done done,
				  void *ctx);

/* Which Sprites are kept, and which must go. The latter are told to nobody else for lock_ms. */
MUST_CHECK int session_store_look(struct session_store *store, uint64_t lock_ms, session_store_listed listed, void *ctx);

/* The command has ended. `done` runs when the session may be used again, as far as can be known: answered, not in time, or never. */
MUST_CHECK int session_store_release(struct session_store *store, const struct session_ref *ref, bool fresh, session_store_done done,
				     void *ctx);

/* Never awaited, and not repeated: what is lost heals by the times that are in Redis. */
void session_store_lost(struct session_store *store, const char *sprite);
void session_store_gone(struct session_store *store, const char *sprite);
