#include "gateway/serve.h"

#include "gateway/admin.h"
#include "gateway/audit_table.h"
#include "gateway/base/clock.h"
#include "gateway/base/log.h"
#include "gateway/confine.h"
#include "gateway/exec/agent.h"
#include "gateway/http/census.h"
#include "gateway/http/listener.h"
#include "gateway/otlp.h"
#include "gateway/reload.h"
#include "gateway/sprites/sprites_provider.h"
#include "gateway/telemetry/process.h"
#include "gateway/worker.h"
#include "policy/degraded.h"
#include "policy/redis_url.h"
#include "policy/unsettled.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define MAX_WORKERS       64
#define MAX_JOBS          256
#define MAX_UNSETTLED     UNSETTLED_MAX
#define MAX_REDIS_PENDING 1024
#define VANISHED_MS       3000 /* a client that is there but takes nothing is cut before, and told apart (http/sweep.c) */
#define STOP_RESERVE_MS   5000 /* of DRAIN_SECONDS: for cancelling, destroying and settling what is left */

/* A worker says one of these about itself, from its own thread. */
struct worker_slot {
	struct worker *worker;
	struct gateway *gateway;
	struct mailbox_item idle, stopped;
};

struct gateway {
	const struct config *config;
	const char *file;
	const struct config *live; /* the settings read last: of these the live ones are in force */
	uv_loop_t loop;
	struct mailbox mailbox;
	uv_signal_t signals[2], reopen;
	uv_timer_t timer;
	struct metrics *metrics;
	struct peers peers;
	struct meters meters;
	struct curl_driver *curl;
	struct sprites_provider *provider;
	char pool_label[64];
	struct cache *cache;   /* NULL = off */
	struct census *census; /* NULL = not limited */
	struct limits_plan plan;
	struct audit *audit;
	struct audit_table *audit_table;
	struct tracer *tracer; /* NULL = off, and otlp */
	struct otlp *otlp;
	struct unsettled *unsettled; /* NULL = off */
	struct degraded *degraded;   /* NULL = off */
	struct exec_agent *agent;
	struct admin *admin;
	struct worker_slot slots[MAX_WORKERS];
	unsigned workers, idle, stopped;
	int access_fd, audit_fd;
	bool draining, stopping, agent_drained;
};

static int fail(const char *what, const char *why)
{
	fprintf(stderr, "spritegate: %s: %s\n", what, why);
	return -1;
}

/* Taking down, in reverse order: workers, agent, provider, admin, the loop's own handles. */

static void ignore_closed(uv_handle_t *handle UNUSED)
{
}

static void ignore(void *ctx UNUSED)
{
}

static void on_admin_stopped(void *ctx)
{
	struct gateway *gateway = ctx;
	for (size_t i = 0; i < ARRAY_LEN(gateway->signals); i++)
		uv_close((uv_handle_t *)&gateway->signals[i], ignore_closed);
	uv_close((uv_handle_t *)&gateway->reopen, ignore_closed);
	uv_close((uv_handle_t *)&gateway->timer, ignore_closed);
	mailbox_close(&gateway->mailbox, ignore);
}

static void on_otlp_freed(void *ctx)
{
	struct gateway *gateway = ctx;
	curl_driver_free(gateway->curl);
	admin_stop(gateway->admin, on_admin_stopped, gateway);
}

static void on_tracer_freed(void *ctx)
{
	struct gateway *gateway = ctx;
	otlp_free(TAKE(gateway->otlp), on_otlp_freed, gateway);
}

static void on_audit_table_freed(void *ctx)
{
	struct gateway *gateway = ctx;
	tracer_free(TAKE(gateway->tracer), on_tracer_freed, gateway);
}

static void on_audit_freed(void *ctx)
{
	struct gateway *gateway = ctx;
	audit_table_free(TAKE(gateway->audit_table), on_audit_table_freed, gateway);
}

static void on_agent_freed(void *ctx)
{
	struct gateway *gateway = ctx;
	sprites_provider_free(gateway->provider);
	audit_free(TAKE(gateway->audit), on_audit_freed, gateway);
}

