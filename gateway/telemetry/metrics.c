#include "gateway/telemetry/metrics.h"

#include "gateway/telemetry/metrics_table.h"

#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

/* Only grows: what is below `count` does not change any more and is read without the lock. */
struct names {
	pthread_mutex_t lock;
	_Atomic unsigned count;
	char text[METRICS_NAMES][METRICS_NAME_MAX + 1];
};

struct metrics_shard {
	const struct metrics *metrics;
	struct names *names;
	_Atomic uint64_t *cells;
};

struct metrics {
	struct metrics_build build;
	size_t first[METRIC_COUNT]; /* a family's first cell */
	size_t cells;
	struct names names;
	unsigned count;
	struct metrics_shard shards[];
};

/* Cells of one series: a histogram has one a bucket, one above all, and the sum. */
static size_t width(const struct metric_family *family)
{
	return family->type == METRIC_HISTOGRAM ? family->bound_count + 2 : 1;
}

static size_t series_count(const struct metric_family *family)
{
	size_t n = 1;
	for (size_t i = 0; i < ARRAY_LEN(family->labels) && family->labels[i].name; i++)
		n *= family->labels[i].count;
	return n;
}

static size_t cell_of(const struct metrics *metrics, enum metric metric, struct metrics_labels labels)
{
	const struct metric_family *family = &metric_families[metric];
	size_t series = 0;
	for (size_t i = 0; i < ARRAY_LEN(family->labels) && family->labels[i].name; i++) {
		assert(labels.at[i] < family->labels[i].count);
		series = series * family->labels[i].count + labels.at[i];
	}
	return metrics->first[metric] + series * width(family);
}

struct metrics *metrics_new(unsigned shards, const struct metrics_build *build)
{
	struct metrics *metrics = calloc(1, sizeof *metrics + shards * sizeof metrics->shards[0]);
	if (!metrics)
		return NULL;
	for (size_t i = 0; i < METRIC_COUNT; i++) {
		metrics->first[i] = metrics->cells;
		metrics->cells += series_count(&metric_families[i]) * width(&metric_families[i]);
	}
	metrics->count = shards;
	if (pthread_mutex_init(&metrics->names.lock, NULL) != 0) {
		free(metrics);
		return NULL;
	}
	metrics->build = *build;
	bool complete = true;
	for (unsigned i = 0; i < shards; i++) {
		metrics->shards[i].metrics = metrics;
		metrics->shards[i].names = &metrics->names;
		metrics->shards[i].cells = calloc(metrics->cells, sizeof(uint64_t));
		complete = complete && metrics->shards[i].cells;
	}
	if (complete)
		return metrics;
	metrics_free(metrics);
	return NULL;
}

void metrics_free(struct metrics *metrics)
{
	if (!metrics)
		return;
	for (unsigned i = 0; i < metrics->count; i++)
		free(metrics->shards[i].cells);
	pthread_mutex_destroy(&metrics->names.lock);
	free(metrics);
}

struct metrics_shard *metrics_shard(struct metrics *metrics, unsigned index)
{
	assert(index < metrics->count);
	return &metrics->shards[index];
}

unsigned metrics_value(enum metric metric, unsigned label, const char *value)
{
	const struct metric_label *l = &metric_families[metric].labels[label];
	for (unsigned i = 0; i < l->count; i++)
		if (strcmp(l->values[i], value) == 0)
			return i;
	return l->count - 1;
}

static bool is_plain(const char *name)
{
	size_t len = strspn(name, "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz._-");
	return len && !name[len] && len <= METRICS_NAME_MAX;
}

static unsigned find_name(struct names *names, const char *name)
{
	unsigned count = atomic_load_explicit(&names->count, memory_order_acquire), i = 0;
	while (i < count && strcmp(names->text[i], name) != 0)
		i++;
	return i < count ? i : METRICS_NAMES;
}

unsigned metrics_name(struct metrics_shard *shard, const char *name)
{
	struct names *names = shard->names;
	unsigned i = find_name(names, name);
	if (i < METRICS_NAMES || !is_plain(name) || atomic_load_explicit(&names->count, memory_order_relaxed) == METRICS_NAMES)
		return i;
	pthread_mutex_lock(&names->lock);
	unsigned count = atomic_load_explicit(&names->count, memory_order_relaxed);
	i = find_name(names, name);
	if (i == METRICS_NAMES && count < METRICS_NAMES) {
		i = count;
		snprintf(names->text[i], sizeof names->text[i], "%s", name);
		atomic_store_explicit(&names->count, count + 1, memory_order_release);
	}
	pthread_mutex_unlock(&names->lock);
	return i;
}

unsigned metrics_code(unsigned status)
{
	return status >= 100 && status <= 599 ? status - 100 : 0;
}

