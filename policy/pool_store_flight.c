#include "policy/pool_store_parts.h"

#include "gateway/base/clock.h"
#include "gateway/base/log.h"
#include "policy/script.h"

#include <errno.h>
#include <hiredis/hiredis.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <utlist.h>

#define TICK_MS     100
#define RETRY_US    UINT64_C(500000) /* after an error of Redis */
#define MEMBERS_MAX 25               /* records in one round trip; the script takes no more */
#define NAMES_MAX   50               /* names in one round trip */

static const char *const op_names[] = {[JOIN] = "join", [BEAT] = "beat",   [RESERVE] = "reserve", [NOTE] = "note",       [TAKE] = "take",
				       [RUN] = "run",   [ADOPT] = "adopt", [SWEEP] = "sweep",     [RESTORE] = "restore", [LEAVE] = "leave"};

/* --- items ------------------------------------------------------------------ */

void pool_store_drop_list(struct item **list)
{
	struct item *item, *next;
	DL_FOREACH_SAFE (*list, item, next) {
		DL_DELETE(*list, item);
		free(item);
	}
}

void pool_store_drop_notes(struct pool_store *store)
{
	struct item *item, *next;
	DL_FOREACH_SAFE (store->queue, item, next) {
		if (item->op == NOTE) {
			DL_DELETE(store->queue, item);
			free(item);
		}
	}
}

static void finish(struct item *item, const struct pool_store_result *result)
{
	pool_store_done done = TAKE(item->done);
	if (done)
		done(item->ctx, result);
}

static void give_up(struct item *item, const char *word)
{
	finish(item, &(struct pool_store_result){.reply = {.code = POOL_REPLY_LOST, .word = word}});
}

/* --- sending ---------------------------------------------------------------- */

static size_t entries_per_call(enum op op)
{
	return op == SWEEP ? NAMES_MAX : MEMBERS_MAX;
}

static size_t add_entries(struct slice *args, size_t count, struct item *item)
{
	size_t left = item->count - item->at, most = entries_per_call(item->op);
	item->sent = left < most ? left : most;
	for (size_t i = 0; i < item->sent; i++)
		args[count++] = slice_str(item->entries[item->at + i]);
	return count;
}

/* Everything is made anew from the items, so a call that is repeated is the same. */
static int send_flight(struct pool_store *store, bool by_text)
{
	struct slice args[SCRIPT_ARGS_MAX];
	struct item *item = store->flight;
	char turn[24], first[24];
	snprintf(turn, sizeof turn, "%" PRIu64, store->turn);
	size_t count = 0;
	args[count++] = slice_str(store->key);
	args[count++] = slice_str(op_names[item->op]);
	args[count++] = slice_str(store->incarnation);
	args[count++] = slice_str(store->session);
	args[count++] = slice_str(turn);
	if (item->op == SWEEP) {
		snprintf(first, sizeof first, "%" PRIu64, item->first_turn);
		args[count++] = slice_str(first);
		args[count++] = item->count - item->at <= NAMES_MAX ? SLICE("last") : SLICE("more");
	}
	for (size_t i = 0; i < item->word_count; i++)
		args[count++] = slice_str(item->words[i]);
	if (item->op == NOTE)
		DL_FOREACH (store->flight, item)
			count = add_entries(args, count, item);
	else
		count = add_entries(args, count, item);
	int r = script_send(store->link, &store->command, &script_pool, by_text, args, count);
	store->sent = r == 0;
	return r;
}

/* Notes that follow each other go together. */
static void take_off(struct pool_store *store)
{
	bool notes = store->queue->op == NOTE;
	size_t count = 0;
	do {
		struct item *item = store->queue;
		DL_DELETE(store->queue, item);
		DL_APPEND(store->flight, item);
		count++;
	} while (notes && store->queue && store->queue->op == NOTE && count < MEMBERS_MAX);
	store->turn++;
	store->flight->first_turn = store->turn;
}

void pool_store_pump(struct pool_store *store)
{
	if (store->closed || store->sent || clock_mono_us() < store->hold_us || link_breaker(store->link) != LINK_BREAKER_CLOSED)
		return;
	if (!store->flight && !store->queue)
		return;
	if (!store->flight)
		take_off(store);
	store->command.sent_us = 0;
	(void)!send_flight(store, false); /* it stays in `flight` until it can be sent */
}

/* --- answers ---------------------------------------------------------------- */

static void tell_revoked(struct pool_store *store, const char *name)
{
	if (store->events.revoked)
		store->events.revoked(store->events.ctx, name);
}

