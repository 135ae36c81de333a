/*
 * The driver: claims and their answers, what is asked of the provider, stopping.
 */
#include "gateway/pool/pool_fixture.h"

static void a_hot_claim_is_answered_on_the_next_turn(void **state)
{
	struct fixture *f = *state;
	struct answer a = {0};
	start_hot(f);
	claim(f, 1000, &a);
	assert_int_equal(a.count, 0);
	assert_int_equal(count(f, "create"), 1); /* the refill has begun, nothing else */
	assert_int_equal(f->call_count, 1);
	turn(f);
	assert_int_equal(a.count, 1);
	assert_int_equal(a.last.code, 0);
	assert_string_equal(a.last.tier, "hot");
	assert_non_null(a.last.sandbox);
	assert_true(member_name_belongs(pool_member_name(a.member), "gw"));
	assert_int_equal(f->call_count, 1);
	assert_string_equal(f->seen, "claim:hot:0 ");

	pool_release(f->pool, a.member);
	assert_int_equal(open_sandboxes, 0);
	assert_int_equal(count(f, "destroy"), 1);
	turn(f);
	assert_int_equal(a.count, 1);
}

static void a_stalled_refill_is_told(void **state)
{
	struct fixture *f = *state;
	struct pool_counts counts;
	start(f);
	answer(f, "list", PROVIDER_OK);
	pass(f, 59999);
	pool_counts(f->pool, &counts);
	assert_false(counts.stalled);
	pass(f, 1);
	pool_counts(f->pool, &counts);
	assert_true(counts.stalled);
}

static void on_guard(uv_timer_t *timer)
{
	*(bool *)timer->data = true;
}

/* Nothing else wakes the loop. */
static void the_answer_does_not_wait_for_an_event(void **state)
{
	struct fixture *f = *state;
	struct answer a = {0};
	uv_timer_t guard;
	bool slept = false;
	start_hot(f);
	uv_timer_init(&f->loop, &guard);
	guard.data = &slept;
	uv_timer_start(&guard, on_guard, 3000, 0);
	claim(f, 1000, &a);
	uv_run(&f->loop, UV_RUN_ONCE);
	assert_int_equal(a.count, 1);
	assert_false(slept);
	uv_close((uv_handle_t *)&guard, NULL);
	turn(f);
}

static void on_async(uv_async_t *async)
{
	struct fixture *f = async->loop->data;
	claim(f, 1000, async->data);
	uv_close((uv_handle_t *)async, NULL);
}

/* The exec part claims from a mailbox: its callback runs in the poll, the answer comes right after it. */
static void a_claim_from_the_poll_is_answered_in_the_same_turn(void **state)
{
	struct fixture *f = *state;
	struct answer a = {0};
	uv_async_t async = {0};
	start_hot(f);
	f->loop.data = f;
	assert_int_equal(uv_async_init(&f->loop, &async, on_async), 0);
	async.data = &a;
	uv_async_send(&async);
	turn(f);
	assert_int_equal(a.count, 1);
	turn(f);
}

static void cold_claims_wait(void **state)
{
	struct fixture *f = *state;
	struct answer a = {0};
	start(f);
	claim(f, 60000, &a);
	assert_int_equal(count(f, "create"), 0); /* first of all it looks for what an earlier run left */
	answer(f, "list", PROVIDER_OK);
	assert_int_equal(count(f, "create"), 2); /* one for the caller, one to keep hot */
	f->now_us += 1500;
	struct pool_counts counts;
	pool_counts(f->pool, &counts);
	assert_int_equal(counts.waiters, 1);
	assert_int_equal(counts.oldest_wait_us, 1500);
	assert_int_equal(counts.total, 2);
	assert_string_equal(counts.creation, "open");
	answer(f, "create", PROVIDER_OK);
	answer(f, "prepare", PROVIDER_OK);
	turn(f);
	assert_int_equal(a.count, 1);
	assert_string_equal(a.last.tier, "cold");
	assert_string_equal(f->seen, "create:0:1500 prepare:ok claim:cold:1500 ");
}

