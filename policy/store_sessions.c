#include "policy/store_parts.h"

#include "policy/keys.h"

#include <hiredis/hiredis.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define CLOSED_MS 3000 /* a command is killed before its session's Sprite goes */
#define TRIES     20   /* any command in a session of the token is a change */

/* <Sprite>:<lease of its command>:<last used>:<created>:<fresh> */
static bool read_session(struct slice name, struct slice text, struct store_session *session)
{
	struct slice f[5];
	size_t n = 0;
	while (n < ARRAY_LEN(f) && slice_next(&text, ':', &f[n]))
		n++;
	return n == ARRAY_LEN(f) && store_copy_text(name, session->name, sizeof session->name) &&
	       store_copy_text(f[0], session->sprite, sizeof session->sprite) &&
	       store_copy_text(f[1], session->lease, sizeof session->lease) && slice_to_u64(f[2], UINT64_MAX, &session->used_ms) == 0 &&
	       slice_to_u64(f[3], UINT64_MAX, &session->created_ms) == 0;
}

/* What session_of() of caller.lua says: one whose command has a lease, or whose end has not come. */
static bool goes_on(struct store_session *session, const struct store_lease *leases, size_t count, uint64_t now_ms)
{
	bool busy = session->lease[0] && store_find_lease(leases, count, session->lease);
	if (!busy)
		session->lease[0] = '\0';
	return busy || session->end_ms > now_ms;
}

static void set_ends(const redisReply *ends, struct store_session *sessions, size_t count)
{
	for (size_t i = 0; i + 1 < ends->elements; i += 2)
		for (size_t j = 0; j < count; j++)
			if (slice_equal(store_text(ends->element[i]), slice_str(sessions[j].sprite)))
				sessions[j].end_ms = store_number(ends->element[i + 1]);
}

static size_t keep_those_that_go_on(struct store_session *sessions, size_t count, const struct store_lease *leases, size_t held,
				    uint64_t now_ms)
{
	size_t kept = 0;
	for (size_t i = 0; i < count; i++)
		if (goes_on(&sessions[i], leases, held, now_ms))
			sessions[kept++] = sessions[i];
	return kept;
}

static int by_session_name(const void *a, const void *b)
{
	return strcmp(((const struct store_session *)a)->name, ((const struct store_session *)b)->name);
}

int store_sessions(struct store *store, struct slice kid, struct store_session **sessions, size_t *count)
{
	CLEANUP(redis_reply_free) redisReply *reply = NULL, *ends = NULL;
	CLEANUP(free_ptr) struct store_lease *leases = NULL;
	char key[STORE_KEY_MAX];
	struct slice all[] = {SLICE("HGETALL"), store_key(key, KEY_SESSIONS, kid)};
	struct slice by_end[] = {SLICE("ZRANGE"), SLICE(KEY_SESSION_ENDS), SLICE("0"), SLICE("-1"), SLICE("WITHSCORES")};
	uint64_t now_ms;
	size_t held = 0, found = 0;
	int r = store_now(store, &now_ms);
	r = r ? r : store_ask(store, all, ARRAY_LEN(all), &reply);
	r = r ? r : store_ask(store, by_end, ARRAY_LEN(by_end), &ends);
	r = r ? r : store_leases(store, kid, &leases, &held);
	if (r)
		return r;
	if (reply->type != REDIS_REPLY_ARRAY || ends->type != REDIS_REPLY_ARRAY)
		return store_fail(store, "what Redis has of sessions cannot be read");
	struct store_session *list = calloc(reply->elements / 2 + 1, sizeof *list);
	if (!list)
		return store_fail(store, "out of memory");
	for (size_t i = 0; i + 1 < reply->elements; i += 2) {
		snprintf(list[found].kid, sizeof list[found].kid, "%.*s", SLICE_FMT(kid));
		if (read_session(store_text(reply->element[i]), store_text(reply->element[i + 1]), &list[found]))
			found++;
	}
	set_ends(ends, list, found);
	*count = keep_those_that_go_on(list, found, leases, held, now_ms);
	qsort(list, *count, sizeof *list, by_session_name);
	*sessions = list;
	return 0;
}

