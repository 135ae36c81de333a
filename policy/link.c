#include "policy/link.h"

#include "gateway/base/clock.h"
#include "gateway/base/id.h"
#include "gateway/base/log.h"
#include "policy/redis_poll.h"
#include "policy/redis_tls.h"
#include "policy/redis_url.h"

#include <hiredis/async.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <utlist.h>

#define CONNECT_MS    100
#define GREETING_MS   500
#define RETRY_MIN_MS  50
#define RETRY_MAX_MS  500
#define PROBE_MS      500
#define HEARTBEAT_MS  5000 /* an idle connection that died is noticed before the next caller pays for it */
#define FAILURES_MAX  5
#define SILENT_PROBES 4 /* unanswered for this many probe intervals: the connection is given up */

enum phase {
	PHASE_WAITING, /* for the next attempt */
	PHASE_RESOLVING,
	PHASE_CONNECTING,
	PHASE_GREETING,
	PHASE_READY,
	PHASE_DROPPING, /* hiredis is told to free the context, or is at it */
	PHASE_CLOSED,
};

struct link {
	struct link_options options;
	struct redis_url url;
	struct ssl_ctx_st *tls;
	enum phase phase;
	redisAsyncContext *context;
	uv_timer_t wait;     /* of the phase: next attempt, connect, greeting, next probe */
	uv_timer_t deadline; /* of the first command in `waiting` */
	uv_getaddrinfo_t resolve;
	struct link_command *waiting; /* in time so far, by deadline */
	struct link_command probe;
	unsigned attempt; /* since the last good answer */
	unsigned failures;
	unsigned silent;
	bool tripped;
	bool complained;
	enum link_breaker told;
	unsigned handles; /* libuv still holds */
	void (*on_freed)(void *ctx);
	void *freed_ctx;
};

static void on_wait(uv_timer_t *timer);
static void begin(struct link *link);

/* --- state ------------------------------------------------------------------ */

enum link_breaker link_breaker(const struct link *link)
{
	if (link->phase == PHASE_READY)
		return !link->tripped ? LINK_BREAKER_CLOSED : link->probe.link ? LINK_BREAKER_HALF_OPEN : LINK_BREAKER_OPEN;
	return link->phase == PHASE_GREETING ? LINK_BREAKER_HALF_OPEN : LINK_BREAKER_OPEN;
}

static void tell(struct link *link)
{
	enum link_breaker now = link_breaker(link);
	if (now == link->told || link->phase == PHASE_CLOSED)
		return;
	link->told = now;
	if (link->options.on_state)
		link->options.on_state(link->options.ctx, now);
}

/* One line when it goes, one when it is back; not one an attempt. */
static void complain(struct link *link, const char *reason)
{
	if (!link->complained && link->phase != PHASE_CLOSED)
		log_warning("redis: %s", reason);
	link->complained = true;
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
	if (link->phase != PHASE_CLOSED)
		(void)uv_timer_start(&link->wait, on_wait, ms, 0);
}

static void arm_probe(struct link *link)
{
	wait_for(link, jittered(link->tripped || link->failures || link->silent ? PROBE_MS : HEARTBEAT_MS));
}

static void retry_later(struct link *link)
{
	if (link->phase == PHASE_CLOSED)
		return;
	link->phase = PHASE_WAITING;
	uint64_t ms = RETRY_MIN_MS << (link->attempt < 4 ? link->attempt : 4);
	link->attempt++;
	wait_for(link, jittered(ms < RETRY_MAX_MS ? ms : RETRY_MAX_MS));
	tell(link);
}

/* Reset instead of a clean end: what Redis has not received yet must not run after its caller was told "unavailable". */
static void drop(struct link *link, const char *reason)
{
	complain(link, reason);
	if (!link->context || link->phase == PHASE_DROPPING)
		return;
	struct linger abort = {.l_onoff = 1, .l_linger = 0};
	(void)setsockopt(link->context->c.fd, SOL_SOCKET, SO_LINGER, &abort, sizeof abort);
	if (link->phase != PHASE_CLOSED)
		link->phase = PHASE_DROPPING;
	redisAsyncFree(link->context);
}

