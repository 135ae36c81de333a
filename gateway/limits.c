#include "gateway/limits.h"

#include "gateway/http/server.h"

#include <sys/resource.h>
#include <uv.h>

/* Loops, logs, Redis, the admin listener. */
#define OTHER_DESCRIPTORS 256
/* A connection that libcurl opened has a socket and the wake-up of its multi handle. */
#define PER_CONNECTION 2
/* Its control socket, and one more connection while it is made, woken or ended. */
#define PER_SPRITE (2 * PER_CONNECTION)
/* Of a worker, whatever else there is. */
#define CLIENTS_MIN 16
/* More are of no use to a Datasette. */
#define DATASETTE_MAX 1024
/* Of its answer 256 KiB wait here, half of them in libmicrohttpd, of its body 64. */
#define REQUEST_BYTES     (320ull * 1024)
#define CLIENT_MEMORY_MAX (UINT64_C(1) << 40)

uint64_t limits_most(void)
{
	struct rlimit limit;
	return getrlimit(RLIMIT_NOFILE, &limit) < 0 ? 1024 : limit.rlim_max;
}

uint64_t limits_raise(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return 1024;
	rlim_t before = limit.rlim_cur;
	limit.rlim_cur = limit.rlim_max;
	return setrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_max : before;
}

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t most(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

uint64_t limits_memory(void)
{
	/* UINT64_MAX = it is not limited, 0 = that is not known. */
	uint64_t ours = uv_get_constrained_memory(), all = uv_get_total_memory();
	return ours ? least(ours, all) : all;
}

uint64_t limits_client_memory(uint64_t setting, uint64_t all, uint64_t needed)
{
	if (setting)
		return setting;
	return all ? most(all / 2, needed) : CLIENT_MEMORY_MAX;
}

struct limits_plan limits_plan(const struct limits_wanted *wanted)
{
	uint64_t others = OTHER_DESCRIPTORS + wanted->sprites * PER_SPRITE + (uint64_t)wanted->workers * HTTP_CROWD_SPARE;
	uint64_t rest = wanted->descriptors > others ? wanted->descriptors - others : 0;
	struct limits_plan plan = {
		.needed = others + 2ull * CLIENTS_MIN * wanted->workers,
		.datasette = least(rest / 4 / PER_CONNECTION, (uint64_t)wanted->workers * DATASETTE_MAX),
		.websockets = least(rest / 4 / PER_CONNECTION, wanted->websockets),
		.requests = least(wanted->requests, wanted->memory / 2 / REQUEST_BYTES),
		.bodies = wanted->memory / 2,
		.memory_needed = 2ull * CLIENTS_MIN * wanted->workers * most(wanted->connection_bytes, REQUEST_BYTES),
	};
	uint64_t fit = (wanted->memory - plan.requests * REQUEST_BYTES) / wanted->connection_bytes;
	plan.connections = least(wanted->connections, rest - (plan.datasette + plan.websockets) * PER_CONNECTION);
	plan.memory_decides = fit < plan.connections;
	plan.connections = least(plan.connections, fit);
	return plan;
}

unsigned limits_share(uint64_t total, unsigned workers)
{
	return (unsigned)((total + workers - 1) / workers);
}
