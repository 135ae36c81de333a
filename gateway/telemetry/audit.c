#include "gateway/telemetry/audit.h"

#include "gateway/base/clock.h"
#include "gateway/base/json_text.h"
#include "gateway/base/log.h"
#include "gateway/base/mailbox.h"
#include "gateway/telemetry/access_log.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define LINE_MAX_BYTES (1024 * 1024) /* a whole command, and it is escaped */
#define AGAIN_MS       20
#define LAST_MS        1000 /* for a pipe that nobody reads when the gateway ends */

struct line {
	struct mailbox_item item;
	struct buf text;
};

struct audit {
	struct audit_options options;
	struct mailbox mailbox;
	int fd; /* -1 = off */
	bool own_fd, is_file;
	struct buf waiting, writing;
	uv_fs_t write;
	uv_timer_t again; /* for a descriptor that would block */
	bool busy, failing, closing;
	bool inside_line; /* what was written last ended inside of a line */
	bool torn; /* … the rest of which is lost */
	bool ending; /* the write under way ends it */
	uint64_t last_ms; /* in loop time: end of the patience when closing */
	_Atomic uint64_t dropped;
	_Atomic size_t posted; /* bytes on their way to the loop */
	uint64_t told; /* of `dropped`, in records `lost` */
	int open_handles;
	void (*on_freed)(void *ctx);
	void *freed_ctx;
};

/* --- a line ------------------------------------------------------------------ */

const struct audit_column audit_columns[] = {
	{"id", "text"},
	{"time", "text"},
	{"record", "text"},
	{"instance", "text"},
	{"exec_id", "text"},
	{"request_id", "text"},
	{"trace_id", "text"},
	{"client", "text"},
	{"kid", "text"},
	{"actor", "text"},
	{"policy", "text"},
	{"policy_version", "integer"},
	{"shadow", "text"},
	{"decision", "text"},
	{"reason", "text"},
	{"by", "text"},
	{"code", "text"},
	{"command_sha256", "text"},
	{"command", "text"},
	{"stdin_bytes", "integer"},
	{"granted_ms", "integer"},
	{"egress", "text"},
	{"sandbox", "text"},
	{"tier", "text"},
	{"outcome", "text"},
	{"exit_code", "integer"},
	{"wait_ms", "integer"},
	{"wall_ms", "integer"},
	{"stdout_bytes", "integer"},
	{"stderr_bytes", "integer"},
	{"lost", "integer"},
	{NULL, NULL},
};

/* Writes the next member: the order of the calls is that of audit_columns. */
struct writer {
	struct buf *out;
	size_t column;
	int result;
};

static void put_name(struct writer *w)
{
	if (w->result == 0)
		w->result = buf_printf(w->out, "%c\"%s\":", w->column ? ',' : '{', audit_columns[w->column].name);
	w->column++;
}

static void put_text(struct writer *w, struct slice value)
{
	put_name(w);
	if (w->result == 0)
		w->result = value.len ? json_text_string(w->out, value) : buf_append(w->out, SLICE("null"));
}

static void put_word(struct writer *w, const char *value)
{
	put_text(w, value ? slice_str(value) : (struct slice){0});
}

/* JSON as it is. */
static void put_json(struct writer *w, struct slice value)
{
	put_name(w);
	if (w->result == 0)
		w->result = buf_append(w->out, value.len ? value : SLICE("null"));
}

static void put_number(struct writer *w, uint64_t value)
{
	put_name(w);
	if (w->result == 0)
		w->result = value == AUDIT_NONE ? buf_append(w->out, SLICE("null")) : buf_printf(w->out, "%llu", (unsigned long long)value);
}

static int write_line(const struct audit *audit, const struct audit_record *r, struct buf *out)
{
	struct writer w = {.out = out};
	char time[25], id[160];
	clock_format(clock_wall_ms(), time);
	/* A command that is replayed is decided on more than once: only the request is new then. */
	struct slice name = r->request_id.len ? r->request_id : r->exec_id;
	snprintf(id, sizeof id, "%.*s/%s", SLICE_FMT(name.len ? name : slice_str(audit->options.instance)), name.len ? r->kind : time);
	put_word(&w, id);
	put_word(&w, time);
	put_word(&w, r->kind);
	put_word(&w, audit->options.instance);
	put_text(&w, r->exec_id);
	put_text(&w, r->request_id);
	put_text(&w, r->trace_id);
	put_text(&w, r->client);
	put_text(&w, r->kid);
	put_text(&w, r->actor);
	put_text(&w, r->policy);
	put_number(&w, r->policy_version ? r->policy_version : AUDIT_NONE);
	put_json(&w, r->shadow.len > 2 ? r->shadow : (struct slice){0});
	put_word(&w, r->decision);
	put_word(&w, r->reason);
	put_word(&w, r->by);
	put_word(&w, r->code);
	put_text(&w, r->command_sha256);
	put_json(&w, r->command);
	put_number(&w, r->stdin_bytes);
	put_number(&w, r->granted_ms);
	put_word(&w, r->egress && *r->egress ? r->egress : NULL);
	put_text(&w, r->sandbox);
	put_word(&w, r->tier);
	put_word(&w, r->outcome);
	put_number(&w, r->exit_code);
	put_number(&w, r->wait_ms);
	put_number(&w, r->wall_ms);
	put_number(&w, r->stdout_bytes);
	put_number(&w, r->stderr_bytes);
	put_number(&w, r->lost);
	return w.result < 0 ? w.result : buf_append_char(out, '}');
}

