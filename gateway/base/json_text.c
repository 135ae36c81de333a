#include "gateway/base/json_text.h"

#include "gateway/base/utf8.h"

/* Output can be a megabyte of NULs: no printf for each. */
static int escape_control(struct buf *buf, unsigned char c)
{
	static const char digits[] = "0123456789abcdef";
	const char text[] = {'\\', 'u', '0', '0', digits[c >> 4], digits[c & 15]};
	return buf_append(buf, slice_of(text, sizeof text));
}

static int escape(struct buf *buf, unsigned char c)
{
	switch (c) {
	case '"':
		return buf_append(buf, SLICE("\\\""));
	case '\\':
		return buf_append(buf, SLICE("\\\\"));
	case '\n':
		return buf_append(buf, SLICE("\\n"));
	case '\r':
		return buf_append(buf, SLICE("\\r"));
	case '\t':
		return buf_append(buf, SLICE("\\t"));
	default:
		return escape_control(buf, c);
	}
}

static int append_valid(struct buf *buf, struct slice text)
{
	size_t start = 0;
	for (size_t i = 0; i < text.len; i++) {
		unsigned char c = (unsigned char)text.data[i];
		if (c >= 0x20 && c != '"' && c != '\\' && c != 0x7f)
			continue;
		int r = buf_append(buf, slice_of(text.data + start, i - start));
		if (r == 0)
			r = escape(buf, c);
		if (r < 0)
			return r;
		start = i + 1;
	}
	return buf_append(buf, slice_from(text, start));
}

static const bool is_plain_byte[256] = {[' ' ... '!'] = true, ['#' ... '['] = true, [']' ... '~'] = true};

static bool is_plain(struct slice text)
{
	for (size_t i = 0; i < text.len; i++)
		if (!is_plain_byte[(unsigned char)text.data[i]])
			return false;
	return true;
}

static int put_plain(struct buf *buf, struct slice text)
{
	char *to;
	int r = buf_reserve(buf, text.len + 2, &to);
	if (r < 0)
		return r;
	*to++ = '"';
	if (text.len)
		memcpy(to, text.data, text.len);
	to[text.len] = '"';
	buf_commit(buf, text.len + 2);
	return 0;
}

int json_text_string(struct buf *buf, struct slice text)
{
	/* Nearly every string is. */
	if (is_plain(text))
		return put_plain(buf, text);
	int r = buf_append_char(buf, '"');
	while (r == 0 && text.len) {
		size_t valid = utf8_valid_prefix(text);
		r = append_valid(buf, slice_of(text.data, valid));
		text = slice_from(text, valid);
		if (r == 0 && text.len) {
			r = buf_append(buf, SLICE("\xef\xbf\xbd"));
			text = slice_from(text, 1);
		}
	}
	return r < 0 ? r : buf_append_char(buf, '"');
}

static size_t escaped_len(unsigned char c)
{
	if (c == '"' || c == '\\' || c == '\n' || c == '\r' || c == '\t')
		return 2;
	return c < 0x20 || c == 0x7f ? 6 : 1;
}

size_t json_text_len(struct slice text)
{
	size_t len = 2;
	while (text.len) {
		size_t valid = utf8_valid_prefix(text);
		for (size_t i = 0; i < valid; i++)
			len += escaped_len((unsigned char)text.data[i]);
		text = slice_from(text, valid);
		if (text.len) {
			len += 3;
			text = slice_from(text, 1);
		}
	}
	return len;
}