static void refusals_say_why(void **state)
{
	struct fixture *f = *state;
	struct answer a[6] = {0};
	start(f);
	for (int i = 0; i < 5; i++)
		claim(f, 1000, &a[i]);
	turn(f);
	assert_int_equal(a[4].count, 1);
	assert_int_equal(a[4].last.code, POOL_E_FULL);
	assert_true(a[4].last.retry_after_ms >= 1000);
	assert_non_null(strstr(a[4].last.detail, "waiting"));
	assert_null(a[4].last.member);
	pass(f, 1000);
	turn(f);
	for (int i = 0; i < 4; i++)
		assert_int_equal(a[i].last.code, POOL_E_DEADLINE);
	f->seen[0] = '\0';
	answer(f, "list", PROVIDER_OK);
	answer(f, "create", PROVIDER_UNAUTHORIZED);
	claim(f, 60000, &a[5]);
	turn(f);
	assert_int_equal(a[5].last.code, POOL_E_UNAVAILABLE);
	assert_string_equal(f->seen, "create:5:0 claim:unavailable:0 ");
}

static void a_canceled_claim_is_never_answered(void **state)
{
	struct fixture *f = *state;
	struct answer waiting = {0}, granted = {0}, refused = {0}, next = {0};
	start_hot(f);
	/* Granted, not told yet: nobody touched the member, it is hot again. */
	pool_cancel(f->pool, claim(f, 1000, &granted));
	assert_int_equal(members(f, POOL_HOT), 1);
	assert_int_equal(open_sandboxes, 1);
	claim(f, 1000, &next);
	pool_cancel(f->pool, claim(f, 1000, &waiting));
	pool_cancel(f->pool, claim(f, 0, &refused));
	turn(f);
	turn(f);
	assert_int_equal(next.count, 1);
	assert_int_equal(granted.count + waiting.count + refused.count, 0);
}

static void names_are_fresh(void **state)
{
	struct fixture *f = *state;
	struct answer a = {0};
	start(f);
	claim(f, 60000, &a);
	assert_string_equal(f->calls[0].name, "sg-gw-");
	answer(f, "list", PROVIDER_OK);
	struct call first = take(f, "create"), second = take(f, "create");
	assert_true(member_name_belongs(first.name, "gw") && member_name_belongs(second.name, "gw"));
	assert_string_not_equal(first.name, second.name);
	f->calls[f->call_count++] = second;
	first.done(first.ctx, &(struct provider_result){.code = PROVIDER_UNAVAILABLE, .detail = "time-out"});
	assert_string_equal(peek(f, "destroy")->name, first.name);
}

static void a_lost_channel_is_dialled_again(void **state)
{
	struct fixture *f = *state;
	struct answer a = {0};
	start_hot(f);
	claim(f, 1000, &a);
	turn(f);
	struct sandbox *sandbox = a.last.sandbox;
	f->seen[0] = '\0';
	sandbox->on_lost(sandbox->ctx, "cut"); /* its user's affair */
	assert_int_equal(members(f, POOL_LEASED), 1);
	assert_string_equal(f->seen, "");
	pool_release(f->pool, a.member);
	answer(f, "create", PROVIDER_OK);
	struct call prepare = take(f, "prepare");
	sandbox = fake_sandbox();
	prepare.done(prepare.ctx, &(struct provider_result){.code = PROVIDER_OK, .sandbox = sandbox, .detail = ""});
	f->seen[0] = '\0';
	sandbox->on_lost(sandbox->ctx, "cut");
	assert_string_equal(f->seen, "lost ");
	assert_int_equal(open_sandboxes, 0);
	assert_string_equal(f->calls[f->call_count - 1].verb, "prepare");
	assert_string_equal(f->calls[f->call_count - 1].name, prepare.name);
	answer(f, "prepare", PROVIDER_OK);
	assert_int_equal(members(f, POOL_HOT), 1);
}

