/*
 * The driver of a shared pool: what it asks of and tells whoever keeps the records, and when.
 */
#include "gateway/pool/pool_leases_fixture.h"

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

static void a_beat_tells_who_has_claimed_lately(void **state)
{
	struct fixture *f = *state;
	struct pool_claim *claim;
	fill(f);
	assert_int_equal(pool_claim(f->pool, 17, 60000, on_grant, f, &claim), 0);
	pass(f, 5);
	assert_true(f->report.claimant_count == 1 && f->report.claimants[0] == 17);
	assert_int_equal(f->report.leased, 1);
}

static void a_beat_tells_how_many_wait_with_nothing_on_its_way(void **state)
{
	struct fixture *f = *state;
	struct pool_claim *claim;
	fill(f);
	for (int i = 0; i < 3; i++)
		assert_int_equal(pool_claim(f->pool, 17, 60000, on_grant, f, &claim), 0);
	told(f, "reserve", (struct lease_result){.code = LEASE_OK});
	/* Stock, then those who wait. */
	for (int i = 0; i < 3; i++)
		told(f, "reserve", (struct lease_result){.code = LEASE_REFUSED, .refusal = LEASE_CROWDED, .retry_after_ms = 60000});
	expect(f, "note:leased reserve reserve reserve note:creating create reserve ");
	pass(f, 5);
	assert_int_equal(f->report.waiting, 1);
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

/* Its record stays and its session ends, so that another one destroys it as soon as it is there. */
static void a_creation_that_hangs_at_the_deadline_is_left_to_others(void **state)
{
	struct fixture *f = *state;
	acknowledged(f, "join", (struct lease_fleet){.instances = 2});
	told(f, "reserve", (struct lease_result){.code = LEASE_OK});
	expect(f, "join reserve note:creating create ");
	pool_stop(f->pool, 4000, on_stopped, f);
	expect(f, "");
	pass(f, 4);
	expect(f, "leave ");
	told(f, "leave", (struct lease_result){.code = LEASE_OK});
	uv_run(&f->loop, UV_RUN_NOWAIT);
	assert_int_equal(f->stopped, 1);
	assert_int_equal(f->left, 1);
}

struct placed {
	unsigned yes, no;
	int code;
	uint64_t retry_after_ms;
};

static void on_placed(void *ctx, int code, uint64_t retry_after_ms)
{
	struct placed *placed = ctx;
	placed->yes += code == 0;
	placed->no += code != 0;
	placed->code = code;
	placed->retry_after_ms = retry_after_ms;
}

static void a_place_for_what_is_kept_is_asked_for(void **state)
{
	struct fixture *f = *state;
	struct placed placed = {0};
	fill(f);
	assert_int_equal(pool_place(f->pool, "sg-kept", on_placed, &placed), 0);
	expect(f, "run ");
	told(f, "run", (struct lease_result){.code = LEASE_REFUSED, .refusal = LEASE_CROWDED, .retry_after_ms = 500});
	assert_true(placed.no == 1 && placed.code == POOL_E_BUSY && placed.retry_after_ms == 500);
	/* What idles here makes way. */
	expect(f, "note:destroying reserve destroy ");
	assert_int_equal(pool_place(f->pool, "sg-kept", on_placed, &placed), 0);
	told(f, "run", (struct lease_result){.code = LEASE_LOST});
	assert_true(placed.no == 2 && placed.code == POOL_E_UNAVAILABLE);
	assert_int_equal(pool_place(f->pool, "sg-kept", on_placed, &placed), 0);
	told(f, "run", (struct lease_result){.code = LEASE_OK});
	assert_true(placed.yes == 1 && placed.no == 2);
	f->refuse = -EINVAL;
	assert_int_equal(pool_place(f->pool, "sg-kept", on_placed, &placed), -EINVAL);
	f->refuse = 0;
	assert_true(placed.yes == 1 && placed.no == 2);
	f->said[0] = '\0';
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(it_joins_before_it_fills),
		TEST(it_beats),
		TEST(it_joins_until_it_is_heard),
		TEST(nothing_is_granted_without_a_young_beat),
		TEST(a_beat_tells_who_has_claimed_lately),
		TEST(a_beat_tells_how_many_wait_with_nothing_on_its_way),
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
		TEST(a_creation_that_hangs_at_the_deadline_is_left_to_others),
		TEST(what_is_adopted_too_late_is_destroyed),
		TEST(what_is_adopted_too_late_is_left_to_others),
		TEST(what_is_not_known_to_be_ours_counts_as_left),
		TEST(what_cannot_be_asked_for_counts_as_left),
		TEST(a_place_for_what_is_kept_is_asked_for),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
