/*
 * mailbox - the one way from one loop to another: a bounded queue plus a wake-up
 *
 * Owns:       messages between post and delivery; ownership of a message moves with it.
 * Lifetime:   mailbox_init … mailbox_close (asynchronous, as every libuv handle); after mailbox_close posts are refused.
 * Runs on:    mailbox_post from any thread; the handler on the loop given to mailbox_init.
 * Results:    MAILBOX_E_FULL, MAILBOX_E_CLOSED: the message still belongs to the caller.
 * Bounds:     `capacity` undelivered messages; mailbox_reply is not counted, because every reply answers a request that was.
 * Invariants: messages of one sender arrive in order.
 */
#pragma once

#include "gateway/base/attr.h"

#include <stdbool.h>
#include <uv.h>

#define MAILBOX_E_FULL   1
#define MAILBOX_E_CLOSED 2

/* The first member of every message. */
struct mailbox_item {
	struct mailbox_item *next;
};

typedef void (*mailbox_handler)(void *ctx, struct mailbox_item *item);

struct mailbox {
	uv_async_t async;
	uv_mutex_t mutex;
	struct mailbox_item *head, **tail;
	size_t count, capacity;
	mailbox_handler handler;
	void *ctx;
	void (*on_closed)(void *ctx);
	bool closed;
};

/* -errno from libuv. */
MUST_CHECK int mailbox_init(struct mailbox *box, uv_loop_t *loop, size_t capacity, mailbox_handler handler, void *ctx);

MUST_CHECK int mailbox_post(struct mailbox *box, struct mailbox_item *item);

/* As mailbox_post, never MAILBOX_E_FULL. */
MUST_CHECK int mailbox_reply(struct mailbox *box, struct mailbox_item *item);

/* On the owner's loop. Delivers what is still queued, then refuses; on_closed runs when libuv has let go of the memory. */
void mailbox_close(struct mailbox *box, void (*on_closed)(void *ctx));