/* Granted, not told yet: the caller never sees it. */
static void a_channel_that_breaks_before_the_answer_is_replaced(void **state)
{
	struct fixture *f = *state;
	struct answer a = {0}, canceled = {0};
	start(f);
	answer(f, "list", PROVIDER_OK);
	answer(f, "create", PROVIDER_OK);
	struct call prepare = take(f, "prepare");
	struct sandbox *sandbox = fake_sandbox();
	prepare.done(prepare.ctx, &(struct provider_result){.code = PROVIDER_OK, .sandbox = sandbox, .detail = ""});
	claim(f, 1000, &a);
	f->seen[0] = '\0';
	sandbox->on_lost(sandbox->ctx, "cut");
	assert_string_equal(f->seen, "lost ");
	assert_int_equal(open_sandboxes, 0);
	turn(f);
	assert_int_equal(a.count, 0);
	assert_string_equal(peek(f, "prepare")->name, prepare.name);
	prepare = take(f, "prepare");
	sandbox = fake_sandbox();
	prepare.done(prepare.ctx, &(struct provider_result){.code = PROVIDER_OK, .sandbox = sandbox, .detail = ""});
	turn(f);
	assert_int_equal(a.count, 1);
	assert_ptr_equal(a.last.sandbox, sandbox);
	assert_string_equal(f->seen, "lost prepare:ok claim:warm:0 ");
	pool_release(f->pool, a.member);
	/* And one whose caller leaves meanwhile. */
	answer(f, "create", PROVIDER_OK);
	prepare = take(f, "prepare");
	sandbox = fake_sandbox();
	prepare.done(prepare.ctx, &(struct provider_result){.code = PROVIDER_OK, .sandbox = sandbox, .detail = ""});
	struct pool_claim *left = claim(f, 1000, &canceled);
	sandbox->on_lost(sandbox->ctx, "cut");
	pool_cancel(f->pool, left);
	turn(f);
	assert_int_equal(canceled.count, 0);
	assert_int_equal(members(f, POOL_LEASED), 0);
}

static void a_provider_that_cannot_begin_is_asked_again(void **state)
{
	struct fixture *f = *state;
	struct answer a = {0};
	start(f);
	f->refuse = -ENOMEM;
	claim(f, 60000, &a);
	answer(f, "list", PROVIDER_OK);
	assert_int_equal(f->call_count, 0);
	struct pool_counts counts;
	pool_counts(f->pool, &counts);
	assert_int_equal(counts.total, 0); /* nothing was sent: nothing to destroy */
	assert_string_equal(counts.creation, "unavailable");
	pass(f, 500);
	f->refuse = 0;
	pass(f, 1000);
	/* After two failures in a row one creation at a time, until one succeeds. */
	assert_int_equal(count(f, "create"), 1);
	f->refuse = -ENOMEM;
	answer(f, "create", PROVIDER_OK); /* the preparation cannot begin */
	assert_int_equal(members(f, POOL_QUARANTINE), 1);
	pass(f, 1000);                    /* not the second time, nor can the destruction */
	assert_int_equal(members(f, POOL_DESTROYING), 1);
	f->refuse = 0;
	pass(f, 2000);
	assert_int_equal(count(f, "destroy"), 1);
	turn(f);
	assert_int_equal(a.count, 0);
}

static void a_preparation_without_a_sandbox_is_a_failed_one(void **state)
{
	struct fixture *f = *state;
	start(f);
	answer(f, "list", PROVIDER_OK);
	answer(f, "create", PROVIDER_OK);
	struct call call = take(f, "prepare");
	call.done(call.ctx, &(struct provider_result){.code = PROVIDER_OK, .detail = ""});
	assert_string_equal(f->seen, "create:0:0 prepare:invalid ");
	assert_int_equal(members(f, POOL_QUARANTINE), 1);
	pass(f, 1000);
	answer(f, "prepare", PROVIDER_INVALID);
	assert_int_equal(count(f, "destroy"), 1);
}

static void only_its_own_leftovers_are_destroyed(void **state)
{
	struct fixture *f = *state;
	static const char *const names[] = {
		"sg-gw-0a1b-0123456789abcdefghjkmnpqrs",    /* ours, of another generation */
		"sg-gw-2-0a1b-0123456789abcdefghjkmnpqrs",  /* of the instance gw-2 */
		"sg-gw-0a1b-0a1b-0123456789abcdefghjkmnpqrs", "sg-gw-mine", "sg-gw-0a1b-0123456789ABCDEFGHJKMNPQRS",
	};
	start(f);
	struct call call = take(f, "list");
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		call.found(call.ctx, names[i], false);
	call.done(call.ctx, &(struct provider_result){.code = PROVIDER_OK, .detail = ""});
	assert_int_equal(count(f, "destroy"), 1);
	assert_string_equal(peek(f, "destroy")->name, names[0]);
}

