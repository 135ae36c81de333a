#include "gateway/exec/launch.h"

#include "gateway/sprites/record.h"
#include "gateway/sprites/sandbox.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

/* Its one variable has a reserved name, so that none of the caller's can be it. */
static const char script[] = "IFS= read -r REPLY || exit 125\n"
			     "unset REPLY\n"
			     "cd -- \"$1\" || exit 126\n"
			     "SPRITEGATE_LEFT=$2; shift 2\n"
			     "while [ \"$SPRITEGATE_LEFT\" -gt 0 ]; do\n"
			     "export \"$1\" || exit 126; shift; SPRITEGATE_LEFT=$((SPRITEGATE_LEFT - 1))\n"
			     "done\n"
			     "unset SPRITEGATE_LEFT\n"
			     "exec -- \"$@\"\n";

/* What a request may hold never turns out to be too long once a Sprite is claimed. */
_Static_assert(2 * sizeof script + 512 + EXEC_MAX_ARGV_BYTES <= SANDBOX_ARGS_MAX, "the largest request fits a control socket");

static const char default_cwd[] = "/home/sprite";

static int build_input(struct launch *launch, struct exec_request *request, struct slice nonce)
{
	buf_init(&launch->input, nonce.len + 1 + request->input.len);
	launch->nonce_len = nonce.len;
	int r = buf_append(&launch->input, nonce);
	if (r == 0)
		r = buf_append_char(&launch->input, '\n');
	if (r == 0)
		r = buf_append(&launch->input, buf_peek(&request->input));
	/* Two copies of a large input for the length of a run are one too many. */
	buf_deinit(&request->input);
	return r;
}

#define SCRIPT_ARGC 3 /* bash -c script; then the shim, or a name that the script is given */

int launch_init(struct launch *launch, struct exec_request *request, const char *exec_id, struct slice nonce)
{
	*launch = (struct launch){0};
	/* bash -c script, name cwd count, the variables with ours, then bash -lc command or argv */
	launch->argv = calloc(SCRIPT_ARGC + 3 + request->env_count + 1 + 3 + request->argc, sizeof *launch->argv);
	if (!launch->argv)
		return -ENOMEM;
	snprintf(launch->exec_id, sizeof launch->exec_id, "SPRITEGATE_EXEC_ID=%s", exec_id);
	snprintf(launch->env_count, sizeof launch->env_count, "%zu", request->env_count + 1);
	const char *const head[] = {"bash",         "-c", script, RECORD_SHIM, request->cwd ? request->cwd : default_cwd, launch->env_count,
				    launch->exec_id};
	const char *const shell[] = {"bash", "-lc", request->command};
	for (size_t i = 0; i < ARRAY_LEN(head); i++)
		launch->argv[launch->argc++] = head[i];
	for (size_t i = 0; i < request->env_count; i++)
		launch->argv[launch->argc++] = request->env[i];
	for (size_t i = 0; request->command && i < ARRAY_LEN(shell); i++)
		launch->argv[launch->argc++] = shell[i];
	for (size_t i = 0; i < request->argc; i++)
		launch->argv[launch->argc++] = request->argv[i];
	int r = build_input(launch, request, nonce);
	if (r < 0)
		launch_deinit(launch);
	return r;
}

void launch_deinit(struct launch *launch)
{
	free(launch->argv);
	buf_deinit(&launch->input);
	*launch = (struct launch){0};
}

struct sandbox_command launch_command(struct launch *launch, bool shim)
{
	struct slice input = buf_peek(&launch->input);
	size_t skip = shim ? SCRIPT_ARGC : 0;
	launch->argv[SCRIPT_ARGC] = shim ? RECORD_SHIM : "spritegate";
	return (struct sandbox_command){
		.argv = launch->argv + skip, .argc = launch->argc - skip, .input = shim ? input : slice_from(input, launch->nonce_len)};
}
