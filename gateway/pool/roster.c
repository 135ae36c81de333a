#include "gateway/pool/roster.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <utlist.h>

int roster_init(struct roster *roster, size_t capacity)
{
	*roster = (struct roster){.slots = calloc(capacity, sizeof *roster->slots)};
	if (!roster->slots)
		return -ENOMEM;
	roster->capacity = capacity;
	for (size_t i = capacity; i; i--)
		LL_PREPEND(roster->free, &roster->slots[i - 1]);
	return 0;
}

void roster_deinit(struct roster *roster)
{
	free(roster->slots);
	*roster = (struct roster){0};
}

static void enlist(struct roster *roster, struct pool_member *member, enum pool_state state, uint64_t now_us)
{
	member->state = state;
	member->since_us = now_us;
	roster->counts[state]++;
	if (state == POOL_HOT || state == POOL_WARM)
		DL_PREPEND(roster->lists[state], member);
	else
		DL_APPEND(roster->lists[state], member);
}

static void delist(struct roster *roster, struct pool_member *member)
{
	DL_DELETE(roster->lists[member->state], member);
	roster->counts[member->state]--;
}

struct pool_member *roster_new(struct roster *roster, enum pool_state state, uint64_t now_us)
{
	struct pool_member *member = roster->free;
	if (!member)
		return NULL;
	LL_DELETE(roster->free, member);
	*member = (struct pool_member){.created_us = now_us};
	enlist(roster, member, state, now_us);
	return member;
}

void roster_impossible(struct roster *roster)
{
	roster->impossible++;
	assert(!"impossible");
}

bool roster_move(struct roster *roster, struct pool_member *member, enum pool_state to, uint64_t now_us)
{
	if (!pool_state_allows(member->state, to)) {
		roster_impossible(roster);
		return false;
	}
	delist(roster, member);
	enlist(roster, member, to, now_us);
	return true;
}

static int newer_first(const struct pool_member *a, const struct pool_member *b)
{
	return (a->since_us < b->since_us) - (a->since_us > b->since_us);
}

void roster_backdate(struct roster *roster, struct pool_member *member, uint64_t since_us)
{
	struct pool_member **list = &roster->lists[member->state];
	DL_DELETE(*list, member);
	member->since_us = since_us;
	DL_INSERT_INORDER(*list, member, newer_first);
}

void roster_reap(struct roster *roster)
{
	struct pool_member *member, *next;
	DL_FOREACH_SAFE (roster->lists[POOL_GONE], member, next) {
		delist(roster, member);
		LL_PREPEND(roster->free, member);
	}
}

void roster_age(struct roster *roster, uint64_t max_age_us, uint64_t now_us)
{
	static const enum pool_state states[] = {POOL_HOT, POOL_WARM};
	for (size_t i = 0; i < ARRAY_LEN(states); i++) {
		struct pool_member *member;
		DL_FOREACH (roster->lists[states[i]], member)
			member->aged = member->created_us + max_age_us <= now_us;
	}
}

bool roster_is_parked(const struct pool_member *member)
{
	return member->state == POOL_WARM && !member->asked;
}

size_t roster_total(const struct roster *roster)
{
	size_t total = 0;
	for (int state = 0; state < POOL_GONE; state++)
		total += roster->counts[state];
	return total;
}

struct pool_member *roster_find(const struct roster *roster, const char *name)
{
	for (int state = 0; state < POOL_GONE; state++) {
		struct pool_member *member;
		DL_FOREACH (roster->lists[state], member)
			if (strcmp(member->name, name) == 0)
				return member;
	}
	return NULL;
}
