/*
 * trace - W3C Trace Context: who asked for what, across programs (https://www.w3.org/TR/trace-context/)
 *
 * Pure but for random ids.
 * Results: 0, or -EINVAL for what is no traceparent; those of id.
 */
#pragma once

#include "gateway/base/id.h"
#include "gateway/base/slice.h"

#define TRACE_ID_LEN     32
#define TRACE_SPAN_LEN   16
#define TRACE_PARENT_LEN 55

struct trace {
	char id[TRACE_ID_LEN + 1];
	char parent[TRACE_SPAN_LEN + 1]; /* the caller's span; "" = the trace begins here */
	bool sampled;                    /* the caller wants it recorded; true when it begins here */
};

/* A traceparent value (section 3.2). Of versions to come the part that version 00 has is read. */
MUST_CHECK int trace_parse(struct slice traceparent, struct trace *trace);

/* A trace that begins here. `uuid` is the request's id, a UUIDv7: its digits are the trace's id, so whoever has one can find the other,
 * and its last 7 bytes are random, as section 3.2.2.5 wants them. Any other length: the id is empty. */
void trace_begin(struct slice uuid, struct trace *trace);

MUST_CHECK int trace_span_id(char out[TRACE_SPAN_LEN + 1]);

/* For whom we ask next, in the name of our own span. */
void trace_format(const struct trace *trace, const char span[TRACE_SPAN_LEN + 1], char out[TRACE_PARENT_LEN + 1]);
