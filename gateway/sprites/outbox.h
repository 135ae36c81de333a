/*
 * outbox - what waits to be sent on a WebSocket, in the order in which it may go; no I/O
 *
 * A message of which a part was handed over must be finished before any other byte goes out. Otherwise a pong goes
 * first, then a ping, then data in order. Of several pings of the peer only the last is answered (RFC 6455
 * section 5.5.3).
 *
 * Owns:       copies of what was pushed.
 * Lifetime:   outbox_init … outbox_deinit.
 * Results:    OUTBOX_E_FULL, -ENOMEM, -EMSGSIZE (a control message above 125 bytes); nothing is queued then.
 * Bounds:     `max` bytes of data, or one data message of any size when nothing else waits; one ping and one pong.
 */
#pragma once

#include "gateway/base/slice.h"

#define OUTBOX_E_FULL      1
#define OUTBOX_CONTROL_MAX 125

enum outbox_kind { OUTBOX_TEXT, OUTBOX_BINARY, OUTBOX_PING, OUTBOX_PONG };

struct outbox_message;

struct outbox {
	struct outbox_message *current; /* being sent: nothing else may go */
	struct outbox_message *pong, *ping;
	struct outbox_message *head, **tail;
	size_t bytes, max;
	uint64_t pushed, handed; /* data messages, counted */
};

void outbox_init(struct outbox *outbox, size_t max);
void outbox_deinit(struct outbox *outbox);

/* One message from two parts (the second may be empty). */
MUST_CHECK int outbox_push(struct outbox *outbox, enum outbox_kind kind, struct slice first, struct slice second);

struct outbox_piece {
	enum outbox_kind kind;
	struct slice bytes; /* what is left of the message; may be empty */
};

/* What to send next; stays the same until outbox_sent. Its message counts as handed over from now on. False: nothing
 * waits. */
bool outbox_next(struct outbox *outbox, struct outbox_piece *piece);

/* `n` bytes of the piece were taken; the message is done when that was all of it. */
void outbox_sent(struct outbox *outbox, size_t n);

/* Forgets data of which nothing was handed over yet. */
void outbox_drop(struct outbox *outbox);
