/*
 * pool - warm Sprites that can be claimed in microseconds
 *
 * Keeps some members hot (created, prepared, with an open channel) and some warm (prepared and paused), gives each to one claim
 * only, destroys it after use and refills in the background. When none is hot a claim waits for one that is woken, is on its way,
 * or is created for it.
 *
 * Owns:       members, their sandboxes, claims and waiters. Not the provider, not the loop.
 * Lifetime:   pool_new, pool_start, then pool_stop … on_stopped, pool_free. The provider outlives the pool.
 * Runs on:    one loop (the agent's), every call and every callback.
 * Re-entry:   `done`, on_stopped and on_freed never run inside a call of this header and may make any call. The observer's
 *             callbacks run inside and may make none but pool_counts.
 * Results:    of a claim: POOL_E_* (state.h); of functions: 0, or negative = bug or no memory.
 * Bounds:     options.sizing.max members (plus what an earlier run left behind, until it is destroyed), options.max_waiters waiters.
 * Invariants: a member is granted at most once, or, when recycled, to one tenant only; of a tenant's waiters the oldest is served
 *             first, of tenants the one that holds least; every Sprite whose creation was attempted is
 *             held here until its absence is confirmed or pool_stop's deadline has passed.
 */
#pragma once

#include "gateway/pool/lease.h"
#include "gateway/pool/sizing.h"
#include "gateway/pool/state.h"
#include "gateway/sprites/provider.h"

#include <uv.h>

struct pool;
struct pool_claim;
struct pool_member;

struct pool_grant {
	int code;     /* 0 or POOL_E_* */
	struct pool_member *member; /* code 0: the caller's until pool_release() */
	/* Borrowed, valid until pool_release(). Its channel stands when `done` runs. When it breaks later sandbox_run() says
	 * SANDBOX_E_LOST; release the member and claim again. The caller must not call sandbox_close() or sandbox_on_lost(). */
	struct sandbox *sandbox;
	const char *tier;           /* "hot", "warm" or "cold" (enum pool_tier); static */
	uint64_t ready_from_us, ready_us; /* when its creation, wake or restore began, and when it was ready; by the pool's clock */
	uint64_t retry_after_ms;    /* refused: when another try makes sense, 1000 … 3600000 */
	const char *detail;         /* refused: a plain sentence without secrets, static; else "" */
};

/* Everything is valid during the call. */
typedef void (*pool_claim_done)(void *ctx, const struct pool_grant *grant);

/* For metrics; each may be NULL. */
struct pool_observer {
	/* `what` is the tier ("hot", "warm", "cold"), the refusal ("full", "deadline", "stopping", "unavailable", "budget",
	 * "busy") or "canceled". */
	void (*on_claim)(void *ctx, const char *what, uint64_t waited_us);
	void (*on_create)(void *ctx, enum provider_code code, uint64_t took_us);
	void (*on_prepare)(void *ctx, enum provider_code code, uint64_t took_us);
	void (*on_wake)(void *ctx, enum provider_code code, uint64_t took_us);
	void (*on_restore)(void *ctx, enum provider_code code, uint64_t took_us);
	/* One call per attempt; a Sprite may need several. */
	void (*on_destroy)(void *ctx, enum provider_code code, uint64_t took_us);
	/* The channel of an idle member broke. */
	void (*on_lost)(void *ctx);
	/* Another process has joined as this instance later: this one must drain. Once. */
	void (*on_superseded)(void *ctx);
	/* A transition that the table does not allow was asked for and not made: a bug. */
	void (*on_impossible)(void *ctx);
	void *ctx;
};

struct pool_options {
	uv_loop_t *loop;
	struct provider provider;
	const char *instance;    /* this gateway's name among others; copied; not empty */
	struct slice recipe;     /* whatever determines how members are prepared; its hash is the generation in their names */
	struct sizing_options sizing; /* hot and warm 0 … max or SIZING_AUTO; max, every Sprite that exists or is being created, 1 … 1000 */
	size_t max_waiters; /* 1 … 10000 */
	uint64_t usd_per_day; /* 0 = no limit */
	bool recycle; /* when creations are short, restore a member for the tenant that used it; the provider can restore */
	struct lease_table leases; /* shared with others through these; ops NULL = alone. Outlives the pool */
	uint64_t max_age_ms; /* idle members older than this are replaced; 0 = 6 hours */
	/* Is the Sprite with this name somebody else's to destroy? NULL = none is. Not of a shared pool. */
	bool (*is_kept)(void *ctx, const char *name);
	void *kept_ctx;
	struct pool_observer observer;
	/* Tests only: their own clock (microseconds); the pool then sets no timer and the test calls pool_tick(). */
	uint64_t (*now_us)(void *ctx);
	void *now_ctx;
};

#define POOL_MAX_WAITERS_DEFAULT 64

/* NULL: no memory, or options out of their bounds (logged). */
struct pool *pool_new(const struct pool_options *options);

/* Destroys what an earlier run of the same instance left, then fills. Claims may be made at once. */
void pool_start(struct pool *pool);

/* Other sizes from now on, as in options.sizing; what is above its max counts as max. */
void pool_resize(struct pool *pool, size_t hot, size_t warm);

