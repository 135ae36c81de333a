#include "tests/bench/pool_sim/sim.h"

#include <stdio.h>
#include <stdlib.h>

#define WAIT_USD 0.0075 /* a second's wait; SIZING_WAKE_USD is what a wake of 0.4 s is worth */

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static double percentile(const double *sorted, size_t n, double share)
{
	return n ? sorted[(size_t)(share * (double)(n - 1) + 0.5)] : 0;
}

static bool counts(const struct claim *claim)
{
	return claim->at_s >= sim.shape->rest_s;
}

static bool was_served(const struct claim *claim)
{
	return counts(claim) && claim->added_s > 0;
}

static bool was_hot(const struct claim *claim)
{
	return was_served(claim) && claim->tier == POOL_TIER_HOT;
}

static bool was_warm(const struct claim *claim)
{
	return was_served(claim) && claim->tier == POOL_TIER_WARM;
}

static bool was_cold(const struct claim *claim)
{
	return was_served(claim) && claim->tier == POOL_TIER_COLD;
}

static bool was_mouse(const struct claim *claim)
{
	return was_served(claim) && claim->tenant > 0;
}

static bool came_back(const struct claim *claim)
{
	return counts(claim) && claim->returns;
}

static double added_ms(const struct claim *claim)
{
	return claim->added_s * 1000;
}

static double told_s(const struct claim *claim)
{
	return claim->told_s;
}

static void print_spread(const char *name, bool (*concerns)(const struct claim *claim), double (*figure)(const struct claim *claim))
{
	double *values = calloc(sim.count + 1, sizeof *values);
	size_t n = 0;
	if (!values)
		abort();
	for (size_t i = 0; i < sim.count; i++)
		if (concerns(&sim.claims[i]))
			values[n++] = figure(&sim.claims[i]);
	qsort(values, n, sizeof *values, by_value);
	printf("\"%s\":{\"n\":%zu,\"p50\":%.1f,\"p99\":%.1f,\"p999\":%.1f},", name, n, percentile(values, n, 0.5),
	       percentile(values, n, 0.99), percentile(values, n, 0.999));
	free(values);
}

/* Jain's index of the share of its claims that each tenant got within a second. */
static double jain(void)
{
	double asked[TENANTS_MAX] = {0}, got[TENANTS_MAX] = {0}, sum = 0, squares = 0;
	for (size_t i = 0; i < sim.count; i++) {
		const struct claim *claim = &sim.claims[i];
		if (!counts(claim))
			continue;
		asked[claim->tenant]++;
		got[claim->tenant] += claim->added_s > 0 && claim->added_s < 1;
	}
	for (unsigned i = 0; i < sim.shape->tenants; i++) {
		double share = asked[i] > 0 ? got[i] / asked[i] : 1;
		sum += share;
		squares += share * share;
	}
	return squares > 0 ? sum * sum / (sim.shape->tenants * squares) : 0;
}

static void print_claims(double usd)
{
	double asked = 0, refused = 0, waited_s = 0, at_first_return = 0;
	for (size_t i = 0; i < sim.count; i++) {
		const struct claim *claim = &sim.claims[i];
		if (!counts(claim))
			continue;
		asked++;
		refused += claim->added_s < 0;
		waited_s += claim->added_s > 0 ? claim->added_s : 0;
		at_first_return += claim->returns == 1 && claim->added_s > 0;
	}
	printf("\"claims\":%.0f,\"refused\":%.0f,\"served_at_first_return\":%.0f,\"usd\":%.5f,\"cost\":%.5f,", asked, refused,
	       at_first_return, usd, usd + waited_s * WAIT_USD + refused * DEADLINE_S * WAIT_USD);
}

void report_print(void)
{
	double usd = sim.figures.running_idle_s * SIZING_IDLE_USD_PER_SECOND + sim.figures.leased_s * SIZING_BUSY_USD_PER_SECOND;
	printf("{");
	print_spread("all", was_served, added_ms);
	print_spread("hot", was_hot, added_ms);
	print_spread("warm", was_warm, added_ms);
	print_spread("cold", was_cold, added_ms);
	print_spread("mice", was_mouse, added_ms);
	print_spread("told_s", came_back, told_s);
	print_claims(usd);
	printf("\"hot_idle_s\":%.1f,\"running_idle_s\":%.1f,\"leased_s\":%.1f,\"target\":%.2f,\"creates\":%llu,\"refused_creates\":%llu,"
	       "\"restores\":%llu,\"jain\":%.4f,\"max_alive\":%zu,\"max\":%u,\"max_running\":%zu,\"running_limit\":%u,\"formula\":%.5f,"
	       "\"stock\":%zu,\"seconds\":%.0f}\n",
	       sim.figures.hot_idle_s, sim.figures.running_idle_s, sim.figures.leased_s,
	       sim.figures.counted_s > 0 ? sim.figures.target_s / sim.figures.counted_s : 0, (unsigned long long)sim.figures.creates,
	       (unsigned long long)sim.figures.refused_creates, (unsigned long long)sim.figures.restores, jain(), sim.figures.max_alive,
	       sim.shape->max, sim.figures.max_running, sim.shape->running_limit, sim.figures.formula, sim.figures.stock,
	       sim.shape->end_s - sim.shape->rest_s);
}

void report_trace(void)
{
	printf("{\"max\":%u,\"running_limit\":%u,\"create_limit\":%u,\"claims\":[", sim.shape->max, sim.shape->running_limit,
	       sim.shape->create_limit);
	for (size_t i = 0; i < sim.first_count; i++)
		printf("%s{\"at_s\":%.4f,\"counts\":%s}", i ? "," : "", sim.claims[i].at_s, counts(&sim.claims[i]) ? "true" : "false");
	printf("]}\n");
}
