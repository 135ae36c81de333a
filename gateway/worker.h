/*
 * worker - one thread: a loop, a listening socket, connections to Datasette, a link to Redis; shares nothing with other workers
 *
 * Owns:       its thread, loop and everything on it.
 * Lifetime:   worker_new, worker_start, then worker_drain, worker_quiesce, worker_stop in that order (any may be left out but the last),
 *             on_stopped, worker_free.
 * Runs on:    worker_new, worker_start and worker_free on the thread of the gateway; the rest of this header from any thread.
 * Results:    NULL and a sentence; negative = the thread could not be started.
 */
#pragma once

#include "gateway/config.h"
#include "gateway/endpoint/endpoint.h"
#include "gateway/meters.h"

struct worker;

struct worker_options {
	const struct config *config; /* outlives the worker */
	struct mailbox *agent;       /* outlives the worker */
	struct metrics_shard *metrics;
	struct peers *peers;         /* outlives the worker */
	bool probes_datasette;       /* for the whole process, while Datasette is down */
	int listen_fd;               /* taken, also on failure */
	struct audit *audit;         /* borrowed; NULL = none */
	struct tracer *tracer;       /* borrowed; NULL = none */
	int access_fd;               /* -1 = no access log; borrowed */
	struct peer_set trusted;
	struct cache *cache;         /* borrowed; NULL = none */
	struct unsettled *unsettled; /* borrowed; NULL = none (admission.h) */
	struct degraded *degraded;   /* borrowed; NULL = none (admission.h) */
	struct census *census;       /* borrowed; NULL = connections of an address are not limited */
	unsigned max_connections, max_requests, max_websockets, max_datasette; /* of this worker */
	uint64_t max_bodies;         /* bytes of bodies of commands in it, but for one of the largest */
	/* Run on the worker's thread: nothing is under way after worker_quiesce(); everything is given back, the thread may be joined. */
	void (*on_idle)(void *ctx);
	void (*on_stopped)(void *ctx);
	void *ctx;
};

#define WORKER_ERROR_LEN 256

struct worker *worker_new(const struct worker_options *options, char error[WORKER_ERROR_LEN]);
MUST_CHECK int worker_start(struct worker *worker);

/* Takes over the live settings of `config`, which is not kept. False when out of memory: nothing has changed. */
MUST_CHECK bool worker_reload(struct worker *worker, const struct config *config);

/* Answers say `Connection: close`, the health check says 503; everything is still served. */
void worker_drain(struct worker *worker);

/* New commands are refused. Implies worker_drain(). */
void worker_refuse(struct worker *worker);

/* Implies worker_refuse(). Accepts no more connections; on_idle runs once when the last request has ended. */
void worker_quiesce(struct worker *worker);

/* Cuts what is left and ends the thread. */
void worker_stop(struct worker *worker);

/* Joins the thread. */
void worker_free(struct worker *worker);

const struct meters *worker_meters(const struct worker *worker);
