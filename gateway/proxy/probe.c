#include "gateway/proxy/probe.h"

#include <stdlib.h>

#define PERIOD_MS   1000
#define PATIENCE_MS 5000

struct probe {
	struct probe_options options;
	uv_timer_t timer;
	struct exchange *exchange; /* NULL between probes */
	struct buf head;
};

static void on_head(void *ctx UNUSED, const struct response_head *head UNUSED)
{
}

static size_t on_room(void *ctx UNUSED)
{
	return 4096;
}

static void on_body(void *ctx UNUSED, struct slice bytes UNUSED)
{
}

static void on_end(void *ctx)
{
	struct probe *probe = ctx;
	probe->exchange = NULL;
	probe->options.on_outcome(probe->options.ctx, true);
}

static void on_failed(void *ctx, const struct exchange_failure *failure UNUSED)
{
	struct probe *probe = ctx;
	probe->exchange = NULL;
	probe->options.on_outcome(probe->options.ctx, false);
}

static const struct exchange_events events = {
	.on_head = on_head, .on_room = on_room, .on_body = on_body, .on_end = on_end, .on_failed = on_failed};

static void on_timer(uv_timer_t *timer)
{
	struct probe *probe = timer->data;
	if (probe->exchange || !probe->options.is_wanted(probe->options.ctx))
		return;
	struct exchange_request request = {
		.head = buf_peek(&probe->head), .to_head = true, .first_byte_ms = PATIENCE_MS, .idle_ms = PATIENCE_MS};
	/* When none can be started now, the next second is soon enough. */
	if (exchange_start(probe->options.exchanges, &request, &events, probe, &probe->exchange) != 0)
		probe->exchange = NULL;
}

struct probe *probe_new(const struct probe_options *options)
{
	struct probe *probe = calloc(1, sizeof *probe);
	if (!probe)
		return NULL;
	probe->options = *options;
	buf_init(&probe->head, 1024);
	/* Via ends it where DATASETTE_URL leads back here. */
	if (buf_printf(&probe->head, "HEAD /-/versions.json HTTP/1.1\r\nHost: %.*s\r\nVia: 1.1 spritegate\r\n", SLICE_FMT(options->host)) <
	    0) {
		free(probe);
		return NULL;
	}
	uv_timer_init(options->loop, &probe->timer);
	probe->timer.data = probe;
	uv_timer_start(&probe->timer, on_timer, PERIOD_MS, PERIOD_MS);
	return probe;
}

static void on_closed(uv_handle_t *handle)
{
	struct probe *probe = handle->data;
	buf_deinit(&probe->head);
	free(probe);
}

void probe_free(struct probe *probe)
{
	if (!probe)
		return;
	exchange_cancel(TAKE(probe->exchange));
	uv_close((uv_handle_t *)&probe->timer, on_closed);
}
