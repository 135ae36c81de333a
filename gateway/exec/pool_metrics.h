/*
 * pool_metrics - what the pool and its leases have come to, told as metrics
 *
 * Owns:     nothing; the shard is the agent's.
 * Runs on:  the agent loop, before each scrape.
 */
#pragma once

#include "gateway/exec/leases.h"
#include "gateway/pool/pool.h"
#include "gateway/telemetry/metrics.h"

void pool_metrics_tell(struct metrics_shard *metrics, const struct pool_counts *counts);

/* Of a shared pool only. */
void pool_metrics_tell_leases(struct metrics_shard *metrics, const struct leases_counts *counts);
