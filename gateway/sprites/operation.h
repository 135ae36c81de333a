/*
 * operation - what may happen to one command on its channel, as a table; no I/O
 *
 *   IDLE ─start→ QUEUED ─handed→ SENT ─proof→ RUNNING ─exit→ EXITED ─complete→ IDLE
 *   a process that was started ahead of its command: RUNNING ─adopt→ QUEUED ─handed→ SENT ─output→ RUNNING
 *   anything that does not fit → BROKEN, for good
 *
 * The status comes only from an exit frame, never from the text `exit` or from op.complete (sprites contract 3.4, 6.4):
 * those may be missing, early or wrong. op.complete is only the mark after which the channel may carry the next
 * command.
 *
 * Owns:       nothing; plain data.
 * Runs on:    anywhere.
 * Invariants: of every start exactly one of FINISH, BREAK_NOT_STARTED and BREAK_MAY_HAVE_RUN comes out, once; after LOST
 *             and BREAK_… nothing comes out. BREAK_NOT_STARTED only while nothing was handed to the network, or on a
 *             refusal that says so, of a command that was not adopted.
 */
#pragma once

#include "gateway/sprites/frames.h"

enum operation_state {
	OPERATION_IDLE,
	OPERATION_QUEUED,  /* a command is accepted, nothing of it was handed to the network */
	OPERATION_SENT,    /* it was, so it may run; no word from the server yet */
	OPERATION_RUNNING, /* the server has acknowledged it */
	OPERATION_EXITED,  /* its exit frame came; later frames of it are discarded until op.complete */
	OPERATION_BROKEN,
	OPERATION_STATES,
};

enum operation_event {
	OPERATION_START,
	OPERATION_ADOPT, /* what was started is given its command now: only what follows can start that */
	OPERATION_HANDED, /* the first byte that can start it goes to the network */
	OPERATION_PROOF,  /* op.ack or session_info */
	OPERATION_OUTPUT,
	OPERATION_EXIT,
	OPERATION_COMPLETE,
	OPERATION_REFUSED, /* op.error that says it was not started */
	OPERATION_FAULT,   /* any other op.error, or a message that contradicts the contract */
	OPERATION_CLOSED,  /* the channel is gone */
	OPERATION_LATE,    /* op.complete did not come in time */
	OPERATION_EVENTS,
};

enum operation_action {
	OPERATION_NOTHING,
	OPERATION_DELIVER,            /* pass the output on */
	OPERATION_FINISH,             /* pass the status on */
	OPERATION_FREE,               /* the next command may start */
	OPERATION_BREAK_NOT_STARTED,  /* it certainly did not run; the channel is dead */
	OPERATION_BREAK_MAY_HAVE_RUN, /* the channel is dead */
	OPERATION_LOST,               /* the channel is dead, no command is harmed */
	OPERATION_IMPOSSIBLE,         /* a bug of the caller; the channel is dead */
};

struct operation {
	enum operation_state state;
	uint64_t id;       /* of the present or last command; its envelopes carry it */
	bool acknowledges; /* this server has acknowledged a command, so it acknowledges all */
	bool adopted;      /* an acknowledgement says nothing of the command, which only output does */
};

void operation_init(struct operation *operation);

enum operation_action operation_step(struct operation *operation, enum operation_event event);

/* The same for a frame that came in. Frames that mean nothing here give OPERATION_NOTHING. */
enum operation_action operation_frame(struct operation *operation, const struct frame *frame);
