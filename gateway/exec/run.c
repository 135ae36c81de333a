#include "gateway/exec/run.h"

#include "gateway/base/clock.h"
#include "gateway/base/log.h"
#include "gateway/exec/collect.h"
#include "gateway/exec/copy.h"
#include "gateway/exec/delivery.h"
#include "gateway/exec/feed.h"
#include "gateway/exec/stored.h"
#include "gateway/exec/verify.h"
#include "gateway/exec/writer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define TERM_GRACE_MS   2000
#define KILL_GRACE_MS   1000
#define LINGER_MS       250
#define CHECK_MS        10000 /* silent; the lease lasts 15 s longer than the command may, killing takes 3 */
#define HELD_LEAST_MS   3000  /* of the check's time, when rows were waited for */
#define PING_MS         15000 /* a stream that is silent so long says that it is alive */
#define OPEN_LEAST_MS   1000 /* the lease's 15 s have this left, after killing and checking */
#define TRIES           2
#define GUARD_SLACK_MS  600000 /* longer than any command and its answer need beyond its time */
#define ENDING_SLACK_MS 60000 /* the same, of a Sprite that nobody comes back to: its lease ends after 15 s */

enum run_state { CLAIMING, OPENING, RUNNING, TERMINATING, KILLING, CHECKING, LINGERING, FREED };

struct run {
	const struct run_owner *owner;
	enum run_state state;
	struct exec_job *job;        /* NULL once answered */
	struct pool_claim *claim;
	struct pool_member *member;
	struct session_use *use;     /* of a job with a session, instead of claim and member */
	struct session_ref session;  /* name "" = none */
	struct admission_session kept; /* as the next use finds it */
	bool idle;     /* nothing of the command runs on the channel any more */
	struct sandbox *sandbox;
	struct launch launch;
	struct feed feed;            /* of a job that feeds */
	struct delivery delivery;    /* of a job that wants its answer streamed */
	struct copy copy;            /* likewise */
	struct verify verify;
	struct collect collect;      /* of a job that wants files back */
	struct writer writer;        /* of a job whose output is rows for Datasette */
	enum exec_outcome outcome;          /* of the command whose output is being checked */
	bool started; /* known at the timeout or later */
	unsigned tries;
	struct exec_result result;
	uv_timer_t timer, ping;
	unsigned handles;
};

static void start_claim(struct run *run);
static void try_again(struct run *run, const char *reason);

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

static uint64_t output_bytes(const struct run *run)
{
	const struct output *streams = run->result.streams;
	return output_written(&streams[0]) + output_written(&streams[1]) + outfiles_bytes(&run->collect.outfiles);
}

/* The answer has been written, unless `failed`. */
static void settle(struct run *run, bool failed)
{
	const struct run_owner *owner = run->owner;
	const struct exec_job *job = run->job;
	bool refund = !run->result.run_start_us; /* not started, or canceled while it waited for a Sprite */
	size_t head = STORED_HEAD_MAX + outfiles_put_max(&run->collect.outfiles);
	CLEANUP(buf_deinit) struct buf stored = BUF_MAX(owner->result_bytes + head);
	bool keeps = owner->result_bytes && !failed && stored_write(job, &run->result, refund, owner->result_bytes, &stored) == 0;
	struct admission_result ended = {.exec_id = slice_str(job->message.exec_id), .text = buf_peek(&stored), .keep_ms = STORED_KEEP_MS};
	int r = admission_settle(owner->settlement, &job->lease, run->result.run_us / 1000, output_bytes(run), refund,
				 keeps ? &ended : NULL);
	if (r != 0)
		log_warning_of(&run->job->lease.subject, "exec: its lease could not be settled and will end by itself");
}

/* --- a streamed answer --- */

/* Something was told: the next ping is due a while later, and output may have to wait. */
static void note_told(struct run *run)
{
	uv_timer_again(&run->ping);
	if (run->sandbox && delivery_is_full(&run->delivery))
		sandbox_pause(run->sandbox);
}

