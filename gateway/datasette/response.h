/*
 * response - a strict HTTP/1.1 response parser over llhttp
 *
 * Refuses what could make two readers disagree: two Content-Length, Content-Length with Transfer-Encoding, a coding other than chunked,
 * folding, bare CR or LF, NUL and other control bytes, a status outside 100-599, a 101 nobody asked for, more than 10 interim answers,
 * heads above the bounds (RFC 9112 sections 2.2, 5, 6.3).
 *
 * Owns:       the bytes of the head (names and values), reused for every response.
 * Lifetime:   response_init … response_deinit; response_begin before each response.
 * Re-entry:   the callbacks run inside response_feed() and response_eof(); they may not call back into the parser.
 * Results:    0 = wants more, RESPONSE_DONE, negative = broken: `error` says why, and the parser is dead until response_begin.
 *             RESPONSE_DONE with status 101: what follows is another protocol; no callback has told of it.
 * Bounds:     RESPONSE_HEAD_MAX bytes and RESPONSE_FIELDS_MAX fields a head; no body byte is kept.
 */
#pragma once

#include "gateway/base/buf.h"

#include <llhttp.h>

#define RESPONSE_FIELDS_MAX  100
#define RESPONSE_HEAD_MAX    (256 * 1024)
#define RESPONSE_INTERIM_MAX 10

#define RESPONSE_DONE 1

#define RESPONSE_LENGTH_UNKNOWN UINT64_MAX

struct response_field {
	struct slice name, value;
};

struct response_head {
	unsigned status;
	uint64_t
		length; /* of the body that follows, or what Content-Length says to HEAD and 304; RESPONSE_LENGTH_UNKNOWN = chunked, to the end, or not said */
	bool has_body; /* false for HEAD, 1xx, 204, 304 and a length of 0 */
	size_t count;
	struct response_field fields[RESPONSE_FIELDS_MAX]; /* wire order; valid until response_begin or the next head */
};

struct response_events {
	void (*on_interim)(void *ctx, const struct response_head *head); /* 100, 102-199 */
	void (*on_head)(void *ctx, const struct response_head *head);
	void (*on_body)(void *ctx, struct slice bytes);
};

struct response_span {
	size_t name, name_len, value, value_len;
};

struct response {
	llhttp_t parser;
	const struct response_events *events;
	void *ctx;
	struct buf text;
	struct response_head head;
	struct response_span spans[RESPONSE_FIELDS_MAX];
	size_t count, head_bytes, extension_bytes;
	uint64_t content_length;
	unsigned interim, content_lengths, codings;
	bool to_head, may_switch, started, head_done, head_too_large, keep_alive, dead;
	const char *error; /* a plain sentence, static */
};

void response_init(struct response *response, const struct response_events *events, void *ctx);
void response_deinit(struct response *response);

/* `to_head`: the request was HEAD, so no body follows. */
void response_begin(struct response *response, bool to_head);

/* After response_begin(): the request asked for another protocol, so that a 101 which names one is an answer (RFC 9110 section 7.8). */
void response_allow_switch(struct response *response);

/* *used is less than bytes.len only with RESPONSE_DONE: what follows was not asked for, the connection must not be used again; unless it is
 * another protocol. */
MUST_CHECK int response_feed(struct response *response, struct slice bytes, size_t *used);

/* The connection was closed by the other side. RESPONSE_DONE for a body that ends so (RFC 9112 section 6.3, 8), else -EPROTO. */
MUST_CHECK int response_eof(struct response *response);

/* Has any byte of this response arrived? */
static inline bool response_started(const struct response *response)
{
	return response->started;
}

/* It is broken only in that its head is beyond our bound. */
static inline bool response_head_too_large(const struct response *response)
{
	return response->head_too_large;
}

/* After RESPONSE_DONE: may the connection carry another exchange? */
static inline bool response_keep_alive(const struct response *response)
{
	return response->keep_alive;
}
