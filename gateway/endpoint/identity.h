/*
 * identity - who a caller is to Datasette, and the policy that this stands for
 *
 * Rules say which actors may run commands: a JSON array of {"policy": NAME, "allow": BLOCK}, the first whose block matches counts. A block
 * is one of Datasette's (actor_matches_allow): true, or an object of which one member is enough. An actor that no rule matches may not.
 *
 * Pure but for its memory: what Datasette answered is given to identity_read().
 * Owns:       the rules.
 * Lifetime:   identity_init … identity_deinit; what identity_read() gives lasts on its own.
 * Runs on:    one loop; jansson counts references without locks.
 * Results:    -EINVAL with a sentence (the rules), -ENOMEM, -EIO.
 * Invariants: only a whole answer of the right form makes anybody known; everything else is IDENTITY_FAILED.
 */
#pragma once

#include "gateway/base/secret.h"
#include "gateway/json/json.h"
#include "policy/admission.h"

#define IDENTITY_PROBLEM    160
#define IDENTITY_ACTION_MAX 64
#define IDENTITY_ANSWER_MAX (64 * 1024)

enum identity_result {
	IDENTITY_KNOWN,
	IDENTITY_ANONYMOUS, /* Datasette knows no actor */
	IDENTITY_INVALID,   /* Datasette refuses the credentials */
	IDENTITY_DENIED, /* an actor that may not: no rule, a restricted token, an id that cannot be used; or one Datasette shuts out */
	IDENTITY_FAILED, /* what Datasette answered says nothing */
};

const char *identity_result_name(enum identity_result result);

struct identity {
	enum identity_result result;
	struct admission_identity who; /* with IDENTITY_DENIED only the actor, when it is known */
};

struct identity_options {
	const char *rules; /* "" = none: nobody is known */
	const char *action; /* what a token with restrictions (`_r`) must list for the whole instance */
	const struct secret *pepper; /* borrowed */
};

struct identity_rules {
	struct identity_options options;
	json_t *list; /* NULL = none */
};

/* `problem` is set with -EINVAL. */
MUST_CHECK int identity_init(struct identity_rules *rules, const struct identity_options *options, char problem[IDENTITY_PROBLEM]);
void identity_deinit(struct identity_rules *rules);

/* The policy that the i-th rule names, valid as long as the rules; NULL beyond the last. */
const char *identity_policy(const struct identity_rules *rules, size_t i);

/* What Datasette's answer to /-/actor.json means. */
MUST_CHECK int identity_read(const struct identity_rules *rules, unsigned status, struct slice body, struct identity *identity);
