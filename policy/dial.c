#include "policy/dial.h"

#include "gateway/base/log.h"
#include "policy/redis_poll.h"
#include "policy/redis_tls.h"

#include <errno.h>
#include <hiredis/async.h>
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>

#define CONNECT_MS  100
#define GREETING_MS 500

static void end(struct dial *dial, const char *reason)
{
	if (dial->phase == DIAL_CLOSED)
		return;
	dial->phase = DIAL_IDLE;
	(void)uv_timer_stop(&dial->deadline);
	dial->events.on_ended(dial->events.ctx, reason);
}

static void release(struct dial *dial)
{
	if (--dial->handles || dial->phase != DIAL_CLOSED)
		return;
	redis_tls_free(dial->tls);
	redis_url_wipe(&dial->url);
	dial->events.on_closed(dial->events.ctx);
}

static void remember(struct dial *dial, const char *reason)
{
	if (!dial->reason[0])
		snprintf(dial->reason, sizeof dial->reason, "%s", reason);
}

static void abort_connection(struct dial *dial)
{
	/* Reset instead of a clean end: what Redis has not received yet must not run after its caller was told "unavailable". */
	struct linger now = {.l_onoff = 1, .l_linger = 0};
	(void)setsockopt(dial->context->c.fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
	redisAsyncFree(dial->context);
}

void dial_drop(struct dial *dial, const char *reason)
{
	if (!dial->context || dial->phase == DIAL_ENDING || dial->phase == DIAL_CLOSED)
		return;
	remember(dial, reason);
	dial->phase = DIAL_ENDING;
	abort_connection(dial);
}

static void on_deadline(uv_timer_t *timer)
{
	struct dial *dial = timer->data;
	dial_drop(dial, dial->phase == DIAL_CONNECTING ? "no connection in time" : "no answer to the login in time");
}

/* --- logging in ------------------------------------------------------------- */

static void on_connected(const redisAsyncContext *context, int status)
{
	struct dial *dial = context->data;
	if (status != REDIS_OK || dial->phase != DIAL_CONNECTING)
		return;
	dial->phase = DIAL_GREETING;
	(void)uv_timer_start(&dial->deadline, on_deadline, GREETING_MS, 0);
}

/* Of AUTH and SELECT only a refusal matters; PING comes last and has `data` set. */
static void on_greeted(redisAsyncContext *context, void *answer, void *data)
{
	struct dial *dial = context->data;
	const redisReply *reply = answer;
	char reason[sizeof dial->reason];
	if (!reply || dial->phase != DIAL_GREETING)
		return;
	if (reply->type == REDIS_REPLY_ERROR) {
		snprintf(reason, sizeof reason, "it refuses us: %.*s", (int)(reply->len < 120 ? reply->len : 120), reply->str);
		dial_drop(dial, reason);
	} else if (data) {
		dial->phase = DIAL_READY;
		(void)uv_timer_stop(&dial->deadline);
		dial->events.on_ready(dial->events.ctx);
	}
}

static bool greet(struct dial *dial)
{
	const struct redis_url *url = &dial->url;
	redisAsyncContext *context = dial->context;
	int r = REDIS_OK;
	if (url->user[0])
		r = redisAsyncCommand(context, on_greeted, NULL, "AUTH %s %s", url->user, url->password);
	else if (url->password[0])
		r = redisAsyncCommand(context, on_greeted, NULL, "AUTH %s", url->password);
	if (r == REDIS_OK && url->db)
		r = redisAsyncCommand(context, on_greeted, NULL, "SELECT %u", url->db);
	if (r == REDIS_OK)
		r = redisAsyncCommand(context, on_greeted, dial, "PING");
	return r == REDIS_OK;
}

/* --- connecting ------------------------------------------------------------- */

static void on_gone(void *ctx)
{
	struct dial *dial = ctx;
	remember(dial, dial->context->err ? dial->context->errstr : "the connection ended");
	dial->context = NULL;
	end(dial, dial->reason);
}

static void on_poll_closed(void *ctx)
{
	release(ctx);
}

static void connect_to(struct dial *dial, redisOptions *options)
{
	redisAsyncContext *context = redisAsyncConnectWithOptions(options);
	struct redis_poll_events events = {.on_gone = on_gone, .on_closed = on_poll_closed, .ctx = dial};
	if (!context || context->err || redis_poll_attach(context, dial->loop, &events) < 0) {
		remember(dial, context && context->err ? context->errstr : "no memory for a connection");
		redisAsyncFree(context);
		end(dial, dial->reason);
		return;
	}
	dial->handles++;
	dial->context = context;
	dial->phase = DIAL_CONNECTING;
	context->data = dial;
	(void)uv_timer_start(&dial->deadline, on_deadline, CONNECT_MS, 0);
	bool started = redisAsyncSetConnectCallback(context, on_connected) == REDIS_OK;
	if (started && dial->url.tls)
		started = redis_tls_start(dial->tls, &context->c, dial->url.host) == 0;
	if (!started || !greet(dial))
		dial_drop(dial, context->c.errstr[0] ? context->c.errstr : "no memory for a connection");
}

/* One address that is dead must not keep us from the others. */
static const struct addrinfo *pick(const struct addrinfo *list, unsigned attempt)
{
	unsigned count = 0;
	for (const struct addrinfo *a = list; a; a = a->ai_next)
		count++;
	for (unsigned i = attempt % count; i; i--)
		list = list->ai_next;
	return list;
}

static void connect_to_address(struct dial *dial, const struct addrinfo *address)
{
	char ip[NI_MAXHOST];
	if (getnameinfo(address->ai_addr, address->ai_addrlen, ip, sizeof ip, NULL, 0, NI_NUMERICHOST) != 0) {
		end(dial, "its name has an unusable address");
		return;
	}
	redisOptions options = {0};
	REDIS_OPTIONS_SET_TCP(&options, ip, dial->url.port);
	options.options |= address->ai_family == AF_INET6 ? REDIS_OPT_PREFER_IPV6 : REDIS_OPT_PREFER_IPV4;
	connect_to(dial, &options);
}

static void on_resolved(uv_getaddrinfo_t *resolve, int status, struct addrinfo *list)
{
	struct dial *dial = resolve->data;
	if (dial->phase == DIAL_RESOLVING && status == 0 && list)
		connect_to_address(dial, pick(list, dial->attempt));
	else if (dial->phase == DIAL_RESOLVING)
		end(dial, "its name cannot be resolved");
	uv_freeaddrinfo(list);
	release(dial);
}

static void resolve(struct dial *dial)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
	dial->resolve.data = dial;
	if (uv_getaddrinfo(dial->loop, &dial->resolve, on_resolved, dial->url.host, NULL, &hints) < 0) {
		end(dial, "its name cannot be resolved");
		return;
	}
	dial->handles++;
	dial->phase = DIAL_RESOLVING;
}