static void tell_ended(struct pool_store *store, enum pool_reply_code code)
{
	void (*tell)(void *) = code == POOL_REPLY_FENCED ? store->events.fenced : store->events.flushed;
	pool_store_drop_notes(store);
	if (tell)
		tell(store->events.ctx);
}

/* A word for each entry; the names are those of the entries. Returns false when the answer makes no sense. */
static bool read_words(struct pool_store *store, struct item *items, const redisReply *reply, bool *absent)
{
	size_t i = 0, count = reply->elements - 1;
	struct item *item;
	DL_FOREACH (items, item) {
		for (size_t at = item->at; at < item->at + item->sent; at++) {
			enum pool_reply_word word;
			if (pool_reply_word(reply, i++, count, &word) < 0)
				return false;
			*absent = *absent || word == POOL_REPLY_ABSENT;
			if (word != POOL_REPLY_REVOKED)
				continue;
			char name[POOL_REPLY_NAME_MAX + 1];
			snprintf(name, sizeof name, "%.*s", (int)strcspn(item->entries[at], ":"), item->entries[at]);
			tell_revoked(store, name);
		}
	}
	return i == count;
}

static void on_noted(struct pool_store *store, struct item *notes, const redisReply *reply)
{
	struct pool_reply head;
	bool absent = false;
	int r = pool_reply_read(reply, &head);
	if (r == 0 && (head.code == POOL_REPLY_FENCED || head.code == POOL_REPLY_FLUSHED))
		tell_ended(store, head.code);
	else if (r < 0 || head.code != POOL_REPLY_OK || !read_words(store, notes, reply, &absent) || absent)
		store->lost = true;
	pool_store_drop_list(&notes);
}

static int read_revoked(struct pool_store *store, bool join, const redisReply *reply)
{
	for (size_t i = 0; i < pool_reply_revoked_count(reply, join); i++) {
		char name[POOL_REPLY_NAME_MAX + 1];
		int r = pool_reply_revoked(reply, join, i, name);
		if (r < 0)
			return r;
		tell_revoked(store, name);
	}
	return 0;
}

static int read_join(struct pool_store *store, const redisReply *reply, struct pool_fleet *fleet, bool *fresh)
{
	struct pool_joined joined;
	int r = pool_reply_join(reply, &joined, fleet);
	if (r < 0)
		return r;
	*fresh = joined.fresh || (store->incarnation[0] && strcmp(store->incarnation, joined.incarnation) != 0);
	memcpy(store->incarnation, joined.incarnation, sizeof store->incarnation);
	memcpy(store->session, joined.session, sizeof store->session);
	return read_revoked(store, true, reply);
}

/* All are looked at before the first is told. */
static int read_records(const struct item *item, const redisReply *reply)
{
	size_t count;
	struct pool_record record;
	int r = pool_reply_record_count(reply, &count);
	for (size_t i = 0; r == 0 && i < count; i++)
		r = pool_reply_record(reply, i, &record);
	for (size_t i = 0; r == 0 && item->done && i < count; i++) {
		r = pool_reply_record(reply, i, &record);
		item->found(item->ctx, &record);
	}
	return r;
}

static int read_struck(const struct item *item, const redisReply *reply)
{
	size_t count;
	char name[POOL_REPLY_NAME_MAX + 1];
	bool recorded;
	int r = pool_reply_struck_count(reply, &count);
	for (size_t i = 0; r == 0 && i < count; i++)
		r = pool_reply_struck(reply, i, name, &recorded);
	for (size_t i = 0; r == 0 && item->done && i < count; i++) {
		r = pool_reply_struck(reply, i, name, &recorded);
		item->struck(item->ctx, name, recorded);
	}
	return r;
}

static int read_one_record(const redisReply *reply, struct pool_record *record)
{
	size_t count;
	int r = pool_reply_record_count(reply, &count);
	return r < 0 || count != 1 ? -EPROTO : pool_reply_record(reply, 0, record);
}

static int read_restored(struct pool_store *store, struct item *item, const redisReply *reply)
{
	bool absent = false;
	return read_words(store, item, reply, &absent) && !absent ? 0 : -EPROTO;
}

