#include "gateway/telemetry/tracer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdio.h>

#define PARENT "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0"
#define IDS    "\"traceId\":\"4bf92f3577b34da6a3ce929d0e0e4736\",\"spanId\":\"1111111111111111\""

struct fixture {
	uv_loop_t loop;
	struct tracer *tracer;
	struct trace_root root;
	unsigned arrived;
	char last[TRACER_SPAN_BYTES];
	bool freed;
};

static void on_span(void *ctx, struct slice span)
{
	struct fixture *f = ctx;
	f->arrived++;
	snprintf(f->last, sizeof f->last, "%.*s", SLICE_FMT(span));
}

static void on_freed(void *ctx)
{
	((struct fixture *)ctx)->freed = true;
}

static int setup(void **state)
{
	static struct fixture f;
	struct trace trace;
	f = (struct fixture){.arrived = 0};
	assert_int_equal(uv_loop_init(&f.loop), 0);
	f.tracer = tracer_new(&(struct tracer_options){.loop = &f.loop, .on_span = on_span, .ctx = &f});
	assert_non_null(f.tracer);
	assert_int_equal(trace_parse(SLICE(PARENT "1"), &trace), 0);
	tracer_root(f.tracer, &trace, &f.root);
	assert_int_equal(strlen(f.root.span), TRACE_SPAN_LEN);
	f.root.epoch_us = 1700000000000000;
	*state = &f;
	return 0;
}

/* What is on its way arrives before it ends. */
static int teardown(void **state)
{
	struct fixture *f = *state;
	tracer_free(f->tracer, on_freed, f);
	uv_run(&f->loop, UV_RUN_DEFAULT);
	assert_true(f->freed);
	return uv_loop_close(&f->loop);
}

static void expect(struct fixture *f, const struct span *span, const char *wanted)
{
	unsigned before = f->arrived;
	tracer_span(f->tracer, &f->root, span);
	while (f->arrived == before)
		uv_run(&f->loop, UV_RUN_ONCE);
	assert_string_equal(f->last, wanted);
}

static void test_a_span(void **state)
{
	struct fixture *f = *state;
	expect(f,
	       &(struct span){.name = "run",
			      .kind = SPAN_INTERNAL,
			      .id = "1111111111111111",
			      .parent = "2222222222222222",
			      .start_us = 5,
			      .end_us = 1000007},
	       "{" IDS ",\"parentSpanId\":\"2222222222222222\",\"flags\":257,\"name\":\"run\",\"kind\":1,"
	       "\"startTimeUnixNano\":\"1700000000000005000\",\"endTimeUnixNano\":\"1700000001000007000\",\"attributes\":[]}");
}

static void test_the_root(void **state)
{
	struct fixture *f = *state;
	expect(f,
	       &(struct span){.name = "exec",
			      .kind = SPAN_SERVER,
			      .id = "1111111111111111",
			      .start_us = 9,
			      .end_us = 8, /* never before its start */
			      .outcome = "unknown",
			      .status = 502,
			      .error = "outcome-unknown"},
	       "{" IDS ",\"parentSpanId\":\"00f067aa0ba902b7\",\"flags\":769,\"name\":\"exec\",\"kind\":2,"
	       "\"startTimeUnixNano\":\"1700000000000009000\",\"endTimeUnixNano\":\"1700000000000009000\",\"attributes\":["
	       "{\"key\":\"spritegate.outcome\",\"value\":{\"stringValue\":\"unknown\"}},"
	       "{\"key\":\"error.type\",\"value\":{\"stringValue\":\"outcome-unknown\"}},"
	       "{\"key\":\"http.request.method\",\"value\":{\"stringValue\":\"POST\"}},"
	       "{\"key\":\"http.route\",\"value\":{\"stringValue\":\"/-/agent/exec\"}},"
	       "{\"key\":\"http.response.status_code\",\"value\":{\"intValue\":\"502\"}}],\"status\":{\"code\":2}}");
}

static void test_what_is_not_wanted(void **state)
{
	struct fixture *f = *state;
	const struct span span = {.name = "run", .kind = SPAN_INTERNAL};
	struct trace trace;
	struct trace_root root;
	assert_int_equal(trace_parse(SLICE(PARENT "0"), &trace), 0);
	tracer_root(f->tracer, &trace, &root);
	assert_string_equal(root.span, "");
	assert_string_equal(root.trace.id, trace.id);
	tracer_span(f->tracer, &root, &span);
	trace.sampled = true;
	tracer_root(NULL, &trace, &root);
	assert_string_equal(root.span, "");
	tracer_span(NULL, &f->root, &span);
	trace_begin((struct slice){0}, &trace);
	tracer_root(f->tracer, &trace, &root);
	assert_string_equal(root.span, "");
	uv_run(&f->loop, UV_RUN_NOWAIT);
	assert_int_equal(f->arrived, 0);
	assert_int_equal(tracer_dropped(f->tracer), 0);
	assert_int_equal(tracer_dropped(NULL), 0);
}

static void post_many(void *ctx)
{
	struct fixture *f = ctx;
	for (unsigned i = 0; i < TRACER_SPANS; i++)
		tracer_span(f->tracer, &f->root, &(struct span){.name = "run", .kind = SPAN_INTERNAL});
}

/* From several threads, and a loop that does not come to them. */
static void test_what_finds_no_room(void **state)
{
	struct fixture *f = *state;
	uv_thread_t threads[3];
	for (size_t i = 0; i < ARRAY_LEN(threads); i++)
		assert_int_equal(uv_thread_create(&threads[i], post_many, f), 0);
	for (size_t i = 0; i < ARRAY_LEN(threads); i++)
		assert_int_equal(uv_thread_join(&threads[i]), 0);
	assert_int_equal(tracer_dropped(f->tracer), 2 * TRACER_SPANS);
	uv_run(&f->loop, UV_RUN_NOWAIT);
	assert_int_equal(f->arrived, TRACER_SPANS);
	post_many(f);
	assert_int_equal(tracer_dropped(f->tracer), 2 * TRACER_SPANS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_a_span, setup, teardown),
		cmocka_unit_test_setup_teardown(test_the_root, setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_is_not_wanted, setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_finds_no_room, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
