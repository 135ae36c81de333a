#include "policy/redis_blocking.h"

#include "policy/redis_tls.h"

#include <hiredis/hiredis.h>
#include <stdio.h>
#include <sys/time.h>

#define TIMEOUT_S 2

void redis_reply_free(struct redisReply **reply)
{
	if (*reply)
		freeReplyObject(*reply);
}

int redis_blocking_fail(struct redis_blocking *redis, const char *reason)
{
	snprintf(redis->reason, sizeof redis->reason, "%s", reason);
	return REDIS_BLOCKING_E_FAILED;
}

/* hiredis: after an error the context is of no use. */
static int lost(struct redis_blocking *redis)
{
	const redisContext *context = redis->context;
	int r = redis_blocking_fail(redis, context && context->errstr[0] ? context->errstr : "no memory for a connection");
	redisFree(redis->context);
	redis->context = NULL;
	return r;
}

static int send_and_wait(struct redis_blocking *redis, const struct slice *args, size_t count, redisReply **reply)
{
	const char *argv[REDIS_BLOCKING_ARGS_MAX];
	size_t lengths[REDIS_BLOCKING_ARGS_MAX];
	if (count > REDIS_BLOCKING_ARGS_MAX)
		return redis_blocking_fail(redis, "too many arguments");
	for (size_t i = 0; i < count; i++) {
		argv[i] = args[i].len ? args[i].data : "";
		lengths[i] = args[i].len;
	}
	CLEANUP(redis_reply_free) redisReply *answer = redisCommandArgv(redis->context, (int)count, argv, lengths);
	if (!answer)
		return lost(redis);
	if (answer->type == REDIS_REPLY_ERROR)
		return redis_blocking_fail(redis, answer->str);
	*reply = TAKE(answer);
	return 0;
}

static int connect_socket(struct redis_blocking *redis)
{
	struct timeval timeout = {.tv_sec = TIMEOUT_S};
	const struct redis_url *url = &redis->url;
	redis->context =
		url->path[0] ? redisConnectUnixWithTimeout(url->path, timeout) : redisConnectWithTimeout(url->host, url->port, timeout);
	if (!redis->context || redis->context->err || redisSetTimeout(redis->context, timeout) != REDIS_OK)
		return lost(redis);
	if (!url->tls)
		return 0;
	if (!redis->tls)
		redis->tls = redis_tls_new();
	return redis->tls && redis_tls_start(redis->tls, redis->context, url->host) == 0 ? 0 : lost(redis);
}

static int log_in(struct redis_blocking *redis)
{
	const struct redis_url *url = &redis->url;
	CLEANUP(redis_reply_free) redisReply *authenticated = NULL, *selected = NULL;
	char db[12];
	snprintf(db, sizeof db, "%u", url->db);
	struct slice with_user[] = {SLICE("AUTH"), slice_str(url->user), slice_str(url->password)};
	struct slice without[] = {SLICE("AUTH"), slice_str(url->password)};
	struct slice choose[] = {SLICE("SELECT"), slice_str(db)};
	int r = 0;
	if (url->user[0])
		r = send_and_wait(redis, with_user, 3, &authenticated);
	else if (url->password[0])
		r = send_and_wait(redis, without, 2, &authenticated);
	if (r == 0 && url->db)
		r = send_and_wait(redis, choose, 2, &selected);
	return r;
}

void redis_blocking_init(struct redis_blocking *redis, struct slice url)
{
	const char *why = NULL;
	*redis = (struct redis_blocking){0};
	redis->usable = redis_url_parse(url, &redis->url, &why) == 0;
	if (!redis->usable)
		snprintf(redis->reason, sizeof redis->reason, "the URL is not usable: %s", why);
}

void redis_blocking_deinit(struct redis_blocking *redis)
{
	if (redis->context)
		redisFree(redis->context);
	redis_tls_free(redis->tls);
	redis_url_wipe(&redis->url);
}

int redis_blocking_ask(struct redis_blocking *redis, const struct slice *args, size_t count, struct redisReply **reply)
{
	if (!redis->usable)
		return REDIS_BLOCKING_E_FAILED;
	if (!redis->context) {
		int r = connect_socket(redis);
		if (r)
			return r;
		r = log_in(redis);
		if (r) {
			/* Else the next command would run in the wrong database, or as nobody. */
			redisFree(redis->context);
			redis->context = NULL;
			return r;
		}
	}
	return send_and_wait(redis, args, count, reply);
}

int redis_blocking_tell(struct redis_blocking *redis, const struct slice *args, size_t count)
{
	CLEANUP(redis_reply_free) redisReply *reply = NULL;
	return redis_blocking_ask(redis, args, count, &reply);
}
