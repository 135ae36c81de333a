#include "gateway/exec/run_parts.h"

#include "gateway/base/clock.h"

#define CHECK_MS 10000 /* silent; the lease lasts 15 s longer than the command may, killing takes 3 */

uint64_t run_check_left_ms(const struct run *run)
{
	uint64_t most_ms = run->limit_ms + RUN_TERM_MS + RUN_KILL_MS + CHECK_MS;
	uint64_t used_ms = (clock_mono_us() - run->result.run_start_us) / 1000;
	return used_ms < most_ms ? most_ms - used_ms : 0;
}

void run_end_check(struct run *run)
{
	verify_give_up(&run->verify);
	collect_give_up(&run->collect);
	run_finish(run, run->outcome);
}

void run_check_time(struct run *run)
{
	uint64_t left_ms = run_check_left_ms(run);
	if (left_ms && (verify_went_on(&run->verify) || writer_went_on(&run->writer) || collect_went_on(&run->collect))) {
		run_enter(run, CHECKING, left_ms < CHECK_MS ? left_ms : CHECK_MS);
		return;
	}
	run_end_check(run);
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
	if (file->at == bytes.len)
		stream_file_begin(&run->delivery.stream);
	int r = delivery_file(&run->delivery, file->path, bytes, file->done);
	uv_timer_again(&run->ping);
	return r;
}

static void on_collected(void *ctx, bool channel_is_free)
{
	struct run *run = ctx;
	run->idle = channel_is_free;
	run_finish(run, run->outcome);
}

/* Each has what a stream may have, and all of them what the streams have left: so much was reserved. */
static void start_collecting(struct run *run)
{
	struct collect *collect = &run->collect;
	uint64_t each = run->job->max_output_bytes, left = 0;
	if (run->job->format && delivery_output_end(&run->delivery, run->result.streams) < 0) {
		run_finish(run, run_without_memory(run));
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
		run_finish(run, run->outcome);
}

/* NULL: the output is all that the command wrote, and it wrote all that it wanted to. */
static const char *missing_output(struct run *run)
{
	if (check_is_damaged(verify_verdict(&run->verify)))
		return "The output did not arrive as the command wrote it.";
	if (output_truncated(&run->result.streams[0]))
		return "The output is longer than max_output_bytes.";
	if (run->outcome == EXEC_EXITED)
		return NULL;
	return run->outcome == EXEC_CANCELED ? "The command was canceled." : "The command was ended at its time-out.";
}

static void on_compared(void *ctx)
{
	struct run *run = ctx;
	run->idle = true;
	if (run->writer.target && writer_end(&run->writer, missing_output(run)) < 0)
		run_finish(run, run_without_memory(run));
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
		run_finish(run, run_without_memory(run));
		return;
	}
	run_go_on(run);
	if (run->state == CHECKING)
		after_rows(run);
}

void run_check(struct run *run, bool compare)
{
	run->result.run_us = run_ran_us(run);
	uint64_t left_ms = run_check_left_ms(run);
	run_enter(run, CHECKING, left_ms < CHECK_MS ? left_ms : CHECK_MS);
	if (!compare) {
		on_compared(run);
		return;
	}
	run->idle = false;
	verify_compare(&run->verify, run->sandbox, on_compared, run);
}
