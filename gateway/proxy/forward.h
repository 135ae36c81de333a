/*
 * forward - what a request and a response become on their way through (RFC 9110 section 7.6, RFC 7239)
 *
 * Pure: borrows, writes into the caller's buffer.
 * Results: 0, FORWARD_E_LOOP, FORWARD_E_LAST; negative = those of buf.
 */
#pragma once

#include "gateway/base/buf.h"
#include "gateway/datasette/response.h"
#include "gateway/http/peer.h"
#include "gateway/http/request.h"

#define FORWARD_E_LOOP 1 /* our own Via is in the request already */
#define FORWARD_E_LAST 2 /* OPTIONS with Max-Forwards: 0 is for us (RFC 9110 section 7.6.2) */

struct forward_options {
	struct slice pseudonym;      /* in Via, "spritegate"; two gateways in a row need different ones */
	struct peer_set trusted;     /* peers whose X-Forwarded-Proto, X-Forwarded-For and Fly-Client-IP are believed */
	struct slice default_host;   /* Host for an HTTP/1.0 request without one */
};

/* Who the client is and how it came, after what trusted peers say; slices of the request. */
struct forward_client {
	struct slice address;
	struct slice scheme; /* "http" or "https" */
};
struct forward_client forward_client_of(const struct http_head *head, const struct forward_options *options);

/* Appends request line and fields, without framing fields and the empty line (exchange adds them). */
MUST_CHECK int forward_request(const struct http_head *head, const struct forward_options *options, struct buf *out);

/* The same for a request of our own without a body, in the name of whoever sent `head`: with its cookies, with the field `credentials` as
 * Authorization, and with what says who and where it came from; nothing else of it. `traceparent`: what the request is in its trace, with the
 * tracestate that came; empty = nothing. */
MUST_CHECK int forward_on_behalf(const struct http_head *head, const struct forward_options *options, struct slice method,
				 struct slice target, struct slice credentials, struct slice traceparent, struct buf *out);

/* Is the body part of what is asked? That of GET, HEAD and OPTIONS means nothing (RFC 9110 section 9.3), and where it ends has been read in
 * more than one way: it is read and dropped. */
bool forward_passes_body(const struct http_head *head);

/* Does the client wait to hear whether Datasette wants the body? Then Datasette is asked, too. */
bool forward_awaits_continue(const struct http_head *head);

/* Only these may be sent twice. */
bool forward_may_retry(const struct http_head *head);

/* The fields for the client, in order; slices of `head`. */
MUST_CHECK int forward_response(const struct response_head *head, struct http_fields *fields);

/* Must bytes of this response be passed on however long it is silent (text/event-stream)? */
bool forward_is_event_stream(const struct response_head *head);
