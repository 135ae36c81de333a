/* The provider against a scripted server on the same loop. */
#include "gateway/sprites/sprites_provider.h"

#include "gateway/sprites/test_server.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>

#define OK_POLICY  "HTTP/1.1 200 OK\r\n\r\n{\"rules\":[{\"domain\":\"*\",\"action\":\"deny\"}]}"
#define EMPTY_LIST "HTTP/1.1 200 OK\r\n\r\n{\"sprites\":[],\"next_continuation_token\":null,\"has_more\":true}"
#define LIST       "HTTP/1.1 200 OK\r\n\r\n{\"sprites\":[{\"name\":\"sg-12\"},{\"name\":\"sg-1\"}]}"
#define NOT_FOUND  "HTTP/1.1 404 Not Found\r\n\r\n{\"error\":\"sprite not found\"}"
#define QUIRK      "HTTP/1.1 500 Oops\r\n\r\n{\"error\":\"failed to delete sprite\"}"
#define GET_QUIRK  "HTTP/1.1 500 Oops\r\n\r\n{\"error\":\"failed to retrieve sprite\"}"
#define NO_CONTENT "HTTP/1.1 204 No Content\r\n\r\n"

static uv_loop_t loop;
static struct curl_driver *driver;
static struct secret token;
static struct sprites_provider *provider;
static struct provider interface;
static struct test_server server;

static struct {
	int done;
	enum provider_code code;
	struct sandbox *sandbox;
	uint64_t retry_after_ms;
	struct provider_limit limit;
	char detail[300];
	bool free_in_done;
} seen;

static void on_done(void *ctx UNUSED, const struct provider_result *result)
{
	seen.done++;
	seen.code = result->code;
	seen.sandbox = result->sandbox;
	seen.retry_after_ms = result->retry_after_ms;
	seen.limit = result->limit;
	snprintf(seen.detail, sizeof seen.detail, "%s", result->detail);
	if (seen.free_in_done) {
		sprites_provider_free(provider);
		provider = NULL;
	}
}

static void make_provider(unsigned prepare_timeout_ms)
{
	char url[64];
	struct sprites_provider_options options = {.prepare_timeout_ms = prepare_timeout_ms};
	snprintf(url, sizeof url, "http://127.0.0.1:%d/", server.port);
	sprites_provider_free(provider);
	assert_int_equal(sprites_provider_new(&loop, driver, url, &token, &options, &provider), 0);
	interface = sprites_provider_interface(provider);
}

static int set_up(void **state UNUSED)
{
	memset(&seen, 0, sizeof seen);
	assert_int_equal(uv_loop_init(&loop), 0);
	driver = curl_driver_new(&loop);
	assert_non_null(driver);
	assert_int_equal(secret_init(&token, SLICE("secret")), 0);
	test_server_start(&server, &loop);
	make_provider(0);
	return 0;
}

static int tear_down(void **state UNUSED)
{
	sprites_provider_free(provider);
	provider = NULL;
	test_server_stop(&server);
	uv_run(&loop, UV_RUN_DEFAULT);
	curl_driver_free(driver);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&loop), 0);
	secret_deinit(&token);
	return 0;
}

static enum provider_code wait_done(void)
{
	assert_int_equal(seen.done, 0);
	while (!seen.done)
		uv_run(&loop, UV_RUN_ONCE);
	assert_int_equal(seen.done, 1);
	assert_true(seen.code == PROVIDER_OK || !seen.sandbox);
	assert_true(strlen(seen.detail) > 0);
	seen.done = 0;
	return seen.code;
}

#define SCRIPT(...)                                                        \
	do {                                                               \
		static const struct test_answer script_[] = {__VA_ARGS__}; \
		test_server_script(&server, script_, ARRAY_LEN(script_));  \
	} while (0)

static bool asked(const char *want)
{
	bool same = slice_equal(buf_peek(&server.asked), slice_str(want));
	if (!same)
		print_message("asked: %.*s\n", SLICE_FMT(buf_peek(&server.asked)));
	return same;
}

#define DELETED "DELETE /v1/sprites/sg-1\n"
#define GOT     "GET /v1/sprites/sg-1\n"
#define LISTED  "GET /v1/sprites?max_results=50&prefix=sg-1\n"
#define CLOSED  "POST /v1/sprites/sg-1/policy/network\n"
#define CHECKED "GET /v1/sprites/sg-1/policy/network\n"
#define DIALLED "GET /v1/sprites/sg-1/control\n"

static enum provider_code destroy(void)
{
	assert_int_equal(interface.ops->destroy(interface.self, "sg-1", on_done, NULL), 0);
	return wait_done();
}

static enum provider_code prepare(void)
{
	assert_int_equal(interface.ops->prepare(interface.self, "sg-1", (struct provider_fence){0}, on_done, NULL), 0);
	return wait_done();
}

