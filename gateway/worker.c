#include "gateway/worker.h"

#include "gateway/base/clock.h"
#include "gateway/base/log.h"
#include "gateway/exec/intent.h"
#include "gateway/http/server.h"
#include "gateway/http/trace_of.h"
#include "gateway/proxy/probe.h"

#include <stdio.h>
#include <stdlib.h>

#define MAX_BUFFERED_BODIES 16 /* times EXEC_MAX_BODY_BYTES */
#define MAX_REDIS_PENDING   1024
#define IDLE_POLL_MS        20
#define HANDSHAKE_MS        500 /* longer than a client's last packet of a TCP handshake is on its way */
#define INTENT_EVERY_MS     1000

enum wish { WISH_DRAIN, WISH_REFUSE, WISH_QUIESCE, WISH_STOP, WISH_LIMITS };

/* What other threads ask for; there is one of each, so asking needs no memory. */
struct wish_item {
	struct mailbox_item item;
	enum wish wish;
	_Atomic bool asked;
};

/* What of the settings may change while it runs. */
struct limits {
	uint64_t max_body, proxy_max_body; /* of any request; of one for Datasette */
	unsigned silence_ms;               /* of Datasette */
	struct exec_endpoint_limits exec;
};

/* On the heap: several may be on their way. */
struct limits_item {
	struct wish_item wish;
	struct limits limits;
};

struct worker {
	struct worker_options options;
	struct meters meters;
	struct access_log log;
	uv_thread_t thread;
	bool started;
	uv_loop_t loop;
	struct mailbox mailbox;
	struct wish_item wishes[4];
	uv_prepare_t turn;       /* end of each loop turn: flush the log, set the gauges */
	uv_timer_t idle_timer;
	struct curl_driver *curl;
	struct connection_pool *connections;
	struct exchange_pool *exchanges;
	struct tunnels *tunnels; /* NULL when there may be none */
	struct relay *relay;
	struct probe *probe;     /* NULL when another worker has it */
	struct exec_endpoint *endpoint;
	struct http_server *server;
	bool announces;          /* pages of Datasette's agent are told to the pool */
	uint64_t intended_ms;    /* a page of Datasette's agent is told again from then on, in loop time */
	bool draining, stopping;
};

static void respond_health(struct worker *worker, struct http_request *request)
{
	const struct http_head *head = http_request_head(request);
	const struct log_subject subject = http_subject_of(head);
	struct http_fields fields = {0};
	char body[160];
	if (!slice_equal(head->method, SLICE("GET")) && !slice_equal(head->method, SLICE("HEAD"))) {
		struct http_problem problem = {.status = 405, .code = "method-not-allowed", .detail = SLICE("Allowed here: GET, HEAD.")};
		if (http_fields_add(&fields, SLICE("Allow"), SLICE("GET, HEAD")) == 0 &&
		    http_request_respond_problem(request, &problem, &fields) < 0)
			log_error_of(&subject, "health: the answer could not be sent");
		return;
	}
	int len = snprintf(body, sizeof body, "{\"ok\":%s,\"status\":\"%s\",\"redis\":\"%s\",\"datasette\":\"%s\"%s}\n",
			   worker->draining ? "false" : "true", worker->draining ? "draining" : "serving",
			   meters_redis_up(&worker->meters) ? "up" : "down", meters_datasette_up(&worker->meters) ? "up" : "down",
			   worker->options.degraded && !meters_redis_up(&worker->meters) ? ",\"exec\":\"degraded\"" : "");
	if (http_fields_add(&fields, SLICE("Content-Type"), SLICE("application/json")) != 0 ||
	    http_fields_add(&fields, SLICE("Cache-Control"), SLICE("no-store")) != 0 ||
	    http_request_respond(request, worker->draining ? 503 : 200, &fields, slice_of(body, (size_t)len)) < 0)
		log_error_of(&subject, "health: the answer could not be sent");
}

/* Whoever opens the chat will probably have a command run. */
static void announce(struct worker *worker, const struct http_head *head)
{
	uint64_t now = uv_now(&worker->loop);
	if (!worker->announces || now < worker->intended_ms || !exec_intent_is_page(head->path, head->fields))
		return;
	worker->intended_ms = now + INTENT_EVERY_MS;
	exec_intent_send(worker->options.agent, EXEC_INTENT_PAGE_MS);
}

