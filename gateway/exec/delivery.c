#include "gateway/exec/delivery.h"

#include <errno.h>
#include <stdlib.h>

/* Six bytes for each of a piece when all of them are escaped, and of a path, and the members around them. */
#define TEXT_MAX (8 * STREAM_PIECE)
/* Members of a result but its files. */
#define RESULT_MAX  ((size_t)64 * 1024)
#define PIECE_FRAME ((size_t)256)

void delivery_init(struct delivery *delivery, const struct exec_job *job)
{
	*delivery = (struct delivery){.to = job->reply_to, .exec_id = job->message.exec_id};
	stream_init(&delivery->stream, job->format);
}

/* `r` is how writing `text` went, which is taken. */
static int tell(struct delivery *delivery, struct buf *text, int r)
{
	if (r < 0 || !text->len) {
		buf_deinit(text);
		return r;
	}
	struct exec_piece *piece = exec_piece_new(delivery->exec_id, text);
	if (!piece) {
		buf_deinit(text);
		return -ENOMEM;
	}
	delivery->under_way += piece->text.len;
	if (mailbox_reply(delivery->to, &piece->message.item) != 0)
		exec_piece_free(piece); /* the worker is gone, and its client with it */
	return 0;
}

int delivery_begin(struct delivery *delivery)
{
	if (delivery->begun)
		return 0;
	struct buf text = BUF_MAX(TEXT_MAX);
	int r = tell(delivery, &text, stream_accepted(&delivery->stream, delivery->exec_id, &text));
	delivery->begun = r == 0;
	return r;
}

/* In one allocation unless much of it is escaped: buffers that grow while others come and go leave holes behind. */
static int tell_piece(struct delivery *delivery, unsigned which, struct slice bytes)
{
	struct buf text = BUF_MAX(TEXT_MAX);
	char *space;
	int r = buf_reserve(&text, bytes.len + bytes.len / 8 + PIECE_FRAME, &space);
	if (r == 0)
		r = stream_output(&delivery->stream, which, bytes, &text);
	return tell(delivery, &text, r);
}

int delivery_output(struct delivery *delivery, unsigned which, struct slice bytes)
{
	int r = 0;
	while (r == 0 && bytes.len) {
		size_t len = bytes.len < STREAM_PIECE ? bytes.len : STREAM_PIECE;
		r = tell_piece(delivery, which, slice_of(bytes.data, len));
		bytes = slice_from(bytes, len);
	}
	return r;
}

int delivery_output_end(struct delivery *delivery, const struct output streams[2])
{
	struct buf text = BUF_MAX(TEXT_MAX);
	int r = 0;
	for (unsigned i = 0; r == 0 && i < 2; i++)
		r = stream_output_end(&delivery->stream, i, output_cut(&streams[i]), &text);
	return tell(delivery, &text, r);
}

static int tell_file(struct delivery *delivery, const char *path, struct slice bytes, bool last)
{
	struct buf text = BUF_MAX(TEXT_MAX);
	return tell(delivery, &text, stream_file(&delivery->stream, path, bytes, last, &text));
}

int delivery_file(struct delivery *delivery, const char *path, struct slice bytes, bool last)
{
	int r = 0;
	while (r == 0 && bytes.len > STREAM_PIECE) {
		r = tell_file(delivery, path, slice_of(bytes.data, STREAM_PIECE), false);
		bytes = slice_from(bytes, STREAM_PIECE);
	}
	return r < 0 ? r : tell_file(delivery, path, bytes, last);
}

int delivery_ping(struct delivery *delivery)
{
	struct buf text = BUF_MAX(TEXT_MAX);
	return tell(delivery, &text, stream_ping(&delivery->stream, &text));
}

int delivery_result(struct delivery *delivery, struct exec_result *result, struct exec_answer *answer)
{
	struct buf text = BUF_MAX(RESULT_MAX + (result->files ? outfiles_put_max(result->files) : 0));
	return tell(delivery, &text, stream_result(&delivery->stream, result, delivery->exec_id, answer, &text));
}

void delivery_credit(struct delivery *delivery, size_t bytes)
{
	delivery->under_way -= bytes < delivery->under_way ? bytes : delivery->under_way;
}
