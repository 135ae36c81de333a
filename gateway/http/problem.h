/*
 * problem - answers that say what went wrong (RFC 9457, application/problem+json)
 *
 * {"type", "title", "status", "detail", "code", "request_id", "instance", "ok": false, …extra}
 *
 * Pure but for the memory of the body.
 * Results: those of buf; -EINVAL for a code that is not in the table.
 */
#pragma once

#include "gateway/base/buf.h"
#include "gateway/http/headers.h"

struct http_problem {
	unsigned status;
	const char *code;        /* of the table in problem_types.c, which has type and title */
	struct slice detail;     /* a sentence for people; may be empty */
	struct slice request_id; /* may be empty */
	struct slice extra; /* further members as JSON text without braces, e.g. "\"retry_after\":4,\"pointer\":\"/argv\""; may be empty */
};

MUST_CHECK int http_problem_write(const struct http_problem *problem, struct buf *body);

/* Content-Type, Cache-Control: no-store, X-Content-Type-Options. X-Request-Id is added to every answer by the request itself. */
MUST_CHECK int http_problem_fields(struct http_fields *fields);
