#include "gateway/status_view.h"

#include "gateway/base/clock.h"
#include "gateway/base/json_text.h"
#include "gateway/telemetry/metrics_table.h"

#include <stdlib.h>

#define TIERS       3 /* hot, warm, cold: what a command can be given */
#define MAX_BUCKETS 20
#define MAX_REASONS 32

enum { DENY, ERROR, REFUSALS };
static const char *const refusal_names[REFUSALS] = {"deny", "error"};

enum gauge { GAUGE_HOT, GAUGE_WARM, GAUGE_LEASED, GAUGE_WAITERS, GAUGE_RUNNING, GAUGES };
static const char *const gauge_names[GAUGES] = {"hot", "warm", "leased", "waiters", "running"};

struct sample {
	uint64_t gauges[GAUGES];
	uint64_t waits[TIERS][MAX_BUCKETS]; /* commands given a Sprite, by how long they waited */
	uint64_t runs[MAX_BUCKETS];         /* commands, by how long they ran */
	uint64_t refusals[REFUSALS][MAX_REASONS];
};

struct status_view {
	const struct metrics *metrics;
	uint64_t start_us;
	struct sample samples[STATUS_SAMPLES]; /* a ring */
	size_t taken;
};

struct status_view *status_view_new(const struct metrics *metrics)
{
	struct status_view *view = calloc(1, sizeof *view);
	if (!view)
		return NULL;
	view->metrics = metrics;
	view->start_us = clock_mono_us();
	return view;
}

void status_view_free(struct status_view *view)
{
	free(view);
}

static void take_gauges(const struct metrics *metrics, struct sample *sample)
{
	static const char *const states[] = {"hot", "warm", "leased"};
	for (unsigned i = 0; i < ARRAY_LEN(states); i++) {
		struct metrics_labels state = {{metrics_value(METRIC_POOL_MEMBERS, 0, states[i])}};
		sample->gauges[GAUGE_HOT + i] = metrics_read(metrics, METRIC_POOL_MEMBERS, state);
	}
	sample->gauges[GAUGE_WAITERS] = metrics_read(metrics, METRIC_POOL_WAITERS, METRICS_NONE);
	sample->gauges[GAUGE_RUNNING] = metrics_read(metrics, METRIC_EXEC_RUNNING, METRICS_NONE);
}

static size_t reason_count(void)
{
	unsigned count = metric_families[METRIC_EXEC_DECISIONS].labels[1].count;
	return count < MAX_REASONS ? count : MAX_REASONS;
}

static void take(const struct metrics *metrics, struct sample *sample)
{
	*sample = (struct sample){0};
	take_gauges(metrics, sample);
	for (unsigned i = 0; i < TIERS; i++)
		metrics_buckets(metrics, METRIC_POOL_CLAIM_SECONDS, (struct metrics_labels){{i}}, sample->waits[i], MAX_BUCKETS);
	metrics_buckets(metrics, METRIC_EXEC_SECONDS, METRICS_NONE, sample->runs, MAX_BUCKETS);
	for (unsigned i = 0; i < REFUSALS; i++) {
		unsigned outcome = metrics_value(METRIC_EXEC_DECISIONS, 0, refusal_names[i]);
		for (unsigned j = 0; j < reason_count(); j++)
			sample->refusals[i][j] = metrics_read(metrics, METRIC_EXEC_DECISIONS, (struct metrics_labels){{outcome, j}});
	}
}

void status_view_sample(struct status_view *view)
{
	take(view->metrics, &view->samples[view->taken++ % STATUS_SAMPLES]);
}

/* The i-th oldest that is kept. */
static const struct sample *sample_at(const struct status_view *view, size_t i)
{
	size_t first = view->taken > STATUS_SAMPLES ? view->taken - STATUS_SAMPLES : 0;
	return &view->samples[(first + i) % STATUS_SAMPLES];
}

static size_t sample_count(const struct status_view *view)
{
	return view->taken < STATUS_SAMPLES ? view->taken : STATUS_SAMPLES;
}

/* What the counts of a histogram have grown by: of `share` of them the upper bound, in microseconds; UINT64_MAX above all bounds. */
static uint64_t quantile(enum metric metric, const uint64_t *then, const uint64_t *now, double share, uint64_t *count)
{
	const struct metric_family *family = &metric_families[metric];
	uint64_t seen = 0;
	*count = 0;
	for (size_t i = 0; i <= family->bound_count; i++)
		*count += now[i] - then[i];
	for (size_t i = 0; i < family->bound_count; i++) {
		seen += now[i] - then[i];
		if ((double)seen >= share * (double)*count)
			return family->bounds[i];
	}
	return UINT64_MAX;
}

