#include "gateway/sprites/frames.h"

#include "gateway/base/json_text.h"
#include "gateway/base/utf8.h"
#include "gateway/json/json.h"

#include <errno.h>

#define MAX_DEPTH 32

static const struct slice prefix = SLICE("control:");

void frames_init(struct frames *frames)
{
	*frames = (struct frames){.text = BUF_MAX(FRAMES_TEXT_MAX)};
}

static void forget_parsed(struct frames *frames)
{
	json_decref(frames->parsed);
	frames->parsed = NULL;
}

void frames_deinit(struct frames *frames)
{
	forget_parsed(frames);
	buf_deinit(&frames->text);
}

static int invalid(struct frames *frames, struct frame *frame, const char *why)
{
	frames->dead = true;
	*frame = (struct frame){.kind = FRAME_INVALID, .bytes = slice_str(why)};
	return FRAMES_FRAME;
}

/* --- binary messages --- */

static int output(struct frame *frame, enum frame_kind kind, struct slice bytes)
{
	if (!bytes.len)
		return 0;
	*frame = (struct frame){.kind = kind, .bytes = bytes};
	return FRAMES_FRAME;
}

static int feed_exit(struct frames *frames, struct slice bytes, bool end, struct frame *frame)
{
	/* The id byte is counted too. */
	if (frames->len > 2 || (end && frames->len != 2))
		return invalid(frames, frame, "an exit frame has no status of one byte");
	if (bytes.len)
		frames->code = (unsigned char)bytes.data[0];
	if (!end)
		return 0;
	*frame = (struct frame){.kind = FRAME_EXIT, .code = frames->code};
	return FRAMES_FRAME;
}

static int feed_binary(struct frames *frames, struct slice bytes, bool end, struct frame *frame)
{
	if (!frames->len) {
		if (!bytes.len)
			return end ? invalid(frames, frame, "a binary message is empty") : 0;
		frames->id = (unsigned char)bytes.data[0];
		frames->len = 1;
		bytes = slice_from(bytes, 1);
	}
	frames->len += bytes.len;
	switch (frames->id) {
	case FRAMES_STDOUT:
		return output(frame, FRAME_STDOUT, bytes);
	case FRAMES_STDERR:
		return output(frame, FRAME_STDERR, bytes);
	case FRAMES_EXIT:
		return feed_exit(frames, bytes, end, frame);
	default:
		return invalid(frames, frame, "a binary message has an unknown stream id");
	}
}

/* --- text messages --- */

static enum frame_refusal refusal_of(struct slice code)
{
	if (slice_equal(code, SLICE("op.busy")))
		return REFUSAL_BUSY;
	if (slice_equal(code, SLICE("op.not_found")))
		return REFUSAL_NOT_FOUND;
	if (slice_equal(code, SLICE("op.not_active")))
		return REFUSAL_NOT_ACTIVE;
	return REFUSAL_OTHER;
}

/* Sprites has two names for it. */
static struct slice complaint(const json_t *object)
{
	struct slice text;
	if (!json_get_string(object, "message", &text))
		json_get_string(object, "error", &text);
	return text;
}

static int parse_envelope(struct frames *frames, struct slice text, struct frame *frame)
{
	struct json_failure failure;
	json_t *envelope = frames->parsed = json_parse(text, MAX_DEPTH, &failure);
	struct slice type;
	if (!json_get_string(envelope, "type", &type))
		return invalid(frames, frame, "a control envelope is not JSON or has no type");
	const json_t *args = json_object_get(envelope, "args");
	*frame = (struct frame){.kind = FRAME_OTHER};
	json_get_string(envelope, "id", &frame->id);
	if (slice_equal(type, SLICE("op.ack"))) {
		frame->kind = FRAME_ACK;
	} else if (slice_equal(type, SLICE("op.complete"))) {
		frame->kind = FRAME_COMPLETE;
		json_get_string(args, "error", &frame->bytes);
	} else if (slice_equal(type, SLICE("op.error"))) {
		struct slice code;
		json_get_string(args, "code", &code);
		frame->kind = FRAME_REFUSED;
		frame->refusal = refusal_of(code);
		frame->bytes = complaint(args);
	}
	return FRAMES_FRAME;
}

/* Nothing decisive ever comes this way, so what cannot be read is ignored like an unknown type. */
static int parse_information(struct frames *frames, struct slice text, struct frame *frame)
{
	struct json_failure failure;
	json_t *message = frames->parsed = json_parse(text, MAX_DEPTH, &failure);
	struct slice type;
	*frame = (struct frame){.kind = FRAME_OTHER};
	if (!json_get_string(message, "type", &type))
		return FRAMES_FRAME;
	if (slice_equal(type, SLICE("session_info"))) {
		frame->kind = FRAME_SESSION;
		json_get_string(message, "session_id", &frame->bytes);
	} else if (slice_equal(type, SLICE("error"))) {
		frame->kind = FRAME_NOTE;
		frame->bytes = complaint(message);
	}
	return FRAMES_FRAME;
}

