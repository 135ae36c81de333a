/*
 * verify - what a command printed, and whether that is all of it
 *
 * Collects the output without the shim's report (report.h), and once the command has ended has it compared with the record, where
 * check.h wants that, by further commands on the same sandbox.
 *
 * Owns:       report and check. The outputs and the sandbox are the caller's.
 * Lifetime:   verify_init … verify_deinit; the outputs outlive it.
 * Runs on:    the agent loop.
 * Re-entry:   `done` may run inside verify_compare(); not inside verify_give_up(), after which it does not run.
 * Results:    0 or negative (no memory, OpenSSL).
 */
#pragma once

#include "gateway/exec/check.h"
#include "gateway/exec/report.h"
#include "gateway/sprites/sandbox.h"

struct verify {
	struct output *streams; /* stdout, stderr */
	bool records;           /* the command has the shim keep a record, and report */
	bool ended, reported, comparing;
	uint64_t numbers[REPORT_NUMBERS]; /* as reported */
	struct report report;
	struct check check;
	struct check_command command; /* of the comparison */
	bool went_on;
	struct sandbox *sandbox;
	void (*done)(void *ctx);
	void *ctx;
};

MUST_CHECK int verify_init(struct verify *verify, struct output streams[2]);
void verify_deinit(struct verify *verify);

/* For the shim; valid as long as `verify`. */
struct slice verify_nonce(const struct verify *verify);

/* A command starts. */
void verify_begin(struct verify *verify, bool records);
MUST_CHECK int verify_output(struct verify *verify, enum sandbox_stream stream, struct slice bytes);

/* No more comes, whatever the reason: what was held back as a possible report goes where it belongs. Later calls do nothing. */
MUST_CHECK int verify_end(struct verify *verify);

/* After verify_end(): whether the command is known to have ended before a TERM came, and with which exit code. */
MUST_CHECK bool verify_own_end(const struct verify *verify, unsigned *exit_code);

/* After the end of a command that was seen to end: false when its verdict stands. `least` as in check_ended(). */
bool verify_has_to_compare(struct verify *verify, uint64_t least);
void verify_compare(struct verify *verify, struct sandbox *sandbox, void (*done)(void *ctx), void *ctx);

/* Whether anything came of the comparison since this was last asked. */
bool verify_went_on(struct verify *verify);

/* The comparison takes too long, or is not wanted any more. Nothing when it is not under way. */
void verify_give_up(struct verify *verify);

enum check_verdict verify_verdict(struct verify *verify);
