/*
 * The driver of a shared pool: what it asks of and tells whoever keeps the records, and when.
 */
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

/* --- tests ------------------------------------------------------------------------------------ */

static void it_joins_before_it_fills(void **state)
{
	struct fixture *f = *state;
	expect(f, "join ");
	acknowledged(f, "join", (struct lease_fleet){.instances = 1});
	expect(f, "reserve ");
	told(f, "reserve", (struct lease_result){.code = LEASE_OK});
	expect(f, "note:creating create ");
	provided(f, "create", PROVIDER_OK);
	expect(f, "note:preparing prepare ");
	provided(f, "prepare", PROVIDER_OK);
	expect(f, "note:hot ");
}

static void it_beats(void **state)
{
	struct fixture *f = *state;
	fill(f);
	pass(f, 4);
	expect(f, "");
	pass(f, 1);
	expect(f, "beat ");
	pass(f, 20); /* one at a time */
	expect(f, "");
	told(f, "beat", (struct lease_result){.code = LEASE_LOST});
	pass(f, 0);
	expect(f, "beat ");
}

static void it_joins_until_it_is_heard(void **state)
{
	struct fixture *f = *state;
	expect(f, "join ");
	told(f, "join", (struct lease_result){.code = LEASE_LOST});
	expect(f, "");
	f->refuse = -ENOMEM;
	pass(f, 1);
	f->refuse = 0;
	pass(f, 1);
	expect(f, "join ");
}

static void nothing_is_granted_without_a_young_beat(void **state)
{
	struct fixture *f = *state;
	struct pool_claim *claim;
	fill(f);
	pass(f, 5);
	f->now_us += 7 * SECOND_US;
	acknowledged(f, "beat", (struct lease_fleet){.instances = 1, .own = 1, .total = 1});
	/* It counts from when it was sent. */
	f->now_us += 3 * SECOND_US;
	assert_int_equal(pool_claim(f->pool, 1, 60000, on_grant, f, &claim), 0);
	assert_int_equal(grants(f), 0);
	pass(f, 0);
	acknowledged(f, "beat", (struct lease_fleet){.instances = 1, .own = 1, .total = 1});
	assert_int_equal(grants(f), 1);
}

static void a_session_that_has_ended_gives_up_what_is_idle(void **state)
{
	struct fixture *f = *state;
	fill(f);
	pass(f, 5);
	f->said[0] = '\0';
	told(f, "beat", (struct lease_result){.code = LEASE_FENCED});
	expect(f, "join destroy "); /* its record is another's: nothing is noted */
	f->listener.fenced(f->listener.ctx); /* said once */
	expect(f, "");
	acknowledged(f, "join", (struct lease_fleet){.instances = 1});
	expect(f, "reserve ");
}

static void after_a_flush_what_we_have_is_written_again(void **state)
{
	struct fixture *f = *state;
	fill(f);
	f->listener.flushed(f->listener.ctx);
	expect(f, "join ");
	acknowledged(f, "join", (struct lease_fleet){.instances = 1, .own = 0, .recovering = true});
	expect(f, "again:hot restore adopt-own ");
}

static void a_list_goes_to_the_sweep(void **state)
{
	struct fixture *f = *state;
	fill(f);
	pass(f, 5);
	acknowledged(f, "beat", (struct lease_fleet){.instances = 1, .own = 1, .total = 1, .list = true});
	expect(f, "beat list ");
	struct call list = take(f, "list");
	assert_string_equal(list.name, "sg-");
	list.found(list.ctx, "sg-stranger", false);
	list.found(list.ctx, NAME_A, true);
	list.provided(list.ctx, &(struct provider_result){.detail = ""});
	expect(f, "swept:" NAME_A " sweep ");
	struct call sweep = take(f, "sweep");
	sweep.struck(sweep.ctx, NAME_A, false);
	expect(f, "destroy ");
	sweep.done(sweep.ctx, &(struct lease_result){.detail = ""});
	provided(f, "destroy", PROVIDER_OK);
	expect(f, "forget ");
}

static void what_others_left_is_adopted(void **state)
{
	struct fixture *f = *state;
	fill(f);
	pass(f, 5);
	acknowledged(f, "beat", (struct lease_fleet){.instances = 1, .own = 1, .total = 2, .ended = 1});
	expect(f, "beat adopt ");
	struct call adopt = take(f, "adopt");
	adopt.adopted(adopt.ctx, &(struct lease_record){.name = NAME_A, .state = POOL_DESTROYING});
	expect(f, "destroy ");
	adopt.done(adopt.ctx, &(struct lease_result){.detail = ""});
}

/* Its only member is in use; the name of it. */
static const char *claim_it(struct fixture *f)
{
	struct pool_claim *claim;
	fill(f);
	assert_int_equal(pool_claim(f->pool, 1, 60000, on_grant, f, &claim), 0);
	assert_int_equal(grants(f), 1);
	told(f, "reserve", (struct lease_result){.code = LEASE_REFUSED, .refusal = LEASE_FULL, .retry_after_ms = 60000});
	return pool_member_name(f->member);
}

