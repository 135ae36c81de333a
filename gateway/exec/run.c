#include "gateway/exec/run_parts.h"

#include "gateway/base/clock.h"
#include "gateway/base/log.h"

#include <stdio.h>
#include <stdlib.h>

#define LINGER_MS       250
#define HELD_LEAST_MS   3000   /* of the check's time, when rows were waited for */
#define GUARD_SLACK_MS  600000 /* longer than any command and its answer need beyond its time */
#define ENDING_SLACK_MS 60000  /* the same, of a Sprite that nobody comes back to: its lease ends after 15 s */

static void free_run(struct run *run)
{
	launch_deinit(&run->launch);
	feed_deinit(&run->feed);
	verify_deinit(&run->verify);
	collect_deinit(&run->collect);
	writer_deinit(&run->writer);
	output_deinit(&run->result.streams[0]);
	output_deinit(&run->result.streams[1]);
	free(run);
}

static void on_closed(uv_handle_t *handle)
{
	struct run *run = handle->data;
	const struct run_owner *owner = run->owner;
	if (--run->handles)
		return;
	owner->on_freed(owner->ctx, run);
	free_run(run);
}

static void release(struct run *run)
{
	if (run->member)
		pool_release(run->owner->pool, run->member);
	run->member = NULL;
	if (run->use) {
		/* The next command of the session is not to wait for what this one's rows waited for. */
		if (run->sandbox)
			sandbox_resume(run->sandbox);
		session_use_end(run->use, run->idle);
	}
	run->use = NULL;
	run->sandbox = NULL;
	run->state = FREED;
	if (uv_is_closing((uv_handle_t *)&run->timer))
		return;
	uv_close((uv_handle_t *)&run->timer, on_closed);
	uv_close((uv_handle_t *)&run->ping, on_closed);
}

void run_finish(struct run *run, enum exec_outcome outcome)
{
	run_answer(run, outcome);
	release(run);
}

void run_refuse(struct run *run, enum exec_refusal refusal, uint64_t retry_after_ms, const char *detail)
{
	run->result.refusal = refusal;
	run->result.retry_after_ms = retry_after_ms;
	snprintf(run->result.detail, sizeof run->result.detail, "%s", detail);
	run->result.run_start_us = 0;
	run_finish(run, EXEC_NOT_STARTED);
}

/* --- time --- */

static void on_timer(uv_timer_t *timer);

void run_enter(struct run *run, enum run_state state, uint64_t timeout_ms)
{
	run->state = state;
	uv_timer_start(&run->timer, on_timer, timeout_ms, 0);
}

/* 200 is for commands that are known to have run. */
static void finish_late(struct run *run)
{
	bool unknown = !run->started && run->late == EXEC_TIMED_OUT;
	if (unknown)
		snprintf(run->result.detail, sizeof run->result.detail, "The sandbox did not say in time that the command has started.");
	run_finish(run, unknown ? EXEC_UNKNOWN : run->late);
}

/* Rows that Datasette has not taken yet, or has taken just now, may be before the end of the command. It may take them, then they are dropped. */
static bool waits_for_rows(struct run *run)
{
	uint64_t left_ms = run_check_left_ms(run);
	bool full = writer_is_full(&run->writer);
	if (!writer_went_on(&run->writer) && !full)
		return false;
	if (left_ms > HELD_LEAST_MS) {
		run_enter(run, KILLING, full ? left_ms - HELD_LEAST_MS : RUN_KILL_MS);
		return true;
	}
	writer_give_up(&run->writer, WRITER_LATE);
	run_enter(run, KILLING, RUN_KILL_MS);
	run_go_on(run);
	return true;
}

static void terminate(struct run *run)
{
	run_enter(run, TERMINATING, RUN_TERM_MS);
	if (sandbox_signal(run->sandbox, "TERM") != 0)
		log_info_of(&run->job->lease.subject, "exec: TERM could not be sent");
}

static void on_timer(uv_timer_t *timer)
{
	struct run *run = timer->data;
	if (run->state == RUNNING || run->state == TERMINATING || run->state == KILLING)
		run->started = sandbox_has_started(run->sandbox);
	switch (run->state) {
	case RUNNING:
		terminate(run);
		break;
	case TERMINATING:
		run_enter(run, KILLING, RUN_KILL_MS);
		if (sandbox_signal(run->sandbox, "KILL") != 0)
			log_info_of(&run->job->lease.subject, "exec: KILL could not be sent");
		break;
	case KILLING:
		if (!waits_for_rows(run))
			finish_late(run);
		break;
	case CHECKING:
		run_check_time(run);
		break;
	case LINGERING:
		release(run);
		break;
	case OPENING:
		run_try_again(run, "The sandbox's network was not opened in time.");
		break;
	case CLAIMING:
	case FREED:
		break;
	}
}

