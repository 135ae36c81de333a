#include "gateway/sprites/sandbox_parts.h"

#include "gateway/base/log.h"
#include "gateway/sprites/record.h"

#include <stdio.h>
#include <stdlib.h>

_Static_assert(SANDBOX_EXEC_ARGS_MAX == FRAMES_QUERY_MAX && SANDBOX_ARGS_MAX + 1024 <= FRAMES_START_MAX, "what the header promises");

/* --- the end of the channel --- */

static void break_job(struct sandbox_job *job, enum sandbox_doubt doubt, const char *reason)
{
	struct sandbox_job broken = sandbox_job_take(job);
	if (broken.set && !broken.probe)
		broken.events->on_broken(broken.ctx, doubt, reason);
}

static void drop_socket(struct sandbox *sandbox)
{
	socket_close(sandbox->socket);
	sandbox->socket = NULL;
	frames_deinit(&sandbox->frames);
	frames_init(&sandbox->frames);
}

void sandbox_tell_loss(struct sandbox *sandbox)
{
	if (!sandbox->lost || !sandbox->on_lost || sandbox->closed)
		return;
	sandbox->lost = false;
	sandbox->on_lost(sandbox->on_lost_ctx, sandbox->reason);
}

void sandbox_give_up(struct sandbox *sandbox, enum sandbox_doubt doubt, const char *reason)
{
	if (sandbox->gone)
		return;
	sandbox->gone = true;
	if (reason != sandbox->reason)
		snprintf(sandbox->reason, sizeof sandbox->reason, "%s", reason);
	uv_timer_stop(&sandbox->deadline);
	uv_timer_stop(&sandbox->later);
	drop_socket(sandbox);
	sandbox->lost = !sandbox->waiting.set && (!sandbox->running.set || sandbox->running.probe);
	break_job(&sandbox->running, doubt, sandbox->reason);
	if (!sandbox->closed)
		break_job(&sandbox->waiting, SANDBOX_NOT_STARTED, sandbox->reason);
	sandbox_tell_loss(sandbox);
}

void sandbox_give_up_later(struct sandbox *sandbox, const char *reason)
{
	snprintf(sandbox->reason, sizeof sandbox->reason, "%s", reason);
	uv_timer_start(&sandbox->later, sandbox_on_later, 0, 0);
}

/* --- what the state machine asks for --- */

static void finish(struct sandbox *sandbox, unsigned exit_code)
{
	struct sandbox_job done = sandbox_job_take(&sandbox->running);
	sandbox->paused &= done.probe; /* a command behind a keepalive may have been paused already */
	uv_timer_stop(&sandbox->deadline);
	uv_timer_stop(&sandbox->later);
	if (sandbox->use_exec) {
		/* At once: the server itself closes only seconds later (sprites contract 3.4). */
		drop_socket(sandbox);
		(void)operation_step(&sandbox->operation, OPERATION_COMPLETE);
	} else {
		socket_drop_unsent(sandbox->socket);
		sandbox_apply_pause(sandbox);
	}
	if (done.probe && exit_code != (done.ahead ? RECORD_UNUSED : 0)) {
		sandbox_give_up(sandbox, SANDBOX_NOT_STARTED, "the keepalive command failed");
		return;
	}
	if (!done.probe)
		done.events->on_exit(done.ctx, exit_code);
	sandbox_rest(sandbox);
}

static const char *reason_of(const struct frame *frame, char *buffer, size_t size)
{
	const char *what = "the server's answer contradicts itself";
	struct slice text = frame->bytes;
	switch (frame->kind) {
	case FRAME_STDOUT:
	case FRAME_STDERR:
		what = "output came that belongs to no command";
		text = (struct slice){0};
		break;
	case FRAME_EXIT:
		what = "an exit frame came that belongs to no command";
		break;
	case FRAME_COMPLETE:
		what = "the server ended the command without an exit frame";
		break;
	case FRAME_REFUSED:
		what = "the server refused the command";
		break;
	default:
		break;
	}
	snprintf(buffer, size, "%s%s%.*s", what, text.len ? ": " : "", text.len < 300 ? (int)text.len : 300, text.data ? text.data : "");
	return buffer;
}

