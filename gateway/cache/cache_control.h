/*
 * cache_control - what Cache-Control says to a shared cache (RFC 9111 section 5.2)
 *
 * Pure. What cannot be read is no permission: `broken`.
 */
#pragma once

#include "gateway/http/headers.h"

#define CACHE_CONTROL_NONE UINT64_MAX

struct cache_control {
	bool present;  /* there is such a field */
	bool broken;   /* a line that cannot be read, or two lifetimes that differ */
	bool forbids;  /* no-store, no-cache or private, with fields named or without */
	bool revalidates; /* must-revalidate, proxy-revalidate or s-maxage: never stale (RFC 9111 section 4.2.4) */
	uint64_t max_age, s_maxage; /* seconds, CACHE_CONTROL_NONE = not said */
	uint64_t stale;             /* stale-while-revalidate (RFC 5861 section 3), likewise */
};

void cache_control_parse(const struct http_fields *fields, struct cache_control *control);
