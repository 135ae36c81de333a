#include "gateway/pool/demand.h"

#include <string.h>

#define SECOND_US UINT64_C(1000000)
#define HOUR_S    3600

/* Two claims that are no further apart, after a rest, are hardly chance. */
#define TOGETHER_US (SECOND_US / 4)

enum { PANIC = 2, MINUTE = 5, SLOW = 7 };

const unsigned demand_windows[DEMAND_WINDOWS] = {1, 3, 6, 12, 30, 60, 180, 600, DEMAND_SECONDS};

void demand_init(struct demand *demand, uint64_t now_us)
{
	*demand = (struct demand){.began_s = now_us / SECOND_US, .now_s = now_us / SECOND_US};
}

static uint32_t *second_at(struct demand *demand, uint64_t second)
{
	return &demand->seconds[second % DEMAND_SECONDS];
}

static void next_second(struct demand *demand)
{
	uint64_t next = demand->now_s + 1;
	for (size_t i = 0; i < DEMAND_WINDOWS; i++)
		if (next >= demand_windows[i])
			demand->sums[i] -= *second_at(demand, next - demand_windows[i]);
	*second_at(demand, next) = 0;
	if (next % HOUR_S == 0)
		memset(demand->most[next / HOUR_S % DEMAND_HOURS], 0, sizeof demand->most[0]);
	demand->now_s = next;
}

/* So long that nothing in any window is left. */
static void skip(struct demand *demand, uint64_t to_s)
{
	memset(demand->seconds, 0, sizeof demand->seconds);
	memset(demand->sums, 0, sizeof demand->sums);
	uint64_t hours = to_s / HOUR_S - demand->now_s / HOUR_S;
	for (uint64_t i = 0; i < hours && i < DEMAND_HOURS; i++)
		memset(demand->most[(to_s / HOUR_S - i) % DEMAND_HOURS], 0, sizeof demand->most[0]);
	demand->now_s = to_s;
}

void demand_pass(struct demand *demand, uint64_t now_us)
{
	uint64_t to_s = now_us / SECOND_US;
	if (to_s > demand->now_s + DEMAND_SECONDS)
		skip(demand, to_s);
	while (demand->now_s < to_s)
		next_second(demand);
}

void demand_claim(struct demand *demand, uint64_t now_us)
{
	demand_pass(demand, now_us);
	demand->together = demand->claimed_us && now_us - demand->claimed_us <= TOGETHER_US;
	demand->claimed_us = now_us;
	++*second_at(demand, demand->now_s);
	uint32_t *most = demand->most[demand->now_s / HOUR_S % DEMAND_HOURS];
	for (size_t i = 0; i < DEMAND_WINDOWS; i++)
		if (++demand->sums[i] > most[i])
			most[i] = demand->sums[i];
}

static double rate(const struct demand *demand, size_t window)
{
	return (double)demand->sums[window] / demand_windows[window];
}

bool demand_begins(const struct demand *demand)
{
	return demand->sums[PANIC] && demand->sums[PANIC] == demand->sums[MINUTE];
}

bool demand_bursts(const struct demand *demand)
{
	return demand->sums[PANIC] >= 3 && rate(demand, PANIC) >= 2 * rate(demand, MINUTE);
}

uint32_t demand_ahead(const struct demand *demand)
{
	bool burst = demand_bursts(demand) || demand->together;
	return demand_begins(demand) && burst ? demand_most(demand, PANIC) - demand->sums[PANIC] : 0;
}

double demand_fast(const struct demand *demand)
{
	return rate(demand, demand_bursts(demand) ? PANIC : MINUTE);
}

/* A pool that has just begun has not seen ten minutes yet. */
double demand_slow(const struct demand *demand)
{
	uint64_t seen_s = demand->now_s - demand->began_s;
	if (seen_s >= demand_windows[SLOW])
		return rate(demand, SLOW);
	uint64_t over_s = seen_s > demand_windows[MINUTE] ? seen_s : demand_windows[MINUTE];
	return (double)demand->sums[SLOW] / (double)over_s;
}

uint32_t demand_most(const struct demand *demand, size_t window)
{
	uint32_t most = 0;
	for (size_t i = 0; i < DEMAND_HOURS; i++)
		if (demand->most[i][window] > most)
			most = demand->most[i][window];
	return most;
}
