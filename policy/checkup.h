/*
 * checkup - is this Redis fit for the gateway? For `spritegate doctor`
 *
 * Blocks: at most 2 s for each answer (redis_blocking.h); the caller bounds the whole. Writes nothing: the scripts are run for a kid
 * that cannot exist.
 */
#pragma once

#include "gateway/base/slice.h"

#include <stdint.h>

enum checkup_status { CHECKUP_OK, CHECKUP_WARN, CHECKUP_FAIL };

struct checkup {
	enum checkup_status status;
	const char *name;   /* "redis-clock" */
	const char *detail; /* what was found; no secrets */
	const char *advice; /* what to do; NULL when it is fine */
};

/* Each is valid during the call. */
typedef void (*checkup_tell)(void *ctx, const struct checkup *checkup);

struct checkup_options {
	const char *redis_url;
	uint64_t timeout_ms; /* what the gateway waits for an answer */
	/* The i-th policy that callers without a token may follow, NULL beyond the last. No function: there are none. */
	const char *(*policy)(void *ctx, size_t i);
	checkup_tell tell;
	void *ctx;
};

void checkup_redis(const struct checkup_options *options);
