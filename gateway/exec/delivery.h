/*
 * delivery - a streamed answer on its way from the agent to its worker, no faster than the client reads
 *
 * Owns:       the stream's state. Pieces belong to the mailbox once they are sent.
 * Lifetime:   delivery_init … while its job is with the agent.
 * Runs on:    the agent loop.
 * Results:    0 or -ENOMEM.
 * Bounds:     DELIVERY_WINDOW bytes are under way when the caller stops reading output as soon as it is full, and one read more.
 * Invariants: `accepted` is the first piece, the result the last.
 */
#pragma once

#include "gateway/exec/job.h"

/* Of text that the worker has not given back credit for. */
#define DELIVERY_WINDOW ((size_t)256 * 1024)

struct delivery {
	struct stream stream;
	struct mailbox *to;
	const char *exec_id;
	size_t under_way;
	bool begun;
};

/* `job` outlives it. */
void delivery_init(struct delivery *delivery, const struct exec_job *job);

/* The answer streams: there is one object after the other from now on, and no status any more. Later calls do nothing. */
MUST_CHECK int delivery_begin(struct delivery *delivery);

MUST_CHECK int delivery_output(struct delivery *delivery, unsigned which, struct slice bytes);
/* No more output comes. */
MUST_CHECK int delivery_output_end(struct delivery *delivery, const struct output streams[2]);
MUST_CHECK int delivery_file(struct delivery *delivery, const char *path, struct slice bytes, bool last);
MUST_CHECK int delivery_ping(struct delivery *delivery);
MUST_CHECK int delivery_result(struct delivery *delivery, struct exec_result *result, struct exec_answer *answer);

/* The worker has passed on so many bytes. */
void delivery_credit(struct delivery *delivery, size_t bytes);

static inline bool delivery_is_full(const struct delivery *delivery)
{
	return delivery->under_way >= DELIVERY_WINDOW;
}

/* Enough room to read on. */
static inline bool delivery_has_room(const struct delivery *delivery)
{
	return delivery->under_way < DELIVERY_WINDOW / 2;
}
