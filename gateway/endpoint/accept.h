/*
 * accept - which of our answers a client wants: content negotiation by Accept (RFC 9110 section 12.5.1)
 *
 * Pure.
 */
#pragma once

#include "gateway/exec/stream.h"
#include "gateway/http/headers.h"

/* The type with the highest weight that the client names; of equal ones the one named first. JSON when it names none of ours: an answer
 * of another type than asked for is better than none. */
enum stream_format exec_accept(const struct http_fields *fields);

/* Whether the client names text/event-stream, whatever it likes better. */
bool exec_accepts_events(const struct http_fields *fields);

/* application/json, application/x-ndjson, text/event-stream. */
struct slice exec_content_type(enum stream_format format);
