#include "policy/pool_store_parts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include <cmocka.h>

/* Redis is not there: what is asked waits in the queue. */
struct fixture {
	uv_loop_t loop;
	struct pool_store *store;
	unsigned given_up;
};

static void on_done(void *ctx, const struct pool_store_result *result)
{
	struct fixture *f = ctx;
	assert_int_equal(result->reply.code, POOL_REPLY_LOST);
	f->given_up++;
}

/* As the pool does. */
static void join_anew(void *ctx, const struct pool_store_result *result)
{
	struct fixture *f = ctx;
	on_done(ctx, result);
	assert_int_equal(pool_store_join(f->store, true, on_done, ctx), 0);
}

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof *f);
	assert_non_null(f);
	assert_int_equal(uv_loop_init(&f->loop), 0);
	const struct pool_store_options options = {
		.loop = &f->loop, .redis_url = "unix:///nonexistent/redis.sock", .timeout_ms = 100, .pool = "test", .instance = "one"};
	f->store = pool_store_new(&options);
	assert_non_null(f->store);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;
	pool_store_free(f->store, NULL, NULL);
	assert_int_equal(uv_run(&f->loop, UV_RUN_DEFAULT), 0);
	assert_int_equal(uv_loop_close(&f->loop), 0);
	free(f);
	return 0;
}

static void what_is_told_of_its_end_may_change_the_queue(void **state)
{
	struct fixture *f = *state;
	const struct pool_store_report report = {0};
	struct pool_record record = {.state = "hot"};
	assert_int_equal(pool_store_beat(f->store, &report, join_anew, f), 0);
	for (char last = 'a'; last <= 'c'; last++) {
		snprintf(record.name, sizeof record.name, "sg-one-%c", last);
		pool_store_note(f->store, &record);
	}
	assert_int_equal(pool_store_leave(f->store, on_done, f), 0);
	struct item *item;
	DL_FOREACH (f->store->queue, item)
		item->deadline_us = item->op == NOTE ? UINT64_MAX : 1;
	while (f->given_up < 2)
		(void)uv_run(&f->loop, UV_RUN_ONCE);
	/* The join is left, which has taken the notes away. */
	assert_int_equal(f->given_up, 2);
	assert_non_null(f->store->queue);
	assert_int_equal(f->store->queue->op, JOIN);
	assert_null(f->store->queue->next);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(what_is_told_of_its_end_may_change_the_queue, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