static void on_request(void *ctx, struct http_request *request)
{
	struct worker *worker = ctx;
	switch (http_request_head(request)->route) {
	case HTTP_ROUTE_EXEC:
	case HTTP_ROUTE_EXEC_SUB:
		exec_endpoint_handle(worker->endpoint, request);
		break;
	case HTTP_ROUTE_HEALTH:
		respond_health(worker, request);
		break;
	case HTTP_ROUTE_PROXY:
	case HTTP_ROUTE_AMBIGUOUS: /* the guard has refused it */
		announce(worker, http_request_head(request));
		relay_handle(worker->relay, request);
		break;
	}
}

/* Whoever knows most about it says what only that one knows; the rest is the same for all. */
static void log_request(void *ctx, const struct http_head *head, const struct http_summary *summary, struct access_record *record)
{
	struct worker *worker = ctx;
	bool gone = summary->end == HTTP_END_GONE || summary->end == HTTP_END_TIMEOUT;
	bool late = summary->end == HTTP_END_TIMEOUT && summary->status == 408;
	struct trace trace;
	(void)http_trace_of(head, &trace);
	record->wall_ms = clock_wall_ms() - summary->duration_us / 1000;
	record->request_id = head->id;
	record->trace_id = record->trace_id ? record->trace_id : trace.id;
	record->client = head->peer;
	record->method = head->method;
	record->path = head->path;
	record->route = http_route_label_name(http_route_label_of(head->path));
	record->status = gone && !summary->status ? 499 : summary->status;
	record->bytes_in = summary->bytes_in;
	record->bytes_out = summary->bytes_out;
	record->duration_us = summary->duration_us;
	record->first_byte_us = summary->first_byte_us;
	if (!record->aborted)
		record->aborted = gone ? "client" : summary->end == HTTP_END_STOPPED ? "gateway" : NULL;
	if (!record->code && late)
		record->code = "request-timeout";
	access_log_write(&worker->log, record);
}

static void on_begun(void *ctx, const struct http_head *head)
{
	struct worker *worker = ctx;
	meters_begun(&worker->meters, head);
}

/* Every request is counted here; it is logged by whoever knows most about it. */
static void on_finished(void *ctx, const struct http_head *head, const struct http_summary *summary, enum http_guard_reason refusal)
{
	struct worker *worker = ctx;
	meters_request(&worker->meters, head, summary, refusal);
	if (refusal != HTTP_GUARD_OK || head->route == HTTP_ROUTE_HEALTH)
		log_request(worker, head, summary,
			    &(struct access_record){.code = refusal == HTTP_GUARD_OK ? NULL : http_guard_reason_name(refusal)});
}

/* Why it was not the client or Datasette who ended it. */
static const char *websocket_code(enum tunnel_end end)
{
	static const char *const codes[TUNNEL_ENDS] = {
		[TUNNEL_IDLE] = "websocket_idle", [TUNNEL_DRAIN] = "websocket_drain", [TUNNEL_GATEWAY] = "websocket_gateway"};
	return codes[end];
}

static void on_relayed(void *ctx, const struct http_head *head, const struct relay_summary *summary)
{
	struct worker *worker = ctx;
	meters_relay(&worker->meters, summary);
	struct access_record record = {.aborted = summary->failed && summary->upstream_status ? "upstream" : NULL,
				       .code = summary->failed         ? exchange_error_name(summary->error)
					       : summary->head_refused ? "answer_head_limit"
					       : summary->tunneled     ? websocket_code(summary->tunnel_end)
								       : NULL};
	log_request(worker, head, &summary->http, &record);
}

/* Of what was asked of Datasette for no request of its own. */
static void on_fetched(void *ctx, const struct relay_summary *summary)
{
	struct worker *worker = ctx;
	meters_relay(&worker->meters, summary);
}

static void on_rejected(void *ctx)
{
	struct worker *worker = ctx;
	meters_rejected(&worker->meters);
}

static void on_crowded(void *ctx, enum http_crowd crowd)
{
	struct worker *worker = ctx;
	meters_crowded(&worker->meters, crowd);
}

static void on_turn(uv_prepare_t *turn)
{
	struct worker *worker = turn->data;
	access_log_flush(&worker->log);
	metrics_set(worker->meters.shard, METRIC_CONNECTIONS, METRICS_NONE, http_server_connections(worker->server));
	metrics_set(worker->meters.shard, METRIC_UPSTREAM_CONNECTIONS, METRICS_NONE, connection_pool_counts(worker->connections).open);
	if (worker->tunnels)
		metrics_set(worker->meters.shard, METRIC_WEBSOCKETS, METRICS_NONE, tunnels_open(worker->tunnels));
	metrics_set(worker->meters.shard, METRIC_LOG_DROPPED, METRICS_NONE, worker->log.dropped);
}

