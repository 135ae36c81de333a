/*
 * target - the raw request-target (RFC 9112 section 3.2), never decoded
 *
 * Pure: borrows; the slices point into the text that was parsed.
 * Results: 0, HTTP_TARGET_E_INVALID (bytes that may not stand there, or no known form).
 */
#pragma once

#include "gateway/base/buf.h"

#define HTTP_TARGET_E_INVALID 1

enum http_target_form {
	HTTP_TARGET_ORIGIN,    /* /path?query */
	HTTP_TARGET_ABSOLUTE,  /* http://authority/path?query */
	HTTP_TARGET_AUTHORITY, /* host:port, for CONNECT */
	HTTP_TARGET_ASTERISK,  /* *, for OPTIONS */
};

struct http_target {
	enum http_target_form form;
	struct slice origin;    /* path and query as they go upstream; "/" for an absolute form without a path, "*" for asterisk */
	struct slice path;      /* without the query */
	struct slice query;     /* without '?'; data is NULL when there is no '?' */
	struct slice authority; /* absolute and authority form only */
};

/* Appends a target as it came, but for an absolute form that has a query and no path: origin-form cannot say that, so its path is written
 * out ("http://a?x" is "http://a/?x", RFC 3986 section 6.2.3). 0, or as buf_append. */
MUST_CHECK int http_target_append(struct slice raw, struct buf *out);

/* Takes what http_target_append has written. Refuses bytes 0x00-0x20, 0x7f, and above 0x7e (RFC 3986 has no others), and '#': nothing may
 * come after it in a request. */
MUST_CHECK int http_target_parse(struct slice raw, struct http_target *target);

/* What a hexadecimal digit stands for, -1 for any other byte. */
int http_hex(char c);
