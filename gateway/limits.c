#include "gateway/limits.h"

#include <sys/resource.h>

/* Loops, logs, Redis, Sprites, the admin listener. */
#define OTHER_DESCRIPTORS 256
#define CONNECTIONS_MIN   16

uint64_t limits_raise(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return 1024;
	rlim_t before = limit.rlim_cur;
	limit.rlim_cur = limit.rlim_max;
	return setrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_max : before;
}

uint64_t limits_connections(uint64_t wanted, uint64_t descriptors)
{
	uint64_t others = descriptors / 4 + OTHER_DESCRIPTORS;
	uint64_t fit = descriptors > others + CONNECTIONS_MIN ? descriptors - others : CONNECTIONS_MIN;
	return wanted < fit ? wanted : fit;
}

unsigned limits_share(uint64_t total, unsigned workers)
{
	return (unsigned)((total + workers - 1) / workers);
}
