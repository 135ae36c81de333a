/*
 * frames_fuzz - a message in pieces of any size gives what the whole message gives
 *
 * Input: byte 0 says how to cut, byte 1 the type of the message, the rest is the message.
 */
#include "gateway/sprites/frames.h"

#include <stdlib.h>

#define OUTPUT_MAX ((size_t)1 << 16)

struct outcome {
	struct buf output; /* output bytes, or the text of the last frame */
	struct frame last;
	struct buf id;
	int frames;
};

static void keep(struct buf *to, struct slice bytes)
{
	if (buf_append(to, bytes) < 0)
		abort();
}

static void note(struct outcome *outcome, const struct frame *frame)
{
	bool output = frame->kind == FRAME_STDOUT || frame->kind == FRAME_STDERR;
	bool more = outcome->frames && output && outcome->last.kind == frame->kind;
	if (output && !frame->bytes.len)
		abort();
	keep(&outcome->output, frame->bytes);
	keep(&outcome->id, frame->id);
	outcome->frames += !more;
	outcome->last = *frame;
}

static void run(struct outcome *outcome, enum frame_message message, struct slice bytes, size_t piece)
{
	struct frames frames;
	struct frame frame;
	*outcome = (struct outcome){.output = BUF_MAX(2 * OUTPUT_MAX), .id = BUF_MAX(OUTPUT_MAX)};
	frames_init(&frames);
	bool end;
	do {
		struct slice part = slice_of(bytes.data, bytes.len < piece ? bytes.len : piece);
		bytes = slice_from(bytes, part.len);
		end = !bytes.len;
		int r = frames_feed(&frames, message, part, end, &frame);
		if (r == FRAMES_FRAME)
			note(outcome, &frame);
		else if (r != 0)
			abort();
	} while (!end);
	frames_deinit(&frames);
}

static void compare(const struct outcome *a, const struct outcome *b)
{
	if (a->frames != b->frames)
		abort();
	if (!a->frames || a->last.kind == FRAME_INVALID)
		return;
	if (a->last.kind != b->last.kind || a->last.code != b->last.code || a->last.refusal != b->last.refusal ||
	    !slice_equal(buf_peek(&a->output), buf_peek(&b->output)) || !slice_equal(buf_peek(&a->id), buf_peek(&b->id)))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 2 || size > OUTPUT_MAX)
		return 0;
	struct slice bytes = slice_of((const char *)data + 2, size - 2);
	enum frame_message message = data[1] & 1 ? FRAME_MESSAGE_TEXT : FRAME_MESSAGE_BINARY;
	struct outcome whole, cut;
	run(&whole, message, bytes, OUTPUT_MAX);
	run(&cut, message, bytes, data[0] ? data[0] : 1);
	compare(&whole, &cut);
	buf_deinit(&whole.output);
	buf_deinit(&whole.id);
	buf_deinit(&cut.output);
	buf_deinit(&cut.id);
	return 0;
}
