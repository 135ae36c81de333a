/*
 * forward_fuzz - whatever request the guard lets through, the head for Datasette has the lines it should have and no others
 *
 * Input: "method SP target SP version LF" and "name:value LF" lines.
 */
#include "gateway/http/guard.h"
#include "gateway/proxy/forward.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct slice take(struct slice *rest, char separator)
{
	struct slice part = {0};
	if (!slice_next(rest, separator, &part) || !part.data)
		part = SLICE("");
	return part;
}

static bool begins(struct slice line, struct slice name)
{
	return slice_has_prefix_nocase(line, name);
}

/* Every line ends in CRLF and holds no other control byte; the fields that decide about framing and identity are ours alone. */
static void check_head(struct slice head)
{
	size_t hosts = 0, identity = 0, line_number = 0;
	while (head.len) {
		const char *end = memmem(head.data, head.len, "\r\n", 2);
		if (!end)
			abort();
		struct slice line = slice_of(head.data, (size_t)(end - head.data));
		for (size_t i = 0; i < line.len; i++)
			if ((unsigned char)line.data[i] < 0x20 && line.data[i] != '\t')
				abort();
		if (line_number++ &&
		    !http_is_token(slice_of(line.data, (size_t)((const char *)memchr(line.data, ':', line.len) - line.data))))
			abort();
		hosts += begins(line, SLICE("host:"));
		identity += begins(line, SLICE("x-forwarded-for:"));
		if (begins(line, SLICE("content-length:")) || begins(line, SLICE("transfer-encoding:")) ||
		    begins(line, SLICE("connection:")) || begins(line, SLICE("upgrade:")) || begins(line, SLICE("proxy:")) ||
		    begins(line, SLICE("x-datasette-authorization:")) || begins(line, SLICE("authorization: bearer sgt_")))
			abort();
		head = slice_from(head, line.len + 2);
	}
	if (hosts != 1 || identity != 1)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct http_guard_limits limits = {.max_head = 64 * 1024};
	static const struct forward_options options = {.pseudonym = {.data = "spritegate", .len = 10},
						       .default_host = {.data = "localhost", .len = 9}};
	struct slice rest = slice_of((const char *)data, size), line, first = take(&rest, '\n');
	struct http_fields fields;
	struct http_guard_verdict verdict;
	struct http_guard_input input = {.fields = &fields};
	http_fields_clear(&fields);
	input.method = take(&first, ' ');
	input.target = take(&first, ' ');
	input.version = take(&first, ' ');
	while (input.fields_seen < HTTP_REQUEST_FIELDS_MAX && slice_next(&rest, '\n', &line)) {
		struct slice name = take(&line, ':');
		input.fields_seen++;
		if (http_fields_add(&fields, name, line.data ? slice_trim(line) : SLICE("")) != 0)
			abort();
	}
	http_guard_check(&input, &limits, &verdict);
	if (verdict.reason != HTTP_GUARD_OK || verdict.target.form == HTTP_TARGET_ASTERISK)
		return 0;
	struct http_head head = {.method = input.method,
				 .target = verdict.target.origin,
				 .path = verdict.target.path,
				 .host = verdict.host,
				 .peer = SLICE("::1"),
				 .id = SLICE("id"),
				 .fields = &fields,
				 .version_minor = verdict.version_minor};
	struct buf out = BUF_MAX(256 * 1024);
	int r = forward_request(&head, &options, &out);
	if (r < 0)
		abort();
	if (r == 0)
		check_head(buf_peek(&out));
	buf_deinit(&out);
	return 0;
}
