/*
 * create_flags - the flags of `token create`, read into a record
 *
 * Pure. Knows every flag's form, bounds and help text.
 *
 * Results:  0, or CREATE_FLAGS_E_USAGE with one line in `problem` that names the flag and what is allowed.
 */
#pragma once

#include "policy/record.h"

#include <stdio.h>

#define CREATE_FLAGS_E_USAGE 1

struct create_flags {
	struct record record;
	uint64_t expires_ms; /* from now; 0 = never */
	bool json;
	bool help;
	char problem[300];
};

/* argv: the arguments after `token create`. A value follows its flag or an equals sign: --rate 60/1m, --rate=60/1m. */
MUST_CHECK int create_flags_parse(int argc, char **argv, struct create_flags *flags);

/* The help text of all flags. */
void create_flags_help(FILE *out);
