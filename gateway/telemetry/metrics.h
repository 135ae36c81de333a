/*
 * metrics - counters, gauges and histograms, counted without locks and rendered as Prometheus text
 *
 * Every family, its labels and all label values are rows of one table (metrics_table.c), so the set of series is closed and each
 * starts at zero (requests with an unusual method or status are shown once there was one). Each thread counts in its own shard; a
 * scrape adds the shards up.
 *
 * Owns:       the shards.
 * Lifetime:   metrics_new before the threads start … metrics_free after they ended.
 * Runs on:    a shard is written by one thread; metrics_render reads from any thread (cells are atomic, relaxed).
 * Results:    rendering: those of buf.
 */
#pragma once

#include "gateway/base/buf.h"

#include <stdatomic.h>

enum metric {
	METRIC_HTTP_REQUESTS,
	METRIC_HTTP_REQUEST_SECONDS,
	METRIC_HTTP_FIRST_BYTE_SECONDS,
	METRIC_HTTP_IN_FLIGHT,
	METRIC_HTTP_REQUEST_BYTES,
	METRIC_HTTP_RESPONSE_BYTES,
	METRIC_HTTP_ABORTS,
	METRIC_HTTP_REJECTED,
	METRIC_CONNECTIONS,
	METRIC_CONNECTIONS_CROWDED,
	METRIC_WEBSOCKETS,
	METRIC_WEBSOCKET_ENDS,
	METRIC_WEBSOCKET_BYTES,
	METRIC_CACHE_REQUESTS,
	METRIC_CACHE_BYTES,
	METRIC_UPSTREAM_REQUESTS,
	METRIC_UPSTREAM_ERRORS,
	METRIC_UPSTREAM_CONNECT_SECONDS,
	METRIC_UPSTREAM_HEALTHY,
	METRIC_UPSTREAM_CONNECTIONS,
	METRIC_EXEC_TOTAL,
	METRIC_EXEC_DECISIONS,
	METRIC_EXEC_SHADOWED,
	METRIC_EXEC_DEGRADED,
	METRIC_EXEC_DEGRADED_UNBOOKED,
	METRIC_POLICY_DECISIONS,
	METRIC_POLICY_VERSION,
	METRIC_EXEC_SECONDS,
	METRIC_EXEC_QUEUE_SECONDS,
	METRIC_EXEC_RUNNING,
	METRIC_EXEC_SANDBOX_SECONDS,
	METRIC_EXEC_OUTPUT_BYTES,
	METRIC_EXEC_CHECKS,
	METRIC_EXEC_ROWS,
	METRIC_EXEC_ROW_WRITERS,
	METRIC_EXEC_KILLED,
	METRIC_EXEC_LEASES,
	METRIC_EXEC_LEASES_REAPED,
	METRIC_EXEC_UNSETTLED,
	METRIC_AUTH_FAILURES,
	METRIC_AUTH_KNOWN_BAD,
	METRIC_AUTH_THROTTLED,
	METRIC_IDENTITY,
	METRIC_REDIS_UP,
	METRIC_REDIS_COMMAND_SECONDS,
	METRIC_REDIS_ERRORS,
	METRIC_REDIS_BREAKER,
	METRIC_POOL_MEMBERS,
	METRIC_POOL_TARGET,
	METRIC_POOL_CLAIMS,
	METRIC_POOL_CLAIM_SECONDS,
	METRIC_POOL_REFUSALS,
	METRIC_POOL_CREATES,
	METRIC_POOL_CREATE_SECONDS,
	METRIC_POOL_PREPARES,
	METRIC_POOL_PREPARE_SECONDS,
	METRIC_POOL_WAKES,
	METRIC_POOL_WAKE_SECONDS,
	METRIC_SESSION_SPRITES,
	METRIC_SESSION_EVENTS,
	METRIC_POOL_RESTORES,
	METRIC_POOL_RESTORE_SECONDS,
	METRIC_POOL_HEDGES,
	METRIC_POOL_STALLED,
	METRIC_POOL_IDLE_SECONDS,
	METRIC_POOL_COST,
	METRIC_POOL_DESTROYS,
	METRIC_POOL_LOST,
	METRIC_POOL_SESSIONS_LOST,
	METRIC_POOL_REVOKED,
	METRIC_POOL_BEAT_AGE_SECONDS,
	METRIC_POOL_FLEET_MEMBERS,
	METRIC_POOL_FLEET_INSTANCES,
	METRIC_POOL_RECOVERING,
	METRIC_POOL_WAITERS,
	METRIC_POOL_WAIT_OLDEST_SECONDS,
	METRIC_SPRITES_CALLS,
	METRIC_SPRITES_CALL_SECONDS,
	METRIC_LOG_DROPPED,
	METRIC_AUDIT_DROPPED,
	METRIC_TRACE_SPANS,
	METRIC_RELOAD_OK,
	METRIC_RELOAD_SECONDS,
	METRIC_BUILD_INFO,
	METRIC_PROCESS_CPU_SECONDS,
	METRIC_PROCESS_RESIDENT_BYTES,
	METRIC_PROCESS_VIRTUAL_BYTES,
	METRIC_PROCESS_OPEN_FDS,
	METRIC_PROCESS_MAX_FDS,
	METRIC_PROCESS_START_SECONDS,
	METRIC_COUNT
};

