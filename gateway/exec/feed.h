/*
 * feed - standard input that comes from the worker while its command runs, on its way into the sandbox
 *
 * What a sandbox took before its command was known to have started is kept, so that another one can be given it as well.
 *
 * Owns:       pieces that are not given back credit for.
 * Lifetime:   feed_init … feed_deinit.
 * Runs on:    the agent loop.
 * Bounds:     the worker sends EXEC_INPUT_WINDOW bytes beyond what it has credit for.
 * Invariants: the input's end is told to the sandbox only by EXEC_INPUT_END.
 */
#pragma once

#include "gateway/exec/job.h"
#include "gateway/sprites/sandbox.h"

struct feed {
	struct mailbox *to;
	char exec_id[ID_UUID_LEN + 1];
	struct exec_piece *pieces, *next; /* oldest first; the first that is not wholly given */
	size_t given;                     /* of `next` */
	size_t kept;        /* bytes of pieces before `next` */
	size_t owed;        /* bytes of pieces that are gone, to be given credit for */
	bool begun;         /* its beginning is gone */
	uint64_t stdin_bytes; /* of pieces that are wholly given */
};

void feed_init(struct feed *feed, const struct exec_job *job);
void feed_deinit(struct feed *feed);

/* Takes a piece. */
void feed_add(struct feed *feed, struct exec_piece *piece);

/* As much as the sandbox takes, which runs the command with more_input. */
void feed_pump(struct feed *feed, struct sandbox *sandbox);

/* Another sandbox is to be given all of it: false when that is not possible any more. */
bool feed_rewind(struct feed *feed);
