#include "gateway/base/mailbox.h"

static void deliver(struct mailbox *box)
{
	uv_mutex_lock(&box->mutex);
	struct mailbox_item *item = box->head;
	box->head = NULL;
	box->tail = &box->head;
	box->count = 0;
	uv_mutex_unlock(&box->mutex);
	while (item) {
		struct mailbox_item *next = item->next;
		item->next = NULL;
		box->handler(box->ctx, item);
		item = next;
	}
}

static void on_async(uv_async_t *async)
{
	deliver(async->data);
}

int mailbox_init(struct mailbox *box, uv_loop_t *loop, size_t capacity, mailbox_handler handler, void *ctx)
{
	*box = (struct mailbox){.capacity = capacity, .handler = handler, .ctx = ctx};
	box->tail = &box->head;
	int r = uv_mutex_init(&box->mutex);
	if (r < 0)
		return r;
	r = uv_async_init(loop, &box->async, on_async);
	if (r < 0) {
		uv_mutex_destroy(&box->mutex);
		return r;
	}
	box->async.data = box;
	return 0;
}

static int push(struct mailbox *box, struct mailbox_item *item, bool counted)
{
	int r = 0;
	uv_mutex_lock(&box->mutex);
	if (box->closed) {
		r = MAILBOX_E_CLOSED;
	} else if (counted && box->count >= box->capacity) {
		r = MAILBOX_E_FULL;
	} else {
		item->next = NULL;
		*box->tail = item;
		box->tail = &item->next;
		box->count += counted;
		/* Inside the lock: the handle cannot be closed between the check and the wake-up. */
		uv_async_send(&box->async);
	}
	uv_mutex_unlock(&box->mutex);
	return r;
}

int mailbox_post(struct mailbox *box, struct mailbox_item *item)
{
	return push(box, item, true);
}

int mailbox_reply(struct mailbox *box, struct mailbox_item *item)
{
	return push(box, item, false);
}

static void on_handle_closed(uv_handle_t *handle)
{
	struct mailbox *box = handle->data;
	uv_mutex_destroy(&box->mutex);
	if (box->on_closed)
		box->on_closed(box->ctx);
}

void mailbox_close(struct mailbox *box, void (*on_closed)(void *ctx))
{
	uv_mutex_lock(&box->mutex);
	box->closed = true;
	uv_mutex_unlock(&box->mutex);
	deliver(box);
	box->on_closed = on_closed;
	uv_close((uv_handle_t *)&box->async, on_handle_closed);
}