static int pass_on(void *ctx, const struct output *output, struct slice bytes)
{
	struct run *run = ctx;
	unsigned which = (unsigned)(output - run->result.streams);
	copy_output(&run->copy, which, bytes);
	int r = delivery_output(&run->delivery, which, bytes);
	if (r == 0)
		note_told(run);
	return r;
}

static int pass_to_writer(void *ctx, const struct output *output UNUSED, struct slice bytes)
{
	struct run *run = ctx;
	int r = writer_feed(&run->writer, bytes);
	if (run->sandbox && writer_is_full(&run->writer))
		sandbox_pause(run->sandbox);
	return r;
}

static void on_ping(uv_timer_t *timer)
{
	struct run *run = timer->data;
	if (delivery_has_room(&run->delivery) && delivery_ping(&run->delivery) < 0)
		log_warning_of(&run->job->lease.subject, "exec: no memory for a ping");
}

static int begin_stream(struct run *run)
{
	if (!run->job->format)
		return 0;
	uv_timer_start(&run->ping, on_ping, PING_MS, PING_MS);
	return delivery_begin(&run->delivery);
}

/* There may be room for more of its output. */
static void go_on(struct run *run)
{
	if (!run->sandbox || !delivery_has_room(&run->delivery) || writer_is_full(&run->writer))
		return;
	sandbox_resume(run->sandbox);
	collect_resume(&run->collect);
}

void run_credit(struct run *run, size_t bytes)
{
	delivery_credit(&run->delivery, bytes);
	go_on(run);
}

/* What is refused before the stream has begun is a problem, like any other. */
static int write_answer(struct run *run, struct exec_job *job)
{
	struct exec_result *result = &run->result;
	if (job->format && result->outcome == EXEC_CANCELED) {
		int r = begin_stream(run);
		if (r < 0)
			return r;
	}
	job->streamed = run->delivery.begun;
	return job->streamed ? delivery_result(&run->delivery, result, &job->answer)
			     : exec_answer_write(result, job->message.exec_id, &job->answer);
}

/* --- the end --- */

static enum exec_outcome without_memory(struct run *run)
{
	snprintf(run->result.detail, sizeof run->result.detail, "The gateway ran out of memory for the output.");
	return EXEC_UNKNOWN;
}

static bool is_damaged(enum check_verdict check)
{
	return check == CHECK_INCOMPLETE || check == CHECK_FAILED;
}

/* What comes after its time is waiting for its end to be seen. */
static uint64_t ran_us(const struct run *run)
{
	uint64_t us = clock_mono_us() - run->result.run_start_us;
	uint64_t most_us = (run->job->timeout_ms + TERM_GRACE_MS + KILL_GRACE_MS) * 1000;
	return us < most_us ? us : most_us;
}

/* Settles and hands the job back; the Sprite is still ours afterwards. */
static void answer(struct run *run, enum exec_outcome outcome)
{
	struct exec_result *result = &run->result;
	if (verify_end(&run->verify) < 0)
		outcome = without_memory(run);
	result->outcome = outcome;
	if (run->result.run_start_us && run->state != CHECKING)
		result->run_us = ran_us(run);
	result->check = verify_verdict(&run->verify);
	if (is_damaged(result->check))
		writer_lost(&run->writer);
	writer_give_up(&run->writer, "The command's end was not seen.");
	result->copied = run->copy.whole;
	int r = write_answer(run, run->job);
	settle(run, r < 0);
	uv_timer_stop(&run->ping);
	run->job->session.fresh = run->kept.fresh && !run->result.run_start_us;
	struct exec_job *job = TAKE(run->job);
	job->outcome = outcome;
	job->tier = result->tier;
	job->wall_ms = result->run_us / 1000;
	job->output_bytes = output_bytes(run);
	job->stdin_bytes = result->run_start_us ? job->stdin_bytes + run->feed.stdin_bytes : 0;
	job->error = r;
	run->owner->on_answered(run->owner->ctx, job, result);
}

