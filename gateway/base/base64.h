/*
 * base64 - RFC 4648 section 4, with padding; strict when decoding
 */
#pragma once

#include "gateway/base/buf.h"

/* Appends the encoding. Results: those of buf. */
MUST_CHECK int base64_encode(struct buf *out, struct slice bytes);

/* Appends the decoded bytes. -EINVAL for anything but canonical padded base64 (no blanks, no line ends), else those of buf. */
MUST_CHECK int base64_decode(struct buf *out, struct slice text);
