#include "gateway/exec/leases.h"

#include "gateway/base/clock.h"
#include "gateway/base/log.h"
#include "gateway/pool/machine.h"
#include "gateway/pool/member_name.h"
#include "policy/pool_store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <utlist.h>

_Static_assert(LEASE_EXEC_ID_MAX == POOL_REPLY_EXEC_ID_MAX && PROVIDER_NAME_MAX == POOL_REPLY_NAME_MAX, "the same records");

#define SLACK_US UINT64_C(1000000) /* the machine may look at its clock a moment later */

struct call {
	struct call *prev, *next;
	struct leases *leases;
	lease_done done;
	lease_adopted adopted;
	lease_struck struck;
	void *ctx;
	uint64_t asked_us;
	bool beats; /* join or beat */
};

struct leases {
	struct pool_store *store;
	struct lease_listener listener;
	struct call *calls;
	struct leases_counts counts;
	uint64_t beat_us;
	bool ended; /* told so, and not joined again since */
	void (*on_freed)(void *ctx);
	void *freed_ctx;
};

/* --- one side in the words of the other --------------------------------------- */

static const enum lease_code codes[] = {
	[POOL_REPLY_OK] = LEASE_OK,         [POOL_REPLY_REFUSED] = LEASE_REFUSED, [POOL_REPLY_LOST] = LEASE_LOST,
	[POOL_REPLY_FENCED] = LEASE_FENCED, [POOL_REPLY_FLUSHED] = LEASE_FLUSHED,
};

static const enum lease_refusal refusals[] = {
	[POOL_REPLY_RECOVERING] = LEASE_RECOVERING, [POOL_REPLY_FULL] = LEASE_FULL,       [POOL_REPLY_STOCK] = LEASE_STOCK,
	[POOL_REPLY_BUDGET] = LEASE_BUDGET,         [POOL_REPLY_CLOSED] = LEASE_CLOSED,   [POOL_REPLY_NONE] = LEASE_REFUSALS,
	[POOL_REPLY_LATE] = LEASE_REFUSALS,         [POOL_REPLY_CROWDED] = LEASE_CROWDED,
};

static bool read_state(const char *word, enum pool_state *state)
{
	for (int i = 0; i < POOL_GONE; i++) {
		if (strcmp(word, pool_state_name((enum pool_state)i)) == 0) {
			*state = (enum pool_state)i;
			return true;
		}
	}
	return false;
}

static bool read_record(const struct pool_record *from, struct lease_record *to)
{
	*to = (struct lease_record){.owned = from->owned,
				    .tenant = from->tenant,
				    .uses = from->uses,
				    .age_ms = from->age_ms,
				    .idle_ms = from->idle_ms,
				    .lease_ms = from->lease_ms,
				    .parking = from->parking};
	memcpy(to->name, from->name, sizeof to->name);
	memcpy(to->exec_id, from->exec_id, sizeof to->exec_id);
	return read_state(from->state, &to->state);
}

static void write_record(const struct lease_record *from, struct pool_record *to)
{
	*to = (struct pool_record){
		.owned = from->owned, .tenant = from->tenant, .uses = from->uses, .age_ms = from->age_ms, .lease_ms = from->lease_ms};
	memcpy(to->name, from->name, sizeof to->name);
	memcpy(to->exec_id, from->exec_id, sizeof to->exec_id);
	snprintf(to->state, sizeof to->state, "%s", pool_state_name(from->state));
}

static struct lease_fleet read_fleet(const struct pool_fleet *from)
{
	struct lease_fleet fleet = {
		.total = from->total,
		.own = from->own,
		.warm = from->warm,
		.ended = from->ended,
		.instances = from->instances,
		.others_hot_target = from->others_hot_target,
		.others_leased = from->others_leased,
		.make_way = from->make_way,
		.others_claims_per_1000s = from->others_claims,
		.others_crowd = from->others_crowd,
		.spent_nusd = from->spent_nusd,
		.day_left_ms = from->day_left_ms,
		.closed_ms = from->closed_ms,
		.recovering = from->recovering,
		.list = from->list,
		.superseded = from->superseded,
		.tenant_count = from->tenant_count,
	};
	_Static_assert(ARRAY_LEN(fleet.tenants) == ARRAY_LEN(from->tenants), "all that may be told");
	for (size_t i = 0; i < from->tenant_count; i++)
		fleet.tenants[i] = (struct lease_tenant){.id = from->tenants[i].id, .held = from->tenants[i].held};
	return fleet;
}

/* --- answers ------------------------------------------------------------------- */

/* Each session once, however many answers tell it. */
static void count_end(struct leases *leases, enum pool_reply_code code)
{
	if (leases->ended || (code != POOL_REPLY_FENCED && code != POOL_REPLY_FLUSHED))
		return;
	leases->ended = true;
	leases->counts.fenced += code == POOL_REPLY_FENCED;
	leases->counts.flushed += code == POOL_REPLY_FLUSHED;
}