static void on_stopped(void *ctx, size_t left)
{
	struct fixture *f = ctx;
	f->stopped++;
	f->left = left;
}

static void stopping_waits_for_what_is_left(void **state)
{
	struct fixture *f = *state;
	struct answer a = {0}, b = {0};
	start_hot(f);
	claim(f, 1000, &a);
	claim(f, 1000, &b);
	turn(f);
	pool_stop(f->pool, 30000, on_stopped, f);
	assert_int_equal(b.count, 0);
	turn(f);
	assert_int_equal(b.last.code, POOL_E_STOPPING);
	while (count(f, "create"))
		answer(f, "create", PROVIDER_OK);
	while (count(f, "destroy"))
		answer(f, "destroy", PROVIDER_OK);
	turn(f);
	assert_int_equal(f->stopped, 0);
	pool_release(f->pool, a.member);
	answer(f, "destroy", PROVIDER_OK);
	assert_int_equal(f->stopped, 0);
	turn(f);
	assert_int_equal(f->stopped, 1);
	assert_int_equal(f->left, 0);
	pool_stop(f->pool, 0, on_stopped, f);
	turn(f);
	assert_int_equal(f->stopped, 1);
}

static void on_done_free(void *ctx, const struct pool_grant *grant)
{
	struct fixture *f = ctx;
	assert_int_equal(grant->code, POOL_E_STOPPING);
	pool_free(TAKE(f->pool), on_freed, f);
}

static void a_freed_pool_does_not_say_that_it_stopped(void **state)
{
	struct fixture *f = *state;
	struct pool_options o = options(f);
	struct pool_claim *c;
	f->pool = pool_new(&o);
	assert_non_null(f->pool);
	assert_int_equal(pool_claim(f->pool, 1, 1000, on_done_free, f, &c), 0);
	pool_stop(f->pool, 1000, on_stopped, f);
	turn(f);
	turn(f);
	assert_int_equal(f->freed, 1);
	assert_int_equal(f->stopped, 0);
}

static void stopping_ends_at_its_deadline(void **state)
{
	struct fixture *f = *state;
	struct answer a = {0};
	start_hot(f);
	claim(f, 1000, &a);
	turn(f);
	pool_stop(f->pool, 30000, on_stopped, f);
	assert_int_equal(pool_next_due(f->pool), f->now_us + 30000000);
	pass(f, 30000);
	turn(f);
	assert_int_equal(f->stopped, 1);
	assert_int_equal(f->left, 2); /* the leased one and the refill that was being created */
}

static void what_arrives_after_the_end_is_closed(void **state)
{
	struct fixture *f = *state;
	struct answer a = {0}, b = {0};
	start(f);
	answer(f, "list", PROVIDER_OK);
	answer(f, "create", PROVIDER_OK);
	claim(f, 60000, &a);
	answer(f, "prepare", PROVIDER_OK); /* a is granted a member, but not told */
	answer(f, "create", PROVIDER_OK);
	claim(f, 60000, &b); /* waits for what is being prepared */
	pool_free(f->pool, on_freed, f);
	f->pool = NULL;
	assert_int_equal(open_sandboxes, 0);
	turn(f);
	assert_int_equal(f->freed, 1);
	assert_int_equal(count(f, "prepare"), 1);
	assert_int_equal(count(f, "create"), 1);
	answer(f, "prepare", PROVIDER_OK);
	answer(f, "create", PROVIDER_OK);
	assert_int_equal(open_sandboxes, 0);
	assert_int_equal(a.count + b.count, 0);
}

/* A caller that does everything at once from its answer. */
struct busybody {
	struct fixture *f;
	struct answer again;
	struct pool_claim *victim;
	bool free;
};

static void on_busy_done(void *ctx, const struct pool_grant *grant)
{
	struct busybody *b = ctx;
	pool_cancel(b->f->pool, b->victim);
	claim(b->f, 0, &b->again);
	pool_release(b->f->pool, grant->member);
	if (b->free) {
		pool_free(b->f->pool, on_freed, b->f);
		b->f->pool = NULL;
	}
}

static void on_done_cancel(void *ctx, const struct pool_grant *grant)
{
	struct busybody *b = ctx;
	pool_cancel(b->f->pool, b->victim);
	b->again.count++;
	(void)grant;
}