void dial_start(struct dial *dial, unsigned attempt)
{
	dial->attempt = attempt;
	dial->reason[0] = '\0';
	if (!dial->url.path[0]) {
		resolve(dial);
		return;
	}
	redisOptions options = {0};
	REDIS_OPTIONS_SET_UNIX(&options, dial->url.path);
	connect_to(dial, &options);
}

/* --- life ------------------------------------------------------------------- */

int dial_init(struct dial *dial, uv_loop_t *loop, struct slice url, const struct dial_events *events)
{
	*dial = (struct dial){.loop = loop, .events = *events};
	const char *why = NULL;
	if (redis_url_parse(url, &dial->url, &why) < 0) {
		log_error("redis: the URL is not usable: %s", why);
		return -EINVAL;
	}
	if (dial->url.tls && !(dial->tls = redis_tls_new())) {
		redis_url_wipe(&dial->url);
		return -EIO;
	}
	(void)uv_timer_init(loop, &dial->deadline);
	dial->deadline.data = dial;
	dial->handles = 1;
	return 0;
}

static void on_timer_closed(uv_handle_t *handle)
{
	release(handle->data);
}

void dial_close(struct dial *dial)
{
	if (dial->phase == DIAL_RESOLVING)
		(void)uv_cancel((uv_req_t *)&dial->resolve);
	dial->phase = DIAL_CLOSED;
	if (dial->context)
		abort_connection(dial);
	uv_close((uv_handle_t *)&dial->deadline, on_timer_closed);
}
