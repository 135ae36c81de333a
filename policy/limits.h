/*
 * limits - limits as people write them
 *
 *   count      5
 *   duration   500ms  60s  5m  2h  90d
 *   rate       60/1m  60/m  10/30s       count per window, whole seconds
 *   budget     600s/day                  sandbox time per UTC day
 *   bytes      4096  64KiB  1MiB  2GiB
 *
 * Results:  0; -EINVAL: not of this form; -ERANGE: outside the bounds given or below. *out is set only when the result is 0.
 */
#pragma once

#include "gateway/base/slice.h"

#define LIMITS_SECOND_MS UINT64_C(1000)
#define LIMITS_DAY_MS    (UINT64_C(86400) * LIMITS_SECOND_MS)

#define LIMITS_RATE_COUNT_MAX UINT64_C(1000000)
#define LIMITS_WINDOW_MAX_MS  (365 * LIMITS_DAY_MS)

struct limits_rate {
	uint64_t count;
	uint64_t per_ms;
};

MUST_CHECK int limits_count(struct slice text, uint64_t min, uint64_t max, uint64_t *out);
MUST_CHECK int limits_duration(struct slice text, uint64_t min_ms, uint64_t max_ms, uint64_t *out_ms);
/* 1 to LIMITS_RATE_COUNT_MAX per window of 1 s to LIMITS_WINDOW_MAX_MS. */
MUST_CHECK int limits_rate(struct slice text, struct limits_rate *out);
MUST_CHECK int limits_budget(struct slice text, uint64_t min_ms, uint64_t max_ms, uint64_t *out_ms);
MUST_CHECK int limits_bytes(struct slice text, uint64_t min, uint64_t max, uint64_t *out);

/* The shortest exact way to write it: 60s is 1m, 1048576 is 1MiB. With NUL, at most 24 characters. */
#define LIMITS_TEXT_LEN 24
void limits_write_duration(uint64_t ms, char out[LIMITS_TEXT_LEN + 1]);
void limits_write_bytes(uint64_t bytes, char out[LIMITS_TEXT_LEN + 1]);
