#include "gateway/exec/launch.h"

#include "gateway/sprites/record.h"
#include "gateway/sprites/sandbox.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

/* Its one variable has a reserved name, so that none of the caller's can be it. */
#define BEGIN                                                                                                                      \
	"IFS= read -r REPLY || exit 125\n"                                                                                         \
	"unset REPLY\n"
#define BECOME                                                                                                                     \
	"cd -- \"$1\" || exit 126\n"                                                                                               \
	"SPRITEGATE_LEFT=$2; shift 2\n"                                                                                            \
	"while [ \"$SPRITEGATE_LEFT\" -gt 0 ]; do\n"                                                                               \
	"export \"$1\" || exit 126; shift; SPRITEGATE_LEFT=$((SPRITEGATE_LEFT - 1))\n"                                             \
	"done\n"                                                                                                                   \
	"unset SPRITEGATE_LEFT\n"                                                                                                  \
	"exec -- \"$@\"\n"

static const char script[] = BEGIN BECOME;

/* Descriptor 9 belongs to the `tee`s alone, 8 reads as ended when they are gone. `set -m` gives each a group of its own. */
static const char recording_script[] =
	BEGIN "if [ -p " RECORD_END_PIPE " ] && exec 9<>" RECORD_END_PIPE " 8<" RECORD_END_PIPE "; then\n"
	      "set -m\n"
	      "exec tee " RECORD_FOLDER "/" RECORD_STDOUT " <" RECORD_STDOUT_PIPE " 2>/dev/null 8<&- &\n"
	      "exec tee " RECORD_FOLDER "/" RECORD_STDERR " <" RECORD_STDERR_PIPE " >&2 2>/dev/null 8<&- &\n"
	      "set +m\n"
	      "exec >/dev/null 2>&1 9>&-\n"
	      "trap : HUP INT QUIT TERM USR1 USR2\n"
	      "(\n" BECOME ") >" RECORD_STDOUT_PIPE " 2>" RECORD_STDERR_PIPE " 8<&-\n"
	      "SPRITEGATE_LEFT=$?\n"
	      "IFS= read -r -t 0.1 -u 8 REPLY\n"
	      "exit $SPRITEGATE_LEFT\n"
	      "fi\n" BECOME;

/* What a request may hold never turns out to be too long once a Sprite is claimed. */
_Static_assert(2 * sizeof recording_script + 512 + EXEC_MAX_ARGV_BYTES <= SANDBOX_ARGS_MAX, "the largest request fits a control socket");

static const char default_cwd[] = "/home/sprite";

static int build_input(struct launch *launch, struct exec_request *request)
{
	buf_init(&launch->input, request->input.len + 1);
	int r = buf_append_char(&launch->input, '\n');
	if (r == 0)
		r = buf_append(&launch->input, buf_peek(&request->input));
	/* Two copies of a large input for the length of a run are one too many. */
	buf_deinit(&request->input);
	return r;
}

int launch_init(struct launch *launch, struct exec_request *request, const char *exec_id, bool record)
{
	*launch = (struct launch){0};
	/* bash -c script name cwd count, the variables with ours, then bash -lc command or argv */
	launch->argv = calloc(6 + request->env_count + 1 + 3 + request->argc, sizeof *launch->argv);
	if (!launch->argv)
		return -ENOMEM;
	snprintf(launch->exec_id, sizeof launch->exec_id, "SPRITEGATE_EXEC_ID=%s", exec_id);
	snprintf(launch->env_count, sizeof launch->env_count, "%zu", request->env_count + 1);
	const char *const head[] = {"bash", "-c", record ? recording_script : script, "spritegate", request->cwd ? request->cwd : default_cwd,
				    launch->env_count, launch->exec_id};
	const char *const shell[] = {"bash", "-lc", request->command};
	for (size_t i = 0; i < ARRAY_LEN(head); i++)
		launch->argv[launch->argc++] = head[i];
	for (size_t i = 0; i < request->env_count; i++)
		launch->argv[launch->argc++] = request->env[i];
	for (size_t i = 0; request->command && i < ARRAY_LEN(shell); i++)
		launch->argv[launch->argc++] = shell[i];
	for (size_t i = 0; i < request->argc; i++)
		launch->argv[launch->argc++] = request->argv[i];
	int r = build_input(launch, request);
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
