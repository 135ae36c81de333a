/*
 * buf - owned bytes that grow up to a maximum
 *
 * Owns:       its memory. buf_init allocates nothing.
 * Lifetime:   buf_init … buf_deinit; a deinit'ed buf is empty and may be used again with the same maximum.
 * Results:    0, -ENOMEM, -EMSGSIZE when the maximum would be passed (the buffer is unchanged then).
 * Bounds:     `max` bytes, fixed at buf_init; there is no unbounded buffer.
 * Invariants: the unread bytes are data[start … start+len).
 */
#pragma once

#include "gateway/base/slice.h"

#include <stdarg.h>

struct buf {
	char *data;
	size_t start;
	size_t len;
	size_t cap;
	size_t max;
};

#define BUF_MAX(limit) ((struct buf){.max = (limit)})

void buf_init(struct buf *buf, size_t max);
void buf_deinit(struct buf *buf);

/* Valid until the buffer is next changed. */
static inline struct slice buf_peek(const struct buf *buf)
{
	return slice_of(buf->len ? buf->data + buf->start : NULL, buf->len);
}

MUST_CHECK int buf_append(struct buf *buf, struct slice bytes);
MUST_CHECK int buf_append_char(struct buf *buf, char c);
/* Decimal, with zeroes in front up to `width` digits; where buf_printf would be most of the work. */
MUST_CHECK int buf_append_number(struct buf *buf, uint64_t value, unsigned width);
MUST_CHECK int buf_printf(struct buf *buf, const char *format, ...) PRINTF(2, 3);
MUST_CHECK int buf_vprintf(struct buf *buf, const char *format, va_list args) PRINTF(2, 0);

/* Room for `want` more bytes; *space points at it until the buffer is next changed. Commit what was written with buf_commit. */
MUST_CHECK int buf_reserve(struct buf *buf, size_t want, char **space);
void buf_commit(struct buf *buf, size_t written);

/* Drops n <= len bytes from the front; frees nothing. */
void buf_consume(struct buf *buf, size_t n);

/* Hands over the memory as a NUL-terminated heap string and leaves the buffer empty; NULL when out of memory. */
char *buf_take_string(struct buf *buf);
