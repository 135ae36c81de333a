/*
 * target_fuzz - any bytes as a request target: what is accepted may stand on a request line, and exec's path has one spelling
 */
#include "gateway/http/host.h"
#include "gateway/http/router.h"
#include "gateway/http/target.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_target(struct slice raw)
{
	struct http_target target;
	if (http_target_parse(raw, &target) != 0)
		return;
	for (size_t i = 0; i < raw.len; i++)
		if (raw.data[i] <= ' ' || raw.data[i] == '#' || (unsigned char)raw.data[i] >= 0x7f)
			abort();
	bool path_first = target.form == HTTP_TARGET_ORIGIN || target.form == HTTP_TARGET_ABSOLUTE;
	if (path_first && (!target.path.len || target.path.data[0] != '/'))
		abort();
	if (target.form != HTTP_TARGET_AUTHORITY && target.origin.len != target.path.len + (target.query.data ? target.query.len + 1 : 0))
		abort();
}

/* Writing it out changes nothing that could be read before. */
static void check_appended(struct slice raw)
{
	struct buf out = BUF_MAX(SIZE_MAX);
	struct http_target before, after;
	if (http_target_append(raw, &out) != 0)
		abort();
	bool readable = http_target_parse(raw, &before) == 0, same = slice_equal(raw, buf_peek(&out));
	bool readable_now = http_target_parse(buf_peek(&out), &after) == 0;
	if (readable ? !same : !same && readable_now && !slice_equal(after.path, SLICE("/")))
		abort();
	buf_deinit(&out);
}

static void check_route(struct slice raw)
{
	enum http_route route = http_route_of(raw);
	bool exec = slice_has_prefix(raw, SLICE("/-/agent/exec")) && (raw.len == 13 || raw.data[13] == '/');
	if (exec != (route == HTTP_ROUTE_EXEC || route == HTTP_ROUTE_EXEC_SUB))
		abort();
	if (!http_route_label_name(http_route_label_of(raw)))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct slice raw = slice_of((const char *)data, size);
	check_target(raw);
	check_appended(raw);
	check_route(raw);
	if (http_host_is_valid(raw) && !http_host_equal(raw, raw, SLICE("http")))
		abort();
	return 0;
}
