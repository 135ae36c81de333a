/*
 * problem_types - every code of a problem, what it means and what to do about it; docs/problems.md is made of it
 *
 * A type is a URI below HTTP_PROBLEM_BASE, which names it and leads nowhere: its host is one that nobody can own (RFC 6761 section 6.4).
 * Some types are draft-ietf-httpapi-ratelimit-headers-11's own.
 */
#pragma once

#include "gateway/base/buf.h"

#define HTTP_PROBLEM_BASE "https://spritegate.invalid/problems/"

struct http_problem_type {
	const char *code;
	unsigned status;
	const char *uri;     /* NULL = HTTP_PROBLEM_BASE and the code */
	const char *title;
	const char *meaning, *advice;
	const char *retry;   /* may the same request be sent again? */
};

/* NULL for a code that is not in the table. */
const struct http_problem_type *http_problem_type_find(const char *code);

/* The table as Markdown. Results: those of buf. */
MUST_CHECK int http_problem_types_document(struct buf *out);