/* As close_session() of admit.lua writes it. */
static int put_closed(struct store *store, const struct store_session *session, struct slice scope, uint64_t now_ms)
{
	char of_kid[STORE_KEY_MAX], at[24];
	struct slice kid = slice_str(session->kid), lease = slice_str(session->lease), sprite = slice_str(session->sprite);
	snprintf(at, sizeof at, "%" PRIu64, lease.len ? now_ms + CLOSED_MS : now_ms);
	struct slice forget[] = {SLICE("HDEL"), store_key(of_kid, KEY_SESSIONS, kid), slice_str(session->name)};
	struct slice disown[] = {SLICE("HSET"), SLICE(KEY_SESSION_OF), sprite, scope};
	struct slice due[] = {SLICE("ZADD"), SLICE(KEY_SESSION_ENDS), slice_str(at), sprite};
	int r = store_begin(store);
	r = r ? r : store_tell(store, forget, ARRAY_LEN(forget));
	r = r || !lease.len ? r : store_mark(store, lease);
	r = r || !sprite.len ? r : store_tell(store, disown, ARRAY_LEN(disown));
	r = r || !sprite.len ? r : store_tell(store, due, ARRAY_LEN(due));
	r = r ? r : store_audit(store, "session-close", "kid", kid, (struct slice){0});
	return r ? r : store_commit(store);
}

/* Nothing is to be written after a WATCH. */
static void forget_watch(struct store *store)
{
	if (store_begin(store) == 0 && store_commit(store) != 0)
		(void)store_fail(store, "it has ended");
}

/* A transaction that was begun must not take in what is asked next; a command in it was refused, so nothing of it is done. */
static void abandon(struct store *store)
{
	char reason[sizeof store->redis.reason];
	snprintf(reason, sizeof reason, "%s", store_reason(store));
	if (store_commit(store) != 0)
		(void)store_fail(store, reason);
}

/* A name may have been taken anew; a session may have got its Sprite. */
static bool is_same(const struct store_session *now, const struct store_session *before)
{
	return before->sprite[0] ? strcmp(now->sprite, before->sprite) == 0 : now->created_ms == before->created_ms;
}

static int try_to_close(struct store *store, const struct store_session *session)
{
	CLEANUP(redis_reply_free) redisReply *there = NULL, *whose = NULL;
	struct store_session now = *session;
	char key[STORE_KEY_MAX];
	uint64_t now_ms;
	struct slice watch[] = {SLICE("WATCH"), store_key(key, KEY_SESSIONS, slice_str(session->kid))};
	struct slice read[] = {SLICE("HMGET"), watch[1], slice_str(session->name)};
	int r = store_tell(store, watch, ARRAY_LEN(watch));
	r = r ? r : store_ask(store, read, ARRAY_LEN(read), &there);
	if (r)
		return r;
	bool same = there->type == REDIS_REPLY_ARRAY && there->elements == 1 &&
		    read_session(slice_str(session->name), store_text(there->element[0]), &now) && is_same(&now, session);
	if (!same) {
		forget_watch(store);
		return STORE_E_MISSING;
	}
	struct slice owner[] = {SLICE("HMGET"), SLICE(KEY_SESSION_OF), slice_str(now.sprite)};
	r = store_ask(store, owner, ARRAY_LEN(owner), &whose);
	r = r ? r : store_now(store, &now_ms);
	if (r == 0 && (whose->type != REDIS_REPLY_ARRAY || whose->elements != 1))
		r = store_fail(store, "HMGET has an unexpected answer");
	if (r)
		return r;
	struct slice rest = store_text(whose->element[0]), scope = {0};
	(void)slice_next(&rest, ' ', &scope);
	return put_closed(store, &now, scope, now_ms);
}

int store_session_close(struct store *store, const struct store_session *session)
{
	int r = STORE_E_CHANGED;
	for (unsigned i = 0; r == STORE_E_CHANGED && i < TRIES; i++)
		r = try_to_close(store, session);
	if (r == STORE_E_REDIS)
		abandon(store);
	return r;
}
