/*
 * roster - the records of all members, each in the list of its state
 *
 * Owns:       the records.
 * Lifetime:   roster_init … roster_deinit.
 * Bounds:     `capacity` records, allocated at roster_init.
 * Invariants: a member is in exactly one list, that of its state, and only roster_move() changes it, along the table of
 *             state.h; HOT and WARM are newest first, the others are oldest first; counts match lists.
 */
#pragma once

#include "gateway/pool/fair.h"
#include "gateway/pool/state.h"
#include "gateway/sprites/provider.h"

struct pool_member {
	struct pool_member *prev, *next;
	enum pool_state state;
	bool busy;           /* an operation of this member is under way */
	bool redialed;       /* its channel was lost once before */
	bool aged;           /* hot or warm, and older than max_age */
	bool waking;         /* preparing: it was prepared before */
	bool woken;          /* hot: by a wake */
	bool late;           /* preparing: its wake takes so long that another was begun */
	bool deferred;       /* destroying: put off for those who wait */
	bool told;           /* destroying: the provider said how long to wait */
	bool asked;          /* warm: somebody may have it too; we have asked to have it, to move it to `to` */
	enum pool_state to;
	bool missing;        /* warm: our records are being looked through, and this one has not been met */
	bool foreign;        /* its record is not ours, or not any more: nothing of it is noted, and it will be destroyed or let alone */
	size_t stock;        /* intent, and asked: wanted for a stock, of so many; 0 = by somebody who waits */
	bool owned;          /* it was used and restored: only for `owner` */
	uint64_t owner;
	unsigned uses;       /* commands it has run */
	struct provider_fence fence; /* of its last taking */
	unsigned strikes;    /* failed preparations */
	unsigned attempts;   /* failed attempts to destroy it, or to ask for it */
	uint64_t since_us;   /* in its state since */
	uint64_t asked_us;   /* its creation began; 0 = how long it takes says nothing */
	uint64_t created_us;
	uint64_t parked_us;  /* preparing, by a wake: it was warm since */
	uint64_t wait_us; /* destroying, quarantine, and when asking was not answered: the next attempt waits for this; 0 = for nothing */
	struct fair_tenant *tenant; /* leased: to whom */
	uint64_t doubtful_us; /* destroying: its creation was never confirmed, it may yet appear until then; 0 = it was */
	uint64_t absent_us; /* destroying: first answer that it does not exist, not contradicted since; 0 = none */
	/* The driver's. */
	bool opened; /* its network was, for the command that has it */
	uint64_t ready_from_us, ready_us; /* its creation, or last wake or restore, began; it was ready */
	char name[PROVIDER_NAME_MAX + 1];
	struct sandbox *sandbox;
	struct pool *pool;
};

struct roster {
	struct pool_member *slots;
	size_t capacity;
	struct pool_member *free;
	struct pool_member *lists[POOL_STATES];
	size_t counts[POOL_STATES];
	uint64_t impossible; /* transitions asked for that the table does not have */
};

/* -ENOMEM. */
MUST_CHECK int roster_init(struct roster *roster, size_t capacity);
void roster_deinit(struct roster *roster);

/* A new member in this state; NULL when all records are in use. */
struct pool_member *roster_new(struct roster *roster, enum pool_state state, uint64_t now_us);

/* False when the table does not allow it: nothing is changed then, and roster_impossible() was called. */
bool roster_move(struct roster *roster, struct pool_member *member, enum pool_state to, uint64_t now_us);

/* A warm member is so since then, which was before. */
void roster_backdate(struct roster *roster, struct pool_member *member, uint64_t since_us);

/* A bug shows itself at once in a debug build; in a release build it is counted. */
void roster_impossible(struct roster *roster);

/* Takes back the records that are in GONE. */
void roster_reap(struct roster *roster);

/* Hot and warm members older than max_age_us become `aged`. */
void roster_age(struct roster *roster, uint64_t max_age_us, uint64_t now_us);

/* Warm, and nobody has been asked for it. */
bool roster_is_parked(const struct pool_member *member);

/* Members that are not gone: what counts against max. */
size_t roster_total(const struct roster *roster);

/* The member with this name that is not gone, or NULL. */
struct pool_member *roster_find(const struct roster *roster, const char *name);
