/* The REST client against a scripted server on the same loop. */
#include "gateway/sprites/client.h"

#include "gateway/base/clock.h"

#include "gateway/sprites/test_server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>

#define TOKEN "org/id/top-secret"

static uv_loop_t loop;
static struct curl_driver *driver;
static struct secret token;
static struct client *client;
static struct test_server server;

static struct {
	struct verdict verdict;
	int done, observed;
	unsigned observed_status;
	struct buf found;
	bool free_in_done;
} seen;

static void on_done(void *ctx UNUSED, const struct verdict *verdict)
{
	seen.verdict = *verdict;
	seen.done++;
	assert_null(strstr(verdict->detail, "secret"));
	if (seen.free_in_done) {
		client_free(client);
		client = NULL;
	}
}

static void on_found(void *ctx UNUSED, const char *name, bool ours)
{
	assert_int_equal(buf_printf(&seen.found, "%s%s ", name, ours ? "!" : ""), 0);
}

static void on_call(void *ctx UNUSED, enum sprites_call call UNUSED, uint64_t took_us UNUSED, enum provider_code code UNUSED,
		    unsigned status)
{
	seen.observed++;
	seen.observed_status = status;
}

static void make_client(unsigned timeout_ms, size_t max_calls)
{
	char url[64];
	snprintf(url, sizeof url, "http://127.0.0.1:%d", server.port);
	struct client_options options = {.driver = driver,
					 .base_url = url,
					 .label = "pool=a",
					 .token = &token,
					 .connect_timeout_ms = 5000,
					 .timeout_ms = timeout_ms,
					 .max_calls = max_calls,
					 .observer = {.on_call = on_call}};
	client_free(client);
	client = client_new(&options);
	assert_non_null(client);
}

static int set_up(void **state UNUSED)
{
	memset(&seen, 0, sizeof seen);
	seen.found = BUF_MAX(1 << 16);
	assert_int_equal(uv_loop_init(&loop), 0);
	driver = curl_driver_new(&loop);
	assert_non_null(driver);
	assert_int_equal(secret_init(&token, SLICE(TOKEN)), 0);
	test_server_start(&server, &loop);
	make_client(5000, 4);
	return 0;
}

static int tear_down(void **state UNUSED)
{
	client_free(client);
	client = NULL;
	test_server_stop(&server);
	curl_driver_free(driver);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&loop), 0);
	buf_deinit(&seen.found);
	secret_deinit(&token);
	return 0;
}

static void wait_done(int count)
{
	while (seen.done < count)
		uv_run(&loop, UV_RUN_ONCE);
}

#define SCRIPT(...)                                               \
	static const struct test_answer script[] = {__VA_ARGS__}; \
	test_server_script(&server, script, ARRAY_LEN(script))

static bool asked(const char *want)
{
	bool same = slice_equal(buf_peek(&server.asked), slice_str(want));
	if (!same)
		print_message("asked: %.*s\n", SLICE_FMT(buf_peek(&server.asked)));
	return same;
}

static bool last_has(const char *text)
{
	struct slice last = buf_peek(&server.last);
	return last.len && memmem(last.data, last.len, text, strlen(text));
}

static void test_create(void **state UNUSED)
{
	SCRIPT({"HTTP/1.1 201 Created\r\n\r\n{\"name\":\"sg-1\"}", 0});
	assert_int_equal(client_create(client, "sg-1", on_done, NULL), 0);
	assert_int_equal(seen.done, 0);
	wait_done(1);
	assert_int_equal(seen.verdict.code, PROVIDER_OK);
	assert_true(asked("POST /v1/sprites\n"));
	assert_true(last_has("Authorization: Bearer " TOKEN "\r\n"));
	assert_true(last_has("Content-Type: application/json\r\n"));
	assert_true(last_has("\r\n\r\n{\"name\":\"sg-1\",\"labels\":[\"spritegate\",\"pool=a\"]}"));
	assert_int_equal(seen.observed, 1);
	assert_int_equal(seen.observed_status, 201);
}

static void test_requests(void **state UNUSED)
{
	SCRIPT({"HTTP/1.1 200 OK\r\n\r\n{\"name\":\"a/b\"}", 0}, {"HTTP/1.1 204 No Content\r\n\r\n", 0},
	       {"HTTP/1.1 204 No Content\r\n\r\n", 0}, {"HTTP/1.1 200 OK\r\n\r\n" ANSWERS_POLICY, 0},
	       {"HTTP/1.1 200 OK\r\n\r\n{\"type\":\"complete\"}\n", 0});
	assert_int_equal(client_get(client, "a/b", on_done, NULL), 0);
	wait_done(1);
	assert_int_equal(client_delete(client, "a b", on_done, NULL), 0);
	wait_done(2);
	assert_int_equal(client_close_network(client, "a", on_done, NULL), 0);
	wait_done(3);
	assert_true(last_has("\r\n\r\n" ANSWERS_POLICY));
	assert_int_equal(client_check_network(client, "a", on_done, NULL), 0);
	wait_done(4);
	assert_int_equal(client_kill(client, "a", "4/2", "KILL", on_done, NULL), 0);
	wait_done(5);
	assert_int_equal(seen.verdict.code, PROVIDER_OK);
	assert_true(asked("GET /v1/sprites/a%2Fb\nDELETE /v1/sprites/a%20b\nPOST /v1/sprites/a/policy/network\n"
			  "GET /v1/sprites/a/policy/network\nPOST /v1/sprites/a/exec/4%2F2/kill?timeout=0s&signal=KILL\n"));
}

