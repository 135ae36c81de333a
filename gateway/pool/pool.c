#include "gateway/pool/pool_parts.h"

#include "gateway/base/clock.h"
#include "gateway/base/id.h"
#include "gateway/base/log.h"
#include "gateway/pool/member_name.h"

#include <errno.h>
#include <stdlib.h>
#include <utlist.h>

#define MAX_AGE_DEFAULT_MS (UINT64_C(6) * 3600 * 1000)
#define HANDLES            3

static const struct {
	const char *what, *detail;
} refusals[] = {
	[POOL_E_FULL] = {"full", "too many callers are already waiting for a sandbox"},
	[POOL_E_DEADLINE] = {"deadline", "no sandbox becomes ready in time"},
	[POOL_E_STOPPING] = {"stopping", "this gateway is shutting down"},
	[POOL_E_UNAVAILABLE] = {"unavailable", "the sandbox provider is not available"},
	[POOL_E_BUSY] = {"busy", "every sandbox is in use, and no other may be made in time"},
	[POOL_E_BUDGET] = {"budget", "the money for sandboxes of these 24 hours is spent"},
};

uint64_t pool_clock(const struct pool *pool)
{
	return pool->now_us ? pool->now_us(pool->now_ctx) : clock_mono_us();
}

/* --- answers to claims ------------------------------------------------------------------------ */

static void on_idle(uv_idle_t *idle)
{
	(void)idle;
}

static void count_claim(struct pool *pool, const struct pool_claim *claim, const char *what)
{
	if (pool->observer.on_claim)
		pool->observer.on_claim(pool->observer.ctx, what, pool_clock(pool) - claim->waiter.since_us);
}

static void deliver_one(struct pool *pool)
{
	struct pool_claim *claim = pool->ready;
	DL_DELETE(pool->ready, claim);
	count_claim(pool, claim, claim->grant.code ? refusals[claim->grant.code].what : claim->grant.tier);
	claim->done(claim->ctx, &claim->grant);
	free(claim);
}

static void on_check(uv_check_t *check)
{
	struct pool *pool = check->data;
	size_t count;
	struct pool_claim *claim;
	DL_COUNT(pool->ready, claim, count);
	/* Those that become ready meanwhile come in the next turn. A callback may cancel claims or free the pool. */
	while (count-- && pool->ready)
		deliver_one(pool);
	if (pool->freeing || pool->ready)
		return;
	uv_check_stop(&pool->check);
	uv_idle_stop(&pool->idle);
	if (pool->stopped && pool->on_stopped) {
		void (*on_stopped)(void *, size_t) = TAKE(pool->on_stopped);
		on_stopped(pool->stopped_ctx, pool->left);
	}
}

void pool_wake(struct pool *pool)
{
	uv_idle_start(&pool->idle, on_idle);
	uv_check_start(&pool->check, on_check);
}

static void answer(struct pool *pool, struct machine_waiter *waiter, struct pool_grant grant)
{
	struct pool_claim *claim = CONTAINER_OF(waiter, struct pool_claim, waiter);
	claim->grant = grant;
	claim->ready = true;
	DL_APPEND(pool->ready, claim);
	pool_wake(pool);
}

static void answer_grant(struct pool *pool, const struct machine_action *action)
{
	answer(pool, action->waiter,
	       (struct pool_grant){.member = action->member,
				   .sandbox = action->member->sandbox,
				   .tier = pool_tier_name(action->tier),
				   .ready_from_us = action->member->ready_from_us,
				   .ready_us = action->member->ready_us,
				   .detail = ""});
}

static void answer_refusal(struct pool *pool, const struct machine_action *action)
{
	answer(pool, action->waiter,
	       (struct pool_grant){.code = action->refusal,
				   .tier = "",
				   .retry_after_ms = action->retry_after_ms,
				   .detail = refusals[action->refusal].detail});
}

/* --- the machine's driver --------------------------------------------------------------------- */

