/*
 * quantile - quantiles of the last measured times
 *
 * Pure; fixed size.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define QUANTILE_SAMPLES 64

struct quantile {
	uint32_t ms[QUANTILE_SAMPLES];
	size_t count, next;
};

void quantile_add(struct quantile *quantile, uint64_t took_us);

/* In microseconds; `otherwise_us` while too little was measured to tell (fewer than 8). `share` is within 0 … 1. */
uint64_t quantile_us(const struct quantile *quantile, double share, uint64_t otherwise_us);