static void the_last_answer_may_be_canceled_by_the_one_before(void **state)
{
	struct fixture *f = *state;
	struct answer victim = {0};
	struct busybody b = {.f = f};
	struct pool_claim *c;
	start(f);
	assert_int_equal(pool_claim(f->pool, 1, 0, on_done_cancel, &b, &c), 0);
	b.victim = claim(f, 0, &victim);
	turn(f);
	turn(f);
	assert_int_equal(b.again.count, 1);
	assert_int_equal(victim.count, 0);
}

static void answers_may_call_back(void **state)
{
	struct fixture *f = *state;
	for (int i = 0; i < 2; i++) {
		struct answer victim = {0};
		struct busybody b = {.f = f, .free = i == 1};
		struct pool_claim *c;
		start_hot(f);
		assert_int_equal(pool_claim(f->pool, 1, 1000, on_busy_done, &b, &c), 0);
		b.victim = claim(f, 0, &victim); /* refused, also waiting to be told */
		turn(f);
		turn(f);
		assert_int_equal(victim.count, 0);
		assert_int_equal(b.again.count, b.free ? 0 : 1);
		if (!b.free)
			free_pool(f);
		while (f->call_count)
			answer(f, f->calls[0].verb, PROVIDER_OK);
		turn(f);
		assert_int_equal(f->freed, 1);
		f->freed = 0;
	}
}

/* With the real clock, the pool's own timer keeps the deadline. */
static void its_own_timer_ticks(void **state)
{
	struct fixture *f = *state;
	struct answer a = {0};
	struct pool_options o = options(f);
	o.now_us = NULL;
	f->pool = pool_new(&o);
	assert_non_null(f->pool);
	pool_start(f->pool);
	claim(f, 2, &a);
	while (!a.count)
		uv_run(&f->loop, UV_RUN_ONCE);
	assert_int_equal(a.last.code, POOL_E_DEADLINE);
}

static void options_out_of_bounds_are_refused(void **state)
{
	struct fixture *f = *state;
	struct pool_options o = options(f);
	o.sizing.max = 0;
	assert_null(pool_new(&o));
	o = options(f);
	o.sizing.hot = 5;
	assert_null(pool_new(&o));
	o = options(f);
	o.instance = "";
	assert_null(pool_new(&o));
}

static void zero_is_a_size(void **state)
{
	struct fixture *f = *state;
	struct answer a = {0};
	struct pool_options o = options(f);
	o.sizing.hot = 0;
	f->pool = pool_new(&o);
	pool_start(f->pool);
	answer(f, "list", PROVIDER_OK);
	assert_int_equal(f->call_count, 0);
	assert_int_equal(pool_next_due(f->pool), UINT64_MAX);
	claim(f, 60000, &a);
	answer(f, "create", PROVIDER_OK);
	answer(f, "prepare", PROVIDER_OK);
	turn(f);
	pool_release(f->pool, a.member);
	answer(f, "destroy", PROVIDER_OK);
	assert_int_equal(f->call_count, 0);
	assert_int_equal(pool_next_due(f->pool), UINT64_MAX);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_hot_claim_is_answered_on_the_next_turn),
		TEST(a_stalled_refill_is_told),
		TEST(the_answer_does_not_wait_for_an_event),
		TEST(a_claim_from_the_poll_is_answered_in_the_same_turn),
		TEST(cold_claims_wait),
		TEST(refusals_say_why),
		TEST(a_canceled_claim_is_never_answered),
		TEST(names_are_fresh),
		TEST(a_lost_channel_is_dialled_again),
		TEST(a_channel_that_breaks_before_the_answer_is_replaced),
		TEST(a_provider_that_cannot_begin_is_asked_again),
		TEST(a_preparation_without_a_sandbox_is_a_failed_one),
		TEST(only_its_own_leftovers_are_destroyed),
		TEST(stopping_waits_for_what_is_left),
		TEST(a_freed_pool_does_not_say_that_it_stopped),
		TEST(stopping_ends_at_its_deadline),
		TEST(what_arrives_after_the_end_is_closed),
		TEST(the_last_answer_may_be_canceled_by_the_one_before),
		TEST(answers_may_call_back),
		TEST(its_own_timer_ticks),
		TEST(options_out_of_bounds_are_refused),
		TEST(zero_is_a_size),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
