#include "policy/unsettled.h"

#include "gateway/base/clock.h"
#include "gateway/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

#define AGE_MAX_MS     (UINT64_C(24) * 3600 * 1000)
#define READ_BYTES     4096
#define SIZE_MAX_BYTES ((size_t)UNSETTLED_MAX * UNSETTLED_LINE_MAX)

struct unsettled {
	char *path;
	char *broken; /* where one that cannot be read goes */
	int held;     /* the file, locked; -1 = not open */
	struct unsettled_entry *loaded;
	size_t loaded_count;
	uv_mutex_t lock; /* of what follows */
	struct unsettled_entry *kept;
	size_t count, left_out;
};

struct unsettled *unsettled_new(const char *path)
{
	struct unsettled *unsettled = calloc(1, sizeof *unsettled);
	if (!unsettled)
		return NULL;
	unsettled->held = -1;
	unsettled->path = strdup(path);
	if (asprintf(&unsettled->broken, "%s.broken", path) < 0)
		unsettled->broken = NULL;
	if (unsettled->path && unsettled->broken && uv_mutex_init(&unsettled->lock) == 0)
		return unsettled;
	free(unsettled->path);
	free(unsettled->broken);
	free(unsettled);
	return NULL;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

void unsettled_free(struct unsettled *unsettled)
{
	if (!unsettled)
		return;
	close_fd(&unsettled->held);
	uv_mutex_destroy(&unsettled->lock);
	free(unsettled->loaded);
	free(unsettled->kept);
	free(unsettled->path);
	free(unsettled->broken);
	free(unsettled);
}

static int open_file(const struct unsettled *unsettled, int flags)
{
	return open(unsettled->path, flags | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);
}

/* --- writing ---------------------------------------------------------------- */

/* By the descriptor it was opened with: who serves may not open it any more (gateway/confine.h). */
static int write_file(int fd, struct slice text)
{
	struct stat status;
	off_t at = 0;
	if (ftruncate(fd, 0) < 0)
		return -errno;
	while (text.len) {
		ssize_t n = pwrite(fd, text.data, text.len, at);
		if (n < 0 && errno != EINTR)
			return -errno;
		at += n > 0 ? n : 0;
		text = slice_from(text, n > 0 ? (size_t)n : 0);
	}
	if (fsync(fd) < 0 || fstat(fd, &status) < 0)
		return -errno;
	return status.st_nlink ? 0 : -ENOENT; /* somebody has removed it */
}

void unsettled_keep(struct unsettled *unsettled, const struct unsettled_entry *entry)
{
	uv_mutex_lock(&unsettled->lock);
	if (!unsettled->kept)
		unsettled->kept = calloc(UNSETTLED_MAX, sizeof *unsettled->kept);
	if (unsettled->kept && unsettled->count < UNSETTLED_MAX)
		unsettled->kept[unsettled->count++] = *entry;
	else
		unsettled->left_out++;
	uv_mutex_unlock(&unsettled->lock);
}

void unsettled_save(struct unsettled *unsettled)
{
	struct buf text = BUF_MAX(SIZE_MAX_BYTES);
	int r = 0;
	for (size_t i = 0; r == 0 && i < unsettled->count; i++)
		r = unsettled_write_line(&text, &unsettled->kept[i]);
	if (r == 0 && unsettled->count)
		r = write_file(unsettled->held, buf_peek(&text));
	buf_deinit(&text);
	if (r < 0)
		log_error("settlements_file: cannot be written; of %zu leases those not in it end by themselves: %s", unsettled->count,
			  strerror(-r));
	else if (unsettled->count)
		log_warning("settlements_file: Redis has not acknowledged %zu settlements, the next start repeats them", unsettled->count);
	if (unsettled->left_out)
		log_warning("settlements_file: %zu more have no room, their leases end by themselves", unsettled->left_out);
}

/* --- reading ---------------------------------------------------------------- */

/* NULL, or why it is not to be trusted. */
static const char *unfit(int fd)
{
	struct stat status;
	if (fd < 0 || fstat(fd, &status) < 0)
		return strerror(errno);
	if (!S_ISREG(status.st_mode))
		return "is no plain file";
	if (status.st_uid != geteuid() || (status.st_mode & (S_IWGRP | S_IWOTH)))
		return "others may write it";
	if (flock(fd, LOCK_EX | LOCK_NB) == 0)
		return NULL;
	return errno == EWOULDBLOCK ? "another gateway uses this file: each needs one of its own" : strerror(errno);
}

static int read_all(int fd, struct buf *text)
{
	for (;;) {
		char *space;
		int r = buf_reserve(text, READ_BYTES, &space);
		ssize_t n = r < 0 ? 0 : read(fd, space, READ_BYTES);
		if (r < 0 || (n < 0 && errno != EINTR))
			return r < 0 ? r : -errno;
		if (n == 0)
			return 0;
		buf_commit(text, n > 0 ? (size_t)n : 0);
	}
}

/* A clock that was set back makes nothing old. */
static int drop_old(struct unsettled *unsettled, int fd, uint64_t now_ms)
{
	struct unsettled_entry *entries = unsettled->loaded;
	size_t kept = 0, read = unsettled->loaded_count;
	for (size_t i = 0; i < read; i++)
		if (now_ms < entries[i].ended_ms || now_ms - entries[i].ended_ms < AGE_MAX_MS)
			entries[kept++] = entries[i];
	unsettled->loaded_count = kept;
	if (read)
		log_info("settlements_file: %zu settlements of the last run are repeated, %zu are too old", kept, read - kept);
	return read && !kept ? write_file(fd, SLICE("")) : 0;
}

/* 0, -EINVAL for the sake of a line, another error. */
static int load(struct unsettled *unsettled, int fd, size_t *bad_line)
{
	CLEANUP(buf_deinit) struct buf text = BUF_MAX(SIZE_MAX_BYTES + READ_BYTES);
	*bad_line = UNSETTLED_MAX + 1;
	int r = read_all(fd, &text);
	if (r == 0)
		r = unsettled_read_lines(buf_peek(&text), unsettled->loaded, &unsettled->loaded_count, bad_line);
	if (r == 0 && *bad_line)
		log_warning("settlements_file: line %zu is cut, what was to follow ends by itself", *bad_line);
	if (r == 0)
		return drop_old(unsettled, fd, clock_wall_ms());
	unsettled->loaded_count = 0;
	return r == -EMSGSIZE ? -EINVAL : r;
}

/* The old file stays locked until the new one is. */
static int move_aside(const struct unsettled *unsettled, int *fd, size_t bad_line)
{
	if (rename(unsettled->path, unsettled->broken) < 0) {
		int r = -errno;
		log_error("settlements_file: line %zu is not one of ours, and it cannot be moved to %s", bad_line, unsettled->broken);
		return r;
	}
	log_error("settlements_file: not used, and moved to %s: line %zu is not one of ours", unsettled->broken, bad_line);
	CLEANUP(close_fd) int old = *fd;
	*fd = open_file(unsettled, O_RDWR | O_EXCL);
	return *fd < 0 || flock(*fd, LOCK_EX | LOCK_NB) < 0 ? -errno : 0;
}

/* That its name is there after a power cut. */
static int sync_folder(const struct unsettled *unsettled)
{
	CLEANUP(free_ptr) char *copy = strdup(unsettled->path);
	if (!copy)
		return -ENOMEM;
	CLEANUP(close_fd) int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

const char *unsettled_open(struct unsettled *unsettled)
{
	CLEANUP(close_fd) int fd = open_file(unsettled, O_RDWR);
	const char *why = unfit(fd);
	if (why)
		return why;
	size_t bad_line;
	unsettled->loaded = calloc(UNSETTLED_MAX, sizeof *unsettled->loaded);
	int r = unsettled->loaded ? load(unsettled, fd, &bad_line) : -ENOMEM;
	if (r == -EINVAL)
		r = move_aside(unsettled, &fd, bad_line);
	if (r == 0)
		r = sync_folder(unsettled);
	if (r < 0)
		return strerror(-r);
	if (fchmod(fd, 0600) < 0)
		log_warning("settlements_file: others may read it: %s", strerror(errno));
	unsettled->held = fd;
	fd = -1;
	return NULL;
}

const struct unsettled_entry *unsettled_loaded(const struct unsettled *unsettled, size_t *count)
{
	*count = unsettled->loaded_count;
	return unsettled->loaded;
}

void unsettled_done(struct unsettled *unsettled)
{
	int r = write_file(unsettled->held, SLICE(""));
	if (r < 0)
		log_error("settlements_file: cannot be emptied, the next start reads it again: %s", strerror(-r));
	free(TAKE(unsettled->loaded));
	unsettled->loaded_count = 0;
}
