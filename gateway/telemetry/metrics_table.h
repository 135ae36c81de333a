/*
 * metrics_table - the families: name, type, unit, labels with their closed lists of values, help
 *
 * Names: base units, `_total` for counters (Prometheus naming rules). Labels never hold a path, token, actor, address or command.
 */
#pragma once

#include "gateway/telemetry/metrics.h"

enum metric_type { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };

/* What one count stands for. */
enum metric_unit { METRIC_ONE, METRIC_MICROSECONDS /* shown as seconds */ };

struct metric_label {
	const char *name;
	const char *const *values; /* NULL = HTTP status codes 100 to 599, of a label of build_info its one value, or metrics_name() */
	unsigned count;
};

struct metric_family {
	const char *name; /* with the prefix, without _total */
	enum metric_type type;
	enum metric_unit unit;
	bool largest;             /* of all shards, in place of the sum */
	struct metric_label labels[3];
	const uint64_t *bounds; /* histogram buckets in counted units, ascending */
	unsigned bound_count;
	const char *help;
};

extern const struct metric_family metric_families[METRIC_COUNT];