/* For whoever has to remove by hand what no later start does. */
static void log_left(const struct pool *pool)
{
	const struct roster *roster = &pool->machine.roster;
	for (int state = POOL_CREATING; state < POOL_GONE; state++) {
		const struct pool_member *member;
		DL_FOREACH (roster->lists[state], member)
			log_warning("pool: %s may still exist%s", member->name,
				    state == POOL_CREATING || member->doubtful_us ? ", its creation was never confirmed" : "");
	}
}

static void carry_out(struct pool *pool, const struct machine_action *action)
{
	switch (action->type) {
	case MACHINE_DO_LIST:
		pool_operate(pool, NULL, POOL_VERB_LIST);
		break;
	case MACHINE_DO_CREATE:
		pool_operate(pool, action->member, POOL_VERB_CREATE);
		break;
	case MACHINE_DO_PREPARE:
		pool_operate(pool, action->member, POOL_VERB_PREPARE);
		break;
	case MACHINE_DO_WAKE:
		pool_operate(pool, action->member, POOL_VERB_WAKE);
		break;
	case MACHINE_DO_RESTORE:
		pool_operate(pool, action->member, POOL_VERB_RESTORE);
		break;
	case MACHINE_DO_CLOSE:
		pool_close_sandbox(action->member);
		break;
	case MACHINE_DO_DESTROY:
		pool_operate(pool, action->member, POOL_VERB_DESTROY);
		break;
	case MACHINE_DO_GRANT:
		answer_grant(pool, action);
		break;
	case MACHINE_DO_REFUSE:
		answer_refusal(pool, action);
		break;
	case MACHINE_DO_STOPPED:
		pool->left = action->left;
		log_left(pool);
		pool_leave(pool);
		break;
	case MACHINE_DO_ABANDON:
		log_warning("pool: %s may still exist: it was parked, and could not be taken to be destroyed", action->member->name);
		break;
	case MACHINE_DO_RESERVE:
	case MACHINE_DO_TAKE:
	case MACHINE_DO_NOTE:
	case MACHINE_DO_FORGET:
	case MACHINE_DO_ADOPT:
	case MACHINE_DO_REVOKE:
		pool_ask(pool, action);
		break;
	}
}

static void on_timer(uv_timer_t *timer)
{
	pool_tick(timer->data);
}

static void arm(struct pool *pool, uint64_t now_us)
{
	if (pool->now_us)
		return;
	uint64_t due_us = pool_next_due(pool);
	if (due_us == pool->armed_us)
		return;
	pool->armed_us = due_us;
	if (due_us == UINT64_MAX) {
		uv_timer_stop(&pool->timer);
		return;
	}
	/* Rounded up: a tick that comes early finds nothing to do. */
	uint64_t wait_ms = due_us > now_us ? (due_us - now_us + 999) / 1000 : 0;
	uv_update_time(pool->timer.loop);
	uv_timer_start(&pool->timer, on_timer, wait_ms, 0);
}

static void report_impossible(struct pool *pool)
{
	for (; pool->impossible < pool->machine.roster.impossible; pool->impossible++) {
		log_error("pool: a transition that cannot be was asked for and not made");
		if (pool->observer.on_impossible)
			pool->observer.on_impossible(pool->observer.ctx);
	}
}

void pool_step(struct pool *pool, struct machine_event event)
{
	uint64_t now_us = pool_clock(pool);
	machine_step(&pool->machine, now_us, &event);
	/* The outcome of an action that failed at once: the loop below, further up the stack, goes on. */
	if (pool->acting)
		return;
	pool->acting = true;
	struct machine_action action;
	while (machine_next_action(&pool->machine, &action))
		carry_out(pool, &action);
	pool->acting = false;
	report_impossible(pool);
	arm(pool, now_us);
}

void pool_tick(struct pool *pool)
{
	pool->armed_us = 0;
	pool_leases_tick(pool);
	pool_step(pool, (struct machine_event){.type = MACHINE_TICK});
}

uint64_t pool_next_due(const struct pool *pool)
{
	uint64_t machine_us = machine_next_due(&pool->machine), leases_us = pool_leases_due(pool);
	return machine_us < leases_us ? machine_us : leases_us;
}

/* --- life ------------------------------------------------------------------------------------- */

