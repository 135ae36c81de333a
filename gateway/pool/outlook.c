#include "gateway/pool/outlook.h"

void estimate_add(struct estimate *estimate, uint64_t took_us)
{
	if (!estimate->measured) {
		*estimate = (struct estimate){.mean_us = took_us, .deviation_us = took_us / 2, .measured = true};
		return;
	}
	uint64_t mean = estimate->mean_us;
	uint64_t off = took_us > mean ? took_us - mean : mean - took_us;
	/* The gains of TCP's round-trip estimator (RFC 6298 section 2). */
	estimate->deviation_us = (3 * estimate->deviation_us + off) / 4;
	estimate->mean_us = (7 * mean + took_us) / 8;
}

uint64_t estimate_optimistic_us(const struct estimate *estimate)
{
	uint64_t mean = estimate->mean_us;
	uint64_t spread = 2 * estimate->deviation_us;
	if (!estimate->measured)
		return 0;
	return spread < mean - mean / 4 ? mean - spread : mean / 4;
}

static uint64_t add_capped(uint64_t a, uint64_t b)
{
	return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

uint64_t outlook_ready_us(const struct outlook *outlook, size_t position)
{
	if (position < outlook->on_way)
		return outlook->ready_us[position];
	size_t behind = position - outlook->on_way;
	uint64_t start = outlook->opens_us > outlook->now_us ? outlook->opens_us : outlook->now_us;
	uint64_t fits_us = budget_opens_us(outlook->budget, behind, outlook->optimistic);
	if (fits_us > start)
		start = fits_us;
	uint64_t ready = add_capped(start, outlook->lead_us);
	if (behind < outlook->room || !outlook->max)
		return ready;
	uint64_t rounds = 1 + (behind - outlook->room) / outlook->max;
	return add_capped(ready, rounds * outlook->turnover_us);
}