/* --- the command --- */

static void on_output(void *ctx, enum sandbox_stream stream, struct slice bytes)
{
	struct run *run = ctx;
	if (run->state != LINGERING && verify_output(&run->verify, stream, bytes) < 0)
		run_finish(run, run_without_memory(run));
}

static void on_exited(void *ctx, unsigned exit_code)
{
	struct run *run = ctx;
	run->idle = true;
	if (run->state == LINGERING) {
		release(run);
		return;
	}
	run->result.exit_code = exit_code;
	if (verify_end(&run->verify) < 0) {
		run_finish(run, run_without_memory(run));
		return;
	}
	/* Its output may have come late, and a KILL upon the one who waits for that to be passed on. */
	bool in_time = run->state == RUNNING || verify_own_end(&run->verify, &run->result.exit_code);
	run->outcome = in_time ? EXEC_EXITED : run->late;
	bool compare = verify_has_to_compare(&run->verify, run->owner->verify_bytes);
	if (compare || run->job->request->output_count || run->writer.target)
		run_check(run, compare);
	else
		run_finish(run, run->outcome);
}

static void on_broken(void *ctx, enum sandbox_doubt doubt, const char *reason)
{
	struct run *run = ctx;
	if (run->state == LINGERING) {
		release(run);
	} else if (run->state != RUNNING) {
		finish_late(run);
	} else if (doubt == SANDBOX_NOT_STARTED) {
		run_try_again(run, reason);
	} else {
		snprintf(run->result.detail, sizeof run->result.detail, "%s", reason);
		run_finish(run, EXEC_UNKNOWN);
	}
}

static void on_input(void *ctx)
{
	struct run *run = ctx;
	/* Whom it would give credit may be gone. */
	if (run->state != LINGERING)
		feed_pump(&run->feed, run->sandbox);
}

static const struct sandbox_events events = {.on_output = on_output, .on_exit = on_exited, .on_input = on_input, .on_broken = on_broken};

/* What no Sprite takes was refused before: this one has no control socket. */
static void refuse_length(struct run *run)
{
	char detail[sizeof run->result.detail];
	snprintf(detail, sizeof detail, "Arguments and variables, percent-encoded, are longer than the %zu bytes that this sandbox takes.",
		 SANDBOX_EXEC_ARGS_MAX);
	run_refuse(run, EXEC_REFUSED_TOO_LONG, 0, detail);
}

void run_launch(struct run *run)
{
	bool shim = sandbox_has_shim(run->sandbox);
	if ((run->launch.files || run->launch.limited || run->job->request->output_count) && !shim) {
		run_refuse(run, EXEC_REFUSED_BY_PROVIDER, 1000,
			   "This sandbox takes and gives no files and has no limits: the program for that cannot be run there.");
		return;
	}
	struct sandbox_command command = launch_command(&run->launch, shim);
	command.more_input = run->job->feeds;
	command.subject = &run->job->lease.subject;
	verify_begin(&run->verify, run->owner->verify_bytes && shim);
	run->result.run_start_us = clock_mono_us();
	int r = sandbox_run(run->sandbox, &command, &events, run);
	if (r == 0) {
		run_enter(run, RUNNING, run->job->timeout_ms);
		feed_pump(&run->feed, run->sandbox);
		if (run_begin_stream(run) < 0)
			run_finish(run, run_without_memory(run));
	} else if (r == SANDBOX_E_TOO_LONG) {
		refuse_length(run);
	} else {
		run_try_again(run, "The sandbox was lost before the command could be sent.");
	}
}

/* --- its beginning and its end --- */

/* The sandbox's own deadline: so long does anything that is in it go on, whatever becomes of us. A session may be without a command meanwhile. */
static uint64_t lasts_s(const struct run *run)
{
	uint64_t beyond_ms = run->session.name[0] ? run->owner->session_idle_ms + GUARD_SLACK_MS : ENDING_SLACK_MS;
	return (run->job->timeout_ms + beyond_ms + 999) / 1000;
}

