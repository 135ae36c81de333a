#include "gateway/endpoint/quota.h"

#include "gateway/base/json_text.h"

#include <inttypes.h>

/* Whole seconds until then, rounded up. */
static uint64_t seconds(uint64_t us)
{
	return (us + 999999) / 1000000;
}

static int put_rate(struct buf *out, const char *name, const struct fields_rate *rate)
{
	if (!rate->count)
		return buf_printf(out, ",\"%s\":null", name);
	return buf_printf(out,
			  ",\"%s\":{\"limit\":%" PRIu64 ",\"window_seconds\":%" PRIu64 ",\"burst\":%" PRIu64 ",\"remaining\":%" PRIu64
			  ",\"reset_seconds\":%" PRIu64 "}",
			  name, rate->count, rate->per_ms / 1000, rate->burst, rate->left, seconds(rate->reset_us));
}

static int put_concurrency(struct buf *out, const char *name, const struct fields_concurrency *concurrency)
{
	if (!concurrency->limit)
		return buf_printf(out, ",\"%s\":null", name);
	return buf_printf(out, ",\"%s\":{\"limit\":%" PRIu64 ",\"running\":%" PRIu64 "}", name, concurrency->limit, concurrency->running);
}

static int put_budget(struct buf *out, const char *name, const char *unit, uint64_t limit, uint64_t used, uint64_t held, uint64_t reset_us)
{
	if (!limit)
		return buf_printf(out, ",\"%s\":null", name);
	return buf_printf(
		out, ",\"%s\":{\"limit_%s\":%" PRIu64 ",\"used_%s\":%" PRIu64 ",\"held_%s\":%" PRIu64 ",\"reset_seconds\":%" PRIu64 "}",
		name, unit, limit, unit, used, unit, held, seconds(reset_us));
}

static int put_limits(struct buf *out, const struct fields_state *state)
{
	const struct fields_budget *budget = &state->budget;
	int r = put_rate(out, "rate", &state->rate);
	if (r == 0)
		r = put_rate(out, "actor_rate", &state->actor_rate);
	if (r == 0)
		r = put_concurrency(out, "concurrency", &state->concurrency);
	if (r == 0)
		r = put_concurrency(out, "actor_concurrency", &state->actor_concurrency);
	if (r == 0)
		r = put_budget(out, "budget", "ms", budget->limit_ms, budget->used_ms, budget->held_ms, budget->reset_us);
	if (r == 0)
		r = put_budget(out, "output_budget", "bytes", budget->out_limit, budget->out_used, budget->out_held, budget->reset_us);
	return r;
}

static int put_egress(struct buf *out, struct slice domains)
{
	struct slice domain;
	int r = buf_append(out, SLICE(",\"egress\":["));
	for (bool first = true; r == 0 && domains.len && slice_next(&domains, ' ', &domain); first = false) {
		if (!first)
			r = buf_append_char(out, ',');
		if (r == 0)
			r = json_text_string(out, domain);
	}
	return r < 0 ? r : buf_append_char(out, ']');
}

static int put_cap(struct buf *out, const char *name, uint64_t cap)
{
	return cap ? buf_printf(out, ",\"%s\":%" PRIu64, name, cap) : buf_printf(out, ",\"%s\":null", name);
}

static int put_limits_of_size(const struct admission_answer *answer, const struct admission_caps *caps, struct buf *out)
{
	int r = put_cap(out, "max_input_bytes", answer->max_input_bytes);
	if (r == 0)
		r = put_cap(out, "max_processes", caps->processes);
	if (r == 0)
		r = put_cap(out, "max_file_bytes", caps->file_bytes);
	if (r == 0)
		r = put_cap(out, "max_memory_bytes", caps->memory_bytes);
	if (r == 0)
		r = buf_printf(out, ",\"max_sessions\":%" PRIu64, answer->max_sessions);
	return r < 0 ? r : put_egress(out, slice_str(answer->egress));
}

int quota_write(const struct admission_answer *answer, const struct admission_caps *caps, struct buf *out)
{
	int r = buf_printf(out, "{\"ok\":true,\"kid\":\"%s\",\"actor\":", answer->kid);
	if (r == 0)
		r = json_text_string(out, slice_str(answer->actor));
	if (r == 0)
		r = buf_append(out, SLICE(",\"policy\":"));
	if (r == 0)
		r = answer->policy[0] ? json_text_string(out, slice_str(answer->policy)) : buf_append(out, SLICE("null"));
	if (r == 0)
		r = buf_printf(out, ",\"policy_version\":%" PRIu64, answer->policy_version);
	if (r == 0)
		r = put_limits(out, &answer->state);
	if (r == 0)
		r = put_limits_of_size(answer, caps, out);
	return r < 0 ? r : buf_append(out, SLICE("}\n"));
}

static int put_number(struct buf *out, const char *name, const char *unit, uint64_t number)
{
	if (!number)
		return buf_printf(out, ",\"%s\":null", name);
	return buf_printf(out, ",\"%s\":{\"%s\":%" PRIu64 "}", name, unit, number);
}

static int put_pace(struct buf *out, const char *name, const struct fields_rate *rate)
{
	if (!rate->count)
		return buf_printf(out, ",\"%s\":null", name);
	return buf_printf(out, ",\"%s\":{\"limit\":%" PRIu64 ",\"window_seconds\":%" PRIu64 ",\"burst\":%" PRIu64 "}", name, rate->count,
			  rate->per_ms / 1000, rate->burst);
}

static int put_lasting(struct buf *out, const struct fields_state *state)
{
	int r = put_pace(out, "rate", &state->rate);
	if (r == 0)
		r = put_pace(out, "actor_rate", &state->actor_rate);
	if (r == 0)
		r = put_number(out, "concurrency", "limit", state->concurrency.limit);
	if (r == 0)
		r = put_number(out, "actor_concurrency", "limit", state->actor_concurrency.limit);
	if (r == 0)
		r = put_number(out, "budget", "limit_ms", state->budget.limit_ms);
	return r < 0 ? r : put_number(out, "output_budget", "limit_bytes", state->budget.out_limit);
}

int quota_write_policy(const struct admission_answer *answer, const struct admission_caps *caps, uint64_t timeout_ms,
		       uint64_t max_timeout_ms, uint64_t max_output_bytes, struct buf *out)
{
	int r = buf_printf(out,
			   "{\"isolation\":\"microvm\",\"lifetime\":\"one command, or one session\",\"network\":\"%s\","
			   "\"timeout_seconds\":{\"default\":%.3f,\"max\":%.3f},\"max_output_bytes\":%" PRIu64,
			   answer->egress[0] ? "allowed domains" : "none", (double)timeout_ms / 1000, (double)max_timeout_ms / 1000,
			   max_output_bytes);
	if (r == 0)
		r = put_limits_of_size(answer, caps, out);
	if (r == 0)
		r = put_lasting(out, &answer->state);
	return r < 0 ? r : buf_append_char(out, '}');
}
