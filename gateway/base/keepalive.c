#include "gateway/base/keepalive.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

/* Two probes may be lost. */
#define PROBES 3
/* The kernel takes no more than nine hours. */
#define BEFORE_MAX 3600

static int set(int fd, int level, int option, unsigned value)
{
	return setsockopt(fd, level, option, &value, sizeof value) < 0 ? -errno : 0;
}

static unsigned bound(unsigned seconds, unsigned max)
{
	return seconds < 1 ? 1 : seconds > max ? max : seconds;
}

int keepalive_set(int fd, unsigned silence_ms)
{
	unsigned seconds = silence_ms / 1000, before = bound(seconds / 2, BEFORE_MAX);
	int r = set(fd, IPPROTO_TCP, TCP_KEEPIDLE, before);
	if (r == 0)
		r = set(fd, IPPROTO_TCP, TCP_KEEPINTVL, bound((seconds - before + PROBES - 1) / PROBES, seconds));
	if (r == 0)
		r = set(fd, IPPROTO_TCP, TCP_KEEPCNT, PROBES);
	if (r == 0)
		r = set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, silence_ms);
	return r < 0 ? r : set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
}
