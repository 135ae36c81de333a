/*
 * demand - how fast claims come: a fast and a slow rate, and the largest bursts of the last day
 *
 * Pure: no clock. Claims are counted in whole seconds.
 *
 * Bounds:     fixed size, no allocation.
 * Invariants: time never goes back; what is read is as of the last demand_pass() or demand_claim().
 */
#pragma once

#include "gateway/base/slice.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DEMAND_SECONDS 1800 /* the longest window */
#define DEMAND_WINDOWS 9
#define DEMAND_HOURS   24 /* for how long a burst is remembered */

/* Length of each window in seconds, shortest first. */
extern const unsigned demand_windows[DEMAND_WINDOWS];

struct demand {
	uint64_t began_s, now_s;
	uint64_t claimed_us; /* the last claim; 0 = there was none */
	bool together;       /* it came so soon after the one before that both are of one burst */
	uint32_t seconds[DEMAND_SECONDS];
	uint32_t sums[DEMAND_WINDOWS];                 /* claims in the window that ends now */
	uint32_t most[DEMAND_HOURS][DEMAND_WINDOWS];   /* largest sum of each hour */
};

void demand_init(struct demand *demand, uint64_t now_us);
void demand_pass(struct demand *demand, uint64_t now_us);
void demand_claim(struct demand *demand, uint64_t now_us);

/* Claims a second. Fast: over a minute, or over the last seconds while they are a burst. Slow: over ten minutes. */
double demand_fast(const struct demand *demand);
double demand_slow(const struct demand *demand);

/* Within the last seconds claims came again, after a minute without: a burst may have begun. */
bool demand_begins(const struct demand *demand);

/* Three claims or more within the last seconds, and at least twice the rate of the last minute. */
bool demand_bursts(const struct demand *demand);

/* A burst has begun (demand_begins, and demand_bursts or two claims at once): how many more claims would make it as large as the largest
 * of the last day. */
uint32_t demand_ahead(const struct demand *demand);

/* The most claims that came within one window of this index (demand_windows) during the last day. */
uint32_t demand_most(const struct demand *demand, size_t window);
