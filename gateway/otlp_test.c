#include "gateway/otlp.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdlib.h>

static struct otlp *make(uv_loop_t *loop, struct curl_driver *curl, const char *url, const char *headers)
{
	char error[OTLP_ERROR_LEN];
	struct secret secret = {.bytes = NULL};
	assert_int_equal(secret_init(&secret, slice_str(headers)), 0);
	struct otlp *otlp = otlp_new(
		&(struct otlp_options){.loop = loop, .curl = curl, .url = url, .headers = &secret, .version = "1", .instance = "test"},
		error);
	if (!otlp)
		assert_null(strstr(error, "hidden"));
	secret_deinit(&secret);
	return otlp;
}

static void on_freed(void *ctx)
{
	*(bool *)ctx = true;
}

/* A collector that never takes any: what waits is bounded, the rest is counted, and the end does not wait for it. */
static void test_what_finds_no_room(void **state UNUSED)
{
	enum { SPAN = 1024, MANY = 3 * OTLP_BATCH_BYTES / SPAN };
	uv_loop_t loop;
	bool freed = false;
	char *span = malloc(SPAN);
	assert_non_null(span);
	memset(span, 'x', SPAN);
	assert_int_equal(uv_loop_init(&loop), 0);
	struct curl_driver *curl = curl_driver_new(&loop);
	assert_non_null(curl);
	/* No socket is opened for a port that curl refuses. */
	struct otlp *otlp = make(&loop, curl, "http://127.0.0.1:0/v1/traces", "");
	assert_non_null(otlp);
	for (int i = 0; i < MANY; i++)
		otlp_add(otlp, slice_of(span, SPAN));
	uint64_t kept = OTLP_BATCH_BYTES / (SPAN + 1); /* each but the first has a comma */
	assert_in_range(otlp_dropped(otlp), MANY - kept - 1, MANY - kept);
	assert_int_equal(otlp_sent(otlp), 0);
	otlp_free(otlp, on_freed, &freed);
	while (!freed)
		uv_run(&loop, UV_RUN_ONCE);
	curl_driver_free(curl);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&loop), 0);
	free(span);
}

static void test_settings(void **state UNUSED)
{
	static const char *const bad[][2] = {
		{"", ""},
		{"nonsense://", ""},
		{"ftp://h/", ""},
		{"file:///etc/passwd", ""},
		{"http://hidden@h/", ""},
		{"http://user:hidden@h/", ""},
		{"http://h/", "hidden"},
		{"http://h/", "=hidden"},
		{"http://h/", "A="},
		{"http://h/", "A b=hidden"},
		{"http://h/", "A=hidden%0d%0aB:%20c"},
		{"http://h/", "A=%00hidden"},
		{"http://h/", "A=1,,B=hidden"},
	};
	static const char *const good[][2] = {
		{"http://h:4318/v1/traces", ""},
		{"https://[::1]/x?y", "A=1"},
		{"http://h", "Authorization=Basic%20dTpw, X-Other = b=c"},
	};
	bool freed = false;
	uv_loop_t loop;
	assert_int_equal(uv_loop_init(&loop), 0);
	for (size_t i = 0; i < ARRAY_LEN(bad); i++)
		assert_null(make(&loop, NULL, bad[i][0], bad[i][1]));
	for (size_t i = 0; i < ARRAY_LEN(good); i++) {
		struct otlp *otlp = make(&loop, NULL, good[i][0], good[i][1]);
		assert_non_null(otlp);
		otlp_free(otlp, on_freed, &freed);
	}
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_true(freed);
	assert_int_equal(uv_loop_close(&loop), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_what_finds_no_room), cmocka_unit_test(test_settings)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
