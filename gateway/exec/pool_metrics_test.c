#include "gateway/exec/pool_metrics.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

struct fixture {
	struct metrics *metrics;
	struct metrics_shard *shard;
};

static int setup(void **state)
{
	static struct fixture f;
	f.metrics = metrics_new(1, &(struct metrics_build){.version = "1", .revision = "a"});
	assert_non_null(f.metrics);
	f.shard = metrics_shard(f.metrics, 0);
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	metrics_free(((struct fixture *)*state)->metrics);
	return 0;
}

/* As a scrape shows it. */
static void expect(const struct fixture *f, const char *line)
{
	struct buf text = BUF_MAX(1024 * 1024);
	char wanted[128];
	snprintf(wanted, sizeof wanted, "\nspritegate_pool_%s\n", line);
	assert_int_equal(metrics_render(f->metrics, false, &text), 0);
	if (!memmem(text.data, text.len, wanted, strlen(wanted)))
		fail_msg("missing: %s", line);
	buf_deinit(&text);
}

static void a_stalled_refill_is_shown_until_it_goes_on(void **state)
{
	struct fixture *f = *state;
	pool_metrics_tell(f->shard, &(struct pool_counts){0});
	expect(f, "refill_stalled 0");
	pool_metrics_tell(f->shard, &(struct pool_counts){.stalled = true});
	expect(f, "refill_stalled 1");
	pool_metrics_tell(f->shard, &(struct pool_counts){0});
	expect(f, "refill_stalled 0");
}

static void every_count_has_its_own_series(void **state)
{
	struct fixture *f = *state;
	static const enum pool_state shown[] = {POOL_INTENT, POOL_CREATING,  POOL_PREPARING,  POOL_WARM,      POOL_HOT,
						POOL_LEASED, POOL_RECYCLING, POOL_QUARANTINE, POOL_DESTROYING};
	struct pool_counts counts = {.hot_target = 21,
				     .warm_target = 22,
				     .idle_us = 23000000,
				     .spent_nusd = UINT64_C(24000000000),
				     .hedges = 25,
				     .waiters = 26,
				     .oldest_wait_us = 27000000};
	for (size_t i = 0; i < ARRAY_LEN(shown); i++)
		counts.members[shown[i]] = 11 + i;
	pool_metrics_tell(f->shard, &counts);
	for (size_t i = 0; i < ARRAY_LEN(shown); i++) {
		char line[64];
		snprintf(line, sizeof line, "members{state=\"%s\"} %d", pool_state_name(shown[i]), (int)(11 + i));
		expect(f, line);
	}
	static const char *const lines[] = {"target{tier=\"hot\"} 21", "target{tier=\"warm\"} 22", "hedges_total 25", "waiters 26"};
	for (size_t i = 0; i < ARRAY_LEN(lines); i++)
		expect(f, lines[i]);
	assert_int_equal(metrics_read(f->metrics, METRIC_POOL_IDLE_SECONDS, METRICS_NONE), 23000000);
	assert_int_equal(metrics_read(f->metrics, METRIC_POOL_COST, METRICS_NONE), 24000000);
	assert_int_equal(metrics_read(f->metrics, METRIC_POOL_WAIT_OLDEST_SECONDS, METRICS_NONE), 27000000);
}

static void a_shared_pool_tells_what_all_have(void **state)
{
	struct fixture *f = *state;
	pool_metrics_tell_leases(f->shard, &(struct leases_counts){.revoked = 31,
								   .fenced = 32,
								   .flushed = 33,
								   .beat_age_us = 34000000,
								   .total = 35,
								   .instances = 36,
								   .recovering = true});
	static const char *const lines[] = {"revoked_total 31",
					    "sessions_lost_total{reason=\"fenced\"} 32",
					    "sessions_lost_total{reason=\"flushed\"} 33",
					    "fleet_members 35",
					    "fleet_instances 36",
					    "recovering 1"};
	for (size_t i = 0; i < ARRAY_LEN(lines); i++)
		expect(f, lines[i]);
	assert_int_equal(metrics_read(f->metrics, METRIC_POOL_BEAT_AGE_SECONDS, METRICS_NONE), 34000000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_stalled_refill_is_shown_until_it_goes_on, setup, teardown),
		cmocka_unit_test_setup_teardown(every_count_has_its_own_series, setup, teardown),
		cmocka_unit_test_setup_teardown(a_shared_pool_tells_what_all_have, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
