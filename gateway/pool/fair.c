#include "gateway/pool/fair.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <utlist.h>

int fair_init(struct fair *fair, size_t capacity)
{
	*fair = (struct fair){.slots = calloc(capacity, sizeof *fair->slots)};
	if (!fair->slots)
		return -ENOMEM;
	for (size_t i = capacity; i; i--)
		LL_PREPEND(fair->free, &fair->slots[i - 1]);
	return 0;
}

void fair_deinit(struct fair *fair)
{
	free(fair->slots);
	*fair = (struct fair){0};
}

static void forget(struct fair *fair, struct fair_tenant *tenant)
{
	if (tenant->held || tenant->waiting)
		return;
	DL_DELETE(fair->tenants, tenant);
	LL_PREPEND(fair->free, tenant);
}

static void note(struct fair *fair, uint64_t id, uint64_t now_us)
{
	if (!fair->seen[0].set || fair->seen[0].id != id) {
		fair->seen[1] = fair->seen[0];
		fair->seen[0].set = true;
		fair->seen[0].id = id;
	}
	fair->seen[0].at_us = now_us;
}

struct fair_tenant *fair_claim(struct fair *fair, uint64_t id, uint64_t now_us)
{
	struct fair_tenant *tenant, *next;
	note(fair, id, now_us);
	DL_FOREACH_SAFE (fair->tenants, tenant, next) {
		if (tenant->id == id)
			return tenant;
		forget(fair, tenant); /* one that was refused */
	}
	tenant = fair->free;
	assert(tenant);
	LL_DELETE(fair->free, tenant);
	*tenant = (struct fair_tenant){.id = id};
	DL_APPEND(fair->tenants, tenant);
	return tenant;
}

void fair_wait(struct fair *fair UNUSED, struct fair_tenant *tenant)
{
	tenant->waiting++;
}

void fair_unwait(struct fair *fair, struct fair_tenant *tenant)
{
	tenant->waiting--;
	forget(fair, tenant);
}

void fair_hold(struct fair *fair, struct fair_tenant *tenant)
{
	tenant->held++;
	fair->held++;
}

void fair_unhold(struct fair *fair, struct fair_tenant *tenant)
{
	tenant->held--;
	fair->held--;
	forget(fair, tenant);
}

void fair_told(struct fair *fair, const struct lease_tenant *tenants, size_t count)
{
	fair->elsewhere = tenants;
	fair->elsewhere_count = count;
}

size_t fair_claimants(const struct fair *fair, uint64_t now_us, uint64_t ids[LEASE_CLAIMANTS])
{
	size_t n = 0;
	for (size_t i = 0; i < ARRAY_LEN(fair->seen); i++)
		if (fair->seen[i].set && now_us < fair->seen[i].at_us + FAIR_MEMORY_US)
			ids[n++] = fair->seen[i].id;
	return n;
}

static bool others_want(const struct fair *fair, uint64_t id, uint64_t now_us)
{
	for (size_t i = 0; i < ARRAY_LEN(fair->seen); i++)
		if (fair->seen[i].set && fair->seen[i].id != id && now_us < fair->seen[i].at_us + FAIR_MEMORY_US)
			return true;
	const struct fair_tenant *tenant;
	DL_FOREACH (fair->tenants, tenant)
		if (tenant->id != id && (tenant->held || tenant->waiting))
			return true;
	for (size_t i = 0; i < fair->elsewhere_count; i++)
		if (fair->elsewhere[i].id != id)
			return true;
	return false;
}

static size_t held_by(const struct fair *fair, const struct fair_tenant *tenant)
{
	size_t held = tenant->held;
	for (size_t i = 0; i < fair->elsewhere_count; i++)
		held += fair->elsewhere[i].id == tenant->id ? fair->elsewhere[i].held : 0;
	return held;
}

size_t fair_allows(const struct fair *fair, const struct fair_tenant *tenant, size_t capacity, uint64_t now_us)
{
	size_t free = capacity > fair->held ? capacity - fair->held : 0, held = held_by(fair, tenant);
	if (!others_want(fair, tenant->id, now_us))
		return free;
	/* Each one taken is one more held and one less free. */
	return free > held ? (free - held + 1) / 2 : 0;
}

uint64_t fair_next_due(const struct fair *fair, uint64_t now_us)
{
	uint64_t next = UINT64_MAX;
	for (size_t i = 0; i < ARRAY_LEN(fair->seen); i++) {
		uint64_t ends_us = fair->seen[i].at_us + FAIR_MEMORY_US;
		if (fair->seen[i].set && ends_us > now_us && ends_us < next)
			next = ends_us;
	}
	return next;
}
