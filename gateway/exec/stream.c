#include "gateway/exec/stream.h"

#include "gateway/base/base64.h"
#include "gateway/base/json_text.h"
#include "gateway/base/utf8.h"

static int begin(const struct stream *stream, const char *type, struct buf *text)
{
	if (stream->format == STREAM_SSE)
		return buf_printf(text, "event: %s\ndata: {\"type\":\"%s\"", type, type);
	return buf_printf(text, "{\"type\":\"%s\"", type);
}

static int end(const struct stream *stream, struct buf *text)
{
	return buf_append(text, stream->format == STREAM_SSE ? SLICE("}\n\n") : SLICE("}\n"));
}

int stream_accepted(const struct stream *stream, const char *exec_id, struct buf *text)
{
	int r = begin(stream, "accepted", text);
	if (r == 0)
		r = buf_printf(text, ",\"exec_id\":\"%s\"", exec_id);
	return r < 0 ? r : end(stream, text);
}

int stream_ping(const struct stream *stream, struct buf *text)
{
	int r = begin(stream, "ping", text);
	return r < 0 ? r : end(stream, text);
}

static int put_base64(struct slice bytes, struct buf *text)
{
	int r = buf_append_char(text, '"');
	if (r == 0)
		r = base64_encode(text, bytes);
	return r < 0 ? r : buf_append_char(text, '"');
}

#define FILE_OUTPUT 2

/* `path` is that of a file. */
static int put_piece(struct stream *stream, unsigned which, const char *path, struct slice bytes, struct buf *text)
{
	static const char *const names[] = {"stdout", "stderr", "file"};
	bool valid = utf8_is_valid(bytes);
	stream->outputs[which].binary |= !valid;
	int r = begin(stream, names[which], text);
	if (r == 0 && path)
		r = buf_append(text, SLICE(",\"path\":"));
	if (r == 0 && path)
		r = json_text_string(text, slice_str(path));
	if (r == 0)
		r = buf_append(text, SLICE(",\"data\":"));
	if (r == 0)
		r = valid ? json_text_string(text, bytes) : put_base64(bytes, text);
	if (r == 0)
		r = buf_printf(text, ",\"encoding\":\"%s\"", valid ? "utf-8" : "base64");
	return r < 0 ? r : end(stream, text);
}

/* What was held, and as much of `bytes` as makes a piece: a character that is not whole yet is held for the next one. */
static int put_next(struct stream *stream, unsigned which, const char *path, struct slice *bytes, struct buf *text)
{
	struct stream_output *output = &stream->outputs[which];
	char piece[STREAM_PIECE];
	size_t taken = bytes->len < sizeof piece - output->held_len ? bytes->len : sizeof piece - output->held_len;
	memcpy(piece, output->held, output->held_len);
	memcpy(piece + output->held_len, bytes->data, taken);
	struct slice all = slice_of(piece, output->held_len + taken);
	*bytes = slice_from(*bytes, taken);
	output->held_len = utf8_unfinished_tail(all);
	all.len -= output->held_len;
	memcpy(output->held, piece + all.len, output->held_len);
	return all.len ? put_piece(stream, which, path, all, text) : 0;
}

int stream_output(struct stream *stream, unsigned which, struct slice bytes, struct buf *text)
{
	int r = 0;
	while (r == 0 && bytes.len)
		r = put_next(stream, which, NULL, &bytes, text);
	return r;
}

/* A character that the cap has cut is dropped, one that the command never finished is told. */
static int put_held(struct stream *stream, unsigned which, const char *path, bool cut, struct buf *text)
{
	struct stream_output *output = &stream->outputs[which];
	struct slice held = slice_of(output->held, output->held_len);
	output->held_len = 0;
	return held.len && !cut ? put_piece(stream, which, path, held, text) : 0;
}

int stream_output_end(struct stream *stream, unsigned which, bool cut, struct buf *text)
{
	return put_held(stream, which, NULL, cut, text);
}

void stream_file_begin(struct stream *stream)
{
	stream->outputs[FILE_OUTPUT].held_len = 0;
}

int stream_file(struct stream *stream, const char *path, struct slice bytes, bool last, struct buf *text)
{
	int r = 0;
	while (r == 0 && bytes.len)
		r = put_next(stream, FILE_OUTPUT, path, &bytes, text);
	return r == 0 && last ? put_held(stream, FILE_OUTPUT, path, false, text) : r;
}

int stream_result(struct stream *stream, struct exec_result *result, const char *exec_id, struct exec_answer *answer, struct buf *text)
{
	int r = 0;
	for (unsigned i = 0; r == 0 && i < 2; i++)
		r = stream_output_end(stream, i, output_cut(&result->streams[i]), text);
	for (unsigned i = 0; i < 2; i++)
		result->encoding[i] = stream->outputs[i].binary ? "base64" : "utf-8";
	if (r == 0)
		r = begin(stream, "result", text);
	if (r == 0)
		r = buf_append_char(text, ',');
	if (r == 0)
		r = exec_answer_result(result, exec_id, answer, text);
	return r < 0 ? r : end(stream, text);
}

int stream_result_again(const struct stream *stream, struct slice members, struct buf *text)
{
	int r = begin(stream, "result", text);
	if (r == 0)
		r = buf_append_char(text, ',');
	if (r == 0)
		r = buf_append(text, members);
	return r < 0 ? r : end(stream, text);
}

int stream_failure(const struct stream *stream, const char *exec_id, struct buf *text)
{
	int r = begin(stream, "result", text);
	if (r == 0)
		r = buf_printf(text,
			       ",\"ok\":false,\"exec_id\":\"%s\",\"outcome\":\"unknown\",\"exit_code\":null,\"signal\":null,\"status\":500,"
			       "\"code\":\"internal\",\"detail\":\"The gateway failed; the command may have run.\",\"may_have_run\":true",
			       exec_id);
	return r < 0 ? r : end(stream, text);
}
