/*
 * quota - what a token is told of its own limits and what is left of them
 *
 * Pure but for the memory of the text. `caps` are those that count: the gateway's, or lower ones of the token.
 * Results: those of buf.
 */
#pragma once

#include "gateway/base/buf.h"
#include "policy/admission.h"

/* What of it stays: the executionPolicy of MCP's tools. The other limits are the gateway's. */
MUST_CHECK int quota_write_policy(const struct admission_answer *answer, const struct admission_caps *caps, uint64_t timeout_ms,
				  uint64_t max_timeout_ms, uint64_t max_output_bytes, struct buf *out);

MUST_CHECK int quota_write(const struct admission_answer *answer, const struct admission_caps *caps, struct buf *out);
