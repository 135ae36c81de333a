#include "gateway/telemetry/access_log.h"
#include "gateway/telemetry/metrics_table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static bool has_line(const struct buf *text, const char *line)
{
	const char *at = memmem(text->data, text->len, line, strlen(line));
	return at && at[strlen(line)] == '\n' && (at == text->data || at[-1] == '\n');
}

static void expect_line(const struct buf *text, const char *line)
{
	if (!has_line(text, line))
		fail_msg("missing: %s", line);
}

static void test_text(void **state UNUSED)
{
	struct metrics *metrics = metrics_new(2, &(struct metrics_build){.version = "1.2.3", .revision = "abc"});
	struct buf out = BUF_MAX(1024 * 1024);
	struct metrics_labels ok = {
		{metrics_value(METRIC_HTTP_REQUESTS, 0, "exec"), metrics_value(METRIC_HTTP_REQUESTS, 1, "POST"), metrics_code(200)}};
	metrics_add(metrics_shard(metrics, 0), METRIC_HTTP_REQUESTS, ok, 2);
	metrics_add(metrics_shard(metrics, 1), METRIC_HTTP_REQUESTS, ok, 3);
	metrics_observe(metrics_shard(metrics, 0), METRIC_EXEC_SECONDS, METRICS_NONE, 5000);
	metrics_observe(metrics_shard(metrics, 0), METRIC_EXEC_SECONDS, METRICS_NONE, 5001);
	metrics_observe(metrics_shard(metrics, 1), METRIC_EXEC_SECONDS, METRICS_NONE, 400000000);
	metrics_add(metrics_shard(metrics, 0), METRIC_EXEC_LEASES, METRICS_NONE, 1);
	metrics_sub(metrics_shard(metrics, 1), METRIC_EXEC_LEASES, METRICS_NONE, 1);
	metrics_set(metrics_shard(metrics, 0), METRIC_BUILD_INFO, METRICS_NONE, 1);
	assert_int_equal(metrics_render(metrics, false, &out), 0);
	expect_line(&out, "# TYPE spritegate_http_requests_total counter");
	expect_line(&out, "spritegate_http_requests_total{route=\"exec\",method=\"POST\",code=\"200\"} 5");
	expect_line(&out, "spritegate_http_requests_total{route=\"table\",method=\"GET\",code=\"200\"} 0");
	expect_line(&out, "spritegate_http_requests_total{route=\"exec\",method=\"POST\",code=\"503\"} 0");
	assert_false(has_line(&out, "spritegate_http_requests_total{route=\"exec\",method=\"PATCH\",code=\"200\"} 0"));
	assert_false(has_line(&out, "spritegate_http_requests_total{route=\"exec\",method=\"POST\",code=\"201\"} 0"));
	expect_line(&out, "spritegate_exec_seconds_bucket{le=\"0.005\"} 1");
	expect_line(&out, "spritegate_exec_seconds_bucket{le=\"0.01\"} 2");
	expect_line(&out, "spritegate_exec_seconds_bucket{le=\"300\"} 2");
	expect_line(&out, "spritegate_exec_seconds_bucket{le=\"+Inf\"} 3");
	expect_line(&out, "spritegate_exec_seconds_sum 400.010001");
	expect_line(&out, "spritegate_exec_seconds_count 3");
	expect_line(&out, "spritegate_exec_leases 0");
	expect_line(&out, "spritegate_exec_total{outcome=\"unknown\",tier=\"cold\"} 0");
	expect_line(&out, "spritegate_build_info{version=\"1.2.3\",revision=\"abc\"} 1");
	buf_deinit(&out);
	assert_int_equal(metrics_render(metrics, true, &out), 0);
	expect_line(&out, "# TYPE spritegate_http_requests counter");
	assert_memory_equal(out.data + out.len - 6, "# EOF\n", 6);
	buf_deinit(&out);
	metrics_free(metrics);
}

/* As many names as there is room for are told apart; what could break a line, or comes later, is "other". */
static void test_names(void **state UNUSED)
{
	struct metrics *metrics = metrics_new(2, &(struct metrics_build){.version = "1.2.3", .revision = "abc"});
	struct metrics_shard *one = metrics_shard(metrics, 0), *two = metrics_shard(metrics, 1);
	struct buf out = BUF_MAX(1024 * 1024);
	char name[METRICS_NAME_MAX + 2];
	unsigned agents = metrics_name(one, "agents");
	assert_int_equal(metrics_name(two, "agents"), agents);
	static const char *const wrong[] = {"", "a\"b", "a b", "a\nb", "j\xc3\xb6"};
	for (size_t i = 0; i < ARRAY_LEN(wrong); i++)
		assert_int_equal(metrics_name(one, wrong[i]), METRICS_NAMES);
	memset(name, 'x', sizeof name);
	name[METRICS_NAME_MAX + 1] = '\0';
	assert_int_equal(metrics_name(one, name), METRICS_NAMES);
	metrics_add(one, METRIC_POLICY_DECISIONS, (struct metrics_labels){{agents, 0}}, 2);
	metrics_add(two, METRIC_POLICY_DECISIONS, (struct metrics_labels){{agents, 0}}, 1);
	metrics_add(two, METRIC_POLICY_DECISIONS, (struct metrics_labels){{METRICS_NAMES, 1}}, 4);
	metrics_set(one, METRIC_POLICY_VERSION, (struct metrics_labels){{agents}}, 7);
	metrics_set(two, METRIC_POLICY_VERSION, (struct metrics_labels){{agents}}, 6);
	assert_int_equal(metrics_render(metrics, false, &out), 0);
	expect_line(&out, "spritegate_policy_decisions_total{policy=\"agents\",outcome=\"allow\"} 3");
	expect_line(&out, "spritegate_policy_decisions_total{policy=\"agents\",outcome=\"deny\"} 0");
	expect_line(&out, "spritegate_policy_decisions_total{policy=\"other\",outcome=\"deny\"} 4");
	expect_line(&out, "spritegate_policy_version{policy=\"agents\"} 7");
	assert_false(has_line(&out, "spritegate_policy_decisions_total{policy=\"\",outcome=\"allow\"} 0"));
	for (unsigned i = 1; i < METRICS_NAMES; i++) {
		snprintf(name, sizeof name, "p%u", i);
		assert_int_equal(metrics_name(i % 2 ? one : two, name), i);
	}
	assert_int_equal(metrics_name(one, "late"), METRICS_NAMES);
	assert_int_equal(metrics_name(one, "p31"), 31);
	buf_deinit(&out);
	metrics_free(metrics);
}