static void act(struct sandbox *sandbox, enum operation_action action, const struct frame *frame)
{
	char reason[SANDBOX_REASON_BYTES];
	const struct sandbox_job *job = &sandbox->running;
	switch (action) {
	case OPERATION_NOTHING:
		break;
	case OPERATION_DELIVER:
		if (!job->probe)
			job->events->on_output(job->ctx, frame->kind == FRAME_STDOUT ? SANDBOX_STDOUT : SANDBOX_STDERR, frame->bytes);
		break;
	case OPERATION_FINISH:
		finish(sandbox, frame->code);
		break;
	case OPERATION_FREE:
		sandbox_rest(sandbox);
		break;
	case OPERATION_IMPOSSIBLE:
		log_error_of(&job->subject, "sandbox: an impossible step of the operation");
		sandbox_give_up(sandbox, SANDBOX_MAY_HAVE_RUN, "internal error");
		break;
	case OPERATION_BREAK_NOT_STARTED:
	case OPERATION_LOST:
		sandbox_give_up(sandbox, SANDBOX_NOT_STARTED, reason_of(frame, reason, sizeof reason));
		break;
	case OPERATION_BREAK_MAY_HAVE_RUN:
		sandbox_give_up(sandbox, SANDBOX_MAY_HAVE_RUN, reason_of(frame, reason, sizeof reason));
		break;
	}
}

/* --- what the socket says --- */

static void on_message(void *ctx, enum frame_message message, struct slice bytes, bool end)
{
	struct sandbox *sandbox = ctx;
	struct frame frame;
	sandbox_note_handed(sandbox);
	int r = frames_feed(&sandbox->frames, message, bytes, end, &frame);
	if (r < 0)
		sandbox_give_up(sandbox, SANDBOX_MAY_HAVE_RUN, "no memory for a message of the server");
	if (r != FRAMES_FRAME)
		return;
	if (frame.kind == FRAME_SESSION)
		snprintf(sandbox->session, sizeof sandbox->session, "%.*s", SLICE_FMT(frame.bytes));
	enum operation_state before = sandbox->operation.state;
	enum operation_action action = operation_frame(&sandbox->operation, &frame);
	bool started = before != OPERATION_RUNNING && sandbox->operation.state == OPERATION_RUNNING;
	act(sandbox, action, &frame);
	if (started && sandbox->running.ahead)
		sandbox_ahead_waits(sandbox);
	if (started)
		sandbox_ask_for_input(sandbox);
}

static void channel_closed(struct sandbox *sandbox, const char *reason)
{
	enum operation_action action = operation_step(&sandbox->operation, OPERATION_CLOSED);
	sandbox_give_up(sandbox, action == OPERATION_BREAK_MAY_HAVE_RUN ? SANDBOX_MAY_HAVE_RUN : SANDBOX_NOT_STARTED, reason);
}

static void on_closed(void *ctx, const char *reason)
{
	struct sandbox *sandbox = ctx;
	sandbox_note_handed(sandbox);
	channel_closed(sandbox, reason);
}

static void on_drained(void *ctx)
{
	struct sandbox *sandbox = ctx;
	sandbox_note_handed(sandbox);
	sandbox_pump_input(sandbox);
	sandbox_ask_for_input(sandbox);
}

static void note_version(struct sandbox *sandbox, const char *version)
{
	snprintf(sandbox->version, sizeof sandbox->version, "%s", version);
}

static void on_open(void *ctx)
{
	struct sandbox *sandbox = ctx;
	if (sandbox->use_exec) {
		/* Asked for, no proof that it runs. Nothing of an earlier command can come on a socket of its own. */
		sandbox->operation.acknowledges = false;
		(void)operation_step(&sandbox->operation, OPERATION_HANDED);
		sandbox_feed_command(sandbox);
		sandbox_ask_for_input(sandbox);
		return;
	}
	sandbox->dialling = false;
	note_version(sandbox, socket_version(sandbox->socket));
	sandbox_rest(sandbox);
	sandbox->dialled(sandbox->dialled_ctx, sandbox, NULL);
}

/* A refusal by the Sprite or the API did not start anything (sprites contract 11.15), nor did a 500 that the agent says
 * itself; but another 500, a 502 or 504 may come from between us and a Sprite that had the request already. */
static bool may_have_started(const struct socket_refusal *refusal)
{
	bool refused = (refusal->status >= 400 && refusal->status < 500) || refusal->status == 503 ||
		       (refusal->status == 500 && refusal->from_agent);
	return refusal->request_sent && !refused;
}

