#include "gateway/sprites/operation.h"

#include <stdio.h>

struct transition {
	enum operation_state next;
	enum operation_action action;
};

#define IDLE    OPERATION_IDLE
#define QUEUED  OPERATION_QUEUED
#define SENT    OPERATION_SENT
#define RUNNING OPERATION_RUNNING
#define EXITED  OPERATION_EXITED
#define BROKEN  OPERATION_BROKEN

#define STAY(state) {state, OPERATION_NOTHING}
#define UNRUN       {BROKEN, OPERATION_BREAK_NOT_STARTED}
#define DOUBT       {BROKEN, OPERATION_BREAK_MAY_HAVE_RUN}
#define LOSS        {BROKEN, OPERATION_LOST}
#define BUG         {BROKEN, OPERATION_IMPOSSIBLE}

static const struct transition table[OPERATION_STATES][OPERATION_EVENTS] =
	{
		[IDLE] =
			{
				[OPERATION_START] = {QUEUED, OPERATION_NOTHING},
				[OPERATION_ADOPT] = BUG,
				[OPERATION_HANDED] = BUG,
				[OPERATION_PROOF] = STAY(IDLE),
				[OPERATION_OUTPUT] = LOSS, /* it would be taken for the next command's */
				[OPERATION_EXIT] = LOSS,
				[OPERATION_COMPLETE] = STAY(IDLE),
				[OPERATION_REFUSED] = LOSS,
				[OPERATION_FAULT] = LOSS,
				[OPERATION_CLOSED] = LOSS,
				[OPERATION_LATE] = BUG,
			},
		[QUEUED] =
			{
				[OPERATION_START] = BUG,
				[OPERATION_ADOPT] = BUG,
				[OPERATION_HANDED] = {SENT, OPERATION_NOTHING},
				[OPERATION_PROOF] = STAY(QUEUED),
				[OPERATION_OUTPUT] = UNRUN,
				[OPERATION_EXIT] = UNRUN,
				[OPERATION_COMPLETE] = STAY(QUEUED),
				[OPERATION_REFUSED] = UNRUN,
				[OPERATION_FAULT] = UNRUN,
				[OPERATION_CLOSED] = UNRUN,
				[OPERATION_LATE] = BUG,
			},
		[SENT] =
			{
				[OPERATION_START] = BUG,
				[OPERATION_ADOPT] = BUG,
				[OPERATION_HANDED] = STAY(SENT),
				[OPERATION_PROOF] = {RUNNING, OPERATION_NOTHING},
				[OPERATION_OUTPUT] = {RUNNING, OPERATION_DELIVER},
				[OPERATION_EXIT] = {EXITED, OPERATION_FINISH},
				[OPERATION_COMPLETE] = DOUBT,
				[OPERATION_REFUSED] = UNRUN,
				[OPERATION_FAULT] = DOUBT,
				[OPERATION_CLOSED] = DOUBT,
				[OPERATION_LATE] = BUG,
			},
		[RUNNING] =
			{
				[OPERATION_START] = BUG,
				[OPERATION_ADOPT] = {QUEUED, OPERATION_NOTHING},
				[OPERATION_HANDED] = STAY(RUNNING),
				[OPERATION_PROOF] = STAY(RUNNING),
				[OPERATION_OUTPUT] = {RUNNING, OPERATION_DELIVER},
				[OPERATION_EXIT] = {EXITED, OPERATION_FINISH},
				[OPERATION_COMPLETE] = DOUBT,
				[OPERATION_REFUSED] = DOUBT, /* after an acknowledgement it proves nothing */
				[OPERATION_FAULT] = DOUBT,
				[OPERATION_CLOSED] = DOUBT,
				[OPERATION_LATE] = BUG,
			},
		[EXITED] =
			{
				[OPERATION_START] = BUG,
				[OPERATION_ADOPT] = BUG,
				[OPERATION_HANDED] = STAY(EXITED),
				[OPERATION_PROOF] = STAY(EXITED),
				[OPERATION_OUTPUT] = STAY(EXITED), /* too late: the count will not be right (exec/check.h) */
				[OPERATION_EXIT] = STAY(EXITED),
				[OPERATION_COMPLETE] = {IDLE, OPERATION_FREE},
				[OPERATION_REFUSED] = LOSS,
				[OPERATION_FAULT] = LOSS,
				[OPERATION_CLOSED] = LOSS,
				[OPERATION_LATE] = LOSS,
			},
		[BROKEN] =
			{
				[OPERATION_START] = BUG,
				[OPERATION_ADOPT] = BUG,
				[OPERATION_HANDED] = STAY(BROKEN),
				[OPERATION_PROOF] = STAY(BROKEN),
				[OPERATION_OUTPUT] = STAY(BROKEN),
				[OPERATION_EXIT] = STAY(BROKEN),
				[OPERATION_COMPLETE] = STAY(BROKEN),
				[OPERATION_REFUSED] = STAY(BROKEN),
				[OPERATION_FAULT] = STAY(BROKEN),
				[OPERATION_CLOSED] = STAY(BROKEN),
				[OPERATION_LATE] = STAY(BROKEN),
			},
};

