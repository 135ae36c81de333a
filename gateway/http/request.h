/*
 * request - one request and its answer, as the server's users see it
 *
 * A user (on_request of the server) either answers inside on_request, or attaches a sink and answers later:
 *
 *   on_request → attach → read → on_body… → on_body_end → respond                  → on_finished
 *   on_request → attach → respond_stream → write… (on_writable) → end              → on_finished
 *   on_request → attach → … on_gone (nothing more is sent, but wait for)           → on_finished
 *   on_request → attach → upgrade → on_upgraded (upgraded.h) → end or abort         → on_finished
 *
 * Owns:       the request belongs to the server, which gives it back to its free list right after on_finished (without a sink: right
 *             after it is answered). Everything in http_head is valid until then.
 * Runs on:    the loop of its server.
 * Re-entry:   no callback runs inside a call. Every call is allowed in every callback but on_finished.
 * Results:    HTTP_REQUEST_E_ANSWERED, HTTP_REQUEST_E_TOO_LARGE, HTTP_REQUEST_E_HEAD; negative = no memory or a field that may not
 *             be sent (-EINVAL): the connection is then cut and on_finished follows.
 * Bounds:     HTTP_REQUEST_BUFFER bytes of unsent streamed answer; a request body is never buffered here.
 * Invariants: on_finished comes exactly once and last to a request with a sink, whatever happens; an answer is committed at the end
 *             of the loop turn, so respond_stream + write + end in one turn leave in one write; the client's half-close counts as gone,
 *             until the connection is upgraded.
 */
#pragma once

#include "gateway/base/buf.h"
#include "gateway/base/id.h"
#include "gateway/http/guard.h"
#include "gateway/http/headers.h"
#include "gateway/http/problem.h"
#include "gateway/http/router.h"

#define HTTP_REQUEST_BUFFER   (128 * 1024)
#define HTTP_REQUEST_ROOM_MIN (4 * 1024)

#define HTTP_REQUEST_E_ANSWERED  1 /* there is an answer already (or the client is gone): ignored */
#define HTTP_REQUEST_E_TOO_LARGE 2 /* Content-Length above the limit: answered with 413 here, only on_finished follows */
#define HTTP_REQUEST_E_HEAD \
	3 /* the fields do not fit into what this request's head has left of the memory of the connection:
                                    * nothing was answered. 64 KiB always fit, and twice max_head. */

/* A client that waits for 100 Continue gets it after this time, whether the one who is to want the body has spoken or not. */
#define HTTP_HOLD_MS 3000

#define HTTP_LENGTH_UNKNOWN UINT64_MAX

struct http_request;

/* The request as it came; plain data, so that users can be tested without a server. */
struct http_head {
	struct slice method;
	struct slice target;  /* origin-form, raw: path and query as they go upstream */
	struct slice path;    /* raw */
	struct slice query;   /* raw, without '?'; data is NULL when there is no '?' */
	struct slice host;
	struct slice peer;    /* client address as text, without port */
	struct slice id;      /* request id, UUIDv7, made here */
	const struct http_fields *fields;
	enum http_route route;
	enum http_body_kind body;
	uint64_t content_length; /* of HTTP_BODY_LENGTH */
	bool expect_continue;
	unsigned version_minor;
	uint64_t start_us; /* monotonic, when the head was complete */
};

enum http_end {
	HTTP_END_OK,        /* the whole answer was handed to the kernel */
	HTTP_END_GONE,      /* the client left before that */
	HTTP_END_CUT,       /* http_request_abort, or a failure here */
	HTTP_END_TIMEOUT,   /* body (then answered with 408) or reading client too slow */
	HTTP_END_STOPPED,   /* the server was stopped */
};

struct http_summary {
	unsigned status;       /* 0 when nothing was answered */
	enum http_end end;
	uint64_t bytes_in;     /* body bytes received, without framing */
	uint64_t bytes_out;    /* body bytes handed over for sending, without framing */
	uint64_t first_byte_us;/* from start_us until the answer was committed; 0 when none was */
	uint64_t duration_us;  /* from start_us */
};

