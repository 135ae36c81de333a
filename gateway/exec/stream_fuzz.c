#include "gateway/base/base64.h"
#include "gateway/exec/stream.h"
#include "gateway/json/json.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void take_line(struct slice line, struct buf *got)
{
	struct json_failure failure;
	struct slice type, text, encoding;
	CLEANUP(json_decref_ptr) json_t *json = json_parse(line, 4, &failure);
	if (!json || !json_get_string(json, "type", &type))
		abort();
	if (slice_equal(type, SLICE("result")))
		return;
	if (!json_get_string(json, "data", &text) || !json_get_string(json, "encoding", &encoding) || !text.len)
		abort();
	int r = slice_equal(encoding, SLICE("utf-8")) ? buf_append(got, text) : base64_decode(got, text);
	if (r < 0)
		abort();
}

/* Whatever is printed, in pieces of whatever size (the first byte says): the lines are JSON and tell exactly that. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* A NUL is told as \u0000, which json_parse does not take. */
	if (size < 2 || memchr(data + 1, 0, size - 1))
		return 0;
	CLEANUP(buf_deinit) struct buf out = BUF_MAX(64 * size + 4096), got = BUF_MAX(size + 4);
	struct exec_result result = {.outcome = EXEC_CANCELED, .tier = "hot"};
	struct exec_answer answer;
	struct stream stream;
	struct slice bytes = slice_of((const char *)data + 1, size - 1), rest = bytes, line;
	stream_init(&stream, STREAM_NDJSON);
	output_init(&result.streams[0], size);
	output_init(&result.streams[1], size);
	for (size_t step = data[0] % 7 + 1; rest.len; rest = slice_from(rest, step))
		if (stream_output(&stream, 0, slice_of(rest.data, rest.len < step ? rest.len : step), &out) < 0)
			abort();
	if (stream_result(&stream, &result, "id", &answer, &out) < 0)
		abort();
	rest = buf_peek(&out);
	while (rest.len && slice_next(&rest, '\n', &line))
		take_line(line, &got);
	if (!slice_equal(buf_peek(&got), bytes))
		abort();
	return 0;
}
