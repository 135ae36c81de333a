#include "gateway/http/target.h"

static bool is_target_byte(unsigned char c)
{
	return c > 0x20 && c < 0x7f && c != '#';
}

static bool all_target_bytes(struct slice raw)
{
	for (size_t i = 0; i < raw.len; i++)
		if (!is_target_byte((unsigned char)raw.data[i]))
			return false;
	return raw.len > 0;
}

static size_t find_any(struct slice text, const char *stops)
{
	size_t i = 0;
	while (i < text.len && !strchr(stops, text.data[i]))
		i++;
	return i;
}

static void split_origin(struct slice origin, struct http_target *target)
{
	target->origin = origin;
	const char *mark = memchr(origin.data, '?', origin.len);
	size_t path_len = mark ? (size_t)(mark - origin.data) : origin.len;
	target->path = slice_of(origin.data, path_len);
	if (mark)
		target->query = slice_of(mark + 1, origin.len - path_len - 1);
}

/* Of an absolute form; empty when it is another one. */
static struct slice after_scheme(struct slice raw)
{
	if (slice_has_prefix_nocase(raw, SLICE("http://")))
		return slice_from(raw, 7);
	return slice_has_prefix_nocase(raw, SLICE("https://")) ? slice_from(raw, 8) : (struct slice){0};
}

int http_target_append(struct slice raw, struct buf *out)
{
	struct slice after = after_scheme(raw);
	size_t len = find_any(after, "/?");
	struct slice rest = slice_from(after, len);
	if (!len || !rest.len || rest.data[0] == '/')
		return buf_append(out, raw);
	int r = buf_append(out, slice_of(raw.data, raw.len - rest.len));
	if (r == 0)
		r = buf_append_char(out, '/');
	return r < 0 ? r : buf_append(out, rest);
}

static int parse_absolute(struct slice after, struct http_target *target)
{
	size_t len = find_any(after, "/?");
	target->form = HTTP_TARGET_ABSOLUTE;
	target->authority = slice_of(after.data, len);
	struct slice rest = slice_from(after, len);
	if (!len || (rest.len && rest.data[0] != '/'))
		return HTTP_TARGET_E_INVALID;
	split_origin(rest.len ? rest : SLICE("/"), target);
	return 0;
}

int http_target_parse(struct slice raw, struct http_target *target)
{
	*target = (struct http_target){0};
	if (!all_target_bytes(raw))
		return HTTP_TARGET_E_INVALID;
	if (raw.data[0] == '/') {
		split_origin(raw, target);
		return 0;
	}
	if (slice_equal(raw, SLICE("*"))) {
		target->form = HTTP_TARGET_ASTERISK;
		target->origin = target->path = raw;
		return 0;
	}
	struct slice after = after_scheme(raw);
	if (after.len)
		return parse_absolute(after, target);
	if (find_any(raw, "/?") == raw.len && memchr(raw.data, ':', raw.len)) {
		target->form = HTTP_TARGET_AUTHORITY;
		target->authority = raw;
		return 0;
	}
	return HTTP_TARGET_E_INVALID;
}

int http_hex(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)(c | 0x20);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}
