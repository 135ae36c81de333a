/*
 * gate - what holds new creations back, and some of it wakes and preparations too: the provider's limits, our budget of them, its
 *        refusals and its failures
 *
 * Pure: no clock, no I/O; its random numbers come from a seed.
 * Invariants: a reason ends at its own time (gate_tick), so a short one never cuts a long one off; only `capacity` can end
 *             earlier, when a Sprite has been destroyed and the provider did not say a time. Nothing ends before the time that the
 *             provider said.
 */
#pragma once

#include "gateway/pool/budget.h"

enum gate_reason {
	GATE_RATE_LIMIT,   /* creation limit: Retry-After, 10 s when not given */
	GATE_CAPACITY,     /* too many run: Retry-After; when not given 5 s or until one is gone. Holds wakes and preparations, too */
	GATE_THROTTLED,    /* too many requests: Retry-After, 1 s when not given. Holds wakes and preparations, too */
	GATE_UNAVAILABLE,  /* failures: 0.5 s doubling to 30 s, with jitter, or a longer Retry-After */
	GATE_UNAUTHORIZED, /* 30 s */
	GATE_BUDGET,       /* creations are spread over the provider's window */
	GATE_REASONS,
};

#define GATE_WINDOW_MAX 1024

struct gate {
	uint64_t until_us[GATE_REASONS]; /* 0 = does not hold */
	uint64_t told_us;                /* `capacity` does not end before: the provider said so */
	uint64_t closed_us;              /* last time anything was refused or failed */
	unsigned failures;               /* in a row; one burst of failures counts once */
	size_t window;                   /* creations on the wire at once: 1 after a refusal, doubled by a success */
	uint64_t refused_us;             /* last time the creation limit was met */
	struct budget budget;
	uint64_t random;
};

/* The seed must not be 0. */
void gate_init(struct gate *gate, uint64_t seed);

/* An attempt begun at begun_us was refused or failed. `limit` as in struct provider_result. */
void gate_failed(struct gate *gate, uint64_t now_us, uint64_t begun_us, enum provider_code code, uint64_t retry_after_ms,
		 const struct provider_limit *limit);

/* A creation begins. */
void gate_creating(struct gate *gate, uint64_t now_us);

/* A creation begun at begun_us succeeded; the provider allows no other for retry_after_ms (0 = it does). */
void gate_created(struct gate *gate, uint64_t now_us, uint64_t begun_us, uint64_t retry_after_ms, const struct provider_limit *limit);

/* A member became ready: the provider works. */
void gate_ready(struct gate *gate);

/* A listing was answered: neither failures nor a refused token hold creations back. */
void gate_listed(struct gate *gate);

/* A Sprite is gone: there is room for another. */
void gate_room(struct gate *gate);

/* Ends the reasons whose time has come. */
void gate_tick(struct gate *gate, uint64_t now_us);

bool gate_is_open(const struct gate *gate);

/* When it will be open, as far as is known; 0 when it is. `optimistic`: as if a Sprite were gone now. */
uint64_t gate_opens_us(const struct gate *gate, bool optimistic);

/* When a Sprite may be woken or prepared, likewise. */
uint64_t gate_wakes_open_us(const struct gate *gate, bool optimistic);

/* When gate_tick() has something to do; UINT64_MAX when never. */
uint64_t gate_next_due(const struct gate *gate);

/* "open", or the reason that holds longest. */
const char *gate_text(const struct gate *gate);

/* xorshift64: for jitter, and for telling things apart; no secrecy. The state is not 0. */
uint64_t gate_random(uint64_t *state);

/* Jittered exponential backoff in microseconds, 0.25 … 0.5 s for the first attempt (attempt 1), at most 30 s. */
uint64_t gate_backoff_us(unsigned attempt, uint64_t *random);
