#include "gateway/base/buf.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

void buf_init(struct buf *buf, size_t max)
{
	*buf = BUF_MAX(max);
}

void buf_deinit(struct buf *buf)
{
	free(buf->data);
	*buf = BUF_MAX(buf->max);
}

static int grow(struct buf *buf, size_t want)
{
	size_t cap = buf->cap ? buf->cap : 256;
	while (cap < want)
		cap = cap > SIZE_MAX / 2 ? want : cap * 2;
	/* What can never be used is not asked for. */
	if (cap - 1 > buf->max)
		cap = buf->max + 1;
	char *data = realloc(buf->data, cap);
	if (!data)
		return -ENOMEM;
	buf->data = data;
	buf->cap = cap;
	return 0;
}

static int make_room(struct buf *buf, size_t want)
{
	if (buf->start) {
		memmove(buf->data, buf->data + buf->start, buf->len);
		buf->start = 0;
	}
	size_t need = buf->len + want + 1;
	return need > buf->cap ? grow(buf, need) : 0;
}

/* One byte more than asked: printf and strings end with a NUL that is never counted. */
static inline int reserve(struct buf *buf, size_t want)
{
	if (want > buf->max - buf->len)
		return -EMSGSIZE;
	return want < buf->cap - buf->start - buf->len ? 0 : make_room(buf, want);
}

int buf_reserve(struct buf *buf, size_t want, char **space)
{
	int r = reserve(buf, want);
	if (r == 0)
		*space = buf->data + buf->start + buf->len;
	return r;
}

void buf_commit(struct buf *buf, size_t written)
{
	assert(buf->start + buf->len + written <= buf->cap);
	buf->len += written;
}

int buf_append(struct buf *buf, struct slice bytes)
{
	if (!bytes.len)
		return 0;
	int r = reserve(buf, bytes.len);
	if (r < 0)
		return r;
	memcpy(buf->data + buf->start + buf->len, bytes.data, bytes.len);
	buf->len += bytes.len;
	return 0;
}

int buf_append_char(struct buf *buf, char c)
{
	int r = reserve(buf, 1);
	if (r < 0)
		return r;
	buf->data[buf->start + buf->len++] = c;
	return 0;
}

int buf_append_number(struct buf *buf, uint64_t value, unsigned width)
{
	char digits[20];
	size_t at = sizeof digits;
	do
		digits[--at] = (char)('0' + value % 10);
	while ((value /= 10) || sizeof digits - at < width);
	return buf_append(buf, slice_of(digits + at, sizeof digits - at));
}

int buf_vprintf(struct buf *buf, const char *format, va_list args)
{
	va_list again;
	va_copy(again, args);
	int len = vsnprintf(NULL, 0, format, args);
	char *space;
	int r = len < 0 ? -EINVAL : buf_reserve(buf, (size_t)len, &space);
	if (r == 0) {
		vsnprintf(space, (size_t)len + 1, format, again);
		buf->len += (size_t)len;
	}
	va_end(again);
	return r;
}

int buf_printf(struct buf *buf, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	int r = buf_vprintf(buf, format, args);
	va_end(args);
	return r;
}

void buf_consume(struct buf *buf, size_t n)
{
	assert(n <= buf->len);
	buf->start += n;
	buf->len -= n;
	if (!buf->len)
		buf->start = 0;
}

char *buf_take_string(struct buf *buf)
{
	char *space;
	if (buf->start) {
		memmove(buf->data, buf->data + buf->start, buf->len);
		buf->start = 0;
	}
	if (buf_reserve(buf, 0, &space) < 0)
		return NULL;
	*space = '\0';
	char *text = buf->data;
	*buf = BUF_MAX(buf->max);
	return text;
}
