/*
 * degraded - what may run while Redis is away: a little of what it has just allowed
 *
 * Remembers the kinds of commands that Redis has granted, so that the same kind, of the same token, may go on for a short time at a small
 * rate. The kind is a digest of all that the policy's lists judge (degraded_digest): what was not granted as it stands is not known here,
 * so no rule is applied a second time. Any answer that is no grant, but for a limit that passes by itself, wipes out what the token had been
 * granted before, and so does a grant by other rules: another policy, or another version.
 *
 * Owns:       its table and its lock: one for all threads of the process.
 * Lifetime:   degraded_new … degraded_free, around every admission that was given it.
 * Runs on:    any thread; nothing waits under the lock. The time is the caller's, of a clock that a suspended machine does not stop.
 * Bounds:     DEGRADED_TOKENS tokens, of those that have used nothing lately the one seen longest ago goes; DEGRADED_KINDS kinds of each.
 *             Trust ends `trust_ms` after Redis was asked. One command a token at a time, also of all tokens of an actor with limits of its
 *             own; rates divided by 4 × gateways. What was granted and Redis does not know yet is never more than `budget_ms` together,
 *             and half of that for a token.
 */
#pragma once

#include "gateway/base/sha256.h"
#include "policy/admission.h"

#define DEGRADED_TOKENS 1024
#define DEGRADED_KINDS  8
#define DEGRADED_RUN_MS 60000 /* the longest run: so long a lease lasts without being renewed (holds.c) */

struct degraded;

struct degraded_options {
	uint64_t trust_ms, budget_ms;
	unsigned gateways; /* that share the Redis */
};

struct degraded_grant {
	char actor[129], policy[65];
	uint64_t policy_version, granted_ms, output_bytes, max_input_bytes;
	struct admission_caps caps;
};

/* NULL = no memory. */
struct degraded *degraded_new(const struct degraded_options *options);
void degraded_free(struct degraded *degraded);

/* Of everything that decided, beside numbers: the parts of the question that a list or a secret is compared with. */
MUST_CHECK int degraded_digest(const struct slice *parts, size_t count, char out[SHA256_HEX + 1]);

/* What Redis said to a question that it was asked at asked_ms. `secret`: a digest of what the caller showed, `digest` of all that decided. */
void degraded_learn(struct degraded *degraded, const char *kid, const char *secret, const char *digest,
		    const struct admission_answer *answer, uint64_t asked_ms);

/* DEGRADED_GRANTED and a grant, to be given back by degraded_end; or a word that says why not. */
#define DEGRADED_GRANTED "granted"
const char *degraded_ask(struct degraded *degraded, const char *kid, const char *digest, const struct admission_request *wish,
			 uint64_t now_ms, struct degraded_grant *grant);

/* The command has ended. What it used counts until degraded_booked: Redis knows of it, or never will. */
void degraded_end(struct degraded *degraded, const char *kid, uint64_t granted_ms, uint64_t used_ms);

/* The token has to be granted something again that is asked for after now_ms: its use may have reached its budget. */
void degraded_booked(struct degraded *degraded, const char *kid, uint64_t used_ms, uint64_t now_ms);

/* Granted and not booked. */
uint64_t degraded_unbooked_ms(struct degraded *degraded);