static void drop(struct audit *audit, uint64_t records)
{
	atomic_fetch_add_explicit(&audit->dropped, records, memory_order_relaxed);
}

uint64_t audit_dropped(const struct audit *audit)
{
	return atomic_load_explicit(&audit->dropped, memory_order_relaxed);
}

static void free_line(struct line *line)
{
	buf_deinit(&line->text);
	free(line);
}

void audit_write(struct audit *audit, const struct audit_record *record)
{
	if (!audit)
		return;
	struct line *line = calloc(1, sizeof *line);
	if (!line) {
		drop(audit, 1);
		return;
	}
	buf_init(&line->text, LINE_MAX_BYTES);
	int r = write_line(audit, record, &line->text);
	size_t len = line->text.len;
	if (atomic_fetch_add_explicit(&audit->posted, len, memory_order_relaxed) + len > AUDIT_BYTES)
		r = MAILBOX_E_FULL;
	if (r != 0 || mailbox_post(&audit->mailbox, &line->item) != 0) {
		atomic_fetch_sub_explicit(&audit->posted, len, memory_order_relaxed);
		drop(audit, 1);
		free_line(line);
	}
}

/* --- writing ------------------------------------------------------------------ */

static void release(struct audit *audit)
{
	if (--audit->open_handles)
		return;
	void (*on_freed)(void *) = audit->on_freed;
	void *ctx = audit->freed_ctx;
	if (audit->own_fd)
		close(audit->fd);
	buf_deinit(&audit->waiting);
	buf_deinit(&audit->writing);
	free(audit);
	on_freed(ctx);
}

static void on_timer_closed(uv_handle_t *handle)
{
	release(handle->data);
}

/* A pipe that is writable takes PIPE_BUF bytes in one piece and without blocking, also when others write to it as well. */
static size_t next_piece(const struct audit *audit, struct slice lines)
{
	if (audit->is_file || lines.len <= PIPE_BUF)
		return lines.len;
	const char *end = memrchr(lines.data, '\n', PIPE_BUF);
	return end ? (size_t)(end - lines.data) + 1 : PIPE_BUF;
}

static bool would_block(const struct audit *audit)
{
	struct pollfd fd = {.fd = audit->fd, .events = POLLOUT};
	return !audit->is_file && poll(&fd, 1, 0) == 0;
}

static void pump(struct audit *audit);

static void lose_all(struct audit *audit, const char *reason)
{
	struct slice lines = buf_peek(&audit->writing);
	uint64_t count = 0;
	for (size_t i = 0; i < lines.len; i++)
		count += lines.data[i] == '\n';
	drop(audit, count);
	buf_consume(&audit->writing, lines.len);
	audit->torn = audit->torn || audit->inside_line;
	audit->inside_line = false;
	if (!audit->failing)
		log_error("audit: records are lost, it cannot be written: %s", reason);
	audit->failing = true;
}

static void on_again(uv_timer_t *timer)
{
	pump(timer->data);
}

static void wait_for_room(struct audit *audit)
{
	if (audit->closing && uv_now(audit->options.loop) >= audit->last_ms) {
		lose_all(audit, "nobody reads it");
		pump(audit);
	} else {
		uv_timer_start(&audit->again, on_again, AGAIN_MS, 0);
	}
}

static void on_written(uv_fs_t *request)
{
	struct audit *audit = request->data;
	ssize_t n = request->result;
	uv_fs_req_cleanup(request);
	bool ending = audit->ending;
	audit->busy = audit->ending = false;
	if (n == UV_EAGAIN) {
		wait_for_room(audit);
		return;
	}
	if (n < 0) {
		lose_all(audit, uv_strerror((int)n));
	} else if (ending) {
		audit->torn = false;
	} else {
		if (n > 0)
			audit->inside_line = buf_peek(&audit->writing).data[n - 1] != '\n';
		buf_consume(&audit->writing, (size_t)n);
		if (audit->failing)
			log_info("audit: it can be written again");
		audit->failing = false;
	}
	pump(audit);
}