static void finish(struct run *run, enum exec_outcome outcome)
{
	answer(run, outcome);
	release(run);
}

static void refuse(struct run *run, enum exec_refusal refusal, uint64_t retry_after_ms, const char *detail)
{
	run->result.refusal = refusal;
	run->result.retry_after_ms = retry_after_ms;
	snprintf(run->result.detail, sizeof run->result.detail, "%s", detail);
	run->result.run_start_us = 0;
	finish(run, EXEC_NOT_STARTED);
}

static void on_timer(uv_timer_t *timer);

static void enter(struct run *run, enum run_state state, uint64_t timeout_ms)
{
	run->state = state;
	uv_timer_start(&run->timer, on_timer, timeout_ms, 0);
}

/* What a command leaves of its time its check may have. */
static uint64_t check_left_ms(const struct run *run)
{
	uint64_t most_ms = run->job->timeout_ms + TERM_GRACE_MS + KILL_GRACE_MS + CHECK_MS;
	uint64_t used_ms = (clock_mono_us() - run->result.run_start_us) / 1000;
	return used_ms < most_ms ? most_ms - used_ms : 0;
}

/* What is known by now. */
static void finish_check(struct run *run)
{
	verify_give_up(&run->verify);
	collect_give_up(&run->collect);
	finish(run, run->outcome);
}

static void on_check_time(struct run *run)
{
	uint64_t left_ms = check_left_ms(run);
	if (left_ms && (verify_went_on(&run->verify) || writer_went_on(&run->writer) || collect_went_on(&run->collect))) {
		enter(run, CHECKING, left_ms < CHECK_MS ? left_ms : CHECK_MS);
		return;
	}
	finish_check(run);
}

/* 200 is for commands that are known to have run. */
static void finish_late(struct run *run)
{
	if (!run->started)
		snprintf(run->result.detail, sizeof run->result.detail, "The sandbox did not say in time that the command has started.");
	finish(run, run->started ? EXEC_TIMED_OUT : EXEC_UNKNOWN);
}

/* Rows that Datasette has not taken yet, or has taken just now, may be before the end of the command. It may take them, then they are dropped. */
static bool waits_for_rows(struct run *run)
{
	uint64_t left_ms = check_left_ms(run);
	bool full = writer_is_full(&run->writer);
	if (!writer_went_on(&run->writer) && !full)
		return false;
	if (left_ms > HELD_LEAST_MS) {
		enter(run, KILLING, full ? left_ms - HELD_LEAST_MS : KILL_GRACE_MS);
		return true;
	}
	writer_give_up(&run->writer, WRITER_LATE);
	enter(run, KILLING, KILL_GRACE_MS);
	go_on(run);
	return true;
}

static void on_timer(uv_timer_t *timer)
{
	struct run *run = timer->data;
	if (run->state == RUNNING || run->state == TERMINATING || run->state == KILLING)
		run->started = sandbox_has_started(run->sandbox);
	switch (run->state) {
	case RUNNING:
		enter(run, TERMINATING, TERM_GRACE_MS);
		if (sandbox_signal(run->sandbox, "TERM") != 0)
			log_info_of(&run->job->lease.subject, "exec: TERM could not be sent");
		break;
	case TERMINATING:
		enter(run, KILLING, KILL_GRACE_MS);
		if (sandbox_signal(run->sandbox, "KILL") != 0)
			log_info_of(&run->job->lease.subject, "exec: KILL could not be sent");
		break;
	case KILLING:
		if (!waits_for_rows(run))
			finish_late(run);
		break;
	case CHECKING:
		on_check_time(run);
		break;
	case LINGERING:
		release(run);
		break;
	case OPENING:
		try_again(run, "The sandbox's network was not opened in time.");
		break;
	case CLAIMING:
	case FREED:
		break;
	}
}

static void on_output(void *ctx, enum sandbox_stream stream, struct slice bytes)
{
	struct run *run = ctx;
	if (run->state != LINGERING && verify_output(&run->verify, stream, bytes) < 0)
		finish(run, without_memory(run));
}

