#include "gateway/exec/report.h"

#include "gateway/base/buf.h"

#include <stdlib.h>

/* The first byte says how long the pieces are. Whatever is fed comes out again, but for a report at its end or what is left of one. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	CLEANUP(buf_deinit) struct buf out = BUF_MAX(size + 1);
	struct report report;
	uint64_t numbers[REPORT_NUMBERS];
	struct slice rest;
	if (!size || report_init(&report) < 0)
		return 0;
	memset(report.nonce, 'a', RECORD_NONCE_LEN);
	size_t step = data[0] ? data[0] : 1;
	const struct slice all = slice_of((const char *)data + 1, size - 1);
	for (struct slice left = all; left.len; left = slice_from(left, step)) {
		struct slice parts[2];
		report_feed(&report, slice_of(left.data, left.len < step ? left.len : step), parts);
		if (buf_append(&out, parts[0]) < 0 || buf_append(&out, parts[1]) < 0)
			abort();
	}
	bool reported = report_end(&report, numbers, &rest);
	if (buf_append(&out, rest) < 0 || out.len > all.len || !slice_equal(buf_peek(&out), slice_of(all.data, out.len)))
		abort();
	size_t kept = all.len - out.len;
	if (reported ? kept != RECORD_REPORT_LEN : kept > RECORD_REPORT_LEN)
		abort();
	return 0;
}
