#include "gateway/pool/gate.h"

#define SECOND_US UINT64_C(1000000)

#define RATE_LIMIT_DEFAULT_MS 10000
#define RETRY_AFTER_MAX_US    (3600 * SECOND_US) /* an absurd Retry-After must not switch the pool off for ever */
#define CAPACITY_US           (5 * SECOND_US)
#define THROTTLED_DEFAULT_MS  1000
#define UNAUTHORIZED_US       (30 * SECOND_US)
#define BACKOFF_FIRST_US      (SECOND_US / 2)
#define BACKOFF_MAX_US        (30 * SECOND_US)

static const char *const texts[GATE_REASONS] = {
	[GATE_RATE_LIMIT] = "rate-limit",   [GATE_CAPACITY] = "capacity",         [GATE_THROTTLED] = "throttled",
	[GATE_UNAVAILABLE] = "unavailable", [GATE_UNAUTHORIZED] = "unauthorized", [GATE_BUDGET] = "budget",
};

uint64_t gate_random(uint64_t *state)
{
	uint64_t x = *state;
	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return *state = x;
}

uint64_t gate_backoff_us(unsigned attempt, uint64_t *random)
{
	uint64_t full = BACKOFF_FIRST_US;
	for (unsigned i = 1; i < attempt && full < BACKOFF_MAX_US; i++)
		full *= 2;
	if (full > BACKOFF_MAX_US)
		full = BACKOFF_MAX_US;
	return full / 2 + gate_random(random) % (full / 2 + 1);
}

void gate_init(struct gate *gate, uint64_t seed)
{
	*gate = (struct gate){.window = GATE_WINDOW_MAX, .random = seed};
}

static void hold(struct gate *gate, enum gate_reason reason, uint64_t until_us)
{
	if (until_us > gate->until_us[reason])
		gate->until_us[reason] = until_us;
}

static uint64_t retry_us(uint64_t retry_after_ms, uint64_t default_ms)
{
	uint64_t ms = retry_after_ms ? retry_after_ms : default_ms;
	return ms < RETRY_AFTER_MAX_US / 1000 ? ms * 1000 : RETRY_AFTER_MAX_US;
}

static void unavailable(struct gate *gate, uint64_t now_us, uint64_t begun_us, uint64_t retry_after_ms)
{
	hold(gate, GATE_UNAVAILABLE, now_us + retry_us(retry_after_ms, 0));
	/* Attempts that were already under way when the last one failed say nothing new. */
	if (gate->failures && begun_us < gate->closed_us)
		return;
	gate->failures++;
	if (gate->failures > 1)
		gate->window = 1;
	hold(gate, GATE_UNAVAILABLE, now_us + gate_backoff_us(gate->failures, &gate->random));
}

static void hold_to_budget(struct gate *gate, uint64_t now_us)
{
	uint64_t opens_us = budget_opens_us(&gate->budget, 0, false);
	gate->until_us[GATE_BUDGET] = opens_us > now_us ? opens_us : 0;
}

static void rate_limited(struct gate *gate, uint64_t now_us, uint64_t begun_us, uint64_t retry_after_ms, const struct provider_limit *limit)
{
	uint64_t opens_us = now_us + retry_us(retry_after_ms, RATE_LIMIT_DEFAULT_MS);
	hold(gate, GATE_RATE_LIMIT, opens_us);
	/* Creations that were on their way when one was refused say nothing new. */
	if (gate->refused_us && begun_us <= gate->refused_us)
		budget_postpone(&gate->budget, opens_us);
	else
		budget_halve(&gate->budget, opens_us, limit);
	gate->refused_us = now_us;
	gate->window = 1;
	hold_to_budget(gate, now_us);
}

static void full(struct gate *gate, uint64_t now_us, uint64_t retry_after_ms)
{
	uint64_t told_us = now_us + retry_us(retry_after_ms, 0);
	if (retry_after_ms && told_us > gate->told_us)
		gate->told_us = told_us;
	hold(gate, GATE_CAPACITY, retry_after_ms ? told_us : now_us + CAPACITY_US);
	gate->window = 1;
}