static int put_ms(struct buf *out, const char *name, uint64_t us)
{
	if (us == UINT64_MAX)
		return buf_printf(out, ",\"%s\":null", name);
	return buf_printf(out, ",\"%s\":%.1f", name, (double)us / 1000);
}

/* Quantiles are null without a single command. */
static int put_times(struct buf *out, enum metric metric, const uint64_t *then, const uint64_t *now)
{
	uint64_t count;
	uint64_t half = quantile(metric, then, now, 0.5, &count), most = quantile(metric, then, now, 0.99, &count);
	int r = buf_printf(out, "\"count\":%llu", (unsigned long long)count);
	if (r == 0)
		r = put_ms(out, "p50_ms", count ? half : UINT64_MAX);
	return r < 0 ? r : put_ms(out, "p99_ms", count ? most : UINT64_MAX);
}

static int put_tiers(const struct sample *then, const struct sample *now, struct buf *out)
{
	int r = buf_append(out, SLICE(",\"tiers\":["));
	for (unsigned i = 0; r == 0 && i < TIERS; i++) {
		r = buf_printf(out, "%s{\"tier\":\"%s\",", i ? "," : "", metric_families[METRIC_POOL_CLAIM_SECONDS].labels[0].values[i]);
		if (r == 0)
			r = put_times(out, METRIC_POOL_CLAIM_SECONDS, then->waits[i], now->waits[i]);
		if (r == 0)
			r = buf_append_char(out, '}');
	}
	if (r == 0)
		r = buf_append(out, SLICE("],\"runs\":{"));
	if (r == 0)
		r = put_times(out, METRIC_EXEC_SECONDS, then->runs, now->runs);
	return r < 0 ? r : buf_append_char(out, '}');
}

static int put_refusals(const struct sample *then, const struct sample *now, struct buf *out)
{
	const char *comma = "";
	int r = buf_append(out, SLICE(",\"refusals\":["));
	for (unsigned i = 0; i < REFUSALS; i++) {
		for (unsigned j = 0; r == 0 && j < reason_count(); j++) {
			uint64_t all = now->refusals[i][j];
			if (!all)
				continue;
			r = buf_printf(out, "%s{\"outcome\":\"%s\",\"reason\":\"%s\",\"recent\":%llu,\"total\":%llu}", comma,
				       refusal_names[i], metric_families[METRIC_EXEC_DECISIONS].labels[1].values[j],
				       (unsigned long long)(all - then->refusals[i][j]), (unsigned long long)all);
			comma = ",";
		}
	}
	return r < 0 ? r : buf_append_char(out, ']');
}

static int put_history(const struct status_view *view, const struct sample *now, struct buf *out)
{
	int r = buf_printf(out, ",\"history\":{\"every_s\":%d", STATUS_SAMPLE_S);
	for (unsigned gauge = 0; r == 0 && gauge < GAUGES; gauge++) {
		r = buf_printf(out, ",\"%s\":[", gauge_names[gauge]);
		for (size_t i = 0; r == 0 && i < sample_count(view); i++)
			r = buf_printf(out, "%llu,", (unsigned long long)sample_at(view, i)->gauges[gauge]);
		if (r == 0)
			r = buf_printf(out, "%llu]", (unsigned long long)now->gauges[gauge]);
	}
	return r < 0 ? r : buf_append_char(out, '}');
}

static int put_pool(const struct pool_counts *counts, struct buf *out)
{
	int r = buf_append(out, SLICE(",\"pool\":{\"states\":{"));
	for (unsigned i = 0; r == 0 && i < POOL_GONE; i++)
		r = buf_printf(out, "%s\"%s\":%zu", i ? "," : "", pool_state_name((enum pool_state)i), counts->members[i]);
	return r < 0 ? r
		     : buf_printf(
			       out,
			       "},\"total\":%zu,\"max\":%zu,\"hot_target\":%zu,\"warm_target\":%zu,\"waiters\":%zu,\"oldest_wait_ms\":%llu,"
			       "\"stalled\":%s}",
			       counts->total, counts->max, counts->hot_target, counts->warm_target, counts->waiters,
			       (unsigned long long)(counts->oldest_wait_us / 1000), counts->stalled ? "true" : "false");
}

static int put_budgets(const struct recent *recent, struct buf *out)
{
	const struct recent_budget *nearest[STATUS_BUDGETS];
	size_t count = recent_budgets(recent, clock_wall_ms(), nearest, STATUS_BUDGETS);
	int r = buf_append(out, SLICE(",\"budgets\":["));
	for (size_t i = 0; r == 0 && i < count; i++)
		r = buf_printf(out, "%s{\"kid\":\"%s\",\"left_s\":%.1f,\"limit_s\":%.1f}", i ? "," : "", nearest[i]->kid,
			       (double)nearest[i]->left_ms / 1000, (double)nearest[i]->limit_ms / 1000);
	return r < 0 ? r : buf_append_char(out, ']');
}

