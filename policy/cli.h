/*
 * cli - `spritegate token …`, `spritegate policy …`, `spritegate lease …`, `spritegate session …`, `spritegate pool …`
 *
 * Blocks; for the command line only.
 *
 * Results:  the exit status: 0; 1: it could not be done (Redis away, no such token, `policy check` found something), the reason is on
 *           `err`; 2: the arguments are wrong, one line on `err` says which and what is allowed.
 */
#pragma once

#include "gateway/base/secret.h"

#include <stdio.h>

struct policy_cli_options {
	const char *redis_url;
	const struct secret *pepper; /* may be NULL or empty: then `token create` and `rotate` say that it is missing */
	const char *pool;            /* the shared one of the settings; "" = not known */
	FILE *in, *out, *err;
};

/* noun: token, policy, lease, session or pool. argv[0] is the word after it; argc may be 0 (shows the usage). */
int policy_cli(const char *noun, int argc, char **argv, const struct policy_cli_options *options);
