/*
 * pool_leases_fixture - a shared pool on a real loop, with a provider and a keeper of records that answer when the test says so
 *
 * Only its test includes it.
 */
#pragma once

#include "gateway/pool/pool.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#define CALLS     32
#define SECOND_US UINT64_C(1000000)
#define NAME_A    "sg-other-0000-01hzzzzzzzzzzzzzzzzzzzzzzz"

struct sandbox {
	int unused;
};

void sandbox_start_ahead(struct sandbox *sandbox UNUSED)
{
}

void sandbox_on_lost(struct sandbox *sandbox, void (*on_lost)(void *ctx, const char *reason), void *ctx)
{
	(void)sandbox;
	(void)on_lost;
	(void)ctx;
}

void sandbox_close(struct sandbox *sandbox)
{
	free(sandbox);
}

/* An operation of the provider or of the records that waits for its answer. */
struct call {
	char verb[12];
	char name[PROVIDER_NAME_MAX + 1];
	provider_done provided;
	provider_found found;
	lease_done done;
	lease_adopted adopted;
	lease_struck struck;
	void *ctx;
	struct provider_fence fence;
};

struct fixture {
	uv_loop_t loop;
	struct pool *pool;
	uint64_t now_us;
	struct call calls[CALLS];
	size_t count;
	int refuse; /* what the records return instead of beginning */
	char said[1024];
	struct lease_report report; /* of the last beat */
	struct lease_listener listener;
	size_t granted, stopped, left, superseded, freed;
	struct pool_member *member; /* of the last grant */
};

static void say(struct fixture *f, const char *verb, const char *what)
{
	size_t len = strlen(f->said);
	snprintf(f->said + len, sizeof f->said - len, "%s%s%s ", verb, *what ? ":" : "", what);
}

static int add(struct fixture *f, struct call call, const char *verb, const char *name)
{
	assert_true(f->count < CALLS);
	snprintf(call.verb, sizeof call.verb, "%s", verb);
	snprintf(call.name, sizeof call.name, "%s", name);
	f->calls[f->count++] = call;
	say(f, verb, "");
	return 0;
}

/* --- the provider ----------------------------------------------------------------------------- */