static void count(struct leases *leases, const struct call *call, const struct pool_store_result *result)
{
	struct leases_counts *counts = &leases->counts;
	count_end(leases, result->reply.code);
	if (!call->beats || !result->fleet)
		return;
	leases->ended = false;
	leases->beat_us = call->asked_us;
	counts->total = result->fleet->total;
	counts->instances = result->fleet->instances;
	counts->recovering = result->fleet->recovering;
}

static void on_done(void *ctx, const struct pool_store_result *result)
{
	CLEANUP(free_ptr) struct call *call = ctx;
	struct leases *leases = call->leases;
	struct lease_fleet fleet;
	struct lease_record record;
	DL_DELETE(leases->calls, call);
	count(leases, call, result);
	struct lease_result told = {
		.code = codes[result->reply.code],
		.refusal = refusals[result->reply.refusal],
		.retry_after_ms = result->reply.retry_after_ms,
		.fresh = result->fresh,
		.detail = result->reply.word,
	};
	if (result->fleet) {
		fleet = read_fleet(result->fleet);
		told.fleet = &fleet;
	}
	if (result->record) {
		told.record = &record;
		if (!read_record(result->record, &record))
			told = (struct lease_result){.code = LEASE_LOST, .detail = "a state that is not known"};
	}
	call->done(call->ctx, &told);
}

static void on_found(void *ctx, const struct pool_record *found)
{
	struct call *call = ctx;
	struct lease_record record;
	if (read_record(found, &record))
		call->adopted(call->ctx, &record);
	else
		log_error("pool: the record of %s is in no state that is known: %s", found->name, found->state);
}

static void on_struck(void *ctx, const char *name, bool recorded)
{
	struct call *call = ctx;
	call->struck(call->ctx, name, recorded);
}

static void on_revoked(void *ctx, const char *name)
{
	struct leases *leases = ctx;
	leases->counts.revoked++;
	if (leases->listener.revoked)
		leases->listener.revoked(leases->listener.ctx, name);
}

static void on_lost(void *ctx)
{
	struct leases *leases = ctx;
	if (leases->listener.lost)
		leases->listener.lost(leases->listener.ctx);
}

static void on_fenced(void *ctx)
{
	struct leases *leases = ctx;
	count_end(leases, POOL_REPLY_FENCED);
	if (leases->listener.fenced)
		leases->listener.fenced(leases->listener.ctx);
}

static void on_flushed(void *ctx)
{
	struct leases *leases = ctx;
	count_end(leases, POOL_REPLY_FLUSHED);
	if (leases->listener.flushed)
		leases->listener.flushed(leases->listener.ctx);
}

/* --- questions ------------------------------------------------------------------ */

static struct call *new_call(struct leases *leases, lease_done done, void *ctx)
{
	struct call *call = calloc(1, sizeof *call);
	if (!call)
		return NULL;
	call->leases = leases;
	call->done = done;
	call->ctx = ctx;
	call->asked_us = clock_mono_us();
	DL_APPEND(leases->calls, call);
	return call;
}

/* `r`: what the store said to it. */
static int asked(struct call *call, int r)
{
	if (r < 0) {
		DL_DELETE(call->leases->calls, call);
		free(call);
	}
	return r;
}

static void listen_to(void *self, const struct lease_listener *listener)
{
	struct leases *leases = self;
	leases->listener = listener ? *listener : (struct lease_listener){0};
}

static int join(void *self, lease_done done, void *ctx)
{
	struct leases *leases = self;
	struct call *call = new_call(leases, done, ctx);
	if (!call)
		return -ENOMEM;
	call->beats = true;
	leases->counts.joins++;
	bool whole = leases->beat_us && call->asked_us < leases->beat_us + LEASE_GRANT_US - SLACK_US;
	return asked(call, pool_store_join(leases->store, whole, on_done, call));
}

static int beat(void *self, const struct lease_report *report, lease_done done, void *ctx)
{
	struct leases *leases = self;
	struct call *call = new_call(leases, done, ctx);
	if (!call)
		return -ENOMEM;
	call->beats = true;
	struct pool_store_report told = {
		.hot_target = report->hot_target,
		.leased = report->leased,
		.waiting = report->waiting,
		.claims = report->claims_per_1000s,
		.spent_nusd = report->spent_nusd,
		.limit_count = report->limit.count,
		.limit_window_ms = report->limit.window_ms,
		.closed_ms = report->closed_ms,
		.claimant_count = report->claimant_count,
		.running_limit = report->running_limit,
	};
	_Static_assert(sizeof told.claimants == sizeof report->claimants, "all that are reported");
	memcpy(told.claimants, report->claimants, sizeof told.claimants);
	return asked(call, pool_store_beat(leases->store, &told, on_done, call));
}

static int reserve(void *self, const struct lease_wish *wish, lease_done done, void *ctx)
{
	struct leases *leases = self;
	struct call *call = new_call(leases, done, ctx);
	if (!call)
		return -ENOMEM;
	const struct pool_store_wish told = {.name = wish->name,
					     .max = wish->max,
					     .stock = wish->stock,
					     .create_limit = wish->create_limit,
					     .create_window_ms = wish->create_window_ms,
					     .running_limit = wish->running_limit};
	return asked(call, pool_store_reserve(leases->store, &told, on_done, call));
}

