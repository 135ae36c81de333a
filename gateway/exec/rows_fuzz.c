#include "gateway/exec/rows.h"

#include "gateway/json/json.h"

#include <stdlib.h>

/* The first byte says how, the second how long the pieces are. Every row is an object, and the pieces make no difference. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int keep(void *ctx, struct slice row)
{
	struct json_failure failure;
	CLEANUP(json_decref_ptr) json_t *value = json_parse_reals(row, 33, &failure);
	if (!json_is_object(value))
		abort();
	return buf_append(ctx, row);
}

static int read_rows(const uint8_t *data, struct slice text, size_t step, struct buf *out)
{
	struct rows rows;
	int r = 0;
	rows_init(&rows, (enum rows_format)(data[0] % 4), keep, out);
	for (; r == 0 && text.len; text = slice_from(text, step))
		r = rows_feed(&rows, slice_of(text.data, text.len < step ? text.len : step));
	if (r == 0)
		r = rows_end(&rows, data[0] & 4);
	rows_deinit(&rows);
	return r;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	CLEANUP(buf_deinit) struct buf whole = BUF_MAX(64 * 1024 * 1024), pieces = BUF_MAX(64 * 1024 * 1024);
	if (size < 2)
		return 0;
	struct slice text = slice_of((const char *)data + 2, size - 2);
	int a = read_rows(data, text, text.len + 1, &whole), b = read_rows(data, text, data[1] ? data[1] : 1, &pieces);
	if (a != b || !slice_equal(buf_peek(&whole), buf_peek(&pieces)))
		abort();
	return 0;
}
