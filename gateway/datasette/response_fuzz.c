/*
 * response_fuzz - a response in pieces of any size means what the whole one means
 *
 * Input: byte 0 says how to cut and whether the request was HEAD, the rest is what Datasette sent.
 */
#include "gateway/datasette/response.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct outcome {
	int result, at_end;
	size_t used;
	unsigned heads, status;
	uint64_t hash; /* of names, values and body bytes, in order */
	bool keep_alive;
};

static void mix(struct outcome *outcome, struct slice bytes)
{
	for (size_t i = 0; i < bytes.len; i++)
		outcome->hash = (outcome->hash ^ (unsigned char)bytes.data[i]) * 1099511628211u;
}

static void note_head(struct outcome *outcome, const struct response_head *head)
{
	if (head->status < 100 || head->status > 599 || head->status == 101 || head->count > RESPONSE_FIELDS_MAX)
		abort();
	for (size_t i = 0; i < head->count; i++) {
		if (!head->fields[i].name.len)
			abort();
		mix(outcome, head->fields[i].name);
		mix(outcome, head->fields[i].value);
		if (head->fields[i].value.len && (memchr(head->fields[i].value.data, '\r', head->fields[i].value.len) ||
						  memchr(head->fields[i].value.data, '\n', head->fields[i].value.len)))
			abort();
	}
}

static void on_interim(void *ctx, const struct response_head *head)
{
	note_head(ctx, head);
}

static void on_head(void *ctx, const struct response_head *head)
{
	struct outcome *outcome = ctx;
	note_head(outcome, head);
	outcome->heads++;
	outcome->status = head->status;
}

static void on_body(void *ctx, struct slice bytes)
{
	struct outcome *outcome = ctx;
	if (!outcome->heads || outcome->status == 204 || outcome->status == 304)
		abort();
	mix(outcome, bytes);
}

static const struct response_events events = {on_interim, on_head, on_body};

static struct outcome run(struct slice bytes, bool to_head, size_t step)
{
	struct outcome outcome = {.hash = 14695981039346656037u};
	struct response response;
	response_init(&response, &events, &outcome);
	response_begin(&response, to_head);
	while (outcome.result == 0 && outcome.used < bytes.len) {
		size_t left = bytes.len - outcome.used, used;
		outcome.result = response_feed(&response, slice_of(bytes.data + outcome.used, left < step ? left : step), &used);
		outcome.used += used;
	}
	if (outcome.result == 0)
		outcome.at_end = response_eof(&response);
	outcome.keep_alive = response_keep_alive(&response);
	if (outcome.heads > 1 || (outcome.result == RESPONSE_DONE && outcome.heads != 1))
		abort();
	if ((outcome.result < 0 || outcome.at_end < 0) && !response.error)
		abort();
	response_deinit(&response);
	return outcome;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!size)
		return 0;
	struct slice bytes = slice_of((const char *)data + 1, size - 1);
	bool to_head = data[0] & 1;
	struct outcome whole = run(bytes, to_head, SIZE_MAX), pieces = run(bytes, to_head, 1 + data[0] / 2 % 64);
	if (whole.result != pieces.result || whole.at_end != pieces.at_end || whole.status != pieces.status)
		abort();
	/* What comes before an error may be told in part. */
	if (whole.result >= 0 && (whole.hash != pieces.hash || whole.keep_alive != pieces.keep_alive || whole.used != pieces.used))
		abort();
	return 0;
}
