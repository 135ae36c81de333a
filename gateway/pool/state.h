/*
 * state - the states of a pool member, the one table of allowed transitions, and why a claim is refused
 *
 * WARM, RECYCLING and QUARANTINE have their edges here but nothing moves a member into them yet: they belong to the paused
 * tier, to restoring a member's own checkpoint, and to members whose state is in doubt.
 */
#pragma once

#include <stdbool.h>

enum pool_state {
	POOL_INTENT,     /* named and recorded, nothing sent to the provider */
	POOL_CREATING,   /* create is on the wire */
	POOL_PREPARING,  /* network being closed and read back, channel being opened, first command run */
	POOL_WARM,       /* prepared and paused */
	POOL_HOT,        /* prepared, running, channel open and idle: may be claimed */
	POOL_LEASED,     /* belongs to one claim */
	POOL_RECYCLING,  /* being restored to its own clean checkpoint */
	POOL_QUARANTINE, /* must not be used, kept until it is known what it is */
	POOL_DESTROYING, /* must go; kept until its absence is confirmed */
	POOL_GONE,       /* confirmed absent */
	POOL_STATES,
};

/* Lower-case name, for logs and metric labels. */
const char *pool_state_name(enum pool_state state);

/* May a member that is in `from` go to `to`? */
bool pool_state_allows(enum pool_state from, enum pool_state to);

/* Why a claim was refused. */
#define POOL_E_FULL        1 /* the waiting queue is full */
#define POOL_E_DEADLINE    2 /* none was ready in time, or certainly will not be */
#define POOL_E_STOPPING    3 /* the pool is being stopped */
#define POOL_E_UNAVAILABLE 4 /* the provider refuses us or cannot be reached */
