/*
 * tracer - spans of commands, on their way to whoever sends them (OpenTelemetry's OTLP, in its JSON form)
 *
 * Any thread makes its span into a JSON object and posts it; it arrives on one loop. Nobody waits: what finds no room is dropped and
 * counted. A span holds ids, times and words of closed lists: never a token, a command, its output, a path or who asked.
 *
 * Owns:       the spans on their way.
 * Lifetime:   tracer_new … tracer_free (asynchronous: what is on its way arrives first).
 * Runs on:    the loop given to tracer_new; tracer_root() and tracer_span() on any thread.
 * Re-entry:   on_span runs from the loop only.
 * Bounds:     TRACER_SPANS on their way, TRACER_SPAN_BYTES each.
 */
#pragma once

#include "gateway/base/slice.h"
#include "gateway/base/trace.h"

#include <uv.h>

#define TRACER_SPANS      2048
#define TRACER_SPAN_BYTES 2048

struct tracer;

struct tracer_options {
	uv_loop_t *loop;
	/* The OTLP/JSON of one span. */
	void (*on_span)(void *ctx, struct slice span);
	void *ctx;
};

struct tracer *tracer_new(const struct tracer_options *options);
void tracer_free(struct tracer *tracer, void (*on_freed)(void *ctx), void *ctx);

/* A trace, and the span in it that all others of a command are below. Plain data, may be copied to another thread. */
struct trace_root {
	struct trace trace;
	char span[TRACE_SPAN_LEN + 1]; /* "" = nothing is recorded */
	uint64_t epoch_us;             /* wall time at monotonic 0: one for all spans, so that they fit together */
};

/* Nothing is recorded without a tracer (NULL), or when the caller does not want it. */
void tracer_root(struct tracer *tracer, const struct trace *trace, struct trace_root *root);

/* The numbers are OTLP's. */
enum span_kind { SPAN_INTERNAL = 1, SPAN_SERVER = 2 };

struct span {
	const char *name;
	enum span_kind kind;
	const char *id;              /* NULL = a new one */
	const char *parent;          /* NULL = the root; that of the root itself is its caller's */
	uint64_t start_us, end_us;   /* monotonic */
	/* Attributes; what is NULL or 0 is left out. */
	const char *exec_id, *outcome, *tier;
	unsigned status;             /* of HTTP, of the root */
	const char *error;           /* a word: the span has failed */
};

/* NULL is no tracer, and a root without a span wants nothing. */
void tracer_span(struct tracer *tracer, const struct trace_root *root, const struct span *span);

/* Spans that found no room, so far. */
uint64_t tracer_dropped(const struct tracer *tracer);
