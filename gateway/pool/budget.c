#include "gateway/pool/budget.h"

/* What the smallest plan of the provider allows; taken when a refusal does not say its limit. */
#define CEILING_GUESS   10
#define PERIOD_GUESS_US UINT64_C(60000000)

#define CEILING_MAX   BUDGET_CEILING_MAX
#define PERIOD_MAX_US UINT64_C(3600000000)

static uint64_t cost_us(const struct budget *budget)
{
	return budget->count ? budget->period_us / budget->count : 0;
}

static void set_opening(struct budget *budget, uint64_t opens_us)
{
	budget->full_us = opens_us + budget->period_us - cost_us(budget);
}

static void take_limit(struct budget *budget, const struct provider_limit *limit)
{
	if (limit->count)
		budget->ceiling = limit->count < CEILING_MAX ? limit->count : CEILING_MAX;
	if (limit->window_ms)
		budget->period_us = limit->window_ms < PERIOD_MAX_US / 1000 ? limit->window_ms * 1000 : PERIOD_MAX_US;
	if (!budget->ceiling)
		budget->ceiling = CEILING_GUESS;
	if (!budget->period_us)
		budget->period_us = PERIOD_GUESS_US;
	if (!budget->count || budget->count > budget->ceiling)
		budget->count = budget->ceiling;
}

/* The new ceiling is still reached step by step, one more with each success (budget_raise). */
static void outgrow(struct budget *budget, uint64_t now_us)
{
	while (budget->heard_us && now_us >= budget->heard_us + BUDGET_QUIET_PERIODS * budget->period_us) {
		budget->heard_us += budget->period_us;
		budget->ceiling *= 2;
		if (budget->own_ceiling ? budget->ceiling * budget->own_us < budget->own_ceiling * budget->period_us
					: budget->ceiling < CEILING_MAX)
			continue;
		budget->heard_us = 0;
		budget->ceiling = budget->own_ceiling;
		budget->period_us = budget->own_us;
		if (budget->count > budget->ceiling)
			budget->count = budget->ceiling;
	}
}

void budget_configure(struct budget *budget, uint64_t count, uint64_t period_us)
{
	if (!count)
		return;
	take_limit(budget, &(struct provider_limit){.count = count, .window_ms = period_us / 1000});
	budget->own_ceiling = budget->ceiling;
	budget->own_us = budget->period_us;
}

void budget_learn(struct budget *budget, uint64_t now_us, const struct provider_limit *limit)
{
	outgrow(budget, now_us);
	if (!limit->count)
		return;
	take_limit(budget, limit);
	budget->heard_us = now_us;
	uint64_t used = limit->left < budget->count ? budget->count - limit->left : 0;
	uint64_t full_us = now_us + used * cost_us(budget);
	if (full_us > budget->full_us)
		budget->full_us = full_us;
}

void budget_halve(struct budget *budget, uint64_t opens_us, const struct provider_limit *limit)
{
	take_limit(budget, limit);
	budget->heard_us = opens_us;
	uint64_t planned_us = budget_opens_us(budget, 0, false);
	budget->count = budget->count > 1 ? budget->count / 2 : 1;
	set_opening(budget, opens_us > planned_us ? opens_us : planned_us);
}

void budget_postpone(struct budget *budget, uint64_t opens_us)
{
	if (budget->count && opens_us > budget->heard_us)
		budget->heard_us = opens_us;
	if (budget->count && opens_us > budget_opens_us(budget, 0, false))
		set_opening(budget, opens_us);
}

void budget_spend(struct budget *budget, uint64_t now_us)
{
	outgrow(budget, now_us);
	budget->made_us[budget->made++ % BUDGET_CEILING_MAX] = now_us;
	if (budget->count)
		budget->full_us = (budget->full_us > now_us ? budget->full_us : now_us) + cost_us(budget);
}

void budget_raise(struct budget *budget)
{
	if (budget->count && budget->count < budget->ceiling)
		budget->count++;
}

/* When the one that it would be too many with has left the period. */
static uint64_t window_opens_us(const struct budget *budget, uint64_t count, size_t position)
{
	uint64_t periods = 1 + position / count, before = count - position % count;
	if (before > budget->made)
		return 0;
	return budget->made_us[(budget->made - before) % BUDGET_CEILING_MAX] + periods * budget->period_us;
}

uint64_t budget_opens_us(const struct budget *budget, size_t position, bool optimistic)
{
	if (!budget->count)
		return 0;
	uint64_t count = optimistic ? budget->ceiling : budget->count;
	uint64_t fits_us = budget->full_us + (position + 1) * (budget->period_us / count);
	uint64_t rate_us = fits_us > budget->period_us ? fits_us - budget->period_us : 0;
	uint64_t window_us = window_opens_us(budget, count, position);
	return rate_us > window_us ? rate_us : window_us;
}
