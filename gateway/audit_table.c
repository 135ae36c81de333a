#include "gateway/audit_table.h"

#include "gateway/base/log.h"
#include "gateway/datasette/exchange.h"
#include "gateway/telemetry/audit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <utlist.h>

#define SOON_MS      1000
#define RETRY_MAX_MS 30000
#define ANSWER_MS    10000
#define LAST_MS      2000
#define BATCH_ROWS   100 /* Datasette's default of max_insert_rows */
#define BATCH_BYTES  (1024 * 1024)
#define SAID_MAX     300
#define NAME_MAX_LEN 64

struct row {
	struct row *prev, *next;
	char *text;
	size_t len;
};

enum step { INSERTING, CREATING };

struct audit_table {
	struct audit_table_options options;
	char database[NAME_MAX_LEN + 1], name[NAME_MAX_LEN + 1];
	struct connection_pool *connections;
	struct exchange_pool *exchanges;
	struct exchange *exchange; /* NULL between requests */
	enum step step;            /* what it asks, or what to ask next */
	struct buf body, said;
	size_t sent;               /* of the body */
	unsigned status;
	struct row *rows;          /* oldest first; the first `batch` are under way */
	size_t count, bytes, batch;
	uint64_t dropped;
	unsigned failures;
	bool complained, closing;
	uv_timer_t timer, last;
	int open_handles;
	void (*on_freed)(void *ctx);
	void *freed_ctx;
};

/* --- rows ------------------------------------------------------------------- */

