/*
 * upgraded - the client's side of a connection that speaks another protocol now (RFC 9110 section 7.8)
 *
 * After on_upgraded of the request's sink, until http_request_end() (closes it), http_request_abort() (resets it) or on_gone.
 *
 * Runs on:    the loop of its server.
 * Re-entry:   no callback runs inside a call.
 * Results:    0, HTTP_UPGRADED_E_AGAIN, HTTP_UPGRADED_E_CLOSED; negative = no memory.
 * Bounds:     none of its own: what is not read waits in the kernel.
 * Invariants: it counts as a connection and as a request under way; nothing here ends it for being slow or idle.
 */
#pragma once

#include "gateway/http/request.h"

#define HTTP_UPGRADED_E_AGAIN  1 /* would block: http_upgraded_watch() tells when to try again */
#define HTTP_UPGRADED_E_CLOSED 2 /* the client closed or reset it */

/* 0 and *got > 0; `reset`: it did not end in order. */
MUST_CHECK int http_upgraded_recv(struct http_request *request, char *into, size_t room, size_t *got, bool *reset);
/* 0 and *sent > 0. */
MUST_CHECK int http_upgraded_send(struct http_request *request, struct slice bytes, size_t *sent);
/* Nothing more will be sent. */
void http_upgraded_end(struct http_request *request);
/* So long it may be silent, and what is sent wait for it (keepalive.h); before, it is the idle time of the server. */
void http_upgraded_set_silence(struct http_request *request, unsigned silence_ms);
/* on_ready of the sink; level-triggered. */
MUST_CHECK int http_upgraded_watch(struct http_request *request, bool readable, bool writable);