static void maybe_free_agent(struct gateway *gateway)
{
	if (gateway->stopped == gateway->workers && gateway->agent_drained)
		exec_agent_free(TAKE(gateway->agent), on_agent_freed, gateway);
}

static void stop_workers(struct gateway *gateway)
{
	if (gateway->stopping)
		return;
	gateway->stopping = true;
	uv_timer_stop(&gateway->timer);
	for (unsigned i = 0; i < gateway->workers; i++)
		worker_stop(gateway->slots[i].worker);
}

static void maybe_stop_workers(struct gateway *gateway)
{
	if (gateway->idle == gateway->workers && gateway->agent_drained)
		stop_workers(gateway);
}

static void on_agent_drained(void *ctx)
{
	struct gateway *gateway = ctx;
	gateway->agent_drained = true;
	maybe_stop_workers(gateway);
	maybe_free_agent(gateway);
}

static void on_drain_deadline(uv_timer_t *timer)
{
	struct gateway *gateway = timer->data;
	log_warning("drain: the deadline has come, what is left is cut");
	stop_workers(gateway);
}

static uint64_t drain_ms(const struct gateway *gateway)
{
	uint64_t all = gateway->live->drain_seconds * 1000;
	return all > STOP_RESERVE_MS ? all - STOP_RESERVE_MS : all / 2;
}

