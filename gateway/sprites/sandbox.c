#include "gateway/sprites/sandbox_dial.h"

#include "gateway/base/log.h"
#include "gateway/sprites/handshake.h"
#include "gateway/sprites/operation.h"
#include "gateway/sprites/record.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define STDIN_PIECE     32768
#define STDIN_IN_FLIGHT 131072 /* queued on the socket; beyond it the input waits here until the socket has drained */
#define SIGNAL_LEN      16
#define SESSION_LEN     128
#define PIPE_BYTES      65536 /* what a pipe of Linux takes though nobody reads it */
#define REASON_BYTES    512
#define URL_BYTES       ((size_t)1024 + FRAMES_QUERY_MAX)

_Static_assert(SANDBOX_EXEC_ARGS_MAX == FRAMES_QUERY_MAX && SANDBOX_ARGS_MAX + 1024 <= FRAMES_START_MAX, "what the header promises");

/* A command with everything needed to start it later. */
struct job {
	bool set;
	bool probe;         /* our keepalive, not the user's */
	bool ahead;         /* … which waits for the user's command, until its input ends */
	struct buf start;   /* the op.start message, or the URL of its /exec */
	struct slice input; /* what is left of it */
	struct slice input_ahead;
	bool input_ended;
	bool more_input;         /* the end of `input` is not that of the command's input */
	bool may_block;          /* more input than a pipe takes: it may stand between a signal and the command */
	char signal[SIGNAL_LEN]; /* asked for before the command was started; "" = none */
	const struct sandbox_events *events;
	void *ctx;
	uint64_t ticket; /* its op.start in the socket's count of messages */
	struct log_subject subject;
};

struct sandbox {
	struct sandbox_options options;
	char *name;
	char version[HANDSHAKE_VERSION_MAX + 1];
	char *base; /* "wss://…/v1/sprites/{name}" */
	bool use_exec, dialling, believe_404, closed;
	bool shim;
	bool ahead;  /* the shim shall wait for the first command */
	bool gone;   /* no channel any more, for good */
	bool lost;   /* … and on_lost is due */
	bool paused; /* by the user, for the user's command */
	struct socket *socket;
	struct frames frames;
	struct operation operation;
	struct job running, waiting;
	char session[SESSION_LEN]; /* of the running command; "" = not known */
	sandbox_dialled dialled;
	void *dialled_ctx;
	void (*on_lost)(void *ctx, const char *reason);
	void *on_lost_ctx;
	char reason[REASON_BYTES];
	uv_timer_t deadline; /* of op.complete or of the keepalive */
	uv_timer_t later;    /* the next keepalive, or a loss to be told outside of a call */
	unsigned handles;
};

static const struct socket_events socket_events;

/* --- jobs --- */

static void job_deinit(struct job *job)
{
	buf_deinit(&job->start);
	*job = (struct job){0};
}

/* Emptied before its callback runs, so that the callback may start the next one. */
static struct job job_take(struct job *job)
{
	struct job taken = *job;
	*job = (struct job){0};
	buf_deinit(&taken.start);
	return taken;
}

static void break_job(struct job *job, enum sandbox_doubt doubt, const char *reason)
{
	struct job broken = job_take(job);
	if (broken.set && !broken.probe)
		broken.events->on_broken(broken.ctx, doubt, reason);
}

/* --- the end of the channel --- */

static void drop_socket(struct sandbox *sandbox)
{
	socket_close(sandbox->socket);
	sandbox->socket = NULL;
	frames_deinit(&sandbox->frames);
	frames_init(&sandbox->frames);
}

static void tell_loss(struct sandbox *sandbox)
{
	if (!sandbox->lost || !sandbox->on_lost || sandbox->closed)
		return;
	sandbox->lost = false;
	sandbox->on_lost(sandbox->on_lost_ctx, sandbox->reason);
}

/* Whoever waits is told; when nobody does, an idle sandbox was lost. */
static void give_up(struct sandbox *sandbox, enum sandbox_doubt doubt, const char *reason)
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
	tell_loss(sandbox);
}

static void on_later(uv_timer_t *timer);

static void give_up_later(struct sandbox *sandbox, const char *reason)
{
	snprintf(sandbox->reason, sizeof sandbox->reason, "%s", reason);
	uv_timer_start(&sandbox->later, on_later, 0, 0);
}

/* --- feeding the command --- */

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
		give_up_later(sandbox, "no memory for the input of a command");
	return r;
}

static void pump_input(struct sandbox *sandbox)
{
	struct job *job = &sandbox->running;
	while (has_room(sandbox) && (job->input.len || !job->more_input))
		if (send_input(sandbox, &job->input) != 0)
			return;
}