static int put_running(const struct exec_agent *agent, struct buf *out)
{
	struct exec_running running[STATUS_RUNNING];
	size_t count = exec_agent_running(agent, running, STATUS_RUNNING);
	int r = buf_append(out, SLICE(",\"running\":["));
	for (size_t i = 0; r == 0 && i < count; i++)
		r = buf_printf(out, "%s{\"exec_id\":\"%s\",\"kid\":\"%s\",\"phase\":\"%s\",\"for_s\":%.1f,\"timeout_s\":%.1f}",
			       i ? "," : "", running[i].exec_id, running[i].kid, running[i].phase, (double)running[i].for_us / 1e6,
			       (double)running[i].timeout_ms / 1000);
	return r < 0 ? r : buf_append_char(out, ']');
}

static int put_recent(const struct recent *recent, struct buf *out)
{
	const struct recent_run *run;
	int r = buf_append(out, SLICE(",\"recent\":["));
	for (size_t i = 0; r == 0 && (run = recent_run(recent, i)); i++) {
		char time[25];
		clock_format(run->ended_ms, time);
		r = buf_printf(out,
			       "%s{\"exec_id\":\"%s\",\"kid\":\"%s\",\"ended\":\"%s\",\"outcome\":\"%s\",\"tier\":\"%s\",\"wait_ms\":%.1f,",
			       i ? "," : "", run->exec_id, run->kid, time, run->outcome, run->tier, (double)run->wait_us / 1000);
		if (r == 0)
			r = buf_printf(out, "\"run_ms\":%.1f,\"exit_code\":", (double)run->run_us / 1000);
		if (r == 0)
			r = run->exit_code == RECENT_NO_EXIT ? buf_append(out, SLICE("null}")) : buf_printf(out, "%u}", run->exit_code);
	}
	return r < 0 ? r : buf_append_char(out, ']');
}

static int put_head(const struct status_view *view, const struct status_now *now, const struct pool_counts *counts, struct buf *out)
{
	char time[25];
	clock_format(clock_wall_ms(), time);
	int r = buf_printf(out, "{\"time\":\"%s\",\"up_s\":%llu,\"instance\":", time,
			   (unsigned long long)((clock_mono_us() - view->start_us) / 1000000));
	if (r == 0)
		r = json_text_string(out, slice_str(now->instance));
	return r < 0 ? r
		     : buf_printf(out, ",\"draining\":%s,\"redis\":\"%s\",\"datasette\":\"%s\",\"sprites\":\"%s\",\"may_cancel\":%s",
				  now->health->draining ? "true" : "false", now->health->redis_up ? "up" : "down",
				  now->health->datasette_up ? "up" : "down", counts->creation, now->may_cancel ? "true" : "false");
}

/* What goes on without Redis; null when nothing may. */
static int put_degraded(const struct status_view *view, const struct status_now *now, struct buf *out)
{
	if (!now->health->degrades)
		return buf_append(out, SLICE(",\"degraded\":null"));
	struct metrics_labels granted = {{metrics_value(METRIC_EXEC_DEGRADED, 0, "granted")}};
	return buf_printf(out, ",\"degraded\":{\"granted\":%llu,\"unbooked_s\":%llu}",
			  (unsigned long long)metrics_read(view->metrics, METRIC_EXEC_DEGRADED, granted),
			  (unsigned long long)metrics_read(view->metrics, METRIC_EXEC_DEGRADED_UNBOOKED, METRICS_NONE));
}

int status_view_write(const struct status_view *view, const struct status_now *now, struct buf *out)
{
	struct sample current;
	struct pool_counts counts;
	take(view->metrics, &current);
	exec_agent_counts(now->agent, &counts);
	const struct sample *then = view->taken ? sample_at(view, 0) : &current;
	int r = put_head(view, now, &counts, out);
	if (r == 0)
		r = put_degraded(view, now, out);
	if (r == 0)
		r = put_pool(&counts, out);
	if (r == 0)
		r = put_history(view, &current, out);
	if (r == 0)
		r = buf_printf(out, ",\"window_s\":%zu", sample_count(view) * STATUS_SAMPLE_S);
	if (r == 0)
		r = put_tiers(then, &current, out);
	if (r == 0)
		r = put_refusals(then, &current, out);
	if (r == 0)
		r = put_budgets(exec_agent_recent(now->agent), out);
	if (r == 0)
		r = put_running(now->agent, out);
	if (r == 0)
		r = put_recent(exec_agent_recent(now->agent), out);
	return r < 0 ? r : buf_append_char(out, '}');
}
