#include "gateway/exec/writer.h"

#include "gateway/base/json_text.h"

#include <errno.h>
#include <stdio.h>

static int take_row(void *ctx, struct slice row);

void writer_init(struct writer *writer, const struct exec_job *job, uint64_t each)
{
	*writer = (struct writer){.to = job->reply_to, .exec_id = job->message.exec_id, .each = each};
	if (!job->request->rows_to.path)
		return;
	writer->target = &job->request->rows_to;
	writer->body = BUF_MAX(writer->target->head.len + WRITER_BATCH_BYTES + 2 * ROWS_ROW_MAX);
	writer->rest = BUF_MAX(WRITER_REST_MAX);
	rows_init(&writer->rows, writer->target->format, take_row, writer);
}

void writer_deinit(struct writer *writer)
{
	rows_deinit(&writer->rows);
	buf_deinit(&writer->rest);
	buf_deinit(&writer->body);
}

/* The first reason counts. */
static void fail(struct writer *writer, uint64_t row, unsigned status, const char *detail)
{
	writer->stopped = true;
	buf_deinit(&writer->rest);
	if (writer->failed)
		return;
	writer->failed = true;
	writer->failed_row = row;
	writer->status = status;
	snprintf(writer->detail, sizeof writer->detail, "%s", detail);
}

static int send_batch(struct writer *writer)
{
	if (!writer->in_body)
		return 0;
	int r = buf_append(&writer->body, SLICE("]}"));
	struct exec_piece *piece = r == 0 ? exec_piece_new(writer->exec_id, &writer->body) : NULL;
	if (!piece)
		return -ENOMEM;
	piece->message.kind = EXEC_BATCH;
	piece->rows = writer->in_body;
	writer->rows_under_way += writer->in_body;
	writer->in_body = 0;
	writer->under_way++;
	writer->rows.paused = writer_is_full(writer);
	/* Not counted against the queue: what is under way is bounded. */
	if (mailbox_reply(writer->to, &piece->message.item) != 0)
		exec_piece_free(piece);
	return 0;
}

static int take_row(void *ctx, struct slice row)
{
	struct writer *writer = ctx;
	int r = 0;
	if (writer->rows.count < writer->target->skip)
		return 0;
	if (writer->in_body && writer->body.len + row.len > WRITER_BATCH_BYTES)
		r = send_batch(writer);
	if (r == 0)
		r = writer->in_body ? buf_append_char(&writer->body, ',') : buf_append(&writer->body, buf_peek(&writer->target->head));
	if (r == 0)
		r = buf_append(&writer->body, row);
	if (r < 0)
		return r;
	return ++writer->in_body == writer->each ? send_batch(writer) : 0;
}

/* The rows before one that cannot be used are good. */
static int settle(struct writer *writer, int r)
{
	if (r != ROWS_E_BAD)
		return r;
	r = send_batch(writer);
	fail(writer, writer->rows.count, 0, writer->rows.detail);
	return r;
}

static int keep(struct writer *writer, struct slice bytes)
{
	int r = writer->stopped ? 0 : buf_append(&writer->rest, bytes);
	if (r != -EMSGSIZE)
		return r;
	r = send_batch(writer);
	fail(writer, writer->rows.count, 0, "More output came at once than can wait for Datasette.");
	return r;
}

int writer_feed(struct writer *writer, struct slice bytes)
{
	if (writer->stopped)
		return 0;
	if (writer_is_full(writer))
		return keep(writer, bytes);
	int r = settle(writer, rows_feed(&writer->rows, bytes));
	return r < 0 ? r : keep(writer, slice_from(bytes, writer->rows.taken));
}

/* All that came is read. */
static int end(struct writer *writer)
{
	int r = 0;
	if (!writer->stopped) {
		r = settle(writer, rows_end(&writer->rows, !writer->missing));
		if (r == 0)
			r = send_batch(writer);
	}
	if (writer->missing)
		fail(writer, writer->rows.count, 0, writer->missing);
	return r;
}

int writer_end(struct writer *writer, const char *missing)
{
	writer->ended = true;
	writer->missing = missing;
	return writer->rest.len ? 0 : end(writer);
}

static int read_on(struct writer *writer)
{
	if (!writer->rest.len || writer_is_full(writer))
		return 0;
	int r = settle(writer, rows_feed(&writer->rows, buf_peek(&writer->rest)));
	if (!writer->stopped)
		buf_consume(&writer->rest, writer->rows.taken);
	return r == 0 && writer->ended && !writer->rest.len ? end(writer) : r;
}

int writer_written(struct writer *writer, const struct exec_written *written)
{
	writer->went_on = true;
	if (written->how == EXEC_WRITTEN) {
		writer->under_way--;
		writer->batches++;
		writer->written += written->rows;
		writer->rows_under_way -= written->rows;
		return read_on(writer);
	}
	/* The worker has dropped what came after it. A refusal is an earlier row than whatever was found later. */
	writer->failed = false;
	writer->under_way = 0;
	writer->rows_under_way = 0;
	writer->in_doubt = written->how == EXEC_WRITTEN_IN_DOUBT ? written->rows : 0;
	fail(writer, writer->target->skip + writer->written, written->status, written->detail);
	return 0;
}

bool writer_went_on(struct writer *writer)
{
	bool went_on = writer->went_on;
	writer->went_on = false;
	return went_on;
}

void writer_give_up(struct writer *writer, const char *why)
{
	if (writer_is_done(writer))
		return;
	writer->in_doubt += writer->rows_under_way;
	if (writer->rows_under_way)
		writer->failed = false;
	fail(writer, writer->target->skip + writer->written, 0, writer->ended ? WRITER_LATE : why);
	writer->ended = true;
	writer->under_way = 0;
}

void writer_lost(struct writer *writer)
{
	writer->gap = true;
}

const char *writer_end_name(const struct writer *writer)
{
	if (!writer->failed)
		return writer->gap ? "stopped" : "complete";
	if (writer->in_doubt)
		return "in_doubt";
	return writer->status ? "refused" : "stopped";
}

static int put_error(const struct writer *writer, struct buf *json)
{
	int r = buf_printf(json, "{\"row\":%llu,\"status\":", (unsigned long long)writer->failed_row);
	if (r == 0)
		r = writer->status ? buf_printf(json, "%u", writer->status) : buf_append(json, SLICE("null"));
	if (r == 0)
		r = buf_append(json, SLICE(",\"detail\":"));
	char detail[EXEC_WRITTEN_DETAIL + 64];
	snprintf(detail, sizeof detail, "%s%s", writer->detail, writer->gap ? " Rows may be missing among those before." : "");
	if (r == 0)
		r = json_text_string(json, slice_str(detail));
	return r < 0 ? r : buf_append_char(json, '}');
}

int writer_put(const struct writer *writer, struct buf *json)
{
	uint64_t skipped = writer->rows.count < writer->target->skip ? writer->rows.count : writer->target->skip;
	int r = buf_printf(json, "{\"rows_written\":%llu,\"batches\":%llu,\"rows_in_doubt\":%llu,\"resume_from\":",
			   (unsigned long long)writer->written, (unsigned long long)writer->batches, (unsigned long long)writer->in_doubt);
	if (r == 0)
		r = writer->gap ? buf_append(json, SLICE("null"))
				: buf_printf(json, "%llu", (unsigned long long)(skipped + writer->written));
	if (r == 0)
		r = buf_append(json, SLICE(",\"error\":"));
	if (r == 0)
		r = writer->failed ? put_error(writer, json) : buf_append(json, SLICE("null"));
	return r < 0 ? r : buf_append_char(json, '}');
}