static bool is_name(struct slice name)
{
	for (size_t i = 0; i < name.len; i++)
		if (!strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", name.data[i]))
			return false;
	return name.len > 0 && name.len <= NAME_MAX_LEN;
}

bool audit_table_check(const char *where)
{
	struct slice rest = slice_str(where), database;
	return slice_next(&rest, '/', &database) && is_name(database) && is_name(rest);
}

uint64_t audit_table_dropped(const struct audit_table *table)
{
	return table ? table->dropped : 0;
}

static void forget(struct audit_table *table, size_t rows)
{
	for (; rows; rows--) {
		struct row *row = table->rows;
		DL_DELETE(table->rows, row);
		table->count--;
		table->bytes -= row->len;
		free(row->text);
		free(row);
	}
	table->batch = 0;
}

static void on_timer(uv_timer_t *timer);

static void wake(struct audit_table *table, uint64_t ms)
{
	if (!table->exchange && !uv_is_active((uv_handle_t *)&table->timer) && !uv_is_closing((uv_handle_t *)&table->timer))
		uv_timer_start(&table->timer, on_timer, ms, 0);
}

void audit_table_add(struct audit_table *table, struct slice text)
{
	struct row *row = NULL;
	if (table->count < AUDIT_TABLE_ROWS && table->bytes + text.len <= AUDIT_TABLE_BYTES)
		row = calloc(1, sizeof *row);
	if (row)
		row->text = slice_dup(text);
	if (!row || !row->text) {
		free(row);
		table->dropped++;
		return;
	}
	row->len = text.len;
	DL_APPEND(table->rows, row);
	table->count++;
	table->bytes += row->len;
	wake(table, SOON_MS);
}

/* --- a request ---------------------------------------------------------------- */

static int put_rows(struct audit_table *table)
{
	struct row *row;
	int r = buf_append(&table->body, SLICE("{\"ignore\":true,\"rows\":["));
	table->batch = 0;
	DL_FOREACH (table->rows, row) {
		if (r < 0 || table->batch == BATCH_ROWS || (table->batch && table->body.len + row->len > BATCH_BYTES))
			break;
		if (table->batch++)
			r = buf_append_char(&table->body, ',');
		if (r == 0)
			r = buf_append(&table->body, slice_of(row->text, row->len));
	}
	return r < 0 ? r : buf_append(&table->body, SLICE("]}"));
}

static int put_columns(struct audit_table *table)
{
	int r = buf_printf(&table->body, "{\"table\":\"%s\",\"pk\":\"id\",\"columns\":[", table->name);
	for (const struct audit_column *c = audit_columns; r == 0 && c->name; c++)
		r = buf_printf(&table->body, "%s{\"name\":\"%s\",\"type\":\"%s\"}", c == audit_columns ? "" : ",", c->name, c->type);
	return r < 0 ? r : buf_append(&table->body, SLICE("]}"));
}

static int put_head(const struct audit_table *table, struct buf *head)
{
	const struct secret *token = table->options.token;
	int r = table->step == CREATING ? buf_printf(head, "POST /%s/-/create HTTP/1.1\r\n", table->database)
					: buf_printf(head, "POST /%s/%s/-/insert HTTP/1.1\r\n", table->database, table->name);
	/* Via ends it where DATASETTE_URL leads back here. */
	if (r == 0)
		r = buf_printf(head,
			       "Host: %.*s\r\nVia: 1.1 spritegate\r\nContent-Type: application/json\r\nAuthorization: Bearer %.*s\r\n",
			       SLICE_FMT(connection_pool_authority(table->connections)), (int)token->len, (const char *)token->bytes);
	return r;
}

static void on_last(uv_timer_t *timer);

/* Again later; the batch stays. */
static void fail(struct audit_table *table, const char *reason)
{
	if (!table->complained)
		log_warning("audit: the table does not take records, trying again: %s", reason);
	table->complained = true;
	table->batch = 0;
	uint64_t ms = (uint64_t)SOON_MS << (table->failures < 5 ? table->failures : 5);
	table->failures++;
	wake(table, ms < RETRY_MAX_MS ? ms : RETRY_MAX_MS);
}

static void next(struct audit_table *table)
{
	if (table->count)
		wake(table, table->count >= BATCH_ROWS || table->closing || table->step == CREATING ? 0 : SOON_MS);
	else if (table->closing)
		uv_timer_start(&table->last, on_last, 0, 0);
}

static void on_head(void *ctx, const struct response_head *head)
{
	((struct audit_table *)ctx)->status = head->status;
}

static size_t on_room(void *ctx UNUSED)
{
	return 4096;
}

static void on_body(void *ctx, struct slice bytes)
{
	struct audit_table *table = ctx;
	size_t room = SAID_MAX - table->said.len;
	if (buf_append(&table->said, slice_of(bytes.data, bytes.len < room ? bytes.len : room)) < 0)
		buf_consume(&table->said, table->said.len);
}

static void send_on(void *ctx)
{
	struct audit_table *table = ctx;
	struct slice rest = slice_from(buf_peek(&table->body), table->sent);
	table->sent += exchange_write(table->exchange, rest);
	if (table->sent == table->body.len)
		exchange_end(table->exchange);
}

/* What it says of these rows, not of us or of now: they would be refused each time. */
static bool is_final(unsigned status)
{
	return status == 400 || status == 413 || status == 422;
}

static void on_end(void *ctx)
{
	struct audit_table *table = ctx;
	char reason[SAID_MAX + 60];
	table->exchange = NULL;
	if (table->status / 100 == 2 || (table->step == CREATING && table->status == 400)) { /* 400: somebody else has made it */
		if (table->complained)
			log_info("audit: the table takes records again");
		table->complained = false;
		table->failures = 0;
		if (table->step == INSERTING)
			forget(table, table->batch);
		table->step = INSERTING;
		next(table);
		return;
	}
	if (table->step == INSERTING && table->status == 404) {
		table->step = CREATING;
		next(table);
		return;
	}
	snprintf(reason, sizeof reason, "Datasette answers %u %.*s", table->status, SLICE_FMT(buf_peek(&table->said)));
	if (table->step == INSERTING && is_final(table->status)) {
		log_error("audit: %zu records are lost to the table: %s", table->batch, reason);
		table->dropped += table->batch;
		forget(table, table->batch);
		next(table);
		return;
	}
	table->step = INSERTING;
	fail(table, reason);
}

static void on_failed(void *ctx, const struct exchange_failure *failure)
{
	struct audit_table *table = ctx;
	table->exchange = NULL;
	table->step = INSERTING;
	fail(table, failure->detail);
}

static const struct exchange_events events = {
	.on_head = on_head, .on_room = on_room, .on_body = on_body, .on_writable = send_on, .on_end = on_end, .on_failed = on_failed};

static int ask(struct audit_table *table)
{
	CLEANUP(buf_deinit) struct buf head = BUF_MAX(8192);
	buf_consume(&table->body, table->body.len);
	buf_consume(&table->said, table->said.len);
	table->sent = 0;
	int r = table->step == CREATING ? put_columns(table) : put_rows(table);
	if (r == 0)
		r = put_head(table, &head);
	if (r < 0)
		return r;
	struct exchange_request request = {.head = buf_peek(&head),
					   .body = EXCHANGE_BODY_LENGTH,
					   .length = table->body.len,
					   .first_byte_ms = ANSWER_MS,
					   .idle_ms = ANSWER_MS};
	r = exchange_start(table->exchanges, &request, &events, table, &table->exchange);
	secret_wipe(head.data + head.start, head.len);
	if (r == 0)
		send_on(table);
	else
		table->exchange = NULL;
	return r;
}

static void on_timer(uv_timer_t *timer)
{
	struct audit_table *table = timer->data;
	if (!table->exchange && table->count && ask(table) != 0)
		fail(table, "no request could be made");
}

/* --- life --------------------------------------------------------------------- */

struct audit_table *audit_table_new(const struct audit_table_options *options)
{
	struct audit_table *table = calloc(1, sizeof *table);
	char error[CONNECTION_ERROR_LEN];
	struct connection_pool_options connections;
	struct slice rest = slice_str(options->where), database;
	if (!table || !slice_next(&rest, '/', &database)) {
		free(table);
		return NULL;
	}
	table->options = *options;
	snprintf(table->database, sizeof table->database, "%.*s", SLICE_FMT(database));
	snprintf(table->name, sizeof table->name, "%.*s", SLICE_FMT(rest));
	table->body = BUF_MAX(2 * AUDIT_TABLE_BYTES);
	table->said = BUF_MAX(SAID_MAX);
	connection_pool_defaults(&connections);
	connections.driver = options->curl;
	connections.loop = options->loop;
	connections.url = options->datasette_url;
	connections.ca_file = options->datasette_ca_file;
	connections.max_connections = 1;
	table->connections = connection_pool_new(&connections, error);
	table->exchanges = table->connections ? exchange_pool_new(table->connections, options->loop) : NULL;
	if (!table->exchanges) {
		if (table->connections)
			connection_pool_free(table->connections);
		free(table);
		return NULL;
	}
	uv_timer_init(options->loop, &table->timer);
	uv_timer_init(options->loop, &table->last);
	table->timer.data = table->last.data = table;
	return table;
}

static void on_closed(uv_handle_t *handle)
{
	struct audit_table *table = handle->data;
	if (--table->open_handles)
		return;
	void (*on_freed)(void *) = table->on_freed;
	void *ctx = table->freed_ctx;
	if (table->count)
		log_warning("audit: %zu records were not sent to the table", table->count);
	forget(table, table->count);
	buf_deinit(&table->body);
	buf_deinit(&table->said);
	free(table);
	on_freed(ctx);
}

/* From a turn of its own: no callback of an exchange is running. */
static void on_last(uv_timer_t *timer)
{
	struct audit_table *table = timer->data;
	exchange_cancel(TAKE(table->exchange));
	exchange_pool_free(table->exchanges);
	connection_pool_free(table->connections);
	table->open_handles = 2;
	uv_close((uv_handle_t *)&table->timer, on_closed);
	uv_close((uv_handle_t *)&table->last, on_closed);
}

void audit_table_free(struct audit_table *table, void (*on_freed)(void *ctx), void *ctx)
{
	if (!table) {
		on_freed(ctx);
		return;
	}
	table->on_freed = on_freed;
	table->freed_ctx = ctx;
	table->closing = true;
	uv_timer_start(&table->last, on_last, table->count ? LAST_MS : 0, 0);
	if (table->count && !table->exchange && !table->failures)
		uv_timer_start(&table->timer, on_timer, 0, 0);
}