static void failed(struct link *link)
{
	link->failures++;
	bool trips = !link->tripped && link->failures >= FAILURES_MAX;
	if (trips) {
		link->tripped = true;
		complain(link, "5 failures in a row, asking it no more until it answers a probe");
	}
	if ((trips || link->failures == 1) && link->phase == PHASE_READY)
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
	if (link->phase == PHASE_CLOSED)
		return;
	if (!link->waiting) {
		(void)uv_timer_stop(&link->deadline);
		return;
	}
	uint64_t now = clock_mono_us(), due = link->waiting->deadline_us;
	(void)uv_timer_start(&link->deadline, on_deadline, due > now ? (due - now + 999) / 1000 : 0, 0);
}

static void on_deadline(uv_timer_t *timer)
{
	struct link *link = timer->data;
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
	if (!broken) {
		if (!command->late)
			succeeded(link);
		return;
	}
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
	if (link->phase == PHASE_READY)
		link->phase = PHASE_DROPPING;
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
	if (redisAsyncCommandArgv(link->context, on_reply, command, argc, argv, lengths) != REDIS_OK)
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
	if (link->phase != PHASE_READY || link->tripped)
		return LINK_E_DOWN;
	return send_now(link, command, argc, argv, lengths);
}

/* --- probes ----------------------------------------------------------------- */

static void probe(struct link *link);

