/*
 * sessions_parts - what sessions.c and session_use.c share; nobody else includes it
 */
#pragma once

#include "gateway/exec/sessions.h"

#define SESSIONS_CONFIRM_MS 5000 /* absence is confirmed by a second answer, this much later */

/* An open channel that nobody uses; without `sandbox` one that is closed, though its Sprite may still run. */
struct session_channel {
	struct session_channel *prev, *next;
	struct sessions *sessions;
	struct sandbox *sandbox;
	char sprite[PROVIDER_NAME_MAX + 1];
	char egress[ADMISSION_EGRESS_MAX + 1]; /* what its network is open for */
	uint64_t since_ms;                     /* in loop time */
};

/* What was asked of the provider, the pool or of Redis for a use, and cannot be taken back. `use` is NULL when nobody waits for the answer any
 * more, `sessions` when they are gone. */
struct session_errand {
	struct session_errand *prev, *next;
	struct sessions *sessions;
	struct session_use *use;
	bool is_awaited; /* its answer comes even when the sessions are gone */
	char sprite[PROVIDER_NAME_MAX + 1];
};

/* A Sprite that a use has a channel to, or is getting one. */
struct session_holder {
	struct session_holder *prev, *next;
	const char *sprite;
};

struct session_removal;

struct sessions {
	struct sessions_options options;
	struct session_store *store;
	char (*kept)[PROVIDER_NAME_MAX + 1];
	size_t kept_count, kept_room;
	struct session_channel *channels;
	struct session_removal *removals;
	struct session_errand *errands;
	struct session_holder *holders;
	uint64_t look_ms; /* in loop time: the next look is due */
	bool known, looking, stopped;
	struct sessions_counts counts;
	uv_timer_t timer;
	unsigned closing;
	void (*on_freed)(void *ctx);
	void *freed_ctx;
};

/* -ENOMEM: it is not known as kept here until the next look. */
MUST_CHECK int sessions_keep(struct sessions *sessions, const char *sprite);

/* A use has a channel to it, or is getting one. */
bool sessions_is_held(const struct sessions *sessions, const char *sprite);

/* Tells the pool what is kept and what runs. */
void sessions_tell_pool(struct sessions *sessions);

/* NULL when there is none. The caller owns what it gets. */
struct session_channel *sessions_take_channel(struct sessions *sessions, const char *sprite);

/* Takes the channel. */
void sessions_put_channel(struct sessions *sessions, struct session_channel *channel);
/* NULL: no memory, and the sandbox is closed. */
struct session_channel *session_channel_new(const char *sprite, struct sandbox *sandbox);
void session_channel_free(struct session_channel *channel);