static void test_destroy(void **state UNUSED)
{
	SCRIPT({NO_CONTENT, 0});
	assert_int_equal(destroy(), PROVIDER_OK);
	assert_true(asked(DELETED));
	SCRIPT({"HTTP/1.1 500 Oops\r\n\r\nno", 0});
	assert_int_equal(destroy(), PROVIDER_UNAVAILABLE);
	assert_true(asked(DELETED));
	SCRIPT({"HTTP/1.1 401 No\r\n\r\n{}", 0});
	assert_int_equal(destroy(), PROVIDER_UNAUTHORIZED);
}

/* Only when the list agrees is a Sprite gone. */
static void test_destroy_of_what_is_not_there(void **state UNUSED)
{
	SCRIPT({NOT_FOUND, 0}, {EMPTY_LIST, 0});
	assert_int_equal(destroy(), PROVIDER_GONE);
	assert_true(asked(DELETED LISTED));
	SCRIPT({NOT_FOUND, 0}, {LIST, 0});
	assert_int_equal(destroy(), PROVIDER_UNAVAILABLE);
	SCRIPT({NOT_FOUND, 0}, {"HTTP/1.1 500 Oops\r\n\r\n", 0});
	assert_int_equal(destroy(), PROVIDER_UNAVAILABLE);
	SCRIPT({NOT_FOUND, 0}, {NOT_FOUND, 0});
	assert_int_equal(destroy(), PROVIDER_UNAVAILABLE);
	SCRIPT({NOT_FOUND, 0}, {"HTTP/1.1 200 OK\r\n\r\n{}", 0});
	assert_int_equal(destroy(), PROVIDER_UNAVAILABLE);
}

static void test_destroy_answered_with_the_recorded_500(void **state UNUSED)
{
	SCRIPT({QUIRK, 0}, {NOT_FOUND, 0}, {EMPTY_LIST, 0});
	assert_int_equal(destroy(), PROVIDER_GONE);
	assert_true(asked(DELETED GOT LISTED));
	SCRIPT({QUIRK, 0}, {GET_QUIRK, 0}, {EMPTY_LIST, 0});
	assert_int_equal(destroy(), PROVIDER_GONE);
	SCRIPT({QUIRK, 0}, {GET_QUIRK, 0}, {LIST, 0});
	assert_int_equal(destroy(), PROVIDER_UNAVAILABLE);
	SCRIPT({QUIRK, 0}, {"HTTP/1.1 200 OK\r\n\r\n{\"name\":\"sg-1\"}", 0});
	assert_int_equal(destroy(), PROVIDER_UNAVAILABLE);
	assert_true(asked(DELETED GOT));
}

static void test_network_that_stays_open(void **state UNUSED)
{
	SCRIPT({NO_CONTENT, 0}, {"HTTP/1.1 200 OK\r\n\r\n{\"rules\":[]}", 0});
	assert_int_equal(prepare(), PROVIDER_POLICY);
	assert_true(asked(CLOSED CHECKED)); /* nothing was dialled */
	SCRIPT({"HTTP/1.1 400 Bad\r\n\r\ninvalid policy config", 0});
	assert_int_equal(prepare(), PROVIDER_POLICY);
	assert_non_null(strstr(seen.detail, "invalid policy config"));
}

static void test_prepare_dials_after_the_check(void **state UNUSED)
{
	SCRIPT({NO_CONTENT, 0}, {OK_POLICY, 0}, {"HTTP/1.1 401 No\r\n\r\n{}", 0});
	assert_int_equal(prepare(), PROVIDER_UNAUTHORIZED);
	assert_true(asked(CLOSED CHECKED DIALLED));
}

/* Without a control socket, too: it is the one that says so. */
static void test_outdated_sprites_are_not_prepared(void **state UNUSED)
{
	SCRIPT({NO_CONTENT, 0}, {OK_POLICY, 0}, {"HTTP/1.1 404 No\r\nSprite-Version: v0.0.1-rc31\r\n\r\n", 0});
	assert_int_equal(prepare(), PROVIDER_INVALID);
	assert_non_null(strstr(seen.detail, "v0.0.1-rc31"));
	assert_true(asked(CLOSED CHECKED DIALLED));
}

#define FULL                                                       \
	"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 9\r\n\r\n" \
	"{\"error\":\"concurrent_sprite_limit_exceeded\",\"limit\":3,\"retry_after_seconds\":7}"
#define SLOW_DOWN "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 9\r\nX-RateLimit-Limit: 2\r\n\r\n"

