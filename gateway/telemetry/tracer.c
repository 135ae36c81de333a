#include "gateway/telemetry/tracer.h"

#include "gateway/base/buf.h"
#include "gateway/base/clock.h"
#include "gateway/base/json_text.h"
#include "gateway/base/mailbox.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

/* Of a span's flags (opentelemetry/proto/trace/v1): it is known whether the parent is of another program, and it is. */
#define FLAGS_KNOWN  0x100
#define FLAGS_REMOTE 0x200
#define STATUS_ERROR 2

struct item {
	struct mailbox_item item;
	struct buf text;
};

struct tracer {
	struct tracer_options options;
	struct mailbox mailbox;
	_Atomic uint64_t dropped;
	void (*on_freed)(void *ctx);
	void *freed_ctx;
};

static uint64_t epoch_us(void)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000 - clock_mono_us();
}

void tracer_root(struct tracer *tracer, const struct trace *trace, struct trace_root *root)
{
	*root = (struct trace_root){.trace = *trace};
	if (!tracer || !trace->sampled || !trace->id[0])
		return;
	root->epoch_us = epoch_us();
	if (trace_span_id(root->span) < 0)
		root->span[0] = '\0';
}

/* Attributes with a text, of which the first is without a comma. */
static int put_text(struct buf *out, const char *key, const char *value)
{
	if (!value || !*value)
		return 0;
	bool first = out->data[out->start + out->len - 1] == '[';
	int r = buf_printf(out, "%s{\"key\":\"%s\",\"value\":{\"stringValue\":", first ? "" : ",", key);
	if (r == 0)
		r = json_text_string(out, slice_str(value));
	return r < 0 ? r : buf_append(out, SLICE("}}"));
}

static int put_attributes(const struct span *span, struct buf *out)
{
	int r = buf_append(out, SLICE(",\"attributes\":["));
	if (r == 0)
		r = put_text(out, "spritegate.exec_id", span->exec_id);
	if (r == 0)
		r = put_text(out, "spritegate.outcome", span->outcome);
	if (r == 0)
		r = put_text(out, "spritegate.tier", span->tier);
	if (r == 0)
		r = put_text(out, "error.type", span->error);
	if (r == 0 && span->kind == SPAN_SERVER) {
		r = put_text(out, "http.request.method", "POST");
		if (r == 0)
			r = put_text(out, "http.route", "/-/agent/exec");
		if (r == 0 && span->status) /* 64-bit integers are strings in protobuf's JSON */
			r = buf_printf(out, ",{\"key\":\"http.response.status_code\",\"value\":{\"intValue\":\"%u\"}}", span->status);
	}
	return r < 0 ? r : buf_append_char(out, ']');
}

static int put_span(const struct trace_root *root, const struct span *span, const char *id, struct buf *out)
{
	bool is_root = span->kind == SPAN_SERVER;
	const char *parent = is_root ? root->trace.parent : span->parent ? span->parent : root->span;
	uint64_t end_us = span->end_us > span->start_us ? span->end_us : span->start_us;
	int r = buf_printf(out, "{\"traceId\":\"%s\",\"spanId\":\"%s\"", root->trace.id, id);
	if (r == 0 && *parent)
		r = buf_printf(out, ",\"parentSpanId\":\"%s\"", parent);
	if (r == 0)
		r = buf_printf(out,
			       ",\"flags\":%u,\"name\":\"%s\",\"kind\":%u,\"startTimeUnixNano\":\"%" PRIu64
			       "000\",\"endTimeUnixNano\":\"%" PRIu64 "000\"",
			       1U | FLAGS_KNOWN | (is_root && *parent ? FLAGS_REMOTE : 0U), span->name, (unsigned)span->kind,
			       root->epoch_us + span->start_us, root->epoch_us + end_us);
	if (r == 0)
		r = put_attributes(span, out);
	if (r == 0 && span->error)
		r = buf_printf(out, ",\"status\":{\"code\":%u}", STATUS_ERROR);
	return r < 0 ? r : buf_append_char(out, '}');
}

static void free_item(struct item *item)
{
	buf_deinit(&item->text);
	free(item);
}

static int write_item(const struct trace_root *root, const struct span *span, struct buf *out)
{
	char id[TRACE_SPAN_LEN + 1];
	int r = span->id ? 0 : trace_span_id(id);
	return r < 0 ? r : put_span(root, span, span->id ? span->id : id, out);
}

void tracer_span(struct tracer *tracer, const struct trace_root *root, const struct span *span)
{
	if (!tracer || !root->span[0])
		return;
	struct item *item = calloc(1, sizeof *item);
	if (item) {
		buf_init(&item->text, TRACER_SPAN_BYTES);
		if (write_item(root, span, &item->text) == 0 && mailbox_post(&tracer->mailbox, &item->item) == 0)
			return;
		free_item(item);
	}
	atomic_fetch_add_explicit(&tracer->dropped, 1, memory_order_relaxed);
}

uint64_t tracer_dropped(const struct tracer *tracer)
{
	return tracer ? atomic_load_explicit(&tracer->dropped, memory_order_relaxed) : 0;
}

static void on_item(void *ctx, struct mailbox_item *mail)
{
	struct tracer *tracer = ctx;
	struct item *item = CONTAINER_OF(mail, struct item, item);
	tracer->options.on_span(tracer->options.ctx, buf_peek(&item->text));
	free_item(item);
}

struct tracer *tracer_new(const struct tracer_options *options)
{
	struct tracer *tracer = calloc(1, sizeof *tracer);
	if (!tracer)
		return NULL;
	tracer->options = *options;
	if (mailbox_init(&tracer->mailbox, options->loop, TRACER_SPANS, on_item, tracer) == 0)
		return tracer;
	free(tracer);
	return NULL;
}

static void on_closed(void *ctx)
{
	struct tracer *tracer = ctx;
	tracer->on_freed(tracer->freed_ctx);
	free(tracer);
}

void tracer_free(struct tracer *tracer, void (*on_freed)(void *ctx), void *ctx)
{
	if (!tracer) {
		on_freed(ctx);
		return;
	}
	tracer->on_freed = on_freed;
	tracer->freed_ctx = ctx;
	mailbox_close(&tracer->mailbox, on_closed);
}
