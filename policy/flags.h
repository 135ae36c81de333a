/*
 * flags - the flags of `token create`, `token set` and `policy set`, read into a record
 *
 * Pure. Knows every flag's form, bounds and help text.
 *
 * Results:  0, or FLAGS_E_USAGE with one line in `problem` that names the flag and what is allowed.
 */
#pragma once

#include "policy/record.h"

#include <stdio.h>

#define FLAGS_E_USAGE 1

enum flags_use {
	FLAGS_TOKEN_CREATE = 1,
	FLAGS_TOKEN_SET = 2,
	FLAGS_POLICY_SET = 4,
};

struct flags {
	struct record record; /* what was given; a limit that was given as `none` is present, and 0 or empty */
	uint64_t removed;     /* bits of fields that shall no longer be there */
	uint64_t expires_ms, starts_ms; /* from now; 0 = not given */
	bool json;
	bool help;
	char problem[300];
};

/* argv: the arguments after the words of the command. A value follows its flag or an equals sign: --rate 60/1m, --rate=60/1m. */
MUST_CHECK int flags_parse(enum flags_use use, int argc, char **argv, struct flags *flags);

/* Prints the help text of all flags of that command. */
void flags_help(enum flags_use use, FILE *out);
