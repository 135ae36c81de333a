#include "gateway/telemetry/metrics_table.h"

#define VALUES(list) (list), ARRAY_LEN(list)

static const char *const routes[] = {"static", "table", "row", "exec", "gateway", "other"};
static const char *const methods[] = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other"};
static const char *const abort_sides[] = {"client", "upstream", "gateway"};
static const char *const rejections[] = {"framing", "target",       "ambiguous_path", "host",       "field",  "method", "version",
					 "expect",  "header_limit", "target_limit",   "body_limit", "parser", "other"};
static const char *const crowds[] = {"idle", "total", "address"};
static const char *const websocket_ends[] = {"client", "datasette", "idle", "drain", "gateway"};
static const char *const websocket_ways[] = {"to_datasette", "to_client"};
static const char *const cache_results[] = {"hit", "collapsed", "miss", "bypass", "stale"};
static const char *const code_classes[] = {"1xx", "2xx", "3xx", "4xx", "5xx"};
static const char *const upstream_errors[] = {"connect", "timeout", "closed", "truncated", "protocol", "internal", "other"};
static const char *const outcomes[] = {"exited", "signaled", "timed_out", "canceled", "unknown", "not_started"};
static const char *const tiers[] = {"hot", "warm", "cold", "none"};
static const char *const kept_tiers[] = {"hot", "warm"};
static const char *const decisions[] = {"allow", "deny", "error"};
static const char *const decision_reasons[] = {"granted",     "missing_token", "invalid_token", "invalid_request", "scope",
					       "command",     "rate",          "concurrency",   "budget",          "unavailable",
					       "capacity",    "draining",      "body_limit",    "abnormal_usage",  "network",
					       "environment", "idempotency",   "replayed",      "canceled",        "source",
					       "session",     "identity",      "cross_origin",  "degraded",        "other"};
static const char *const degraded_results[] = {"granted", "unknown", "rate", "concurrency", "budget", "unsupported", "other"};
static const char *const shadow_policies[] = {"rate",        "actor-rate",    "concurrency", "actor-concurrency",
					      "budget",      "output-budget", "network",     "command",
					      "environment", "input",         "other"};
static const char *const check_results[] = {"none", "unverified", "counted", "verified", "recovered", "incomplete", "failed", "other"};
static const char *const row_results[] = {"written", "in_doubt"};
static const char *const row_ends[] = {"complete", "refused", "in_doubt", "stopped", "other"};
static const char *const kill_reasons[] = {"timeout", "client_gone", "drain", "operator", "request", "source"};
static const char *const auth_failures[] = {"missing",       "malformed", "checksum",  "unknown",   "bad-mac",
					    "other-pepper",  "expired",   "revoked",   "suspended", "not-yet-valid",
					    "broken-record", "anonymous", "datasette", "other"};
static const char *const identity_results[] = {"known", "anonymous", "invalid", "denied", "failed", "cached", "other"};
static const char *const redis_errors[] = {"timeout", "error", "lost", "other"};
static const char *const pool_states[] = {"intent", "creating",  "preparing",  "warm",      "hot",
					  "leased", "recycling", "quarantine", "destroying"};
static const char *const pool_refusals[] = {"full", "deadline", "stopping", "unavailable", "budget", "busy", "other"};
static const char *const provider_codes[] = {"ok",          "gone",   "rate_limit", "capacity", "throttled", "unauthorized",
					     "unavailable", "policy", "taken",      "invalid",  "other"};
static const char *const sprites_calls[] = {"create", "get",        "delete",  "list",  "set_policy", "get_policy",
					    "kill",   "checkpoint", "restore", "label", "dial",       "other"};
static const char *const sprites_results[] = {"ok",           "gone",        "rate_limit", "capacity", "throttled",
					      "unauthorized", "unavailable", "policy",     "invalid",  "other"};

static const char *const session_events[] = {"created", "resumed", "lost", "destroyed"};
static const char *const session_ends[] = {"fenced", "flushed"};
static const char *const audit_sinks[] = {"log", "table"};
static const char *const span_results[] = {"sent", "dropped"};

static const uint64_t request_seconds[] = {5000,    10000,   25000,   50000,    100000,   250000,   500000,
					   1000000, 2500000, 5000000, 10000000, 30000000, 60000000, 300000000};