static void on_loop_closed(uv_handle_t *handle UNUSED)
{
}

static void on_mailbox_closed(void *ctx UNUSED)
{
}

/* The server and the endpoint are gone: nothing uses Datasette any more. */
static void on_endpoint_freed(void *ctx)
{
	struct worker *worker = ctx;
	probe_free(worker->probe);
	relay_free(worker->relay);
	tunnels_free(worker->tunnels);
	exchange_pool_free(worker->exchanges);
	connection_pool_free(worker->connections);
	curl_driver_free(worker->curl);
	uv_close((uv_handle_t *)&worker->turn, on_loop_closed);
	uv_close((uv_handle_t *)&worker->idle_timer, on_loop_closed);
	mailbox_close(&worker->mailbox, on_mailbox_closed);
}

static void on_server_stopped(void *ctx)
{
	struct worker *worker = ctx;
	worker->server = NULL;
	uv_prepare_stop(&worker->turn);
	exec_endpoint_free(worker->endpoint, on_endpoint_freed, worker);
}

static void on_idle_timer(uv_timer_t *timer)
{
	struct worker *worker = timer->data;
	if (http_server_connections(worker->server))
		return;
	uv_timer_stop(timer);
	worker->options.on_idle(worker->options.ctx);
}

static void on_handshakes_over(uv_timer_t *timer)
{
	struct worker *worker = timer->data;
	if (http_server_quiesce(worker->server))
		uv_timer_start(timer, on_idle_timer, 0, IDLE_POLL_MS);
}

static void begin_drain(struct worker *worker)
{
	worker->draining = true;
	http_server_drain(worker->server);
	if (worker->tunnels)
		tunnels_drain(worker->tunnels);
}

static void refuse(struct worker *worker)
{
	begin_drain(worker);
	exec_endpoint_drain(worker->endpoint);
}

static struct limits limits_of(const struct worker *worker, const struct config *config)
{
	uint64_t proxy = config->max_body_bytes, exec = config->exec_max_body_bytes, bodies = exec * MAX_BUFFERED_BODIES;
	if (bodies > worker->options.max_bodies)
		bodies = worker->options.max_bodies;
	return (struct limits){.max_body = proxy > exec ? proxy : exec,
			       .proxy_max_body = proxy,
			       .silence_ms = (unsigned)config->datasette_timeout_ms,
			       .exec = {.max_body = exec,
					.max_buffered = bodies > exec ? bodies : exec,
					.timeout_ms = config->exec_timeout_ms,
					.max_timeout_ms = config->exec_max_timeout_ms,
					.max_output_bytes = config->exec_max_output_bytes,
					.caps = {.processes = config->exec_max_processes,
						 .file_bytes = config->exec_max_file_bytes,
						 .memory_bytes = config->exec_max_memory_bytes},
					.audit_commands = config->audit_commands,
					.announces = config->pool_warm != 0}};
}

static void take_limits(struct worker *worker, struct limits_item *item)
{
	http_server_set_max_body(worker->server, item->limits.max_body);
	relay_set_limits(worker->relay, item->limits.proxy_max_body, item->limits.silence_ms);
	exec_endpoint_set_limits(worker->endpoint, &item->limits.exec);
	worker->announces = item->limits.exec.announces;
	free(item);
}

static void on_wish(void *ctx, struct mailbox_item *item)
{
	struct worker *worker = ctx;
	struct wish_item *wish = CONTAINER_OF(item, struct wish_item, item);
	if (worker->stopping) {
		if (wish->wish == WISH_LIMITS)
			free(wish);
		return;
	}
	switch (wish->wish) {
	case WISH_LIMITS:
		take_limits(worker, CONTAINER_OF(wish, struct limits_item, wish));
		break;
	case WISH_DRAIN:
		begin_drain(worker);
		break;
	case WISH_REFUSE:
		refuse(worker);
		break;
	case WISH_QUIESCE:
		refuse(worker);
		http_server_refuse(worker->server);
		uv_timer_start(&worker->idle_timer, on_handshakes_over, HANDSHAKE_MS, IDLE_POLL_MS);
		break;
	case WISH_STOP:
		worker->stopping = true;
		uv_timer_stop(&worker->idle_timer);
		http_server_stop(worker->server, on_server_stopped, worker);
		break;
	}
}

static int make_tunnels(struct worker *worker)
{
	const struct config *config = worker->options.config;
	struct tunnels_options options = {
		.loop = &worker->loop,
		.max = worker->options.max_websockets,
		.idle_ms = (unsigned)config->websocket_idle_seconds * 1000,
		.drain_ms = (unsigned)config->websocket_drain_seconds * 1000,
	};
	if (!options.max)
		return 0;
	worker->tunnels = tunnels_new(&options);
	return worker->tunnels ? 0 : -1;
}