static void on_refused(void *ctx, const struct socket_refusal *refusal)
{
	struct sandbox *sandbox = ctx;
	if (!sandbox->dialling) {
		if (may_have_started(refusal))
			(void)operation_step(&sandbox->operation, OPERATION_HANDED);
		channel_closed(sandbox, refusal->reason);
		return;
	}
	sandbox->dialling = false;
	drop_socket(sandbox);
	if (refusal->status == 404 && (refusal->from_agent || sandbox->believe_404)) {
		sandbox->use_exec = true;
		note_version(sandbox, refusal->version);
		sandbox_rest(sandbox);
		refusal = NULL;
	} else {
		sandbox->gone = true;
	}
	sandbox->dialled(sandbox->dialled_ctx, sandbox, refusal);
}

const struct socket_events sandbox_socket_events = {
	.on_open = on_open,
	.on_refused = on_refused,
	.on_message = on_message,
	.on_drained = on_drained,
	.on_closed = on_closed,
};

/* --- what it is --- */

bool sandbox_has_started(const struct sandbox *sandbox)
{
	return sandbox->running.set && !sandbox->running.probe && sandbox->operation.state == OPERATION_RUNNING;
}

void sandbox_on_lost(struct sandbox *sandbox, void (*on_lost)(void *ctx, const char *reason), void *ctx)
{
	sandbox->on_lost = on_lost;
	sandbox->on_lost_ctx = ctx;
	if (sandbox->lost)
		uv_timer_start(&sandbox->later, sandbox_on_later, 0, 0);
}

void sandbox_set_shim(struct sandbox *sandbox, bool shim)
{
	sandbox->shim = shim;
}

bool sandbox_has_shim(const struct sandbox *sandbox)
{
	return sandbox->shim;
}

const char *sandbox_name(const struct sandbox *sandbox)
{
	return sandbox->name;
}

const char *sandbox_version(const struct sandbox *sandbox)
{
	return sandbox->version;
}

bool sandbox_uses_exec(const struct sandbox *sandbox)
{
	return sandbox->use_exec;
}

/* --- life --- */

static void on_handle_closed(uv_handle_t *handle)
{
	struct sandbox *sandbox = handle->data;
	if (--sandbox->handles)
		return;
	free(sandbox->name);
	free(sandbox->base);
	free(sandbox);
}

void sandbox_close(struct sandbox *sandbox)
{
	if (!sandbox || sandbox->closed)
		return;
	if (sandbox_shim_waits(sandbox) && !sandbox->gone)
		sandbox_end_ahead(sandbox);
	sandbox->closed = sandbox->gone = true;
	drop_socket(sandbox);
	sandbox_job_deinit(&sandbox->running);
	sandbox_job_deinit(&sandbox->waiting);
	uv_close((uv_handle_t *)&sandbox->deadline, on_handle_closed);
	uv_close((uv_handle_t *)&sandbox->later, on_handle_closed);
}

static char *base_url(const char *ws_url, const char *name)
{
	CLEANUP(buf_deinit) struct buf url = BUF_MAX(1024);
	int r = buf_printf(&url, "%s/v1/sprites/", ws_url);
	if (r == 0)
		r = frames_percent_encode(&url, slice_str(name));
	return r < 0 ? NULL : buf_take_string(&url);
}

static int dial(struct sandbox *sandbox, const char *name)
{
	sandbox->name = slice_dup(slice_str(name));
	sandbox->base = base_url(sandbox->options.ws_url, name);
	if (!sandbox->name || !sandbox->base)
		return -ENOMEM;
	CLEANUP(buf_deinit) struct buf url = BUF_MAX(1100);
	int r = buf_printf(&url, "%s/control", sandbox->base);
	if (r < 0)
		return r;
	return socket_open(&sandbox->options.socket, buf_peek(&url).data, &sandbox_socket_events, sandbox, &sandbox->socket);
}

int sandbox_dial(const struct sandbox_options *options, const char *name, bool believe_404, sandbox_dialled done, void *ctx,
		 struct sandbox **out)
{
	struct sandbox *sandbox = calloc(1, sizeof *sandbox);
	if (!sandbox)
		return -ENOMEM;
	sandbox->options = *options;
	sandbox->dialled = done;
	sandbox->dialled_ctx = ctx;
	sandbox->dialling = true;
	sandbox->believe_404 = believe_404;
	frames_init(&sandbox->frames);
	operation_init(&sandbox->operation);
	uv_timer_init(options->socket.loop, &sandbox->deadline);
	uv_timer_init(options->socket.loop, &sandbox->later);
	sandbox->deadline.data = sandbox->later.data = sandbox;
	sandbox->handles = 2;
	int r = dial(sandbox, name);
	if (r < 0) {
		sandbox_close(sandbox);
		return r;
	}
	*out = sandbox;
	return 0;
}
