#include "policy/fields.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* The draft asks for capped values: nobody plans further ahead. */
#define SECONDS_MAX UINT64_C(31536000)

static uint64_t seconds_up(uint64_t us)
{
	uint64_t seconds = us / 1000000 + (us % 1000000 != 0);
	return seconds < SECONDS_MAX ? seconds : SECONDS_MAX;
}

/* The whole item or nothing. */
static PRINTF(3, 4) void add(char *out, size_t size, const char *format, ...)
{
	char item[96];
	va_list args;
	va_start(args, format);
	int len = vsnprintf(item, sizeof item, format, args);
	va_end(args);
	size_t used = strlen(out);
	if (len < 0 || (size_t)len >= sizeof item || used + 2 + (size_t)len >= size)
		return;
	snprintf(out + used, size - used, "%s%s", used ? ", " : "", item);
}

static void add_rate(const char *name, const struct fields_rate *rate, char *out, size_t size)
{
	if (rate->count)
		add(out, size, "\"%s\";r=%" PRIu64 ";t=%" PRIu64, name, rate->left, seconds_up(rate->reset_us));
}

static void add_concurrency(const char *name, const struct fields_concurrency *c, char *out, size_t size)
{
	if (c->limit)
		add(out, size, "\"%s\";r=%" PRIu64, name, c->running < c->limit ? c->limit - c->running : 0);
}

void fields_rate_limit(const struct fields_state *state, char *out, size_t size)
{
	out[0] = '\0';
	add_rate("rate", &state->rate, out, size);
	add_rate("actor-rate", &state->actor_rate, out, size);
	add_concurrency("concurrency", &state->concurrency, out, size);
	add_concurrency("actor-concurrency", &state->actor_concurrency, out, size);
}

static void add_rate_policy(const char *name, const struct fields_rate *rate, char *out, size_t size)
{
	if (rate->count)
		add(out, size, "\"%s\";q=%" PRIu64 ";w=%" PRIu64 ";sg-burst=%" PRIu64, name, rate->count, seconds_up(rate->per_ms * 1000),
		    rate->burst);
}

static void add_concurrency_policy(const char *name, const struct fields_concurrency *c, char *out, size_t size)
{
	if (c->limit)
		add(out, size, "\"%s\";q=%" PRIu64 ";qu=\"concurrent-requests\"", name, c->limit);
}

void fields_rate_limit_policy(const struct fields_state *state, char *out, size_t size)
{
	out[0] = '\0';
	add_rate_policy("rate", &state->rate, out, size);
	add_rate_policy("actor-rate", &state->actor_rate, out, size);
	add_concurrency_policy("concurrency", &state->concurrency, out, size);
	add_concurrency_policy("actor-concurrency", &state->actor_concurrency, out, size);
}

void fields_exec_budget(const struct fields_state *state, char *out, size_t size)
{
	const struct fields_budget *b = &state->budget;
	out[0] = '\0';
	if (b->limit_ms)
		add(out, size, "limit=%" PRIu64 ", used=%" PRIu64 ", held=%" PRIu64, b->limit_ms, b->used_ms, b->held_ms);
	if (b->out_limit)
		add(out, size, "out_limit=%" PRIu64 ", out_used=%" PRIu64 ", out_held=%" PRIu64, b->out_limit, b->out_used, b->out_held);
	if (b->limit_ms || b->out_limit)
		add(out, size, "reset=%" PRIu64, seconds_up(b->reset_us));
}