static int setup(struct pool *pool, const struct pool_options *options)
{
	uint64_t seed;
	int r = id_random(&seed, sizeof seed);
	if (r < 0)
		return r;
	r = member_name_instance(pool->instance, slice_str(options->instance));
	if (r < 0)
		return r;
	member_name_generation(pool->gen, options->recipe);
	const struct machine_options machine = {
		.sizing = options->sizing,
		.max_waiters = options->max_waiters,
		.max_age_us = (options->max_age_ms ? options->max_age_ms : MAX_AGE_DEFAULT_MS) * 1000,
		.day_nusd = options->usd_per_day * UINT64_C(1000000000),
		.recycle = options->recycle,
		.shared = options->leases.ops != NULL,
		.seed = seed | 1,
	};
	return machine_init(&pool->machine, &machine);
}

struct pool *pool_new(const struct pool_options *options)
{
	CLEANUP(free_ptr) struct pool *pool = calloc(1, sizeof *pool);
	if (!pool)
		return NULL;
	int r = setup(pool, options);
	if (r < 0) {
		log_error("pool: cannot be made: %s", uv_strerror(r));
		return NULL;
	}
	pool->provider = options->provider;
	pool->observer = options->observer;
	pool->is_kept = options->is_kept;
	pool->kept_ctx = options->kept_ctx;
	pool->leases.table = options->leases;
	pool->now_us = options->now_us;
	pool->now_ctx = options->now_ctx;
	uv_timer_init(options->loop, &pool->timer);
	uv_idle_init(options->loop, &pool->idle);
	uv_check_init(options->loop, &pool->check);
	pool->timer.data = pool->idle.data = pool->check.data = pool;
	pool->handles = HANDLES;
	return TAKE(pool);
}

void pool_start(struct pool *pool)
{
	pool_step(pool, (struct machine_event){.type = MACHINE_START});
	pool_leases_start(pool);
}

void pool_resize(struct pool *pool, size_t hot, size_t warm)
{
	pool_step(pool, (struct machine_event){.type = MACHINE_RESIZE, .hot = hot, .warm = warm});
}

void pool_intent(struct pool *pool, uint64_t for_ms)
{
	pool_step(pool, (struct machine_event){.type = MACHINE_INTENT, .deadline_us = pool_clock(pool) + for_ms * 1000});
}

int pool_claim(struct pool *pool, uint64_t tenant, uint64_t wait_ms, pool_claim_done done, void *ctx, struct pool_claim **claim_out)
{
	struct pool_claim *claim = calloc(1, sizeof *claim);
	if (!claim)
		return -ENOMEM;
	uint64_t now_us = pool_clock(pool);
	claim->done = done;
	claim->ctx = ctx;
	claim->waiter.tenant = tenant;
	claim->waiter.deadline_us = wait_ms < (UINT64_MAX - now_us) / 1000 ? now_us + wait_ms * 1000 : UINT64_MAX;
	*claim_out = claim;
	pool_step(pool, (struct machine_event){.type = MACHINE_CLAIM, .waiter = &claim->waiter});
	return 0;
}

void pool_cancel(struct pool *pool, struct pool_claim *claim)
{
	count_claim(pool, claim, "canceled");
	if (!claim->ready) {
		pool_step(pool, (struct machine_event){.type = MACHINE_CANCEL, .waiter = &claim->waiter});
	} else {
		DL_DELETE(pool->ready, claim);
		if (claim->grant.member)
			pool_step(pool, (struct machine_event){.type = MACHINE_RETURN, .member = claim->grant.member});
	}
	free(claim);
}

void pool_release(struct pool *pool, struct pool_member *member)
{
	pool_forget_openings(pool, member);
	pool_step(pool, (struct machine_event){.type = MACHINE_RELEASE, .member = member, .opened = member->opened});
}

void pool_discard(struct pool *pool, struct pool_member *member)
{
	member->opened = true; /* as good as: what was made of it is not known */
	pool_release(pool, member);
}

struct sandbox *pool_keep(struct pool *pool, struct pool_member *member)
{
	if (member->foreign || !member->sandbox)
		return NULL;
	pool_forget_openings(pool, member);
	struct sandbox *sandbox = TAKE(member->sandbox);
	sandbox_on_lost(sandbox, NULL, NULL);
	pool_step(pool, (struct machine_event){.type = MACHINE_KEEP, .member = member});
	return sandbox;
}

