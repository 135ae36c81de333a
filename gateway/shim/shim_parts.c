#include "gateway/shim/shim_parts.h"

#include <errno.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static struct iovec text(const char *string)
{
	return (struct iovec){(void *)(uintptr_t)string, strlen(string)};
}

_Noreturn void shim_fail(int status, const char *what, const char *about)
{
	struct iovec words[] = {text("spritegate: "), text(what), text(": "), text(about), text(": "), text(strerror(errno)), text("\n")};
	(void)!writev(STDERR_FILENO, words, sizeof words / sizeof *words);
	_exit(status);
}

void shim_read(char *to, size_t len)
{
	while (len) {
		ssize_t n = read(STDIN_FILENO, to, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			_exit(EXIT_NO_INPUT);
		to += n;
		len -= (size_t)n;
	}
}

/* Byte by byte: what follows is not ours. */
size_t shim_read_line(char line[LINE_BYTES])
{
	size_t len = 0;
	for (char c;;) {
		shim_read(&c, 1);
		if (c == '\n')
			break;
		if (len == LINE_BYTES - 1)
			_exit(EXIT_SETUP);
		line[len++] = c;
	}
	line[len] = '\0';
	return len;
}

bool shim_write(int fd, const char *from, size_t len)
{
	while (len) {
		ssize_t n = write(fd, from, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		from += n;
		len -= (size_t)n;
	}
	return true;
}

void shim_put_hex(char *to, uint64_t number)
{
	for (int i = 15; i >= 0; i--, number >>= 4)
		to[i] = "0123456789abcdef"[number & 15];
}

int64_t shim_now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void shim_block_signals(sigset_t *before)
{
	sigset_t all;
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, before);
}
