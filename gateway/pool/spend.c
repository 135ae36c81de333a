#include "gateway/pool/spend.h"

#include "gateway/pool/sizing.h"

#define DAY_US (UINT64_C(24) * 3600 * 1000000)

#define NUSD(usd) ((uint64_t)((usd) * 1000000000 + 0.5))

void spend_init(struct spend *spend, uint64_t allowed_nusd, uint64_t now_us)
{
	*spend = (struct spend){.allowed_nusd = allowed_nusd, .day_us = now_us, .at_us = now_us};
}

void spend_pass(struct spend *spend, uint64_t now_us, uint64_t idle_us, size_t busy)
{
	uint64_t busy_us = (now_us - spend->at_us) * busy;
	uint64_t nusd = (idle_us * NUSD(SIZING_IDLE_USD_PER_SECOND) + busy_us * NUSD(SIZING_BUSY_USD_PER_SECOND)) / 1000000;
	spend->at_us = now_us;
	spend->idle_us += idle_us;
	spend->total_nusd += nusd;
	while (now_us >= spend->day_us + DAY_US) {
		spend->day_us += DAY_US;
		spend->day_nusd = 0;
	}
	spend->day_nusd += nusd;
}

enum spend_level spend_level(const struct spend *spend)
{
	uint64_t allowed = spend->allowed_nusd;
	if (!allowed || spend->day_nusd < allowed / 10 * 8)
		return SPEND_FREE;
	if (spend->day_nusd < allowed / 10 * 9)
		return SPEND_NO_IDLING;
	return spend->day_nusd < allowed ? SPEND_NO_STOCK : SPEND_NOTHING;
}

uint64_t spend_renews_us(const struct spend *spend)
{
	return spend->day_us + DAY_US;
}
