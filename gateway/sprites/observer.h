/*
 * observer - what metrics want to know of the Sprites API; each callback may be NULL
 *
 * Runs on: the agent loop.
 * Rule:    an observer calls nothing of this folder.
 */
#pragma once

#include "gateway/sprites/provider.h"

enum sprites_call {
	SPRITES_CREATE,
	SPRITES_GET,
	SPRITES_DELETE,
	SPRITES_LIST,
	SPRITES_SET_POLICY,
	SPRITES_GET_POLICY,
	SPRITES_KILL,
	SPRITES_CHECKPOINT,
	SPRITES_RESTORE,
	SPRITES_LABEL,
	SPRITES_CALLS,
};

struct sprites_observer {
	/* One request was answered or failed; `status` is 0 when there was no answer. */
	void (*on_call)(void *ctx, enum sprites_call call, uint64_t took_us, enum provider_code code, unsigned status);
	/* A WebSocket handshake ended: status 101 when it was opened, else the refusal, 0 when there was no answer. */
	void (*on_opened)(void *ctx, uint64_t took_us, unsigned status);
	/* A WebSocket that was open is gone; by_us when we closed it. */
	void (*on_closed)(void *ctx, bool by_us);
	void *ctx;
};

/* A word for metrics and logs: "create", "get", "delete", "list", "set_policy", "get_policy", "kill",
 * "checkpoint", "restore", "label". */
const char *sprites_call_name(enum sprites_call call);
