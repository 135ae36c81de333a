#include "gateway/exec/rows.h"

#include "gateway/base/json_text.h"
#include "gateway/base/utf8.h"
#include "gateway/json/json.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define MAX_DEPTH 32

enum {
	BEGIN, /* of everything; 0 */
	FIRST, /* of an array: a row or its end */
	VALUE,
	AFTER, /* a row of an array */
	NEXT,  /* … and its comma */
	BETWEEN, /* two rows that no array holds */
	DONE,
	FIELD,
	PLAIN,
	QUOTED,
	QUOTE, /* in a quoted field: its end, or the first of two */
	RETURN,
	DEAD,
};

void rows_init(struct rows *rows, enum rows_format format, int (*on_row)(void *ctx, struct slice row), void *ctx)
{
	*rows = (struct rows){
		.format = format, .row = BUF_MAX(2 * ROWS_ROW_MAX), .field = BUF_MAX(ROWS_ROW_MAX), .on_row = on_row, .ctx = ctx};
}

void rows_deinit(struct rows *rows)
{
	for (size_t i = 0; i < rows->columns; i++)
		free(rows->names[i]);
	free(rows->names);
	buf_deinit(&rows->row);
	buf_deinit(&rows->field);
	*rows = (struct rows){.state = DEAD};
}

static int bad(struct rows *rows, const char *format, ...) PRINTF(2, 3);

static int bad(struct rows *rows, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vsnprintf(rows->detail, sizeof rows->detail, format, args);
	va_end(args);
	rows->state = DEAD;
	return ROWS_E_BAD;
}

static int too_long(struct rows *rows)
{
	return bad(rows, "A row is longer than %zu bytes.", ROWS_ROW_MAX);
}