static int make_upstream(struct worker *worker, char error[WORKER_ERROR_LEN])
{
	worker->curl = curl_driver_new(&worker->loop);
	if (!worker->curl)
		return -1;
	struct connection_pool_options connections;
	connection_pool_defaults(&connections);
	connections.driver = worker->curl;
	connections.loop = &worker->loop;
	connections.url = worker->options.config->datasette_url;
	connections.ca_file = worker->options.config->datasette_ca_file;
	connections.max_connections = worker->options.max_datasette;
	char reason[CONNECTION_ERROR_LEN];
	worker->connections = connection_pool_new(&connections, reason);
	if (!worker->connections) {
		snprintf(error, WORKER_ERROR_LEN, "datasette_url: %.200s", reason);
		return -1;
	}
	worker->exchanges = exchange_pool_new(worker->connections, &worker->loop);
	if (!worker->exchanges || make_tunnels(worker) < 0)
		return -1;
	struct relay_options relay;
	relay_defaults(&relay);
	relay.exchanges = worker->exchanges;
	relay.cache = worker->options.cache;
	relay.cache_stale_seconds = (unsigned)worker->options.config->cache_stale_seconds;
	relay.loop = &worker->loop;
	relay.tunnels = worker->tunnels;
	relay.forward.trusted = worker->options.trusted;
	relay.on_finished = on_relayed;
	relay.on_renewed = on_fetched;
	relay.ctx = worker;
	worker->relay = relay_new(&relay);
	if (!worker->relay)
		return -1;
	const struct limits limits = limits_of(worker, worker->options.config);
	relay_set_limits(worker->relay, limits.proxy_max_body, limits.silence_ms);
	return 0;
}

static bool is_datasette_down(void *ctx)
{
	const struct worker *worker = ctx;
	return !meters_datasette_up(&worker->meters);
}

static void on_probed(void *ctx, bool answered)
{
	struct worker *worker = ctx;
	meters_datasette(&worker->meters, answered);
}

static int make_probe(struct worker *worker)
{
	struct probe_options options = {.loop = &worker->loop,
					.exchanges = worker->exchanges,
					.host = connection_pool_authority(worker->connections),
					.is_wanted = is_datasette_down,
					.on_outcome = on_probed,
					.ctx = worker};
	if (!worker->options.probes_datasette)
		return 0;
	worker->probe = probe_new(&options);
	return worker->probe ? 0 : -1;
}

static struct slice client_address(void *ctx, const struct http_head *head)
{
	const struct worker *worker = ctx;
	struct forward_options options = {.trusted = worker->options.trusted};
	return forward_client_of(head, &options).address;
}

static void on_written(void *ctx, struct slice path)
{
	struct worker *worker = ctx;
	if (worker->options.cache)
		cache_invalidate(worker->options.cache, path);
}

static int make_endpoint(struct worker *worker)
{
	const struct config *config = worker->options.config;
	struct relay_options relay;
	relay_defaults(&relay);
	relay.forward.trusted = worker->options.trusted;
	struct exec_endpoint_options options = {
		.loop = &worker->loop,
		.agent = worker->options.agent,
		.admission = {.redis_url = config->redis_url,
			      .timeout_ms = (unsigned)config->redis_timeout_ms,
			      .pepper = &config->pepper,
			      .max_pending = MAX_REDIS_PENDING,
			      .max_unsettled = MAX_REDIS_PENDING,
			      .unsettled = worker->options.unsettled,
			      .degraded = worker->options.degraded,
			      .observer = meters_admission(&worker->meters)},
		.metrics = worker->options.metrics,
		.log_request = log_request,
		.audit = worker->options.audit,
		.tracer = worker->options.tracer,
		.limits = limits_of(worker, config).exec,
		.wait_ms = config->pool_wait_seconds * 1000,
		.session_idle_ms = config->session_idle_seconds * 1000,
		.session_age_ms = config->session_max_age_seconds * 1000,
		.wrong_token_burst = config->wrong_token_burst,
		.client = client_address,
		.on_fetched = on_fetched,
		.on_written = on_written,
		.client_ctx = worker,
		.mcp_hosts = slice_str(config->mcp_hosts),
		.exchanges = worker->exchanges,
		.forward = relay.forward,
		.identity = {.rules = config->identity_rules, .action = config->identity_action, .pepper = &config->pepper},
		.identity_ms = config->identity_cache_seconds * 1000,
		.datasette_ms = (unsigned)config->datasette_timeout_ms,
	};
	worker->endpoint = exec_endpoint_new(&options);
	return worker->endpoint ? 0 : -1;
}

