/*
 * provider - what the pool needs from whoever makes sandboxes
 *
 * The pool sees only this table; sprites_provider (Fly Sprites over HTTP) implements it, tests have their own.
 *
 * Runs on:    the agent loop.
 * Re-entry:   `done` never runs inside the call that started the operation.
 * Order:      prepare, wake, resume, restore and open_network of one Sprite take effect in the order in which they were asked for, also when
 *             `done` has run before the call of an earlier one was answered. The others wait for nothing.
 * Ownership:  names are copied. A started operation calls `done` exactly once, also after a time-out of its own; the receiver
 *             tells late answers apart by its own bookkeeping (an operation cannot be taken back once it is on the wire).
 */
#pragma once

#include "gateway/base/slice.h"
#include "gateway/sprites/sandbox.h"

enum provider_code {
	PROVIDER_OK,
	PROVIDER_GONE,         /* there is no such Sprite (confirmed absence: 404 or 410) */
	PROVIDER_RATE_LIMIT,   /* 429 sprite_creation_rate_limited */
	PROVIDER_CAPACITY,     /* 429 concurrent_sprite_limit_exceeded: no other Sprite may run now */
	PROVIDER_THROTTLED,    /* any other 429, of anything but a creation: it had no effect, and says nothing of creations */
	PROVIDER_UNAUTHORIZED, /* 401, 403: no retry helps until the token is changed */
	PROVIDER_UNAVAILABLE,  /* connection failed, time-out, 5xx: the operation may have happened */
	PROVIDER_POLICY,  /* the network policy could not be set or read back as asked: the Sprite must not be used */
	PROVIDER_TAKEN,   /* somebody else has woken it since it was parked: the Sprite must not be used */
	PROVIDER_INVALID, /* an answer that contradicts the contract */
};

/* A word for metrics and logs: "ok", "gone", "rate_limit", … */
const char *provider_code_name(enum provider_code code);

#define PROVIDER_NAME_MAX 63

/* What the provider said of its limits: on creations with a success or a refusal of create, on running with PROVIDER_CAPACITY, on running
 * and pausing with a list. */
struct provider_limit {
	uint64_t count;     /* creations in a window; 0 = it did not say */
	uint64_t window_ms; /* 0 = it did not say */
	uint64_t left;      /* of the count in this window; UINT64_MAX = it did not say */
	uint64_t running;   /* Sprites that may run at once; 0 = it did not say */
	uint64_t paused;    /* Sprites that may be paused at once, with their memory kept; 0 = it did not say */
};

struct provider_result {
	enum provider_code code;
	uint64_t retry_after_ms; /* 0 = the provider did not say; of a create with PROVIDER_OK: none is left until then */
	struct provider_limit limit;
	struct sandbox *sandbox; /* of prepare, wake, resume and restore, when code is PROVIDER_OK; ownership moves to the receiver */
	/* Of a create that failed: no answer came, or one of those in between answered (502, 503, 504). It may take effect long after. */
	bool unanswered;
	const char *detail;      /* a plain sentence for the log, valid during the call; never NULL */
};

/* By whom a Sprite was taken that others may have, too, should the records of the pool have been set back (docs/decisions/0012). The first to
 * wake it after a parking leaves its number there, and in a label, which no command can reach; whoever finds another's is told
 * PROVIDER_TAKEN. */
struct provider_fence {
	uint64_t parking; /* lease.h; 0 = nobody else can have it */
	uint64_t taker; /* any number that no other taking has */
};

typedef void (*provider_done)(void *ctx, const struct provider_result *result);

/* One call per Sprite found; then `done`. `ours`: it carries the label of our pool. */
typedef void (*provider_found)(void *ctx, const char *name, bool ours);

struct provider_ops {
	/* Creates a Sprite. A name that exists already counts as created. 0 or -errno; with -errno `done` is not called. */
	int (*create)(void *self, const char *name, provider_done done, void *ctx);

	/* Makes a created Sprite ready: closes its network (policy set and read back), opens its channel, runs a first command
	 * so that the next one is not slow. Hands over a sandbox. */
	int (*prepare)(void *self, const char *name, struct provider_fence fence, provider_done done, void *ctx);

	/* Opens the channel of a Sprite that was prepared before and may be paused, which wakes it; reads the network policy back
	 * and runs a first command as prepare does. Hands over a sandbox. */
	int (*wake)(void *self, const char *name, struct provider_fence fence, provider_done done, void *ctx);

	/* Brings a Sprite that was used back to what it was after prepare, and verifies that it is. Hands over a sandbox. NULL:
	 * this provider cannot. */
	int (*restore)(void *self, const char *name, struct provider_fence fence, provider_done done, void *ctx);

	/* Opens the channel of a Sprite that commands have run in and which may be paused; closes its network first, whatever it was. Hands
	 * over a sandbox. PROVIDER_GONE: the list does not have it either. */
	int (*resume)(void *self, const char *name, provider_done done, void *ctx);

	/* Opens the network of a Sprite that was claimed, for the command that is about to run there: names of domains (also *.suffix),
	 * separated by blanks, and `defaults`, the provider's own list. Set and read back; all else stays closed. PROVIDER_POLICY: it
	 * could not be done, or it is not certain that it was. -EINVAL: not such a profile. Nobody else may have this Sprite. */
	int (*open_network)(void *self, const char *name, const char *profile, provider_done done, void *ctx);

	/* Ends every prepare, wake, resume and restore that is under way: each `done` comes soon, but not during this call, with
	 * PROVIDER_UNAVAILABLE unless it was known how it ended. NULL: they end by themselves. */
	void (*abandon)(void *self);

	/* Deletes a Sprite. PROVIDER_OK and PROVIDER_GONE both mean that it does not exist any more. */
	int (*destroy)(void *self, const char *name, provider_done done, void *ctx);

	/* All Sprites whose name begins with `prefix`. */
	int (*list)(void *self, const char *prefix, provider_found found, provider_done done, void *ctx);
};

struct provider {
	const struct provider_ops *ops;
	void *self;
	const char
		*recipe; /* what `prepare` leaves behind, in words: whoever changes that changes this, and older Sprites are told apart */
};
