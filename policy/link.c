#include "policy/link.h"

#include "gateway/base/clock.h"
#include "gateway/base/id.h"
#include "gateway/base/log.h"
#include "policy/dial.h"
#include "policy/redis_poll.h"
#include "policy/resp.h"

#include <errno.h>
#include <hiredis/async.h>
#include <stdio.h>
#include <stdlib.h>
#include <utlist.h>

#define RETRY_MIN_MS  50
#define RETRY_MAX_MS  500
#define PROBE_MS      500
#define HEARTBEAT_MS  5000 /* an idle connection that died is noticed before the next caller pays for it */
#define FAILURES_MAX  5
#define SILENT_PROBES 4 /* unanswered for this many probe intervals: the connection is given up */

struct link {
	struct link_options options;
	struct dial dial;
	uv_timer_t wait;     /* until the next attempt, or the next probe */
	uv_timer_t deadline; /* of the first command in `waiting` */
	struct link_command *waiting; /* in time so far, by deadline */
	struct link_command probe;
	unsigned attempt; /* since the last good answer */
	unsigned failures;
	unsigned silent; /* probes in a row that had to wait for the one before */
	bool ready;
	bool tripped;
	bool complained;
	bool expired; /* the deadline has passed; what has arrived meanwhile is read before anything is late */
	bool closed;
	enum link_breaker told;
	unsigned handles; /* libuv still holds */
	void (*on_freed)(void *ctx);
	void *freed_ctx;
};

static void on_wait(uv_timer_t *timer);

/* --- state ------------------------------------------------------------------ */

enum link_breaker link_breaker(const struct link *link)
{
	if (!link->ready)
		return LINK_BREAKER_OPEN;
	return !link->tripped ? LINK_BREAKER_CLOSED : link->probe.link ? LINK_BREAKER_HALF_OPEN : LINK_BREAKER_OPEN;
}

static void tell(struct link *link)
{
	enum link_breaker now = link_breaker(link);
	if (now == link->told || link->closed)
		return;
	link->told = now;
	if (link->options.on_state)
		link->options.on_state(link->options.ctx, now);
}

/* One line when it goes, one when it is back; not one an attempt. */
static void complain(struct link *link, const char *reason)
{
	if (!link->complained && !link->closed)
		log_warning("redis: %s", reason);
	link->complained = true;
}

static void recovered(struct link *link)
{
	if (link->complained)
		log_info("redis: answers again");
	link->complained = false;
}

static uint64_t jittered(uint64_t ms)
{
	uint16_t random = UINT16_MAX / 2;
	if (id_random(&random, sizeof random) < 0)
		return ms;
	return ms * 8 / 10 + ms * 4 * random / (10 * (uint64_t)UINT16_MAX);
}

static void wait_for(struct link *link, uint64_t ms)
{
	if (!link->closed)
		(void)uv_timer_start(&link->wait, on_wait, ms, 0);
}

static void arm_probe(struct link *link)
{
	wait_for(link, jittered(link->tripped || link->failures || link->silent ? PROBE_MS : HEARTBEAT_MS));
}

static void drop(struct link *link, const char *reason)
{
	complain(link, reason);
	link->ready = false;
	dial_drop(&link->dial, reason);
}

static void failed(struct link *link)
{
	link->failures++;
	bool trips = !link->tripped && link->failures >= FAILURES_MAX;
	if (trips) {
		link->tripped = true;
		complain(link, "5 failures in a row, asking it no more until it answers a probe");
	}
	if ((trips || link->failures == 1) && link->ready)
		arm_probe(link);
	tell(link);
}

static void succeeded(struct link *link)
{
	link->attempt = 0;
	if (!link->tripped)
		link->failures = 0;
}

/* --- commands --------------------------------------------------------------- */

static void observe(struct link *link, const struct link_command *command, const char *error_kind)
{
	if (!command->probe && !command->late && link->options.on_command)
		link->options.on_command(link->options.ctx, clock_mono_us() - command->sent_us, error_kind);
}

static void on_deadline(uv_timer_t *timer);

