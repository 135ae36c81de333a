#include "gateway/http/answer_head.h"

#include <errno.h>

/* One that is a part of its own is "NUL name NUL value NUL", any other is a line. */

/* Date, or it adds its own; and what it refuses, joins or frames by. */
static bool is_own(struct slice name)
{
	switch (name.len) {
	case 4:
		return slice_equal_nocase(name, SLICE("Date"));
	case 10:
		return slice_equal_nocase(name, SLICE("Connection"));
	case 14:
		return slice_equal_nocase(name, SLICE("Content-Length"));
	case 17:
		return slice_equal_nocase(name, SLICE("Transfer-Encoding"));
	default:
		return false;
	}
}

static char *put(char *to, struct slice bytes)
{
	if (bytes.len)
		memcpy(to, bytes.data, bytes.len);
	return to + bytes.len;
}

static size_t put_own(char *to, struct slice name, struct slice value)
{
	char *at = to;
	*at++ = '\0';
	at = put(at, name);
	*at++ = '\0';
	at = put(at, value);
	*at++ = '\0';
	return (size_t)(at - to);
}

static size_t put_line(char *to, struct slice name, struct slice value)
{
	char *at = put(to, name);
	*at++ = ':';
	*at++ = ' ';
	at = put(at, value);
	*at++ = '\r';
	*at++ = '\n';
	return (size_t)(at - to);
}

int answer_head_add(struct buf *head, struct slice name, struct slice value)
{
	char *to;
	value = slice_trim(value);
	if (!http_is_token(name) || !http_is_value(value))
		return -EINVAL;
	int r = buf_reserve(head, name.len + value.len + 4, &to);
	if (r < 0)
		return r;
	buf_commit(head, is_own(name) ? put_own(to, name, value) : put_line(to, name, value));
	return 0;
}

static void take_own(struct slice *rest, struct answer_part *part)
{
	const char *name = rest->data + 1, *value = name + strlen(name) + 1;
	*part = (struct answer_part){slice_str(name), slice_str(value), true};
	*rest = slice_from(*rest, part->name.len + part->value.len + 3);
}

static void take_lines(struct slice *rest, struct answer_part *part)
{
	const char *end = memchr(rest->data, '\0', rest->len), *colon = memchr(rest->data, ':', rest->len);
	size_t len = end ? (size_t)(end - rest->data) : rest->len, name_len = (size_t)(colon - rest->data);
	*part = (struct answer_part){slice_of(rest->data, name_len), slice_of(colon + 2, len - name_len - 4), false};
	*rest = slice_from(*rest, len);
}

bool answer_head_next(struct slice *rest, struct answer_part *part)
{
	if (!rest->len)
		return false;
	if (rest->data[0] == '\0')
		take_own(rest, part);
	else
		take_lines(rest, part);
	return true;
}
