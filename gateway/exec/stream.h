/*
 * stream - a command's answer while it runs: one JSON object a line (NDJSON), or the same objects as server-sent events
 *
 *   accepted, then stdout, stderr and ping in any order, then the files that were asked for, then one result
 *
 * Owns:       the unfinished character at the end of what came on each stream and of a file, at most 3 bytes.
 * Results:    those of buf.
 * Invariants: a piece that is UTF-8 is told as text, and no character is split between two; other pieces are base64.
 */
#pragma once

#include "gateway/exec/answer.h"

enum stream_format {
	STREAM_NONE, /* the answer is one JSON object at the end */
	STREAM_NDJSON,
	STREAM_SSE,
};

/* A line tells at most this much of the output. */
#define STREAM_PIECE ((size_t)32 * 1024)

struct stream {
	enum stream_format format;
	struct stream_output {
		char held[4];
		size_t held_len;
		bool binary; /* some of it was not UTF-8 */
	} outputs[3]; /* stdout, stderr, and the file that is being told */
};

static inline void stream_init(struct stream *stream, enum stream_format format)
{
	*stream = (struct stream){.format = format};
}

/* Each appends to `text`. */
MUST_CHECK int stream_accepted(const struct stream *stream, const char *exec_id, struct buf *text);
MUST_CHECK int stream_output(struct stream *stream, unsigned which, struct slice bytes, struct buf *text);
/* No more of it comes: a character that the command never finished is told, one that was `cut` is not. */
MUST_CHECK int stream_output_end(struct stream *stream, unsigned which, bool cut, struct buf *text);
/* Before the first part of each file: what is still held is of one that failed, and is not told. */
void stream_file_begin(struct stream *stream);
/* A part of a file, or with `last` its end. */
MUST_CHECK int stream_file(struct stream *stream, const char *path, struct slice bytes, bool last, struct buf *text);
MUST_CHECK int stream_ping(const struct stream *stream, struct buf *text);

/* What was still held, and the result. `answer` gets what the logs say of it; its body stays empty. */
MUST_CHECK int stream_result(struct stream *stream, struct exec_result *result, const char *exec_id, struct exec_answer *answer,
			     struct buf *text);

/* The same of an answer that was kept: `members` is its object without braces. */
MUST_CHECK int stream_result_again(const struct stream *stream, struct slice members, struct buf *text);

/* In place of a result that could not be written. */
MUST_CHECK int stream_failure(const struct stream *stream, const char *exec_id, struct buf *text);
