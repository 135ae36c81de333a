/*
 * process - the process_* figures, read from /proc when scraped
 */
#pragma once

#include "gateway/telemetry/metrics.h"

/* Sets the process_* gauges in a shard; figures that cannot be read are left as they are. */
void process_collect(struct metrics_shard *shard);