struct metrics;
struct metrics_shard;

/* Labels of build_info; borrowed for as long as the metrics live. */
struct metrics_build {
	const char *version, *revision;
};

/* NULL when out of memory. */
struct metrics *metrics_new(unsigned shards, const struct metrics_build *build);
void metrics_free(struct metrics *metrics);

/* Borrowed; index < shards. */
struct metrics_shard *metrics_shard(struct metrics *metrics, unsigned index);

/*
 * The position of a label value in its label's list; a word that is not in the list gives the last value, which is "other".
 * `label` counts from 0 in the order of the table.
 */
unsigned metrics_value(enum metric metric, unsigned label, const char *value);

/*
 * The same for a label whose values operators choose (names of policies): letters, digits, dot, dash, underscore, at most
 * METRICS_NAME_MAX. The first METRICS_NAMES names are told apart for the life of the process, all others are "other": a closed list.
 */
#define METRICS_NAMES    32
#define METRICS_NAME_MAX 64
unsigned metrics_name(struct metrics_shard *shard, const char *name);

/* One series: the positions of its label values, unused ones 0. */
struct metrics_labels {
	unsigned at[3];
};
#define METRICS_NONE ((struct metrics_labels){{0, 0, 0}})

void metrics_add(struct metrics_shard *shard, enum metric metric, struct metrics_labels labels, uint64_t amount);
void metrics_sub(struct metrics_shard *shard, enum metric metric, struct metrics_labels labels, uint64_t amount);
void metrics_set(struct metrics_shard *shard, enum metric metric, struct metrics_labels labels, uint64_t value);

/* Histograms of seconds take microseconds, histograms of bytes take bytes. */
void metrics_observe(struct metrics_shard *shard, enum metric metric, struct metrics_labels labels, uint64_t amount);

/* The sum over all shards, for the status page and the tests. */
uint64_t metrics_read(const struct metrics *metrics, enum metric metric, struct metrics_labels labels);

/* The buckets of a histogram's series, each with what is in it alone, the last one above all bounds: how many, at most `max`. */
size_t metrics_buckets(const struct metrics *metrics, enum metric metric, struct metrics_labels labels, uint64_t *out, size_t max);

/* The HTTP status as a label value of METRIC_HTTP_REQUESTS. */
unsigned metrics_code(unsigned status);

/* Prometheus text format 0.0.4, or OpenMetrics 1.0.0. */
MUST_CHECK int metrics_render(const struct metrics *metrics, bool openmetrics, struct buf *out);

#define METRICS_TEXT_TYPE        "text/plain; version=0.0.4; charset=utf-8"
#define METRICS_OPENMETRICS_TYPE "application/openmetrics-text; version=1.0.0; charset=utf-8"