static bool has_room_for_file(void *ctx)
{
	const struct run *run = ctx;
	return !run->job->format || delivery_has_room(&run->delivery);
}

static int pass_file_on(void *ctx, struct outfile *file, struct slice bytes)
{
	struct run *run = ctx;
	copy_file(&run->copy, file, bytes);
	int r = delivery_file(&run->delivery, file->path, bytes, file->done);
	uv_timer_again(&run->ping);
	return r;
}

static void on_collected(void *ctx, bool channel_is_free)
{
	struct run *run = ctx;
	run->idle = channel_is_free;
	finish(run, run->outcome);
}

/* Each has what a stream may have, and all of them what the streams have left: so much was reserved. */
static void start_collecting(struct run *run)
{
	struct collect *collect = &run->collect;
	uint64_t each = run->job->max_output_bytes, left = 0;
	if (run->job->format && delivery_output_end(&run->delivery, run->result.streams) < 0) {
		finish(run, without_memory(run));
		return;
	}
	for (size_t i = 0; i < 2; i++) {
		uint64_t written = output_written(&run->result.streams[i]);
		left += written < each ? each - written : 0;
	}
	collect->has_room = has_room_for_file;
	collect->done = on_collected;
	collect->ctx = collect->outfiles.pass_ctx = run;
	if (run->job->format)
		collect->outfiles.pass = pass_file_on;
	outfiles_begin(&collect->outfiles, each, left);
	run->idle = false;
	collect_start(collect, run->sandbox);
}

/* When all rows are written. */
static void after_rows(struct run *run)
{
	if (!writer_is_done(&run->writer))
		return;
	if (run->job->request->output_count)
		start_collecting(run);
	else
		finish(run, run->outcome);
}

/* NULL: the output is all that the command wrote, and it wrote all that it wanted to. */
static const char *missing_output(struct run *run)
{
	if (is_damaged(verify_verdict(&run->verify)))
		return "The output did not arrive as the command wrote it.";
	if (output_truncated(&run->result.streams[0]))
		return "The output is longer than max_output_bytes.";
	return run->outcome == EXEC_EXITED ? NULL : "The command was ended at its time-out.";
}

static void on_compared(void *ctx)
{
	struct run *run = ctx;
	run->idle = true;
	if (run->writer.target && writer_end(&run->writer, missing_output(run)) < 0)
		finish(run, without_memory(run));
	else
		after_rows(run);
}

void run_written(struct run *run, const struct exec_written *written)
{
	if (!run->job || writer_is_done(&run->writer))
		return;
	if (writer_written(&run->writer, written) < 0) {
		verify_give_up(&run->verify);
		collect_give_up(&run->collect);
		finish(run, without_memory(run));
		return;
	}
	go_on(run);
	if (run->state == CHECKING)
		after_rows(run);
}

/* Of its output, and reading its files. */
static void start_check(struct run *run, bool compare)
{
	run->result.run_us = ran_us(run);
	uint64_t left_ms = check_left_ms(run);
	enter(run, CHECKING, left_ms < CHECK_MS ? left_ms : CHECK_MS);
	if (!compare) {
		on_compared(run);
		return;
	}
	run->idle = false;
	verify_compare(&run->verify, run->sandbox, on_compared, run);
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
		finish(run, without_memory(run));
		return;
	}
	/* Its output may have come late, and a KILL upon the one who waits for that to be passed on. */
	bool in_time = run->state == RUNNING || verify_own_end(&run->verify, &run->result.exit_code);
	run->outcome = in_time ? EXEC_EXITED : EXEC_TIMED_OUT;
	bool compare = verify_has_to_compare(&run->verify, run->owner->verify_bytes);
	if (compare || run->job->request->output_count || run->writer.target)
		start_check(run, compare);
	else
		finish(run, run->outcome);
}