static void test_table(void **state UNUSED)
{
	for (unsigned i = 0; i < METRIC_COUNT; i++) {
		const struct metric_family *family = &metric_families[i];
		assert_non_null(family->name);
		assert_non_null(family->help);
		assert_true(family->type != METRIC_HISTOGRAM || family->bound_count > 0);
		for (unsigned b = 1; b < family->bound_count; b++)
			assert_true(family->bounds[b] > family->bounds[b - 1]);
	}
	assert_int_equal(metrics_value(METRIC_HTTP_REQUESTS, 1, "BREW"), metrics_value(METRIC_HTTP_REQUESTS, 1, "other"));
}

static void test_access_log(void **state UNUSED)
{
	int pipe_fds[2];
	char text[2048];
	struct access_log log;
	assert_int_equal(pipe(pipe_fds), 0);
	access_log_init(&log, pipe_fds[1]);
	struct access_record record = {.method = SLICE("GET"), .path = SLICE("/a\n\"b"), .route = "table", .status = 200, .bytes_out = 5};
	access_log_write(&log, &record);
	static const char *const doubtful[] = {"/x?token=SECRET", "/y#SECRET", "http://u:SECRET@host/", "SECRET"};
	for (size_t i = 0; i < ARRAY_LEN(doubtful); i++) {
		struct access_record refused = {.method = SLICE("GET"), .path = slice_str(doubtful[i]), .route = "other", .status = 400};
		access_log_write(&log, &refused);
	}
	access_log_flush(&log);
	ssize_t n = read(pipe_fds[0], text, sizeof text - 1);
	assert_true(n > 0);
	text[n] = '\0';
	assert_non_null(strstr(text, "\"status\":200,"));
	assert_non_null(strstr(text, "\"path\":\"/a\\n\\\"b\""));
	assert_null(strstr(text, "SECRET"));
	assert_non_null(strstr(text, "\"path\":\"/x\""));
	assert_null(strstr(text, "exec_id"));
	assert_int_equal(text[n - 1], '\n');
	access_log_deinit(&log);
	close(pipe_fds[0]);
	close(pipe_fds[1]);
}

/* A pipe that nobody reads: lines wait, then are dropped and counted, and what comes out is whole lines. */
static void test_full_log(void **state UNUSED)
{
	enum { LINES = 3000 };
	int pipe_fds[2];
	struct access_log log;
	CLEANUP(buf_deinit) struct buf text = BUF_MAX(4 * 1024 * 1024);
	assert_int_equal(pipe2(pipe_fds, O_NONBLOCK), 0);
	access_log_init(&log, pipe_fds[1]);
	struct access_record record = {.method = SLICE("GET"), .path = SLICE("/a"), .route = "table", .status = 200};
	for (int i = 0; i < LINES; i++) {
		access_log_write(&log, &record);
		if (i % 100 == 0)
			access_log_flush(&log);
	}
	assert_in_range(log.dropped, 1, LINES - 1);
	for (int i = 0; i < 100; i++) {
		char piece[8192];
		for (ssize_t n; (n = read(pipe_fds[0], piece, sizeof piece)) > 0;)
			assert_int_equal(buf_append(&text, slice_of(piece, (size_t)n)), 0);
		access_log_flush(&log);
	}
	size_t lines = 0;
	struct slice rest = buf_peek(&text), line;
	while (slice_next(&rest, '\n', &line) && line.len) {
		lines++;
		assert_true(line.data[0] == '{' && line.data[line.len - 1] == '}');
	}
	assert_int_equal(lines + log.dropped, LINES);
	signal(SIGPIPE, SIG_IGN);
	close(pipe_fds[0]);
	uint64_t before = log.dropped;
	access_log_write(&log, &record);
	access_log_write(&log, &record);
	access_log_flush(&log);
	assert_int_equal(log.dropped, before + 2);
	access_log_deinit(&log);
	close(pipe_fds[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_text), cmocka_unit_test(test_table), cmocka_unit_test(test_names),
					   cmocka_unit_test(test_access_log), cmocka_unit_test(test_full_log)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
