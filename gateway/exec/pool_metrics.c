#include "gateway/exec/pool_metrics.h"

void pool_metrics_claim(struct metrics_shard *metrics, const char *what, uint64_t waited_us)
{
	if (strcmp(what, "hot") == 0 || strcmp(what, "warm") == 0 || strcmp(what, "cold") == 0) {
		struct metrics_labels labels = {{metrics_value(METRIC_POOL_CLAIMS, 0, what)}};
		metrics_add(metrics, METRIC_POOL_CLAIMS, labels, 1);
		metrics_observe(metrics, METRIC_POOL_CLAIM_SECONDS, labels, waited_us);
	} else if (strcmp(what, "canceled") != 0) {
		struct metrics_labels labels = {{metrics_value(METRIC_POOL_REFUSALS, 0, what)}};
		metrics_add(metrics, METRIC_POOL_REFUSALS, labels, 1);
	}
}

void pool_metrics_call(struct metrics_shard *metrics, enum metric calls, enum metric seconds, enum provider_code code, uint64_t took_us)
{
	struct metrics_labels labels = {{metrics_value(calls, 0, provider_code_name(code))}};
	metrics_add(metrics, calls, labels, 1);
	if (code == PROVIDER_OK)
		metrics_observe(metrics, seconds, METRICS_NONE, took_us);
}

void pool_metrics_tell(struct metrics_shard *metrics, const struct pool_counts *counts)
{
	static const enum pool_state shown[] = {POOL_INTENT, POOL_CREATING,  POOL_PREPARING,  POOL_WARM,      POOL_HOT,
						POOL_LEASED, POOL_RECYCLING, POOL_QUARANTINE, POOL_DESTROYING};
	for (unsigned i = 0; i < ARRAY_LEN(shown); i++)
		metrics_set(metrics, METRIC_POOL_MEMBERS, (struct metrics_labels){{i}}, counts->members[shown[i]]);
	const size_t targets[] = {counts->hot_target, counts->warm_target};
	for (unsigned i = 0; i < ARRAY_LEN(targets); i++)
		metrics_set(metrics, METRIC_POOL_TARGET, (struct metrics_labels){{i}}, targets[i]);
	metrics_set(metrics, METRIC_POOL_STALLED, METRICS_NONE, counts->stalled);
	metrics_set(metrics, METRIC_POOL_IDLE_SECONDS, METRICS_NONE, counts->idle_us);
	metrics_set(metrics, METRIC_POOL_COST, METRICS_NONE, counts->spent_nusd / 1000);
	metrics_set(metrics, METRIC_POOL_HEDGES, METRICS_NONE, counts->hedges);
	metrics_set(metrics, METRIC_POOL_WAITERS, METRICS_NONE, counts->waiters);
	metrics_set(metrics, METRIC_POOL_WAIT_OLDEST_SECONDS, METRICS_NONE, counts->oldest_wait_us);
}

void pool_metrics_tell_leases(struct metrics_shard *metrics, const struct leases_counts *counts)
{
	const uint64_t lost[] = {counts->fenced, counts->flushed};
	for (unsigned i = 0; i < ARRAY_LEN(lost); i++)
		metrics_set(metrics, METRIC_POOL_SESSIONS_LOST, (struct metrics_labels){{i}}, lost[i]);
	metrics_set(metrics, METRIC_POOL_REVOKED, METRICS_NONE, counts->revoked);
	metrics_set(metrics, METRIC_POOL_BEAT_AGE_SECONDS, METRICS_NONE, counts->beat_age_us);
	metrics_set(metrics, METRIC_POOL_FLEET_MEMBERS, METRICS_NONE, counts->total);
	metrics_set(metrics, METRIC_POOL_FLEET_INSTANCES, METRICS_NONE, counts->instances);
	metrics_set(metrics, METRIC_POOL_RECOVERING, METRICS_NONE, counts->recovering);
}