static void what_became_a_sessions_meanwhile_is_let_alone(void **state)
{
	struct fixture *f = *state;
	struct lease_record record = {.state = POOL_LEASED};
	snprintf(record.name, sizeof record.name, "%s", claim_it(f));
	pass(f, 5);
	/* A record more than we know of, so all are asked for. */
	acknowledged(f, "beat", (struct lease_fleet){.instances = 1, .own = 2, .total = 2});
	struct call adopt = take(f, "adopt-own");
	struct sandbox *sandbox = pool_keep(f->pool, f->member);
	assert_non_null(sandbox);
	sandbox_close(sandbox);
	f->said[0] = '\0';
	adopt.adopted(adopt.ctx, &record);
	adopt.done(adopt.ctx, &(struct lease_result){.detail = ""});
	expect(f, "");
	/* It may have been another one: it is told again. */
	pass(f, 5);
	acknowledged(f, "beat", (struct lease_fleet){.instances = 1, .own = 1, .total = 1});
	adopt = take(f, "adopt-own");
	f->said[0] = '\0';
	adopt.adopted(adopt.ctx, &(struct lease_record){.name = NAME_A, .state = POOL_LEASED});
	expect(f, "destroy ");
	adopt.done(adopt.ctx, &(struct lease_result){.detail = ""});
}

static void what_is_in_use_is_not_struck(void **state)
{
	struct fixture *f = *state;
	char name[PROVIDER_NAME_MAX + 1];
	snprintf(name, sizeof name, "%s", claim_it(f));
	pass(f, 5);
	acknowledged(f, "beat", (struct lease_fleet){.instances = 1, .own = 1, .total = 1, .list = true});
	struct call list = take(f, "list");
	list.provided(list.ctx, &(struct provider_result){.detail = ""});
	f->said[0] = '\0';
	struct call sweep = take(f, "sweep");
	sweep.struck(sweep.ctx, name, true);
	sweep.done(sweep.ctx, &(struct lease_result){.detail = ""});
	expect(f, "");
}

static void take_of(struct fixture *f, const char *name)
{
	struct lease_record record = {.state = POOL_PREPARING, .parking = 7};
	snprintf(record.name, sizeof record.name, "%s", name);
	told(f, "take", (struct lease_result){.record = &record});
}

static void what_another_woke_before_is_destroyed(void **state)
{
	struct fixture *f = *state;
	acknowledged(f, "join", (struct lease_fleet){.instances = 2, .total = 1, .warm = 1});
	expect(f, "join take ");
	take_of(f, NAME_A);
	expect(f, "wake ");
	struct call wake = take(f, "wake");
	assert_int_equal(wake.fence.parking, 7);
	assert_true(wake.fence.taker);
	wake.provided(wake.ctx, &(struct provider_result){.code = PROVIDER_TAKEN, .detail = ""});
	assert_non_null(strstr(f->said, "note:destroying "));
	assert_null(strstr(f->said, "note:quarantine "));
	struct call destroy = take(f, "destroy");
	assert_string_equal(destroy.name, NAME_A);
	destroy.provided(destroy.ctx, &(struct provider_result){.detail = ""});
}

/* The records were set back: what they call parked is in use here. */
static void what_we_have_is_not_taken_twice(void **state)
{
	struct fixture *f = *state;
	struct pool_claim *claim;
	fill(f);
	assert_int_equal(pool_claim(f->pool, 1, 60000, on_grant, f, &claim), 0);
	assert_int_equal(grants(f), 1);
	told(f, "reserve", (struct lease_result){.code = LEASE_REFUSED, .refusal = LEASE_FULL, .retry_after_ms = 60000});
	pass(f, 5);
	acknowledged(f, "beat", (struct lease_fleet){.instances = 2, .own = 1, .total = 2, .warm = 1});
	f->said[0] = '\0';
	take_of(f, pool_member_name(f->member));
	assert_null(strstr(f->said, "wake "));
	assert_null(strstr(f->said, "destroy "));
	pass(f, 5);
	acknowledged(f, "beat", (struct lease_fleet){.instances = 2, .own = 1, .total = 1});
	assert_non_null(strstr(f->said, "adopt-own "));
}

static void what_cannot_be_asked_is_asked_later(void **state)
{
	struct fixture *f = *state;
	f->said[0] = '\0';
	struct call join = take(f, "join");
	f->refuse = -ENOMEM;
	join.done(join.ctx, &(struct lease_result){.fleet = &(struct lease_fleet){.instances = 1}, .detail = ""});
	expect(f, "");
	f->refuse = 0;
	pass(f, 1);
	expect(f, "reserve ");
}

static void the_later_of_two_goes_on(void **state)
{
	struct fixture *f = *state;
	fill(f);
	for (int i = 0; i < 2; i++) {
		pass(f, 5);
		acknowledged(f, "beat", (struct lease_fleet){.instances = 2, .own = 1, .total = 1, .superseded = true});
	}
	assert_int_equal(f->superseded, 1);
}

