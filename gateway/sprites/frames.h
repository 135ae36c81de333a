/*
 * frames - what travels on an exec or control socket: reading the server's messages, writing ours
 *
 * One WebSocket message is one of (sprites contract 3.2, 3.3, 6.1):
 *   binary  [stream id][payload]            output, or the exit status of the command
 *   text    control:{"type": …}             an envelope about the operation (control socket only)
 *   text    {"type": …}                     information; none of it decides anything here
 *
 * Owns:       the text message being collected and the last one parsed. Nothing of what it is fed.
 * Lifetime:   frames_init … frames_deinit.
 * Results:    frames_feed: FRAMES_FRAME, 0 (nothing yet), -ENOMEM.
 * Bounds:     text messages up to FRAMES_TEXT_MAX bytes; binary messages are passed on in pieces as they come and
 *             never collected.
 * Invariants: at most one frame per feed; after a FRAME_INVALID nothing else comes out.
 */
#pragma once

#include "gateway/base/buf.h"

#define FRAMES_FRAME    1
#define FRAMES_TEXT_MAX ((size_t)1 << 20)

/* Stream ids of binary messages (sprites contract 3.2). */
enum { FRAMES_STDIN = 0, FRAMES_STDOUT = 1, FRAMES_STDERR = 2, FRAMES_EXIT = 3, FRAMES_STDIN_EOF = 4 };

enum frame_kind {
	FRAME_STDOUT, /* bytes: a piece of output, never empty */
	FRAME_STDERR,
	FRAME_EXIT,     /* code: the command's status */
	FRAME_ACK,      /* op.ack */
	FRAME_COMPLETE, /* op.complete; bytes: its error text, mostly empty */
	FRAME_REFUSED,  /* op.error; refusal says which, bytes is its text */
	FRAME_SESSION,  /* session_info: the command exists; bytes: its session id, empty when it has none */
	FRAME_NOTE,     /* text error; bytes: its message */
	FRAME_OTHER,    /* to be ignored */
	FRAME_INVALID,  /* contradicts the contract; bytes: a plain sentence */
};

enum frame_refusal { REFUSAL_BUSY, REFUSAL_NOT_FOUND, REFUSAL_NOT_ACTIVE, REFUSAL_OTHER };

struct frame {
	enum frame_kind kind;
	enum frame_refusal refusal;
	unsigned code;
	struct slice bytes; /* valid until the next feed, output only as long as what was fed */
	struct slice id;    /* of an envelope; empty when it has none */
};

enum frame_message { FRAME_MESSAGE_TEXT, FRAME_MESSAGE_BINARY };

struct frames {
	struct buf text;
	void *parsed; /* the JSON that the last frame points into */
	enum frame_message message;
	unsigned char id, code;
	uint64_t len; /* bytes of the binary message so far */
	bool inside, dead;
};

void frames_init(struct frames *frames);
void frames_deinit(struct frames *frames);

/* The next bytes of a message; `end` with its last ones. A frame ends in *frame with FRAMES_FRAME. */
MUST_CHECK int frames_feed(struct frames *frames, enum frame_message message, struct slice bytes, bool end, struct frame *frame);

/* Longest argument that Linux takes (MAX_ARG_STRLEN without its NUL), and all of them with their quotes as one message.
 */
#define FRAMES_ARG_MAX   ((size_t)131071)
#define FRAMES_START_MAX ((size_t)512 << 10)
/* Request targets from about 40 KB on are answered 414 (sprites contract 3.1). */
#define FRAMES_QUERY_MAX ((size_t)36 << 10)

#define FRAMES_E_TOO_LONG 1

/* The op.start envelope of a command, stdin on. -EINVAL when an argument is not UTF-8 or there is none. */
MUST_CHECK int frames_write_start(struct buf *out, uint64_t id, const char *const *argv, size_t argc);

/* The same for /exec, as the query part of its URL: "cmd=…&cmd=…&path=…&stdin=true". */
MUST_CHECK int frames_write_query(struct buf *out, const char *const *argv, size_t argc);

/* The text message that signals the running command. */
MUST_CHECK int frames_write_signal(struct buf *out, const char *signal);

/* Appends with every byte but RFC 3986's unreserved ones percent-encoded. */
MUST_CHECK int frames_percent_encode(struct buf *out, struct slice text);
