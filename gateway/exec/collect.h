/*
 * collect - reads files back from the sandbox in which a command has ended (outfiles.h), by further commands on the same channel
 *
 * Owns:       outfiles. The sandbox is the caller's.
 * Lifetime:   collect_init … collect_deinit.
 * Runs on:    the agent loop.
 * Re-entry:   `done` may run inside collect_start() and collect_resume(); not inside collect_give_up(), after which it does not run.
 */
#pragma once

#include "gateway/exec/outfiles.h"

struct collect {
	struct outfiles outfiles;
	struct sandbox *sandbox;
	bool went_on, waits;
	bool (*has_room)(void *ctx); /* for another piece; false: collect_resume() follows */
	void (*done)(void *ctx, bool free); /* `free`: nothing runs on the channel any more */
	void *ctx;
};

MUST_CHECK int collect_init(struct collect *collect, const struct exec_request *request);
void collect_deinit(struct collect *collect);

/* has_room, done and ctx are set. */
void collect_start(struct collect *collect, struct sandbox *sandbox);

/* There may be room again. */
void collect_resume(struct collect *collect);

/* Whether anything came since this was last asked. */
bool collect_went_on(struct collect *collect);

/* It takes too long, or is not wanted any more. */
void collect_give_up(struct collect *collect);
