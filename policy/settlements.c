#include "policy/settlements.h"

#include "gateway/base/clock.h"
#include "gateway/base/id.h"
#include "gateway/base/log.h"
#include "policy/degraded.h"
#include "policy/keys.h"
#include "policy/script.h"

#include <errno.h>
#include <hiredis/hiredis.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <utlist.h>

#define UNDER_WAY_MAX 32
#define ERRORS_MAX    3
#define ASIDE_MS      5000
#define UNRUN_MS      UINT64_C(3600000)
#define RESULTS_MAX   ((size_t)16 * 1024 * 1024)

struct settlement {
	struct link_command command;
	struct settlements *list;
	struct settlement *prev, *next;
	struct unsettled_entry entry;
	unsigned errors, losses; /* of the script itself; of the connection */
	uint64_t due_ms;         /* when it is tried again, of one that is set aside */
	char exec_id[ID_UUID_LEN + 1];
	bool restored;   /* by a run before this one */
	char *result;    /* NULL = none */
	size_t result_len;
	uint64_t keep_ms;
};

static void on_event(struct link_command *command, enum link_event event, const struct redisReply *reply);

static int send_one(struct settlement *s, bool by_text)
{
	s->command = (struct link_command){.event = on_event, .refused_before = s->errors >= ERRORS_MAX};
	char used[24], out[24], keep[24];
	snprintf(used, sizeof used, "%" PRIu64, s->entry.used_ms);
	snprintf(out, sizeof out, "%" PRIu64, s->entry.out_bytes);
	snprintf(keep, sizeof keep, "%" PRIu64, s->keep_ms);
	char key[sizeof KEY_RECORD + ADMISSION_KID_LEN];
	snprintf(key, sizeof key, KEY_RECORD "%s", s->entry.lease.kid);
	struct slice args[] = {
		slice_str(key),
		slice_str(s->entry.lease.kid),
		slice_str(s->entry.lease.id),
		slice_str(s->entry.lease.actor),
		slice_str(used),
		slice_str(out),
		s->entry.refund ? SLICE("1") : SLICE("0"),
		slice_str(s->exec_id),
		slice_of(s->result, s->result_len),
		slice_str(keep),
		s->entry.lease.degraded ? SLICE("1") : SLICE("0"),
	};
	return script_send(s->list->link, &s->command, &script_settle, by_text, args, ARRAY_LEN(args));
}

static void requeue(struct settlement *s)
{
	struct settlements *list = s->list;
	DL_DELETE(list->sent, s);
	list->under_way--;
	if (s->errors < ERRORS_MAX) {
		DL_APPEND(list->queued, s);
		return;
	}
	s->due_ms = clock_boot_ms() + ASIDE_MS;
	DL_APPEND(list->aside, s);
}

/* Said once: while it is tried again it stands in the gauge of what is pending. */
static void set_aside(struct settlement *s, const struct redisReply *reply)
{
	s->list->aside_count++;
	log_error_of(&s->entry.lease.subject, "admission: Redis cannot settle lease %s of %s, it is tried again every %u s%s: %.*s",
		     s->entry.lease.id, s->entry.lease.kid, ASIDE_MS / 1000,
		     s->entry.lease.degraded ? "" : " until the lease has ended, charged in full",
		     (int)(reply->len < 100 ? reply->len : 100), reply->str);
}

static void drop_result(struct settlement *s)
{
	s->list->result_bytes -= s->result_len;
	free(s->result);
	s->result = NULL;
	s->result_len = 0;
}

static void finish(struct settlement *s)
{
	struct settlements *list = s->list;
	if (s->entry.lease.degraded && !s->restored)
		degraded_booked(list->degraded, s->entry.lease.kid, s->entry.used_ms, clock_boot_ms());
	drop_result(s);
	DL_DELETE(list->sent, s);
	list->under_way--;
	list->count--;
	list->aside_count -= s->errors >= ERRORS_MAX;
	free(s);
	if (list->restored && !list->count) {
		list->restored = false;
		unsettled_done(list->unsettled);
	}
	settlements_pump(list);
}

/* An error that will be the same next time (a key of another type). Others pass: a failover, full memory, a server that loads. */
static bool is_hopeless(const struct redisReply *reply)
{
	struct slice text = slice_of(reply->str, reply->len);
	return script_met_wrong_type(reply) || (reply->type == REDIS_REPLY_ERROR && slice_has_prefix(text, SLICE("ERR ")));
}

/* It may be the result that Redis does not take; the lease matters more, and is tried once without before it is set aside. A key of
 * another type is never the result's. */
static bool is_too_much(struct settlement *s, enum link_event event, const struct redisReply *reply)
{
	if (event == LINK_LOST)
		return ++s->losses > 1;
	if (reply->type != REDIS_REPLY_ERROR)
		return false;
	struct slice text = slice_of(reply->str, reply->len);
	return slice_has_prefix(text, SLICE("OOM")) || (slice_has_prefix(text, SLICE("ERR ")) && s->errors + 1 >= ERRORS_MAX);
}

