/*
 * The pool's own core in virtual time, against a provider made of latencies and limits.
 *
 *   pool_sim SHAPE POLICY SEED [CREATE PREPARE WAKE DESTROY]   one run; its figures as one line of JSON
 *
 * SHAPE is a row of `shapes` (trace.c). POLICY is
 *   auto, restore, none, fixed:<hot>   the machine; refused callers go away
 *   return:<times>                     auto, but a refused caller comes back when it was told to, so often
 *   oracle, oracle-restore, oracle-at-rest, erlang
 *   trace                              no run: the claims
 * The last four are seconds that each of these takes instead of the assumed ones.
 */
#include "tests/bench/pool_sim/sim.h"

#include <stdlib.h>

#define HOUR 3600.0

struct sim sim;

void sim_measure_alive(size_t alive, size_t running)
{
	sim.figures.max_alive = alive > sim.figures.max_alive ? alive : sim.figures.max_alive;
	sim.figures.max_running = running > sim.figures.max_running ? running : sim.figures.max_running;
}

static bool begins(const char *text, const char *with)
{
	return strncmp(text, with, strlen(with)) == 0;
}

static int run_pool(const char *policy, uint64_t seed)
{
	const struct shape *shape = sim.shape;
	struct machine_options options = {
		.sizing = {.hot = SIZING_AUTO,
			   .warm = SIZING_AUTO,
			   .max = shape->max,
			   .running_limit = shape->running_limit,
			   .create_limit = shape->create_limit,
			   .create_window_us = 60000000},
		.max_waiters = 64,
		.max_age_us = (uint64_t)(6 * HOUR * SECOND),
		.seed = seed | 1,
	};
	if (strcmp(policy, "restore") == 0)
		options.recycle = true;
	else if (strcmp(policy, "none") == 0)
		options.sizing.hot = options.sizing.warm = 0;
	else if (begins(policy, "fixed:"))
		options.sizing.hot = (size_t)atoi(policy + strlen("fixed:")), options.sizing.warm = 0;
	else if (begins(policy, "return:"))
		sim.returns = (unsigned)atoi(policy + strlen("return:"));
	else if (strcmp(policy, "auto") != 0)
		return -1;
	return pooled_run(&options);
}

static int run(const char *policy, uint64_t seed)
{
	if (strcmp(policy, "erlang") == 0)
		erlang_run();
	else if (begins(policy, "oracle"))
		oracle_run(strcmp(policy, "oracle-restore") == 0, strcmp(policy, "oracle-at-rest") == 0);
	else
		return run_pool(policy, seed);
	return 0;
}

int main(int argc, char **argv)
{
	static const enum took kinds[] = {CREATE, PREPARE, WAKE, DESTROY};
	uint64_t seed = argc >= 4 ? strtoull(argv[3], NULL, 10) : 0;
	if (argc < 4 || argc > 4 + (int)ARRAY_LEN(kinds) || !trace_make(argv[1], seed))
		return 2;
	for (int i = 4; i < argc; i++)
		trace_fix(kinds[i - 4], atof(argv[i]));
	if (strcmp(argv[2], "trace") == 0) {
		report_trace();
		return 0;
	}
	if (run(argv[2], seed) < 0)
		return 2;
	report_print();
	return 0;
}
