#include "gateway/pool/spend.h"

#include "gateway/pool/sizing.h"

#define DAY_US (UINT64_C(24) * 3600 * 1000000)

/* Sums of these are still numbers. */
#define SAID_MOST (UINT64_MAX / 4)

#define NUSD(usd) ((uint64_t)((usd) * 1000000000 + 0.5))

void spend_init(struct spend *spend, uint64_t allowed_nusd, uint64_t now_us)
{
	*spend = (struct spend){.allowed_nusd = allowed_nusd, .day_us = now_us, .at_us = now_us};
}

static void begin_day(struct spend *spend, uint64_t renews_us)
{
	spend->told_nusd = spend->missing_nusd = 0;
	spend->said_nusd = spend->total_nusd;
	spend->renews_us = renews_us;
}

void spend_pass(struct spend *spend, uint64_t now_us, uint64_t idle_us, size_t busy)
{
	uint64_t busy_us = (now_us - spend->at_us) * busy;
	uint64_t nusd = (idle_us * NUSD(SIZING_IDLE_USD_PER_SECOND) + busy_us * NUSD(SIZING_BUSY_USD_PER_SECOND)) / 1000000;
	spend->at_us = now_us;
	if (spend->shared && now_us >= spend->renews_us)
		begin_day(spend, now_us + DAY_US);
	spend->idle_us += idle_us;
	spend->total_nusd += nusd;
	while (now_us >= spend->day_us + DAY_US) {
		spend->day_us += DAY_US;
		spend->day_nusd = 0;
	}
	spend->day_nusd += nusd;
}

void spend_told(struct spend *spend, uint64_t now_us, uint64_t told_nusd, uint64_t left_us, uint64_t said_nusd, bool counted)
{
	told_nusd = told_nusd < SAID_MOST ? told_nusd : SAID_MOST;
	left_us = left_us < DAY_US ? left_us : DAY_US;
	/* The end of one day is always about where it was. */
	if (!spend->shared || now_us + left_us > spend->renews_us + DAY_US / 2)
		begin_day(spend, 0);
	uint64_t ours = said_nusd > spend->said_nusd ? said_nusd - spend->said_nusd : 0;
	uint64_t before = !counted ? told_nusd : told_nusd > ours ? told_nusd - ours : 0;
	if (!counted)
		spend->missing_nusd += ours;
	/* It was flushed, or set back. */
	if (before < spend->told_nusd)
		spend->missing_nusd += spend->told_nusd - before;
	spend->shared = true;
	spend->told_nusd = told_nusd;
	spend->said_nusd = said_nusd;
	spend->renews_us = now_us + left_us;
}

static uint64_t day_nusd(const struct spend *spend)
{
	return spend->shared ? spend->told_nusd + spend->missing_nusd + spend->total_nusd - spend->said_nusd : spend->day_nusd;
}

enum spend_level spend_level(const struct spend *spend)
{
	uint64_t allowed = spend->allowed_nusd, spent = day_nusd(spend);
	if (!allowed || spent < allowed / 10 * 8)
		return SPEND_FREE;
	if (spent < allowed / 10 * 9)
		return SPEND_NO_IDLING;
	return spent < allowed ? SPEND_NO_STOCK : SPEND_NOTHING;
}

uint64_t spend_renews_us(const struct spend *spend)
{
	return spend->shared ? spend->renews_us : spend->day_us + DAY_US;
}
