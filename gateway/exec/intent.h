/*
 * intent - tells the agent that a command will probably come, so that a paused Sprite can be woken for it
 *
 * A hint: it may be lost, and nothing waits for it.
 */
#pragma once

#include "gateway/exec/job.h"
#include "gateway/http/headers.h"

/* How long it is believed: that a body follows its head, and that a page of Datasette's agent leads to a command. */
#define EXEC_INTENT_HEAD_MS UINT64_C(5000)
#define EXEC_INTENT_PAGE_MS UINT64_C(60000)

struct exec_intent {
	struct exec_message message;
	uint64_t for_ms;
};

/* From any thread. */
void exec_intent_send(struct mailbox *agent, uint64_t for_ms);

/* Is a page of Datasette's agent asked for, by somebody who may be signed in? Others cannot have commands run by it. */
bool exec_intent_is_page(struct slice path, const struct http_fields *fields);