/* A claim will probably come within for_ms: a paused member is woken for it, if there is one. Nothing is created. */
void pool_intent(struct pool *pool, uint64_t for_ms);

/*
 * Asks for a member for this tenant (any number that stands for it), waiting at most wait_ms. `done` runs exactly once, on the next turn of
 * the loop at the latest when a member is hot, unless pool_cancel() comes first. *claim is valid until then. -ENOMEM: `done` will not run.
 */
MUST_CHECK int pool_claim(struct pool *pool, uint64_t tenant, uint64_t wait_ms, pool_claim_done done, void *ctx, struct pool_claim **claim);

/* The caller left: `done` will not run. */
void pool_cancel(struct pool *pool, struct pool_claim *claim);

/* Opens the network of a granted member as `profile` says (provider.h), for its command. `done` runs once, with PROVIDER_OK only when it is
 * certain what is open, unless the member is released before. The member is destroyed after its release, never restored.
 * Negative: `done` will not run; nothing is open. */
typedef void (*pool_opened)(void *ctx, const struct provider_result *result);
MUST_CHECK int pool_open_network(struct pool *pool, struct pool_member *member, const char *profile, pool_opened done, void *ctx);

/* Gives a member back. It and its sandbox (closed at once, also with a command running) must not be touched any more; the
 * Sprite is destroyed in the background. */
void pool_release(struct pool *pool, struct pool_member *member);

/* The same of one that somebody else may take for his own: it is destroyed, never restored. */
void pool_discard(struct pool *pool, struct pool_member *member);

/* A granted member leaves the pool: the caller has its sandbox, and its Sprite to destroy, from now on. Whoever keeps it has told so
 * (pool_kept) before. NULL: it is not ours any more, whoever has it destroys it; the member must be released. */
struct sandbox *pool_keep(struct pool *pool, struct pool_member *member);

/* So many Sprites that are not the pool's any more exist, `total`, and count against the maximum; `running` of them run here and now. Of
 * a shared pool the first are those of all gateways. */
void pool_kept(struct pool *pool, size_t total, size_t running);

/* A Sprite with this instance's form of name belongs to nobody: it is destroyed. Not of a shared pool. */
void pool_found(struct pool *pool, const char *name);

/* May a Sprite that is kept be woken? 0, POOL_E_STOPPING or POOL_E_BUDGET. */
int pool_admits(const struct pool *pool);

/* Others count what runs here, by what they are told. */
bool pool_is_shared(const struct pool *pool);

/* A Sprite that is kept, and that a command waits for, is to be woken: may one more run? 1: yes, nobody need be asked. 0: the others of a
 * shared pool are asked, and `done` runs once, not in this call, also when the pool is gone by then. Negative: it does not. `code`: 0,
 * POOL_E_BUSY (as many run as may) or POOL_E_UNAVAILABLE (that is not known); then one asks again, after retry_after_ms if that is not 0. */
typedef void (*pool_placed)(void *ctx, int code, uint64_t retry_after_ms);
MUST_CHECK int pool_place(struct pool *pool, const char *sprite, pool_placed done, void *ctx);

/* The Sprite's name; valid until pool_release(). */
const char *pool_member_name(const struct pool_member *member);

/*
 * Creates no more, refuses waiters and new claims, destroys idle members at once and leased ones when they are released.
 * on_stopped runs once: when nothing is left, or at the deadline with the number of Sprites that may still exist. A second call
 * can only bring the deadline nearer; its on_stopped is not used.
 */
void pool_stop(struct pool *pool, uint64_t deadline_ms, void (*on_stopped)(void *ctx, size_t left), void *ctx);

/* Closes every sandbox and forgets claims without calling them. No grant may be used after it. on_freed (may be NULL) runs
 * when the loop has closed the handles; it does not wait for the provider, whose late answers are dropped. */
void pool_free(struct pool *pool, void (*on_freed)(void *ctx), void *ctx);

struct pool_counts {
	size_t members[POOL_STATES]; /* indexed by enum pool_state; POOL_GONE is always 0 */
	size_t total; /* their sum: what counts against max */
	size_t hot_target, warm_target;
	size_t max;
	size_t waiters;
	uint64_t oldest_wait_us; /* 0 without waiters */
	const char *
		creation; /* "open", or what holds new ones back: "rate-limit", "budget", "capacity", "throttled", "unavailable", "unauthorized" */
	bool stopping;
	bool stalled; /* less stock than wanted for a minute, and nothing became ready in it */
	uint64_t idle_us; /* time that Sprites ran without a claim, added up */
	uint64_t spent_nusd; /* what all of it cost by list prices, in nano dollars */
	uint64_t hedges; /* wakes begun because another took too long */
	uint64_t impossible; /* transitions asked for that the table does not allow: always 0 */
};

void pool_counts(const struct pool *pool, struct pool_counts *counts);

/* Does what has become due. The pool's own timer calls this; tests with their own clock do it themselves. */
void pool_tick(struct pool *pool);

/* When pool_tick() has something to do, in microseconds of the pool's clock; UINT64_MAX = nothing is waiting for time. */
uint64_t pool_next_due(const struct pool *pool);
