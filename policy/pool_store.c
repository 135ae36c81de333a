#include "policy/pool_store_parts.h"

#include "gateway/base/clock.h"
#include "gateway/base/hmac.h"
#include "gateway/base/id.h"
#include "gateway/base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <utlist.h>

#define ANSWER_US UINT64_C(9500000) /* an operation is given up then */

/* --- items ------------------------------------------------------------------ */

static struct item *new_item(enum op op, size_t entries)
{
	struct item *item = calloc(1, sizeof *item + entries * ENTRY_MAX);
	if (item) {
		item->op = op;
		item->count = entries;
	}
	return item;
}

static void add_word(struct item *item, const char *word)
{
	snprintf(item->words[item->word_count++], WORD_MAX, "%s", word);
}

static void add_number(struct item *item, uint64_t number)
{
	snprintf(item->words[item->word_count++], WORD_MAX, "%" PRIu64, number);
}

static bool write_entry(const struct pool_record *r, char out[ENTRY_MAX])
{
	int n = snprintf(out, ENTRY_MAX, "%s:%s:%d:%016" PRIx64 ":%u:%" PRIu64 ":%" PRIu64 ":%s", r->name, r->state, r->owned, r->tenant,
			 r->uses, r->age_ms, r->lease_ms, r->exec_id);
	return pool_reply_is_name(slice_str(r->name)) && n > 0 && n < ENTRY_MAX;
}

static void enqueue(struct pool_store *store, struct item *item)
{
	item->deadline_us = item->op == NOTE ? UINT64_MAX : clock_mono_us() + ANSWER_US;
	DL_APPEND(store->queue, item);
	pool_store_start_timer(store);
	pool_store_pump(store);
}

/* --- operations ------------------------------------------------------------- */

static int ask(struct pool_store *store, struct item *item, pool_store_done done, void *ctx)
{
	item->done = done;
	item->ctx = ctx;
	enqueue(store, item);
	return 0;
}

int pool_store_join(struct pool_store *store, bool whole, pool_store_done done, void *ctx)
{
	unsigned char random[16];
	char incarnation[2 * sizeof random + 1];
	int r = id_random(random, sizeof random);
	struct item *item = r == 0 ? new_item(JOIN, 0) : NULL;
	if (!item)
		return r < 0 ? r : -ENOMEM;
	hex_encode(random, sizeof random, incarnation);
	pool_store_drop_notes(store);
	add_word(item, store->instance);
	add_word(item, incarnation);
	/* One that has given up what it had is not back for those who wait until all are. */
	add_number(item, store->sessions ? store->sessions + !whole : 0);
	return ask(store, item, done, ctx);
}

int pool_store_beat(struct pool_store *store, const struct pool_store_report *report, pool_store_done done, void *ctx)
{
	struct item *item = new_item(BEAT, 0);
	if (!item)
		return -ENOMEM;
	const uint64_t numbers[] = {report->hot_target,  report->leased,          report->waiting,   report->claims, report->spent_nusd,
				    report->limit_count, report->limit_window_ms, report->closed_ms, store->known};
	for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
		add_number(item, numbers[i]);
	char claimants[WORD_MAX] = "";
	size_t len = 0;
	for (size_t i = 0; i < report->claimant_count; i++)
		len += (size_t)snprintf(claimants + len, sizeof claimants - len, "%s%016" PRIx64, len ? " " : "", report->claimants[i]);
	add_word(item, claimants);
	add_number(item, report->running_limit);
	return ask(store, item, done, ctx);
}

static int name_item(struct item *item, const char *name)
{
	if (!item)
		return -ENOMEM;
	if (!pool_reply_is_name(slice_str(name))) {
		free(item);
		return -EINVAL;
	}
	snprintf(item->name, sizeof item->name, "%s", name);
	add_word(item, name);
	return 0;
}

int pool_store_reserve(struct pool_store *store, const struct pool_store_wish *wish, pool_store_done done, void *ctx)
{
	struct item *item = new_item(RESERVE, 0);
	int r = name_item(item, wish->name);
	if (r < 0)
		return r;
	add_number(item, wish->max);
	add_number(item, wish->stock);
	add_number(item, wish->create_limit);
	add_number(item, wish->create_window_ms);
	add_number(item, wish->running_limit);
	return ask(store, item, done, ctx);
}

int pool_store_take(struct pool_store *store, const struct pool_store_want *want, pool_store_done done, void *ctx)
{
	struct item *item = new_item(TAKE, 0);
	if (!item)
		return -ENOMEM;
	if (!want->name)
		add_word(item, "");
	int r = want->name ? name_item(item, want->name) : 0;
	if (r < 0)
		return r;
	add_word(item, want->to);
	add_word(item, want->generation);
	add_number(item, want->running_limit);
	add_number(item, want->for_stock);
	return ask(store, item, done, ctx);
}

int pool_store_run(struct pool_store *store, const char *name, uint64_t running_limit, pool_store_done done, void *ctx)
{
	struct item *item = new_item(RUN, 0);
	int r = name_item(item, name);
	if (r < 0)
		return r;
	add_number(item, running_limit);
	return ask(store, item, done, ctx);
}