static void ask_for_input(struct sandbox *sandbox)
{
	const struct job *job = &sandbox->running;
	if (job->set && !job->probe && job->more_input && !job->input_ended)
		job->events->on_input(job->ctx);
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

static void feed_command(struct sandbox *sandbox)
{
	struct job *job = &sandbox->running;
	pump_input(sandbox);
	if (!job->signal[0])
		return;
	if (send_signal(sandbox, job->signal) != 0)
		give_up_later(sandbox, "a signal could not be sent");
	job->signal[0] = '\0';
}

static void apply_pause(struct sandbox *sandbox)
{
	if (!sandbox->socket)
		return;
	if (sandbox->paused && sandbox->running.set && !sandbox->running.probe)
		socket_pause(sandbox->socket);
	else
		socket_resume(sandbox->socket);
}

/* --- starting --- */

/* The message waits in the socket's queue until libcurl takes its first byte. */
static void note_handed(struct sandbox *sandbox)
{
	if (sandbox->operation.state == OPERATION_QUEUED && sandbox->socket && !sandbox->use_exec &&
	    socket_handed(sandbox->socket) >= sandbox->running.ticket)
		(void)operation_step(&sandbox->operation, OPERATION_HANDED);
}

static int start_on_control(struct sandbox *sandbox, struct job *job)
{
	int r = socket_send(sandbox->socket, FRAME_MESSAGE_TEXT, buf_peek(&job->start), (struct slice){0});
	if (r != 0)
		return r < 0 ? r : SANDBOX_E_LOST;
	job->ticket = socket_queued(sandbox->socket);
	return 0;
}

static int start_on_exec(struct sandbox *sandbox, struct job *job)
{
	CLEANUP(free_ptr) char *url = buf_take_string(&job->start);
	if (!url)
		return -ENOMEM;
	return socket_open(&sandbox->options.socket, url, &socket_events, sandbox, &sandbox->socket);
}

/* Moves the job into `running`. With any result but 0 nothing was sent and the job is where it was. */
static int start(struct sandbox *sandbox, struct job *job)
{
	int r = sandbox->use_exec ? start_on_exec(sandbox, job) : start_on_control(sandbox, job);
	if (r != 0)
		return r;
	uv_timer_stop(&sandbox->later);
	(void)operation_step(&sandbox->operation, OPERATION_START);
	sandbox->running = job_take(job);
	sandbox->session[0] = '\0';
	note_handed(sandbox);
	apply_pause(sandbox);
	if (!sandbox->use_exec)
		feed_command(sandbox);
	return 0;
}

/* The shim was started ahead, and was told neither a command nor its end. */
static bool shim_waits(const struct sandbox *sandbox)
{
	return sandbox->running.ahead && sandbox->running.more_input;
}

static bool can_adopt(const struct sandbox *sandbox, const struct job *job)
{
	return shim_waits(sandbox) && job->input_ahead.len && sandbox->operation.state == OPERATION_RUNNING;
}

/* Moves the job into what was started for it. */
static void adopt(struct sandbox *sandbox, struct job *job)
{
	uv_timer_stop(&sandbox->later);
	(void)operation_step(&sandbox->operation, OPERATION_ADOPT);
	job_deinit(&sandbox->running);
	sandbox->running = job_take(job);
	sandbox->running.set = true;
	sandbox->running.input = sandbox->running.input_ahead;
	sandbox->running.may_block |= sandbox->running.input.len > PIPE_BYTES;
	sandbox->running.ticket = socket_queued(sandbox->socket) + 1;
	feed_command(sandbox);
	note_handed(sandbox);
	apply_pause(sandbox);
}

static int prepare_job(struct sandbox *sandbox, struct job *job, const char *const *argv, size_t argc)
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
		job_deinit(job);
		return r == FRAMES_E_TOO_LONG || r == -EMSGSIZE ? SANDBOX_E_TOO_LONG : r;
	}
	job->set = true;
	return 0;
}

/* --- between commands --- */

static void on_deadline(uv_timer_t *timer);

static void start_probe(struct sandbox *sandbox, bool ahead)
{
	static const char *const keepalive[] = {"true"}, *const waiting[] = {RECORD_SHIM, RECORD_WAIT};
	struct job job = {.probe = true, .ahead = ahead, .more_input = ahead};
	int r = ahead ? prepare_job(sandbox, &job, waiting, ARRAY_LEN(waiting))
		      : prepare_job(sandbox, &job, keepalive, ARRAY_LEN(keepalive));
	if (r == 0)
		r = start(sandbox, &job);
	job_deinit(&job);
	if (r != 0)
		give_up(sandbox, SANDBOX_NOT_STARTED, "the keepalive could not be started");
	else
		uv_timer_start(&sandbox->deadline, on_deadline, sandbox->options.keepalive_timeout_ms, 0);
}

