/*
 * pool_fixture - a pool on a real loop, with a provider that answers when the test says so and a clock that stands still
 *
 * Only its test includes it.
 */
#pragma once

#include "gateway/pool/pool.h"

#include "gateway/pool/member_name.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define CALLS 32

struct sandbox {
	void (*on_lost)(void *ctx, const char *reason);
	void *ctx;
};

static size_t open_sandboxes;

static struct sandbox *fake_sandbox(void)
{
	open_sandboxes++;
	return calloc(1, sizeof(struct sandbox));
}

void sandbox_start_ahead(struct sandbox *sandbox UNUSED)
{
}

void sandbox_on_lost(struct sandbox *sandbox, void (*on_lost)(void *ctx, const char *reason), void *ctx)
{
	sandbox->on_lost = on_lost;
	sandbox->ctx = ctx;
}

void sandbox_close(struct sandbox *sandbox)
{
	if (sandbox)
		open_sandboxes--;
	free(sandbox);
}

/* An operation that waits for its answer. */
struct call {
	const char *verb;
	char name[PROVIDER_NAME_MAX + 1];
	provider_found found;
	provider_done done;
	void *ctx;
};

struct answer {
	size_t count;
	struct pool_grant last;
	struct pool_member *member;
};

struct fixture {
	uv_loop_t loop;
	struct pool *pool;
	struct call calls[CALLS];
	size_t call_count;
	int refuse; /* what operations return instead of beginning */
	uint64_t now_us;
	char seen[512]; /* by the observer */
	size_t stopped, left, freed;
};

/* --- the provider ----------------------------------------------------------------------------- */

static int begin(struct fixture *f, const char *verb, const char *name, provider_found found, provider_done done, void *ctx)
{
	if (f->refuse)
		return f->refuse;
	assert_true(f->call_count < CALLS);
	struct call *call = &f->calls[f->call_count++];
	*call = (struct call){.verb = verb, .found = found, .done = done, .ctx = ctx};
	strcpy(call->name, name);
	return 0;
}

static int fake_create(void *self, const char *name, provider_done done, void *ctx)
{
	return begin(self, "create", name, NULL, done, ctx);
}

static int fake_prepare(void *self, const char *name, struct provider_fence fence UNUSED, provider_done done, void *ctx)
{
	return begin(self, "prepare", name, NULL, done, ctx);
}

static int fake_destroy(void *self, const char *name, provider_done done, void *ctx)
{
	return begin(self, "destroy", name, NULL, done, ctx);
}

static int fake_list(void *self, const char *prefix, provider_found found, provider_done done, void *ctx)
{
	return begin(self, "list", prefix, found, done, ctx);
}

static int fake_wake(void *self, const char *name, struct provider_fence fence UNUSED, provider_done done, void *ctx)
{
	return begin(self, "wake", name, NULL, done, ctx);
}

static const struct provider_ops fake_ops = {
	.create = fake_create, .prepare = fake_prepare, .wake = fake_wake, .destroy = fake_destroy, .list = fake_list};

/* The oldest operation of this kind that waits for its answer. */
static struct call *peek(struct fixture *f, const char *verb)
{
	for (size_t i = 0; i < f->call_count; i++)
		if (strcmp(f->calls[i].verb, verb) == 0)
			return &f->calls[i];
	fail_msg("no %s is under way", verb);
	return NULL;
}

static struct call take(struct fixture *f, const char *verb)
{
	struct call *at = peek(f, verb);
	struct call call = *at;
	memmove(at, at + 1, (size_t)(&f->calls[f->call_count] - (at + 1)) * sizeof *at);
	f->call_count--;
	return call;
}

static size_t count(const struct fixture *f, const char *verb)
{
	size_t n = 0;
	for (size_t i = 0; i < f->call_count; i++)
		n += strcmp(f->calls[i].verb, verb) == 0;
	return n;
}

/* Answers the oldest operation of this kind. */
static void answer(struct fixture *f, const char *verb, enum provider_code code)
{
	struct call call = take(f, verb);
	struct provider_result result = {.code = code, .detail = "as the test says"};
	if (code == PROVIDER_OK && strcmp(verb, "prepare") == 0)
		result.sandbox = fake_sandbox();
	call.done(call.ctx, &result);
}

