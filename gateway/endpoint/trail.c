#include "gateway/endpoint/trail.h"

#include "gateway/base/json_text.h"
#include "gateway/telemetry/audit.h"

static int feed(struct sha256 *digest, const char *argument)
{
	return sha256_feed(digest, slice_of(argument, strlen(argument) + 1));
}

static int name_it(struct trail *trail, const struct exec_request *request)
{
	CLEANUP(sha256_deinit) struct sha256 digest = {0};
	const char *const shell[] = {"bash", "-lc", request->command};
	const char *const *argv = request->command ? shell : request->argv;
	size_t argc = request->command ? ARRAY_LEN(shell) : request->argc;
	int r = sha256_init(&digest);
	for (size_t i = 0; r == 0 && i < argc; i++)
		r = feed(&digest, argv[i]);
	return r < 0 ? r : sha256_hex(&digest, trail->sha256);
}

static int put_text(struct buf *out, const struct exec_request *request)
{
	if (request->command)
		return json_text_string(out, slice_str(request->command));
	int r = 0;
	for (size_t i = 0; r == 0 && i < request->argc; i++) {
		r = buf_append_char(out, i ? ',' : '[');
		if (r == 0)
			r = json_text_string(out, slice_str(request->argv[i]));
	}
	return r < 0 ? r : buf_append_char(out, ']');
}

int trail_take(struct trail *trail, const struct exec_request *request, bool with_text)
{
	*trail = (struct trail){.command = BUF_MAX(2 * EXEC_MAX_ARGV_BYTES),
				.stdin_bytes = request->input_from ? AUDIT_NONE : request->input.len};
	int r = name_it(trail, request);
	return r < 0 || !with_text ? r : put_text(&trail->command, request);
}

void trail_deinit(struct trail *trail)
{
	buf_deinit(&trail->command);
}
