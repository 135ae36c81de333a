#include "gateway/pool/pool_parts.h"

#include "gateway/base/clock.h"
#include "gateway/base/id.h"
#include "gateway/base/log.h"
#include "gateway/pool/member_name.h"

#include <errno.h>
#include <stdlib.h>
#include <utlist.h>

static const struct {
	const char *text;
	enum machine_event_type event;
} verbs[] = {
	[POOL_VERB_CREATE] = {"create", MACHINE_CREATED},     [POOL_VERB_PREPARE] = {"prepare", MACHINE_PREPARED},
	[POOL_VERB_WAKE] = {"wake", MACHINE_PREPARED},        [POOL_VERB_RESTORE] = {"restore", MACHINE_RESTORED},
	[POOL_VERB_DESTROY] = {"destroy", MACHINE_DESTROYED}, [POOL_VERB_LIST] = {"list", MACHINE_LISTED},
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
	} else if (result->code == PROVIDER_TAKEN) {
		log_error("pool: %s %s: not used, another gateway had taken it before: Redis has lost what it had acknowledged", verb,
			  name);
	} else {
		log_warning("pool: %s %s: %s", verb, name, result->detail);
	}
}

static void observe(struct pool *pool, enum pool_verb verb, enum provider_code code, uint64_t took_us)
{
	const struct pool_observer *observer = &pool->observer;
	void (*const calls[])(void *, enum provider_code,
			      uint64_t) = {[POOL_VERB_CREATE] = observer->on_create,   [POOL_VERB_PREPARE] = observer->on_prepare,
					   [POOL_VERB_WAKE] = observer->on_wake,       [POOL_VERB_RESTORE] = observer->on_restore,
					   [POOL_VERB_DESTROY] = observer->on_destroy, [POOL_VERB_LIST] = NULL};
	if (calls[verb])
		calls[verb](observer->ctx, code, took_us);
}

/* The claim that this member was granted to and whose answer has not gone out yet; NULL without. */
static struct pool_claim *undelivered(const struct pool *pool, const struct pool_member *member)
{
	struct pool_claim *claim;
	DL_FOREACH (pool->ready, claim)
		if (claim->grant.member == member)
			return claim;
	return NULL;
}

static void on_lost(void *ctx, const char *reason UNUSED)
{
	struct pool_member *member = ctx;
	struct pool *pool = member->pool;
	struct pool_claim *claim = undelivered(pool, member);
	if (member->state != POOL_HOT && !claim)
		return;
	if (pool->observer.on_lost)
		pool->observer.on_lost(pool->observer.ctx);
	if (claim) {
		DL_DELETE(pool->ready, claim);
		claim->ready = false;
	}
	pool_step(pool, (struct machine_event){.type = MACHINE_LOST, .member = member, .waiter = claim ? &claim->waiter : NULL});
}

static void take_sandbox(struct pool *pool, struct pool_member *member, struct sandbox *sandbox)
{
	member->pool = pool;
	member->sandbox = sandbox;
	member->opened = false;
	sandbox_on_lost(sandbox, on_lost, member);
	sandbox_start_ahead(sandbox);
}

static bool makes_sandbox(enum pool_verb verb)
{
	return verb == POOL_VERB_PREPARE || verb == POOL_VERB_WAKE || verb == POOL_VERB_RESTORE;
}

static void note_times(const struct pool *pool, struct pool_member *member, const struct pool_operation *operation)
{
	bool after_creation = operation->verb == POOL_VERB_PREPARE && member->ready_from_us;
	if (makes_sandbox(operation->verb))
		member->ready_us = pool_clock(pool);
	if (operation->verb != POOL_VERB_DESTROY && !after_creation)
		member->ready_from_us = operation->asked_us;
}

static void finish(struct pool *pool, const struct pool_operation *operation, const struct provider_result *result, bool unsent)
{
	static const struct provider_result no_sandbox = {.code = PROVIDER_INVALID, .detail = "prepared without a sandbox"};
	struct pool_member *member = operation->member;
	enum pool_verb verb = operation->verb;
	if (makes_sandbox(verb) && result->code == PROVIDER_OK && !result->sandbox)
		result = &no_sandbox;
	if (result->code == PROVIDER_OK)
		pool->unauthorized = false;
	else
		log_failure(pool, verbs[verb].text, member ? member->name : pool->instance, result);
	if (makes_sandbox(verb) && result->code == PROVIDER_OK)
		take_sandbox(pool, member, result->sandbox);
	if (member)
		note_times(pool, member, operation);
	observe(pool, verb, result->code, pool_clock(pool) - operation->asked_us);
	if (verb == POOL_VERB_LIST && pool->leases.table.ops && result->code == PROVIDER_OK && !unsent)
		pool_leases_listed(pool);
	pool_step(pool, (struct machine_event){.type = verbs[verb].event,
					       .member = member,
					       .code = result->code,
					       .retry_after_ms = result->retry_after_ms,
					       .limit = result->limit,
					       .unsent = unsent,
					       .unanswered = result->unanswered});
}

