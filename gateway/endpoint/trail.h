/*
 * trail - what the audit keeps of a command: a digest that names it, its text only when that is wanted
 *
 * Owns:       the text.
 * Lifetime:   trail_take … trail_deinit; a zeroed one may be given to trail_deinit.
 * Results:    those of sha256 and buf.
 */
#pragma once

#include "gateway/base/sha256.h"
#include "gateway/exec/request.h"

struct trail {
	/* Of the arguments as the command gets them, each ended by NUL; a shell line has `bash` and `-lc` before it. "" = nothing taken. */
	char sha256[SHA256_HEX + 1];
	struct buf command; /* JSON: a string, or an array for argv */
	uint64_t stdin_bytes; /* AUDIT_NONE: Datasette will tell */
};

MUST_CHECK int trail_take(struct trail *trail, const struct exec_request *request, bool with_text);
void trail_deinit(struct trail *trail);