static void test_retry_after_field(void **state UNUSED)
{
	SCRIPT({"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 12\r\n\r\nslow", 0});
	assert_int_equal(client_create(client, "sg-1", on_done, NULL), 0);
	wait_done(1);
	assert_int_equal(seen.verdict.code, PROVIDER_RATE_LIMIT);
	assert_int_equal(seen.verdict.retry_after_ms, 12000);
}

static void test_rate_limit_fields(void **state UNUSED)
{
	static char soon[256];
	SCRIPT({soon, 0}, {"HTTP/1.1 201 Created\r\nX-RateLimit-Limit: ten\r\nX-RateLimit-Remaining: -1\r\n"
			   "X-RateLimit-Reset: 18446744073709551615\r\n\r\n{\"name\":\"sg-1\"}",
			   0});
	snprintf(soon, sizeof soon,
		 "HTTP/1.1 429 Too Many Requests\r\nx-ratelimit-limit: 10\r\nX-RateLimit-Remaining: 0\r\n"
		 "X-RateLimit-Reset: %llu\r\n\r\nslow",
		 (unsigned long long)(clock_wall_ms() / 1000 + 30));
	assert_int_equal(client_create(client, "sg-1", on_done, NULL), 0);
	wait_done(1);
	assert_int_equal(seen.verdict.code, PROVIDER_RATE_LIMIT);
	assert_int_equal(seen.verdict.limit.count, 10);
	assert_int_equal(seen.verdict.limit.left, 0);
	assert_in_range(seen.verdict.retry_after_ms, 20000, 30000);
	assert_int_equal(client_create(client, "sg-1", on_done, NULL), 0);
	wait_done(2);
	assert_int_equal(seen.verdict.code, PROVIDER_OK);
	assert_int_equal(seen.verdict.limit.count, 0);
	assert_int_equal(seen.verdict.limit.left, UINT64_MAX);
	assert_int_equal(seen.verdict.retry_after_ms, 0);
}

static void test_redirects_are_not_followed(void **state UNUSED)
{
	SCRIPT({"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\n\r\n", 0}, {"HTTP/1.1 200 OK\r\n\r\n{\"name\":\"a\"}", 0});
	assert_int_equal(client_get(client, "a", on_done, NULL), 0);
	wait_done(1);
	assert_int_equal(seen.verdict.code, PROVIDER_INVALID);
	assert_true(asked("GET /v1/sprites/a\n"));
}

static void test_no_answer(void **state UNUSED)
{
	SCRIPT({NULL, 0});
	assert_int_equal(client_delete(client, "a", on_done, NULL), 0);
	wait_done(1);
	assert_int_equal(seen.verdict.code, PROVIDER_UNAVAILABLE);
	assert_int_equal(seen.verdict.status, 0);
	assert_true(seen.verdict.not_ready);
}

/* The server may have done it before it closed the kept connection: what a second one is told would be taken for the answer to the first. */
static void test_a_creation_is_sent_once(void **state UNUSED)
{
	SCRIPT({"HTTP/1.1 204 No Content\r\n\r\n", 0}, {NULL, 0}, {"HTTP/1.1 429 x\r\n\r\n", 0});
	assert_int_equal(client_delete(client, "a", on_done, NULL), 0);
	wait_done(1);
	assert_int_equal(client_create(client, "sg-1", on_done, NULL), 0);
	wait_done(2);
	assert_int_equal(seen.verdict.code, PROVIDER_UNAVAILABLE);
	assert_int_equal(seen.verdict.status, 0);
	assert_true(asked("DELETE /v1/sprites/a\nPOST /v1/sprites\n"));
}

static void test_silence(void **state UNUSED)
{
	SCRIPT({"", 0});
	make_client(30, 4);
	assert_int_equal(client_delete(client, "a", on_done, NULL), 0);
	wait_done(1);
	assert_int_equal(seen.verdict.code, PROVIDER_UNAVAILABLE);
}

