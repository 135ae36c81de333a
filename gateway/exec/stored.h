/*
 * stored - what a command ended with, as it is kept in Redis: a line with its status, and " unrun" when it certainly did not run or " cut"
 * when its output is told without the middle, then the JSON object of its answer
 *
 * What was streamed is kept as if it had not been: copy.h has what it told.
 *
 * Results: those of buf.
 */
#pragma once

#include "gateway/exec/job.h"

#define STORED_KEEP_MS UINT64_C(3600000)
/* What comes with the text of output and files, and always fits. */
#define STORED_HEAD_MAX ((size_t)4096)

/* After the answer was written. What is longer than `max`, and what was streamed and has no copy, is kept without the text of output and
 * files. */
MUST_CHECK int stored_write(const struct exec_job *job, struct exec_result *result, bool unrun, size_t max, struct buf *out);

struct stored {
	unsigned status;
	bool cut;            /* head and tail of the output: a stream, which tells the beginning, cannot be made of it */
	struct slice object; /* borrowed; begins with its brace */
};

/* False when it cannot be read. */
MUST_CHECK bool stored_read(struct slice text, struct stored *stored);

#define STORED_NO_TEXT 1 /* it is kept without the text of output and files: a stream would look like one of a silent command */

/* A stored answer with status 200 as it would have been streamed, but each output in one go. -EINVAL: it is no such answer. */
MUST_CHECK int stored_stream(struct slice object, const char *exec_id, enum stream_format format, struct buf *text);
