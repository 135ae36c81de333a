/*
 * otlp - sends spans to a collector, by OTLP over HTTP in JSON (opentelemetry.io/docs/specs/otlp)
 *
 * Spans go in batches, one request at a time, at most 250 ms after they came. What a collector cannot take now (429, 502, 503, 504, no
 * answer) is sent again; what it refuses is dropped and counted.
 *
 * Owns:       its transfer, the spans that wait.
 * Lifetime:   otlp_new … otlp_free (asynchronous: what waits is sent first, for 1 s at most).
 * Runs on:    the loop given.
 * Bounds:     OTLP_BATCH_BYTES waiting and as many being sent; spans beyond are dropped and counted. 10 s a request; between failures 1
 *             to 30 s.
 */
#pragma once

#include "gateway/base/secret.h"
#include "gateway/curl/curl_driver.h"

#define OTLP_BATCH_BYTES (1024 * 1024)
#define OTLP_ERROR_LEN   120

struct otlp;

struct otlp_options {
	uv_loop_t *loop;
	struct curl_driver *curl;     /* borrowed */
	const char *url;              /* where they are posted to; borrowed */
	const struct secret *headers; /* name=value,… with percent-encoded values; may be empty; borrowed during otlp_new */
	const char *version, *instance; /* of this gateway; borrowed during otlp_new */
};

/* NULL, and a sentence without anything of the headers. */
struct otlp *otlp_new(const struct otlp_options *options, char error[OTLP_ERROR_LEN]);
void otlp_free(struct otlp *otlp, void (*on_freed)(void *ctx), void *ctx);

/* One span, as JSON. */
void otlp_add(struct otlp *otlp, struct slice span);

/* Spans that the collector has taken, and that were given up, so far. */
uint64_t otlp_sent(const struct otlp *otlp);
uint64_t otlp_dropped(const struct otlp *otlp);
