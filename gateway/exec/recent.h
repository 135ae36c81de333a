/*
 * recent - how the last commands ended and how much budget their tokens have left, for the status page
 *
 * A token's budget is what Redis said when its last command was granted here, with what that command and others have given back since:
 * what it uses through other gateways is seen with its next command here.
 *
 * Pure: plain data, no memory of its own.
 * Bounds:     RECENT_RUNS and RECENT_BUDGETS; what was seen longest ago gives way.
 */
#pragma once

#include "gateway/base/id.h"
#include "policy/admission.h"

#define RECENT_RUNS    32
#define RECENT_BUDGETS 64

#define RECENT_NO_EXIT UINT32_MAX

struct recent_run {
	char exec_id[ID_UUID_LEN + 1];
	char kid[ADMISSION_KID_LEN + 1];
	const char *outcome, *tier; /* static */
	uint32_t exit_code;         /* RECENT_NO_EXIT = none */
	uint64_t ended_ms;          /* wall clock */
	uint64_t wait_us, run_us;
};

struct recent_budget {
	char kid[ADMISSION_KID_LEN + 1]; /* "" = free */
	uint64_t limit_ms, left_ms;
	uint64_t seen_ms, reset_ms;      /* wall clock */
};

struct recent {
	struct recent_run runs[RECENT_RUNS]; /* a ring */
	size_t ended;   /* runs so far */
	struct recent_budget budgets[RECENT_BUDGETS];
};

/* A command was granted. Does nothing for a token without a budget. */
void recent_grant(struct recent *recent, const struct admission_lease *lease, const struct fields_budget *budget, uint64_t wall_ms);

/* It has ended and used so much of what it was granted. */
void recent_end(struct recent *recent, const struct admission_lease *lease, const struct recent_run *run, uint64_t used_ms);

/* The i-th last, from 0; NULL when there is none. */
const struct recent_run *recent_run(const struct recent *recent, size_t i);

/* The budgets that have least left of what they allow, the least first: how many, at most `max`. */
size_t recent_budgets(const struct recent *recent, uint64_t wall_ms, const struct recent_budget **out, size_t max);
