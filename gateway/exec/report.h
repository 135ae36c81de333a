/*
 * report - takes the shim's report (sprites/record.h) off the end of a command's standard output
 *
 * What may be its beginning is held back until more comes, or the end. Output that does not end with RECORD_REPORT_MARK is never
 * held back, so what is printed is passed on as it comes.
 *
 * Owns:       nothing; plain data, a nonce and the bytes that are held back.
 * Lifetime:   report_init.
 * Results:    0 or negative (no random bytes).
 * Invariants: without the report every byte fed comes out again, in order.
 */
#pragma once

#include "gateway/base/slice.h"
#include "gateway/sprites/record.h"

/* Sizes of stdout and stderr, and the command's own end. */
#define REPORT_NUMBERS 3

struct report {
	char nonce[RECORD_NONCE_LEN + 1];
	char held[RECORD_REPORT_LEN];     /* begins like a report */
	char released[RECORD_REPORT_LEN]; /* was held, and is none */
	size_t held_len;
};

MUST_CHECK int report_init(struct report *report);

/* `out` are those bytes that are no report: valid until the next call, as long as `bytes` are. */
void report_feed(struct report *report, struct slice bytes, struct slice out[2]);

/* No more comes. True: this was the report. False: there was none, or only its beginning, or a number in it is above INT64_MAX; *rest is output
 * too, valid until the next call. */
bool report_end(struct report *report, uint64_t numbers[REPORT_NUMBERS], struct slice *rest);
