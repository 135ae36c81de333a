#include "gateway/meters.h"

void meters_init(struct meters *meters, struct metrics_shard *shard, struct peers *peers)
{
	*meters = (struct meters){.shard = shard, .peers = peers};
	peers->redis_links_down++;
	for (unsigned i = 0; i < HTTP_LABELS; i++)
		meters->route[i] = metrics_value(METRIC_HTTP_REQUESTS, 0, http_route_label_name((enum http_route_label)i));
}

bool meters_redis_up(const struct meters *meters)
{
	return meters->peers->redis_links_down == 0;
}

bool meters_datasette_up(const struct meters *meters)
{
	return !atomic_load_explicit(&meters->peers->datasette_down, memory_order_relaxed);
}

void meters_datasette(struct meters *meters, bool up)
{
	if (meters_datasette_up(meters) != up)
		meters->peers->datasette_down = !up;
}

static struct metrics_labels one(enum metric metric, const char *value)
{
	return (struct metrics_labels){{metrics_value(metric, 0, value)}};
}

static struct metrics_labels route_of(const struct meters *meters, const struct http_head *head)
{
	return (struct metrics_labels){{meters->route[http_route_label_of(head->path)]}};
}

static unsigned method_label(struct slice method)
{
	static const struct {
		struct slice name;
		unsigned at;
	} known[] = {{{"GET", 3}, 0},   {{"POST", 4}, 2},   {{"HEAD", 4}, 1},   {{"PUT", 3}, 3},
		     {{"PATCH", 5}, 4}, {{"DELETE", 6}, 5}, {{"OPTIONS", 7}, 6}};
	for (size_t i = 0; i < ARRAY_LEN(known); i++)
		if (slice_equal(method, known[i].name))
			return known[i].at;
	return 7;
}

static void count_abort(struct meters *meters, enum http_end end)
{
	if (end == HTTP_END_GONE || end == HTTP_END_TIMEOUT)
		metrics_add(meters->shard, METRIC_HTTP_ABORTS, one(METRIC_HTTP_ABORTS, "client"), 1);
	else if (end == HTTP_END_STOPPED)
		metrics_add(meters->shard, METRIC_HTTP_ABORTS, one(METRIC_HTTP_ABORTS, "gateway"), 1);
}

void meters_begun(struct meters *meters, const struct http_head *head)
{
	metrics_add(meters->shard, METRIC_HTTP_IN_FLIGHT, route_of(meters, head), 1);
}

void meters_request(struct meters *meters, const struct http_head *head, const struct http_summary *summary, enum http_guard_reason refusal)
{
	struct metrics_labels by_route = route_of(meters, head);
	unsigned status = summary->status ? summary->status : 499;
	struct metrics_labels labels = {{by_route.at[0], method_label(head->method), metrics_code(status)}};
	metrics_sub(meters->shard, METRIC_HTTP_IN_FLIGHT, by_route, 1);
	metrics_add(meters->shard, METRIC_HTTP_REQUESTS, labels, 1);
	/* A WebSocket takes as long, and as much, as it is wanted. */
	if (status != 101) {
		metrics_observe(meters->shard, METRIC_HTTP_REQUEST_SECONDS, by_route, summary->duration_us);
		metrics_observe(meters->shard, METRIC_HTTP_REQUEST_BYTES, METRICS_NONE, summary->bytes_in);
		metrics_observe(meters->shard, METRIC_HTTP_RESPONSE_BYTES, METRICS_NONE, summary->bytes_out);
	}
	if (summary->first_byte_us)
		metrics_observe(meters->shard, METRIC_HTTP_FIRST_BYTE_SECONDS, by_route, summary->first_byte_us);
	count_abort(meters, summary->end);
	if (refusal != HTTP_GUARD_OK)
		metrics_add(meters->shard, METRIC_HTTP_REJECTED, one(METRIC_HTTP_REJECTED, http_guard_reason_name(refusal)), 1);
}

void meters_rejected(struct meters *meters)
{
	metrics_add(meters->shard, METRIC_HTTP_REJECTED, one(METRIC_HTTP_REJECTED, "parser"), 1);
}

void meters_crowded(struct meters *meters, enum http_crowd crowd)
{
	static const char *const reasons[] = {[HTTP_CROWD_IDLE] = "idle", [HTTP_CROWD_TOTAL] = "total", [HTTP_CROWD_ADDRESS] = "address"};
	metrics_add(meters->shard, METRIC_CONNECTIONS_CROWDED, one(METRIC_CONNECTIONS_CROWDED, reasons[crowd]), 1);
}