static void arm_deadline(struct link *link)
{
	if (link->closed)
		return;
	if (!link->waiting) {
		(void)uv_timer_stop(&link->deadline);
		return;
	}
	link->expired = false;
	uint64_t now = clock_mono_us(), due = link->waiting->deadline_us;
	(void)uv_timer_start(&link->deadline, on_deadline, due > now ? (due - now + 999) / 1000 : 0, 0);
}

static void on_deadline(uv_timer_t *timer)
{
	struct link *link = timer->data;
	/* libuv runs timers before it polls: a loop that was held up would take its own delay for Redis'. */
	if (!link->expired) {
		link->expired = true;
		(void)uv_timer_start(timer, on_deadline, 1, 0);
		return;
	}
	uint64_t now = clock_mono_us();
	while (link->waiting && link->waiting->deadline_us <= now) {
		struct link_command *command = link->waiting;
		DL_DELETE(link->waiting, command);
		observe(link, command, "timeout");
		command->late = true;
		failed(link);
		command->event(command, LINK_TIMEOUT, NULL);
	}
	arm_deadline(link);
}

static bool is_error(const redisReply *reply, const char *code)
{
	return reply->type == REDIS_REPLY_ERROR && slice_has_prefix(slice_of(reply->str, reply->len), slice_str(code));
}

/* The server behind this connection is the wrong one, or not ready: another connection may find a better one. */
static bool is_wrong_server(const redisReply *reply)
{
	static const char *const codes[] = {"READONLY", "LOADING", "MASTERDOWN", "NOAUTH", "CLUSTERDOWN", "MOVED"};
	for (size_t i = 0; i < ARRAY_LEN(codes); i++)
		if (is_error(reply, codes[i]))
			return true;
	return false;
}

static void judge(struct link *link, const struct link_command *command, const redisReply *reply)
{
	bool repeats = is_error(reply, "NOSCRIPT"); /* by text at once, and is observed then */
	bool broken = reply->type == REDIS_REPLY_ERROR && !repeats;
	if (!repeats)
		observe(link, command, broken ? "error" : NULL);
	/* A key of another type is the command's own, and its owner's to tell: Redis works, and nobody else is to wait for it. */
	bool works = !broken || is_error(reply, "WRONGTYPE");
	if (works && !command->late)
		succeeded(link);
	if (works || (command->refused_before && !is_wrong_server(reply)))
		return;
	failed(link);
	char reason[160];
	snprintf(reason, sizeof reason, "it answers %.*s", (int)(reply->len < 120 ? reply->len : 120), reply->str);
	if (is_wrong_server(reply))
		drop(link, reason);
	else
		complain(link, reason);
}

static void on_reply(redisAsyncContext *context, void *reply, void *data)
{
	(void)context;
	struct link_command *command = data;
	struct link *link = command->link;
	command->link = NULL;
	if (!command->late) {
		DL_DELETE(link->waiting, command);
		arm_deadline(link);
	}
	if (reply) {
		judge(link, command, reply);
		command->event(command, LINK_REPLY, reply);
		return;
	}
	link->ready = false;
	observe(link, command, "lost");
	command->event(command, LINK_LOST, NULL);
}

static int later_deadline(const struct link_command *a, const struct link_command *b)
{
	return a->deadline_us < b->deadline_us ? -1 : a->deadline_us > b->deadline_us;
}

/* From the tail: nearly always the new one has the last deadline. */
static void insert(struct link *link, struct link_command *command)
{
	struct link_command *after = link->waiting ? link->waiting->prev : NULL;
	while (after && later_deadline(after, command) > 0)
		after = after == link->waiting ? NULL : after->prev;
	if (!after)
		DL_PREPEND(link->waiting, command);
	else
		DL_APPEND_ELEM(link->waiting, after, command);
}

static int send_now(struct link *link, struct link_command *command, int argc, const char **argv, const size_t *lengths)
{
	CLEANUP(free_ptr) char *text = NULL;
	size_t len = 0;
	if (resp_command(argc, argv, lengths, &text, &len) < 0)
		return -ENOMEM;
	if (redisAsyncFormattedCommand(link->dial.context, on_reply, command, text, len) != REDIS_OK)
		return LINK_E_DOWN;
	command->link = link;
	command->late = false;
	if (!command->sent_us) {
		command->sent_us = clock_mono_us();
		command->deadline_us = command->sent_us + (uint64_t)link->options.timeout_ms * 1000;
	}
	insert(link, command);
	if (link->waiting == command)
		arm_deadline(link);
	return 0;
}

