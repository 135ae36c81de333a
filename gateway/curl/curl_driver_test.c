#include "gateway/curl/curl_driver.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

static uv_loop_t loop;
static struct curl_driver *driver;
static uv_tcp_t listener, connection;
static bool connected;
static int port;

struct
try {
	struct curl_transfer transfer;
	int done;
	CURLcode result;
	struct try *start_next; /* in done */
};

static void on_connection(uv_stream_t *stream, int status)
{
	static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
	assert_int_equal(status, 0);
	assert_false(connected);
	assert_int_equal(uv_tcp_init(&loop, &connection), 0);
	assert_int_equal(uv_accept(stream, (uv_stream_t *)&connection), 0);
	connected = true;
	if (!stream->data)
		return;
	uv_buf_t buf = uv_buf_init((char *)(uintptr_t)answer, sizeof answer - 1);
	assert_int_equal(uv_try_write((uv_stream_t *)&connection, &buf, 1), sizeof answer - 1);
}

static size_t ignore_body(char *data UNUSED, size_t size, size_t count, void *ctx UNUSED)
{
	return size * count;
}

static void begin(struct try *try);

static void on_done(struct curl_transfer *transfer, CURLcode result)
{
	struct try *try = CONTAINER_OF(transfer, struct try, transfer);
	try->done++;
	try->result = result;
	curl_transfer_stop(driver, transfer);
	curl_transfer_stop(driver, transfer);
	if (try->start_next)
		begin(try->start_next);
}

static void begin(struct try *try)
{
	char url[64];
	snprintf(url, sizeof url, "http://127.0.0.1:%d/", port);
	try->transfer = (struct curl_transfer){.easy = curl_easy_init(), .done = on_done};
	assert_int_equal(curl_set_common(try->transfer.easy), 0);
	assert_int_equal(curl_easy_setopt(try->transfer.easy, CURLOPT_URL, url), CURLE_OK);
	assert_int_equal(curl_easy_setopt(try->transfer.easy, CURLOPT_TIMEOUT_MS, 40L), CURLE_OK);
	assert_int_equal(curl_easy_setopt(try->transfer.easy, CURLOPT_WRITEFUNCTION, ignore_body), CURLE_OK);
	assert_int_equal(curl_transfer_start(driver, &try->transfer), 0);
	assert_int_equal(try->done, 0);
}

static void end(struct try *try)
{
	curl_transfer_stop(driver, &try->transfer);
	curl_easy_cleanup(try->transfer.easy);
}

static void wait_for(struct try *try)
{
	for (int alive = 1; !try->done; alive = uv_run(&loop, UV_RUN_ONCE))
		assert_int_not_equal(alive, 0);
}

static int set_up(void **state UNUSED)
{
	struct sockaddr_in address;
	int len = sizeof address;
	connected = false;
	assert_int_equal(uv_loop_init(&loop), 0);
	driver = curl_driver_new(&loop);
	assert_non_null(driver);
	assert_int_equal(uv_tcp_init(&loop, &listener), 0);
	assert_int_equal(uv_ip4_addr("127.0.0.1", 0, &address), 0);
	assert_int_equal(uv_tcp_bind(&listener, (struct sockaddr *)&address, 0), 0);
	assert_int_equal(uv_listen((uv_stream_t *)&listener, 8, on_connection), 0);
	assert_int_equal(uv_tcp_getsockname(&listener, (struct sockaddr *)&address, &len), 0);
	listener.data = NULL;
	port = ntohs(address.sin_port);
	return 0;
}

static void close_tcp(uv_tcp_t *tcp)
{
	if (!uv_is_closing((uv_handle_t *)tcp))
		uv_close((uv_handle_t *)tcp, NULL);
}

static int tear_down(void **state UNUSED)
{
	close_tcp(&listener);
	if (connected)
		close_tcp(&connection);
	curl_driver_free(driver);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&loop), 0);
	return 0;
}

static void test_answer(void **state UNUSED)
{
	struct try try = {0};
	listener.data = &loop;
	begin(&try);
	wait_for(&try);
	assert_int_equal(try.result, CURLE_OK);
	end(&try);
}

