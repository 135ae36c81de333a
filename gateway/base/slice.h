/*
 * slice - borrowed bytes: a pointer and a length, not NUL-terminated
 *
 * Lifetime:   valid as long as whoever owns the bytes says.
 * Invariants: data may be NULL only when len is 0.
 */
#pragma once

#include "gateway/base/attr.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct slice {
	const char *data;
	size_t len;
};

#define SLICE(literal) ((struct slice){.data = (literal), .len = sizeof(literal) - 1})
/* For printf("%.*s"). */
#define SLICE_FMT(s) (int)(s).len, (s).len ? (s).data : ""

static inline struct slice slice_of(const char *data, size_t len)
{
	return (struct slice){.data = data, .len = len};
}

/* NULL gives the empty slice. */
static inline struct slice slice_str(const char *text)
{
	return slice_of(text, text ? strlen(text) : 0);
}

static inline bool slice_equal(struct slice a, struct slice b)
{
	return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

/* The bytes from offset on; empty when offset is beyond the end. */
static inline struct slice slice_from(struct slice s, size_t offset)
{
	return offset >= s.len ? (struct slice){0} : slice_of(s.data + offset, s.len - offset);
}

/* ASCII only, locale-independent. */
bool slice_equal_nocase(struct slice a, struct slice b);
bool slice_has_prefix(struct slice s, struct slice prefix);
bool slice_has_prefix_nocase(struct slice s, struct slice prefix);

/* Strips SP and HTAB at both ends (OWS, RFC 9110 section 5.6.3). */
struct slice slice_trim(struct slice s);

/* Takes the part before `separator` off the front of *rest. False when *rest is used up; an empty slice gives one empty part. */
bool slice_next(struct slice *rest, char separator, struct slice *part);

/* Unsigned decimal, digits only. 0, or -EINVAL (empty, not a digit) or -ERANGE (above max). */
MUST_CHECK int slice_to_u64(struct slice s, uint64_t max, uint64_t *value);

/* A heap copy with a NUL appended, or NULL when out of memory. The caller frees it. */
char *slice_dup(struct slice s);