static const uint64_t fast_seconds[] = {100,   250,    500,    1000,   2500,    5000,    10000,   25000,
					50000, 100000, 250000, 500000, 1000000, 2500000, 5000000, 10000000};
static const uint64_t byte_sizes[] = {256, 1024, 4096, 16384, 65536, 262144, 1048576, 8388608, 67108864, 134217728};

#define COUNTER(n, h, ...)                                                                            \
	{                                                                                             \
		.name = "spritegate_" n, .type = METRIC_COUNTER, .help = h, .labels = { __VA_ARGS__ } \
	}
#define COUNTER_SECONDS(n, h) {.name = "spritegate_" n, .type = METRIC_COUNTER, .unit = METRIC_MICROSECONDS, .help = h}
#define GAUGE(n, h, ...)                                                                            \
	{                                                                                           \
		.name = "spritegate_" n, .type = METRIC_GAUGE, .help = h, .labels = { __VA_ARGS__ } \
	}
#define SECONDS(n, h, b, ...)                                                                                           \
	{                                                                                                               \
		.name = "spritegate_" n, .type = METRIC_HISTOGRAM, .unit = METRIC_MICROSECONDS, .help = h, .bounds = b, \
		.bound_count = ARRAY_LEN(b), .labels = {                                                                \
			__VA_ARGS__                                                                                     \
		}                                                                                                       \
	}
#define SIZES(n, h) \
	{.name = "spritegate_" n, .type = METRIC_HISTOGRAM, .help = h, .bounds = byte_sizes, .bound_count = ARRAY_LEN(byte_sizes)}
#define PROCESS(n, t, u, h) {.name = "process_" n, .type = t, .unit = u, .help = h}