/* One writer a shard: load and store need no locked instruction, only readers need whole words. */
static void bump(_Atomic uint64_t *cell, uint64_t amount)
{
	atomic_store_explicit(cell, atomic_load_explicit(cell, memory_order_relaxed) + amount, memory_order_relaxed);
}

void metrics_add(struct metrics_shard *shard, enum metric metric, struct metrics_labels labels, uint64_t amount)
{
	bump(&shard->cells[cell_of(shard->metrics, metric, labels)], amount);
}

void metrics_sub(struct metrics_shard *shard, enum metric metric, struct metrics_labels labels, uint64_t amount)
{
	/* Shards wrap around when another shard did the adding; the sum comes out right. */
	bump(&shard->cells[cell_of(shard->metrics, metric, labels)], 0 - amount);
}

void metrics_set(struct metrics_shard *shard, enum metric metric, struct metrics_labels labels, uint64_t value)
{
	atomic_store_explicit(&shard->cells[cell_of(shard->metrics, metric, labels)], value, memory_order_relaxed);
}

void metrics_observe(struct metrics_shard *shard, enum metric metric, struct metrics_labels labels, uint64_t amount)
{
	const struct metric_family *family = &metric_families[metric];
	_Atomic uint64_t *cells = &shard->cells[cell_of(shard->metrics, metric, labels)];
	unsigned bucket = 0;
	while (bucket < family->bound_count && amount > family->bounds[bucket])
		bucket++;
	bump(&cells[bucket], 1);
	bump(&cells[family->bound_count + 1], amount);
}

static uint64_t sum_cell(const struct metrics *metrics, size_t cell)
{
	uint64_t sum = 0;
	for (unsigned i = 0; i < metrics->count; i++)
		sum += atomic_load_explicit(&metrics->shards[i].cells[cell], memory_order_relaxed);
	return sum;
}

static uint64_t largest_cell(const struct metrics *metrics, size_t cell)
{
	uint64_t largest = 0;
	for (unsigned i = 0; i < metrics->count; i++) {
		uint64_t one = atomic_load_explicit(&metrics->shards[i].cells[cell], memory_order_relaxed);
		largest = one > largest ? one : largest;
	}
	return largest;
}

static uint64_t read_cell(const struct metrics *metrics, enum metric metric, size_t cell)
{
	return metric_families[metric].largest ? largest_cell(metrics, cell) : sum_cell(metrics, cell);
}

uint64_t metrics_read(const struct metrics *metrics, enum metric metric, struct metrics_labels labels)
{
	return read_cell(metrics, metric, cell_of(metrics, metric, labels));
}

size_t metrics_buckets(const struct metrics *metrics, enum metric metric, struct metrics_labels labels, uint64_t *out, size_t max)
{
	size_t cell = cell_of(metrics, metric, labels), count = metric_families[metric].bound_count + 1;
	for (size_t i = 0; i < count && i < max; i++)
		out[i] = sum_cell(metrics, cell + i);
	return count < max ? count : max;
}

/* 1500000 counted microseconds are shown as 1.5, a count as it is. */
static int put_amount(struct buf *out, enum metric_unit unit, uint64_t amount)
{
	if (unit == METRIC_ONE)
		return buf_printf(out, "%llu", (unsigned long long)amount);
	return buf_printf(out, "%llu.%06llu", (unsigned long long)(amount / 1000000), (unsigned long long)(amount % 1000000));
}

static int put_labels(struct buf *out, const struct metrics *metrics, const struct metric_family *family, size_t series, const char *bound)
{
	unsigned at[3] = {0};
	size_t used = 0;
	while (used < ARRAY_LEN(family->labels) && family->labels[used].name)
		used++;
	for (size_t i = used; i > 0; i--) {
		at[i - 1] = (unsigned)(series % family->labels[i - 1].count);
		series /= family->labels[i - 1].count;
	}
	if (!used && !bound)
		return 0;
	int r = buf_append_char(out, '{');
	for (size_t i = 0; r == 0 && i < used; i++) {
		const struct metric_label *label = &family->labels[i];
		const char *comma = i ? "," : "";
		if (label->values)
			r = buf_printf(out, "%s%s=\"%s\"", comma, label->name, label->values[at[i]]);
		else if (label->count == METRICS_NAMES + 1)
			r = buf_printf(out, "%s%s=\"%s\"", comma, label->name,
				       at[i] < METRICS_NAMES ? metrics->names.text[at[i]] : "other");
		else if (label->count == 1)
			r = buf_printf(out, "%s%s=\"%s\"", comma, label->name, i ? metrics->build.revision : metrics->build.version);
		else
			r = buf_printf(out, "%s%s=\"%u\"", comma, label->name, at[i] + 100);
	}
	if (r == 0 && bound)
		r = buf_printf(out, "%sle=\"%s\"", used ? "," : "", bound);
	return r < 0 ? r : buf_append_char(out, '}');
}

