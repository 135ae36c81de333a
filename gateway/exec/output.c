#include "gateway/exec/output.h"

#include "gateway/base/base64.h"
#include "gateway/base/json_text.h"
#include "gateway/base/utf8.h"

#include <errno.h>
#include <stdlib.h>

void output_init(struct output *output, size_t cap)
{
	*output = (struct output){.bytes = BUF_MAX(cap), .cap = cap};
}

void output_init_passing(struct output *output, size_t cap, int (*pass)(void *ctx, const struct output *output, struct slice bytes),
			 void *ctx)
{
	*output = (struct output){.cap = cap, .pass = pass, .pass_ctx = ctx};
}

void output_deinit(struct output *output)
{
	buf_deinit(&output->bytes);
}

static size_t head_size(const struct output *output)
{
	return output->cap / 2;
}

static size_t ring_size(const struct output *output)
{
	return output->cap - head_size(output);
}

/* Only the last ring_size bytes can survive: older ones are skipped, not copied. */
static void feed_ring(struct output *output, struct slice bytes)
{
	size_t size = ring_size(output);
	if (!size)
		return;
	if (bytes.len > size) {
		output->ring_at = (output->ring_at + bytes.len - size) % size;
		bytes = slice_from(bytes, bytes.len - size);
	}
	char *ring = output->bytes.data + output->bytes.start + head_size(output);
	while (bytes.len) {
		size_t n = size - output->ring_at;
		if (n > bytes.len)
			n = bytes.len;
		memcpy(ring + output->ring_at, bytes.data, n);
		output->ring_at = (output->ring_at + n) % size;
		bytes = slice_from(bytes, n);
	}
}

static int pass_on(struct output *output, struct slice bytes)
{
	uint64_t room = output->total < output->cap ? output->cap - output->total : 0;
	struct slice below = bytes;
	if (below.len > room)
		below.len = room;
	output->total += bytes.len;
	return below.len ? output->pass(output->pass_ctx, output, below) : 0;
}

int output_feed(struct output *output, struct slice bytes)
{
	if (output->pass)
		return pass_on(output, bytes);
	size_t room = output->cap - output->bytes.len;
	size_t n = bytes.len < room ? bytes.len : room;
	int r = buf_append(&output->bytes, slice_of(bytes.data, n));
	if (r < 0)
		return r;
	output->total += bytes.len;
	feed_ring(output, slice_from(bytes, n));
	return 0;
}

void output_restart(struct output *output)
{
	size_t cap = output->cap;
	output_deinit(output);
	output_init(output, cap);
}

bool output_skip(struct output *output, uint64_t size)
{
	if (output->pass) {
		bool skips = output->total >= output->cap && output->total < size;
		if (skips)
			output->total = size;
		return skips;
	}
	if (output->bytes.len < output->cap || size < ring_size(output) || size - ring_size(output) <= output->total)
		return false;
	output->bytes.len = head_size(output);
	output->ring_at = 0;
	output->total = size - ring_size(output);
	return true;
}

static void reverse(char *p, size_t len)
{
	for (size_t i = 0; i < len / 2; i++) {
		char c = p[i];
		p[i] = p[len - 1 - i];
		p[len - 1 - i] = c;
	}
}

/* Turns the ring so that its oldest byte comes first, in place. */
static void straighten(struct output *output)
{
	if (!output_cut(output) || !output->ring_at)
		return;
	char *ring = output->bytes.data + output->bytes.start + head_size(output);
	size_t size = ring_size(output), at = output->ring_at;
	reverse(ring, at);
	reverse(ring + at, size - at);
	reverse(ring, size);
	output->ring_at = 0;
}

/* Drops the continuation bytes of a character whose start was cut away: at most 3. */
static struct slice without_cut_start(struct slice tail)
{
	for (int i = 0; i < 3 && tail.len && ((unsigned char)tail.data[0] & 0xC0) == 0x80; i++)
		tail = slice_from(tail, 1);
	return tail;
}

static int put_base64(struct buf *json, struct slice bytes)
{
	int r = buf_append_char(json, '"');
	if (r == 0)
		r = base64_encode(json, bytes);
	return r < 0 ? r : buf_append_char(json, '"');
}

static int put_cut_text(struct output *output, struct buf *json, struct slice head, struct slice tail)
{
	CLEANUP(buf_deinit) struct buf text = BUF_MAX(output->cap + 128);
	uint64_t cut = output->total - head.len - tail.len;
	int r = buf_append(&text, head);
	if (r == 0)
		r = buf_printf(&text, "\n[… %llu bytes cut …]\n", (unsigned long long)cut);
	if (r == 0)
		r = buf_append(&text, tail);
	return r < 0 ? r : json_text_string(json, buf_peek(&text));
}

static int put_copy(const struct output *output, struct buf *json, const char **encoding)
{
	struct slice bytes = buf_peek(&output->bytes);
	if (output_cut(output))
		bytes.len -= utf8_unfinished_tail(bytes);
	bool text = utf8_is_valid(bytes);
	*encoding = text ? "utf-8" : "base64";
	return text ? json_text_string(json, bytes) : put_base64(json, bytes);
}

int output_put(struct output *output, struct buf *json, const char **encoding)
{
	if (output->pass)
		return put_copy(output, json, encoding);
	straighten(output);
	struct slice all = buf_peek(&output->bytes);
	struct slice head = all, tail = {0};
	if (output_cut(output)) {
		head.len = head_size(output);
		tail = without_cut_start(slice_from(all, head.len));
		head.len -= utf8_unfinished_tail(head);
	}
	bool text = utf8_is_valid(head) && utf8_is_valid(tail);
	*encoding = text ? "utf-8" : "base64";
	if (!text)
		return put_base64(json, all);
	return output_cut(output) ? put_cut_text(output, json, head, tail) : json_text_string(json, all);
}
