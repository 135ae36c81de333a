/*
 * machine - the pool's mind: which member is in which state, who waits, what to do next
 *
 * Pure: no I/O, no clock. machine_step(now, event) changes the state and leaves actions, which the driver (pool.c) carries out
 * in order and whose outcome comes back as events. Time passes in one place, the event MACHINE_TICK: every other event uses
 * `now` only to note when something happened.
 *
 * Owns:       the roster of members. Waiters belong to the driver and must stay until granted, refused or canceled.
 * Lifetime:   machine_init … machine_deinit.
 * Bounds:     max + MACHINE_LEFTOVERS members, max_waiters waiters; no allocation after machine_init.
 * Invariants: waiters are oldest first; nobody waits while a member is hot; at most one operation of a member is under way
 *             (busy); a record in GONE is reused from the next step on.
 */
#pragma once

#include "gateway/pool/gate.h"
#include "gateway/pool/outlook.h"
#include "gateway/pool/roster.h"

/* How many Sprites of an earlier run are taken in at once; the rest come with the next listing. */
#define MACHINE_LEFTOVERS 64

struct machine_waiter {
	struct machine_waiter *prev, *next;
	uint64_t deadline_us;
	uint64_t since_us;
};

struct machine_options {
	size_t hot, max, max_waiters;
	uint64_t max_age_us;
	uint64_t seed; /* of the jitter; not 0 */
};

enum machine_event_type {
	MACHINE_START,
	MACHINE_STOP,      /* deadline_us */
	MACHINE_TICK,
	MACHINE_CLAIM,     /* waiter, with its deadline_us set */
	MACHINE_CANCEL,    /* waiter, not granted yet */
	MACHINE_RETURN,    /* member: granted, but never handed over */
	MACHINE_RELEASE,   /* member: used */
	MACHINE_LOST,      /* member: the channel of an idle one broke */
	MACHINE_CREATED,   /* member, code, retry_after_ms, limit, unsent */
	MACHINE_PREPARED,  /* member, code, retry_after_ms */
	MACHINE_DESTROYED, /* member, code, retry_after_ms */
	MACHINE_FOUND,     /* name: a Sprite of this instance's */
	MACHINE_LISTED,    /* code */
};

struct machine_event {
	enum machine_event_type type;
	struct pool_member *member;
	struct machine_waiter *waiter;
	uint64_t deadline_us;
	const char *name;
	enum provider_code code;
	uint64_t retry_after_ms;
	struct provider_limit limit;
	bool unsent; /* the operation was never begun: it certainly had no effect */
};

enum machine_action_type {
	MACHINE_DO_LIST,
	MACHINE_DO_CREATE,  /* member: give it a name and create it */
	MACHINE_DO_PREPARE, /* member */
	MACHINE_DO_CLOSE,   /* member: close its sandbox, if it has one */
	MACHINE_DO_DESTROY, /* member */
	MACHINE_DO_GRANT,   /* waiter, member, hot; the waiter is the driver's again */
	MACHINE_DO_REFUSE,  /* waiter, refusal, retry_after_ms; the waiter is the driver's again */
	MACHINE_DO_STOPPED, /* left */
};

struct machine_action {
	enum machine_action_type type;
	struct pool_member *member;
	struct machine_waiter *waiter;
	bool hot;
	int refusal; /* POOL_E_* */
	uint64_t retry_after_ms;
	size_t left;
};

struct machine {
	struct machine_options options;
	struct roster roster;
	struct machine_waiter *waiters;
	size_t waiting;
	struct gate gate;
	struct estimate create, prepare, hold, destroy;
	uint64_t *ready_us; /* scratch of the two outlooks, expected and optimistic */
	bool filling, stopping, overdue, stopped;
	bool worse; /* the outlook of waiters may have got worse in this step */
	uint64_t fill_us;        /* filling starts then at the latest; 0 = decided */
	uint64_t surplus_us;     /* more are hot than wanted since then; 0 = not */
	uint64_t stop_us;        /* deadline of stopping; 0 = none */
	struct {
		bool busy, incomplete;
		unsigned attempts;
		uint64_t wait_us; /* the next listing waits for this; 0 = none planned */
	} list;
	size_t destroys;
	uint64_t random;
	struct machine_action *actions;
	size_t action_cap, action_head, action_count;
};

/* -ENOMEM, -EINVAL for options out of their bounds (pool.h). */
MUST_CHECK int machine_init(struct machine *machine, const struct machine_options *options);
void machine_deinit(struct machine *machine);

void machine_step(struct machine *machine, uint64_t now_us, const struct machine_event *event);

/* Takes the oldest action that is left; false when there is none. While carrying out an action the driver may make the step
 * that tells its outcome; all actions are taken before any other step. */
bool machine_next_action(struct machine *machine, struct machine_action *action);

/* When the next MACHINE_TICK is needed; UINT64_MAX = never. */
uint64_t machine_next_due(const struct machine *machine);
