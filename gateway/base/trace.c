#include "gateway/base/trace.h"

#include <errno.h>
#include <stdio.h>

/* Lower case only; never all zeros, which stand for "none". */
static bool take_hex(struct slice text, size_t at, size_t len, bool may_be_zero, char *out)
{
	bool zero = true;
	for (size_t i = 0; i < len; i++) {
		char c = text.data[at + i];
		if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')))
			return false;
		zero &= c == '0';
		out[i] = c;
	}
	out[len] = '\0';
	return may_be_zero || !zero;
}

static unsigned digit(char c)
{
	return (unsigned)(c <= '9' ? c - '0' : c - 'a' + 10);
}

int trace_parse(struct slice text, struct trace *trace)
{
	char version[3], flags[3];
	struct trace read;
	if (text.len < TRACE_PARENT_LEN || text.data[2] != '-' || text.data[35] != '-' || text.data[52] != '-')
		return -EINVAL;
	if (!take_hex(text, 0, 2, true, version) || !take_hex(text, 3, TRACE_ID_LEN, false, read.id) ||
	    !take_hex(text, 36, TRACE_SPAN_LEN, false, read.parent) || !take_hex(text, 53, 2, true, flags))
		return -EINVAL;
	bool first = slice_equal(slice_str(version), SLICE("00"));
	if (slice_equal(slice_str(version), SLICE("ff")) || (first && text.len != TRACE_PARENT_LEN) ||
	    (text.len > TRACE_PARENT_LEN && text.data[TRACE_PARENT_LEN] != '-'))
		return -EINVAL;
	read.sampled = digit(flags[1]) & 1;
	*trace = read;
	return 0;
}

void trace_begin(struct slice uuid, struct trace *trace)
{
	size_t len = 0;
	*trace = (struct trace){.sampled = true};
	for (size_t i = 0; uuid.len == ID_UUID_LEN && i < uuid.len && len < TRACE_ID_LEN; i++)
		if (uuid.data[i] != '-')
			trace->id[len++] = uuid.data[i];
}

int trace_span_id(char out[TRACE_SPAN_LEN + 1])
{
	unsigned char random[TRACE_SPAN_LEN / 2];
	int r = id_random(random, sizeof random);
	random[0] |= 1; /* all zeros would be none */
	for (size_t i = 0; i < sizeof random; i++)
		snprintf(out + 2 * i, 3, "%02x", random[i]);
	return r;
}

void trace_format(const struct trace *trace, const char span[TRACE_SPAN_LEN + 1], char out[TRACE_PARENT_LEN + 1])
{
	snprintf(out, TRACE_PARENT_LEN + 1, "00-%s-%s-%s", trace->id, span, trace->sampled ? "01" : "00");
}
