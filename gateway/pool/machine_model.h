/*
 * machine_model - the naive model of the world that the machine is tested against: which Sprites really exist, who waits, who was
 * given what
 */
#pragma once

#include "gateway/pool/machine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <utlist.h>

#include <cmocka.h>

#define EVENTS         1000000
#define EPISODE_EVENTS 4000
#define WAITERS        16
#define TENANTS        4
#define CREATIONS      64
#define SLOTS          (16 + MACHINE_LEFTOVERS)
#define SPRITES        (SLOTS + 64)
#define SECOND_US      UINT64_C(1000000)
#define FAILED_US      (15 * SECOND_US) /* a creation that was answered with a failure takes effect this late at most */
#define UNANSWERED_US  (85 * SECOND_US) /* one that nobody answered */

#define CHECK(model, condition)                                                                                                       \
	do {                                                                                                                          \
		if (!(condition))                                                                                                     \
			fail_msg("seed %llu, event %zu: not so: %s", (unsigned long long)(model)->seed, (model)->events, #condition); \
	} while (0)

/* A Sprite that exists or may appear. */
struct sprite {
	char name[PROVIDER_NAME_MAX + 1];
	bool exists;
	unsigned denied;     /* so often "not found" was said of it; twice at most though it exists */
	uint64_t appears_us; /* 0 = not on its way */
};

struct waiter {
	struct machine_waiter machine;
	bool used;
};

enum operation { NONE, CREATE, PREPARE, WAKE, RESTORE, DESTROY };

struct member {
	enum operation operation;
	bool leased, open;
	bool leftover;
	uint64_t destroy_told_us;
	uint64_t denied_us; /* first of the answers in a row that it does not exist; 0 = none */
	bool used, clean; /* by `tenant`; restored since */
	uint64_t tenant;  /* who has it, or had it last */
};

struct tenant {
	size_t held;
	uint64_t claimed_us; /* 0 = never */
};

/* How many may run, as the provider said last. */
struct told_limit {
	uint64_t limit, until_us; /* 0 = it has not; for an hour */
};

struct model {
	uint64_t seed, random;
	size_t events;
	uint64_t now_us;
	struct machine machine;
	struct machine_options options;
	struct sprite sprites[SPRITES];
	struct waiter waiters[WAITERS + 1];
	struct machine_waiter *queue[WAITERS + 1]; /* oldest first */
	size_t queued;
	struct machine_waiter *claiming;       /* the claim of the event that is being handled */
	struct member members[SLOTS];
	struct tenant tenants[TENANTS];
	uint64_t creations[CREATIONS]; /* when the last ones began; a ring */
	size_t created;
	uint64_t create_told_us, wake_told_us, restore_told_us; /* the provider said: not before */
	struct told_limit listed_limit, refused_limit;
	size_t kept; /* Sprites that have left the pool and still exist */
	uint64_t hedges, claims;
	uint64_t wakes; /* begun in this step */
	unsigned names;
	bool listing, stopping, stopped;
	const char *finding;   /* what the list has at this moment and the machine did not */
	bool listed;           /* one listing has told everything */
	size_t left;
	uint64_t tenants_used;
	unsigned trouble; /* percent of operations that go wrong */
};

static uint64_t any(struct model *model, uint64_t below)
{
	/* splitmix64 */
	uint64_t z = (model->random += UINT64_C(0x9e3779b97f4a7c15));
	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return (z ^ z >> 31) % below;
}

static bool chance(struct model *model, unsigned percent)
{
	return any(model, 100) < percent;
}

static struct member *member_of(struct model *model, const struct pool_member *member)
{
	return &model->members[member - model->machine.roster.slots];
}

/* --- the world -------------------------------------------------------------------------------- */

static struct sprite *sprite_find(struct model *model, const char *name)
{
	for (size_t i = 0; i < SPRITES; i++)
		if (strcmp(model->sprites[i].name, name) == 0)
			return &model->sprites[i];
	return NULL;
}

static struct sprite *sprite_new(struct model *model, const char *name)
{
	struct sprite *sprite = sprite_find(model, "");
	CHECK(model, sprite);
	strcpy(sprite->name, name);
	return sprite;
}

static void sprite_forget(struct sprite *sprite)
{
	if (sprite)
		*sprite = (struct sprite){0};
}

static bool exists(struct model *model, const char *name)
{
	struct sprite *sprite = sprite_find(model, name);
	return sprite && sprite->exists;
}

static bool is_held(struct model *model, const char *name)
{
	for (int state = 0; state < POOL_GONE; state++) {
		struct pool_member *member;
		DL_FOREACH (model->machine.roster.lists[state], member)
			if (strcmp(member->name, name) == 0)
				return true;
	}
	return false;
}

/* It was denied twice and given up: until the list has it again. */
static bool is_given_up(struct model *model, const struct sprite *sprite)
{
	return sprite->exists && sprite->denied > 1 && !is_held(model, sprite->name);
}

static void let_late_ones_appear(struct model *model)
{
	for (size_t i = 0; i < SPRITES; i++) {
		struct sprite *sprite = &model->sprites[i];
		if (!sprite->appears_us || sprite->appears_us > model->now_us)
			continue;
		sprite->appears_us = 0;
		sprite->exists = true;
		sprite->denied = 1; /* truly, before it appeared */
	}
}
