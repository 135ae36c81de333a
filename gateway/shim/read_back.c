#include "gateway/shim/read_back.h"

#include "gateway/shim/shim_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char piece[RECORD_READ_MAX];

static void put_line(const char *nonce, char kind, const struct stat *about, size_t len)
{
	const uint64_t numbers[] = {(uint64_t)about->st_size,
				    len,
				    about->st_dev,
				    about->st_ino,
				    (uint64_t)about->st_mtim.tv_sec * 1000000000 + (uint64_t)about->st_mtim.tv_nsec,
				    (uint64_t)about->st_ctim.tv_sec * 1000000000 + (uint64_t)about->st_ctim.tv_nsec};
	char line[RECORD_READ_LINE_LEN];
	memcpy(line, nonce, RECORD_NONCE_LEN);
	line[RECORD_NONCE_LEN] = kind;
	for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
		shim_put_hex(line + RECORD_NONCE_LEN + 1 + 16 * i, numbers[i]);
	line[sizeof line - 1] = '\n';
	if (!shim_write(STDOUT_FILENO, line, sizeof line) || !shim_write(STDOUT_FILENO, piece, len))
		_exit(EXIT_SETUP);
}

static char kind_of_error(void)
{
	if (errno == ENOENT || errno == ENOTDIR || errno == ENAMETOOLONG || errno == ELOOP)
		return RECORD_READ_NOT_FOUND;
	return errno == EACCES || errno == EPERM ? RECORD_READ_DENIED : RECORD_READ_FAILED;
}

static char kind_of(const struct stat *about)
{
	if (S_ISDIR(about->st_mode))
		return RECORD_READ_DIRECTORY;
	return S_ISREG(about->st_mode) ? RECORD_READ_FILE : RECORD_READ_NOT_REGULAR;
}

static bool is_same(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size && a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
	       a->st_mtim.tv_nsec == b->st_mtim.tv_nsec && a->st_ctim.tv_sec == b->st_ctim.tv_sec &&
	       a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

/* As many bytes as its size says, or it has changed. */
static char read_open(int fd, off_t offset, size_t most, struct stat *about, size_t *len)
{
	struct stat after;
	if (fstat(fd, about) < 0)
		return RECORD_READ_FAILED;
	if (kind_of(about) != RECORD_READ_FILE)
		return kind_of(about);
	size_t want = offset < about->st_size ? (size_t)(about->st_size - offset) : 0, got = 0;
	if (want > most)
		want = most;
	while (got < want) {
		ssize_t n = pread(fd, piece + got, want - got, offset + (off_t)got);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return RECORD_READ_FAILED;
		if (n == 0)
			return RECORD_READ_CHANGED;
		got += (size_t)n;
	}
	if (fstat(fd, &after) < 0 || !is_same(about, &after))
		return RECORD_READ_CHANGED;
	*len = got;
	return RECORD_READ_FILE;
}

/* A device is not even opened. Links are followed: there is nothing in a Sprite that its command could not have copied. */
static char read_back(const char *path, off_t offset, size_t most, struct stat *about, size_t *len)
{
	if (stat(path, about) < 0)
		return kind_of_error();
	if (kind_of(about) != RECORD_READ_FILE)
		return kind_of(about);
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		return kind_of_error();
	char kind = read_open(fd, offset, most, about, len);
	close(fd);
	return kind;
}

_Noreturn void read_back_all(char **argv)
{
	const char *nonce = argv[3];
	char line[LINE_BYTES], path[PATH_MAX], *rest;
	size_t left = strtoul(argv[4], NULL, 10);
	if (strlen(nonce) != RECORD_NONCE_LEN || left > sizeof piece)
		_exit(EXIT_SETUP);
	bool in_cwd = chdir(argv[2]) == 0;
	while (shim_read_line(line)) {
		struct stat about = {0};
		off_t offset = strtoll(line, &rest, 10);
		size_t path_len = strtoul(rest, NULL, 10), len = 0;
		if (!path_len || path_len >= sizeof path)
			_exit(EXIT_SETUP);
		shim_read(path, path_len);
		path[path_len] = '\0';
		if (!left)
			continue;
		bool there = in_cwd || path[0] == '/';
		char kind = there ? read_back(path, offset, left, &about, &len) : RECORD_READ_NOT_FOUND;
		put_line(nonce, kind, &about, len);
		left -= len;
	}
	put_line(nonce, RECORD_READ_END, &(struct stat){0}, 0);
	_exit(0);
}