static void test_long_bodies(void **state UNUSED)
{
	SCRIPT({"HTTP/1.1 500 Oops\r\n\r\n", 1 << 20}, {"HTTP/1.1 500 Oops\r\n\r\n", (1 << 20) + 1});
	assert_int_equal(client_delete(client, "a", on_done, NULL), 0);
	wait_done(1);
	assert_int_equal(seen.verdict.status, 500);
	assert_int_equal(client_delete(client, "a", on_done, NULL), 0);
	wait_done(2);
	assert_int_equal(seen.verdict.status, 0);
	assert_non_null(strstr(seen.verdict.detail, "longer than 1 MiB"));
}

static void test_bound_of_calls(void **state UNUSED)
{
	SCRIPT({"", 0}, {"", 0});
	make_client(5000, 2);
	assert_int_equal(client_get(client, "a", on_done, NULL), 0);
	assert_int_equal(client_create(client, "a", on_done, NULL), 0);
	assert_int_equal(client_get(client, "a", on_done, NULL), -EBUSY);
	assert_int_equal(client_create(client, "a", on_done, NULL), -EBUSY);
	assert_int_equal(client_list(client, "a", on_found, on_done, NULL), -EBUSY);
	client_free(client);
	client = NULL;
	assert_int_equal(seen.done, 0);
}

static void test_free_in_done(void **state UNUSED)
{
	SCRIPT({"HTTP/1.1 204 No Content\r\n\r\n", 0}, {"", 0});
	seen.free_in_done = true;
	assert_int_equal(client_delete(client, "a", on_done, NULL), 0);
	assert_int_equal(client_delete(client, "b", on_done, NULL), 0);
	wait_done(1);
	for (int i = 0; i < 20; i++)
		uv_run(&loop, UV_RUN_NOWAIT);
	assert_int_equal(seen.done, 1);
}

static void list(int number)
{
	assert_int_equal(client_list(client, "sg-", on_found, on_done, NULL), 0);
	wait_done(number);
}

static void test_list_of_pages(void **state UNUSED)
{
	SCRIPT({"HTTP/1.1 200 OK\r\n\r\n{\"sprites\":[{\"name\":\"sg-1\"},{\"name\":\"other\"}],"
		"\"next_continuation_token\":\"a&b=\",\"has_more\":false,\"running_limit\":7,\"warm_limit\":4}",
		0},
	       {"HTTP/1.1 200 "
		"OK\r\n\r\n{\"sprites\":[{\"name\":\"sg-2\",\"labels\":[\"x\",\"pool=a\"]},"
		"{\"name\":\"sg-3\",\"labels\":[\"pool=ab\",1]}],\"next_continuation_token\":null,\"has_more\":true,\"running_limit\":9}",
		0});
	list(1);
	assert_int_equal(seen.verdict.code, PROVIDER_OK);
	assert_int_equal(seen.verdict.limit.running, 9);
	assert_int_equal(seen.verdict.limit.paused, 4); /* as the first page said */
	assert_true(slice_equal(buf_peek(&seen.found), SLICE("sg-1 sg-2! sg-3 "))); /* what has another prefix is not ours */
	assert_true(asked("GET /v1/sprites?max_results=50&prefix=sg-\n"
			  "GET /v1/sprites?max_results=50&prefix=sg-&continuation_token=a%26b%3D\n"));
	assert_int_equal(seen.observed, 2);
}

static void test_list_that_repeats_itself(void **state UNUSED)
{
	SCRIPT({"HTTP/1.1 200 OK\r\n\r\n{\"sprites\":[],\"next_continuation_token\":\"a\"}", 0},
	       {"HTTP/1.1 200 OK\r\n\r\n{\"sprites\":[],\"next_continuation_token\":\"a\"}", 0});
	list(1);
	assert_int_equal(seen.verdict.code, PROVIDER_INVALID);
}

static void test_list_that_breaks_off(void **state UNUSED)
{
	SCRIPT({"HTTP/1.1 200 OK\r\n\r\n{\"sprites\":[{\"name\":\"sg-1\"}],\"next_continuation_token\":\"a\"}", 0},
	       {"HTTP/1.1 503 x\r\n\r\n", 0}, {"HTTP/1.1 200 OK\r\n\r\n{\"sprites\":[{\"id\":7}]}", 0});
	list(1);
	assert_int_equal(seen.verdict.code, PROVIDER_UNAVAILABLE);
	list(2);
	assert_int_equal(seen.verdict.code, PROVIDER_INVALID);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(test_create),
		TEST(test_requests),
		TEST(test_retry_after_field),
		TEST(test_rate_limit_fields),
		TEST(test_redirects_are_not_followed),
		TEST(test_no_answer),
		TEST(test_a_creation_is_sent_once),
		TEST(test_silence),
		TEST(test_long_bodies),
		TEST(test_bound_of_calls),
		TEST(test_free_in_done),
		TEST(test_list_of_pages),
		TEST(test_list_that_repeats_itself),
		TEST(test_list_that_breaks_off),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
