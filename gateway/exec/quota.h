/*
 * quota - what a token is told of its own limits and what is left of them
 *
 * Pure but for the memory of the text.
 * Results: those of buf.
 */
#pragma once

#include "gateway/base/buf.h"
#include "policy/admission.h"

MUST_CHECK int quota_write(const struct admission_answer *answer, struct buf *out);
