/*
 * sprites_driver - drives one Sprites provider and one sandbox from standard input, for the black-box tests of the client
 *
 *   sprites_driver URL TOKEN [KEEPALIVE_MS [PING_MS DEAD_MS]]
 *
 * Lines in:   create NAME | prepare NAME | destroy NAME | list PREFIX | input BYTES | slow | run SHELL-LINE | true |
 *             take NAME PARKING TAKER | signal NAME | bytes | close | quit
 *             `input` is what later commands get (bytes of a..p, over and over); `slow` pauses after each piece of output.
 * Lines out:  JSON objects: {"done": "create", "code", "retry_after_ms", "detail"}, {"found": name}, {"result": n} when a call
 *             returns anything but 0, {"lost": reason}, {"exit": code | null, "doubt", "reason", "stdout_bytes",
 *             "stderr_bytes", "sum", "head"} at the end of a command (`sum` = sum of all output bytes, `head` = the first
 *             bytes of standard output), {"bytes": n} so far, {"socket": status}, {"freed": true}.
 */
#include "gateway/base/json_text.h"
#include "gateway/sprites/sprites_provider.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define HEAD_BYTES 2000

struct driver {
	uv_loop_t loop;
	uv_pipe_t input;
	uv_timer_t resume;
	struct curl_driver *curl;
	struct sprites_provider *sprites;
	struct provider provider;
	struct sandbox *sandbox;
	struct buf line, head, stdin_bytes;
	uint64_t bytes[2], sum;
	bool slow;
};

static void print_string(const char *key, struct slice text)
{
	CLEANUP(buf_deinit) struct buf json = BUF_MAX(65536);
	if (json_text_string(&json, text) != 0)
		abort();
	printf("\"%s\":%.*s", key, SLICE_FMT(buf_peek(&json)));
}

static void print_one(const char *key, const char *text)
{
	printf("{");
	print_string(key, slice_str(text));
	printf("}\n");
}

static void print_result(int r)
{
	if (r != 0)
		printf("{\"result\":%d}\n", r);
}

/* --- the sandbox --- */

static void on_lost(void *ctx UNUSED, const char *reason)
{
	print_one("lost", reason);
}

static void on_resume(uv_timer_t *timer)
{
	struct driver *driver = timer->data;
	if (driver->sandbox)
		sandbox_resume(driver->sandbox);
}

static void on_output(void *ctx, enum sandbox_stream stream, struct slice bytes)
{
	struct driver *driver = ctx;
	driver->bytes[stream] += bytes.len;
	for (size_t i = 0; i < bytes.len; i++)
		driver->sum += (unsigned char)bytes.data[i];
	if (stream == SANDBOX_STDOUT)
		(void)!buf_append(&driver->head, slice_of(bytes.data, bytes.len < HEAD_BYTES ? bytes.len : HEAD_BYTES));
	if (driver->slow) {
		sandbox_pause(driver->sandbox);
		uv_timer_start(&driver->resume, on_resume, 1, 0);
	}
}

static void print_end(struct driver *driver, const char *reason)
{
	printf("\"stdout_bytes\":%" PRIu64 ",\"stderr_bytes\":%" PRIu64 ",\"sum\":%" PRIu64 ",", driver->bytes[0], driver->bytes[1],
	       driver->sum);
	print_string("head", buf_peek(&driver->head));
	printf(",");
	print_string("reason", slice_str(reason));
	printf("}\n");
}

static void on_exit_code(void *ctx, unsigned exit_code)
{
	printf("{\"exit\":%u,\"doubt\":null,", exit_code);
	print_end(ctx, "");
}

static void on_broken(void *ctx, enum sandbox_doubt doubt, const char *reason)
{
	printf("{\"exit\":null,\"doubt\":\"%s\",", doubt == SANDBOX_NOT_STARTED ? "not_started" : "may_have_run");
	print_end(ctx, reason);
}

static int run(struct driver *driver, const char *const *argv, size_t argc)
{
	static const struct sandbox_events events = {.on_output = on_output, .on_exit = on_exit_code, .on_broken = on_broken};
	struct sandbox_command command = {.argv = argv, .argc = argc, .input = buf_peek(&driver->stdin_bytes)};
	driver->bytes[0] = driver->bytes[1] = driver->sum = 0;
	buf_deinit(&driver->head);
	return driver->sandbox ? sandbox_run(driver->sandbox, &command, &events, driver) : SANDBOX_E_LOST;
}

static void set_input(struct driver *driver, size_t len)
{
	buf_deinit(&driver->stdin_bytes);
	for (size_t i = 0; i < len; i++) {
		if (buf_append_char(&driver->stdin_bytes, (char)('a' + i % 16)) != 0)
			abort();
	}
}

/* --- the provider --- */

static struct driver the_driver;

static void on_done(void *ctx, const struct provider_result *result)
{
	if (result->sandbox) {
		the_driver.sandbox = result->sandbox;
		sandbox_on_lost(result->sandbox, on_lost, NULL);
	}
	printf("{");
	print_string("done", slice_str(ctx));
	printf(",\"code\":%d,\"retry_after_ms\":%" PRIu64 ",", (int)result->code, result->retry_after_ms);
	print_string("detail", slice_str(result->detail));
	printf("}\n");
}

static void on_found(void *ctx UNUSED, const char *name, bool ours UNUSED)
{
	print_one("found", name);
}

static void on_opened(void *ctx UNUSED, uint64_t took_us UNUSED, unsigned status)
{
	printf("{\"socket\":%u}\n", status);
}

static void close_sandbox(struct driver *driver)
{
	uv_timer_stop(&driver->resume);
	sandbox_close(driver->sandbox);
	driver->sandbox = NULL;
}

