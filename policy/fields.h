/*
 * fields - the values of RateLimit, RateLimit-Policy and Exec-Budget
 *
 * RateLimit and RateLimit-Policy are written as draft-ietf-httpapi-ratelimit-headers-11 has them: lists of strings with parameters.
 * `q` of a rate is the sustained count in `w` seconds, the burst is the parameter sg-burst, `r` what may be used at once, `t` the
 * seconds until all of it is back or, with r=0, until the next one. Sandbox time has no unit in the draft, so Exec-Budget is our own
 * dictionary: limit, used, held in milliseconds, out_limit, out_used, out_held in bytes, reset in seconds.
 *
 * Bounds:  a policy that does not fit into the caller's array is left out whole.
 */
#pragma once

#include "gateway/base/attr.h"

#include <stdint.h>

struct fields_rate {
	uint64_t count; /* 0 = there is no such limit */
	uint64_t per_ms;
	uint64_t burst;
	uint64_t left;
	uint64_t reset_us;
};

struct fields_concurrency {
	uint64_t limit; /* 0 = there is no such limit */
	uint64_t running;
};

struct fields_budget {
	uint64_t limit_ms; /* 0 = there is no such limit */
	uint64_t used_ms;
	uint64_t held_ms;
	uint64_t reset_us;
	uint64_t out_limit; /* bytes of output; 0 = there is no such limit */
	uint64_t out_used;
	uint64_t out_held;
};

struct fields_state {
	struct fields_rate rate, actor_rate;
	struct fields_concurrency concurrency, actor_concurrency;
	struct fields_budget budget;
};

/* Each writes a C string, "" when no limit of its kind exists. */
void fields_rate_limit(const struct fields_state *state, char *out, size_t size);
void fields_rate_limit_policy(const struct fields_state *state, char *out, size_t size);
void fields_exec_budget(const struct fields_state *state, char *out, size_t size);