static void count_tunnel(struct meters *meters, const struct relay_summary *summary)
{
	metrics_add(meters->shard, METRIC_WEBSOCKET_ENDS, one(METRIC_WEBSOCKET_ENDS, tunnel_end_name(summary->tunnel_end)), 1);
	metrics_add(meters->shard, METRIC_WEBSOCKET_BYTES, one(METRIC_WEBSOCKET_BYTES, "to_datasette"), summary->http.bytes_in);
	metrics_add(meters->shard, METRIC_WEBSOCKET_BYTES, one(METRIC_WEBSOCKET_BYTES, "to_client"), summary->http.bytes_out);
}

void meters_relay(struct meters *meters, const struct relay_summary *summary)
{
	if (summary->tunneled)
		count_tunnel(meters, summary);
	if (summary->cache != RELAY_CACHE_OFF)
		metrics_add(meters->shard, METRIC_CACHE_REQUESTS, (struct metrics_labels){{summary->cache - RELAY_CACHE_HIT}}, 1);
	if (summary->upstream_status) {
		struct metrics_labels labels = {{summary->upstream_status / 100 - 1}};
		metrics_add(meters->shard, METRIC_UPSTREAM_REQUESTS, labels, 1);
	}
	if (!summary->upstream.reused && summary->upstream.first_byte_us)
		metrics_observe(meters->shard, METRIC_UPSTREAM_CONNECT_SECONDS, METRICS_NONE, summary->upstream.connect_us);
	if (!summary->failed) {
		/* A client that left early is no outcome. */
		if (summary->upstream_status || summary->head_refused)
			meters_datasette(meters, true);
		return;
	}
	if (summary->error != EXCHANGE_INTERNAL)
		meters_datasette(meters, false);
	metrics_add(meters->shard, METRIC_UPSTREAM_ERRORS, one(METRIC_UPSTREAM_ERRORS, exchange_error_name(summary->error)), 1);
	if (summary->upstream_status)
		metrics_add(meters->shard, METRIC_HTTP_ABORTS, one(METRIC_HTTP_ABORTS, "upstream"), 1);
}

static void on_redis_command(void *ctx, uint64_t duration_us, const char *error_kind)
{
	struct meters *meters = ctx;
	if (error_kind)
		metrics_add(meters->shard, METRIC_REDIS_ERRORS, one(METRIC_REDIS_ERRORS, error_kind), 1);
	else
		metrics_observe(meters->shard, METRIC_REDIS_COMMAND_SECONDS, METRICS_NONE, duration_us);
}

static void on_redis_link(void *ctx, bool up, unsigned breaker_state)
{
	struct meters *meters = ctx;
	if (up && !meters->redis_up)
		meters->peers->redis_links_down--;
	else if (!up && meters->redis_up)
		meters->peers->redis_links_down++;
	meters->redis_up = up;
	meters->redis_breaker = breaker_state;
}

static void on_redis_reaped(void *ctx, uint64_t leases)
{
	struct meters *meters = ctx;
	metrics_add(meters->shard, METRIC_EXEC_LEASES_REAPED, METRICS_NONE, leases);
}

static void on_known_bad(void *ctx)
{
	struct meters *meters = ctx;
	metrics_add(meters->shard, METRIC_AUTH_KNOWN_BAD, METRICS_NONE, 1);
}

struct admission_observer meters_admission(struct meters *meters)
{
	return (struct admission_observer){.on_command = on_redis_command,
					   .on_link = on_redis_link,
					   .on_reaped = on_redis_reaped,
					   .on_known_bad = on_known_bad,
					   .ctx = meters};
}

static void count_call(struct meters *meters, const char *call, const char *result, uint64_t took_us)
{
	unsigned at = metrics_value(METRIC_SPRITES_CALLS, 0, call);
	struct metrics_labels labels = {{at, metrics_value(METRIC_SPRITES_CALLS, 1, result)}};
	metrics_add(meters->shard, METRIC_SPRITES_CALLS, labels, 1);
	metrics_observe(meters->shard, METRIC_SPRITES_CALL_SECONDS, (struct metrics_labels){{at}}, took_us);
}

static void on_sprites_call(void *ctx, enum sprites_call call, uint64_t took_us, enum provider_code code, unsigned status UNUSED)
{
	count_call(ctx, sprites_call_name(call), provider_code_name(code), took_us);
}

static void on_sprites_opened(void *ctx, uint64_t took_us, unsigned status)
{
	count_call(ctx, "dial", status == 101 ? "ok" : status == 404 ? "gone" : status == 401 ? "unauthorized" : "unavailable", took_us);
}

struct sprites_observer meters_sprites(struct meters *meters)
{
	return (struct sprites_observer){.on_call = on_sprites_call, .on_opened = on_sprites_opened, .ctx = meters};
}
