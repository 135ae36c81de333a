/*
 * stored - what a command ended with, as it is kept in Redis: a line with its status, and " unrun" when it certainly did not run, then the
 * JSON object of its answer
 *
 * Results: those of buf.
 */
#pragma once

#include "gateway/exec/job.h"

#define STORED_KEEP_MS UINT64_C(3600000)
/* What comes with the text of output and files, and always fits. */
#define STORED_HEAD_MAX ((size_t)4096)

/* After the answer was written. What is longer than `max`, and what was streamed, is kept without the text of output and files. */
MUST_CHECK int stored_write(const struct exec_job *job, struct exec_result *result, bool unrun, size_t max, struct buf *out);

/* False when it cannot be read. `object` is borrowed and begins with its brace. */
MUST_CHECK bool stored_read(struct slice text, unsigned *status, struct slice *object);
