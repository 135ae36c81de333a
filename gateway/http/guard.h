/*
 * guard - refuses a request whose framing, target or fields are doubtful, before anything acts on it
 *
 * Looks at what the parser hands over on the first handler call. libmicrohttpd (discipline level 1) has already refused folding, bare
 * CR and LF, NUL, blanks before the colon, Content-Length with Transfer-Encoding; here is the rest (RFC 9110, RFC 9112).
 *
 * Pure: borrows; `detail` is a static sentence for the caller.
 * Invariants: a verdict other than HTTP_GUARD_OK always closes the connection when `close` says so.
 */
#pragma once

#include "gateway/http/headers.h"
#include "gateway/http/target.h"

/* Closed list: also the `reason` label of http_rejected_total. */
enum http_guard_reason {
	HTTP_GUARD_OK,
	HTTP_GUARD_FRAMING,
	HTTP_GUARD_TARGET,
	HTTP_GUARD_AMBIGUOUS_PATH,
	HTTP_GUARD_HOST,
	HTTP_GUARD_FIELD,
	HTTP_GUARD_METHOD,
	HTTP_GUARD_VERSION,
	HTTP_GUARD_EXPECT,
	HTTP_GUARD_HEADER_LIMIT,
	HTTP_GUARD_TARGET_LIMIT,
	HTTP_GUARD_BODY_LIMIT,
	HTTP_GUARD_REASONS, /* how many there are */
};

struct http_guard_limits {
	size_t max_head;   /* bytes of request line and fields */
};

/* Allow for what goes to Datasette, which judges its methods itself. */
#define HTTP_GUARD_METHODS "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"

/* What the request says about its body. */
enum http_body_kind { HTTP_BODY_NONE, HTTP_BODY_LENGTH, HTTP_BODY_CHUNKED };

struct http_guard_input {
	struct slice method, target, version; /* version as in the request line: "HTTP/1.1" */
	struct http_fields *fields;           /* Proxy and names with '_' are taken out when the verdict is OK */
	size_t fields_seen;                   /* lines the parser reported, more than fields->count when they did not fit */
};

struct http_guard_verdict {
	enum http_guard_reason reason;
	unsigned status;
	const char *code;   /* stable word, e.g. "malformed-request" */
	const char *detail;
	const char *allow;  /* Allow of a 405, else NULL */
	bool close;

	/* Only when reason is HTTP_GUARD_OK: */
	struct http_target target;
	enum http_body_kind body;
	uint64_t content_length; /* of HTTP_BODY_LENGTH */
	bool expect_continue;
	unsigned version_minor;  /* 0 or 1 */
	struct slice host;       /* as sent; empty only for HTTP/1.0 without Host */
};

void http_guard_check(const struct http_guard_input *input, const struct http_guard_limits *limits, struct http_guard_verdict *verdict);

/* "framing", "target", … for metrics. */
const char *http_guard_reason_name(enum http_guard_reason reason);
