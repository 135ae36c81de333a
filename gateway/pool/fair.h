/*
 * fair - how much of the pool one tenant may take
 *
 * Dynamic threshold (Choudhury and Hahne, 1998): while others want something, a tenant may hold as many members as are free. One
 * greedy tenant ends at a half, two at a third each, and whoever comes new finds something. A tenant that is alone may hold all.
 * What a tenant holds, and who wants something, is counted here and, as far as fair_told() has said, in the other machines of the pool.
 *
 * Owns:       one record for each tenant that holds or waits.
 * Lifetime:   fair_init … fair_deinit.
 * Bounds:     `capacity` tenants at once.
 */
#pragma once

#include "gateway/base/slice.h"
#include "gateway/pool/lease.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* So long after its last claim another tenant still wants something. */
#define FAIR_MEMORY_US (UINT64_C(60) * 1000000)

struct fair_tenant {
	uint64_t id;
	size_t held, waiting;
	struct fair_tenant *prev, *next;
};

struct fair {
	struct fair_tenant *slots, *free, *tenants;
	size_t held; /* by all */
	const struct lease_tenant *elsewhere; /* borrowed */
	size_t elsewhere_count;
	/* The last claimant, and the last one that was another. */
	struct {
		uint64_t id, at_us;
		bool set;
	} seen[LEASE_CLAIMANTS];
};

/* -ENOMEM. */
MUST_CHECK int fair_init(struct fair *fair, size_t capacity);
void fair_deinit(struct fair *fair);

/* A claim of this tenant comes. The record is valid while it holds or waits, and until the next fair_claim(). */
struct fair_tenant *fair_claim(struct fair *fair, uint64_t id, uint64_t now_us);

void fair_wait(struct fair *fair, struct fair_tenant *tenant);
void fair_unwait(struct fair *fair, struct fair_tenant *tenant);
void fair_hold(struct fair *fair, struct fair_tenant *tenant);
void fair_unhold(struct fair *fair, struct fair_tenant *tenant);

/* What tenants hold and want in other machines. Borrowed until the next call. */
void fair_told(struct fair *fair, const struct lease_tenant *tenants, size_t count);

/* Who has claimed within FAIR_MEMORY_US: the last one, and the last that was another, which tells everybody that somebody else wants
 * something. Returns how many. */
size_t fair_claimants(const struct fair *fair, uint64_t now_us, uint64_t ids[LEASE_CLAIMANTS]);

/* How many more members this tenant may take now, of a pool of `capacity`: what others than these tenants hold is not part of it. */
size_t fair_allows(const struct fair *fair, const struct fair_tenant *tenant, size_t capacity, uint64_t now_us);

/* When fair_allows() may say more without anything having happened; UINT64_MAX = never. */
uint64_t fair_next_due(const struct fair *fair, uint64_t now_us);