void gate_failed(struct gate *gate, uint64_t now_us, uint64_t begun_us, enum provider_code code, uint64_t retry_after_ms,
		 const struct provider_limit *limit)
{
	switch (code) {
	case PROVIDER_RATE_LIMIT:
		rate_limited(gate, now_us, begun_us, retry_after_ms, limit);
		break;
	case PROVIDER_CAPACITY:
		full(gate, now_us, retry_after_ms);
		break;
	case PROVIDER_THROTTLED:
		hold(gate, GATE_THROTTLED, now_us + retry_us(retry_after_ms, THROTTLED_DEFAULT_MS));
		return;
	case PROVIDER_UNAUTHORIZED:
		hold(gate, GATE_UNAUTHORIZED, now_us + UNAUTHORIZED_US);
		gate->window = 1;
		break;
	default:
		unavailable(gate, now_us, begun_us, retry_after_ms);
		break;
	}
	gate->closed_us = now_us;
}

void gate_creating(struct gate *gate, uint64_t now_us)
{
	budget_spend(&gate->budget, now_us);
	hold_to_budget(gate, now_us);
}

void gate_created(struct gate *gate, uint64_t now_us, uint64_t begun_us, uint64_t retry_after_ms, const struct provider_limit *limit)
{
	budget_learn(&gate->budget, now_us, limit);
	if (begun_us > gate->refused_us)
		budget_raise(&gate->budget);
	hold_to_budget(gate, now_us);
	if (retry_after_ms)
		hold(gate, GATE_RATE_LIMIT, now_us + retry_us(retry_after_ms, 0));
	if (begun_us >= gate->closed_us && gate->window < GATE_WINDOW_MAX)
		gate->window *= 2;
}

void gate_ready(struct gate *gate)
{
	gate->failures = 0;
}

void gate_listed(struct gate *gate)
{
	gate->failures = 0;
	gate->until_us[GATE_UNAVAILABLE] = gate->until_us[GATE_UNAUTHORIZED] = 0;
}

void gate_room(struct gate *gate)
{
	gate->until_us[GATE_CAPACITY] = gate->told_us;
}

void gate_tick(struct gate *gate, uint64_t now_us)
{
	for (int i = 0; i < GATE_REASONS; i++)
		if (gate->until_us[i] <= now_us)
			gate->until_us[i] = 0;
	if (gate->told_us <= now_us)
		gate->told_us = 0;
}

bool gate_is_open(const struct gate *gate)
{
	return gate_opens_us(gate, false) == 0;
}

static uint64_t until_us(const struct gate *gate, enum gate_reason reason, bool optimistic)
{
	return optimistic && reason == GATE_CAPACITY ? gate->told_us : gate->until_us[reason];
}

uint64_t gate_opens_us(const struct gate *gate, bool optimistic)
{
	uint64_t latest = 0;
	for (int i = 0; i < GATE_REASONS; i++)
		if (until_us(gate, (enum gate_reason)i, optimistic) > latest)
			latest = until_us(gate, (enum gate_reason)i, optimistic);
	return latest;
}

uint64_t gate_wakes_open_us(const struct gate *gate, bool optimistic)
{
	uint64_t full_us = until_us(gate, GATE_CAPACITY, optimistic);
	return full_us > gate->until_us[GATE_THROTTLED] ? full_us : gate->until_us[GATE_THROTTLED];
}

uint64_t gate_next_due(const struct gate *gate)
{
	uint64_t next = UINT64_MAX;
	for (int i = 0; i < GATE_REASONS; i++)
		if (gate->until_us[i] && gate->until_us[i] < next)
			next = gate->until_us[i];
	return next;
}

const char *gate_text(const struct gate *gate)
{
	uint64_t latest = gate_opens_us(gate, false);
	for (int i = 0; i < GATE_REASONS; i++)
		if (latest && gate->until_us[i] == latest)
			return texts[i];
	return "open";
}
