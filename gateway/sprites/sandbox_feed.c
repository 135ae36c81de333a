#include "gateway/sprites/sandbox_parts.h"

#include <errno.h>
#include <stdio.h>

#define STDIN_PIECE     32768
#define STDIN_IN_FLIGHT 131072 /* queued on the socket; beyond it the input waits here until the socket has drained */

static bool can_send(const struct sandbox *sandbox)
{
	enum operation_state state = sandbox->operation.state;
	bool started = state == OPERATION_SENT || state == OPERATION_RUNNING || (state == OPERATION_QUEUED && !sandbox->use_exec);
	return sandbox->running.set && started && sandbox->socket;
}

static bool has_room(const struct sandbox *sandbox)
{
	return can_send(sandbox) && !sandbox->running.input_ended && socket_unsent(sandbox->socket) < STDIN_IN_FLIGHT;
}

/* The next of `rest`, or EOF when there is none. 0: it was taken. */
static int send_input(struct sandbox *sandbox, struct slice *rest)
{
	const char id = rest->len ? FRAMES_STDIN : FRAMES_STDIN_EOF;
	struct slice piece = *rest;
	if (piece.len > STDIN_PIECE)
		piece.len = STDIN_PIECE;
	int r = socket_send(sandbox->socket, FRAME_MESSAGE_BINARY, slice_of(&id, 1), piece);
	if (r == 0) {
		sandbox->running.input_ended = !piece.len;
		*rest = slice_from(*rest, piece.len);
	}
	/* A full queue drains again, a closed socket says so itself. */
	if (r < 0)
		sandbox_give_up_later(sandbox, "no memory for the input of a command");
	return r;
}

void sandbox_pump_input(struct sandbox *sandbox)
{
	struct sandbox_job *job = &sandbox->running;
	while (has_room(sandbox) && (job->input.len || !job->more_input))
		if (send_input(sandbox, &job->input) != 0)
			return;
}

void sandbox_ask_for_input(struct sandbox *sandbox)
{
	const struct sandbox_job *job = &sandbox->running;
	if (job->set && !job->probe && job->more_input && !job->input_ended)
		job->events->on_input(job->ctx);
}

size_t sandbox_feed(struct sandbox *sandbox, struct slice bytes)
{
	struct slice rest = bytes;
	while (rest.len && sandbox->running.more_input && !sandbox->running.probe && !sandbox->running.input.len && has_room(sandbox))
		if (send_input(sandbox, &rest) != 0)
			break;
	return bytes.len - rest.len;
}

void sandbox_end_input(struct sandbox *sandbox)
{
	struct sandbox_job *job = sandbox->waiting.set ? &sandbox->waiting : &sandbox->running;
	job->more_input = false;
	sandbox_pump_input(sandbox);
}

/* The server hands frames to the command in order, so a signal in the socket waits behind input that nobody reads. */
static int signal_session(struct sandbox *sandbox, const char *signal)
{
	return sandbox->options.kill(sandbox->options.kill_ctx, sandbox->name, sandbox->session, signal, &sandbox->running.subject);
}

static int send_signal(struct sandbox *sandbox, const char *signal)
{
	if (sandbox->running.may_block && sandbox->session[0] && signal_session(sandbox, signal) == 0)
		return 0;
	CLEANUP(buf_deinit) struct buf text = BUF_MAX(256);
	int r = frames_write_signal(&text, signal);
	if (r < 0)
		return r;
	/* What a killed command would still have read only delays its end. */
	if (strcmp(signal, "KILL") == 0 && sandbox->operation.state != OPERATION_QUEUED) {
		socket_drop_unsent(sandbox->socket);
		sandbox->running.input_ended = true;
	}
	r = socket_send(sandbox->socket, FRAME_MESSAGE_TEXT, buf_peek(&text), (struct slice){0});
	return r > 0 ? SANDBOX_E_LOST : r;
}

int sandbox_signal(struct sandbox *sandbox, const char *signal)
{
	struct sandbox_job *job = sandbox->waiting.set ? &sandbox->waiting : &sandbox->running;
	if (!job->set || job->probe)
		return SANDBOX_E_LOST;
	if (job == &sandbox->running && can_send(sandbox))
		return send_signal(sandbox, signal);
	int len = snprintf(job->signal, sizeof job->signal, "%s", signal);
	return len < SANDBOX_SIGNAL_LEN ? 0 : -EINVAL;
}

void sandbox_feed_command(struct sandbox *sandbox)
{
	struct sandbox_job *job = &sandbox->running;
	sandbox_pump_input(sandbox);
	if (!job->signal[0])
		return;
	if (send_signal(sandbox, job->signal) != 0)
		sandbox_give_up_later(sandbox, "a signal could not be sent");
	job->signal[0] = '\0';
}

void sandbox_apply_pause(struct sandbox *sandbox)
{
	if (!sandbox->socket)
		return;
	if (sandbox->paused && sandbox->running.set && !sandbox->running.probe)
		socket_pause(sandbox->socket);
	else
		socket_resume(sandbox->socket);
}

void sandbox_pause(struct sandbox *sandbox)
{
	sandbox->paused = true;
	sandbox_apply_pause(sandbox);
}

void sandbox_resume(struct sandbox *sandbox)
{
	sandbox->paused = false;
	sandbox_apply_pause(sandbox);
}