static uint64_t min_ms(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t accept_ms(const struct gateway *gateway)
{
	return min_ms(1000 * gateway->live->drain_accept_seconds, 1000 * gateway->live->drain_seconds / 2);
}

static void refuse_commands(struct gateway *gateway)
{
	for (unsigned i = 0; i < gateway->workers; i++)
		worker_refuse(gateway->slots[i].worker);
	exec_agent_drain(gateway->agent, drain_ms(gateway) - min_ms(accept_ms(gateway), drain_ms(gateway)), on_agent_drained, gateway);
}

static void on_accepted_long_enough(uv_timer_t *timer)
{
	struct gateway *gateway = timer->data;
	refuse_commands(gateway);
	for (unsigned i = 0; i < gateway->workers; i++)
		worker_quiesce(gateway->slots[i].worker);
	uv_timer_start(timer, on_drain_deadline, gateway->live->drain_seconds * 1000 - accept_ms(gateway), 0);
}

static void begin_drain(struct gateway *gateway)
{
	gateway->draining = true;
	for (unsigned i = 0; i < gateway->workers; i++)
		worker_drain(gateway->slots[i].worker);
	log_info("drain: begun; a second signal ends it at once");
	uv_timer_start(&gateway->timer, on_accepted_long_enough, accept_ms(gateway), 0);
}

static void on_signal(uv_signal_t *signal, int number UNUSED)
{
	struct gateway *gateway = signal->data;
	if (!gateway->draining) {
		begin_drain(gateway);
		return;
	}
	log_warning("drain: second signal, what is left is cut");
	if (gateway->agent)
		exec_agent_drain(gateway->agent, 0, on_agent_drained, gateway);
	stop_workers(gateway);
}

static size_t pool_size(uint64_t size)
{
	return size == CONFIG_AUTO ? SIZING_AUTO : (size_t)size;
}

static bool apply(struct gateway *gateway, const struct config *fresh)
{
	bool all = true;
	for (unsigned i = 0; i < gateway->workers; i++)
		all &= !gateway->slots[i].worker || worker_reload(gateway->slots[i].worker, fresh);
	if (!all)
		log_error("reload: out of memory, a worker has its old limits");
	exec_agent_resize(gateway->agent, pool_size(fresh->pool_hot), pool_size(fresh->pool_warm));
	return all;
}

static void note_reload(struct gateway *gateway, bool ok)
{
	struct metrics_shard *shard = gateway->meters.shard;
	metrics_set(shard, METRIC_RELOAD_OK, METRICS_NONE, ok);
	if (ok)
		metrics_set(shard, METRIC_RELOAD_SECONDS, METRICS_NONE, clock_wall_ms() * 1000);
}

static void reload(struct gateway *gateway)
{
	if (!gateway->file || gateway->draining)
		return;
	struct config *fresh = reload_read(gateway->file, gateway->config, gateway->live);
	note_reload(gateway, fresh && apply(gateway, fresh));
	if (!fresh)
		return;
	reload_free(gateway->live, gateway->config);
	gateway->live = fresh;
}

/* Log rotation has moved the files away, or the settings have changed. */
static void on_reopen(uv_signal_t *signal, int number UNUSED)
{
	struct gateway *gateway = signal->data;
	int r = access_log_reopen(gateway->config->access_log, gateway->access_fd);
	if (r < 0)
		log_error("access_log: cannot be opened anew, the old file is kept: %s", strerror(-r));
	audit_reopen(gateway->audit);
	log_info("log files are opened anew");
	reload(gateway);
}

static void on_message(void *ctx, struct mailbox_item *item)
{
	struct gateway *gateway = ctx;
	for (unsigned i = 0; i < gateway->workers; i++) {
		if (item == &gateway->slots[i].idle)
			gateway->idle++;
		if (item == &gateway->slots[i].stopped) {
			gateway->stopped++;
			worker_free(TAKE(gateway->slots[i].worker));
		}
	}
	if (!gateway->stopping)
		maybe_stop_workers(gateway);
	else if (gateway->agent)
		maybe_free_agent(gateway);
}

static void on_worker_idle(void *ctx)
{
	struct worker_slot *slot = ctx;
	if (mailbox_reply(&slot->gateway->mailbox, &slot->idle) != 0)
		log_error("serve: a worker's message was lost");
}

static void on_worker_stopped(void *ctx)
{
	struct worker_slot *slot = ctx;
	if (mailbox_reply(&slot->gateway->mailbox, &slot->stopped) != 0)
		log_error("serve: a worker's message was lost");
}

/* What the admin listener asks. */

static void judge(const struct gateway *gateway, bool *redis_up, unsigned *breaker, bool *datasette_up)
{
	*redis_up = meters_redis_up(&gateway->meters);
	*datasette_up = meters_datasette_up(&gateway->meters);
	*breaker = gateway->meters.redis_breaker;
	for (unsigned i = 0; i < gateway->workers; i++) {
		if (!gateway->slots[i].worker)
			continue;
		const struct meters *meters = worker_meters(gateway->slots[i].worker);
		*breaker = meters->redis_breaker > *breaker ? meters->redis_breaker : *breaker;
	}
}

static void collect(void *ctx)
{
	struct gateway *gateway = ctx;
	struct metrics_shard *shard = gateway->meters.shard;
	process_collect(shard);
	metrics_set(shard, METRIC_BUILD_INFO, METRICS_NONE, 1);
	if (gateway->cache)
		metrics_set(shard, METRIC_CACHE_BYTES, METRICS_NONE, cache_bytes(gateway->cache));
	const uint64_t dropped[] = {gateway->audit ? audit_dropped(gateway->audit) : 0, audit_table_dropped(gateway->audit_table)};
	for (unsigned i = 0; i < ARRAY_LEN(dropped); i++)
		metrics_set(shard, METRIC_AUDIT_DROPPED, (struct metrics_labels){{i}}, dropped[i]);
	const uint64_t spans[] = {otlp_sent(gateway->otlp), otlp_dropped(gateway->otlp) + tracer_dropped(gateway->tracer)};
	for (unsigned i = 0; i < ARRAY_LEN(spans); i++)
		metrics_set(shard, METRIC_TRACE_SPANS, (struct metrics_labels){{i}}, spans[i]);
	if (!gateway->agent)
		return;
	bool redis_up, datasette_up;
	unsigned breaker;
	judge(gateway, &redis_up, &breaker, &datasette_up);
	metrics_set(shard, METRIC_REDIS_UP, METRICS_NONE, redis_up);
	if (gateway->degraded)
		metrics_set(shard, METRIC_EXEC_DEGRADED_UNBOOKED, METRICS_NONE, degraded_unbooked_ms(gateway->degraded) / 1000);
	metrics_set(shard, METRIC_REDIS_BREAKER, METRICS_NONE, breaker);
	metrics_set(shard, METRIC_UPSTREAM_HEALTHY, METRICS_NONE, datasette_up);
	exec_agent_collect(gateway->agent);
}

static void tell_health(void *ctx, struct admin_health *health)
{
	struct gateway *gateway = ctx;
	unsigned breaker;
	health->draining = gateway->draining || !gateway->agent;
	if (!gateway->agent)
		return;
	struct pool_counts counts;
	exec_agent_counts(gateway->agent, &counts);
	health->hot = counts.members[POOL_HOT];
	health->hot_target = counts.hot_target;
	health->leased = counts.members[POOL_LEASED];
	health->filled = exec_agent_filled(gateway->agent);
	judge(gateway, &health->redis_up, &breaker, &health->datasette_up);
	health->degrades = gateway->degraded;
}

static struct exec_agent *agent_of(void *ctx)
{
	struct gateway *gateway = ctx;
	return gateway->agent;
}

/* Building up. A failure ends the process, which gives back whatever was made. */

static int make_loop(struct gateway *gateway)
{
	static const int numbers[] = {SIGTERM, SIGINT};
	int r = uv_loop_init(&gateway->loop);
	if (r == 0)
		r = mailbox_init(&gateway->mailbox, &gateway->loop, 1, on_message, gateway);
	if (r == 0)
		r = uv_timer_init(&gateway->loop, &gateway->timer);
	gateway->timer.data = gateway;
	for (size_t i = 0; r == 0 && i < ARRAY_LEN(numbers); i++) {
		r = uv_signal_init(&gateway->loop, &gateway->signals[i]);
		gateway->signals[i].data = gateway;
		if (r == 0)
			r = uv_signal_start(&gateway->signals[i], on_signal, numbers[i]);
	}
	if (r == 0)
		r = uv_signal_init(&gateway->loop, &gateway->reopen);
	gateway->reopen.data = gateway;
	if (r == 0)
		r = uv_signal_start(&gateway->reopen, on_reopen, SIGHUP);
	return r < 0 ? fail("event loop", uv_strerror(r)) : 0;
}

static int make_provider(const struct config *config, uv_loop_t *loop, struct curl_driver *curl,
			 const struct sprites_provider_options *options, struct sprites_provider **provider)
{
	int r = sprites_provider_new(loop, curl, config->sprites_url, &config->sprites_token, options, provider);
	if (r < 0)
		return fail("sprites_url or sprites_token",
			    r == -EINVAL ? "not usable (expected https://host or http://host:port, and a token)" : strerror(-r));
	return 0;
}

static void on_audit_line(void *ctx, struct slice line)
{
	struct gateway *gateway = ctx;
	if (gateway->audit_table)
		audit_table_add(gateway->audit_table, line);
}

static int make_audit(struct gateway *gateway)
{
	const struct config *config = gateway->config;
	bool has_table = *config->audit_table;
	if (!has_table && strcmp(config->audit_log, "off") == 0)
		return 0;
	struct audit_table_options table = {.loop = &gateway->loop,
					    .curl = gateway->curl,
					    .datasette_url = config->datasette_url,
					    .datasette_ca_file = config->datasette_ca_file,
					    .where = config->audit_table,
					    .token = &config->audit_token};
	gateway->audit_table = has_table ? audit_table_new(&table) : NULL;
	if (has_table && !gateway->audit_table)
		return fail("audit_table", "could not be made");
	struct audit_options audit = {.loop = &gateway->loop,
				      .fd = gateway->audit_fd,
				      .where = config->audit_log,
				      .instance = config->instance,
				      .on_line = on_audit_line,
				      .ctx = gateway};
	gateway->audit = audit_new(&audit);
	return gateway->audit ? 0 : fail("audit_log", "out of memory");
}

static void on_span(void *ctx, struct slice span)
{
	struct gateway *gateway = ctx;
	otlp_add(gateway->otlp, span);
}

static int make_tracer(struct gateway *gateway, const struct metrics_build *identity)
{
	const struct config *config = gateway->config;
	if (!*config->otlp_url)
		return 0;
	char error[OTLP_ERROR_LEN];
	struct otlp_options otlp = {.loop = &gateway->loop,
				    .curl = gateway->curl,
				    .url = config->otlp_url,
				    .headers = &config->otlp_headers,
				    .version = identity->version,
				    .instance = config->instance};
	gateway->otlp = otlp_new(&otlp, error);
	if (!gateway->otlp)
		return fail("otlp_url", error);
	gateway->tracer = tracer_new(&(struct tracer_options){.loop = &gateway->loop, .on_span = on_span, .ctx = gateway});
	return gateway->tracer ? 0 : fail("otlp_url", "out of memory");
}

static void on_superseded(void *ctx)
{
	struct gateway *gateway = ctx;
	if (gateway->draining)
		return;
	begin_drain(gateway);
	refuse_commands(gateway); /* its Sprites are another's */
}

static int make_agent(struct gateway *gateway, const struct metrics_build *identity)
{
	const struct config *config = gateway->config;
	gateway->curl = curl_driver_new(&gateway->loop);
	if (!gateway->curl)
		return fail("agent", "out of memory");
	if (make_audit(gateway) < 0 || make_tracer(gateway, identity) < 0)
		return -1;
	snprintf(gateway->pool_label, sizeof gateway->pool_label, "pool=%s", config->pool_name);
	struct sprites_provider_options provider = {.observer = meters_sprites(&gateway->meters),
						    .restorable = config->pool_recycle,
						    .ahead = config->pool_ahead && config->exec_verify_bytes,
						    .label = config->pool_shared ? gateway->pool_label : NULL};
	if (make_provider(config, &gateway->loop, gateway->curl, &provider, &gateway->provider) < 0)
		return -1;
	struct exec_agent_options agent = {
		.loop = &gateway->loop,
		.provider = sprites_provider_interface(gateway->provider),
		.instance = config->instance,
		.sizing = {.hot = pool_size(config->pool_hot),
			   .warm = pool_size(config->pool_warm),
			   .max = config->pool_max,
			   .running_limit = config->pool_running_limit,
			   .warm_limit = config->pool_warm_limit,
			   .create_limit = config->pool_creates_per_minute,
			   .create_window_us = 60000000},
		.usd_per_day = config->pool_usd_per_day,
		.recycle = config->pool_recycle,
		.pool_name = config->pool_shared ? config->pool_name : NULL,
		.session_idle_ms = config->session_idle_seconds * 1000,
		.session_age_ms = config->session_max_age_seconds * 1000,
		.pool_wait_ms = config->pool_wait_seconds * 1000,
		.verify_bytes = config->exec_verify_bytes,
		.result_bytes = config->exec_result_bytes,
		.insert_rows = config->datasette_insert_rows,
		.max_jobs = MAX_JOBS,
		.settlement = {.redis_url = config->redis_url,
			       .timeout_ms = (unsigned)config->redis_timeout_ms,
			       .pepper = &config->pepper,
			       .max_pending = MAX_REDIS_PENDING,
			       .max_unsettled = MAX_UNSETTLED,
			       .unsettled = gateway->unsettled,
			       .degraded = gateway->degraded,
			       .observer = meters_admission(&gateway->meters)},
		.metrics = gateway->meters.shard,
		.audit = gateway->audit,
		.tracer = gateway->tracer,
		.on_superseded = on_superseded,
		.ctx = gateway,
	};
	gateway->agent = exec_agent_new(&agent);
	return gateway->agent ? 0 : fail("agent", "could not be made");
}

static int open_listeners(const struct config *config, const char *name, const char *where, int *fds, size_t count)
{
	struct listener_address address;
	char error[LISTENER_ERROR_LEN], why[LISTENER_ERROR_LEN + 80];
	int r = listener_parse(slice_str(where), &address, error);
	if (r < 0)
		return fail(name, error);
	r = listener_open(&address, (unsigned)config->client_idle_seconds * 1000 + VANISHED_MS, fds, count, error);
	if (r == 0)
		return 0;
	snprintf(why, sizeof why, "%.64s: %s", where, error);
	return fail(name, why);
}

static int make_admin(struct gateway *gateway, int listen_fd)
{
	struct admin_options options = {.loop = &gateway->loop,
					.listen_fd = listen_fd,
					.metrics = gateway->metrics,
					.collect = collect,
					.instance = gateway->config->instance,
					.token = &gateway->config->admin_token,
					.health = tell_health,
					.agent = agent_of,
					.ctx = gateway};
	gateway->admin = admin_new(&options);
	return gateway->admin ? 0 : fail("admin", "could not be made");
}

static int make_worker(struct gateway *gateway, unsigned i, int listen_fd, const struct peer_set *trusted)
{
	struct worker_slot *slot = &gateway->slots[i];
	char error[WORKER_ERROR_LEN];
	struct worker_options options = {
		.config = gateway->config,
		.agent = exec_agent_mailbox(gateway->agent),
		.metrics = metrics_shard(gateway->metrics, i + 1),
		.peers = &gateway->peers,
		.probes_datasette = i == 0,
		.listen_fd = listen_fd,
		.access_fd = gateway->access_fd,
		.audit = gateway->audit,
		.tracer = gateway->tracer,
		.trusted = *trusted,
		.cache = gateway->cache,
		.unsettled = gateway->unsettled,
		.degraded = gateway->degraded,
		.census = gateway->census,
		.max_connections = limits_share(gateway->plan.connections, gateway->workers),
		.max_requests = limits_share(gateway->plan.requests, gateway->workers),
		.max_bodies = gateway->plan.bodies / gateway->workers,
		.max_websockets = limits_share(gateway->plan.websockets, gateway->workers),
		.max_datasette = limits_share(gateway->plan.datasette, gateway->workers),
		.on_idle = on_worker_idle,
		.on_stopped = on_worker_stopped,
		.ctx = slot,
	};
	slot->gateway = gateway;
	slot->worker = worker_new(&options, error);
	return slot->worker ? 0 : fail("worker", error);
}

static int make_workers(struct gateway *gateway, const int *listen_fds)
{
	struct peer_set trusted;
	if (peer_set_parse(slice_str(gateway->config->trusted_proxies), &trusted) < 0)
		return fail("trusted_proxies", "expected networks such as 10.0.0.0/8, separated by commas");
	for (unsigned i = 0; i < gateway->workers; i++)
		if (make_worker(gateway, i, listen_fds[i], &trusted) < 0)
			return -1;
	for (unsigned i = 0; i < gateway->workers; i++)
		if (worker_start(gateway->slots[i].worker) < 0) {
			fail("worker", "the thread could not be started");
			_exit(EXIT_FAILURE); /* the threads before it use what returning would free */
		}
	return 0;
}

static void say_room(const char *name, uint64_t wanted, uint64_t fit, const char *what)
{
	if (fit < wanted)
		log_info("%s: %s leaves room for %llu", name, what, (unsigned long long)fit);
}

static int plan_room(struct gateway *gateway)
{
	struct limits_wanted wanted = serve_wanted(gateway->config);
	wanted.descriptors = limits_raise();
	gateway->workers = wanted.workers;
	gateway->plan = limits_plan(&wanted);
	/* serve_check() has seen that more may be had. */
	if (wanted.descriptors < gateway->plan.needed)
		return fail("descriptors", "the limit cannot be raised");
	static const char descriptors[] = "the limit of descriptors", memory[] = "client_memory_bytes";
	if (!gateway->config->client_memory_bytes && wanted.memory == gateway->plan.memory_needed)
		log_warning("client_memory_bytes: half of the memory is not enough for %u workers, clients may take %llu", wanted.workers,
			    (unsigned long long)wanted.memory);
	say_room("max_connections", wanted.connections, gateway->plan.connections, gateway->plan.memory_decides ? memory : descriptors);
	say_room("max_requests", wanted.requests, gateway->plan.requests, memory);
	say_room("max_websockets", wanted.websockets, gateway->plan.websockets, descriptors);
	return 0;
}

static int limit_clients(struct gateway *gateway)
{
	if (plan_room(gateway) < 0)
		return -1;
	if (!gateway->config->max_connections_per_address)
		return 0;
	gateway->census = census_new((unsigned)gateway->config->max_connections_per_address);
	return gateway->census ? 0 : fail("max_connections_per_address", "out of memory");
}

static int make_cache(struct gateway *gateway)
{
	if (!gateway->config->cache_bytes)
		return 0;
	gateway->cache = cache_new(gateway->config->cache_bytes);
	return gateway->cache ? 0 : fail("cache_bytes", "out of memory");
}

/* After what only a start needs, such as an address that is root's, and before there is a thread or a loop: libuv would have calls made
 * through an io_uring, where no filter sees them. */
static int confine(const struct config *config)
{
#ifdef SPRITEGATE_SANITIZED /* sanitizers need rights and calls of their own */
	return 0;
#endif
	int r = confine_rights();
	if (r < 0)
		return fail("capabilities", strerror(-r));
	r = config->seccomp ? confine_calls() : 0;
	return r < 0 ? fail("seccomp", strerror(-r)) : 0;
}

static int make_degraded(struct gateway *gateway)
{
	const struct config *config = gateway->config;
	const struct degraded_options options = {.trust_ms = config->degraded_trust_seconds * 1000,
						 .budget_ms = config->degraded_budget_seconds * 1000,
						 .gateways = (unsigned)config->degraded_gateways};
	if (!config_degrades(config))
		return 0;
	gateway->degraded = degraded_new(&options);
	return gateway->degraded ? 0 : fail("redis_down", "out of memory");
}

static int open_unsettled(struct gateway *gateway)
{
	const char *path = gateway->config->settlements_file;
	if (!*path)
		return 0;
	gateway->unsettled = unsettled_new(path);
	const char *why = gateway->unsettled ? unsettled_open(gateway->unsettled) : "out of memory";
	return why ? fail("settlements_file", why) : 0;
}

static int open_log(const char *name, const char *where, int *fd)
{
	int r = access_log_open(where, fd);
	return r < 0 ? fail(name, strerror(-r)) : 0;
}

/* Files that perhaps only a start may write: before rights are given up. */
static int open_files(struct gateway *gateway)
{
	const struct config *config = gateway->config;
	if (open_log("access_log", config->access_log, &gateway->access_fd) < 0 ||
	    open_log("audit_log", config->audit_log, &gateway->audit_fd) < 0)
		return -1;
	return open_unsettled(gateway);
}

static int build(struct gateway *gateway, const struct metrics_build *identity)
{
	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN); /* until there is a loop to read the settings anew: it would end the process */
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		return fail("curl", "could not be initialised");
	if (open_files(gateway) < 0 || limit_clients(gateway) < 0 || make_cache(gateway) < 0 || make_degraded(gateway) < 0)
		return -1;
	gateway->metrics = metrics_new(gateway->workers + 1, identity);
	if (!gateway->metrics)
		return fail("metrics", "out of memory");
	meters_init(&gateway->meters, metrics_shard(gateway->metrics, 0), &gateway->peers);
	/* First of all the addresses: a process that was started twice must not disturb the one that serves. */
	int admin_fd, listen_fds[MAX_WORKERS];
	if (open_listeners(gateway->config, "admin_listen", gateway->config->admin_listen, &admin_fd, 1) < 0 ||
	    open_listeners(gateway->config, "listen", gateway->config->listen, listen_fds, gateway->workers) < 0)
		return -1;
	if (confine(gateway->config) < 0 || make_loop(gateway) < 0 || make_agent(gateway, identity) < 0 ||
	    make_admin(gateway, admin_fd) < 0)
		return -1;
	return make_workers(gateway, listen_fds);
}

int serve(const struct config *config, const char *file, const struct metrics_build *identity)
{
	static struct gateway gateway;
	gateway.config = gateway.live = config;
	gateway.file = file;
	if (build(&gateway, identity) < 0)
		return 1;
	note_reload(&gateway, true);
	log_info("serving on %s with %u workers as instance %s, admin on %s", config->listen, gateway.workers, config->instance,
		 config->admin_listen);
	uv_run(&gateway.loop, UV_RUN_DEFAULT);
	if (gateway.unsettled)
		unsettled_save(gateway.unsettled);
	unsettled_free(gateway.unsettled);
	degraded_free(gateway.degraded);
	reload_free(gateway.live, config);
	metrics_free(gateway.metrics);
	census_free(gateway.census);
	cache_free(gateway.cache);
	if (uv_loop_close(&gateway.loop) != 0)
		log_error("serve: the loop still has handles");
	curl_global_cleanup();
	log_info("stopped");
	return 0;
}