void pool_kept(struct pool *pool, size_t total, size_t running)
{
	pool_step(pool, (struct machine_event){.type = MACHINE_KEPT, .kept = total, .running = running});
}

void pool_found(struct pool *pool, const char *name)
{
	if (!pool->leases.table.ops && member_name_belongs(name, pool->instance))
		pool_step(pool, (struct machine_event){.type = MACHINE_FOUND, .name = name});
}

int pool_admits(const struct pool *pool)
{
	if (pool->machine.stopping)
		return POOL_E_STOPPING;
	return spend_level(&pool->machine.spend) == SPEND_NOTHING ? POOL_E_BUDGET : 0;
}

const char *pool_member_name(const struct pool_member *member)
{
	return member->name;
}

void pool_stop(struct pool *pool, uint64_t deadline_ms, void (*on_stopped)(void *ctx, size_t left), void *ctx)
{
	if (!pool->machine.stopping) {
		pool->on_stopped = on_stopped;
		pool->stopped_ctx = ctx;
	}
	uint64_t now_us = pool_clock(pool);
	uint64_t deadline_us = deadline_ms < (UINT64_MAX - now_us) / 1000 ? now_us + deadline_ms * 1000 : UINT64_MAX;
	pool_step(pool, (struct machine_event){.type = MACHINE_STOP, .deadline_us = deadline_us});
	/* What is being made ready is of no use any more; its end may be a minute of attempts away. */
	if (pool->provider.ops->abandon)
		pool->provider.ops->abandon(pool->provider.self);
}

static void on_closed(uv_handle_t *handle)
{
	struct pool *pool = handle->data;
	if (--pool->handles)
		return;
	void (*on_freed)(void *) = pool->on_freed;
	void *ctx = pool->freed_ctx;
	machine_deinit(&pool->machine);
	free(pool);
	if (on_freed)
		on_freed(ctx);
}

static void forget_claims(struct pool *pool)
{
	struct pool_claim *claim, *next_claim;
	DL_FOREACH_SAFE (pool->ready, claim, next_claim)
		free(claim);
	pool->ready = NULL;
	struct machine_waiter *waiter, *next_waiter;
	DL_FOREACH_SAFE (pool->machine.waiters, waiter, next_waiter)
		free(CONTAINER_OF(waiter, struct pool_claim, waiter));
	pool->machine.waiters = NULL;
}

void pool_free(struct pool *pool, void (*on_freed)(void *ctx), void *ctx)
{
	pool->freeing = true;
	pool->on_freed = on_freed;
	pool->freed_ctx = ctx;
	forget_claims(pool);
	pool_forget_operations(pool);
	pool_forget_openings(pool, NULL);
	pool_leases_end(pool);
	for (int state = 0; state < POOL_STATES; state++) {
		struct pool_member *member;
		DL_FOREACH (pool->machine.roster.lists[state], member)
			pool_close_sandbox(member);
	}
	uv_close((uv_handle_t *)&pool->timer, on_closed);
	uv_close((uv_handle_t *)&pool->idle, on_closed);
	uv_close((uv_handle_t *)&pool->check, on_closed);
}

void pool_counts(const struct pool *pool, struct pool_counts *counts)
{
	const struct machine *machine = &pool->machine;
	*counts = (struct pool_counts){
		.total = roster_total(&machine->roster),
		.hot_target = machine->target.hot,
		.warm_target = machine->target.warm,
		.max = machine->options.sizing.max,
		.waiters = machine->waiting,
		.oldest_wait_us = machine->waiters ? pool_clock(pool) - machine->waiters->since_us : 0,
		.creation = gate_text(&machine->gate),
		.stopping = machine->stopping,
		.impossible = machine->roster.impossible,
		.stalled = machine_is_stalled(machine, pool_clock(pool)),
		.idle_us = machine->spend.idle_us,
		.spent_nusd = machine->spend.total_nusd,
		.hedges = machine->hedges,
	};
	for (int state = 0; state < POOL_GONE; state++)
		counts->members[state] = machine->roster.counts[state];
}
