/*
 * resp - a command in the form in which Redis reads it (RESP: an array of bulk strings)
 *
 * hiredis' own redisFormatSdsCommandArgv formats numbers by a general printf, twice: a fifth of what a question costs.
 *
 * Owns:       nothing.
 * Results:    -ENOMEM.
 */
#pragma once

#include "gateway/base/attr.h"

#include <stddef.h>

/* *text is the caller's (free). A NUL, which *len does not count, follows it: hiredis looks for the command's name with strchr(). */
MUST_CHECK int resp_command(int argc, const char **argv, const size_t *lengths, char **text, size_t *len);
