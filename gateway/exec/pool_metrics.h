/*
 * pool_metrics - what the pool and its leases have come to, told as metrics
 *
 * Owns:     nothing; the shard is the agent's.
 * Runs on:  the agent loop: as things happen, and before each scrape what there is then.
 */
#pragma once

#include "gateway/exec/leases.h"
#include "gateway/pool/pool.h"
#include "gateway/telemetry/metrics.h"

/* A claim that has ended: the tier that it got, a refusal, or "canceled". */
void pool_metrics_claim(struct metrics_shard *metrics, const char *what, uint64_t waited_us);

/* A call of the provider; what it took counts when it went well. */
void pool_metrics_call(struct metrics_shard *metrics, enum metric calls, enum metric seconds, enum provider_code code, uint64_t took_us);

void pool_metrics_tell(struct metrics_shard *metrics, const struct pool_counts *counts);

/* Of a shared pool only. */
void pool_metrics_tell_leases(struct metrics_shard *metrics, const struct leases_counts *counts);
