#include "gateway/telemetry/access_log.h"

#include "gateway/base/clock.h"
#include "gateway/base/json_text.h"
#include "gateway/base/redact.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <unistd.h>

#define MAX_WAITING (256 * 1024)
#define MAX_PATH    512

int access_log_open(const char *where, int *fd)
{
	*fd = -1;
	if (strcmp(where, "off") == 0)
		return 0;
	if (strcmp(where, "stdout") == 0)
		*fd = STDOUT_FILENO;
	else if (strcmp(where, "stderr") == 0)
		*fd = STDERR_FILENO;
	else
		*fd = open(where, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
	return *fd < 0 ? -errno : 0;
}

int access_log_reopen(const char *where, int fd)
{
	int new;
	if (fd <= STDERR_FILENO)
		return 0;
	int r = access_log_open(where, &new);
	if (r < 0)
		return r;
	r = dup3(new, fd, O_CLOEXEC) < 0 ? -errno : 0;
	close(new);
	return r;
}

void access_log_init(struct access_log *log, int fd)
{
	*log = (struct access_log){.fd = fd, .lines = BUF_MAX(MAX_WAITING)};
}

void access_log_deinit(struct access_log *log)
{
	access_log_flush(log);
	buf_deinit(&log->lines);
}

/* Formatting by printf would cost more than all else that is ours of a request. */
#define KEY(name) SLICE(",\"" name "\":")

static int put_text(struct buf *out, struct slice key, struct slice value)
{
	if (!value.len)
		return 0;
	int r = buf_append(out, key);
	return r < 0 ? r : json_text_string(out, value);
}

static int put_number(struct buf *out, struct slice key, uint64_t value)
{
	int r = buf_append(out, key);
	return r < 0 ? r : buf_append_number(out, value, 1);
}

static int put_ms(struct buf *out, struct slice key, uint64_t us)
{
	int r = put_number(out, key, us / 1000);
	if (r == 0)
		r = buf_append_char(out, '.');
	return r < 0 ? r : buf_append_number(out, us % 1000, 3);
}

/* What strangers wrote, without the secrets of tokens that they put where none belongs. */
static int put_redacted(struct buf *out, struct slice key, struct slice value)
{
	CLEANUP(buf_deinit) struct buf shown = BUF_MAX(2 * MAX_PATH);
	struct slice secret = redact_find(value);
	int r = 0;
	if (!secret.len)
		return put_text(out, key, value);
	for (; r == 0 && secret.len; secret = redact_find(value)) {
		size_t before = (size_t)(secret.data - value.data);
		r = buf_printf(&shown, "%.*s[redacted]", (int)before, value.data);
		value = slice_from(value, before + secret.len);
	}
	if (r == 0)
		r = buf_append(&shown, value);
	return r < 0 ? r : put_text(out, key, buf_peek(&shown));
}

static int put_exec(struct buf *out, const struct access_record *record)
{
	int r = put_text(out, KEY("exec_id"), record->exec_id);
	if (r == 0)
		r = put_text(out, KEY("kid"), record->kid);
	if (r == 0)
		r = put_text(out, KEY("actor"), record->actor);
	if (r == 0)
		r = put_text(out, KEY("policy"), record->policy);
	if (r == 0 && record->policy_version)
		r = put_number(out, KEY("policy_version"), record->policy_version);
	if (r == 0 && record->shadowed.len > 2)
		r = buf_printf(out, ",\"shadow\":%.*s", SLICE_FMT(record->shadowed));
	if (r == 0 && record->degraded)
		r = buf_append(out, SLICE(",\"degraded\":true"));
	if (r == 0)
		r = put_text(out, KEY("outcome"), slice_str(record->outcome));
	return r < 0 ? r : put_text(out, KEY("tier"), slice_str(record->tier));
}

/* A target that was refused has not been taken apart: its query and anything that is no path stay out, they may hold secrets. */
static struct slice path_of(struct slice target)
{
	size_t n = 0;
	if (!target.len || (target.data[0] != '/' && !slice_equal(target, SLICE("*"))))
		return (struct slice){0};
	while (n < target.len && n < MAX_PATH && target.data[n] != '?' && target.data[n] != '#')
		n++;
	return slice_of(target.data, n);
}

static int put_record(struct buf *out, const struct access_record *record)
{
	char time[25];
	clock_format(record->wall_ms, time);
	int r = buf_append(out, SLICE("{\"time\":\""));
	if (r == 0)
		r = buf_append(out, slice_of(time, sizeof time - 1));
	if (r == 0)
		r = put_number(out, SLICE("\",\"status\":"), record->status);
	if (r == 0)
		r = put_ms(out, KEY("duration_ms"), record->duration_us);
	if (r == 0)
		r = put_ms(out, KEY("first_byte_ms"), record->first_byte_us);
	if (r == 0)
		r = put_number(out, KEY("bytes_in"), record->bytes_in);
	if (r == 0)
		r = put_number(out, KEY("bytes_out"), record->bytes_out);
	if (r == 0)
		r = put_text(out, KEY("request_id"), record->request_id);
	if (r == 0)
		r = put_text(out, KEY("trace_id"), slice_str(record->trace_id));
	if (r == 0)
		r = put_text(out, KEY("client"), record->client);
	if (r == 0)
		r = put_redacted(out, KEY("method"), record->method);
	if (r == 0)
		r = put_redacted(out, KEY("path"), path_of(record->path));
	if (r == 0)
		r = put_text(out, KEY("route"), slice_str(record->route));
	if (r == 0)
		r = put_text(out, KEY("aborted"), slice_str(record->aborted));
	if (r == 0)
		r = put_text(out, KEY("code"), slice_str(record->code));
	if (r == 0)
		r = put_exec(out, record);
	return r < 0 ? r : buf_append(out, SLICE("}\n"));
}

void access_log_write(struct access_log *log, const struct access_record *record)
{
	if (log->fd < 0)
		return;
	size_t before = log->lines.len;
	if (put_record(&log->lines, record) == 0)
		return;
	log->lines.len = before; /* drop the half line */
	log->dropped++;
}

/* A pipe takes PIPE_BUF bytes in one piece or not at all: lines of several workers do not mix. */
static size_t whole_lines(struct slice lines)
{
	if (!lines.data || lines.len <= PIPE_BUF)
		return lines.len;
	const char *end = memrchr(lines.data, '\n', PIPE_BUF);
	if (!end)
		end = memchr(lines.data, '\n', lines.len);
	return end ? (size_t)(end - lines.data) + 1 : lines.len;
}

static void drop_all(struct access_log *log)
{
	struct slice lines = buf_peek(&log->lines);
	for (size_t i = 0; i < lines.len; i++)
		log->dropped += lines.data[i] == '\n';
	buf_consume(&log->lines, lines.len);
}

void access_log_flush(struct access_log *log)
{
	while (log->lines.len) {
		struct slice lines = buf_peek(&log->lines);
		ssize_t n = write(log->fd, lines.data, whole_lines(lines));
		if (n >= 0)
			buf_consume(&log->lines, (size_t)n);
		else if (errno == EAGAIN)
			return;
		else if (errno != EINTR)
			drop_all(log);
	}
}
