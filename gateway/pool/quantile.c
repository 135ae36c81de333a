#include "gateway/pool/quantile.h"

#include <stdlib.h>
#include <string.h>

#define ENOUGH 8

void quantile_add(struct quantile *quantile, uint64_t took_us)
{
	uint64_t ms = (took_us + 999) / 1000;
	quantile->ms[quantile->next] = ms < UINT32_MAX ? (uint32_t)ms : UINT32_MAX;
	quantile->next = (quantile->next + 1) % QUANTILE_SAMPLES;
	if (quantile->count < QUANTILE_SAMPLES)
		quantile->count++;
}

static int by_time(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return (x > y) - (x < y);
}

uint64_t quantile_us(const struct quantile *quantile, double share, uint64_t otherwise_us)
{
	uint32_t sorted[QUANTILE_SAMPLES];
	if (quantile->count < ENOUGH)
		return otherwise_us;
	memcpy(sorted, quantile->ms, quantile->count * sizeof sorted[0]);
	qsort(sorted, quantile->count, sizeof sorted[0], by_time);
	size_t at = (size_t)(share * (double)quantile->count);
	return (uint64_t)sorted[at < quantile->count ? at : quantile->count - 1] * 1000;
}
