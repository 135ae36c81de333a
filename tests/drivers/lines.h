/*
 * lines - lines of standard input, one after the other, for the test drivers
 */
#pragma once

#include "gateway/base/buf.h"

#include <stdlib.h>
#include <uv.h>

struct lines {
	uv_pipe_t input;
	struct buf text;
	bool (*on_line)(void *ctx, const char *line); /* NULL at the end of input; false: no more lines are wanted */
	void *ctx;
};

static inline void lines_on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
	static char space[65536];
	(void)handle;
	(void)suggested;
	*buf = uv_buf_init(space, sizeof space);
}

static inline void lines_on_input(uv_stream_t *stream, ssize_t len, const uv_buf_t *bytes)
{
	struct lines *lines = stream->data;
	if (len > 0 && buf_append(&lines->text, slice_of(bytes->base, (size_t)len)) != 0)
		abort();
	bool more = len >= 0 || lines->on_line(lines->ctx, NULL);
	while (more && len >= 0) {
		struct slice text = buf_peek(&lines->text);
		const char *end = text.len ? memchr(text.data, '\n', text.len) : NULL;
		if (!end)
			return;
		char *line = slice_dup(slice_of(text.data, (size_t)(end - text.data)));
		if (!line)
			abort();
		buf_consume(&lines->text, (size_t)(end - text.data) + 1);
		more = lines->on_line(lines->ctx, line);
		free(line);
	}
	uv_close((uv_handle_t *)&lines->input, NULL);
}

static inline void lines_start(struct lines *lines, uv_loop_t *loop)
{
	lines->text = (struct buf)BUF_MAX(1 << 20);
	uv_pipe_init(loop, &lines->input, 0);
	uv_pipe_open(&lines->input, 0);
	lines->input.data = lines;
	uv_read_start((uv_stream_t *)&lines->input, lines_on_alloc, lines_on_input);
}
