/*
 * outlook - when could a waiter be served? Arithmetic on measured times
 *
 * Two answers: the optimistic one decides whether waiting is certainly in vain, the expected one is told to refused callers.
 * Pure.
 */
#pragma once

#include "gateway/pool/budget.h"

/* An exponentially weighted mean and mean deviation of measured times. */
struct estimate {
	uint64_t mean_us;
	uint64_t deviation_us;
	bool measured;
};

void estimate_add(struct estimate *estimate, uint64_t took_us);

/* A time that is seldom undercut; 0 before anything was measured, so that nobody is refused on a guess. */
uint64_t estimate_optimistic_us(const struct estimate *estimate);

struct outlook {
	uint64_t now_us;
	const uint64_t *ready_us; /* when each member on its way will be ready, soonest first; borrowed */
	size_t on_way;
	uint64_t opens_us;        /* when creations may start; 0 = now, UINT64_MAX = no time is known */
	const struct budget *budget; /* of creations; borrowed */
	bool optimistic;
	size_t room;              /* members that may be created before one must be destroyed */
	size_t max;
	uint64_t lead_us;         /* create plus prepare */
	uint64_t turnover_us;     /* until a leased member is released and destroyed; 0 for the optimistic answer */
};

/* When the waiter with `position` others before it will be served; UINT64_MAX = cannot be said. */
uint64_t outlook_ready_us(const struct outlook *outlook, size_t position);
