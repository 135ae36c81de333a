/*
 * output - what a command printed on one stream: all of it up to a cap, beyond that its head and its tail
 *
 * Or, passed on as it comes, its first `cap` bytes.
 *
 * Owns:       at most `cap` bytes; of what is passed on, what copy.h keeps.
 * Lifetime:   output_init … output_deinit.
 * Results:    0 or -ENOMEM, and what `pass` says.
 * Invariants: `total` counts every byte fed or skipped, kept or not.
 */
#pragma once

#include "gateway/base/buf.h"

struct output {
	struct buf bytes;  /* below the cap: everything; above: head, then the tail as a ring */
	uint64_t total;
	uint64_t lost;     /* bytes after those that were written and never arrived */
	size_t cap;
	size_t ring_at;    /* where the ring's oldest byte stands, counted from its start */
	int (*pass)(void *ctx, const struct output *output, struct slice bytes); /* NULL = kept */
	void *pass_ctx;
};

void output_init(struct output *output, size_t cap);
/* Nothing is kept here: `pass` takes what comes below the cap. */
void output_init_passing(struct output *output, size_t cap, int (*pass)(void *ctx, const struct output *output, struct slice bytes),
			 void *ctx);
void output_deinit(struct output *output);

MUST_CHECK int output_feed(struct output *output, struct slice bytes);

/* Forgets everything; not of what is passed on. */
void output_restart(struct output *output);

/* Of a stream of `size` bytes: passes over those that would not be kept, the tail that was kept so far included. False when there
 * are none. */
bool output_skip(struct output *output, uint64_t size);

/* What the command wrote, as far as is known. */
static inline uint64_t output_written(const struct output *output)
{
	return output->total + output->lost;
}

/* By its cap. */
static inline bool output_cut(const struct output *output)
{
	return output->total > output->cap;
}

static inline bool output_truncated(const struct output *output)
{
	return output_cut(output) || output->lost;
}

/*
 * Appends the kept bytes as a JSON string. Text that is UTF-8 goes as it is, with a marker line at the cut and no character
 * split; anything else as base64 of head and tail. Of what was passed on the copy, as it was told: its end is cut, not its middle; without
 * one it is empty. *encoding is set to "utf-8" or "base64".
 */
MUST_CHECK int output_put(struct output *output, struct buf *json, const char **encoding);