/* Gives the Sprite back and, when nothing was started, tries another one. */
static void try_again(struct run *run, const char *reason)
{
	if (run->use)
		session_use_end(run->use, false);
	else
		pool_release(run->owner->pool, run->member);
	run->use = NULL;
	run->member = NULL;
	run->sandbox = NULL;
	run->result.run_start_us = 0;
	uv_timer_stop(&run->timer);
	if (feed_rewind(&run->feed) && run->tries < TRIES)
		start_claim(run);
	else
		refuse(run, EXEC_REFUSED_BY_PROVIDER, 1000, reason);
}

static void on_broken(void *ctx, enum sandbox_doubt doubt, const char *reason)
{
	struct run *run = ctx;
	if (run->state == LINGERING) {
		release(run);
	} else if (run->state != RUNNING) {
		finish_late(run);
	} else if (doubt == SANDBOX_NOT_STARTED) {
		try_again(run, reason);
	} else {
		snprintf(run->result.detail, sizeof run->result.detail, "%s", reason);
		finish(run, EXEC_UNKNOWN);
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
	refuse(run, EXEC_REFUSED_TOO_LONG, 0, detail);
}

static void launch(struct run *run)
{
	bool shim = sandbox_has_shim(run->sandbox);
	if ((run->launch.files || run->launch.limited || run->job->request->output_count) && !shim) {
		refuse(run, EXEC_REFUSED_BY_PROVIDER, 1000,
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
		enter(run, RUNNING, run->job->timeout_ms);
		feed_pump(&run->feed, run->sandbox);
		if (begin_stream(run) < 0)
			finish(run, without_memory(run));
	} else if (r == SANDBOX_E_TOO_LONG) {
		refuse_length(run);
	} else {
		try_again(run, "The sandbox was lost before the command could be sent.");
	}
}

static uint64_t wait_left_ms(const struct run *run)
{
	uint64_t waited_ms = (clock_mono_us() - run->result.claim_start_us) / 1000;
	return waited_ms < run->owner->wait_ms ? run->owner->wait_ms - waited_ms : 0;
}

static void on_opened(void *ctx, const struct provider_result *result)
{
	struct run *run = ctx;
	uv_timer_stop(&run->timer);
	run->result.claim_us = clock_mono_us() - run->result.claim_start_us;
	if (result->code == PROVIDER_OK) {
		launch(run);
		return;
	}
	log_warning_of(&run->job->lease.subject, "exec: open the network of %s: %s", sandbox_name(run->sandbox), result->detail);
	try_again(run, "The sandbox's network could not be opened as the token says.");
}

/* Getting a Sprite and opening its network share the wait, but for a second: a Sprite may be ready at its very end. */
static void open_network(struct run *run)
{
	uint64_t left_ms = wait_left_ms(run);
	enter(run, OPENING, left_ms > OPEN_LEAST_MS ? left_ms : OPEN_LEAST_MS);
	if (pool_open_network(run->owner->pool, run->member, run->job->egress, on_opened, run) < 0)
		try_again(run, "The sandbox's network could not be opened as the token says.");
}

/* `code` is POOL_E_*. */
static void refuse_claim(struct run *run, int code, uint64_t retry_after_ms, const char *detail)
{
	bool late = code == POOL_E_UNAVAILABLE || code == POOL_E_DEADLINE, stopping = code == POOL_E_STOPPING;
	refuse(run, late ? EXEC_REFUSED_BY_PROVIDER : stopping ? EXEC_REFUSED_DRAINING : EXEC_REFUSED_CAPACITY, retry_after_ms, detail);
}

/* Its session's Sprite, with its network open as the token says. */
static void on_session(void *ctx, const struct session_use_result *result)
{
	struct run *run = ctx;
	run->result.claim_us = clock_mono_us() - run->result.claim_start_us;
	switch (result->code) {
	case SESSION_USE_READY:
		run->sandbox = result->sandbox;
		run->result.tier = result->tier;
		run->result.ready_from_us = result->ready_from_us;
		run->result.ready_us = result->ready_us;
		run->result.session_created = result->created;
		snprintf(run->result.sandbox, sizeof run->result.sandbox, "%s", result->sprite);
		snprintf(run->kept.sprite, sizeof run->kept.sprite, "%s", result->sprite);
		launch(run);
		break;
	case SESSION_USE_LOST:
		refuse(run, EXEC_REFUSED_SESSION_LOST, 0, result->detail);
		break;
	case SESSION_USE_REFUSED:
		refuse_claim(run, result->refusal, result->retry_after_ms, result->detail);
		break;
	case SESSION_USE_FAILED:
		refuse(run, EXEC_REFUSED_BY_PROVIDER, result->retry_after_ms, result->detail);
		break;
	}
}

static void on_granted(void *ctx, const struct pool_grant *grant)
{
	struct run *run = ctx;
	run->claim = NULL;
	run->result.claim_us = clock_mono_us() - run->result.claim_start_us;
	if (grant->code == 0) {
		run->member = grant->member;
		run->sandbox = grant->sandbox;
		run->result.tier = grant->tier;
		run->result.ready_from_us = grant->ready_from_us;
		run->result.ready_us = grant->ready_us;
		snprintf(run->result.sandbox, sizeof run->result.sandbox, "%s", pool_member_name(grant->member));
		if (run->job->egress[0])
			open_network(run);
		else
			launch(run);
		return;
	}
	refuse_claim(run, grant->code, grant->retry_after_ms, grant->detail);
}

/* Who claims, for the pool: FNV-1a of the token's public id, which is random and made by us. */
static uint64_t tenant_of(const struct exec_job *job)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325);
	for (const char *c = job->lease.kid; *c; c++)
		hash = (hash ^ (unsigned char)*c) * UINT64_C(0x100000001b3);
	return hash;
}

