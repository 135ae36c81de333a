#include "gateway/http/problem.h"

#include "gateway/base/json_text.h"
#include "gateway/http/problem_types.h"

#include <errno.h>

static int member(struct buf *body, const char *key, struct slice value)
{
	int r = buf_printf(body, ",\"%s\":", key);
	return r < 0 ? r : json_text_string(body, value);
}

static int write_ids(const struct http_problem *problem, struct buf *body)
{
	if (!problem->request_id.len)
		return 0;
	int r = member(body, "request_id", problem->request_id);
	if (r == 0)
		r = buf_printf(body, ",\"instance\":\"urn:uuid:%.*s\"", SLICE_FMT(problem->request_id));
	return r;
}

int http_problem_write(const struct http_problem *problem, struct buf *body)
{
	const struct http_problem_type *type = http_problem_type_find(problem->code);
	if (!type)
		return -EINVAL;
	int r = buf_printf(body, "{\"type\":\"%s%s\"", type->uri ? type->uri : HTTP_PROBLEM_BASE, type->uri ? "" : type->code);
	if (r == 0)
		r = member(body, "title", slice_str(type->title));
	if (r == 0)
		r = buf_printf(body, ",\"status\":%u", problem->status);
	if (r == 0 && problem->detail.len)
		r = member(body, "detail", problem->detail);
	if (r == 0)
		r = member(body, "code", slice_str(problem->code));
	if (r == 0)
		r = write_ids(problem, body);
	if (r == 0)
		r = buf_append(body, SLICE(",\"ok\":false"));
	if (r == 0 && problem->extra.len) {
		r = buf_append_char(body, ',');
		if (r == 0)
			r = buf_append(body, problem->extra);
	}
	return r < 0 ? r : buf_append(body, SLICE("}\n"));
}

int http_problem_fields(struct http_fields *fields)
{
	static const struct http_field ours[] = {
		{SLICE("Content-Type"), SLICE("application/problem+json")},
		{SLICE("Cache-Control"), SLICE("no-store")},
		{SLICE("X-Content-Type-Options"), SLICE("nosniff")},
	};
	for (size_t i = 0; i < ARRAY_LEN(ours); i++)
		if (http_fields_add(fields, ours[i].name, ours[i].value) != 0)
			return -E2BIG;
	return 0;
}
