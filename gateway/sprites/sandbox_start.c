#include "gateway/sprites/sandbox_parts.h"

#include "gateway/sprites/record.h"

#include <errno.h>

#define URL_BYTES ((size_t)1024 + FRAMES_QUERY_MAX)

void sandbox_job_deinit(struct sandbox_job *job)
{
	buf_deinit(&job->start);
	*job = (struct sandbox_job){0};
}

struct sandbox_job sandbox_job_take(struct sandbox_job *job)
{
	struct sandbox_job taken = *job;
	*job = (struct sandbox_job){0};
	buf_deinit(&taken.start);
	return taken;
}

/* --- starting --- */

void sandbox_note_handed(struct sandbox *sandbox)
{
	if (sandbox->operation.state == OPERATION_QUEUED && sandbox->socket && !sandbox->use_exec &&
	    socket_handed(sandbox->socket) >= sandbox->running.ticket)
		(void)operation_step(&sandbox->operation, OPERATION_HANDED);
}

static int start_on_control(struct sandbox *sandbox, struct sandbox_job *job)
{
	int r = socket_send(sandbox->socket, FRAME_MESSAGE_TEXT, buf_peek(&job->start), (struct slice){0});
	if (r != 0)
		return r < 0 ? r : SANDBOX_E_LOST;
	job->ticket = socket_queued(sandbox->socket);
	return 0;
}

static int start_on_exec(struct sandbox *sandbox, struct sandbox_job *job)
{
	CLEANUP(free_ptr) char *url = buf_take_string(&job->start);
	if (!url)
		return -ENOMEM;
	return socket_open(&sandbox->options.socket, url, &sandbox_socket_events, sandbox, &sandbox->socket);
}

/* Moves the job into `running`. With any result but 0 nothing was sent and the job is where it was. */
static int start(struct sandbox *sandbox, struct sandbox_job *job)
{
	int r = sandbox->use_exec ? start_on_exec(sandbox, job) : start_on_control(sandbox, job);
	if (r != 0)
		return r;
	uv_timer_stop(&sandbox->later);
	(void)operation_step(&sandbox->operation, OPERATION_START);
	sandbox->running = sandbox_job_take(job);
	sandbox->session[0] = '\0';
	sandbox_note_handed(sandbox);
	sandbox_apply_pause(sandbox);
	if (!sandbox->use_exec)
		sandbox_feed_command(sandbox);
	return 0;
}

bool sandbox_shim_waits(const struct sandbox *sandbox)
{
	return sandbox->running.ahead && sandbox->running.more_input;
}

static bool can_adopt(const struct sandbox *sandbox, const struct sandbox_job *job)
{
	return sandbox_shim_waits(sandbox) && job->input_ahead.len && sandbox->operation.state == OPERATION_RUNNING;
}

/* Moves the job into what was started for it. */
static void adopt(struct sandbox *sandbox, struct sandbox_job *job)
{
	uv_timer_stop(&sandbox->later);
	(void)operation_step(&sandbox->operation, OPERATION_ADOPT);
	sandbox_job_deinit(&sandbox->running);
	sandbox->running = sandbox_job_take(job);
	sandbox->running.set = true;
	sandbox->running.input = sandbox->running.input_ahead;
	sandbox->running.may_block |= sandbox->running.input.len > SANDBOX_PIPE_BYTES;
	sandbox->running.ticket = socket_queued(sandbox->socket) + 1;
	sandbox_feed_command(sandbox);
	sandbox_note_handed(sandbox);
	sandbox_apply_pause(sandbox);
}

static int prepare_job(struct sandbox *sandbox, struct sandbox_job *job, const char *const *argv, size_t argc)
{
	int r;
	if (sandbox->use_exec) {
		CLEANUP(buf_deinit) struct buf query = BUF_MAX(FRAMES_QUERY_MAX);
		job->start = BUF_MAX(URL_BYTES);
		r = frames_write_query(&query, argv, argc);
		if (r == 0)
			r = buf_printf(&job->start, "%s/exec?%.*s", sandbox->base, SLICE_FMT(buf_peek(&query)));
	} else {
		/* Commands start in the order in which they are accepted, and at most one waits: its id is the next. */
		job->start = BUF_MAX(FRAMES_START_MAX);
		r = frames_write_start(&job->start, sandbox->operation.id + 1, argv, argc);
	}
	if (r != 0) {
		sandbox_job_deinit(job);
		return r == FRAMES_E_TOO_LONG || r == -EMSGSIZE ? SANDBOX_E_TOO_LONG : r;
	}
	job->set = true;
	return 0;
}

