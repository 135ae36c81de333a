/*
 * budget - how many creations the provider lets us make in a period: learnt from what it says, halved when it refuses,
 *          outgrown when it has long said nothing
 *
 * The generic cell rate algorithm (GCRA): each creation costs period / count, and what was not used for a whole period may be
 * used at once. GCRA alone would follow such a burst with more than count in one period, which a provider that counts by windows
 * refuses: so no period ever has more than count. Until the provider has said a limit or refused, nothing is held back. A limit that
 * it has neither named nor enforced for BUDGET_QUIET_PERIODS may have been a passing one: from then on the ceiling doubles with each
 * period until nothing holds back, or until it is what was configured.
 *
 * Pure: no clock, no I/O.
 * Invariants: 1 <= count <= ceiling once a limit is known.
 */
#pragma once

#include "gateway/sprites/provider.h"

#define BUDGET_CEILING_MAX   1000
#define BUDGET_QUIET_PERIODS 10

struct budget {
	uint64_t ceiling; /* creations per period that the provider allows; guessed while it has not said so */
	uint64_t count;   /* creations per period that we make; 0 = no limit is known */
	uint64_t period_us;
	uint64_t heard_us; /* when the provider last named its limit, or the end of its last refusal; 0 = never, or outgrown */
	uint64_t own_ceiling, own_us; /* what was configured, and its period; 0 = nothing */
	uint64_t full_us; /* when all of it can be used again (GCRA's theoretical arrival time) */
	uint64_t made_us[BUDGET_CEILING_MAX]; /* when the last creations began; a ring */
	uint64_t made;
};

/* The limit that is configured; before all else. A count of 0 = none is. */
void budget_configure(struct budget *budget, uint64_t count, uint64_t period_us);

/* A creation succeeded; `limit` is what the provider told with it. */
void budget_learn(struct budget *budget, uint64_t now_us, const struct provider_limit *limit);

/* It refused: half as many, the next one at opens_us. `limit` may be empty. */
void budget_halve(struct budget *budget, uint64_t opens_us, const struct provider_limit *limit);

/* The refusal was of a creation that was on its way when an earlier one was refused: it only says when. */
void budget_postpone(struct budget *budget, uint64_t opens_us);

/* A creation begins; one succeeded. */
void budget_spend(struct budget *budget, uint64_t now_us);
void budget_raise(struct budget *budget);

/* When the creation with `position` others before it fits; 0 = at once. `optimistic`: as if the budget had grown to its ceiling. */
uint64_t budget_opens_us(const struct budget *budget, size_t position, bool optimistic);