/* --- fixture ---------------------------------------------------------------------------------- */

static uint64_t test_clock(void *ctx)
{
	return ((struct fixture *)ctx)->now_us;
}

static void note(struct fixture *f, const char *what, const char *detail)
{
	size_t len = strlen(f->seen);
	snprintf(f->seen + len, sizeof f->seen - len, "%s%s%s", what, detail, " ");
}

static void saw_claim(void *ctx, const char *what, uint64_t waited_us)
{
	char text[64];
	snprintf(text, sizeof text, "%s:%llu", what, (unsigned long long)waited_us);
	note(ctx, "claim:", text);
}

static void saw_create(void *ctx, enum provider_code code, uint64_t took_us)
{
	char text[64];
	snprintf(text, sizeof text, "%d:%llu", (int)code, (unsigned long long)took_us);
	note(ctx, "create:", text);
}

static void saw_prepare(void *ctx, enum provider_code code, uint64_t took_us)
{
	(void)took_us;
	note(ctx, "prepare:", code == PROVIDER_OK ? "ok" : code == PROVIDER_INVALID ? "invalid" : "failed");
}

static void saw_destroy(void *ctx, enum provider_code code, uint64_t took_us)
{
	(void)took_us;
	note(ctx, "destroy:", code == PROVIDER_OK ? "ok" : "failed");
}

static void saw_lost(void *ctx)
{
	note(ctx, "lost", "");
}

static struct pool_options options(struct fixture *f)
{
	return (struct pool_options){
		.loop = &f->loop,
		.provider = {.ops = &fake_ops, .self = f},
		.instance = "gw",
		.recipe = SLICE("recipe"),
		.sizing = {.hot = 1, .max = 4},
		.max_waiters = 4,
		.observer = {.on_claim = saw_claim,
			     .on_create = saw_create,
			     .on_prepare = saw_prepare,
			     .on_destroy = saw_destroy,
			     .on_lost = saw_lost,
			     .ctx = f},
		.now_us = test_clock,
		.now_ctx = f,
	};
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);
	if (!f || uv_loop_init(&f->loop) < 0)
		return -1;
	f->now_us = 1000000;
	open_sandboxes = 0;
	*state = f;
	return 0;
}

static void turn(struct fixture *f)
{
	uv_run(&f->loop, UV_RUN_NOWAIT);
}

static void on_freed(void *ctx)
{
	((struct fixture *)ctx)->freed++;
}

static void free_pool(struct fixture *f)
{
	pool_free(f->pool, on_freed, f);
	f->pool = NULL;
	while (f->call_count)
		answer(f, f->calls[0].verb, PROVIDER_UNAVAILABLE);
	turn(f);
	assert_int_equal(f->freed, 1);
	assert_int_equal(open_sandboxes, 0);
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	if (f->pool)
		free_pool(f);
	int r = uv_loop_close(&f->loop);
	free(f);
	return r;
}

static void start(struct fixture *f)
{
	struct pool_options o = options(f);
	f->pool = pool_new(&o);
	assert_non_null(f->pool);
	pool_start(f->pool);
}

static void start_hot(struct fixture *f)
{
	start(f);
	answer(f, "list", PROVIDER_OK);
	answer(f, "create", PROVIDER_OK);
	answer(f, "prepare", PROVIDER_OK);
	f->seen[0] = '\0';
}

static void on_done(void *ctx, const struct pool_grant *grant)
{
	struct answer *a = ctx;
	a->count++;
	a->last = *grant;
	a->member = grant->member;
}

static struct pool_claim *claim(struct fixture *f, uint64_t wait_ms, struct answer *a)
{
	struct pool_claim *c = NULL;
	assert_int_equal(pool_claim(f->pool, 1, wait_ms, on_done, a, &c), 0);
	assert_non_null(c);
	return c;
}

static size_t members(struct fixture *f, enum pool_state s)
{
	struct pool_counts counts;
	pool_counts(f->pool, &counts);
	return counts.members[s];
}

static void pass(struct fixture *f, uint64_t ms)
{
	f->now_us += ms * 1000;
	pool_tick(f->pool);
}