static void on_probe(struct link_command *command, enum link_event event, const struct redisReply *reply)
{
	struct link *link = CONTAINER_OF(command, struct link, probe);
	if (event != LINK_REPLY || link->phase != PHASE_READY || reply->type != REDIS_REPLY_STATUS) {
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
		if (link->complained)
			log_info("redis: answers again");
		link->complained = false;
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

/* --- connecting ------------------------------------------------------------- */

static void on_gone(void *ctx)
{
	struct link *link = ctx;
	const redisAsyncContext *context = link->context;
	complain(link, context->err ? context->errstr : "the connection ended");
	link->context = NULL;
	link->tripped = false;
	link->failures = link->silent = 0;
	retry_later(link);
}

static void release(struct link *link)
{
	if (--link->handles || link->phase != PHASE_CLOSED)
		return;
	void (*on_freed)(void *) = link->on_freed;
	void *ctx = link->freed_ctx;
	redis_tls_free(link->tls);
	redis_url_wipe(&link->url);
	free(link);
	if (on_freed)
		on_freed(ctx);
}

static void on_poll_closed(void *ctx)
{
	release(ctx);
}

static void on_connected(const redisAsyncContext *context, int status)
{
	struct link *link = context->data;
	if (status != REDIS_OK || link->phase != PHASE_CONNECTING)
		return;
	link->phase = PHASE_GREETING;
	wait_for(link, GREETING_MS);
	tell(link);
}

/* For AUTH and SELECT only a refusal matters; PING comes last and opens the link. */
static void on_greeted(redisAsyncContext *context, void *answer, void *data)
{
	struct link *link = context->data;
	const redisReply *reply = answer;
	if (!reply || link->phase != PHASE_GREETING)
		return;
	if (reply->type == REDIS_REPLY_ERROR) {
		char reason[160];
		snprintf(reason, sizeof reason, "it refuses us: %.*s", (int)(reply->len < 120 ? reply->len : 120), reply->str);
		drop(link, reason);
		return;
	}
	if (!data)
		return;
	link->phase = PHASE_READY;
	if (link->complained)
		log_info("redis: connected");
	link->complained = false;
	arm_probe(link);
	tell(link);
}

static int greet(struct link *link)
{
	const struct redis_url *url = &link->url;
	redisAsyncContext *context = link->context;
	int r = REDIS_OK;
	if (url->user[0])
		r = redisAsyncCommand(context, on_greeted, NULL, "AUTH %s %s", url->user, url->password);
	else if (url->password[0])
		r = redisAsyncCommand(context, on_greeted, NULL, "AUTH %s", url->password);
	if (r == REDIS_OK && url->db)
		r = redisAsyncCommand(context, on_greeted, NULL, "SELECT %u", url->db);
	if (r == REDIS_OK)
		r = redisAsyncCommand(context, on_greeted, link, "PING");
	return r;
}

static void connect_to(struct link *link, redisOptions *options)
{
	redisAsyncContext *context = redisAsyncConnectWithOptions(options);
	struct redis_poll_events events = {.on_gone = on_gone, .on_closed = on_poll_closed, .ctx = link};
	if (!context || context->err || redis_poll_attach(context, link->options.loop, &events) < 0) {
		complain(link, context && context->err ? context->errstr : "no memory for a connection");
		redisAsyncFree(context);
		retry_later(link);
		return;
	}
	link->handles++;
	link->context = context;
	link->phase = PHASE_CONNECTING;
	context->data = link;
	wait_for(link, CONNECT_MS);
	bool started = redisAsyncSetConnectCallback(context, on_connected) == REDIS_OK;
	if (started && link->url.tls)
		started = redis_tls_start(link->tls, &context->c, link->url.host) == 0;
	if (!started || greet(link) != REDIS_OK)
		drop(link, context->c.errstr[0] ? context->c.errstr : "no memory for a connection");
}

/* Every attempt takes the next address, so one that is dead does not keep us from the others. */
static const struct addrinfo *pick(const struct addrinfo *list, unsigned attempt)
{
	unsigned count = 0;
	for (const struct addrinfo *a = list; a; a = a->ai_next)
		count++;
	for (unsigned i = attempt % count; i; i--)
		list = list->ai_next;
	return list;
}

static void connect_to_address(struct link *link, const struct addrinfo *address)
{
	char ip[NI_MAXHOST];
	if (getnameinfo(address->ai_addr, address->ai_addrlen, ip, sizeof ip, NULL, 0, NI_NUMERICHOST) != 0) {
		retry_later(link);
		return;
	}
	redisOptions options = {0};
	REDIS_OPTIONS_SET_TCP(&options, ip, link->url.port);
	options.options |= address->ai_family == AF_INET6 ? REDIS_OPT_PREFER_IPV6 : REDIS_OPT_PREFER_IPV4;
	connect_to(link, &options);
}

static void on_resolved(uv_getaddrinfo_t *resolve, int status, struct addrinfo *list)
{
	struct link *link = resolve->data;
	if (link->phase == PHASE_RESOLVING && status == 0 && list) {
		connect_to_address(link, pick(list, link->attempt));
	} else if (link->phase == PHASE_RESOLVING) {
		complain(link, "its name cannot be resolved");
		retry_later(link);
	}
	uv_freeaddrinfo(list);
	release(link);
}

static void begin(struct link *link)
{
	if (link->url.path[0]) {
		redisOptions options = {0};
		REDIS_OPTIONS_SET_UNIX(&options, link->url.path);
		connect_to(link, &options);
		return;
	}
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
	link->resolve.data = link;
	if (uv_getaddrinfo(link->options.loop, &link->resolve, on_resolved, link->url.host, NULL, &hints) < 0) {
		retry_later(link);
		return;
	}
	link->handles++;
	link->phase = PHASE_RESOLVING;
}

static void on_wait(uv_timer_t *timer)
{
	struct link *link = timer->data;
	if (link->phase == PHASE_WAITING)
		begin(link);
	else if (link->phase == PHASE_CONNECTING)
		drop(link, "no connection in time");
	else if (link->phase == PHASE_GREETING)
		drop(link, "no answer to the login in time");
	else if (link->phase == PHASE_READY)
		probe(link);
}

/* --- life ------------------------------------------------------------------- */

struct link *link_new(const struct link_options *options)
{
	struct link *link = calloc(1, sizeof *link);
	if (!link)
		return NULL;
	const char *why = NULL;
	if (redis_url_parse(options->url, &link->url, &why) < 0) {
		log_error("redis: the URL is not usable: %s", why);
		free(link);
		return NULL;
	}
	if (link->url.tls && !(link->tls = redis_tls_new())) {
		redis_url_wipe(&link->url);
		free(link);
		return NULL;
	}
	link->options = *options;
	link->options.url = (struct slice){0};
	link->told = LINK_BREAKER_OPEN;
	(void)uv_timer_init(options->loop, &link->wait);
	(void)uv_timer_init(options->loop, &link->deadline);
	link->wait.data = link->deadline.data = link;
	link->handles = 2;
	wait_for(link, 0);
	return link;
}

static void on_timer_closed(uv_handle_t *handle)
{
	release(handle->data);
}

void link_free(struct link *link, void (*on_freed)(void *ctx), void *ctx)
{
	link->on_freed = on_freed;
	link->freed_ctx = ctx;
	if (link->phase == PHASE_RESOLVING)
		(void)uv_cancel((uv_req_t *)&link->resolve);
	link->phase = PHASE_CLOSED;
	drop(link, "");
	uv_close((uv_handle_t *)&link->wait, on_timer_closed);
	uv_close((uv_handle_t *)&link->deadline, on_timer_closed);
}