int pool_store_adopt(struct pool_store *store, size_t most, bool own, pool_store_found found, pool_store_done done, void *ctx)
{
	struct item *item = new_item(ADOPT, 0);
	if (!item)
		return -ENOMEM;
	item->found = found;
	add_number(item, most);
	add_number(item, own);
	return ask(store, item, done, ctx);
}

int pool_store_sweep(struct pool_store *store, const char *const *names, size_t count, pool_store_struck struck, pool_store_done done,
		     void *ctx)
{
	if (count > POOL_STORE_LIST_MAX)
		return -EINVAL;
	CLEANUP(free_ptr) struct item *item = new_item(SWEEP, count);
	if (!item)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		if (!pool_reply_is_name(slice_str(names[i])))
			return -EINVAL;
		snprintf(item->entries[i], ENTRY_MAX, "%s", names[i]);
	}
	item->struck = struck;
	add_number(item, count);
	return ask(store, TAKE(item), done, ctx);
}

int pool_store_restore(struct pool_store *store, const struct pool_record *records, size_t count, pool_store_done done, void *ctx)
{
	if (count > POOL_STORE_LIST_MAX)
		return -EINVAL;
	CLEANUP(free_ptr) struct item *item = new_item(RESTORE, count);
	if (!item)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++)
		if (!write_entry(&records[i], item->entries[i]))
			return -EINVAL;
	return ask(store, TAKE(item), done, ctx);
}

int pool_store_leave(struct pool_store *store, pool_store_done done, void *ctx)
{
	struct item *item = new_item(LEAVE, 0);
	return item ? ask(store, item, done, ctx) : -ENOMEM;
}

/* An older note of the same Sprite is replaced where it stands, unless an operation of that Sprite, or of many, stands behind it. */
static bool replace_note(struct pool_store *store, const char *name, const char *entry)
{
	struct item *item = store->queue ? store->queue->prev : NULL;
	while (item) {
		bool is_note = item->op == NOTE && strcmp(item->name, name) == 0;
		if (is_note)
			memcpy(item->entries[0], entry, ENTRY_MAX);
		if (is_note || (item->op != NOTE && (!item->name[0] || strcmp(item->name, name) == 0)))
			return is_note;
		item = item == store->queue ? NULL : item->prev;
	}
	return false;
}

void pool_store_note(struct pool_store *store, const struct pool_record *record)
{
	char entry[ENTRY_MAX];
	memset(entry, 0, sizeof entry);
	if (!write_entry(record, entry)) {
		log_error("pool: not noted, its name cannot be a Sprite's");
		return;
	}
	if (replace_note(store, record->name, entry))
		return;
	struct item *item = new_item(NOTE, 1);
	if (!item) {
		store->lost = true;
		pool_store_start_timer(store);
		return;
	}
	memcpy(item->entries[0], entry, sizeof entry);
	memcpy(item->name, record->name, sizeof item->name);
	enqueue(store, item);
}

void pool_store_forget(struct pool_store *store, const char *name)
{
	struct pool_record gone = {.state = "gone"};
	snprintf(gone.name, sizeof gone.name, "%s", name);
	pool_store_note(store, &gone);
}

/* --- life ------------------------------------------------------------------- */

static void on_link_state(void *ctx, enum link_breaker breaker)
{
	if (breaker == LINK_BREAKER_CLOSED)
		pool_store_pump(ctx);
}

static void on_link_command(void *ctx, uint64_t duration_us, const char *error_kind)
{
	struct pool_store *store = ctx;
	if (store->on_command)
		store->on_command(store->command_ctx, duration_us, error_kind);
}

struct pool_store *pool_store_new(const struct pool_store_options *options)
{
	struct pool_store *store = calloc(1, sizeof *store);
	if (!store)
		return NULL;
	store->events = options->events;
	store->on_command = options->on_command;
	store->command_ctx = options->command_ctx;
	store->command.event = pool_store_on_event;
	snprintf(store->key, sizeof store->key, KEY_POOL "%s:inc", options->pool);
	snprintf(store->instance, sizeof store->instance, "%s", options->instance);
	struct link_options link = {
		.loop = options->loop,
		.url = slice_str(options->redis_url),
		.timeout_ms = options->timeout_ms,
		.on_state = on_link_state,
		.on_command = on_link_command,
		.ctx = store,
	};
	store->link = link_new(&link);
	if (!store->link) {
		free(store);
		return NULL;
	}
	(void)uv_timer_init(options->loop, &store->timer);
	store->timer.data = store;
	return store;
}

static void release(struct pool_store *store)
{
	if (--store->handles)
		return;
	void (*on_freed)(void *) = store->on_freed;
	void *ctx = store->freed_ctx;
	pool_store_drop_list(&store->flight);
	pool_store_drop_list(&store->queue);
	free(store);
	if (on_freed)
		on_freed(ctx);
}

static void on_link_freed(void *ctx)
{
	release(ctx);
}

static void on_timer_closed(uv_handle_t *handle)
{
	release(handle->data);
}

void pool_store_free(struct pool_store *store, void (*on_freed)(void *ctx), void *ctx)
{
	store->closed = true;
	store->on_freed = on_freed;
	store->freed_ctx = ctx;
	store->handles = 2;
	link_free(store->link, on_link_freed, store);
	uv_close((uv_handle_t *)&store->timer, on_timer_closed);
}