static void on_answer(struct pool_store *store, struct item *item, const redisReply *reply)
{
	struct pool_fleet fleet;
	struct pool_record record;
	struct pool_store_result result = {0};
	int r = pool_reply_read(reply, &result.reply);
	if (r == 0 && result.reply.code == POOL_REPLY_OK) {
		switch (item->op) {
		case JOIN:
			r = read_join(store, reply, &fleet, &result.fresh);
			result.fleet = &fleet;
			break;
		case BEAT:
			r = pool_reply_beat(reply, &fleet);
			if (r == 0)
				r = read_revoked(store, false, reply);
			if (r == 0)
				store->known = store->turn;
			result.fleet = &fleet;
			break;
		case TAKE:
			r = read_one_record(reply, &record);
			result.record = &record;
			break;
		case ADOPT:
			r = read_records(item, reply);
			break;
		case SWEEP:
			r = read_struck(item, reply);
			break;
		case RESTORE:
			r = read_restored(store, item, reply);
			break;
		case RESERVE:
		case RUN:
		case NOTE:
		case LEAVE:
			break;
		}
	}
	if (r == 0 && result.fleet)
		store->sessions = fleet.instances + (fleet.ended != 0);
	if (r < 0) {
		log_error("pool: the answer of Redis to `%s` makes no sense", op_names[item->op]);
		result = (struct pool_store_result){.reply = {.code = POOL_REPLY_LOST, .word = "no-sense"}};
	}
	finish(item, &result);
}

/* A list that did not fit into one round trip. */
static bool goes_on(struct pool_store *store, struct item *item, const redisReply *reply)
{
	struct pool_reply head;
	if ((item->op != SWEEP && item->op != RESTORE) || item->at + item->sent >= item->count || !item->done)
		return false;
	if (pool_reply_read(reply, &head) < 0 || head.code != POOL_REPLY_OK)
		return false;
	if (item->op == RESTORE && read_restored(store, item, reply) < 0)
		return false;
	item->at += item->sent;
	store->turn++;
	return true;
}

static void on_error(struct pool_store *store, const redisReply *reply)
{
	log_warning("pool: Redis: %.*s", (int)(reply->len < 120 ? reply->len : 120), reply->str);
	store->hold_us = clock_mono_us() + RETRY_US;
	if (store->flight->op == NOTE)
		return;
	struct item *item = TAKE(store->flight);
	give_up(item, "redis-error");
	free(item);
}

static void on_reply(struct pool_store *store, const redisReply *reply)
{
	if (reply->type == REDIS_REPLY_ERROR) {
		on_error(store, reply);
		return;
	}
	if (goes_on(store, store->flight, reply))
		return;
	struct item *item = TAKE(store->flight);
	if (item->op == NOTE) {
		on_noted(store, item, reply);
		return;
	}
	if (item->done)
		on_answer(store, item, reply);
	free(item);
}

/* What the callbacks ask for is sent when all of them have run. */
void pool_store_on_event(struct link_command *command, enum link_event event, const redisReply *reply)
{
	struct pool_store *store = CONTAINER_OF(command, struct pool_store, command);
	if (event == LINK_TIMEOUT)
		return; /* its answer or the end of the connection follows */
	if (store->closed)
		return;
	if (event == LINK_REPLY && script_is_missing(reply)) {
		(void)!send_flight(store, true);
		return;
	}
	if (event == LINK_REPLY)
		on_reply(store, reply);
	else if (store->flight->op != NOTE && !store->flight->done)
		pool_store_drop_list(&store->flight);
	store->sent = false;
	pool_store_pump(store);
}

/* --- time ------------------------------------------------------------------- */

/* All are taken out of the queue before the first is told: a callback asks for more, which moves and frees what is in the queue. */
static void expire(struct item **queue, uint64_t now_us)
{
	struct item *due = NULL, *item, *next;
	DL_FOREACH_SAFE (*queue, item, next) {
		if (item->deadline_us > now_us)
			continue;
		DL_DELETE(*queue, item);
		DL_APPEND(due, item);
	}
	DL_FOREACH_SAFE (due, item, next) {
		give_up(item, "timeout");
		free(item);
	}
}

static void on_tick(uv_timer_t *timer)
{
	struct pool_store *store = timer->data;
	uint64_t now_us = clock_mono_us();
	if (store->lost) {
		store->lost = false;
		if (store->events.lost)
			store->events.lost(store->events.ctx);
	}
	if (store->flight && !store->sent && store->flight->deadline_us <= now_us) {
		struct item *item = TAKE(store->flight);
		give_up(item, "timeout");
		free(item);
	}
	if (store->flight && store->flight->deadline_us <= now_us)
		give_up(store->flight, "timeout"); /* it stays: it is under way */
	expire(&store->queue, now_us);
	pool_store_pump(store);
	if (!store->flight && !store->queue && !store->lost)
		(void)uv_timer_stop(timer);
}

void pool_store_start_timer(struct pool_store *store)
{
	if (!uv_is_active((uv_handle_t *)&store->timer))
		(void)uv_timer_start(&store->timer, on_tick, TICK_MS, TICK_MS);
}
