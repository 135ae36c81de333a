#include "gateway/pool/pool.h"

#include "gateway/base/clock.h"
#include "gateway/base/id.h"
#include "gateway/base/log.h"
#include "gateway/pool/machine.h"
#include "gateway/pool/member_name.h"

#include <errno.h>
#include <stdlib.h>
#include <utlist.h>

#define MAX_AGE_DEFAULT_MS (UINT64_C(6) * 3600 * 1000)
#define HANDLES            3

struct pool_claim {
	struct machine_waiter waiter; /* in the machine's queue until `ready` */
	struct pool_claim *prev, *next;
	pool_claim_done done;
	void *ctx;
	struct pool_grant grant;
	bool ready;
};

struct operation;
struct opening;

struct pool {
	struct provider provider;
	struct pool_observer observer;
	uint64_t (*now_us)(void *ctx);
	void *now_ctx;
	char instance[MEMBER_NAME_INSTANCE_MAX + 1];
	char gen[MEMBER_NAME_GEN_LEN + 1];
	struct machine machine;
	uv_timer_t timer;
	/* Answers go out in `check`, after the poll; `idle` keeps that poll from blocking. Neither costs a system call. */
	uv_idle_t idle;
	uv_check_t check;
	struct pool_claim *ready;
	uint64_t armed_us;
	uint64_t impossible; /* as told to the observer so far */
	struct operation *operations;
	struct opening *openings;
	size_t handles;
	bool acting, unauthorized, stopped, freeing;
	size_t left;
	void (*on_stopped)(void *ctx, size_t left);
	void *stopped_ctx;
	void (*on_freed)(void *ctx);
	void *freed_ctx;
};

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

static uint64_t read_clock(const struct pool *pool)
{
	return pool->now_us ? pool->now_us(pool->now_ctx) : clock_mono_us();
}

static void step(struct pool *pool, struct machine_event event);

/* --- answers to claims ------------------------------------------------------------------------ */

static void on_idle(uv_idle_t *idle)
{
	(void)idle;
}

static void count_claim(struct pool *pool, const struct pool_claim *claim, const char *what)
{
	if (pool->observer.on_claim)
		pool->observer.on_claim(pool->observer.ctx, what, read_clock(pool) - claim->waiter.since_us);
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

static void wake(struct pool *pool)
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
	wake(pool);
}

