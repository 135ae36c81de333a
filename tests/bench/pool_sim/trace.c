#include "tests/bench/pool_sim/sim.h"

#include <math.h>
#include <stdlib.h>

#define HOUR       3600.0
#define MAX_CLAIMS 200000

static uint64_t arrivals, streams[TIMES];
static double fixed_s[TIMES]; /* 0 = as in the shape's latencies */

static double uniform(uint64_t *stream)
{
	uint64_t z = (*stream += UINT64_C(0x9e3779b97f4a7c15));
	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return (double)((z ^ z >> 31) >> 11) / 9007199254740992.0;
}

static double exponential(double mean)
{
	return -mean * log(1 - uniform(&arrivals));
}

static double sigma(const struct latency *latency)
{
	return log(latency->p99_s / latency->median_s) / 2.326;
}

void trace_fix(enum took kind, double seconds)
{
	fixed_s[kind] = seconds;
}

double trace_took(enum took kind)
{
	const struct latency *latency = &sim.shape->latencies[kind];
	if (fixed_s[kind] > 0)
		return fixed_s[kind];
	double normal = sqrt(-2 * log(1 - uniform(&streams[kind])));
	return latency->median_s * exp(normal * cos(2 * M_PI * uniform(&streams[kind])) * sigma(latency));
}

double trace_mean(enum took kind)
{
	const struct latency *latency = &sim.shape->latencies[kind];
	return latency->median_s * exp(sigma(latency) * sigma(latency) / 2);
}

static struct claim *come(double at_s, unsigned tenant, double service_s)
{
	if (sim.count == MAX_CLAIMS)
		abort();
	struct claim *claim = &sim.claims[sim.count++];
	*claim = (struct claim){.at_s = at_s, .tenant = tenant, .service_s = exponential(service_s)};
	return claim;
}

static unsigned any_tenant(const struct shape *shape)
{
	return (unsigned)(uniform(&arrivals) * shape->tenants);
}

static unsigned any_size(const struct shape *shape)
{
	return shape->size[0] + (unsigned)(uniform(&arrivals) * (shape->size[1] - shape->size[0] + 1));
}

static void poisson(const struct shape *shape)
{
	for (double t = exponential(1 / shape->rate); t < shape->end_s; t += exponential(1 / shape->rate))
		come(t, any_tenant(shape), shape->service_s);
}

static int by_time(const void *a, const void *b)
{
	double x = ((const struct claim *)a)->at_s, y = ((const struct claim *)b)->at_s;
	return (x > y) - (x < y);
}

static void sort(void)
{
	qsort(sim.claims, sim.count, sizeof *sim.claims, by_time);
}

static void bursts(const struct shape *shape)
{
	for (double t = shape->every_s / 10; t < shape->end_s; t += shape->every_s * (0.75 + 0.5 * uniform(&arrivals)))
		for (unsigned n = any_size(shape); n; n--)
			come(t + uniform(&arrivals) * shape->spread_s, any_tenant(shape), shape->service_s);
	sort();
}

/* A raised cosine with this peak, one day in four hours. */
static void diurnal(const struct shape *shape)
{
	for (double t = exponential(1 / shape->rate); t < shape->end_s; t += exponential(1 / shape->rate))
		if (uniform(&arrivals) < (1 - cos(2 * M_PI * t / (4 * HOUR))) / 2)
			come(t, any_tenant(shape), shape->service_s);
}

/* Tenant 0 wants all there is, nine others a little. */
static void hog(const struct shape *shape)
{
	for (double t = exponential(1 / shape->rate); t < shape->end_s; t += exponential(1 / shape->rate))
		come(t, 0, 4 * shape->service_s);
	for (unsigned mouse = 1; mouse < shape->tenants; mouse++)
		for (double t = exponential(120); t < shape->end_s; t += exponential(120))
			come(t, mouse, shape->service_s);
	sort();
}

/* Agents, each of which runs one command after the other in a sandbox that it keeps. */
static void sessions(const struct shape *shape)
{
	poisson(shape);
	for (size_t i = 0, n = sim.count; i < n; i++) {
		struct claim *first = &sim.claims[i], *last = first;
		first->session = first;
		for (unsigned left = any_size(shape) - 1; left; left--) {
			struct claim *next = come(0, first->tenant, shape->service_s);
			next->session = first;
			next->think_s = exponential(shape->think_s);
			last->next = next;
			last = next;
		}
	}
}

static const struct latency assumed[TIMES] = {
	[CREATE] = {1.5, 5}, [PREPARE] = {0.8, 3}, [WAKE] = {0.25, 0.9}, [RESTORE] = {1.5, 5}, [DESTROY] = {0.3, 1}};

#define LIMITS .create_limit = 10, .running_limit = 20, .max = 40, .latencies = assumed
#define LIVE   .service_s = 0.02, .tenants = 1, .create_limit = 60, .running_limit = 20, .max = 30, .latencies = assumed
#define HOURS  .rest_s = HOUR, .end_s = 5 * HOUR, .service_s = 5

static const struct shape shapes[] = {
	{"poisson-2", poisson, HOURS, .rate = 2 / 60.0, .tenants = 3, LIMITS},
	{"poisson-6", poisson, HOURS, .rate = 6 / 60.0, .tenants = 3, LIMITS},
	{"poisson-9", poisson, HOURS, .rate = 9 / 60.0, .tenants = 3, LIMITS},
	{"bursts", bursts, HOURS, .every_s = 300, .size = {6, 14}, .spread_s = 3, .tenants = 3, LIMITS},
	{"burst-20", bursts, HOURS, .every_s = 1200, .size = {20, 20}, .spread_s = 1, .tenants = 1, LIMITS},
	{"burst-20-of-10", bursts, HOURS, .every_s = 1200, .size = {20, 20}, .spread_s = 1, .tenants = 1, .create_limit = 10,
	 .running_limit = 10, .max = 40, .latencies = assumed},
	{"diurnal", diurnal, HOURS, .rate = 15 / 60.0, .tenants = 5, LIMITS},
	{"herd", bursts, HOURS, .every_s = 1800, .size = {40, 40}, .spread_s = 0.3, .tenants = 3, LIMITS},
	{"sessions", sessions, HOURS, .rate = 1 / 60.0, .size = {1, 30}, .think_s = 20, .tenants = 5, LIMITS},
	{"hog", hog, HOURS, .rate = 60 / 60.0, .tenants = 10, .create_limit = 60, .running_limit = 20, .max = 20, .latencies = assumed},
	{"live-poisson", poisson, .rest_s = 20, .end_s = 60, .rate = 40 / 60.0, LIVE},
	{"live-burst", bursts, .rest_s = 30, .end_s = 95, .every_s = 70, .size = {12, 12}, .spread_s = 1, LIVE},
};

const struct shape *trace_make(const char *name, uint64_t seed)
{
	const struct shape *shape = NULL;
	for (size_t i = 0; i < ARRAY_LEN(shapes) && !shape; i++)
		if (strcmp(shapes[i].name, name) == 0)
			shape = &shapes[i];
	sim.claims = calloc(MAX_CLAIMS, sizeof *sim.claims);
	if (!shape || !sim.claims)
		return NULL;
	arrivals = seed;
	for (size_t i = 0; i < TIMES; i++)
		streams[i] = seed + UINT64_C(0xd1b54a32d192ed03) * (i + 1);
	sim.shape = shape;
	shape->claims(shape);
	while (sim.first_count < sim.count && sim.claims[sim.first_count].at_s > 0)
		sim.first_count++;
	return shape;
}