void operation_init(struct operation *operation)
{
	*operation = (struct operation){.state = OPERATION_IDLE};
}

enum operation_action operation_step(struct operation *operation, enum operation_event event)
{
	const struct transition *transition = &table[operation->state][event];
	if (event == OPERATION_START)
		operation->id++;
	if (event == OPERATION_START || event == OPERATION_ADOPT)
		operation->adopted = event == OPERATION_ADOPT;
	operation->state = transition->next;
	return transition->action;
}

/* The server echoes the id of op.start. One that has none speaks of the present command. */
static bool is_ours(const struct operation *operation, struct slice id)
{
	char ours[24];
	int len = snprintf(ours, sizeof ours, "%llu", (unsigned long long)operation->id);
	return !id.len || slice_equal(id, slice_of(ours, (size_t)len));
}

static enum operation_action proof(struct operation *operation)
{
	if (operation->adopted)
		return OPERATION_NOTHING;
	if (operation->state == OPERATION_SENT)
		operation->acknowledges = true;
	return operation_step(operation, OPERATION_PROOF);
}

/* Output or a status before the acknowledgement: a leftover of the command before (a second exit frame, for instance)
 * must not be taken for this one's. An adopted command's report comes before its status: without output that is of a process which
 * may have ended before it got the command. */
static enum operation_event unless_early(const struct operation *operation, enum operation_event event)
{
	if (operation->state != OPERATION_SENT)
		return event;
	bool early = operation->adopted ? event == OPERATION_EXIT : operation->acknowledges;
	return early ? OPERATION_FAULT : event;
}

static enum operation_action refused(struct operation *operation, enum frame_refusal refusal)
{
	switch (refusal) {
	case REFUSAL_NOT_ACTIVE:
		/* Answers input or a signal that crossed with the end of the command. */
		return OPERATION_NOTHING;
	case REFUSAL_BUSY:
	case REFUSAL_NOT_FOUND:
		/* What was started ahead was acknowledged: of the command that it was handed this proves nothing. */
		if (operation->adopted && operation->state == OPERATION_SENT)
			break;
		return operation_step(operation, OPERATION_REFUSED);
	case REFUSAL_OTHER:
		break;
	}
	return operation_step(operation, OPERATION_FAULT);
}

enum operation_action operation_frame(struct operation *operation, const struct frame *frame)
{
	switch (frame->kind) {
	case FRAME_STDOUT:
	case FRAME_STDERR:
		return operation_step(operation, unless_early(operation, OPERATION_OUTPUT));
	case FRAME_EXIT:
		return operation_step(operation, unless_early(operation, OPERATION_EXIT));
	case FRAME_ACK:
		return is_ours(operation, frame->id) ? proof(operation) : OPERATION_NOTHING;
	case FRAME_SESSION:
		return proof(operation);
	case FRAME_COMPLETE:
		return is_ours(operation, frame->id) ? operation_step(operation, OPERATION_COMPLETE) : OPERATION_NOTHING;
	case FRAME_REFUSED:
		return is_ours(operation, frame->id) ? refused(operation, frame->refusal) : OPERATION_NOTHING;
	case FRAME_INVALID:
		return operation_step(operation, OPERATION_FAULT);
	case FRAME_NOTE:
	case FRAME_OTHER:
		break;
	}
	return OPERATION_NOTHING;
}
