#include "gateway/exec/collect.h"

int collect_init(struct collect *collect, const struct exec_request *request)
{
	*collect = (struct collect){0};
	return outfiles_init(&collect->outfiles, request);
}

void collect_deinit(struct collect *collect)
{
	outfiles_deinit(&collect->outfiles);
}

static void end(struct collect *collect, bool free)
{
	outfiles_give_up(&collect->outfiles);
	collect->sandbox = NULL;
	collect->done(collect->ctx, free);
}

static void go_on(struct collect *collect);

static void on_output(void *ctx, enum sandbox_stream stream, struct slice bytes)
{
	struct collect *collect = ctx;
	collect->went_on = true;
	if (stream == SANDBOX_STDOUT && outfiles_reply(&collect->outfiles, bytes) < 0)
		end(collect, false);
}

static void on_exited(void *ctx, unsigned exit_code)
{
	struct collect *collect = ctx;
	collect->went_on = true;
	if (outfiles_replied(&collect->outfiles, exit_code) < 0)
		end(collect, true);
	else
		go_on(collect);
}

static void on_broken(void *ctx, enum sandbox_doubt doubt UNUSED, const char *reason UNUSED)
{
	end(ctx, false);
}

static const struct sandbox_events events = {.on_output = on_output, .on_exit = on_exited, .on_broken = on_broken};

static void go_on(struct collect *collect)
{
	struct sandbox_command command;
	collect->waits = collect->outfiles.at < collect->outfiles.count && !collect->has_room(collect->ctx);
	if (collect->waits)
		return;
	if (!outfiles_next(&collect->outfiles, &command))
		end(collect, true);
	else if (sandbox_run(collect->sandbox, &command, &events, collect) != 0)
		end(collect, false);
}

void collect_start(struct collect *collect, struct sandbox *sandbox)
{
	collect->sandbox = sandbox;
	go_on(collect);
}

void collect_resume(struct collect *collect)
{
	if (!collect->waits)
		return;
	collect->went_on = true;
	go_on(collect);
}

bool collect_went_on(struct collect *collect)
{
	bool went_on = collect->went_on;
	collect->went_on = false;
	return went_on;
}

void collect_give_up(struct collect *collect)
{
	collect->waits = false;
	outfiles_give_up(&collect->outfiles);
}