static int pass_on(struct rows *rows)
{
	int r = rows->on_row(rows->ctx, buf_peek(&rows->row));
	buf_consume(&rows->row, rows->row.len);
	if (r == 0)
		rows->count++;
	return r;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* --- JSON ------------------------------------------------------------------------------------- */

static int begin_value(struct rows *rows, char c)
{
	if (c != '{')
		return bad(rows, "What comes next is no JSON object.");
	rows->state = VALUE;
	rows->depth = 1;
	return buf_append_char(&rows->row, c);
}

static int end_value(struct rows *rows)
{
	struct json_failure failure;
	json_t *value = json_parse_reals(buf_peek(&rows->row), MAX_DEPTH, &failure);
	if (!value)
		return bad(rows, "It is no JSON that can be used: %s.", failure.text);
	json_decref(value);
	rows->state = rows->format == ROWS_JSON ? AFTER : BETWEEN;
	return pass_on(rows);
}

/* Only where it ends: whether it is right is asked then. */
static int feed_value(struct rows *rows, char c)
{
	if (rows->row.len == ROWS_ROW_MAX)
		return too_long(rows);
	int r = buf_append_char(&rows->row, c);
	if (rows->in_string) {
		rows->in_string = rows->escaped || c != '"';
		rows->escaped = !rows->escaped && c == '\\';
	} else if (c == '"') {
		rows->in_string = true;
	} else if (c == '{' || c == '[') {
		rows->depth++;
	} else if ((c == '}' || c == ']') && --rows->depth == 0) {
		return r < 0 ? r : end_value(rows);
	}
	return r;
}

static int feed_json(struct rows *rows, char c)
{
	if (rows->state == VALUE)
		return feed_value(rows, c);
	if (is_blank(c))
		return 0;
	switch (rows->state) {
	case BEGIN:
		if (rows->format == ROWS_NDJSON)
			return begin_value(rows, c);
		rows->state = FIRST;
		return c == '[' ? 0 : bad(rows, "The output does not begin with a bracket, as an array does.");
	case FIRST:
		if (c != ']')
			return begin_value(rows, c);
		rows->state = DONE;
		return 0;
	case AFTER:
		rows->state = c == ',' ? NEXT : DONE;
		return c == ',' || c == ']' ? 0 : bad(rows, "After a row comes neither a comma nor the end of the array.");
	case NEXT:
	case BETWEEN:
		return begin_value(rows, c);
	default:
		return bad(rows, "The output goes on after the end of the array.");
	}
}

static int end_json(struct rows *rows)
{
	if (rows->state == DONE || rows->state == BETWEEN || rows->state == BEGIN)
		return 0;
	return bad(rows, rows->state == VALUE ? "The output ends within a row." : "The output ends before the array does.");
}

/* --- CSV -------------------------------------------------------------------------------------- */

static bool has_name(const struct rows *rows, const char *name)
{
	for (size_t i = 0; i < rows->columns; i++)
		if (strcmp(rows->names[i], name) == 0)
			return true;
	return false;
}

static int add_name(struct rows *rows, struct slice name)
{
	CLEANUP(buf_deinit) struct buf text = BUF_MAX(8 * ROWS_ROW_MAX);
	if (!name.len)
		return bad(rows, "The header has a column without a name.");
	if (rows->columns == ROWS_COLUMNS_MAX)
		return bad(rows, "The header has more than %d columns.", ROWS_COLUMNS_MAX);
	char **names = realloc(rows->names, (rows->columns + 1) * sizeof *names);
	if (!names)
		return -ENOMEM;
	rows->names = names;
	int r = json_text_string(&text, name);
	char *string = r == 0 ? buf_take_string(&text) : NULL;
	if (!string)
		return -ENOMEM;
	if (has_name(rows, string)) {
		free(string);
		return bad(rows, "The header has the same column twice.");
	}
	rows->names[rows->columns++] = string;
	rows->names_len += strlen(string);
	return rows->names_len > ROWS_NAMES_MAX ? bad(rows, "The names of the header are longer than %zu bytes.", ROWS_NAMES_MAX) : 0;
}

static int add_value(struct rows *rows, struct slice value)
{
	if (rows->fields >= rows->columns)
		return bad(rows, "It has more fields than the header, which has %zu.", rows->columns);
	int r = buf_append_char(&rows->row, rows->fields ? ',' : '{');
	if (r == 0)
		r = buf_append(&rows->row, slice_str(rows->names[rows->fields]));
	if (r == 0)
		r = buf_append_char(&rows->row, ':');
	if (r == 0)
		r = json_text_string(&rows->row, value);
	return r == -EMSGSIZE || (r == 0 && rows->row.len > ROWS_ROW_MAX) ? too_long(rows) : r;
}

static int end_field(struct rows *rows)
{
	struct slice text = buf_peek(&rows->field);
	if (!utf8_is_valid(text))
		return bad(rows, "It is not UTF-8.");
	int r = rows->with_names ? add_value(rows, text) : add_name(rows, text);
	buf_consume(&rows->field, rows->field.len);
	rows->fields++;
	rows->state = r == 0 ? FIELD : rows->state;
	return r;
}

static int end_record(struct rows *rows)
{
	int r = end_field(rows);
	size_t fields = rows->fields;
	if (r != 0)
		return r;
	rows->fields = 0;
	if (!rows->with_names) {
		rows->with_names = true;
		return 0;
	}
	if (fields != rows->columns)
		return bad(rows, "It has %zu fields, the header %zu.", fields, rows->columns);
	r = buf_append_char(&rows->row, '}');
	return r < 0 ? r : pass_on(rows);
}

static int append(struct rows *rows, int state, char c)
{
	rows->state = state;
	if (!c)
		return bad(rows, "It has a NUL.");
	return rows->field.len == ROWS_ROW_MAX ? too_long(rows) : buf_append_char(&rows->field, c);
}

/* What may end a field. */
static int end_plain(struct rows *rows, char c)
{
	if (c == ',')
		return end_field(rows);
	if (c == '\n')
		return end_record(rows);
	rows->state = RETURN;
	return 0;
}

static bool ends_plain(char c)
{
	return c == ',' || c == '\n' || c == '\r';
}

static int feed_csv(struct rows *rows, char c)
{
	switch (rows->state) {
	case BEGIN:
	case FIELD:
		if (c == '"') {
			rows->state = QUOTED;
			return 0;
		}
		/* An empty line. */
		if (!rows->fields && (c == '\n' || c == '\r'))
			return 0;
		return ends_plain(c) ? end_plain(rows, c) : append(rows, PLAIN, c);
	case PLAIN:
		if (c == '"')
			return bad(rows, "A quote is in a field that does not begin with one.");
		return ends_plain(c) ? end_plain(rows, c) : append(rows, PLAIN, c);
	case QUOTED:
		if (c != '"')
			return append(rows, QUOTED, c);
		rows->state = QUOTE;
		return 0;
	case QUOTE:
		if (c == '"')
			return append(rows, QUOTED, c);
		return ends_plain(c) ? end_plain(rows, c) : bad(rows, "After the closing quote of a field comes more.");
	default:
		return c == '\n' ? end_record(rows) : bad(rows, "A carriage return stands where no line ends.");
	}
}

static int end_csv(struct rows *rows, bool whole)
{
	if ((rows->state == FIELD || rows->state == BEGIN) && !rows->fields)
		return 0;
	if (rows->state == QUOTED)
		return bad(rows, "The output ends within a quoted field.");
	return whole ? end_record(rows) : bad(rows, "The output ends within a row.");
}

/* --- both ------------------------------------------------------------------------------------- */

static int feed(struct rows *rows, char c)
{
	if (rows->format == ROWS_DETECT) {
		if (is_blank(c))
			return 0;
		rows->format = c == '[' ? ROWS_JSON : c == '{' ? ROWS_NDJSON : ROWS_CSV;
	}
	return rows->format == ROWS_CSV ? feed_csv(rows, c) : feed_json(rows, c);
}

static const char mark[] = "\xef\xbb\xbf";

/* It is none, or all of one: what was held back of another character comes first. */
static int end_mark(struct rows *rows)
{
	size_t held = rows->marks < sizeof mark - 1 ? rows->marks : 0;
	int r = 0;
	for (size_t i = 0; r == 0 && i < held; i++)
		r = feed(rows, mark[i]);
	rows->marks = sizeof mark;
	return r;
}

static int feed_first(struct rows *rows, char c)
{
	if (rows->marks < sizeof mark - 1 && c == mark[rows->marks]) {
		rows->marks++;
		return 0;
	}
	int r = end_mark(rows);
	return r == 0 ? feed(rows, c) : r;
}

int rows_feed(struct rows *rows, struct slice bytes)
{
	int r = rows->state == DEAD ? ROWS_E_BAD : 0;
	rows->paused = false;
	for (rows->taken = 0; r == 0 && !rows->paused && rows->taken < bytes.len; rows->taken++)
		r = rows->marks < sizeof mark ? feed_first(rows, bytes.data[rows->taken]) : feed(rows, bytes.data[rows->taken]);
	if (r != 0)
		rows->state = DEAD;
	return r;
}

int rows_end(struct rows *rows, bool whole)
{
	if (rows->state == DEAD)
		return ROWS_E_BAD;
	int r = rows->marks < sizeof mark ? end_mark(rows) : 0;
	if (r == 0)
		r = rows->format == ROWS_CSV ? end_csv(rows, whole) : end_json(rows);
	rows->state = DEAD;
	return r;
}
