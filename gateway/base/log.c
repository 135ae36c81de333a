#include "gateway/base/log.h"

#include "gateway/base/clock.h"
#include "gateway/base/json_text.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#define LINE_MAX_BYTES 8192

static void write_line(struct slice line)
{
	while (line.len) {
		ssize_t n = write(STDERR_FILENO, line.data, line.len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return; /* nowhere left to complain to */
		line = slice_from(line, (size_t)n);
	}
}

static int put_subject(struct buf *line, const struct log_subject *subject)
{
	const struct {
		const char *name, *id;
	} ids[] = {{"request_id", subject->request_id}, {"exec_id", subject->exec_id}, {"trace_id", subject->trace_id}};
	int r = 0;
	for (size_t i = 0; r == 0 && i < ARRAY_LEN(ids); i++)
		if (ids[i].id[0])
			r = buf_printf(line, ",\"%s\":\"%s\"", ids[i].name, ids[i].id);
	return r;
}

void log_write(enum log_level level, const struct log_subject *subject, const char *format, ...)
{
	static const char *const names[] = {"info", "warning", "error"};
	char text[LINE_MAX_BYTES / 2];
	va_list args;
	va_start(args, format);
	int len = vsnprintf(text, sizeof text, format, args);
	va_end(args);
	if (len < 0)
		return;
	if ((size_t)len >= sizeof text)
		len = sizeof text - 1;
	char time[25];
	clock_format(clock_wall_ms(), time);
	CLEANUP(buf_deinit) struct buf line = BUF_MAX(LINE_MAX_BYTES * 4);
	int r = buf_printf(&line, "{\"time\":\"%s\",\"level\":\"%s\",\"message\":", time, names[level]);
	if (r == 0)
		r = json_text_string(&line, slice_of(text, (size_t)len));
	if (r == 0 && subject)
		r = put_subject(&line, subject);
	if (r == 0)
		r = buf_append(&line, SLICE("}\n"));
	if (r == 0)
		write_line(buf_peek(&line));
}