static int make_server(struct worker *worker)
{
	const struct config *config = worker->options.config;
	struct http_server_options options;
	http_server_defaults(&options);
	options.loop = &worker->loop;
	options.listen_fd = worker->options.listen_fd;
	worker->options.listen_fd = -1;
	options.max_head = config->max_head_bytes;
	options.idle_timeout_ms = (unsigned)config->client_idle_seconds * 1000;
	options.max_body = limits_of(worker, config).max_body;
	options.max_connections = worker->options.max_connections;
	options.max_in_flight = worker->options.max_requests;
	options.upgrades = worker->tunnels;
	options.census = worker->options.census;
	options.exempt = &worker->options.trusted;
	options.on_request = on_request;
	options.ctx = worker;
	options.observer = (struct http_observer){
		.ctx = worker, .on_begun = on_begun, .on_finished = on_finished, .on_rejected = on_rejected, .on_crowded = on_crowded};
	worker->server = http_server_new(&options);
	return worker->server ? 0 : -1;
}

static int make_loop(struct worker *worker)
{
	int r = uv_loop_init(&worker->loop);
	if (r == 0)
		r = mailbox_init(&worker->mailbox, &worker->loop, ARRAY_LEN(worker->wishes), on_wish, worker);
	if (r < 0)
		return r;
	uv_prepare_init(&worker->loop, &worker->turn);
	uv_timer_init(&worker->loop, &worker->idle_timer);
	worker->turn.data = worker->idle_timer.data = worker;
	return 0;
}

/* A start-up that fails ends the process: what was made so far is left to that. */
struct worker *worker_new(const struct worker_options *options, char error[WORKER_ERROR_LEN])
{
	struct worker *worker = calloc(1, sizeof *worker);
	snprintf(error, WORKER_ERROR_LEN, "a worker could not be made");
	if (!worker)
		return NULL;
	worker->options = *options;
	worker->announces = limits_of(worker, options->config).exec.announces;
	meters_init(&worker->meters, options->metrics, options->peers);
	access_log_init(&worker->log, options->access_fd);
	for (unsigned i = 0; i < ARRAY_LEN(worker->wishes); i++)
		worker->wishes[i].wish = (enum wish)i;
	if (make_loop(worker) < 0 || make_upstream(worker, error) < 0 || make_probe(worker) < 0 || make_endpoint(worker) < 0 ||
	    make_server(worker) < 0)
		return NULL;
	return worker;
}

static void run(void *arg)
{
	struct worker *worker = arg;
	uv_prepare_start(&worker->turn, on_turn);
	uv_run(&worker->loop, UV_RUN_DEFAULT);
	access_log_flush(&worker->log);
	worker->options.on_stopped(worker->options.ctx);
}

int worker_start(struct worker *worker)
{
	int r = uv_thread_create(&worker->thread, run, worker);
	worker->started = r == 0;
	return r;
}

static void ask(struct worker *worker, enum wish wish)
{
	struct wish_item *item = &worker->wishes[wish];
	if (!atomic_exchange(&item->asked, true) && mailbox_reply(&worker->mailbox, &item->item) != 0)
		log_error("worker: could not be told to stop");
}

bool worker_reload(struct worker *worker, const struct config *config)
{
	struct limits_item *item = calloc(1, sizeof *item);
	if (!item)
		return false;
	item->wish.wish = WISH_LIMITS;
	item->limits = limits_of(worker, config);
	if (mailbox_reply(&worker->mailbox, &item->wish.item) != 0)
		free(item); /* it ends */
	return true;
}

void worker_drain(struct worker *worker)
{
	ask(worker, WISH_DRAIN);
}

void worker_refuse(struct worker *worker)
{
	ask(worker, WISH_REFUSE);
}

void worker_quiesce(struct worker *worker)
{
	ask(worker, WISH_QUIESCE);
}

void worker_stop(struct worker *worker)
{
	ask(worker, WISH_STOP);
}

void worker_free(struct worker *worker)
{
	if (worker->started)
		uv_thread_join(&worker->thread);
	if (uv_loop_close(&worker->loop) != 0)
		log_error("worker: its loop still has handles");
	access_log_deinit(&worker->log);
	free(worker);
}

const struct meters *worker_meters(const struct worker *worker)
{
	return &worker->meters;
}