static void on_event(struct link_command *command, enum link_event event, const struct redisReply *reply)
{
	struct settlement *s = CONTAINER_OF(command, struct settlement, command);
	if (event == LINK_TIMEOUT)
		return; /* its answer or the end of the connection follows */
	if (event == LINK_REPLY && reply->type == REDIS_REPLY_INTEGER) {
		if (s->list->on_settled)
			s->list->on_settled(s->list->ctx, &s->entry.lease);
		finish(s);
		return;
	}
	if (event == LINK_REPLY && script_is_missing(reply) && !s->list->stopped && send_one(s, true) == 0)
		return;
	if (event == LINK_REPLY && is_hopeless(reply) && ++s->errors == ERRORS_MAX)
		set_aside(s, reply);
	if (is_too_much(s, event, reply))
		drop_result(s);
	requeue(s);
}

void settlements_init(struct settlements *list, struct link *link, size_t max, struct unsettled *unsettled)
{
	*list = (struct settlements){.link = link, .max = max, .unsettled = unsettled};
}

void settlements_stop(struct settlements *list)
{
	list->stopped = true;
}

void settlements_deinit(struct settlements *list)
{
	struct settlement *s, *next;
	DL_CONCAT(list->queued, list->aside);
	list->aside = NULL;
	DL_FOREACH_SAFE (list->queued, s, next) {
		DL_DELETE(list->queued, s);
		if (list->unsettled)
			unsettled_keep(list->unsettled, &s->entry);
		drop_result(s);
		free(s);
	}
	list->count = 0;
}

/* Without memory for it there is just no result. */
static void copy_result(struct settlement *s, const struct admission_result *result)
{
	struct settlements *list = s->list;
	if (result->exec_id.len != ID_UUID_LEN || !result->text.len || result->text.len > RESULTS_MAX - list->result_bytes)
		return;
	s->result = slice_dup(result->text);
	if (!s->result)
		return;
	s->result_len = result->text.len;
	list->result_bytes += s->result_len;
	s->keep_ms = result->keep_ms;
	snprintf(s->exec_id, sizeof s->exec_id, "%.*s", SLICE_FMT(result->exec_id));
}

static int append(struct settlements *list, const struct unsettled_entry *entry, const struct admission_result *result, bool restored)
{
	const struct admission_lease *lease = &entry->lease;
	if (list->count >= list->max)
		return SETTLEMENTS_E_FULL;
	struct settlement *s = calloc(1, sizeof *s);
	if (!s)
		return -ENOMEM;
	s->list = list;
	s->entry = *entry;
	s->restored = restored;
	struct admission_result unrun = {.exec_id = slice_str(lease->exec_id), .text = SLICE("0 unrun\n"), .keep_ms = UNRUN_MS};
	if (result)
		copy_result(s, result);
	else if (entry->refund && lease->exec_id[0])
		copy_result(s, &unrun);
	DL_APPEND(list->queued, s);
	list->count++;
	settlements_pump(list);
	/* Whoever is answered now may ask for the result at once, and any gateway. */
	if (s->result)
		link_flush(list->link);
	return 0;
}

int settlements_add(struct settlements *list, const struct admission_lease *lease, uint64_t used_ms, uint64_t out_bytes, bool refund,
		    const struct admission_result *result)
{
	const struct unsettled_entry entry = {
		.lease = *lease, .used_ms = used_ms, .out_bytes = out_bytes, .ended_ms = clock_wall_ms(), .refund = refund};
	return append(list, &entry, result, false);
}

int settlements_restore(struct settlements *list)
{
	size_t count = 0;
	const struct unsettled_entry *entries = list->unsettled ? unsettled_loaded(list->unsettled, &count) : NULL;
	int r = 0;
	list->restored = count > 0;
	for (size_t i = 0; r == 0 && i < count; i++)
		r = append(list, &entries[i], NULL, true);
	return r == SETTLEMENTS_E_FULL ? -ENOMEM : r;
}

size_t settlements_owed(const struct settlements *list)
{
	return list->count - list->aside_count;
}

/* One that is set aside has its turn only when no other waits. */
static struct settlement *next_to_send(struct settlements *list, uint64_t now)
{
	struct settlement *s = list->aside;
	if (!list->queued && s && s->due_ms <= now) {
		DL_DELETE(list->aside, s);
		DL_APPEND(list->queued, s);
	}
	return list->queued;
}

void settlements_pump(struct settlements *list)
{
	uint64_t now = clock_boot_ms();
	struct settlement *s;
	while (!list->stopped && list->under_way < UNDER_WAY_MAX && (s = next_to_send(list, now))) {
		if (send_one(s, false) != 0)
			return;
		DL_DELETE(list->queued, s);
		DL_APPEND(list->sent, s);
		list->under_way++;
	}
}
