#include "gateway/exec/report.h"

#include "gateway/base/id.h"

#include <stdio.h>

#define NUMBER_LEN 16
#define SURELY     (1 + 8) /* no output goes on like a report for so long by chance */

int report_init(struct report *report)
{
	unsigned char bytes[RECORD_NONCE_LEN / 2];
	*report = (struct report){0};
	int r = id_random(bytes, sizeof bytes);
	for (size_t i = 0; r == 0 && i < sizeof bytes; i++)
		snprintf(report->nonce + 2 * i, 3, "%02x", bytes[i]);
	return r;
}

static bool fits(const struct report *report, size_t at, char c)
{
	if (at == 0)
		return c == RECORD_REPORT_MARK;
	if (at <= RECORD_NONCE_LEN)
		return c == report->nonce[at - 1];
	return at < RECORD_REPORT_LEN && ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'));
}

/* Whether all of it may go on a report of which `at` bytes are there. */
static bool goes_on(const struct report *report, size_t at, struct slice bytes)
{
	for (size_t i = 0; i < bytes.len; i++)
		if (!fits(report, at + i, bytes.data[i]))
			return false;
	return true;
}

static void hold(struct report *report, struct slice bytes)
{
	memcpy(report->held + report->held_len, bytes.data, bytes.len);
	report->held_len += bytes.len;
}

static struct slice release(struct report *report)
{
	size_t len = report->held_len;
	memcpy(report->released, report->held, len);
	report->held_len = 0;
	return slice_of(report->released, len);
}

/* Where a report may begin; the length when nowhere. */
static size_t find(const struct report *report, struct slice bytes)
{
	size_t at = bytes.len > RECORD_REPORT_LEN ? bytes.len - RECORD_REPORT_LEN : 0;
	while (at < bytes.len && !goes_on(report, 0, slice_from(bytes, at)))
		at++;
	return at;
}

void report_feed(struct report *report, struct slice bytes, struct slice out[2])
{
	out[0] = out[1] = (struct slice){0};
	if (!bytes.len)
		return;
	if (report->held_len && goes_on(report, report->held_len, bytes)) {
		hold(report, bytes);
		return;
	}
	/* No report begins within what was held: the mark is in it but once. */
	out[0] = release(report);
	size_t at = find(report, bytes);
	out[1] = slice_of(bytes.data, at);
	if (at < bytes.len)
		hold(report, slice_from(bytes, at));
}

static uint64_t read_hex(const char *digits)
{
	uint64_t number = 0;
	for (size_t i = 0; i < NUMBER_LEN; i++)
		number = number << 4 | (uint64_t)(digits[i] <= '9' ? digits[i] - '0' : digits[i] - 'a' + 10);
	return number;
}

bool report_end(struct report *report, uint64_t numbers[REPORT_NUMBERS], struct slice *rest)
{
	*rest = (struct slice){0};
	if (report->held_len < RECORD_REPORT_LEN) {
		struct slice held = release(report);
		if (held.len < SURELY)
			*rest = held;
		return false;
	}
	bool possible = true;
	for (size_t i = 0; i < REPORT_NUMBERS; i++) {
		numbers[i] = read_hex(report->held + 1 + RECORD_NONCE_LEN + NUMBER_LEN * i);
		possible &= numbers[i] <= INT64_MAX;
	}
	report->held_len = 0;
	return possible;
}
