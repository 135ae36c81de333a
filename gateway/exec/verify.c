#include "gateway/exec/verify.h"

int verify_init(struct verify *verify, struct output streams[2])
{
	*verify = (struct verify){.streams = streams};
	int r = report_init(&verify->report);
	return r < 0 ? r : check_init(&verify->check, streams, verify->report.nonce);
}

void verify_deinit(struct verify *verify)
{
	check_deinit(&verify->check);
}

struct slice verify_nonce(const struct verify *verify)
{
	return slice_str(verify->report.nonce);
}

/* --- the command --- */

void verify_begin(struct verify *verify, bool records)
{
	verify->records = records;
}

static int keep(struct verify *verify, enum sandbox_stream stream, struct slice bytes)
{
	if (!bytes.len)
		return 0;
	int r = output_feed(&verify->streams[stream], bytes);
	return r == 0 && verify->records ? check_arrived(&verify->check, stream, bytes) : r;
}

int verify_output(struct verify *verify, enum sandbox_stream stream, struct slice bytes)
{
	struct slice parts[2] = {bytes};
	if (verify->records && stream == SANDBOX_STDOUT)
		report_feed(&verify->report, bytes, parts);
	int r = keep(verify, stream, parts[0]);
	return r < 0 ? r : keep(verify, stream, parts[1]);
}

int verify_end(struct verify *verify)
{
	struct slice rest;
	if (!verify->records || verify->ended)
		return 0;
	verify->ended = true;
	verify->reported = report_end(&verify->report, verify->numbers, &rest);
	return keep(verify, SANDBOX_STDOUT, rest);
}

bool verify_own_end(const struct verify *verify, unsigned *exit_code)
{
	uint64_t own_end = verify->numbers[2];
	if (!verify->reported || own_end < RECORD_OWN_END || own_end > RECORD_OWN_END + UINT8_MAX)
		return false;
	*exit_code = (unsigned)(own_end - RECORD_OWN_END);
	return true;
}

/* --- the comparison --- */

bool verify_has_to_compare(struct verify *verify, uint64_t least)
{
	return verify->records && check_ended(&verify->check, verify->reported ? verify->numbers : NULL, least);
}

static void go_on(struct verify *verify);

static void give_up_and_tell(struct verify *verify)
{
	verify_give_up(verify);
	verify->done(verify->ctx);
}

static void on_output(void *ctx, enum sandbox_stream stream, struct slice bytes)
{
	struct verify *verify = ctx;
	verify->went_on = true;
	if (check_reply(&verify->check, stream, bytes) < 0)
		give_up_and_tell(verify);
}

static void on_exited(void *ctx, unsigned exit_code)
{
	struct verify *verify = ctx;
	verify->went_on = true;
	if (check_replied(&verify->check, exit_code) < 0)
		check_give_up(&verify->check);
	go_on(verify);
}

static void on_broken(void *ctx, enum sandbox_doubt doubt UNUSED, const char *reason UNUSED)
{
	give_up_and_tell(ctx);
}

static const struct sandbox_events events = {.on_output = on_output, .on_exit = on_exited, .on_broken = on_broken};

static void go_on(struct verify *verify)
{
	struct check_command *next = &verify->command;
	if (!check_next(&verify->check, next)) {
		verify->comparing = false;
		verify->done(verify->ctx);
		return;
	}
	struct sandbox_command command = {.argv = next->argv, .argc = next->argc, .input = next->input};
	if (sandbox_run(verify->sandbox, &command, &events, verify) != 0)
		give_up_and_tell(verify);
}

void verify_compare(struct verify *verify, struct sandbox *sandbox, void (*done)(void *ctx), void *ctx)
{
	verify->comparing = true;
	verify->sandbox = sandbox;
	verify->done = done;
	verify->ctx = ctx;
	go_on(verify);
}

bool verify_went_on(struct verify *verify)
{
	bool went_on = verify->went_on;
	verify->went_on = false;
	return went_on;
}

void verify_give_up(struct verify *verify)
{
	if (verify->comparing)
		check_give_up(&verify->check);
	verify->comparing = false;
}

enum check_verdict verify_verdict(struct verify *verify)
{
	if (verify->check.verdict == CHECK_NONE)
		check_without_record(&verify->check);
	return verify->check.verdict;
}