const struct metric_family metric_families[METRIC_COUNT] = {
	[METRIC_HTTP_REQUESTS] =
		COUNTER("http_requests", "Requests answered.", {"route", VALUES(routes)}, {"method", VALUES(methods)}, {"code", NULL, 500}),
	[METRIC_HTTP_REQUEST_SECONDS] = SECONDS("http_request_duration_seconds", "Time from the request's head to the end of its answer.",
						request_seconds, {"route", VALUES(routes)}),
	[METRIC_HTTP_FIRST_BYTE_SECONDS] =
		SECONDS("http_response_first_byte_seconds", "Time from the request's head to its answer's first byte.", request_seconds,
			{"route", VALUES(routes)}),
	[METRIC_HTTP_IN_FLIGHT] = GAUGE("http_requests_in_flight", "Requests being answered.", {"route", VALUES(routes)}),
	[METRIC_HTTP_REQUEST_BYTES] = SIZES("http_request_size_bytes", "Body bytes received from clients."),
	[METRIC_HTTP_RESPONSE_BYTES] = SIZES("http_response_size_bytes", "Body bytes sent to clients."),
	[METRIC_HTTP_ABORTS] = COUNTER("http_aborts", "Requests cut before their end, by who cut.", {"side", VALUES(abort_sides)}),
	[METRIC_HTTP_REJECTED] = COUNTER("http_rejected", "Requests refused by the guard.", {"reason", VALUES(rejections)}),
	[METRIC_CONNECTIONS] = GAUGE("connections", "Open client connections."),
	[METRIC_CONNECTIONS_CROWDED] =
		COUNTER("connections_crowded", "Client connections closed because there were too many.", {"reason", VALUES(crowds)}),
	[METRIC_WEBSOCKETS] = GAUGE("websockets", "Open WebSockets to Datasette."),
	[METRIC_WEBSOCKET_ENDS] =
		COUNTER("websocket_ends", "WebSockets that have ended, by what ended them.", {"reason", VALUES(websocket_ends)}),
	[METRIC_WEBSOCKET_BYTES] =
		COUNTER("websocket_bytes", "Bytes of WebSockets that have ended.", {"direction", VALUES(websocket_ways)}),
	[METRIC_CACHE_REQUESTS] = COUNTER("cache_requests", "Requests to Datasette by what the response cache could do for them.",
					  {"result", VALUES(cache_results)}),
	[METRIC_CACHE_BYTES] = GAUGE("cache_bytes", "Memory of the answers in the response cache."),
	[METRIC_UPSTREAM_REQUESTS] = COUNTER("upstream_requests", "Answers of Datasette.", {"code_class", VALUES(code_classes)}),
	[METRIC_UPSTREAM_ERRORS] =
		COUNTER("upstream_errors", "Requests that Datasette did not answer properly.", {"kind", VALUES(upstream_errors)}),
	[METRIC_UPSTREAM_CONNECT_SECONDS] = SECONDS("upstream_connect_seconds", "Time to open a connection to Datasette.", fast_seconds),
	[METRIC_UPSTREAM_HEALTHY] =
		GAUGE("upstream_healthy",
		      "1 when the last exchange with Datasette worked; after one that failed Datasette is asked every second."),
	[METRIC_UPSTREAM_CONNECTIONS] = GAUGE("upstream_connections", "Open connections to Datasette."),
	[METRIC_EXEC_TOTAL] = COUNTER("exec", "Commands by how they ended and where their Sprite came from.", {"outcome", VALUES(outcomes)},
				      {"tier", VALUES(tiers)}),
	[METRIC_EXEC_DECISIONS] = COUNTER("exec_decisions", "Decisions on exec requests.", {"outcome", VALUES(decisions)},
					  {"reason", VALUES(decision_reasons)}),
	[METRIC_EXEC_SHADOWED] =
		COUNTER("exec_shadowed", "Requests that a limit in shadow would have refused.", {"policy", VALUES(shadow_policies)}),
	[METRIC_EXEC_DEGRADED] = COUNTER("exec_degraded", "Requests decided while Redis was away, with REDIS_DOWN=degrade.",
					 {"result", VALUES(degraded_results)}),
	[METRIC_EXEC_DEGRADED_UNBOOKED] =
		GAUGE("exec_degraded_unbooked_seconds", "Sandbox time granted without Redis that it does not know of yet."),
	[METRIC_POLICY_DECISIONS] = COUNTER("policy_decisions", "Decisions on requests of tokens that follow a named policy.",
					    {"policy", NULL, METRICS_NAMES + 1}, {"outcome", VALUES(decisions)}),
	[METRIC_POLICY_VERSION] = {.name = "spritegate_policy_version",
				   .type = METRIC_GAUGE,
				   .largest = true,
				   .help = "Version of a named policy at its last decision.",
				   .labels = {{"policy", NULL, METRICS_NAMES + 1}}},
	[METRIC_EXEC_SECONDS] = SECONDS("exec_seconds", "Run time of commands.", request_seconds),
	[METRIC_EXEC_QUEUE_SECONDS] = SECONDS("exec_queue_seconds", "Wait of commands for a Sprite.", fast_seconds),
	[METRIC_EXEC_RUNNING] = GAUGE("exec_running", "Commands running or waiting for a Sprite."),
	[METRIC_EXEC_SANDBOX_SECONDS] = COUNTER_SECONDS("exec_sandbox_seconds", "Sum of the run times."),
	[METRIC_EXEC_OUTPUT_BYTES] = COUNTER("exec_output_bytes", "Bytes written by commands."),
	[METRIC_EXEC_CHECKS] = COUNTER("exec_output_checks", "Outputs by whether all that the command wrote has arrived.",
				       {"result", VALUES(check_results)}),
	[METRIC_EXEC_ROWS] =
		COUNTER("exec_rows", "Rows that commands have written into Datasette, or may have.", {"result", VALUES(row_results)}),
	[METRIC_EXEC_ROW_WRITERS] =
		COUNTER("exec_row_writers", "Commands that write rows into Datasette by what became of all they printed.",
			{"result", VALUES(row_ends)}),
	[METRIC_EXEC_KILLED] = COUNTER("exec_killed", "Commands ended by the gateway.", {"reason", VALUES(kill_reasons)}),
	[METRIC_EXEC_LEASES] = GAUGE("exec_leases", "Concurrency leases held by this gateway."),
	[METRIC_EXEC_LEASES_REAPED] = COUNTER("exec_leases_reaped", "Leases that ended without being settled."),
	[METRIC_EXEC_UNSETTLED] = GAUGE("exec_settlements_pending", "Settlements that Redis has not acknowledged yet."),
	[METRIC_AUTH_FAILURES] = COUNTER("auth_failures", "Exec requests without a valid token.", {"reason", VALUES(auth_failures)}),
	[METRIC_AUTH_KNOWN_BAD] =
		COUNTER("auth_known_bad", "Of those: refused without Redis, which had refused the same token a moment before."),
	[METRIC_AUTH_THROTTLED] = COUNTER("auth_throttled", "Of those: answered 429, because too many came from one address."),
	[METRIC_IDENTITY] = COUNTER("identity", "Answers to who a caller without a token is: of Datasette, or known from a moment before.",
				    {"result", VALUES(identity_results)}),
	[METRIC_REDIS_UP] = GAUGE("redis_up", "1 when every thread's Redis connection is up."),
	[METRIC_REDIS_COMMAND_SECONDS] = SECONDS("redis_command_seconds", "Round trips to Redis.", fast_seconds),
	[METRIC_REDIS_ERRORS] = COUNTER("redis_errors", "Redis commands that were not answered.", {"kind", VALUES(redis_errors)}),
	[METRIC_REDIS_BREAKER] = GAUGE("redis_breaker_state", "Worst breaker of all workers: 0 closed, 1 open, 2 half-open."),
	[METRIC_POOL_MEMBERS] = GAUGE("pool_members", "Sprites by state.", {"state", VALUES(pool_states)}),
	[METRIC_POOL_TARGET] = GAUGE("pool_target", "Sprites wanted ready.", {"tier", VALUES(kept_tiers)}),
	[METRIC_POOL_CLAIMS] = COUNTER("pool_claims", "Sprites handed out.", {"tier", VALUES(tiers)}),
	[METRIC_POOL_CLAIM_SECONDS] = SECONDS("pool_claim_seconds", "Wait for a claimed Sprite.", fast_seconds, {"tier", VALUES(tiers)}),
	[METRIC_POOL_REFUSALS] = COUNTER("pool_refusals", "Claims that got no Sprite.", {"reason", VALUES(pool_refusals)}),
	[METRIC_POOL_CREATES] = COUNTER("pool_creates", "Sprites asked for.", {"result", VALUES(provider_codes)}),
	[METRIC_POOL_CREATE_SECONDS] = SECONDS("pool_create_seconds", "Time to create a Sprite.", fast_seconds),
	[METRIC_POOL_PREPARES] = COUNTER("pool_prepares", "Sprites prepared.", {"result", VALUES(provider_codes)}),
	[METRIC_POOL_PREPARE_SECONDS] = SECONDS("pool_prepare_seconds", "Time to prepare a Sprite.", fast_seconds),
	[METRIC_POOL_WAKES] = COUNTER("pool_wakes", "Paused Sprites woken.", {"result", VALUES(provider_codes)}),
	[METRIC_POOL_WAKE_SECONDS] = SECONDS("pool_wake_seconds", "Time to wake and verify a Sprite.", fast_seconds),
	[METRIC_SESSION_SPRITES] =
		GAUGE("session_sprites", "Sprites kept for named sessions of this pool, ended ones until they are gone."),
	[METRIC_SESSION_EVENTS] = COUNTER("session_events", "What became of Sprites of named sessions.", {"event", VALUES(session_events)}),
	[METRIC_POOL_RESTORES] = COUNTER("pool_restores", "Used Sprites restored for the same token.", {"result", VALUES(provider_codes)}),
	[METRIC_POOL_RESTORE_SECONDS] = SECONDS("pool_restore_seconds", "Time to restore and verify a Sprite.", fast_seconds),
	[METRIC_POOL_HEDGES] = COUNTER("pool_hedges", "Wakes begun beside one that took too long."),
	[METRIC_POOL_STALLED] = GAUGE("pool_refill_stalled", "1 when Sprites are missing and none became ready for 60 s."),
	[METRIC_POOL_IDLE_SECONDS] = COUNTER_SECONDS("pool_idle_seconds", "Time that Sprites ran without a command, added up."),
	[METRIC_POOL_COST] = {.name = "spritegate_pool_cost_dollars",
			      .type = METRIC_COUNTER,
			      .unit = METRIC_MICROSECONDS,
			      .help = "What the Sprites cost by list prices."},
	[METRIC_POOL_DESTROYS] = COUNTER("pool_destroys", "Attempts to destroy a Sprite.", {"result", VALUES(provider_codes)}),
	[METRIC_POOL_LOST] = COUNTER("pool_lost", "Idle Sprites whose channel broke."),
	[METRIC_POOL_SESSIONS_LOST] = COUNTER("pool_sessions_lost", "Sessions of a shared pool that ended while the gateway ran.",
					      {"reason", VALUES(session_ends)}),
	[METRIC_POOL_REVOKED] = COUNTER("pool_revoked", "Sprites of a shared pool that another gateway took, or adopted."),
	[METRIC_POOL_BEAT_AGE_SECONDS] =
		{.name = "spritegate_pool_beat_age_seconds",
		 .type = METRIC_GAUGE,
		 .unit = METRIC_MICROSECONDS,
		 .help = "Since the last beat that Redis acknowledged; nothing is handed out after 10 s. 0 when the pool is not shared."},
	[METRIC_POOL_FLEET_MEMBERS] = GAUGE("pool_fleet_members", "Sprites of a shared pool, in all gateways together."),
	[METRIC_POOL_FLEET_INSTANCES] = GAUGE("pool_fleet_instances", "Gateways that share the pool."),
	[METRIC_POOL_RECOVERING] = GAUGE("pool_recovering", "1 while a shared pool finds out what exists and creates nothing."),
	[METRIC_POOL_WAITERS] = GAUGE("pool_waiters", "Commands waiting for a Sprite."),
	[METRIC_POOL_WAIT_OLDEST_SECONDS] = {.name = "spritegate_pool_wait_oldest_seconds",
					     .type = METRIC_GAUGE,
					     .unit = METRIC_MICROSECONDS,
					     .help = "Age of the oldest waiting command."},
	[METRIC_SPRITES_CALLS] =
		COUNTER("sprites_calls", "Calls of the Sprites API.", {"call", VALUES(sprites_calls)}, {"result", VALUES(sprites_results)}),
	[METRIC_SPRITES_CALL_SECONDS] =
		SECONDS("sprites_call_seconds", "Duration of calls of the Sprites API.", fast_seconds, {"call", VALUES(sprites_calls)}),
	[METRIC_LOG_DROPPED] = COUNTER("access_log_dropped", "Access log lines that could not be written."),
	[METRIC_AUDIT_DROPPED] = COUNTER("audit_dropped", "Audit records that could not be kept.", {"sink", VALUES(audit_sinks)}),
	[METRIC_TRACE_SPANS] = COUNTER("trace_spans", "Spans of commands that the collector took, and that were dropped.",
				       {"result", VALUES(span_results)}),
	[METRIC_RELOAD_OK] = GAUGE("config_last_reload_successful", "1 unless the settings were found faulty when they were last read."),
	[METRIC_RELOAD_SECONDS] = {.name = "spritegate_config_last_reload_timestamp_seconds",
				   .type = METRIC_GAUGE,
				   .unit = METRIC_MICROSECONDS,
				   .help = "When settings were last taken over, Unix time."},
	[METRIC_BUILD_INFO] =
		GAUGE("build_info", "Always 1; the labels tell which build this is.", {"version", NULL, 1}, {"revision", NULL, 1}),
	[METRIC_PROCESS_CPU_SECONDS] = PROCESS("cpu_seconds", METRIC_COUNTER, METRIC_MICROSECONDS, "User and system CPU time."),
	[METRIC_PROCESS_RESIDENT_BYTES] = PROCESS("resident_memory_bytes", METRIC_GAUGE, METRIC_ONE, "Resident memory."),
	[METRIC_PROCESS_VIRTUAL_BYTES] = PROCESS("virtual_memory_bytes", METRIC_GAUGE, METRIC_ONE, "Virtual memory."),
	[METRIC_PROCESS_OPEN_FDS] = PROCESS("open_fds", METRIC_GAUGE, METRIC_ONE, "Open file descriptors."),
	[METRIC_PROCESS_MAX_FDS] = PROCESS("max_fds", METRIC_GAUGE, METRIC_ONE, "Limit of open file descriptors."),
	[METRIC_PROCESS_START_SECONDS] =
		PROCESS("start_time_seconds", METRIC_GAUGE, METRIC_MICROSECONDS, "Start of the process, Unix time."),
};
