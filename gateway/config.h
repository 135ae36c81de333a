/*
 * config - every setting, in one table that also documents itself
 *
 * A row `name` is the environment variable SPRITEGATE_NAME and the line `name = value` of a configuration file; the environment wins
 * over the file, the file over the default. An unknown key, a key twice in the file, a value of the wrong type or out of bounds, or a
 * missing required value stops the start with a sentence that names the key and the limit; nothing is guessed. A default that is
 * above a ceiling that was set is lowered to it.
 *
 * Owns:     its strings and secrets.
 * Lifetime: config_init … config_deinit; read-only between config_load and config_deinit, so threads may share it.
 */
#pragma once

#include "gateway/base/buf.h"
#include "gateway/base/secret.h"

#include <stdint.h>

/* Of a size: `auto`. */
#define CONFIG_AUTO UINT64_MAX

struct config {
	char *listen;
	char *admin_listen;
	uint64_t workers;
	char *instance;
	char *datasette_url, *datasette_ca_file;
	char *redis_url;
	char *sprites_url;
	struct secret sprites_token;
	struct secret pepper;
	char *trusted_proxies;
	char *mcp_hosts;
	uint64_t max_head_bytes;
	uint64_t max_body_bytes;
	uint64_t datasette_timeout_ms;
	uint64_t client_idle_seconds;
	uint64_t max_connections;
	uint64_t max_connections_per_address;
	uint64_t max_requests;
	uint64_t client_memory_bytes; /* 0 = half of what there is */
	uint64_t max_websockets, websocket_idle_seconds, websocket_drain_seconds;
	uint64_t exec_max_body_bytes;
	uint64_t redis_timeout_ms;
	char *redis_down;
	uint64_t degraded_trust_seconds, degraded_budget_seconds, degraded_gateways;
	char *settlements_file;
	uint64_t pool_hot;
	uint64_t pool_warm;
	uint64_t pool_max;
	uint64_t pool_creates_per_minute;
	uint64_t pool_running_limit;
	uint64_t pool_warm_limit;
	uint64_t pool_usd_per_day;
	uint64_t pool_recycle, pool_ahead;
	uint64_t pool_shared;
	char *pool_name;
	uint64_t pool_wait_seconds;
	uint64_t session_idle_seconds, session_max_age_seconds;
	uint64_t cache_bytes, cache_stale_seconds;
	uint64_t exec_timeout_ms;
	uint64_t exec_max_timeout_ms;
	uint64_t exec_max_output_bytes;
	uint64_t exec_verify_bytes;
	uint64_t exec_max_processes, exec_max_file_bytes, exec_max_memory_bytes; /* 0 = no limit */
	uint64_t exec_result_bytes;
	uint64_t datasette_insert_rows;
	uint64_t wrong_token_burst;
	char *identity_rules;
	char *identity_action;
	uint64_t identity_cache_seconds;
	uint64_t drain_seconds;
	uint64_t drain_accept_seconds;
	char *access_log;
	char *audit_log;
	uint64_t audit_commands;
	char *audit_table;
	struct secret audit_token;
	char *otlp_url;
	struct secret otlp_headers;
	struct secret admin_token;
	uint64_t seccomp;
};

/* Which settings must be there: `serve` needs all required ones, the token commands only Redis and the pepper. */
enum config_use { CONFIG_SERVE, CONFIG_TOKEN };

void config_init(struct config *config);
void config_deinit(struct config *config);

/* May anything run while Redis is away? */
bool config_degrades(const struct config *config);

/* Reads `file` (NULL = none), then the environment. 0; -EINVAL with one line per fault in `faults`; -ENOMEM. */
MUST_CHECK int config_load(struct config *config, const char *file, enum config_use use, struct buf *faults);

/* The names of the settings that differ: of those that may change while the gateway serves, or of the others. Results: those of buf. */
enum config_reach { CONFIG_LIVE, CONFIG_FIXED };
MUST_CHECK int config_compare(const struct config *a, const struct config *b, enum config_reach reach, struct buf *names);

/* The table as Markdown (docs/CONFIG.md is its output). */
MUST_CHECK int config_document(struct buf *out);

/* The same as the manual page spritegate.conf(5), in mdoc (part of the Debian package). */
MUST_CHECK int config_manual(struct buf *out);

/* One `name = value` line each, secrets as "(set)" or "(not set)". */
MUST_CHECK int config_print(const struct config *config, struct buf *out);
