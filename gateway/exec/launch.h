/*
 * launch - the program and arguments that run a request's command inside a Sprite
 *
 * The shim (gateway/shim) goes first. It waits for one line of standard input, so that nothing runs before the Sprite forwards our
 * bytes, and nothing at all when the connection breaks before that (sprites contract 3.9, the fast-command race). It changes
 * the directory, since the API ignores one that does not exist; it adds the variables, since the API's own `env` replaces the
 * whole environment; then it becomes the command, so signals and the exit code are the command's own. A nonce in the line makes
 * it keep a record and report instead (sprites/record.h), for which it waits for the command. A session's says for how long its processes
 * may go on without another command, and limits are in it, too.
 *
 * Files come between the line and the command's own input, so that they cost no round trip and nothing runs before all of them are
 * there. Those that Datasette is asked for come after the others, from the worker, and then the end of them all as well.
 *
 * One that was started ahead of its command (sandbox.h) gets the arguments by standard input, before the line. What it was started with holds
 * nothing of a caller's.
 *
 * In a Sprite where the shim cannot be run a small bash script does the same, without a record and without files.
 *
 * Owns:       the argument array and the input; the strings are borrowed from the request.
 * Lifetime:   launch_init … launch_deinit, within the life of the request and the exec id.
 */
#pragma once

#include "gateway/base/buf.h"
#include "gateway/exec/request.h"
#include "gateway/sprites/sandbox.h"
#include "policy/admission.h"

/* Exit codes of shim and script: standard input ended before the first line; cwd or a variable could not be set. */
#define LAUNCH_EXIT_NO_INPUT 125
#define LAUNCH_EXIT_SETUP    126

struct launch {
	const char **argv;        /* of the script; its end is that of the shim */
	size_t argc;
	struct buf input; /* the arguments, for a shim that waits for them; the line that starts the command, then its standard input */
	size_t order_len, nonce_len;
	bool files, limited; /* only with the shim */
	char exec_id[64]; /* "SPRITEGATE_EXEC_ID=…" */
	char env_count[24];
};

struct launch_options {
	struct slice nonce; /* empty = no record is kept */
	uint64_t lasts_s;   /* 0 = nothing ends by itself */
	struct admission_caps caps;
};

MUST_CHECK int launch_init(struct launch *launch, struct exec_request *request, const char *exec_id, const struct launch_options *options);
void launch_deinit(struct launch *launch);

/* The beginning of a file, a piece of it, and its end, as the shim reads them. Results: those of buf. */
MUST_CHECK int launch_put_file(struct buf *out, const struct exec_file *file);
MUST_CHECK int launch_put_piece(struct buf *out, struct slice bytes);
MUST_CHECK int launch_put_end(struct buf *out);
/* … and of all files. */
#define LAUNCH_FILES_END SLICE("\n")

/* What to run; valid until the next launch_command() or launch_deinit(). */
struct sandbox_command launch_command(struct launch *launch, bool shim);