int sandbox_run(struct sandbox *sandbox, const struct sandbox_command *command, const struct sandbox_events *events, void *ctx)
{
	if (sandbox->gone || sandbox->dialling)
		return SANDBOX_E_LOST;
	if (sandbox->waiting.set || (sandbox->running.set && !sandbox->running.probe))
		return SANDBOX_E_BUSY;
	sandbox->ahead = false;
	struct sandbox_job job = {.input = command->input,
				  .input_ahead = command->input_ahead,
				  .more_input = command->more_input,
				  .may_block = command->more_input || command->input.len > SANDBOX_PIPE_BYTES,
				  .events = events,
				  .ctx = ctx};
	if (command->subject)
		job.subject = *command->subject;
	if (can_adopt(sandbox, &job)) {
		adopt(sandbox, &job);
		return 0;
	}
	int r = prepare_job(sandbox, &job, command->argv, command->argc);
	if (r != 0)
		return r;
	if (sandbox_shim_waits(sandbox) && !job.input_ahead.len)
		sandbox_end_ahead(sandbox);
	if (sandbox->operation.state == OPERATION_IDLE) {
		r = start(sandbox, &job);
		sandbox_job_deinit(&job);
		return r;
	}
	sandbox->waiting = job;
	return 0;
}

/* --- between commands --- */

static void on_deadline(uv_timer_t *timer);

static void start_probe(struct sandbox *sandbox, bool ahead)
{
	static const char *const keepalive[] = {"true"}, *const waiting[] = {RECORD_SHIM, RECORD_WAIT};
	struct sandbox_job job = {.probe = true, .ahead = ahead, .more_input = ahead};
	int r = ahead ? prepare_job(sandbox, &job, waiting, ARRAY_LEN(waiting))
		      : prepare_job(sandbox, &job, keepalive, ARRAY_LEN(keepalive));
	if (r == 0)
		r = start(sandbox, &job);
	sandbox_job_deinit(&job);
	if (r != 0)
		sandbox_give_up(sandbox, SANDBOX_NOT_STARTED, "the keepalive could not be started");
	else
		uv_timer_start(&sandbox->deadline, on_deadline, sandbox->options.keepalive_timeout_ms, 0);
}

void sandbox_ahead_waits(struct sandbox *sandbox)
{
	/* It has been told to end already. */
	if (!sandbox->running.more_input)
		return;
	uv_timer_stop(&sandbox->deadline);
	if (sandbox->waiting.set && can_adopt(sandbox, &sandbox->waiting))
		adopt(sandbox, &sandbox->waiting);
	else if (sandbox->options.keepalive_ms)
		uv_timer_start(&sandbox->later, sandbox_on_later, sandbox->options.keepalive_ms, 0);
}

void sandbox_end_ahead(struct sandbox *sandbox)
{
	sandbox->running.more_input = false;
	uv_timer_start(&sandbox->deadline, on_deadline, sandbox->options.keepalive_timeout_ms, 0);
	sandbox_pump_input(sandbox);
}

void sandbox_rest(struct sandbox *sandbox)
{
	if (sandbox->gone || sandbox->closed || sandbox->running.set)
		return;
	if (sandbox->operation.state == OPERATION_EXITED) {
		uv_timer_start(&sandbox->deadline, on_deadline, sandbox->options.complete_timeout_ms, 0);
		return;
	}
	uv_timer_stop(&sandbox->deadline);
	if (sandbox->waiting.set) {
		if (start(sandbox, &sandbox->waiting) != 0)
			sandbox_give_up(sandbox, SANDBOX_NOT_STARTED, "the command could not be handed over");
		else
			sandbox_ask_for_input(sandbox);
	} else if (sandbox->ahead) {
		start_probe(sandbox, true);
	} else if (sandbox->options.keepalive_ms) {
		uv_timer_start(&sandbox->later, sandbox_on_later, sandbox->options.keepalive_ms, 0);
	}
}

static void on_deadline(uv_timer_t *timer)
{
	struct sandbox *sandbox = timer->data;
	if (sandbox->running.set)
		sandbox_give_up(sandbox, SANDBOX_MAY_HAVE_RUN, "the keepalive command was not answered in time");
	else if (operation_step(&sandbox->operation, OPERATION_LATE) == OPERATION_LOST)
		sandbox_give_up(sandbox, SANDBOX_NOT_STARTED, "the server did not say op.complete after the exit frame");
}

void sandbox_on_later(uv_timer_t *timer)
{
	struct sandbox *sandbox = timer->data;
	if (sandbox->gone)
		sandbox_tell_loss(sandbox);
	else if (sandbox_shim_waits(sandbox))
		sandbox_end_ahead(sandbox);
	else if (sandbox->running.set)
		sandbox_give_up(sandbox, SANDBOX_MAY_HAVE_RUN, sandbox->reason);
	else
		start_probe(sandbox, sandbox->ahead);
}

void sandbox_start_ahead(struct sandbox *sandbox)
{
	sandbox->ahead = sandbox->options.ahead && sandbox->shim && !sandbox->use_exec;
	if (sandbox->ahead && !sandbox->gone && !sandbox->running.set && sandbox->operation.state == OPERATION_IDLE)
		uv_timer_start(&sandbox->later, sandbox_on_later, 0, 0);
}
