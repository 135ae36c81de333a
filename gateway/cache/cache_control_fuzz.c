/*
 * cache_control_fuzz - any bytes as lines of Cache-Control: what forbids is never overlooked because of what stands beside it
 */
#include "gateway/cache/cache_control.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct cache_control parse(struct slice one, struct slice two)
{
	struct http_fields fields = {.count = 2, .at = {{SLICE("cache-control"), one}, {SLICE("cache-control"), two}}};
	struct cache_control control;
	cache_control_parse(&fields, &control);
	return control;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice line = slice_of((const char *)data, size);
	if (!parse(line, SLICE("no-store")).forbids || !parse(SLICE("private"), line).forbids)
		abort();
	struct cache_control control = parse(line, SLICE("max-age=1"));
	if (!control.present || (!control.broken && control.max_age != 1))
		abort();
	return 0;
}
