/*
 * state - the states of a pool member, the one table of allowed transitions, and how a claim ends
 */
#pragma once

#include <stdbool.h>

enum pool_state {
	POOL_INTENT,     /* named and recorded, nothing sent to the provider */
	POOL_CREATING,   /* create is on the wire */
	POOL_PREPARING,  /* network being closed or read back, channel being opened, first command run */
	POOL_WARM,       /* prepared, its channel closed so that the provider pauses it */
	POOL_HOT,        /* prepared, running, channel open and idle: may be claimed */
	POOL_LEASED,     /* belongs to one claim */
	POOL_RECYCLING,  /* being restored to its own clean checkpoint */
	POOL_QUARANTINE, /* not used, waits to be prepared (once more), or destroyed: in doubt, or held back by a limit */
	POOL_DESTROYING, /* must go; kept until its absence is confirmed */
	POOL_GONE,       /* confirmed absent */
	POOL_STATES,
};

/* Lower-case name, for logs and metric labels. */
const char *pool_state_name(enum pool_state state);

/* What of a change of state is written into a shared pool's records (lease.h). */
enum state_note {
	STATE_SILENT, /* nothing: the operation that allowed it has written it, or the record is another's */
	STATE_NOTE,   /* the new state */
	STATE_FORGET, /* the record goes */
};

enum state_note pool_state_note(enum pool_state from, enum pool_state to);

/* May a member that is in `from` go to `to`? */
bool pool_state_allows(enum pool_state from, enum pool_state to);

/* Where a granted member came from. */
enum pool_tier {
	POOL_TIER_HOT,  /* it was ready */
	POOL_TIER_WARM, /* it had to be woken */
	POOL_TIER_COLD, /* it had to be created, prepared or restored, or somebody had to give one back */
};

/* Lower-case name, for logs, metric labels and answers. */
const char *pool_tier_name(enum pool_tier tier);

/* Why a claim was refused. */
#define POOL_E_FULL        1 /* the waiting queue is full */
#define POOL_E_DEADLINE    2 /* one was on its way, but was not ready in time, or certainly will not be */
#define POOL_E_STOPPING    3 /* the pool is being stopped */
#define POOL_E_UNAVAILABLE 4 /* the provider refuses us or cannot be reached */
#define POOL_E_BUDGET      5 /* the day's money is spent */
#define POOL_E_BUSY        6 /* the same as DEADLINE, but it had to wait for room, a limit or its fair share first */
