/*
 * guard_fuzz - any method, target, version and fields: what passes has one meaning
 *
 * Input: "method SP target SP version LF" and "name:value LF" lines.
 */
#include "gateway/http/guard.h"
#include "gateway/http/host.h"
#include "gateway/http/router.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct slice take(struct slice *rest, char separator)
{
	struct slice part = {0};
	if (!slice_next(rest, separator, &part))
		part = SLICE("");
	return part.data ? part : SLICE("");
}

static void read_fields(struct slice rest, struct http_guard_input *input)
{
	struct slice line;
	http_fields_clear(input->fields);
	while (slice_next(&rest, '\n', &line)) {
		input->fields_seen++;
		struct slice name = take(&line, ':');
		if (input->fields->count < HTTP_REQUEST_FIELDS_MAX &&
		    http_fields_add(input->fields, name, line.data ? line : SLICE("")) != 0)
			abort();
	}
}

static void check_accepted(const struct http_guard_input *input, const struct http_guard_verdict *verdict)
{
	size_t lengths = http_fields_count(input->fields, SLICE("content-length"));
	size_t codings = http_fields_count(input->fields, SLICE("transfer-encoding"));
	size_t hosts = http_fields_count(input->fields, SLICE("host"));
	if (lengths + codings > 1 || hosts > 1 || (verdict->version_minor && !hosts))
		abort();
	if ((verdict->body == HTTP_BODY_LENGTH) != (lengths == 1) || (verdict->body == HTTP_BODY_CHUNKED) != (codings == 1))
		abort();
	if (hosts && !http_host_is_valid(verdict->host))
		abort();
	if (http_route_of(verdict->target.path) == HTTP_ROUTE_AMBIGUOUS || input->fields_seen > HTTP_REQUEST_FIELDS_MAX)
		abort();
	for (size_t i = 0; i < input->fields->count; i++)
		if (!http_is_token(input->fields->at[i].name) || !http_is_value(input->fields->at[i].value))
			abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct http_guard_limits limits = {.max_head = 4096};
	struct slice rest = slice_of((const char *)data, size);
	struct http_fields fields;
	struct http_guard_verdict verdict;
	struct slice line = take(&rest, '\n');
	struct http_guard_input input = {.fields = &fields};
	input.method = take(&line, ' ');
	input.target = take(&line, ' ');
	input.version = take(&line, ' ');
	read_fields(rest, &input);
	http_guard_check(&input, &limits, &verdict);
	if (verdict.reason == HTTP_GUARD_OK)
		check_accepted(&input, &verdict);
	else if (verdict.status < 400 || !verdict.code || !verdict.detail || !verdict.close)
		abort();
	return 0;
}