static int init_parts(struct run *run)
{
	const struct exec_job *job = run->job;
	int r = verify_init(&run->verify, run->result.streams);
	if (r == 0)
		r = collect_init(&run->collect, job->request);
	if (r < 0)
		return r;
	if (job->request->output_count)
		run->result.files = &run->collect.outfiles;
	if (run->writer.target)
		run->result.writer = &run->writer;
	struct launch_options options = {.lasts_s = lasts_s(run), .caps = job->caps};
	if (run->owner->verify_bytes)
		options.nonce = verify_nonce(&run->verify);
	return launch_init(&run->launch, job->request, job->message.exec_id, &options);
}

struct run *run_start(const struct run_owner *owner, struct exec_job *job)
{
	struct run *run = calloc(1, sizeof *run);
	if (!run)
		return NULL;
	*run = (struct run){.owner = owner, .job = job, .limit_ms = job->timeout_ms, .late = EXEC_TIMED_OUT};
	job->stdin_bytes = job->request->input.len;
	delivery_init(&run->delivery, job);
	feed_init(&run->feed, job);
	writer_init(&run->writer, job, owner->insert_rows);
	run_init_outputs(run);
	if (job->request->session) {
		snprintf(run->session.name, sizeof run->session.name, "%s", job->request->session);
		memcpy(run->session.kid, job->lease.kid, sizeof run->session.kid);
		memcpy(run->session.lease, job->lease.id, sizeof run->session.lease);
		run->session.subject = job->lease.subject;
		run->kept = job->session;
		run->result.session = run->session.name;
	}
	run->result.tier = "none";
	run->result.admit_us = job->admit_us;
	run->result.claim_start_us = clock_mono_us();
	run->tries = 1;
	/* What was ended before it came here is canceled next, and claims nothing. */
	bool is_ended = job->kill.stopped || job->kill.killed;
	if (init_parts(run) < 0 || (!is_ended && run_claim(run) < 0)) {
		free_run(run);
		return NULL;
	}
	uv_timer_init(owner->loop, &run->timer);
	uv_timer_init(owner->loop, &run->ping);
	run->timer.data = run->ping.data = run;
	run->handles = 2;
	return run;
}

/* Before the output is checked. */
static void stop(struct run *run, enum exec_outcome outcome)
{
	if (run->claim)
		pool_cancel(run->owner->pool, TAKE(run->claim));
	if (run->state == CLAIMING || run->state == OPENING) {
		run_finish(run, outcome);
		return;
	}
	if (sandbox_signal(run->sandbox, "KILL") != 0)
		log_info_of(&run->job->lease.subject, "exec: KILL could not be sent");
	run_answer(run, outcome);
	/* Lets the KILL leave before the channel closes. A session's Sprite stays, and in it a command that the KILL does
	 * not reach. */
	run_enter(run, LINGERING, LINGER_MS);
}

void run_cancel(struct run *run)
{
	if (run->state == LINGERING || run->state == FREED)
		return;
	if (run->state == CHECKING) {
		run_end_check(run);
		return;
	}
	stop(run, EXEC_CANCELED);
}

void run_stop(struct run *run)
{
	if (run->state != RUNNING) {
		run_cancel(run);
		return;
	}
	run->limit_ms = run_ran_us(run) / 1000;
	run->late = EXEC_CANCELED;
	terminate(run);
}

/* The end of its input never came, so the command cannot have taken what it got for all of it. */
static void break_source(struct run *run, const struct source_failure *failure)
{
	if (run->state > RUNNING)
		return;
	run->result.refusal = EXEC_REFUSED_SOURCE;
	run->result.source = *failure;
	snprintf(run->result.detail, sizeof run->result.detail, "%s", failure->detail);
	/* The shim still waits for files: nothing was started, and nothing will be. */
	bool unrun = failure->unrun || run->state != RUNNING;
	if (unrun)
		run->result.run_start_us = 0;
	stop(run, unrun ? EXEC_NOT_STARTED : EXEC_CANCELED);
}

void run_input(struct run *run, struct exec_piece *piece)
{
	if (piece->end == EXEC_INPUT_BROKEN) {
		break_source(run, &piece->failure);
		exec_piece_free(piece);
		return;
	}
	feed_add(&run->feed, piece);
	if (run->state == RUNNING)
		feed_pump(&run->feed, run->sandbox);
}

const char *run_phase(const struct run *run)
{
	static const char *const names[] = {[CLAIMING] = "waiting",   [OPENING] = "waiting", [RUNNING] = "running",
					    [TERMINATING] = "ending", [KILLING] = "ending",  [CHECKING] = "checking"};
	return run->job ? names[run->state] : NULL;
}
