#include "gateway/exec/run_parts.h"

#include "gateway/base/clock.h"
#include "gateway/base/log.h"

#include <errno.h>
#include <stdio.h>

#define OPEN_LEAST_MS 1000 /* the lease's 15 s have this left, after killing and checking */
#define TRIES         2

static uint64_t wait_left_ms(const struct run *run)
{
	uint64_t waited_ms = (clock_mono_us() - run->result.claim_start_us) / 1000;
	return waited_ms < run->owner->wait_ms ? run->owner->wait_ms - waited_ms : 0;
}

static void on_opened(void *ctx, const struct provider_result *result)
{
	struct run *run = ctx;
	uv_timer_stop(&run->timer);
	run->result.claim_us = clock_mono_us() - run->result.claim_start_us;
	if (result->code == PROVIDER_OK) {
		run_launch(run);
		return;
	}
	log_warning_of(&run->job->lease.subject, "exec: open the network of %s: %s", sandbox_name(run->sandbox), result->detail);
	run_try_again(run, "The sandbox's network could not be opened as the token says.");
}

/* Getting a Sprite and opening its network share the wait, but for a second: a Sprite may be ready at its very end. */
static void open_network(struct run *run)
{
	uint64_t left_ms = wait_left_ms(run);
	run_enter(run, OPENING, left_ms > OPEN_LEAST_MS ? left_ms : OPEN_LEAST_MS);
	if (pool_open_network(run->owner->pool, run->member, run->job->egress, on_opened, run) < 0)
		run_try_again(run, "The sandbox's network could not be opened as the token says.");
}

/* `code` is POOL_E_*. */
static void refuse_claim(struct run *run, int code, uint64_t retry_after_ms, const char *detail)
{
	bool late = code == POOL_E_UNAVAILABLE || code == POOL_E_DEADLINE, stopping = code == POOL_E_STOPPING;
	run_refuse(run, late ? EXEC_REFUSED_BY_PROVIDER : stopping ? EXEC_REFUSED_DRAINING : EXEC_REFUSED_CAPACITY, retry_after_ms, detail);
}

/* Its session's Sprite, with its network open as the token says. */
static void on_session(void *ctx, const struct session_use_result *result)
{
	struct run *run = ctx;
	run->result.claim_us = clock_mono_us() - run->result.claim_start_us;
	switch (result->code) {
	case SESSION_USE_READY:
		run->sandbox = result->sandbox;
		run->result.tier = result->tier;
		run->result.ready_from_us = result->ready_from_us;
		run->result.ready_us = result->ready_us;
		run->result.session_created = result->created;
		snprintf(run->result.sandbox, sizeof run->result.sandbox, "%s", result->sprite);
		snprintf(run->kept.sprite, sizeof run->kept.sprite, "%s", result->sprite);
		run_launch(run);
		break;
	case SESSION_USE_LOST:
		run_refuse(run, EXEC_REFUSED_SESSION_LOST, 0, result->detail);
		break;
	case SESSION_USE_REFUSED:
		refuse_claim(run, result->refusal, result->retry_after_ms, result->detail);
		break;
	case SESSION_USE_FAILED:
		run_refuse(run, EXEC_REFUSED_BY_PROVIDER, result->retry_after_ms, result->detail);
		break;
	}
}

static void on_granted(void *ctx, const struct pool_grant *grant)
{
	struct run *run = ctx;
	run->claim = NULL;
	run->result.claim_us = clock_mono_us() - run->result.claim_start_us;
	if (grant->code == 0) {
		run->member = grant->member;
		run->sandbox = grant->sandbox;
		run->result.tier = grant->tier;
		run->result.ready_from_us = grant->ready_from_us;
		run->result.ready_us = grant->ready_us;
		snprintf(run->result.sandbox, sizeof run->result.sandbox, "%s", pool_member_name(grant->member));
		if (run->job->egress[0])
			open_network(run);
		else
			run_launch(run);
		return;
	}
	refuse_claim(run, grant->code, grant->retry_after_ms, grant->detail);
}

/* Who claims, for the pool: FNV-1a of the token's public id, which is random and made by us. */
static uint64_t tenant_of(const struct exec_job *job)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325);
	for (const char *c = job->lease.kid; *c; c++)
		hash = (hash ^ (unsigned char)*c) * UINT64_C(0x100000001b3);
	return hash;
}

int run_claim(struct run *run)
{
	const struct run_owner *owner = run->owner;
	if (!run->session.name[0])
		return pool_claim(owner->pool, tenant_of(run->job), wait_left_ms(run), on_granted, run, &run->claim);
	const struct session_want want = {.ref = run->session,
					  .session = run->kept,
					  .egress = run->job->egress,
					  .tenant = tenant_of(run->job),
					  .wait_ms = wait_left_ms(run)};
	run->use = session_use_start(owner->sessions, &want, on_session, run);
	return run->use ? 0 : -ENOMEM;
}

/* Both tries share the wait: the lease has 15 s more than the command for it, for killing and for settling. */
static void start_claim(struct run *run)
{
	run->state = CLAIMING;
	run->tries++;
	if (run_claim(run) < 0)
		run_refuse(run, EXEC_REFUSED_BY_PROVIDER, 1000, "The gateway is out of memory.");
}

void run_try_again(struct run *run, const char *reason)
{
	if (run->use)
		session_use_end(run->use, false);
	else
		pool_release(run->owner->pool, run->member);
	run->use = NULL;
	run->member = NULL;
	run->sandbox = NULL;
	run->result.run_start_us = 0;
	uv_timer_stop(&run->timer);
	if (feed_rewind(&run->feed) && run->tries < TRIES)
		start_claim(run);
	else
		run_refuse(run, EXEC_REFUSED_BY_PROVIDER, 1000, reason);
}