/* One that waits has started: it is given its command, or told after a while that there is none, which shows that the Sprite is well. */
static void ahead_waits(struct sandbox *sandbox)
{
	/* It has been told to end already. */
	if (!sandbox->running.more_input)
		return;
	uv_timer_stop(&sandbox->deadline);
	if (sandbox->waiting.set && can_adopt(sandbox, &sandbox->waiting))
		adopt(sandbox, &sandbox->waiting);
	else if (sandbox->options.keepalive_ms)
		uv_timer_start(&sandbox->later, on_later, sandbox->options.keepalive_ms, 0);
}

static void end_ahead(struct sandbox *sandbox)
{
	sandbox->running.more_input = false;
	uv_timer_start(&sandbox->deadline, on_deadline, sandbox->options.keepalive_timeout_ms, 0);
	pump_input(sandbox);
}

/* Called whenever a command has ended or the channel has opened. */
static void rest(struct sandbox *sandbox)
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
			give_up(sandbox, SANDBOX_NOT_STARTED, "the command could not be handed over");
		else
			ask_for_input(sandbox);
	} else if (sandbox->ahead) {
		start_probe(sandbox, true);
	} else if (sandbox->options.keepalive_ms) {
		uv_timer_start(&sandbox->later, on_later, sandbox->options.keepalive_ms, 0);
	}
}

static void on_deadline(uv_timer_t *timer)
{
	struct sandbox *sandbox = timer->data;
	if (sandbox->running.set)
		give_up(sandbox, SANDBOX_MAY_HAVE_RUN, "the keepalive command was not answered in time");
	else if (operation_step(&sandbox->operation, OPERATION_LATE) == OPERATION_LOST)
		give_up(sandbox, SANDBOX_NOT_STARTED, "the server did not say op.complete after the exit frame");
}

static void on_later(uv_timer_t *timer)
{
	struct sandbox *sandbox = timer->data;
	if (sandbox->gone)
		tell_loss(sandbox);
	else if (shim_waits(sandbox))
		end_ahead(sandbox);
	else if (sandbox->running.set)
		give_up(sandbox, SANDBOX_MAY_HAVE_RUN, sandbox->reason);
	else
		start_probe(sandbox, sandbox->ahead);
}

/* --- what the state machine asks for --- */

static void finish(struct sandbox *sandbox, unsigned exit_code)
{
	struct job done = job_take(&sandbox->running);
	sandbox->paused &= done.probe; /* a command behind a keepalive may have been paused already */
	uv_timer_stop(&sandbox->deadline);
	uv_timer_stop(&sandbox->later);
	if (sandbox->use_exec) {
		/* At once: the server itself closes only seconds later (sprites contract 3.4). */
		drop_socket(sandbox);
		(void)operation_step(&sandbox->operation, OPERATION_COMPLETE);
	} else {
		socket_drop_unsent(sandbox->socket);
		apply_pause(sandbox);
	}
	if (done.probe && exit_code != (done.ahead ? RECORD_UNUSED : 0)) {
		give_up(sandbox, SANDBOX_NOT_STARTED, "the keepalive command failed");
		return;
	}
	if (!done.probe)
		done.events->on_exit(done.ctx, exit_code);
	rest(sandbox);
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
	char reason[REASON_BYTES];
	const struct job *job = &sandbox->running;
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
		rest(sandbox);
		break;
	case OPERATION_IMPOSSIBLE:
		log_error_of(&job->subject, "sandbox: an impossible step of the operation");
		give_up(sandbox, SANDBOX_MAY_HAVE_RUN, "internal error");
		break;
	case OPERATION_BREAK_NOT_STARTED:
	case OPERATION_LOST:
		give_up(sandbox, SANDBOX_NOT_STARTED, reason_of(frame, reason, sizeof reason));
		break;
	case OPERATION_BREAK_MAY_HAVE_RUN:
		give_up(sandbox, SANDBOX_MAY_HAVE_RUN, reason_of(frame, reason, sizeof reason));
		break;
	}
}

/* --- what the socket says --- */

static void on_message(void *ctx, enum frame_message message, struct slice bytes, bool end)
{
	struct sandbox *sandbox = ctx;
	struct frame frame;
	note_handed(sandbox);
	int r = frames_feed(&sandbox->frames, message, bytes, end, &frame);
	if (r < 0)
		give_up(sandbox, SANDBOX_MAY_HAVE_RUN, "no memory for a message of the server");
	if (r != FRAMES_FRAME)
		return;
	if (frame.kind == FRAME_SESSION)
		snprintf(sandbox->session, sizeof sandbox->session, "%.*s", SLICE_FMT(frame.bytes));
	enum operation_state before = sandbox->operation.state;
	enum operation_action action = operation_frame(&sandbox->operation, &frame);
	bool started = before != OPERATION_RUNNING && sandbox->operation.state == OPERATION_RUNNING;
	act(sandbox, action, &frame);
	if (started && sandbox->running.ahead)
		ahead_waits(sandbox);
	if (started)
		ask_for_input(sandbox);
}