/* Nothing of it is about creations, and what the provider says of the time reaches the pool. */
static void test_limits(void **state UNUSED)
{
	static const struct {
		struct test_answer script[3];
		enum provider_code code;
		uint64_t retry_after_ms, running;
	} rows[] = {
		{{{FULL, 0}}, PROVIDER_CAPACITY, 7000, 3},
		{{{SLOW_DOWN, 0}}, PROVIDER_THROTTLED, 9000, 0},
		{{{OK_POLICY, 0}, {SLOW_DOWN, 0}}, PROVIDER_THROTTLED, 9000, 0}, /* the handshake */
		{{{OK_POLICY, 0}, {FULL, 0}}, PROVIDER_THROTTLED, 9000, 0},      /* its body is not read */
	};
	make_provider(5000);
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		test_server_script(&server, rows[i].script, ARRAY_LEN(rows[i].script));
		assert_int_equal(interface.ops->wake(interface.self, "sg-1", (struct provider_fence){0}, on_done, NULL), 0);
		assert_int_equal(wait_done(), rows[i].code);
		assert_int_equal(seen.retry_after_ms, rows[i].retry_after_ms);
		assert_int_equal(seen.limit.count, 0);
		assert_int_equal(seen.limit.running, rows[i].running);
	}
	SCRIPT({NOT_FOUND, 0}, {SLOW_DOWN, 0});
	assert_int_equal(destroy(), PROVIDER_UNAVAILABLE);
	assert_int_equal(seen.retry_after_ms, 9000);
	SCRIPT({QUIRK, 0}, {SLOW_DOWN, 0});
	assert_int_equal(destroy(), PROVIDER_UNAVAILABLE);
	assert_int_equal(seen.retry_after_ms, 9000);
	SCRIPT({SLOW_DOWN, 0});
	assert_int_equal(destroy(), PROVIDER_THROTTLED);
	assert_int_equal(seen.retry_after_ms, 9000);
}

static void test_prepare_of_what_is_not_there(void **state UNUSED)
{
	SCRIPT({NOT_FOUND, 0}, {NOT_FOUND, 0}, {NOT_FOUND, 0}, {EMPTY_LIST, 0});
	assert_int_equal(prepare(), PROVIDER_GONE);
	assert_true(asked(CLOSED CLOSED CLOSED LISTED));
}

static void test_prepare_takes_too_long(void **state UNUSED)
{
	SCRIPT({"", 0});
	make_provider(30);
	assert_int_equal(prepare(), PROVIDER_UNAVAILABLE);
	/* The call is still out; its end must reach nobody. */
	for (size_t i = 0; i < TEST_SERVER_CONNECTIONS; i++)
		test_connection_close(&server.connections[i]);
	for (int i = 0; i < 20; i++)
		uv_run(&loop, UV_RUN_NOWAIT);
	assert_int_equal(seen.done, 0);
}

#define OPEN   "{\"rules\":[{\"domain\":\"example.com\",\"action\":\"allow\"},{\"domain\":\"*\",\"action\":\"deny\"}]}"
#define OPENED "POST /v1/sprites/sg-1/policy/network\n"
#define MANY   200

/* What was to be asked by then has been. */
static void turn(void)
{
	while (!server.asked.len)
		uv_run(&loop, UV_RUN_ONCE);
	for (int i = 0; i < MANY; i++)
		uv_run(&loop, UV_RUN_NOWAIT);
}

/* A preparation that nobody waits for any more may yet close the network: what opens it comes after that, and so does not lose it. */
static void test_what_is_late_comes_first(void **state UNUSED)
{
	SCRIPT({"", 0}, {NO_CONTENT, 0}, {"HTTP/1.1 200 OK\r\n\r\n" OPEN, 0});
	assert_int_equal(interface.ops->prepare(interface.self, "sg-1", (struct provider_fence){0}, on_done, NULL), 0);
	turn();
	interface.ops->abandon(interface.self);
	assert_int_equal(wait_done(), PROVIDER_UNAVAILABLE);
	assert_int_equal(interface.ops->open_network(interface.self, "sg-1", "example.com", on_done, NULL), 0);
	turn();
	assert_true(asked(CLOSED));
	static const struct test_answer late = {NO_CONTENT, 0};
	test_server_answer(&server.connections[0], &late);
	assert_int_equal(wait_done(), PROVIDER_OK);
	assert_true(asked(CLOSED OPENED CHECKED));
}

/* In the order in which they were asked for; another Sprite's do not wait, nor does a deletion. */
static void test_one_after_the_other(void **state UNUSED)
{
	SCRIPT({"", 0}, {NO_CONTENT, 0}, {NO_CONTENT, 0}, {"HTTP/1.1 200 OK\r\n\r\n{\"rules\":[]}", 0});
	assert_int_equal(interface.ops->open_network(interface.self, "sg-1", "example.com", on_done, NULL), 0);
	assert_int_equal(interface.ops->resume(interface.self, "sg-1", on_done, NULL), 0);
	turn();
	assert_true(asked(OPENED));
	assert_int_equal(destroy(), PROVIDER_OK);
	assert_true(asked(OPENED DELETED));
	interface.ops->abandon(interface.self);
	assert_int_equal(wait_done(), PROVIDER_UNAVAILABLE);
	assert_true(asked(OPENED DELETED));
	assert_int_equal(interface.ops->prepare(interface.self, "sg-2", (struct provider_fence){0}, on_done, NULL), 0);
	assert_int_equal(wait_done(), PROVIDER_POLICY);
}

