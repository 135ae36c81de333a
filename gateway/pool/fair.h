/*
 * fair - how much of the pool one tenant may take
 *
 * Dynamic threshold (Choudhury and Hahne, 1998): while others want something, a tenant may hold as many members as are free. One
 * greedy tenant ends at a half, two at a third each, and whoever comes new finds something. A tenant that is alone may hold all.
 *
 * Owns:       one record for each tenant that holds or waits.
 * Lifetime:   fair_init … fair_deinit.
 * Bounds:     `capacity` tenants at once.
 */
#pragma once

#include "gateway/base/slice.h"

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
	/* The last claimant, and the last one that was another. */
	struct {
		uint64_t id, at_us;
		bool set;
	} seen[2];
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

/* How many more members this tenant may take now, of a pool of `capacity`. */
size_t fair_allows(const struct fair *fair, const struct fair_tenant *tenant, size_t capacity, uint64_t now_us);

/* When fair_allows() may say more without anything having happened; UINT64_MAX = never. */
uint64_t fair_next_due(const struct fair *fair, uint64_t now_us);