static void pump(struct audit *audit)
{
	if (audit->busy || uv_is_active((uv_handle_t *)&audit->again))
		return;
	if (!audit->writing.len && audit->waiting.len) {
		struct buf empty = audit->writing;
		audit->writing = audit->waiting;
		audit->waiting = empty;
	}
	struct slice lines = buf_peek(&audit->writing);
	if (!lines.len) {
		if (audit->closing)
			uv_close((uv_handle_t *)&audit->again, on_timer_closed);
		return;
	}
	if (would_block(audit)) {
		wait_for_room(audit);
		return;
	}
	static char line_end[] = "\n";
	uv_buf_t piece =
		audit->torn ? uv_buf_init(line_end, 1) : uv_buf_init((char *)(uintptr_t)lines.data, (unsigned)next_piece(audit, lines));
	audit->ending = audit->torn;
	audit->write.data = audit;
	int r = uv_fs_write(audit->options.loop, &audit->write, audit->fd, &piece, 1, -1, on_written);
	audit->busy = r == 0;
	if (r < 0) {
		audit->ending = false;
		lose_all(audit, uv_strerror(r));
		pump(audit);
	}
}

static void keep(struct audit *audit, struct slice line)
{
	if (audit->options.on_line)
		audit->options.on_line(audit->options.ctx, line);
	if (audit->fd < 0)
		return;
	size_t before = audit->waiting.len;
	if (buf_append(&audit->waiting, line) == 0 && buf_append_char(&audit->waiting, '\n') == 0)
		return;
	audit->waiting.len = before; /* no half line */
	drop(audit, 1);
}

static void tell_lost(struct audit *audit)
{
	struct audit_record record = AUDIT_RECORD("lost");
	CLEANUP(buf_deinit) struct buf text = BUF_MAX(LINE_MAX_BYTES);
	uint64_t dropped = audit_dropped(audit);
	record.lost = dropped - audit->told;
	if (!record.lost || audit->failing || write_line(audit, &record, &text) < 0 ||
	    audit->waiting.len + text.len + 1 > audit->waiting.max)
		return;
	audit->told = dropped;
	keep(audit, buf_peek(&text));
}

static void on_item(void *ctx, struct mailbox_item *item)
{
	struct audit *audit = ctx;
	struct line *line = CONTAINER_OF(item, struct line, item);
	atomic_fetch_sub_explicit(&audit->posted, line->text.len, memory_order_relaxed);
	tell_lost(audit);
	keep(audit, buf_peek(&line->text));
	free_line(line);
	pump(audit);
}

/* --- life --------------------------------------------------------------------- */

void audit_reopen(struct audit *audit)
{
	if (!audit || !audit->own_fd)
		return;
	int r = access_log_reopen(audit->options.where, audit->fd);
	if (r < 0)
		log_error("audit: %s cannot be opened anew, the old file is kept: %s", audit->options.where, strerror(-r));
	else
		audit->torn = false;
}

struct audit *audit_new(const struct audit_options *options)
{
	struct audit *audit = calloc(1, sizeof *audit);
	if (!audit)
		return NULL;
	audit->options = *options;
	audit->waiting = audit->writing = BUF_MAX(AUDIT_BYTES);
	audit->fd = options->fd;
	int r = mailbox_init(&audit->mailbox, options->loop, AUDIT_RECORDS, on_item, audit);
	if (r < 0) {
		free(audit);
		return NULL;
	}
	struct stat status;
	audit->own_fd = audit->fd > STDERR_FILENO;
	audit->is_file = audit->fd >= 0 && fstat(audit->fd, &status) == 0 && S_ISREG(status.st_mode);
	uv_timer_init(options->loop, &audit->again);
	audit->again.data = audit;
	return audit;
}

static void on_mailbox_closed(void *ctx)
{
	struct audit *audit = ctx;
	audit->closing = true;
	audit->last_ms = uv_now(audit->options.loop) + LAST_MS;
	uv_timer_stop(&audit->again);
	pump(audit);
	release(audit);
}

void audit_free(struct audit *audit, void (*on_freed)(void *ctx), void *ctx)
{
	if (!audit) {
		on_freed(ctx);
		return;
	}
	audit->on_freed = on_freed;
	audit->freed_ctx = ctx;
	audit->open_handles = 2;
	mailbox_close(&audit->mailbox, on_mailbox_closed);
}