static void note(void *self, const struct lease_record *record)
{
	struct pool_record told;
	write_record(record, &told);
	pool_store_note(((struct leases *)self)->store, &told);
}

static void forget(void *self, const char *name)
{
	pool_store_forget(((struct leases *)self)->store, name);
}

static int take(void *self, const struct lease_want *want, lease_done done, void *ctx)
{
	struct leases *leases = self;
	struct call *call = new_call(leases, done, ctx);
	if (!call)
		return -ENOMEM;
	const struct pool_store_want told = {.name = want->name,
					     .to = pool_state_name(want->to),
					     .generation = want->generation,
					     .running_limit = want->running_limit,
					     .for_stock = want->for_stock};
	return asked(call, pool_store_take(leases->store, &told, on_done, call));
}

static int run(void *self, const char *name, size_t running_limit, lease_done done, void *ctx)
{
	struct leases *leases = self;
	struct call *call = new_call(leases, done, ctx);
	if (!call)
		return -ENOMEM;
	return asked(call, pool_store_run(leases->store, name, running_limit, on_done, call));
}

static int adopt(void *self, size_t most, bool own, lease_adopted found, lease_done done, void *ctx)
{
	struct leases *leases = self;
	struct call *call = new_call(leases, done, ctx);
	if (!call)
		return -ENOMEM;
	call->adopted = found;
	return asked(call, pool_store_adopt(leases->store, most, own, on_found, on_done, call));
}

static int sweep(void *self, const char *const *names, size_t n, lease_struck found, lease_done done, void *ctx)
{
	struct leases *leases = self;
	struct call *call = new_call(leases, done, ctx);
	if (!call)
		return -ENOMEM;
	call->struck = found;
	return asked(call, pool_store_sweep(leases->store, names, n, on_struck, on_done, call));
}

static int restore(void *self, const struct lease_record *records, size_t n, lease_done done, void *ctx)
{
	struct leases *leases = self;
	CLEANUP(free_ptr) struct pool_record *told = calloc(n ? n : 1, sizeof *told);
	struct call *call = told ? new_call(leases, done, ctx) : NULL;
	if (!call)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		write_record(&records[i], &told[i]);
	return asked(call, pool_store_restore(leases->store, told, n, on_done, call));
}

static int leave(void *self, lease_done done, void *ctx)
{
	struct leases *leases = self;
	struct call *call = new_call(leases, done, ctx);
	if (!call)
		return -ENOMEM;
	return asked(call, pool_store_leave(leases->store, on_done, call));
}

static const struct lease_ops ops = {
	.listen = listen_to,
	.join = join,
	.beat = beat,
	.reserve = reserve,
	.note = note,
	.forget = forget,
	.take = take,
	.run = run,
	.adopt = adopt,
	.sweep = sweep,
	.restore = restore,
	.leave = leave,
};

struct lease_table leases_table(struct leases *leases)
{
	return (struct lease_table){.ops = &ops, .self = leases};
}

/* --- life ----------------------------------------------------------------------- */

struct leases *leases_new(const struct leases_options *options)
{
	char instance[MEMBER_NAME_INSTANCE_MAX + 1];
	if (member_name_instance(instance, slice_str(options->instance)) < 0 || !pool_reply_is_name(slice_str(options->pool)) ||
	    strlen(options->pool) > LEASES_POOL_MAX) {
		log_error("pool: its name or the instance's cannot be used");
		return NULL;
	}
	struct leases *leases = calloc(1, sizeof *leases);
	if (!leases)
		return NULL;
	const struct pool_store_options store = {
		.loop = options->loop,
		.redis_url = options->redis_url,
		.timeout_ms = options->timeout_ms,
		.pool = options->pool,
		.instance = instance,
		.events = {.revoked = on_revoked, .lost = on_lost, .fenced = on_fenced, .flushed = on_flushed, .ctx = leases},
		.on_command = options->on_command,
		.command_ctx = options->ctx,
	};
	leases->store = pool_store_new(&store);
	if (!leases->store) {
		free(leases);
		return NULL;
	}
	return leases;
}

static void on_store_freed(void *ctx)
{
	struct leases *leases = ctx;
	void (*on_freed)(void *) = leases->on_freed;
	void *freed_ctx = leases->freed_ctx;
	struct call *call, *next;
	DL_FOREACH_SAFE (leases->calls, call, next) {
		call->done(call->ctx, &(struct lease_result){.code = LEASE_LOST, .detail = "stopped"});
		free(call);
	}
	free(leases);
	if (on_freed)
		on_freed(freed_ctx);
}

void leases_free(struct leases *leases, void (*on_freed)(void *ctx), void *ctx)
{
	leases->on_freed = on_freed;
	leases->freed_ctx = ctx;
	pool_store_free(leases->store, on_store_freed, leases);
}

void leases_counts(const struct leases *leases, struct leases_counts *counts)
{
	*counts = leases->counts;
	counts->beat_age_us = leases->beat_us ? clock_mono_us() - leases->beat_us : 0;
}