static void channel_closed(struct sandbox *sandbox, const char *reason)
{
	enum operation_action action = operation_step(&sandbox->operation, OPERATION_CLOSED);
	give_up(sandbox, action == OPERATION_BREAK_MAY_HAVE_RUN ? SANDBOX_MAY_HAVE_RUN : SANDBOX_NOT_STARTED, reason);
}

static void on_closed(void *ctx, const char *reason)
{
	struct sandbox *sandbox = ctx;
	note_handed(sandbox);
	channel_closed(sandbox, reason);
}

static void on_drained(void *ctx)
{
	struct sandbox *sandbox = ctx;
	note_handed(sandbox);
	pump_input(sandbox);
	ask_for_input(sandbox);
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
		feed_command(sandbox);
		ask_for_input(sandbox);
		return;
	}
	sandbox->dialling = false;
	note_version(sandbox, socket_version(sandbox->socket));
	rest(sandbox);
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
		rest(sandbox);
		refusal = NULL;
	} else {
		sandbox->gone = true;
	}
	sandbox->dialled(sandbox->dialled_ctx, sandbox, refusal);
}

static const struct socket_events socket_events = {
	.on_open = on_open,
	.on_refused = on_refused,
	.on_message = on_message,
	.on_drained = on_drained,
	.on_closed = on_closed,
};

/* --- the public functions --- */

int sandbox_run(struct sandbox *sandbox, const struct sandbox_command *command, const struct sandbox_events *events, void *ctx)
{
	if (sandbox->gone || sandbox->dialling)
		return SANDBOX_E_LOST;
	if (sandbox->waiting.set || (sandbox->running.set && !sandbox->running.probe))
		return SANDBOX_E_BUSY;
	sandbox->ahead = false;
	struct job job = {.input = command->input,
			  .input_ahead = command->input_ahead,
			  .more_input = command->more_input,
			  .may_block = command->more_input || command->input.len > PIPE_BYTES,
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
	if (shim_waits(sandbox) && !job.input_ahead.len)
		end_ahead(sandbox);
	if (sandbox->operation.state == OPERATION_IDLE) {
		r = start(sandbox, &job);
		job_deinit(&job);
		return r;
	}
	sandbox->waiting = job;
	return 0;
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
	struct job *job = sandbox->waiting.set ? &sandbox->waiting : &sandbox->running;
	job->more_input = false;
	pump_input(sandbox);
}

int sandbox_signal(struct sandbox *sandbox, const char *signal)
{
	struct job *job = sandbox->waiting.set ? &sandbox->waiting : &sandbox->running;
	if (!job->set || job->probe)
		return SANDBOX_E_LOST;
	if (job == &sandbox->running && can_send(sandbox))
		return send_signal(sandbox, signal);
	int len = snprintf(job->signal, sizeof job->signal, "%s", signal);
	return len < SIGNAL_LEN ? 0 : -EINVAL;
}

bool sandbox_has_started(const struct sandbox *sandbox)
{
	return sandbox->running.set && !sandbox->running.probe && sandbox->operation.state == OPERATION_RUNNING;
}

void sandbox_pause(struct sandbox *sandbox)
{
	sandbox->paused = true;
	apply_pause(sandbox);
}

void sandbox_resume(struct sandbox *sandbox)
{
	sandbox->paused = false;
	apply_pause(sandbox);
}

void sandbox_on_lost(struct sandbox *sandbox, void (*on_lost)(void *ctx, const char *reason), void *ctx)
{
	sandbox->on_lost = on_lost;
	sandbox->on_lost_ctx = ctx;
	if (sandbox->lost)
		uv_timer_start(&sandbox->later, on_later, 0, 0);
}

void sandbox_start_ahead(struct sandbox *sandbox)
{
	sandbox->ahead = sandbox->options.ahead && sandbox->shim && !sandbox->use_exec;
	if (sandbox->ahead && !sandbox->gone && !sandbox->running.set && sandbox->operation.state == OPERATION_IDLE)
		uv_timer_start(&sandbox->later, on_later, 0, 0);
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
	if (shim_waits(sandbox) && !sandbox->gone)
		end_ahead(sandbox);
	sandbox->closed = sandbox->gone = true;
	drop_socket(sandbox);
	job_deinit(&sandbox->running);
	job_deinit(&sandbox->waiting);
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
	return socket_open(&sandbox->options.socket, buf_peek(&url).data, &socket_events, sandbox, &sandbox->socket);
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
