#include "policy/redis_poll.h"

#include <errno.h>
#include <hiredis/async.h>
#include <stdbool.h>
#include <stdlib.h>

struct redis_poll {
	uv_poll_t handle;
	redisAsyncContext *context; /* NULL once hiredis has freed it */
	struct redis_poll_events events;
	int wanted;
};

/* After an error both directions are run: hiredis then meets the error itself and frees the context. */
static void on_ready(uv_poll_t *handle, int status, int events)
{
	struct redis_poll *poll = handle->data;
	if (status < 0)
		events = UV_READABLE | UV_WRITABLE;
	if ((events & UV_READABLE) && poll->context)
		redisAsyncHandleRead(poll->context);
	if ((events & UV_WRITABLE) && poll->context)
		redisAsyncHandleWrite(poll->context);
}

static void want(struct redis_poll *poll, int wanted)
{
	if (wanted == poll->wanted)
		return;
	poll->wanted = wanted;
	/* Neither fails on a handle that is not closing; if it did, the deadlines end the connection. */
	if (wanted)
		(void)uv_poll_start(&poll->handle, wanted, on_ready);
	else
		(void)uv_poll_stop(&poll->handle);
}

static void add_read(void *data)
{
	struct redis_poll *poll = data;
	want(poll, poll->wanted | UV_READABLE);
}

static void del_read(void *data)
{
	struct redis_poll *poll = data;
	want(poll, poll->wanted & ~UV_READABLE);
}

/* True: hiredis has nothing left to send. An error stays in the context, and the loop's turn to write finds it there. */
static bool write_now(struct redis_poll *poll)
{
	struct redisContext *connection = &poll->context->c;
	int done = 0;
	bool plain = (connection->flags & REDIS_CONNECTED) && !connection->privctx; /* TLS may have to read before it writes */
	return plain && redisBufferWrite(connection, &done) == REDIS_OK && done;
}

/* What is asked for now has left before anything that is done after it: whoever is answered then finds what was written (a settled
 * command's result), and nobody waits for a turn of the loop. */
static void add_write(void *data)
{
	struct redis_poll *poll = data;
	want(poll, poll->wanted | (write_now(poll) ? UV_READABLE : UV_WRITABLE));
}

static void del_write(void *data)
{
	struct redis_poll *poll = data;
	want(poll, poll->wanted & ~UV_WRITABLE);
}

static void on_handle_closed(uv_handle_t *handle)
{
	struct redis_poll *poll = handle->data;
	struct redis_poll_events events = poll->events;
	free(poll);
	events.on_closed(events.ctx);
}

static void cleanup(void *data)
{
	struct redis_poll *poll = data;
	poll->context = NULL;
	uv_close((uv_handle_t *)&poll->handle, on_handle_closed);
	poll->events.on_gone(poll->events.ctx);
}

int redis_poll_attach(struct redisAsyncContext *context, uv_loop_t *loop, const struct redis_poll_events *events)
{
	struct redis_poll *poll = calloc(1, sizeof *poll);
	if (!poll)
		return -ENOMEM;
	int r = uv_poll_init(loop, &poll->handle, context->c.fd);
	if (r < 0) {
		free(poll);
		return r;
	}
	poll->handle.data = poll;
	poll->context = context;
	poll->events = *events;
	context->ev.data = poll;
	context->ev.addRead = add_read;
	context->ev.delRead = del_read;
	context->ev.addWrite = add_write;
	context->ev.delWrite = del_write;
	context->ev.cleanup = cleanup;
	return 0;
}