static void answer_grant(struct pool *pool, const struct machine_action *action)
{
	answer(pool, action->waiter,
	       (struct pool_grant){.member = action->member,
				   .sandbox = action->member->sandbox,
				   .tier = pool_tier_name(action->tier),
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

/* --- operations of the provider --------------------------------------------------------------- */

enum verb { CREATE, PREPARE, WAKE, RESTORE, DESTROY, LIST };

static const struct {
	const char *text;
	enum machine_event_type event;
} verbs[] = {
	[CREATE] = {"create", MACHINE_CREATED},
	[PREPARE] = {"prepare", MACHINE_PREPARED},
	[WAKE] = {"wake", MACHINE_PREPARED},
	[RESTORE] = {"restore", MACHINE_RESTORED},
	[DESTROY] = {"destroy", MACHINE_DESTROYED},
	[LIST] = {"list", MACHINE_LISTED},
};

/* What the provider has not answered yet. It cannot be taken back, so it may outlive the pool: `pool` is NULL then. */
struct operation {
	struct operation *prev, *next;
	struct pool *pool;
	struct pool_member *member; /* NULL for a listing */
	enum verb verb;
	uint64_t asked_us;
};

/* A wrong token makes every operation fail: said once, until something works again. */
static void log_failure(struct pool *pool, const char *verb, const char *name, const struct provider_result *result)
{
	if (result->code == PROVIDER_UNAUTHORIZED) {
		if (!pool->unauthorized)
			log_error("pool: %s %s: the provider refuses our token: %s", verb, name, result->detail);
		pool->unauthorized = true;
	} else if (result->code == PROVIDER_POLICY) {
		log_error("pool: %s %s: not used, its network could not be closed: %s", verb, name, result->detail);
	} else {
		log_warning("pool: %s %s: %s", verb, name, result->detail);
	}
}

static void observe(struct pool *pool, enum verb verb, enum provider_code code, uint64_t took_us)
{
	const struct pool_observer *observer = &pool->observer;
	void (*const calls[])(void *, enum provider_code, uint64_t) = {
		[CREATE] = observer->on_create,   [PREPARE] = observer->on_prepare, [WAKE] = observer->on_wake,
		[RESTORE] = observer->on_restore, [DESTROY] = observer->on_destroy, [LIST] = NULL};
	if (calls[verb])
		calls[verb](observer->ctx, code, took_us);
}

/* The claim that this member was granted to and whose answer has not gone out yet; NULL without. */
static struct pool_claim *undelivered(const struct pool *pool, const struct pool_member *member)
{
	struct pool_claim *claim;
	DL_FOREACH(pool->ready, claim)
		if (claim->grant.member == member)
			return claim;
	return NULL;
}

static void on_lost(void *ctx, const char *reason)
{
	struct pool_member *member = ctx;
	struct pool *pool = member->pool;
	struct pool_claim *claim = undelivered(pool, member);
	if (member->state != POOL_HOT && !claim)
		return;
	log_debug("pool: lost the channel of %s: %s", member->name, reason);
	if (pool->observer.on_lost)
		pool->observer.on_lost(pool->observer.ctx);
	if (claim) {
		DL_DELETE(pool->ready, claim);
		claim->ready = false;
	}
	step(pool, (struct machine_event){.type = MACHINE_LOST, .member = member, .waiter = claim ? &claim->waiter : NULL});
}

static void take_sandbox(struct pool *pool, struct pool_member *member, struct sandbox *sandbox)
{
	member->pool = pool;
	member->sandbox = sandbox;
	member->opened = false;
	sandbox_on_lost(sandbox, on_lost, member);
}

static bool makes_sandbox(enum verb verb)
{
	return verb == PREPARE || verb == WAKE || verb == RESTORE;
}

static void finish(struct pool *pool, const struct operation *operation, const struct provider_result *result,
		   bool unsent)
{
	static const struct provider_result no_sandbox = {.code = PROVIDER_INVALID, .detail = "prepared without a sandbox"};
	struct pool_member *member = operation->member;
	enum verb verb = operation->verb;
	if (makes_sandbox(verb) && result->code == PROVIDER_OK && !result->sandbox)
		result = &no_sandbox;
	if (result->code == PROVIDER_OK)
		pool->unauthorized = false;
	else
		log_failure(pool, verbs[verb].text, member ? member->name : pool->instance, result);
	if (makes_sandbox(verb) && result->code == PROVIDER_OK)
		take_sandbox(pool, member, result->sandbox);
	observe(pool, verb, result->code, read_clock(pool) - operation->asked_us);
	step(pool, (struct machine_event){.type = verbs[verb].event,
					  .member = member,
					  .code = result->code,
					  .retry_after_ms = result->retry_after_ms,
					  .limit = result->limit,
					  .unsent = unsent,
					  .unanswered = result->unanswered});
}

static void on_answer(void *ctx, const struct provider_result *result)
{
	CLEANUP(free_ptr) struct operation *operation = ctx;
	struct pool *pool = operation->pool;
	if (pool) {
		DL_DELETE(pool->operations, operation);
		finish(pool, operation, result, false);
	} else if (makes_sandbox(operation->verb) && result->code == PROVIDER_OK) {
		sandbox_close(result->sandbox);
	}
}

static void on_found(void *ctx, const char *name)
{
	struct pool *pool = ((struct operation *)ctx)->pool;
	if (pool && member_name_belongs(name, pool->instance))
		step(pool, (struct machine_event){.type = MACHINE_FOUND, .name = name});
}

static int begin(struct pool *pool, struct operation *operation)
{
	const struct provider_ops *ops = pool->provider.ops;
	void *self = pool->provider.self;
	char prefix[MEMBER_NAME_PREFIX_MAX + 1];
	switch (operation->verb) {
	case CREATE:
		return ops->create(self, operation->member->name, on_answer, operation);
	case PREPARE:
		return ops->prepare(self, operation->member->name, on_answer, operation);
	case WAKE:
		return ops->wake(self, operation->member->name, on_answer, operation);
	case RESTORE:
		return ops->restore(self, operation->member->name, on_answer, operation);
	case DESTROY:
		return ops->destroy(self, operation->member->name, on_answer, operation);
	case LIST:
		break;
	}
	member_name_prefix(prefix, pool->instance);
	return ops->list(self, prefix, on_found, on_answer, operation);
}

static int name_member(struct pool *pool, struct pool_member *member)
{
	char ulid[ID_ULID_LEN + 1];
	int r = id_ulid(ulid, clock_wall_ms());
	if (r == 0)
		member_name_make(member->name, pool->instance, pool->gen, ulid);
	return r;
}

static void ask(struct pool *pool, struct pool_member *member, enum verb verb)
{
	struct operation asked = {.pool = pool, .member = member, .verb = verb, .asked_us = read_clock(pool)};
	CLEANUP(free_ptr) struct operation *operation = malloc(sizeof *operation);
	int r = operation ? 0 : -ENOMEM;
	if (r == 0 && verb == CREATE)
		r = name_member(pool, member);
	if (r == 0) {
		*operation = asked;
		r = begin(pool, operation);
	}
	if (r < 0) {
		struct provider_result failed = {.code = PROVIDER_UNAVAILABLE, .detail = uv_strerror(r)};
		finish(pool, &asked, &failed, true);
		return;
	}
	DL_APPEND(pool->operations, operation);
	operation = NULL;
}

/* --- opening a network ------------------------------------------------------------------------ */

/* As an operation, it may outlive the pool, and the claim: `pool` is NULL then. */
struct opening {
	struct opening *prev, *next;
	struct pool *pool;
	const struct pool_member *member;
	pool_opened done;
	void *ctx;
};

static void on_opened(void *ctx, const struct provider_result *result)
{
	CLEANUP(free_ptr) struct opening *opening = ctx;
	if (!opening->pool)
		return;
	DL_DELETE(opening->pool->openings, opening);
	if (result->code != PROVIDER_OK)
		log_warning("pool: open %s: %s", opening->member->name, result->detail);
	opening->done(opening->ctx, result->code);
}

int pool_open_network(struct pool *pool, struct pool_member *member, const char *profile, pool_opened done, void *ctx)
{
	const struct provider *provider = &pool->provider;
	struct opening *opening = calloc(1, sizeof *opening);
	if (!opening)
		return -ENOMEM;
	*opening = (struct opening){.pool = pool, .member = member, .done = done, .ctx = ctx};
	member->opened = true;
	int r = provider->ops->open_network(provider->self, member->name, profile, on_opened, opening);
	if (r < 0)
		free(opening);
	else
		DL_APPEND(pool->openings, opening);
	return r;
}

/* `member` NULL: all. */
static void forget_openings(struct pool *pool, const struct pool_member *member)
{
	struct opening *opening, *next;
	DL_FOREACH_SAFE(pool->openings, opening, next) {
		if (member && opening->member != member)
			continue;
		DL_DELETE(pool->openings, opening);
		opening->pool = NULL;
	}
}

static void do_close(struct pool_member *member)
{
	struct sandbox *sandbox = TAKE(member->sandbox);
	sandbox_close(sandbox);
}

/* --- the machine's driver --------------------------------------------------------------------- */

static void carry_out(struct pool *pool, const struct machine_action *action)
{
	switch (action->type) {
	case MACHINE_DO_LIST:
		ask(pool, NULL, LIST);
		break;
	case MACHINE_DO_CREATE:
		ask(pool, action->member, CREATE);
		break;
	case MACHINE_DO_PREPARE:
		ask(pool, action->member, PREPARE);
		break;
	case MACHINE_DO_WAKE:
		ask(pool, action->member, WAKE);
		break;
	case MACHINE_DO_RESTORE:
		ask(pool, action->member, RESTORE);
		break;
	case MACHINE_DO_CLOSE:
		do_close(action->member);
		break;
	case MACHINE_DO_DESTROY:
		ask(pool, action->member, DESTROY);
		break;
	case MACHINE_DO_GRANT:
		answer_grant(pool, action);
		break;
	case MACHINE_DO_REFUSE:
		answer_refusal(pool, action);
		break;
	case MACHINE_DO_STOPPED:
		pool->stopped = true;
		pool->left = action->left;
		wake(pool);
		break;
	case MACHINE_DO_RESERVE:
	case MACHINE_DO_TAKE:
	case MACHINE_DO_NOTE:
	case MACHINE_DO_FORGET:
	case MACHINE_DO_ADOPT:
	case MACHINE_DO_REVOKE:
		break; /* of a shared pool */
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
	uint64_t due_us = machine_next_due(&pool->machine);
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

static void step(struct pool *pool, struct machine_event event)
{
	uint64_t now_us = read_clock(pool);
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
	step(pool, (struct machine_event){.type = MACHINE_TICK});
}

uint64_t pool_next_due(const struct pool *pool)
{
	return machine_next_due(&pool->machine);
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
	step(pool, (struct machine_event){.type = MACHINE_START});
}

void pool_intent(struct pool *pool, uint64_t for_ms)
{
	step(pool, (struct machine_event){.type = MACHINE_INTENT, .deadline_us = read_clock(pool) + for_ms * 1000});
}

int pool_claim(struct pool *pool, uint64_t tenant, uint64_t wait_ms, pool_claim_done done, void *ctx,
	       struct pool_claim **claim_out)
{
	struct pool_claim *claim = calloc(1, sizeof *claim);
	if (!claim)
		return -ENOMEM;
	uint64_t now_us = read_clock(pool);
	claim->done = done;
	claim->ctx = ctx;
	claim->waiter.tenant = tenant;
	claim->waiter.deadline_us = wait_ms < (UINT64_MAX - now_us) / 1000 ? now_us + wait_ms * 1000 : UINT64_MAX;
	*claim_out = claim;
	step(pool, (struct machine_event){.type = MACHINE_CLAIM, .waiter = &claim->waiter});
	return 0;
}

void pool_cancel(struct pool *pool, struct pool_claim *claim)
{
	count_claim(pool, claim, "canceled");
	if (!claim->ready) {
		step(pool, (struct machine_event){.type = MACHINE_CANCEL, .waiter = &claim->waiter});
	} else {
		DL_DELETE(pool->ready, claim);
		if (claim->grant.member)
			step(pool, (struct machine_event){.type = MACHINE_RETURN, .member = claim->grant.member});
	}
	free(claim);
}

void pool_release(struct pool *pool, struct pool_member *member)
{
	forget_openings(pool, member);
	step(pool, (struct machine_event){.type = MACHINE_RELEASE, .member = member, .opened = member->opened});
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
	uint64_t now_us = read_clock(pool);
	uint64_t deadline_us = deadline_ms < (UINT64_MAX - now_us) / 1000 ? now_us + deadline_ms * 1000 : UINT64_MAX;
	step(pool, (struct machine_event){.type = MACHINE_STOP, .deadline_us = deadline_us});
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
	DL_FOREACH_SAFE(pool->ready, claim, next_claim)
		free(claim);
	pool->ready = NULL;
	struct machine_waiter *waiter, *next_waiter;
	DL_FOREACH_SAFE(pool->machine.waiters, waiter, next_waiter)
		free(CONTAINER_OF(waiter, struct pool_claim, waiter));
	pool->machine.waiters = NULL;
}

void pool_free(struct pool *pool, void (*on_freed)(void *ctx), void *ctx)
{
	pool->freeing = true;
	pool->on_freed = on_freed;
	pool->freed_ctx = ctx;
	forget_claims(pool);
	struct operation *operation;
	DL_FOREACH(pool->operations, operation)
		operation->pool = NULL;
	forget_openings(pool, NULL);
	for (int state = 0; state < POOL_STATES; state++) {
		struct pool_member *member;
		DL_FOREACH(pool->machine.roster.lists[state], member)
			do_close(member);
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
		.oldest_wait_us = machine->waiters ? read_clock(pool) - machine->waiters->since_us : 0,
		.creation = gate_text(&machine->gate),
		.stopping = machine->stopping,
		.impossible = machine->roster.impossible,
		.stalled = machine_is_stalled(machine, read_clock(pool)),
		.idle_us = machine->spend.idle_us,
		.spent_nusd = machine->spend.total_nusd,
		.hedges = machine->hedges,
	};
	for (int state = 0; state < POOL_GONE; state++)
		counts->members[state] = machine->roster.counts[state];
}
