#include "policy/unsettled.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct unsettled_entry entries[UNSETTLED_MAX];

static void write_lines(struct buf *out, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (unsettled_write_line(out, &entries[i]) < 0)
			abort();
}

/* What is read can be written, and is then read as the same. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t count, again, bad_line;
	if (unsettled_read_lines(slice_of((const char *)data, size), entries, &count, &bad_line) < 0) {
		if (!bad_line)
			abort();
		return 0;
	}
	struct buf first = BUF_MAX((size_t)UNSETTLED_MAX * UNSETTLED_LINE_MAX), second = first;
	write_lines(&first, count);
	if (unsettled_read_lines(buf_peek(&first), entries, &again, &bad_line) < 0 || again != count)
		abort();
	write_lines(&second, count);
	if (!slice_equal(buf_peek(&first), buf_peek(&second)))
		abort();
	buf_deinit(&first);
	buf_deinit(&second);
	return 0;
}