/* Each may be NULL but on_finished. */
struct http_sink {
	/* Takes as many bytes as it likes, valid during the call. They go on coming while a streamed answer
	 * is under way. Fewer than bytes.len: no more come until http_request_resume_body(). */
	size_t (*on_body)(void *ctx, struct slice bytes);
	/* The whole body is here. Also called for a request without a body. */
	void (*on_body_end)(void *ctx);
	/* After http_request_write() took less than it was given, or http_request_room() gave 0: half of the buffer is free again. */
	void (*on_writable)(void *ctx);
	/* The client can take more of a streamed answer and all that was written is sent: puts at most `room` body bytes that are there
	 * now into `into` and says how many; 0 when there are none, and http_request_more() or http_request_end() follows. NULL:
	 * everything is written. Never called for an answer that began before the end of the request's body. */
	size_t (*on_pull)(void *ctx, char *into, size_t room);
	/* The 101 of http_request_upgrade() is on its way, and the connection the sink's. `early`: what the client had sent after its request,
	 * valid during the call. */
	void (*on_upgraded)(void *ctx, struct slice early);
	/* An upgraded connection can be read or written, as http_upgraded_watch() asked. */
	void (*on_ready)(void *ctx, bool readable, bool writable);
	/* The client left, or was too slow, or the server stops: the answer can no longer be given. Not called after the whole answer was
	 * handed over (http_request_respond, http_request_end). */
	void (*on_gone)(void *ctx);
	void (*on_finished)(void *ctx, const struct http_summary *summary);
};

const struct http_head *http_request_head(const struct http_request *request);

/* From now on the sink hears what happens. Call at most once, inside on_request. */
void http_request_attach(struct http_request *request, const struct http_sink *sink, void *ctx);

/* Lets the body come, at most `max_body` bytes (a chunked one that grows beyond is answered 413 and on_gone follows). Until then the
 * client waits; 100 Continue is sent by this. Needs a sink. 0, HTTP_REQUEST_E_TOO_LARGE, HTTP_REQUEST_E_ANSWERED. */
MUST_CHECK int http_request_read(struct http_request *request, uint64_t max_body);

/* The same, but the body and 100 Continue wait for http_request_go_on(), or for HTTP_HOLD_MS, if the client waits for them. */
MUST_CHECK int http_request_hold(struct http_request *request, uint64_t max_body);
/* Does nothing if the body does not wait. */
void http_request_go_on(struct http_request *request);

/* After on_body took less than all. */
void http_request_resume_body(struct http_request *request);

/* Answers. Fields and body are copied; Content-Length, framing and Connection are set here and must not be among the fields; Date only
 * if it is upstream's. X-Request-Id is added. A body that is not read yet is read and dropped when small, else the connection closes. */
MUST_CHECK int http_request_respond(struct http_request *request, unsigned status, const struct http_fields *fields, struct slice body);

/* The same, taking the memory of *body, which is empty afterwards: for large answers. */
MUST_CHECK int http_request_respond_buf(struct http_request *request, unsigned status, const struct http_fields *fields, struct buf *body);

/* The same without a copy: the body stays valid until on_finished. */
MUST_CHECK int http_request_respond_lent(struct http_request *request, unsigned status, const struct http_fields *fields,
					 struct slice body);

/* Answers with a problem; request_id is filled in. `extra_fields` (may be NULL): further fields such as Retry-After. */
MUST_CHECK int http_request_respond_problem(struct http_request *request, const struct http_problem *problem,
					    const struct http_fields *extra_fields);

/* Begins an answer whose body follows by http_request_write(). `length`: exact, or HTTP_LENGTH_UNKNOWN (chunked; closed at the end for
 * HTTP/1.0). To a HEAD request, or with 204 and 304, the body that is written is dropped and `length` tells Content-Length (HEAD, 304). */
MUST_CHECK int http_request_respond_stream(struct http_request *request, unsigned status, const struct http_fields *fields,
					   uint64_t length);

/* Answers 101 with `Upgrade: protocol` to a request without a body (RFC 9110 section 7.8); on_upgraded follows, or on_gone. Only when the
 * server allows it (http_server_options.upgrades) and the request is HTTP/1.1. `protocol` is static. */
MUST_CHECK int http_request_upgrade(struct http_request *request, const char *protocol, const struct http_fields *fields);

/* How many bytes were taken; fewer than bytes.len: full, on_writable follows. All are taken (and dropped) once the client is gone. */
MUST_CHECK size_t http_request_write(struct http_request *request, struct slice bytes);

/* Bytes that the next write takes for certain: 0 (on_writable follows) or at least HTTP_REQUEST_ROOM_MIN. */
size_t http_request_room(struct http_request *request);

/* on_pull has something to give again. */
void http_request_more(struct http_request *request);

/* The streamed answer is complete. With a `length` that is not reached the client sees a cut. */
void http_request_end(struct http_request *request);

/* Cuts the connection, after what was written so far: the client can tell that the answer is not whole. on_finished follows, on_gone
 * does not. */
void http_request_abort(struct http_request *request);

/* Sends an interim answer (102-199, RFC 9110 section 15.2) when the client speaks HTTP/1.1 and nothing is answered yet; else ignored. */
void http_request_inform(struct http_request *request, unsigned status, const struct http_fields *fields);
