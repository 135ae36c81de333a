#include "gateway/exec/feed.h"

#include <utlist.h>

/* A sandbox that has taken so much is at it, though it may not say so. */
#define KEEP_MAX (EXEC_INPUT_WINDOW / 4 * 3)

void feed_init(struct feed *feed, const struct exec_job *job)
{
	*feed = (struct feed){.to = job->reply_to};
	memcpy(feed->exec_id, job->message.exec_id, sizeof feed->exec_id);
}

static void free_first(struct feed *feed)
{
	struct exec_piece *piece = feed->pieces;
	DL_DELETE(feed->pieces, piece);
	exec_piece_free(piece);
}

void feed_deinit(struct feed *feed)
{
	while (feed->pieces)
		free_first(feed);
}

void feed_add(struct feed *feed, struct exec_piece *piece)
{
	DL_APPEND(feed->pieces, piece);
	if (!feed->next)
		feed->next = piece;
}

static void forget(struct feed *feed)
{
	while (feed->pieces != feed->next) {
		feed->owed += feed->pieces->text.len;
		free_first(feed);
		feed->begun = true;
	}
	feed->kept = 0;
	if (feed->owed && exec_credit_send(feed->to, feed->exec_id, feed->owed))
		feed->owed = 0;
}

void feed_pump(struct feed *feed, struct sandbox *sandbox)
{
	while (feed->next) {
		struct slice bytes = buf_peek(&feed->next->text);
		feed->given += sandbox_feed(sandbox, slice_from(bytes, feed->given));
		if (feed->given < bytes.len)
			break;
		if (feed->next->end == EXEC_INPUT_END)
			sandbox_end_input(sandbox);
		feed->kept += bytes.len;
		feed->stdin_bytes += feed->next->stdin_bytes;
		feed->given = 0;
		feed->next = feed->next->next;
	}
	if (sandbox_has_started(sandbox) || feed->kept >= KEEP_MAX)
		forget(feed);
}

bool feed_rewind(struct feed *feed)
{
	feed->next = feed->pieces;
	feed->given = feed->kept = feed->stdin_bytes = 0;
	return !feed->begun;
}
