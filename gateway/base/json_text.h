/*
 * json_text - writing JSON text straight into a buffer, for answers and log lines that are formatted directly
 *
 * Parsing JSON is jansson's job (gateway/json).
 * Results: those of buf.
 */
#pragma once

#include "gateway/base/buf.h"

/* A JSON string with its quotes. Bytes that are not UTF-8 become U+FFFD, so the output is always valid JSON (RFC 8259). */
MUST_CHECK int json_text_string(struct buf *buf, struct slice text);

/* How many bytes json_text_string() writes. */
size_t json_text_len(struct slice text);
