#include "gateway/http/router.h"

#include "gateway/http/target.h"

#define EXEC   SLICE("/-/agent/exec")
#define HEALTH SLICE("/-/gateway/health")

/* One decoded, case-folded byte of the path, with '\' read as '/'. */
static char take_byte(struct slice *rest)
{
	char c = rest->data[0];
	size_t used = 1;
	if (c == '%' && rest->len >= 3 && http_hex(rest->data[1]) >= 0 && http_hex(rest->data[2]) >= 0) {
		c = (char)(http_hex(rest->data[1]) * 16 + http_hex(rest->data[2]));
		used = 3;
	}
	*rest = slice_from(*rest, used);
	if (c == '\\')
		return '/';
	return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

#define SEGMENTS_KEPT 4 /* one more than exec's path has, so that deeper paths can be told apart */
#define SEGMENT_KEPT  8 /* longer than any segment of exec's path */

struct segment {
	char text[SEGMENT_KEPT];
	size_t len; /* may be more than SEGMENT_KEPT */
};

/* The first segments after decoding, folding of case, dots and empty segments, and removal of parameters. */
struct normal_path {
	struct segment at[SEGMENTS_KEPT];
	size_t depth; /* may be more than SEGMENTS_KEPT */
};

static void add_segment(struct normal_path *path, const struct segment *segment)
{
	bool dot = segment->len == 1 && segment->text[0] == '.';
	bool dots = segment->len == 2 && segment->text[0] == '.' && segment->text[1] == '.';
	if (dots) {
		path->depth -= path->depth > 0;
	} else if (segment->len && !dot) {
		if (path->depth < SEGMENTS_KEPT)
			path->at[path->depth] = *segment;
		path->depth++;
	}
}

static void normalise(struct slice raw, struct normal_path *path)
{
	struct segment segment = {.len = 0};
	bool parameters = false;
	*path = (struct normal_path){.depth = 0};
	while (raw.len) {
		char c = take_byte(&raw);
		if (c == '/') {
			add_segment(path, &segment);
			segment.len = 0;
			parameters = false;
		} else if (c == ';') {
			parameters = true;
		} else if (!parameters) {
			if (segment.len < SEGMENT_KEPT)
				segment.text[segment.len] = c;
			segment.len++;
		}
	}
	add_segment(path, &segment);
}

static bool is_segment(const struct segment *segment, struct slice text)
{
	return segment->len == text.len && memcmp(segment->text, text.data, text.len) == 0;
}

static bool looks_like_exec(struct slice raw)
{
	/* Normalising never makes a path longer. */
	if (raw.len < EXEC.len)
		return false;
	struct normal_path path;
	normalise(raw, &path);
	return path.depth >= 3 && is_segment(&path.at[0], SLICE("-")) && is_segment(&path.at[1], SLICE("agent")) &&
	       is_segment(&path.at[2], SLICE("exec"));
}

enum http_route http_route_of(struct slice raw)
{
	if (slice_has_prefix(raw, EXEC)) {
		if (raw.len == EXEC.len)
			return HTTP_ROUTE_EXEC;
		if (raw.data[EXEC.len] == '/')
			return HTTP_ROUTE_EXEC_SUB;
	}
	if (slice_equal(raw, HEALTH))
		return HTTP_ROUTE_HEALTH;
	return looks_like_exec(raw) ? HTTP_ROUTE_AMBIGUOUS : HTTP_ROUTE_PROXY;
}

static enum http_route_label label_of_datasette(struct slice raw)
{
	if (slice_has_prefix(raw, SLICE("/-/static/")) || slice_has_prefix(raw, SLICE("/-/static-plugins/")) ||
	    slice_equal(raw, SLICE("/favicon.ico")))
		return HTTP_LABEL_STATIC;
	/* /database/table and /database/table/key; everything with a segment "-" is a page of its own kind. */
	struct slice rest = slice_from(raw, 1), part;
	size_t depth = 0;
	while (slice_next(&rest, '/', &part)) {
		if (!part.len || slice_equal(part, SLICE("-")))
			return HTTP_LABEL_OTHER;
		depth++;
	}
	return depth == 2 ? HTTP_LABEL_TABLE : depth == 3 ? HTTP_LABEL_ROW : HTTP_LABEL_OTHER;
}

enum http_route_label http_route_label_of(struct slice raw)
{
	switch (http_route_of(raw)) {
	case HTTP_ROUTE_EXEC:
	case HTTP_ROUTE_EXEC_SUB:
	case HTTP_ROUTE_AMBIGUOUS:
		return HTTP_LABEL_EXEC;
	case HTTP_ROUTE_HEALTH:
		return HTTP_LABEL_GATEWAY;
	case HTTP_ROUTE_PROXY:
		break;
	}
	return label_of_datasette(raw);
}

const char *http_route_label_name(enum http_route_label label)
{
	static const char *const names[HTTP_LABELS] = {
		[HTTP_LABEL_OTHER] = "other", [HTTP_LABEL_EXEC] = "exec", [HTTP_LABEL_STATIC] = "static",
		[HTTP_LABEL_TABLE] = "table", [HTTP_LABEL_ROW] = "row",   [HTTP_LABEL_GATEWAY] = "gateway",
	};
	return names[label];
}