int link_send(struct link *link, struct link_command *command, int argc, const char **argv, const size_t *lengths)
{
	if (!link->ready || link->tripped)
		return LINK_E_DOWN;
	return send_now(link, command, argc, argv, lengths);
}

void link_flush(struct link *link)
{
	if (link->ready)
		redis_poll_flush(link->dial.context);
}

/* --- probes ----------------------------------------------------------------- */

static void probe(struct link *link);

static void on_probe(struct link_command *command, enum link_event event, const struct redisReply *reply)
{
	struct link *link = CONTAINER_OF(command, struct link, probe);
	if (event != LINK_REPLY || !link->ready || reply->type != REDIS_REPLY_STATUS) {
		tell(link);
		return;
	}
	link->silent = 0;
	if (command->late) {
		/* It is awake again but this says nothing about now: ask once more. */
		probe(link);
	} else {
		link->tripped = false;
		link->failures = 0;
		recovered(link);
	}
	tell(link);
}

static void probe(struct link *link)
{
	static const char *const ping[] = {"PING"};
	static const size_t length[] = {4};
	if (link->probe.link) {
		if (++link->silent >= SILENT_PROBES) {
			drop(link, "the connection answers nothing");
			return;
		}
	} else {
		link->probe = (struct link_command){.event = on_probe, .probe = true};
		(void)send_now(link, &link->probe, 1, (const char **)(uintptr_t)ping, length);
	}
	arm_probe(link);
	tell(link);
}

/* --- the connection --------------------------------------------------------- */

static void on_ready(void *ctx)
{
	struct link *link = ctx;
	link->ready = true;
	recovered(link);
	arm_probe(link);
	tell(link);
}

static void on_ended(void *ctx, const char *reason)
{
	struct link *link = ctx;
	complain(link, reason);
	link->ready = link->tripped = false;
	link->failures = link->silent = 0;
	uint64_t ms = RETRY_MIN_MS << (link->attempt < 4 ? link->attempt : 4);
	link->attempt++;
	wait_for(link, jittered(ms < RETRY_MAX_MS ? ms : RETRY_MAX_MS));
	tell(link);
}

static void on_wait(uv_timer_t *timer)
{
	struct link *link = timer->data;
	if (link->ready)
		probe(link);
	else if (link->dial.phase == DIAL_IDLE)
		dial_start(&link->dial, link->attempt);
}

/* --- life ------------------------------------------------------------------- */

static void release(struct link *link)
{
	if (--link->handles)
		return;
	void (*on_freed)(void *) = link->on_freed;
	void *ctx = link->freed_ctx;
	free(link);
	if (on_freed)
		on_freed(ctx);
}

static void on_dial_closed(void *ctx)
{
	release(ctx);
}

static void on_timer_closed(uv_handle_t *handle)
{
	release(handle->data);
}

struct link *link_new(const struct link_options *options)
{
	struct link *link = calloc(1, sizeof *link);
	if (!link)
		return NULL;
	struct dial_events events = {.on_ready = on_ready, .on_ended = on_ended, .on_closed = on_dial_closed, .ctx = link};
	if (dial_init(&link->dial, options->loop, options->url, &events) < 0) {
		free(link);
		return NULL;
	}
	link->options = *options;
	link->options.url = (struct slice){0};
	link->told = LINK_BREAKER_OPEN;
	(void)uv_timer_init(options->loop, &link->wait);
	(void)uv_timer_init(options->loop, &link->deadline);
	link->wait.data = link->deadline.data = link;
	wait_for(link, 0);
	return link;
}

void link_free(struct link *link, void (*on_freed)(void *ctx), void *ctx)
{
	link->on_freed = on_freed;
	link->freed_ctx = ctx;
	link->closed = true;
	link->ready = false;
	link->handles = 3;
	dial_close(&link->dial);
	uv_close((uv_handle_t *)&link->wait, on_timer_closed);
	uv_close((uv_handle_t *)&link->deadline, on_timer_closed);
}