#define PROVIDER_CALL(verb)                                                                 \
	static int fake_##verb(void *self, const char *name, provider_done done, void *ctx) \
	{                                                                                   \
		return add(self, (struct call){.provided = done, .ctx = ctx}, #verb, name); \
	}

PROVIDER_CALL(create)
PROVIDER_CALL(destroy)

static int fake_prepare(void *self, const char *name, struct provider_fence fence, provider_done done, void *ctx)
{
	return add(self, (struct call){.provided = done, .ctx = ctx, .fence = fence}, "prepare", name);
}

static int fake_wake(void *self, const char *name, struct provider_fence fence, provider_done done, void *ctx)
{
	return add(self, (struct call){.provided = done, .ctx = ctx, .fence = fence}, "wake", name);
}

static int fake_list(void *self, const char *prefix, provider_found found, provider_done done, void *ctx)
{
	return add(self, (struct call){.provided = done, .found = found, .ctx = ctx}, "list", prefix);
}

static const struct provider_ops provider_ops = {
	.create = fake_create, .prepare = fake_prepare, .wake = fake_wake, .destroy = fake_destroy, .list = fake_list};

/* --- the records ------------------------------------------------------------------------------ */

static int ask(void *self, const char *verb, const char *name, struct call call)
{
	struct fixture *f = self;
	return f->refuse ? f->refuse : add(f, call, verb, name);
}

static void fake_listen(void *self, const struct lease_listener *listener)
{
	((struct fixture *)self)->listener = listener ? *listener : (struct lease_listener){0};
}

static int fake_join(void *self, lease_done done, void *ctx)
{
	return ask(self, "join", "", (struct call){.done = done, .ctx = ctx});
}

static int fake_beat(void *self, const struct lease_report *report, lease_done done, void *ctx)
{
	assert_int_equal(report->hot_target, 1);
	((struct fixture *)self)->report = *report;
	return ask(self, "beat", "", (struct call){.done = done, .ctx = ctx});
}

static int fake_reserve(void *self, const struct lease_wish *wish, lease_done done, void *ctx)
{
	assert_int_equal(wish->max, 4);
	return ask(self, "reserve", wish->name, (struct call){.done = done, .ctx = ctx});
}

static void fake_note(void *self, const struct lease_record *record)
{
	say(self, "note", pool_state_name(record->state));
}

static void fake_forget(void *self, const char *name)
{
	(void)name;
	say(self, "forget", "");
}

static int fake_take(void *self, const struct lease_want *want, lease_done done, void *ctx)
{
	return ask(self, "take", want->name ? want->name : "", (struct call){.done = done, .ctx = ctx});
}

static int fake_run(void *self, const char *name, size_t running_limit, lease_done done, void *ctx)
{
	assert_int_equal(running_limit, 0);
	return ask(self, "run", name, (struct call){.done = done, .ctx = ctx});
}

static int fake_adopt(void *self, size_t most, bool own, lease_adopted found, lease_done done, void *ctx)
{
	assert_true(most > 0);
	return ask(self, own ? "adopt-own" : "adopt", "", (struct call){.done = done, .adopted = found, .ctx = ctx});
}

static int fake_sweep(void *self, const char *const *names, size_t count, lease_struck found, lease_done done, void *ctx)
{
	char text[16];
	snprintf(text, sizeof text, "%zu", count);
	say(self, "swept", count == 1 ? names[0] : text);
	return ask(self, "sweep", "", (struct call){.done = done, .struck = found, .ctx = ctx});
}

static int fake_restore(void *self, const struct lease_record *records, size_t count, lease_done done, void *ctx)
{
	for (size_t i = 0; i < count; i++)
		say(self, "again", pool_state_name(records[i].state));
	return ask(self, "restore", "", (struct call){.done = done, .ctx = ctx});
}

static int fake_leave(void *self, lease_done done, void *ctx)
{
	return ask(self, "leave", "", (struct call){.done = done, .ctx = ctx});
}

static const struct lease_ops lease_ops = {.listen = fake_listen,
					   .join = fake_join,
					   .beat = fake_beat,
					   .reserve = fake_reserve,
					   .note = fake_note,
					   .forget = fake_forget,
					   .take = fake_take,
					   .run = fake_run,
					   .adopt = fake_adopt,
					   .sweep = fake_sweep,
					   .restore = fake_restore,
					   .leave = fake_leave};

/* --- fixture ---------------------------------------------------------------------------------- */

static struct call take(struct fixture *f, const char *verb)
{
	for (size_t i = 0; i < f->count; i++) {
		struct call call = f->calls[i];
		if (strcmp(call.verb, verb) != 0)
			continue;
		memmove(&f->calls[i], &f->calls[i + 1], (--f->count - i) * sizeof call);
		return call;
	}
	fail_msg("no %s is under way; said: %s", verb, f->said);
	return (struct call){0};
}

/* Answers the oldest question of this kind. */
static void told(struct fixture *f, const char *verb, struct lease_result result)
{
	struct call call = take(f, verb);
	result.detail = "as the test says";
	call.done(call.ctx, &result);
}

static void acknowledged(struct fixture *f, const char *verb, struct lease_fleet fleet)
{
	told(f, verb, (struct lease_result){.fleet = &fleet});
}

static void provided(struct fixture *f, const char *verb, enum provider_code code)
{
	struct call call = take(f, verb);
	struct provider_result result = {.code = code, .detail = "as the test says"};
	if (code == PROVIDER_OK && (strcmp(verb, "prepare") == 0 || strcmp(verb, "wake") == 0))
		result.sandbox = calloc(1, sizeof(struct sandbox));
	call.provided(call.ctx, &result);
}

static void expect(struct fixture *f, const char *said)
{
	assert_string_equal(f->said, said);
	f->said[0] = '\0';
}

static uint64_t test_clock(void *ctx)
{
	return ((struct fixture *)ctx)->now_us;
}

static void pass(struct fixture *f, uint64_t seconds)
{
	f->now_us += seconds * SECOND_US;
	pool_tick(f->pool);
}

static void on_superseded(void *ctx)
{
	((struct fixture *)ctx)->superseded++;
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);
	if (!f || uv_loop_init(&f->loop) < 0)
		return -1;
	f->now_us = 100 * SECOND_US;
	struct pool_options options = {.loop = &f->loop,
				       .provider = {.ops = &provider_ops, .self = f},
				       .instance = "gw",
				       .recipe = SLICE("recipe"),
				       .sizing = {.hot = 1, .max = 4},
				       .max_waiters = 4,
				       .leases = {.ops = &lease_ops, .self = f},
				       .observer = {.on_superseded = on_superseded, .ctx = f},
				       .now_us = test_clock,
				       .now_ctx = f};
	f->pool = pool_new(&options);
	if (!f->pool)
		return -1;
	pool_start(f->pool);
	*state = f;
	return 0;
}

static void on_freed(void *ctx)
{
	((struct fixture *)ctx)->freed++;
}

/* What was asked is answered after the pool is gone. */
static int teardown(void **state)
{
	struct fixture *f = *state;
	pool_free(f->pool, on_freed, f);
	assert_null(f->listener.revoked);
	while (f->count && f->calls[0].done)
		told(f, f->calls[0].verb, (struct lease_result){.code = LEASE_LOST});
	while (f->count) {
		if (f->calls[0].provided)
			provided(f, f->calls[0].verb, PROVIDER_UNAVAILABLE);
		else
			told(f, f->calls[0].verb, (struct lease_result){.code = LEASE_LOST});
	}
	uv_run(&f->loop, UV_RUN_NOWAIT);
	assert_int_equal(f->freed, 1);
	int r = uv_loop_close(&f->loop);
	free(f);
	return r;
}

static void on_grant(void *ctx, const struct pool_grant *grant)
{
	struct fixture *f = ctx;
	f->granted += grant->code == 0;
	f->member = grant->member;
}

static size_t grants(struct fixture *f)
{
	uv_run(&f->loop, UV_RUN_NOWAIT);
	return f->granted;
}

/* One hot member, and a beat acknowledged just now. */
static void fill(struct fixture *f)
{
	acknowledged(f, "join", (struct lease_fleet){.instances = 1});
	told(f, "reserve", (struct lease_result){.code = LEASE_OK});
	provided(f, "create", PROVIDER_OK);
	provided(f, "prepare", PROVIDER_OK);
	f->said[0] = '\0';
}
