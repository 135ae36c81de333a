#include "gateway/endpoint/accept.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static void test_accept(void **state UNUSED)
{
	static const struct {
		const char *value;
		enum stream_format format;
		bool events; /* the client takes them at all */
	} rows[] = {
		{"", STREAM_NONE, false},
		{"*/*", STREAM_NONE, false},
		{"text/html", STREAM_NONE, false},
		{"application/json", STREAM_NONE, false},
		{"application/x-ndjson", STREAM_NDJSON, false},
		{"text/event-stream", STREAM_SSE, true},
		{" TEXT/Event-Stream ; charset=utf-8 ", STREAM_SSE, true},
		{"application/json, text/event-stream", STREAM_NONE, true},
		{"text/event-stream, application/json", STREAM_SSE, true},
		{"application/json, text/event-stream;q=0", STREAM_NONE, false},
		{"application/json;q=0.9, text/event-stream", STREAM_SSE, true},
		{"application/x-ndjson;q=0.2,text/event-stream;q=0.3,application/json;Q=0.1", STREAM_SSE, true},
		{"application/x-ndjson;q=0.001, application/json;q=0", STREAM_NDJSON, false},
		{"application/x-ndjson;q=0", STREAM_NONE, false},
		{"application/x-ndjson;q=0.000", STREAM_NONE, false},
		{"application/x-ndjson;q=", STREAM_NDJSON, false},
		{"application/x-ndjson;q=9", STREAM_NDJSON, false},
		{"application/x-ndjson;q=nonsense", STREAM_NDJSON, false},
		{",,;q=1,, application/x-ndjson ,", STREAM_NDJSON, false},
		{"application/x-ndjsonx", STREAM_NONE, false},
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct http_fields fields = {0};
		assert_int_equal(http_fields_add(&fields, SLICE("Accept"), slice_str(rows[i].value)), 0);
		if (exec_accept(&fields) != rows[i].format)
			fail_msg("\"%s\": not %d", rows[i].value, rows[i].format);
		assert_int_equal(exec_accepts_events(&fields), rows[i].events);
	}
}

static void test_several_lines(void **state UNUSED)
{
	struct http_fields fields = {0};
	assert_int_equal(exec_accept(&fields), STREAM_NONE);
	assert_int_equal(http_fields_add(&fields, SLICE("Accept"), SLICE("text/html")), 0);
	assert_int_equal(http_fields_add(&fields, SLICE("accept"), SLICE("application/x-ndjson")), 0);
	assert_int_equal(exec_accept(&fields), STREAM_NDJSON);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_accept), cmocka_unit_test(test_several_lines)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
