#include "gateway/exec/run_parts.h"

#include "gateway/base/clock.h"
#include "gateway/base/log.h"
#include "gateway/exec/stored.h"

#include <stdio.h>

#define PING_MS 15000 /* a stream that is silent so long says that it is alive */

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

void run_init_outputs(struct run *run)
{
	const struct exec_job *job = run->job;
	for (size_t i = 0; i < 2; i++) {
		if (i == 0 && job->request->rows_to.path)
			output_init_passing(&run->result.streams[i], job->max_output_bytes, pass_to_writer, run);
		else if (job->format)
			output_init_passing(&run->result.streams[i], job->max_output_bytes, pass_on, run);
		else
			output_init(&run->result.streams[i], job->max_output_bytes);
	}
	if (job->format)
		copy_init(&run->copy, run->result.streams, &run->collect.outfiles, run->owner->result_bytes);
}

static void on_ping(uv_timer_t *timer)
{
	struct run *run = timer->data;
	if (delivery_has_room(&run->delivery) && delivery_ping(&run->delivery) < 0)
		log_warning_of(&run->job->lease.subject, "exec: no memory for a ping");
}

int run_begin_stream(struct run *run)
{
	if (!run->job->format)
		return 0;
	uv_timer_start(&run->ping, on_ping, PING_MS, PING_MS);
	return delivery_begin(&run->delivery);
}

void run_go_on(struct run *run)
{
	if (!run->sandbox || !delivery_has_room(&run->delivery) || writer_is_full(&run->writer))
		return;
	sandbox_resume(run->sandbox);
	collect_resume(&run->collect);
}

void run_credit(struct run *run, size_t bytes)
{
	delivery_credit(&run->delivery, bytes);
	run_go_on(run);
}

/* --- the end --- */

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

/* What is refused before the stream has begun is a problem, like any other. */
static int write_answer(struct run *run, struct exec_job *job)
{
	struct exec_result *result = &run->result;
	if (job->format && result->outcome == EXEC_CANCELED) {
		int r = run_begin_stream(run);
		if (r < 0)
			return r;
	}
	job->streamed = run->delivery.begun;
	return job->streamed ? delivery_result(&run->delivery, result, &job->answer)
			     : exec_answer_write(result, job->message.exec_id, &job->answer);
}

enum exec_outcome run_without_memory(struct run *run)
{
	snprintf(run->result.detail, sizeof run->result.detail, "The gateway ran out of memory for the output.");
	return EXEC_UNKNOWN;
}

uint64_t run_ran_us(const struct run *run)
{
	uint64_t us = clock_mono_us() - run->result.run_start_us;
	uint64_t most_us = (run->limit_ms + RUN_TERM_MS + RUN_KILL_MS) * 1000;
	return us < most_us ? us : most_us;
}

void run_answer(struct run *run, enum exec_outcome outcome)
{
	struct exec_result *result = &run->result;
	if (verify_end(&run->verify) < 0)
		outcome = run_without_memory(run);
	result->outcome = outcome;
	if (run->result.run_start_us && run->state != CHECKING)
		result->run_us = run_ran_us(run);
	result->check = verify_verdict(&run->verify);
	if (check_is_damaged(result->check))
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