static void quit(struct driver *driver)
{
	uv_close((uv_handle_t *)&driver->input, NULL);
	close_sandbox(driver);
	uv_close((uv_handle_t *)&driver->resume, NULL);
	sprites_provider_free(driver->sprites);
}

/* --- standard input --- */

static int do_name(struct driver *driver, const char *word, const char *name)
{
	static char create[] = "create", prepare[] = "prepare", destroy[] = "destroy", list[] = "list";
	const struct provider_ops *ops = driver->provider.ops;
	void *self = driver->provider.self;
	if (strcmp(word, create) == 0)
		return ops->create(self, name, on_done, create);
	if (strcmp(word, prepare) == 0)
		return ops->prepare(self, name, (struct provider_fence){0}, on_done, prepare);
	if (strcmp(word, destroy) == 0)
		return ops->destroy(self, name, on_done, destroy);
	if (strcmp(word, list) == 0)
		return ops->list(self, name, on_found, on_done, list);
	if (strcmp(word, "signal") == 0)
		return driver->sandbox ? sandbox_signal(driver->sandbox, name) : SANDBOX_E_LOST;
	fprintf(stderr, "what is %s?\n", word);
	abort();
}

static int take(struct driver *driver, const char *name, struct provider_fence fence)
{
	static char wake[] = "wake";
	close_sandbox(driver);
	return driver->provider.ops->wake(driver->provider.self, name, fence, on_done, wake);
}

/* False at the end. */
static bool run_line(struct driver *driver, const char *line)
{
	char word[32], name[128];
	size_t number;
	struct provider_fence fence;
	if (strcmp(line, "quit") == 0) {
		quit(driver);
		return false;
	}
	if (strncmp(line, "run ", 4) == 0)
		print_result(run(driver, (const char *const[]){"bash", "-lc", line + 4}, 3));
	else if (strcmp(line, "true") == 0)
		print_result(run(driver, (const char *const[]){"true"}, 1));
	else if (sscanf(line, "take %127s %" SCNu64 " %" SCNx64, name, &fence.parking, &fence.taker) == 3)
		print_result(take(driver, name, fence));
	else if (sscanf(line, "input %zu", &number) == 1)
		set_input(driver, number);
	else if (strcmp(line, "slow") == 0)
		driver->slow = true;
	else if (strcmp(line, "bytes") == 0)
		printf("{\"bytes\":%" PRIu64 "}\n", driver->bytes[0] + driver->bytes[1]);
	else if (strcmp(line, "close") == 0)
		close_sandbox(driver);
	else if (sscanf(line, "%31s %127s", word, name) == 2)
		print_result(do_name(driver, word, name));
	return true;
}

static void on_alloc(uv_handle_t *handle UNUSED, size_t suggested UNUSED, uv_buf_t *buf)
{
	static char space[65536];
	*buf = uv_buf_init(space, sizeof space);
}

static void on_input(uv_stream_t *stream, ssize_t len, const uv_buf_t *bytes)
{
	struct driver *driver = stream->data;
	if (len < 0) {
		quit(driver);
		return;
	}
	if (buf_append(&driver->line, slice_of(bytes->base, (size_t)len)) != 0)
		abort();
	bool more = true;
	while (more) {
		struct slice text = buf_peek(&driver->line);
		const char *end = text.len ? memchr(text.data, '\n', text.len) : NULL;
		if (!end)
			return;
		CLEANUP(free_ptr) char *line = slice_dup(slice_of(text.data, (size_t)(end - text.data)));
		if (!line)
			abort();
		buf_consume(&driver->line, (size_t)(end - text.data) + 1);
		more = run_line(driver, line);
	}
}

static unsigned number_at(int argc, char **argv, int index)
{
	return argc > index ? (unsigned)strtoul(argv[index], NULL, 10) : 0;
}

int main(int argc, char **argv)
{
	struct driver *driver = &the_driver;
	struct secret token;
	if (argc < 3 || curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		return 2;
	setvbuf(stdout, NULL, _IOLBF, 0);
	driver->line = BUF_MAX(1 << 20);
	driver->head = BUF_MAX(HEAD_BYTES);
	driver->stdin_bytes = BUF_MAX((size_t)64 << 20);
	if (uv_loop_init(&driver->loop) != 0 || secret_init(&token, slice_str(argv[2])) != 0)
		return 1;
	struct sprites_provider_options options = {
		.keepalive_ms = number_at(argc, argv, 3),
		.ping_interval_ms = number_at(argc, argv, 4),
		.dead_after_ms = number_at(argc, argv, 5),
		.observer = {.on_opened = on_opened},
	};
	driver->curl = curl_driver_new(&driver->loop);
	if (!driver->curl || sprites_provider_new(&driver->loop, driver->curl, argv[1], &token, &options, &driver->sprites) != 0)
		return 1;
	secret_deinit(&token);
	driver->provider = sprites_provider_interface(driver->sprites);
	uv_timer_init(&driver->loop, &driver->resume);
	driver->resume.data = driver;
	uv_pipe_init(&driver->loop, &driver->input, 0);
	uv_pipe_open(&driver->input, 0);
	driver->input.data = driver;
	uv_read_start((uv_stream_t *)&driver->input, on_alloc, on_input);
	uv_run(&driver->loop, UV_RUN_DEFAULT);
	curl_driver_free(driver->curl);
	uv_run(&driver->loop, UV_RUN_DEFAULT);
	int r = uv_loop_close(&driver->loop);
	printf("{\"freed\":%s}\n", r == 0 ? "true" : "false");
	buf_deinit(&driver->line);
	buf_deinit(&driver->head);
	buf_deinit(&driver->stdin_bytes);
	curl_global_cleanup();
	return r == 0 ? 0 : 3;
}