static void test_abandon_ends_a_preparation_at_once(void **state UNUSED)
{
	SCRIPT({"", 0});
	assert_int_equal(interface.ops->prepare(interface.self, "sg-1", (struct provider_fence){0}, on_done, NULL), 0);
	interface.ops->abandon(interface.self);
	assert_int_equal(seen.done, 0);
	assert_int_equal(wait_done(), PROVIDER_UNAVAILABLE);
}

static void test_abandon_leaves_a_deletion_alone(void **state UNUSED)
{
	SCRIPT({NO_CONTENT, 0});
	assert_int_equal(interface.ops->destroy(interface.self, "sg-1", on_done, NULL), 0);
	interface.ops->abandon(interface.self);
	assert_int_equal(wait_done(), PROVIDER_OK);
}

static void test_free_with_work_under_way(void **state UNUSED)
{
	SCRIPT({"", 0}, {"", 0}, {"", 0}, {"", 0});
	assert_int_equal(interface.ops->create(interface.self, "sg-1", on_done, NULL), 0);
	assert_int_equal(interface.ops->prepare(interface.self, "sg-1", (struct provider_fence){0}, on_done, NULL), 0);
	assert_int_equal(interface.ops->destroy(interface.self, "sg-1", on_done, NULL), 0);
	for (int i = 0; i < 20; i++)
		uv_run(&loop, UV_RUN_NOWAIT);
	sprites_provider_free(provider);
	provider = NULL;
	assert_int_equal(seen.done, 3);
	assert_int_equal(seen.code, PROVIDER_UNAVAILABLE);
}

static void test_free_in_done(void **state UNUSED)
{
	seen.free_in_done = true;
	SCRIPT({NO_CONTENT, 0}, {"HTTP/1.1 200 OK\r\n\r\n{}", 0});
	assert_int_equal(prepare(), PROVIDER_POLICY);
	assert_null(provider);
}

static void test_names(void **state UNUSED)
{
	static const char long_name[] = "sg-4567890123456789012345678901234567890123456789012345678901234";
	assert_int_equal(interface.ops->create(interface.self, long_name, on_done, NULL), -EINVAL);
	assert_int_equal(interface.ops->prepare(interface.self, "", (struct provider_fence){0}, on_done, NULL), -EINVAL);
	assert_int_equal(interface.ops->destroy(interface.self, long_name, on_done, NULL), -EINVAL);
}

static int try_new(const char *url, struct slice secret)
{
	struct sprites_provider *other = NULL;
	struct secret key;
	assert_int_equal(secret_init(&key, secret), 0);
	int r = sprites_provider_new(&loop, driver, url, &key, NULL, &other);
	assert_true((r == 0) == (other != NULL));
	sprites_provider_free(other);
	secret_deinit(&key);
	return r;
}

static void test_bad_settings(void **state UNUSED)
{
	assert_int_equal(try_new("https://api.sprites.dev", SLICE("a/b/c")), 0);
	assert_int_equal(try_new("http://[::1]:80/", SLICE("a")), 0);
	assert_int_equal(try_new("ftp://x", SLICE("a")), -EINVAL);
	assert_int_equal(try_new("", SLICE("a")), -EINVAL);
	assert_int_equal(try_new("https://x", SLICE("")), -EINVAL);
	assert_int_equal(try_new("https://x", SLICE("a\r\nX: y")), -EINVAL);
	assert_int_equal(try_new("https://x", SLICE("a b")), -EINVAL);
	assert_int_equal(try_new("https://x", SLICE("a\0b")), -EINVAL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(test_destroy),
		TEST(test_destroy_of_what_is_not_there),
		TEST(test_destroy_answered_with_the_recorded_500),
		TEST(test_network_that_stays_open),
		TEST(test_prepare_dials_after_the_check),
		TEST(test_outdated_sprites_are_not_prepared),
		TEST(test_limits),
		TEST(test_prepare_of_what_is_not_there),
		TEST(test_prepare_takes_too_long),
		TEST(test_what_is_late_comes_first),
		TEST(test_one_after_the_other),
		TEST(test_abandon_ends_a_preparation_at_once),
		TEST(test_abandon_leaves_a_deletion_alone),
		TEST(test_free_with_work_under_way),
		TEST(test_free_in_done),
		TEST(test_names),
		TEST(test_bad_settings),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
