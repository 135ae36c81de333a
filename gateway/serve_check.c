#include "gateway/audit_table.h"
#include "gateway/curl/curl_driver.h"
#include "gateway/datasette/connection.h"
#include "gateway/http/listener.h"
#include "gateway/http/peer.h"
#include "gateway/http/server.h"
#include "gateway/mcp/origin.h"
#include "gateway/otlp.h"
#include "gateway/serve.h"
#include "gateway/sprites/sprites_provider.h"
#include "policy/redis_url.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEFAULT_WORKERS 4

static void ignore(void *ctx UNUSED)
{
}

static int fail(struct buf *faults, const char *what, const char *why)
{
	int r = buf_printf(faults, "%s: %s\n", what, why);
	return r < 0 ? r : -EINVAL;
}

/* What the parsers of other modules say about the settings. */

static int check_listener(const char *name, const char *where, struct buf *faults)
{
	struct listener_address address;
	char error[LISTENER_ERROR_LEN];
	return listener_parse(slice_str(where), &address, error) < 0 ? fail(faults, name, error) : 0;
}

static int check_redis(const struct config *config, struct buf *faults)
{
	struct redis_url url;
	const char *why;
	int r = redis_url_parse(slice_str(config->redis_url), &url, &why);
	redis_url_wipe(&url);
	return r < 0 ? fail(faults, "redis_url", why) : 0;
}

static int check_datasette(const struct config *config, uv_loop_t *loop, struct curl_driver *curl, struct buf *faults)
{
	struct connection_pool_options options;
	char error[CONNECTION_ERROR_LEN];
	connection_pool_defaults(&options);
	options.driver = curl;
	options.loop = loop;
	options.url = config->datasette_url;
	options.ca_file = config->datasette_ca_file;
	struct connection_pool *pool = connection_pool_new(&options, error);
	if (!pool)
		return fail(faults, "datasette_url", error);
	connection_pool_free(pool);
	return 0;
}

/* Without it no connection to Datasette could be made, each of them after a while. */
static int check_ca_file(const struct config *config, struct buf *faults)
{
	const char *file = config->datasette_ca_file;
	struct stat is;
	if (!*file)
		return 0;
	if (access(file, R_OK) < 0 || stat(file, &is) < 0)
		return fail(faults, "datasette_ca_file", strerror(errno));
	return S_ISREG(is.st_mode) ? 0 : fail(faults, "datasette_ca_file", "is not a file");
}

static int check_sprites(const struct config *config, uv_loop_t *loop, struct curl_driver *curl, struct buf *faults)
{
	struct sprites_provider_options options = {0};
	struct sprites_provider *provider;
	int r = sprites_provider_new(loop, curl, config->sprites_url, &config->sprites_token, &options, &provider);
	if (r < 0)
		return fail(faults, "sprites_url or sprites_token",
			    r == -EINVAL ? "not usable (expected https://host or http://host:port, and a token)" : strerror(-r));
	sprites_provider_free(provider);
	return 0;
}

/* These two parse where they are used, on a loop; nothing is sent. */
static int check_peers(const struct config *config, struct buf *faults)
{
	uv_loop_t loop;
	if (uv_loop_init(&loop) < 0)
		return fail(faults, "event loop", "out of memory");
	struct curl_driver *curl = curl_driver_new(&loop);
	int r = curl ? check_datasette(config, &loop, curl, faults) : fail(faults, "curl", "out of memory");
	if (curl && check_sprites(config, &loop, curl, faults) < 0)
		r = -EINVAL;
	curl_driver_free(curl);
	uv_run(&loop, UV_RUN_DEFAULT);
	uv_loop_close(&loop);
	return r;
}

static int check_trusted(const struct config *config, struct buf *faults)
{
	struct peer_set trusted;
	if (peer_set_parse(slice_str(config->trusted_proxies), &trusted) < 0)
		return fail(faults, "trusted_proxies", "expected networks such as 10.0.0.0/8, separated by commas");
	return 0;
}

static int check_mcp_hosts(const struct config *config, struct buf *faults)
{
	return mcp_hosts_are_valid(slice_str(config->mcp_hosts))
		       ? 0
		       : fail(faults, "mcp_hosts", "expected host names such as data.example.com, separated by commas");
}

