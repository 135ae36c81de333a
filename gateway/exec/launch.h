/*
 * launch - the program and arguments that run a request's command inside a Sprite
 *
 * A small bash script goes first. It waits for one line of standard input, so that nothing runs before the Sprite forwards our
 * bytes, and nothing at all when the connection breaks before that (sprites contract 3.9, the fast-command race). It changes
 * the directory, since the API ignores one that does not exist; it adds the variables, since the API's own `env` replaces the
 * whole environment; then it becomes the command, so signals and the exit code are the command's own.
 *
 * With a record it does not become the command but waits for it, while a `tee` for each stream copies what the command prints into
 * the record (sprites/record.h). It survives the signals of its group to report how the command took them; the `tee`s are
 * groups of their own, so what was printed before a KILL still arrives. It ends when they have passed everything on, or 0.1 s after
 * the command when children of it keep the streams open. In a Sprite without the record's pipes it does as without a record.
 *
 * Owns:       the argument array and the input; the strings are borrowed from the request.
 * Lifetime:   launch_init … launch_deinit, within the life of the request and the exec id.
 */
#pragma once

#include "gateway/base/buf.h"
#include "gateway/exec/request.h"

/* The script's own exit codes: standard input ended before the first line; cwd or a variable could not be set. */
#define LAUNCH_EXIT_NO_INPUT 125
#define LAUNCH_EXIT_SETUP    126

struct launch {
	const char **argv;
	size_t argc;
	struct buf input;         /* the line that starts the script, then the command's standard input */
	char exec_id[64];         /* "SPRITEGATE_EXEC_ID=…" */
	char env_count[24];
};

MUST_CHECK int launch_init(struct launch *launch, struct exec_request *request, const char *exec_id, bool record);
void launch_deinit(struct launch *launch);
