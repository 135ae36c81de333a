#include "gateway/exec/source.h"

#include "gateway/base/json_text.h"
#include "gateway/http/router.h"
#include "gateway/http/target.h"

#define TARGET_MAX 8192
#define OURS       SLICE("-"), SLICE("agent")

/* The next byte as Datasette reads it; -1 when there is none or it may not stand there. */
static int take(struct slice *rest)
{
	int c = (unsigned char)rest->data[0];
	size_t used = 1;
	if (c == '%') {
		int high = rest->len > 2 ? http_hex(rest->data[1]) : -1, low = rest->len > 2 ? http_hex(rest->data[2]) : -1;
		c = high < 0 || low < 0 ? -1 : high * 16 + low;
		used = 3;
	}
	*rest = slice_from(*rest, used);
	return c < 0x20 || c == 0x7f || c == '\\' ? -1 : c;
}

/* Its segments, one after the other; `at` counts those that begin as the gateway's own path does. */
static const char *segment_fault(struct slice segment, bool last, size_t i, size_t *ours)
{
	const struct slice own[] = {OURS};
	if (!segment.len && !last)
		return "must not have an empty part between two slashes";
	if (slice_equal(segment, SLICE(".")) || slice_equal(segment, SLICE("..")))
		return "must not have . or .. as a part";
	if (i < ARRAY_LEN(own) && *ours == i && slice_equal_nocase(segment, own[i]))
		++*ours;
	return *ours == ARRAY_LEN(own) ? "must not lead to /-/agent/" : NULL;
}

static const char *path_fault(struct slice path)
{
	char decoded[TARGET_MAX];
	size_t len = 0, ours = 0;
	while (path.len) {
		int c = take(&path);
		if (c < 0)
			return "has a byte in its path that may not stand there";
		decoded[len++] = (char)c;
	}
	struct slice rest = slice_of(decoded + 1, len - 1), segment;
	for (size_t i = 0; slice_next(&rest, '/', &segment); i++) {
		bool last = !rest.data;
		const char *wrong = segment_fault(segment, last, i, &ours);
		if (wrong)
			return wrong;
	}
	return NULL;
}

const char *source_fault(struct slice target)
{
	struct http_target parts;
	if (target.len > TARGET_MAX)
		return "is longer than 8192 bytes";
	if (!target.len || target.data[0] != '/')
		return "must begin with one slash";
	if (http_target_parse(target, &parts) != 0 || parts.form != HTTP_TARGET_ORIGIN)
		return "is not a path with a query; write other bytes as %XX";
	if (http_route_of(parts.path) != HTTP_ROUTE_PROXY)
		return "must not lead to the gateway";
	return path_fault(parts.path);
}

const char *source_rows_fault(struct slice target, bool *creates)
{
	static const char shapes[] = "must be /db/-/create, /db/table/-/insert or /db/table/-/upsert";
	const char *wrong = source_fault(target);
	struct slice rest = slice_from(target, 1), parts[5];
	size_t count = 0;
	if (wrong)
		return wrong;
	/* Nothing to decode: Datasette has another encoding for names. */
	if (memchr(target.data, '?', target.len) || memchr(target.data, '%', target.len))
		return shapes;
	while (count < ARRAY_LEN(parts) && slice_next(&rest, '/', &parts[count]))
		count++;
	*creates = count == 3;
	if (count < 3 || count > 4 || slice_equal(parts[0], SLICE("-")) || !slice_equal(parts[count - 2], SLICE("-")))
		return shapes;
	if (*creates)
		return slice_equal(parts[2], SLICE("create")) ? NULL : shapes;
	bool writes = slice_equal(parts[3], SLICE("insert")) || slice_equal(parts[3], SLICE("upsert"));
	return writes && !slice_equal(parts[1], SLICE("-")) ? NULL : shapes;
}

int source_put_failure(const struct source_failure *failure, struct buf *out)
{
	int r = buf_append(out, SLICE("\"pointer\":"));
	if (r == 0)
		r = json_text_string(out, slice_str(failure->pointer));
	if (r == 0)
		r = buf_append(out, SLICE(",\"source_status\":"));
	if (r < 0)
		return r;
	return failure->status ? buf_printf(out, "%u", failure->status) : buf_append(out, SLICE("null"));
}