static int check_audit(const struct config *config, struct buf *faults)
{
	if (!*config->audit_table)
		return 0;
	if (!audit_table_check(config->audit_table))
		return fail(faults, "audit_table", "expected DATABASE/TABLE, both of letters, digits, dash and underscore");
	if (!config->audit_token.len)
		return fail(faults, "audit_token", "needed to write into audit_table");
	for (size_t i = 0; i < config->audit_token.len; i++)
		if (config->audit_token.bytes[i] <= ' ' || config->audit_token.bytes[i] > '~')
			return fail(faults, "audit_token", "must be printable ASCII without blanks");
	return 0;
}

static int check_otlp(const struct config *config, struct buf *faults)
{
	if (!*config->otlp_url)
		return config->otlp_headers.len ? fail(faults, "otlp_headers", "nothing is sent without otlp_url") : 0;
	uv_loop_t loop;
	if (uv_loop_init(&loop) < 0)
		return fail(faults, "event loop", "out of memory");
	char error[OTLP_ERROR_LEN];
	struct otlp_options options = {
		.loop = &loop, .url = config->otlp_url, .headers = &config->otlp_headers, .version = "", .instance = config->instance};
	struct otlp *otlp = otlp_new(&options, error);
	int r = otlp ? 0 : fail(faults, "otlp_url", error);
	if (otlp)
		otlp_free(otlp, ignore, NULL);
	uv_run(&loop, UV_RUN_DEFAULT);
	uv_loop_close(&loop);
	return r;
}

/* What a request can carry: token68, RFC 9110 section 11.2. */
static int check_admin_token(const struct config *config, struct buf *faults)
{
	struct slice token = secret_peek(&config->admin_token);
	while (token.len && token.data[token.len - 1] == '=')
		token.len--;
	for (size_t i = 0; i < token.len; i++)
		if (!strchr("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-._~+/", token.data[i]) || !token.data[i])
			return fail(faults, "admin_token", "must be a bearer token: letters, digits and -._~+/");
	return 0;
}

static unsigned worker_count(const struct config *config)
{
	if (config->workers)
		return (unsigned)config->workers;
	unsigned cpus = uv_available_parallelism();
	return cpus < DEFAULT_WORKERS ? cpus : DEFAULT_WORKERS;
}

struct limits_wanted serve_wanted(const struct config *config)
{
	struct limits_wanted wanted = {
		.descriptors = limits_most(),
		.connections = config->max_connections,
		.connection_bytes = http_server_connection_bytes(config->max_head_bytes),
		.requests = config->max_requests,
		.websockets = config->max_websockets,
		.sprites = config->pool_max,
		.workers = worker_count(config),
	};
	uint64_t needed = limits_plan(&wanted).memory_needed;
	wanted.memory = limits_client_memory(config->client_memory_bytes, limits_memory(), needed);
	return wanted;
}

static int check_descriptors(const struct config *config, struct buf *faults)
{
	struct limits_wanted wanted = serve_wanted(config);
	uint64_t needed = limits_plan(&wanted).needed;
	char why[192];
	if (wanted.descriptors >= needed)
		return 0;
	snprintf(why, sizeof why,
		 "%llu may be open, with these settings at least %llu are needed: raise the limit (ulimit -n, LimitNOFILE=), or lower "
		 "workers or pool_max",
		 (unsigned long long)wanted.descriptors, (unsigned long long)needed);
	return fail(faults, "descriptors", why);
}

static int check_memory(const struct config *config, struct buf *faults)
{
	struct limits_wanted wanted = serve_wanted(config);
	uint64_t needed = limits_plan(&wanted).memory_needed;
	char why[192];
	if (wanted.memory >= needed)
		return 0;
	snprintf(why, sizeof why,
		 "%llu are not enough, with these settings at least %llu are needed: raise it, or lower workers or max_head_bytes",
		 (unsigned long long)wanted.memory, (unsigned long long)needed);
	return fail(faults, "client_memory_bytes", why);
}

int serve_check(const struct config *config, struct buf *faults)
{
	const int results[] = {check_listener("listen", config->listen, faults),
			       check_listener("admin_listen", config->admin_listen, faults),
			       check_redis(config, faults),
			       check_ca_file(config, faults),
			       check_trusted(config, faults),
			       check_mcp_hosts(config, faults),
			       check_peers(config, faults),
			       check_audit(config, faults),
			       check_otlp(config, faults),
			       check_admin_token(config, faults),
			       check_descriptors(config, faults),
			       check_memory(config, faults)};
	for (size_t i = 0; i < ARRAY_LEN(results); i++)
		if (results[i] < 0)
			return results[i];
	return 0;
}
