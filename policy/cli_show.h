/*
 * cli_show - tokens, policies and leases as tables for people and as JSON for programs
 *
 * Results:  0, or those of buf.
 */
#pragma once

#include "gateway/base/buf.h"
#include "policy/store.h"

#include <stdio.h>

/* What one token is and what holds for it. */
struct cli_token {
	const char *kid;
	const struct record *own;    /* as it stands in Redis */
	const struct record *rules;  /* with what it inherits */
	uint64_t policy_version;     /* of the policy it follows */
	const char *broken;          /* why the gateways refuse it, or NULL */
};

void cli_show_heading(FILE *out);
void cli_show_line(FILE *out, const struct cli_token *token);
/* The same table, of what they have used today. */
void cli_show_usage_heading(FILE *out);
void cli_show_usage(FILE *out, const struct cli_token *token, const struct store_usage *usage);
void cli_show_details(FILE *out, const struct cli_token *token, const struct store_usage *usage);
/* `usage` may be NULL. One object without a line end. */
MUST_CHECK int cli_show_json(struct buf *json, const struct cli_token *token, const struct store_usage *usage);

/* A line for every rule that is there: "rate  60/1m". */
void cli_show_rules(FILE *out, const struct record *rules);
MUST_CHECK int cli_show_policy_json(struct buf *json, const char *name, const struct record *policy);

/* What differs, one line each, "- " before and "+ " after; returns how many rules do. */
size_t cli_show_diff(FILE *out, const struct record *before, const struct record *after);

/* The same as an array of {"flag", "before", "after"}: values as their flags are written, null = none. */
MUST_CHECK int cli_show_diff_json(struct buf *json, const struct record *before, const struct record *after);

/* "rate 60/1m burst 10, 3 at once, 5m a run, budget none" */
void cli_show_limits(FILE *out, const struct record *rules);
