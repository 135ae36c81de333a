/*
 * sizing - how many members should be hot, and how many warm
 *
 *   hot    Erlang-B over the time a wake takes: one more is worth it while the wakes it saves are worth more than its idling. In a
 *          burst on a pool at rest as many as the largest burst of the last day would still bring.
 *   warm   Erlang-B over the time a creation takes, or what the largest burst of the last day took beyond what could be
 *          created while it lasted, whichever is more.
 *
 * Pure arithmetic; no clock, no state. One-for-one replacement of Poisson demand loses exactly B(stock, rate × lead time) of the
 * claims, whatever the distribution of the lead time (Palm's theorem for Erlang's loss formula).
 */
#pragma once

#include "gateway/pool/demand.h"
#include "gateway/pool/spend.h"

/* Members at most. */
#define SIZING_MAX 1000

/* A tier that the controller sizes. */
#define SIZING_AUTO SIZE_MAX

/* Prices of the provider: RAM of an idle Sprite (4 GB), and one CPU more while it works. */
#define SIZING_IDLE_USD_PER_SECOND 0.0000486
#define SIZING_BUSY_USD_PER_SECOND 0.0000681

/* What it is worth that one claim need not wait for a wake. */
#define SIZING_WAKE_USD 0.003

/* An idle member that the present rate does not justify stays hot for as long as its idling costs less than the wake it may save
 * (ski rental: at most twice the cost of knowing the future). */
#define SIZING_KEEP_US ((uint64_t)(SIZING_WAKE_USD / SIZING_IDLE_USD_PER_SECOND * 1000000))

struct sizing_options {
	size_t hot, warm;        /* fixed, or SIZING_AUTO */
	size_t max;              /* members of every kind */
	size_t running_limit;    /* Sprites that may run at once; 0 = not known */
	size_t warm_limit;       /* Sprites that may be paused at once; 0 = not known */
	uint64_t create_limit;   /* creations per create_window_us; 0 = not known */
	uint64_t create_window_us;
};

struct sizing_input {
	const struct demand *demand;
	double wake_s, supply_s; /* 95 % of wakes, of creations with their preparation, take at most this */
	double others_rate;      /* claims a second of the others of a shared pool, for whom the warm tier is, too */
	size_t leased;
	enum spend_level level;
};

struct sizing {
	size_t hot, warm;
};

/* Of the creations that the limit allows in its window, so many are left to those who wait. */
size_t sizing_reserve(uint64_t create_limit);

/* The share of claims that finds all of `stock` taken, `offered` = rate × lead time. */
double sizing_erlang_b(size_t stock, double offered);

/* The least stock that is missed by at most this share of the claims; at most `most`. */
size_t sizing_stock(double offered, double miss, size_t most);

struct sizing sizing_decide(const struct sizing_options *options, const struct sizing_input *input);