static int put_sample(struct buf *out, const struct metrics *metrics, const struct metric_family *family, size_t series, const char *suffix,
		      const char *bound, enum metric_unit unit, uint64_t amount)
{
	int r = buf_printf(out, "%s%s", family->name, suffix);
	if (r == 0)
		r = put_labels(out, metrics, family, series, bound);
	if (r == 0)
		r = buf_append_char(out, ' ');
	if (r == 0)
		r = put_amount(out, unit, amount);
	return r < 0 ? r : buf_append_char(out, '\n');
}

/* "0.005" for 5000 counted microseconds, "256" for bytes. */
static void bound_text(const struct metric_family *family, unsigned i, char out[32])
{
	if (family->unit == METRIC_ONE)
		snprintf(out, 32, "%llu", (unsigned long long)family->bounds[i]);
	else
		snprintf(out, 32, "%g", (double)family->bounds[i] / 1e6);
}

static int put_histogram(struct buf *out, const struct metrics *metrics, const struct metric_family *family, size_t series, size_t cell)
{
	uint64_t count = 0;
	int r = 0;
	for (unsigned i = 0; r == 0 && i <= family->bound_count; i++) {
		char bound[32] = "+Inf";
		if (i < family->bound_count)
			bound_text(family, i, bound);
		count += sum_cell(metrics, cell + i);
		r = put_sample(out, metrics, family, series, "_bucket", bound, METRIC_ONE, count);
	}
	if (r == 0)
		r = put_sample(out, metrics, family, series, "_sum", NULL, family->unit, sum_cell(metrics, cell + family->bound_count + 1));
	return r < 0 ? r : put_sample(out, metrics, family, series, "_count", NULL, METRIC_ONE, count);
}

/* Of the one family with 24,000 possible series: what may well happen, so that rate() sees it the first time. */
static bool is_expected(size_t series)
{
	static const char *const methods[] = {"GET", "POST"};
	static const unsigned codes[] = {200, 302, 304, 400, 401, 403, 404, 413, 422, 429, 499, 500, 502, 503, 504};
	const struct metric_label *labels = metric_families[METRIC_HTTP_REQUESTS].labels;
	unsigned method = (unsigned)(series / labels[2].count % labels[1].count), code = (unsigned)(series % labels[2].count);
	bool known = false, usual = false;
	for (size_t i = 0; i < ARRAY_LEN(methods); i++)
		usual = usual || metrics_value(METRIC_HTTP_REQUESTS, 1, methods[i]) == method;
	for (size_t i = 0; i < ARRAY_LEN(codes); i++)
		known = known || metrics_code(codes[i]) == code;
	return known && usual;
}

static bool is_shown(const struct metrics *metrics, enum metric metric, size_t series, uint64_t amount)
{
	if (metric == METRIC_POLICY_DECISIONS)
		return amount || series / metric_families[metric].labels[1].count < metrics->names.count;
	if (metric == METRIC_POLICY_VERSION)
		return amount;
	return metric != METRIC_HTTP_REQUESTS || amount || is_expected(series);
}

static int put_family(struct buf *out, const struct metrics *metrics, enum metric metric, bool openmetrics)
{
	static const char *const types[] = {"counter", "gauge", "histogram"};
	const struct metric_family *family = &metric_families[metric];
	const char *suffix = family->type == METRIC_COUNTER ? "_total" : "";
	const char *declared = openmetrics ? "" : suffix;
	int r = buf_printf(out, "# HELP %s%s %s\n# TYPE %s%s %s\n", family->name, declared, family->help, family->name, declared,
			   types[family->type]);
	for (size_t series = 0; r == 0 && series < series_count(family); series++) {
		size_t cell = metrics->first[metric] + series * width(family);
		if (family->type == METRIC_HISTOGRAM)
			r = put_histogram(out, metrics, family, series, cell);
		else if (is_shown(metrics, metric, series, read_cell(metrics, metric, cell)))
			r = put_sample(out, metrics, family, series, suffix, NULL, family->unit, read_cell(metrics, metric, cell));
	}
	return r;
}

int metrics_render(const struct metrics *metrics, bool openmetrics, struct buf *out)
{
	int r = 0;
	for (unsigned i = 0; r == 0 && i < METRIC_COUNT; i++)
		r = put_family(out, metrics, (enum metric)i, openmetrics);
	return r < 0 || !openmetrics ? r : buf_append(out, SLICE("# EOF\n"));
}
