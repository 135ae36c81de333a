/*
 * multipart - a body of type multipart/form-data as its parts (RFC 7578, RFC 2046 section 5.1)
 *
 * Strict: nothing before the first boundary or after the last one, one Content-Disposition form-data for each part, names that occur once.
 *
 * Pure: borrows the body, and copies the names.
 * Results:    0; MULTIPART_E_BAD (`detail` says how).
 * Bounds:     MULTIPART_PARTS parts, names of 64, heads of 4096 bytes.
 */
#pragma once

#include "gateway/base/slice.h"

#define MULTIPART_E_BAD        1
#define MULTIPART_PARTS        260
#define MULTIPART_NAME_MAX     64
#define MULTIPART_BOUNDARY_MAX 70

struct multipart_part {
	char name[MULTIPART_NAME_MAX + 1]; /* [A-Za-z0-9._-] */
	struct slice bytes;
	bool used; /* the reader's */
};

struct multipart {
	struct multipart_part parts[MULTIPART_PARTS];
	size_t count;
	char detail[200]; /* a plain sentence */
};

/* Is this the type, with one boundary that can be one? Otherwise false. */
bool multipart_boundary(struct slice content_type, char boundary[MULTIPART_BOUNDARY_MAX + 1]);

MUST_CHECK int multipart_parse(struct multipart *multipart, const char *boundary, struct slice body);

/* NULL when there is none of this name. */
struct multipart_part *multipart_find(struct multipart *multipart, const char *name);