static void test_time_out_comes_through_the_timer(void **state UNUSED)
{
	struct try try = {0};
	begin(&try);
	wait_for(&try);
	assert_int_equal(try.result, CURLE_OPERATION_TIMEDOUT);
	end(&try);
}

static void test_refused(void **state UNUSED)
{
	struct try try = {0};
	close_tcp(&listener);
	uv_run(&loop, UV_RUN_NOWAIT);
	begin(&try);
	wait_for(&try);
	assert_int_equal(try.result, CURLE_COULDNT_CONNECT);
	end(&try);
}

static void test_reset_by_the_peer(void **state UNUSED)
{
	struct try try = {0};
	begin(&try);
	while (!connected)
		uv_run(&loop, UV_RUN_ONCE);
	assert_int_equal(uv_tcp_close_reset(&connection, NULL), 0);
	wait_for(&try);
	assert_int_not_equal(try.result, CURLE_OK);
	assert_int_not_equal(try.result, CURLE_OPERATION_TIMEDOUT);
	end(&try);
}

static void test_stopped_before_its_end(void **state UNUSED)
{
	struct try try = {0}, never = {0};
	begin(&never);
	begin(&try);
	curl_transfer_stop(driver, &never.transfer);
	wait_for(&try);
	assert_int_equal(never.done, 0);
	end(&try);
	end(&never);
}

static void test_started_in_done(void **state UNUSED)
{
	struct try second = {0}, first = {.start_next = &second};
	close_tcp(&listener);
	uv_run(&loop, UV_RUN_NOWAIT);
	begin(&first);
	wait_for(&second);
	assert_int_equal(first.done, 1);
	assert_int_equal(second.result, CURLE_COULDNT_CONNECT);
	end(&first);
	end(&second);
}

static void test_only_http(void **state UNUSED)
{
	struct try try = {0};
	begin(&try);
	curl_transfer_stop(driver, &try.transfer);
	assert_int_equal(curl_easy_setopt(try.transfer.easy, CURLOPT_URL, "file:///etc/passwd"), CURLE_OK);
	assert_int_equal(curl_transfer_start(driver, &try.transfer), 0);
	wait_for(&try);
	assert_int_equal(try.result, CURLE_UNSUPPORTED_PROTOCOL);
	end(&try);
}

static void on_kept(struct curl_transfer *transfer, CURLcode result)
{
	struct try *try = CONTAINER_OF(transfer, struct try, transfer);
	try->done++;
	try->result = result;
}

/* libcurl looks for dead connections when a transfer starts, once a second at most. */
static void test_a_kept_connection_outlives_other_transfers(void **state UNUSED)
{
	struct try kept = {0}, other = {0};
	char text[32];
	size_t got = 0;
	listener.data = &loop;
	begin(&kept);
	curl_transfer_stop(driver, &kept.transfer);
	kept.transfer.done = on_kept;
	assert_int_equal(curl_easy_setopt(kept.transfer.easy, CURLOPT_CONNECT_ONLY, 1L), CURLE_OK);
	assert_int_equal(curl_transfer_start_kept(driver, &kept.transfer), 0);
	wait_for(&kept);
	assert_int_equal(kept.result, CURLE_OK);
	while (!connected)
		uv_run(&loop, UV_RUN_ONCE);
	uv_sleep(1100);
	close_tcp(&listener);
	uv_run(&loop, UV_RUN_NOWAIT);
	begin(&other);
	wait_for(&other);
	assert_int_equal(curl_easy_recv(kept.transfer.easy, text, sizeof text, &got), CURLE_OK);
	assert_memory_equal(text, "HTTP/1.1 200 OK", 15);
	end(&other);
	end(&kept);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(test_answer),
		TEST(test_time_out_comes_through_the_timer),
		TEST(test_refused),
		TEST(test_reset_by_the_peer),
		TEST(test_stopped_before_its_end),
		TEST(test_started_in_done),
		TEST(test_only_http),
		TEST(test_a_kept_connection_outlives_other_transfers),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