static int claim(struct run *run)
{
	const struct run_owner *owner = run->owner;
	if (!run->session.name[0])
		return pool_claim(owner->pool, tenant_of(run->job), wait_left_ms(run), on_granted, run, &run->claim);
	const struct session_want want = {.ref = run->session,
					  .session = run->kept,
					  .egress = run->job->egress,
					  .tenant = tenant_of(run->job),
					  .wait_ms = wait_left_ms(run)};
	run->use = session_use_start(owner->sessions, &want, on_session, run);
	return run->use ? 0 : -ENOMEM;
}

/* Both tries share the wait: the lease has 15 s more than the command for it, for killing and for settling. */
static void start_claim(struct run *run)
{
	run->state = CLAIMING;
	run->tries++;
	if (claim(run) < 0)
		refuse(run, EXEC_REFUSED_BY_PROVIDER, 1000, "The gateway is out of memory.");
}

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
	if (job->format)
		copy_init(&run->copy, run->result.streams, &run->collect.outfiles, run->owner->result_bytes);
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
	*run = (struct run){.owner = owner, .job = job};
	job->stdin_bytes = job->request->input.len;
	delivery_init(&run->delivery, job);
	feed_init(&run->feed, job);
	writer_init(&run->writer, job, owner->insert_rows);
	for (size_t i = 0; i < 2; i++) {
		if (i == 0 && job->request->rows_to.path)
			output_init_passing(&run->result.streams[i], job->max_output_bytes, pass_to_writer, run);
		else if (job->format)
			output_init_passing(&run->result.streams[i], job->max_output_bytes, pass_on, run);
		else
			output_init(&run->result.streams[i], job->max_output_bytes);
	}
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
	if (init_parts(run) < 0 || claim(run) < 0) {
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
		finish(run, outcome);
		return;
	}
	if (sandbox_signal(run->sandbox, "KILL") != 0)
		log_info_of(&run->job->lease.subject, "exec: KILL could not be sent");
	answer(run, outcome);
	/* Lets the KILL leave before the channel closes. A session's Sprite stays, and in it a command that the KILL does
	 * not reach. */
	enter(run, LINGERING, LINGER_MS);
}

void run_cancel(struct run *run)
{
	if (run->state == LINGERING || run->state == FREED)
		return;
	if (run->state == CHECKING) {
		finish_check(run);
		return;
	}
	stop(run, EXEC_CANCELED);
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