static int feed_text(struct frames *frames, struct slice bytes, bool end, struct frame *frame)
{
	int r = buf_append(&frames->text, bytes);
	if (r == -EMSGSIZE)
		return invalid(frames, frame, "a text message is longer than 1 MiB");
	if (r < 0 || !end)
		return r;
	struct slice text = buf_peek(&frames->text);
	r = slice_has_prefix(text, prefix) ? parse_envelope(frames, slice_from(text, prefix.len), frame)
					   : parse_information(frames, text, frame);
	/* Parsed strings are copies: the text itself is done with. */
	buf_deinit(&frames->text);
	return r;
}

int frames_feed(struct frames *frames, enum frame_message message, struct slice bytes, bool end, struct frame *frame)
{
	if (frames->dead)
		return 0;
	forget_parsed(frames);
	if (!frames->inside) {
		frames->inside = true;
		frames->message = message;
		frames->len = 0;
	} else if (frames->message != message) {
		return invalid(frames, frame, "a message changes its type in the middle");
	}
	int r = message == FRAME_MESSAGE_BINARY ? feed_binary(frames, bytes, end, frame) : feed_text(frames, bytes, end, frame);
	frames->inside = !end;
	return r;
}

/* --- what we send --- */

static int check_arguments(const char *const *argv, size_t argc)
{
	if (!argc || !argv[0][0])
		return -EINVAL;
	for (size_t i = 0; i < argc; i++) {
		struct slice argument = slice_str(argv[i]);
		if (argument.len > FRAMES_ARG_MAX)
			return FRAMES_E_TOO_LONG;
		if (!utf8_is_valid(argument))
			return -EINVAL;
	}
	return 0;
}

/* A buffer that is full means that the command does not fit. */
static int outcome(int r)
{
	return r == -EMSGSIZE ? FRAMES_E_TOO_LONG : r;
}

int frames_write_start(struct buf *out, uint64_t id, const char *const *argv, size_t argc)
{
	int r = check_arguments(argv, argc);
	if (r == 0)
		r = buf_printf(out, "control:{\"type\":\"op.start\",\"id\":\"%llu\",\"op\":\"exec\",\"args\":{\"cmd\":[",
			       (unsigned long long)id);
	for (size_t i = 0; r == 0 && i < argc; i++) {
		r = i ? buf_append_char(out, ',') : 0;
		if (r == 0)
			r = json_text_string(out, slice_str(argv[i]));
	}
	if (r == 0)
		r = buf_append(out, SLICE("],\"path\":"));
	if (r == 0)
		r = json_text_string(out, slice_str(argv[0]));
	if (r == 0)
		r = buf_append(out, SLICE(",\"stdin\":\"true\"}}"));
	return outcome(r);
}

int frames_percent_encode(struct buf *out, struct slice text)
{
	static const char hex[] = "0123456789ABCDEF";
	int r = 0;
	for (size_t i = 0; r == 0 && i < text.len; i++) {
		unsigned char c = (unsigned char)text.data[i];
		bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
			     c == '_' || c == '~';
		const char coded[] = {'%', hex[c >> 4], hex[c & 15]};
		r = plain ? buf_append_char(out, (char)c) : buf_append(out, slice_of(coded, sizeof coded));
	}
	return r;
}

int frames_write_query(struct buf *out, const char *const *argv, size_t argc)
{
	int r = check_arguments(argv, argc);
	for (size_t i = 0; r == 0 && i < argc; i++) {
		r = buf_append(out, SLICE("cmd="));
		if (r == 0)
			r = frames_percent_encode(out, slice_str(argv[i]));
		if (r == 0)
			r = buf_append_char(out, '&');
	}
	if (r == 0)
		r = buf_append(out, SLICE("path="));
	if (r == 0)
		r = frames_percent_encode(out, slice_str(argv[0]));
	if (r == 0)
		r = buf_append(out, SLICE("&stdin=true"));
	return outcome(r);
}

int frames_write_signal(struct buf *out, const char *signal)
{
	int r = buf_append(out, SLICE("{\"type\":\"signal\",\"signal\":"));
	if (r == 0)
		r = json_text_string(out, slice_str(signal));
	return r < 0 ? r : buf_append_char(out, '}');
}