static void on_stopped(void *ctx, size_t left)
{
	struct fixture *f = ctx;
	f->left = left;
	f->stopped++;
}

static void it_leaves_when_it_stops(void **state)
{
	struct fixture *f = *state;
	fill(f);
	pool_stop(f->pool, 60000, on_stopped, f);
	expect(f, "note:destroying destroy ");
	provided(f, "destroy", PROVIDER_OK);
	expect(f, "forget leave ");
	uv_run(&f->loop, UV_RUN_NOWAIT);
	assert_int_equal(f->stopped, 0);
	told(f, "leave", (struct lease_result){.code = LEASE_LOST});
	uv_run(&f->loop, UV_RUN_NOWAIT);
	assert_int_equal(f->stopped, 1);
	assert_int_equal(f->left, 0);
	pass(f, 60); /* and is silent */
	expect(f, "");
}

/* An adoption was asked for; its answer, with what `instances` share, comes when nothing may be parked any more. */
static void adopt_when_stopping(struct fixture *f, unsigned instances)
{
	fill(f);
	pass(f, 5);
	acknowledged(f, "beat", (struct lease_fleet){.instances = instances, .own = 1, .total = 2, .ended = 1});
	struct call adopt = take(f, "adopt");
	pool_stop(f->pool, 60000, on_stopped, f);
	f->said[0] = '\0';
	adopt.adopted(adopt.ctx, &(struct lease_record){.name = NAME_A, .state = POOL_WARM, .parking = 1});
	adopt.done(adopt.ctx, &(struct lease_result){.detail = ""});
}

static void what_is_adopted_too_late_is_destroyed(void **state)
{
	struct fixture *f = *state;
	adopt_when_stopping(f, 1);
	expect(f, "take ");
	take_of(f, NAME_A);
	expect(f, "destroy ");
	provided(f, "destroy", PROVIDER_OK);
	provided(f, "destroy", PROVIDER_OK);
	expect(f, "forget forget leave ");
}

static void what_is_adopted_too_late_is_left_to_others(void **state)
{
	struct fixture *f = *state;
	adopt_when_stopping(f, 2);
	expect(f, "");
	provided(f, "destroy", PROVIDER_OK);
	expect(f, "forget leave ");
}

/* Nobody else is there, so what is parked has to be destroyed, for which Redis must say that it is ours; it stops after `seconds`. */
static void stop_with_parked(struct fixture *f, uint64_t seconds)
{
	fill(f);
	pass(f, 5);
	acknowledged(f, "beat", (struct lease_fleet){.instances = 1, .own = 1, .total = 2, .ended = 1});
	struct call adopt = take(f, "adopt");
	adopt.adopted(adopt.ctx, &(struct lease_record){.name = NAME_A, .state = POOL_WARM, .parking = 1});
	adopt.done(adopt.ctx, &(struct lease_result){.detail = ""});
	f->now_us += seconds * SECOND_US;
	pool_stop(f->pool, 60000, on_stopped, f);
}

static void one_is_left(struct fixture *f)
{
	provided(f, "destroy", PROVIDER_OK);
	told(f, "leave", (struct lease_result){.code = LEASE_LOST});
	uv_run(&f->loop, UV_RUN_NOWAIT);
	assert_int_equal(f->stopped, 1);
	assert_int_equal(f->left, 1);
}

static void what_is_not_known_to_be_ours_counts_as_left(void **state)
{
	struct fixture *f = *state;
	stop_with_parked(f, 0);
	told(f, "take", (struct lease_result){.code = LEASE_LOST});
	one_is_left(f);
}

static void what_cannot_be_asked_for_counts_as_left(void **state)
{
	struct fixture *f = *state;
	stop_with_parked(f, 11);
	one_is_left(f);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(it_joins_before_it_fills),
		TEST(it_beats),
		TEST(it_joins_until_it_is_heard),
		TEST(nothing_is_granted_without_a_young_beat),
		TEST(a_session_that_has_ended_gives_up_what_is_idle),
		TEST(after_a_flush_what_we_have_is_written_again),
		TEST(a_list_goes_to_the_sweep),
		TEST(what_others_left_is_adopted),
		TEST(what_became_a_sessions_meanwhile_is_let_alone),
		TEST(what_is_in_use_is_not_struck),
		TEST(what_another_woke_before_is_destroyed),
		TEST(what_we_have_is_not_taken_twice),
		TEST(what_cannot_be_asked_is_asked_later),
		TEST(the_later_of_two_goes_on),
		TEST(it_leaves_when_it_stops),
		TEST(what_is_adopted_too_late_is_destroyed),
		TEST(what_is_adopted_too_late_is_left_to_others),
		TEST(what_is_not_known_to_be_ours_counts_as_left),
		TEST(what_cannot_be_asked_for_counts_as_left),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
