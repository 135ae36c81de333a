#include "policy/redis_poll.h"

#include <errno.h>
#include <hiredis/async.h>
#include <stdbool.h>
#include <stdlib.h>

struct redis_poll {
	uv_poll_t handle;
	uv_check_t check; /* it and idle are active while `asked` */
	uv_idle_t idle;
	redisAsyncContext *context; /* NULL once hiredis has freed it */
	struct redis_poll_events events;
	int wanted;
	bool asked; /* hiredis has something to send that nobody has tried to send */
	unsigned handles; /* libuv still holds */
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

/* Not with TLS, which may have to read before it writes. */
static bool writes_at_once(const struct redis_poll *poll)
{
	return (poll->context->c.flags & REDIS_CONNECTED) && !poll->context->c.privctx;
}

/* An error stays in the context, and the loop's turn to write finds it there. */
static void flush(struct redis_poll *poll)
{
	int done = 0;
	if (!poll->asked)
		return;
	poll->asked = false;
	(void)uv_check_stop(&poll->check);
	(void)uv_idle_stop(&poll->idle);
	bool all = redisBufferWrite(&poll->context->c, &done) == REDIS_OK && done;
	want(poll, poll->wanted | (all ? UV_READABLE : UV_WRITABLE));
}

static void on_check(uv_check_t *check)
{
	flush(check->data);
}

static void on_idle(uv_idle_t *idle)
{
	flush(idle->data);
}

/* What is asked while the loop polls leaves in its check, before whatever started to check earlier (an HTTP server that answers); what is
 * asked at any other time leaves before it polls, or the idle handle keeps it from sleeping. */
static void add_write(void *data)
{
	struct redis_poll *poll = data;
	if (poll->asked || (poll->wanted & UV_WRITABLE))
		return;
	if (!writes_at_once(poll)) {
		want(poll, poll->wanted | UV_WRITABLE);
		return;
	}
	poll->asked = true;
	(void)uv_check_start(&poll->check, on_check);
	(void)uv_idle_start(&poll->idle, on_idle);
}

void redis_poll_flush(struct redisAsyncContext *context)
{
	flush(context->ev.data);
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
	if (--poll->handles)
		return;
	free(poll);
	events.on_closed(events.ctx);
}

static void cleanup(void *data)
{
	struct redis_poll *poll = data;
	poll->context = NULL;
	poll->asked = false;
	poll->handles = 3;
	uv_close((uv_handle_t *)&poll->handle, on_handle_closed);
	uv_close((uv_handle_t *)&poll->check, on_handle_closed);
	uv_close((uv_handle_t *)&poll->idle, on_handle_closed);
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
	(void)uv_check_init(loop, &poll->check);
	(void)uv_idle_init(loop, &poll->idle);
	poll->handle.data = poll->check.data = poll->idle.data = poll;
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