static void on_answer(void *ctx, const struct provider_result *result)
{
	CLEANUP(free_ptr) struct pool_operation *operation = ctx;
	struct pool *pool = operation->pool;
	if (pool) {
		DL_DELETE(pool->operations, operation);
		finish(pool, operation, result, false);
	} else if (makes_sandbox(operation->verb) && result->code == PROVIDER_OK) {
		sandbox_close(result->sandbox);
	}
}

static void on_found(void *ctx, const char *name, bool ours)
{
	struct pool *pool = ((struct pool_operation *)ctx)->pool;
	if (pool && pool->leases.table.ops)
		pool_leases_found(pool, name, ours);
	else if (pool && !(pool->is_kept && pool->is_kept(pool->kept_ctx, name)))
		pool_found(pool, name);
}

static int begin(struct pool *pool, struct pool_operation *operation)
{
	const struct provider_ops *ops = pool->provider.ops;
	void *self = pool->provider.self;
	char prefix[MEMBER_NAME_PREFIX_MAX + 1];
	switch (operation->verb) {
	case POOL_VERB_CREATE:
		return ops->create(self, operation->member->name, on_answer, operation);
	case POOL_VERB_PREPARE:
		return ops->prepare(self, operation->member->name, operation->member->fence, on_answer, operation);
	case POOL_VERB_WAKE:
		return ops->wake(self, operation->member->name, operation->member->fence, on_answer, operation);
	case POOL_VERB_RESTORE:
		return ops->restore(self, operation->member->name, operation->member->fence, on_answer, operation);
	case POOL_VERB_DESTROY:
		return ops->destroy(self, operation->member->name, on_answer, operation);
	case POOL_VERB_LIST:
		break;
	}
	member_name_prefix(prefix, pool->instance);
	if (pool->leases.table.ops)
		pool_leases_listing(pool);
	return ops->list(self, pool->leases.table.ops ? MEMBER_NAME_ALL : prefix, on_found, on_answer, operation);
}

int pool_name_member(struct pool *pool, struct pool_member *member)
{
	char ulid[ID_ULID_LEN + 1];
	int r = id_ulid(ulid, clock_wall_ms());
	if (r == 0)
		member_name_make(member->name, pool->instance, pool->gen, ulid);
	return r;
}

void pool_operate(struct pool *pool, struct pool_member *member, enum pool_verb verb)
{
	struct pool_operation asked = {.pool = pool, .member = member, .verb = verb, .asked_us = pool_clock(pool)};
	CLEANUP(free_ptr) struct pool_operation *operation = malloc(sizeof *operation);
	int r = operation ? 0 : -ENOMEM;
	if (r == 0 && verb == POOL_VERB_CREATE && !member->name[0])
		r = pool_name_member(pool, member);
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
struct pool_opening {
	struct pool_opening *prev, *next;
	struct pool *pool;
	const struct pool_member *member;
	pool_opened done;
	void *ctx;
};

static void on_opened(void *ctx, const struct provider_result *result)
{
	CLEANUP(free_ptr) struct pool_opening *opening = ctx;
	if (!opening->pool)
		return;
	DL_DELETE(opening->pool->openings, opening);
	opening->done(opening->ctx, result);
}

int pool_open_network(struct pool *pool, struct pool_member *member, const char *profile, pool_opened done, void *ctx)
{
	const struct provider *provider = &pool->provider;
	struct pool_opening *opening = calloc(1, sizeof *opening);
	if (!opening)
		return -ENOMEM;
	*opening = (struct pool_opening){.pool = pool, .member = member, .done = done, .ctx = ctx};
	member->opened = true;
	int r = provider->ops->open_network(provider->self, member->name, profile, on_opened, opening);
	if (r < 0)
		free(opening);
	else
		DL_APPEND(pool->openings, opening);
	return r;
}

void pool_forget_openings(struct pool *pool, const struct pool_member *member)
{
	struct pool_opening *opening, *next;
	DL_FOREACH_SAFE (pool->openings, opening, next) {
		if (member && opening->member != member)
			continue;
		DL_DELETE(pool->openings, opening);
		opening->pool = NULL;
	}
}

void pool_close_sandbox(struct pool_member *member)
{
	struct sandbox *sandbox = TAKE(member->sandbox);
	sandbox_close(sandbox);
}

void pool_forget_operations(struct pool *pool)
{
	struct pool_operation *operation;
	DL_FOREACH (pool->operations, operation)
		operation->pool = NULL;
}
