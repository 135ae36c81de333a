#include "gateway/exec/launch.h"

#include "gateway/sprites/record.h"
#include "gateway/sprites/sandbox.h"

#include <errno.h>
#include <inttypes.h>
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

int launch_put_file(struct buf *out, const struct exec_file *file)
{
	int r = buf_printf(out, "%o %zu\n", file->mode, strlen(file->path));
	return r < 0 ? r : buf_append(out, slice_str(file->path));
}

int launch_put_piece(struct buf *out, struct slice bytes)
{
	if (!bytes.len)
		return 0;
	int r = buf_printf(out, "%zu\n", bytes.len);
	return r < 0 ? r : buf_append(out, bytes);
}

int launch_put_end(struct buf *out)
{
	return buf_append(out, SLICE("0\n"));
}

/* Two copies of a large input for the length of a run are one too many. */
static int move(struct buf *out, struct buf *bytes)
{
	int r = buf_append(out, buf_peek(bytes));
	buf_deinit(bytes);
	return r;
}

static int put_files(struct buf *out, struct exec_request *request)
{
	int r = 0;
	for (size_t i = 0; r == 0 && i < request->file_count; i++) {
		struct exec_file *file = &request->files[i];
		if (file->from)
			continue;
		r = launch_put_file(out, file);
		if (r == 0)
			r = launch_put_piece(out, buf_peek(&file->bytes));
		buf_deinit(&file->bytes);
		if (r == 0)
			r = launch_put_end(out);
	}
	return r;
}

static int put_line(struct launch *launch, const struct launch_options *options)
{
	const struct admission_caps *caps = &options->caps;
	struct buf *out = &launch->input;
	int r = buf_append(out, options->nonce);
	if (r == 0 && launch->files)
		r = buf_append_char(out, '+');
	if (r == 0 && (options->lasts_s || launch->limited))
		r = buf_printf(out, " %" PRIu64, options->lasts_s);
	if (r == 0 && launch->limited)
		r = buf_printf(out, " %" PRIu64 " %" PRIu64 " %" PRIu64, caps->processes, caps->file_bytes, caps->memory_bytes);
	return r < 0 ? r : buf_append_char(out, '\n');
}

#define SCRIPT_ARGC 3 /* bash -c script; then the shim, or a name that the script is given */
#define SHIM_ARGC   (SCRIPT_ARGC + 1)

static size_t order_size(const struct launch *launch)
{
	size_t size = 0;
	for (size_t i = SHIM_ARGC; i < launch->argc; i++)
		size += strlen(launch->argv[i]) + 1;
	return size;
}

/* Without a nonce nothing is started ahead. */
static int put_order(struct launch *launch)
{
	int r = launch->nonce_len ? buf_printf(&launch->input, RECORD_ORDER_LINE, order_size(launch)) : 0;
	for (size_t i = SHIM_ARGC; r == 0 && launch->nonce_len && i < launch->argc; i++)
		r = buf_append(&launch->input, slice_of(launch->argv[i], strlen(launch->argv[i]) + 1));
	launch->order_len = buf_peek(&launch->input).len;
	return r;
}

static int build_input(struct launch *launch, struct exec_request *request, const struct launch_options *options)
{
	bool files = request->file_count, waits = exec_request_fetches_files(request);
	const struct admission_caps *caps = &options->caps;
	buf_init(&launch->input, order_size(launch) + options->nonce.len + 128 + exec_request_input(request) +
					 request->file_count * (EXEC_MAX_PATH_BYTES + 64));
	launch->nonce_len = options->nonce.len;
	launch->files = files;
	launch->limited = caps->processes || caps->file_bytes || caps->memory_bytes;
	int r = put_order(launch);
	if (r == 0)
		r = put_line(launch, options);
	if (r == 0)
		r = put_files(&launch->input, request);
	if (r == 0 && files && !waits)
		r = buf_append(&launch->input, LAUNCH_FILES_END);
	return r < 0 ? r : move(&launch->input, &request->input);
}

int launch_init(struct launch *launch, struct exec_request *request, const char *exec_id, const struct launch_options *options)
{
	*launch = (struct launch){0};
	/* bash -c script, name cwd count, the variables with ours, then bash -lc command or argv */
	launch->argv = calloc(SCRIPT_ARGC + 3 + request->env_count + 1 + 3 + request->argc, sizeof *launch->argv);
	if (!launch->argv)
		return -ENOMEM;
	snprintf(launch->exec_id, sizeof launch->exec_id, "SPRITEGATE_EXEC_ID=%s", exec_id);
	snprintf(launch->env_count, sizeof launch->env_count, "%zu", request->env_count + 1);
	const char *const head[] = {
		"bash", "-c", script, RECORD_SHIM, request->cwd ? request->cwd : EXEC_DEFAULT_CWD, launch->env_count, launch->exec_id};
	const char *const shell[] = {"bash", "-lc", request->command};
	for (size_t i = 0; i < ARRAY_LEN(head); i++)
		launch->argv[launch->argc++] = head[i];
	for (size_t i = 0; i < request->env_count; i++)
		launch->argv[launch->argc++] = request->env[i];
	for (size_t i = 0; request->command && i < ARRAY_LEN(shell); i++)
		launch->argv[launch->argc++] = shell[i];
	for (size_t i = 0; i < request->argc; i++)
		launch->argv[launch->argc++] = request->argv[i];
	int r = build_input(launch, request, options);
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
	struct slice ordered = buf_peek(&launch->input), input = slice_from(ordered, launch->order_len);
	size_t skip = shim ? SCRIPT_ARGC : 0;
	launch->argv[SCRIPT_ARGC] = shim ? RECORD_SHIM : "spritegate";
	return (struct sandbox_command){.argv = launch->argv + skip,
					.argc = launch->argc - skip,
					.input = shim ? input : slice_from(input, launch->nonce_len),
					.input_ahead = shim && launch->order_len ? ordered : (struct slice){0}};
}
