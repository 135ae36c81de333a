/*
 * outfiles - the files that are read back once a command has ended: what to run for it, and what came of it
 *
 * The shim reads them (sprites/record.h), in pieces that are well below the size from which the platform is known to lose bytes, each
 * with all that tells whether it is whole and whether the file is still the one that the piece before came from. A reply that is not whole
 * is asked for again in smaller pieces.
 *
 * Pure: outfiles_next() says what to run, the caller runs it and feeds back what it printed.
 * Owns:       what was read; of what is passed on, what copy.h keeps. The paths are the request's, which outlives it while anything is asked.
 * Lifetime:   outfiles_init … outfiles_deinit.
 * Results:    0 or negative (no memory, no random bytes; what `pass` says).
 * Bounds:     a reply of RECORD_READ_MAX bytes and a line for each file; the caps of outfiles_begin().
 * Invariants: a file is either whole or has an error, in the order they were asked for; nothing that a Sprite says makes more than the
 *             caps of it.
 */
#pragma once

#include "gateway/exec/check.h"
#include "gateway/exec/request.h"
#include "gateway/sprites/record.h"
#include "gateway/sprites/sandbox.h"

struct outfile {
	const char *path;
	uint64_t size, at;             /* in all, and read so far */
	char id[RECORD_READ_ID_LEN];
	bool begun, done;
	const char *error;             /* a word of the API; NULL = none */
	struct buf bytes;
};

struct outfiles {
	struct outfile *files;
	size_t count, at;
	const char *cwd;
	uint64_t each, left;           /* bytes that one may have, and those that are not begun together */
	size_t piece;
	char nonce[CHECK_NONCE_LEN + 1], piece_text[24];
	const char *argv[5];
	struct buf input, reply;
	/* Instead of keeping it: a part of a file, and with file->done its end; NULL = kept. */
	int (*pass)(void *ctx, struct outfile *file, struct slice bytes);
	void *pass_ctx;
};

MUST_CHECK int outfiles_init(struct outfiles *outfiles, const struct exec_request *request);
void outfiles_deinit(struct outfiles *outfiles);

/* The command has ended: `each` bytes of a file and `left` of all may be read. */
void outfiles_begin(struct outfiles *outfiles, uint64_t each, uint64_t left);

/* What to run next, valid until the next call; false when all is known. */
bool outfiles_next(struct outfiles *outfiles, struct sandbox_command *command);

/* What it printed, and its end. */
MUST_CHECK int outfiles_reply(struct outfiles *outfiles, struct slice bytes);
MUST_CHECK int outfiles_replied(struct outfiles *outfiles, unsigned exit_code);

/* No more can be run: what is not done has not been read. */
void outfiles_give_up(struct outfiles *outfiles);

/* Bytes that are told, or were passed on, of all of them. */
uint64_t outfiles_bytes(const struct outfiles *outfiles);

/* Appends a JSON object, and how long it is at most without contents. */
MUST_CHECK int outfiles_put(const struct outfiles *outfiles, bool contents, struct buf *json);
size_t outfiles_put_max(const struct outfiles *outfiles);
