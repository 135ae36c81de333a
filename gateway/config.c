#include "gateway/config.h"

#include "gateway/endpoint/identity.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum setting_type { TEXT, SECRET, NUMBER, BYTES, SIZE, SECONDS };

#define POOL_NAME_MAX 40
#define FOR_SERVE     1U
#define FOR_TOKEN     2U
#define LIVE          4U

struct setting {
	const char *name;
	enum setting_type type;
	size_t offset;
	const char *initial; /* as it would be written; NULL = none */
	uint64_t min, max;   /* of the value (ms for SECONDS); of the length for TEXT and SECRET */
	unsigned flags;      /* FOR_…: who cannot do without; LIVE: may change while the gateway serves */
	const char *help;
};

#define AT(field) offsetof(struct config, field)
#define KIB       1024ULL
#define MIB       (1024ULL * 1024)
#define GIB       (1024ULL * 1024 * 1024)
#define HOUR_MS   3600000ULL

static const struct setting settings[] = {
	{"listen", TEXT, AT(listen), "[::]:8080", 1, 255, FOR_SERVE,
	 "Public address. `[::]` takes IPv4 as well; several gateways may share a port."},
	{"admin_listen", TEXT, AT(admin_listen), "[::]:9091", 1, 255, FOR_SERVE,
	 "Address of the status page, /metrics and /health. Never expose it to the public."},
	{"workers", NUMBER, AT(workers), "0", 0, 64, 0, "Worker threads; 0 = the number of CPUs, at most 4."},
	{"instance", TEXT, AT(instance), NULL, 1, 63, 0,
	 "Name of this gateway, part of its Sprites' names. Default: FLY_MACHINE_ID, else host name and port."},
	{"datasette_url", TEXT, AT(datasette_url), "http://127.0.0.1:8001", 1, 1024, FOR_SERVE,
	 "Datasette: http://host:port, https://host:port or unix:/path."},
	{"datasette_ca_file", TEXT, AT(datasette_ca_file), "", 0, 1024, 0,
	 "Certificates (PEM) of those who may vouch for an https Datasette, alone. Empty = the system's, which every new "
	 "connection reads anew: some 10 ms of a worker's time, a small file 2 ms."},
	{"redis_url", TEXT, AT(redis_url), "redis://127.0.0.1:6379", 1, 1024, FOR_SERVE | FOR_TOKEN,
	 "Redis: redis://, rediss:// or unix:// with user, password and database."},
	{"sprites_url", TEXT, AT(sprites_url), "https://api.sprites.dev", 1, 1024, FOR_SERVE, "Sprites API."},
	{"sprites_token", SECRET, AT(sprites_token), NULL, 1, 4096, FOR_SERVE, "Sprites API token."},
	{"pepper", SECRET, AT(pepper), NULL, 32, 1024, FOR_SERVE | FOR_TOKEN,
	 "Key of the HMAC under which token secrets are stored. Losing it invalidates every token."},
	{"trusted_proxies", TEXT, AT(trusted_proxies), "", 0, 4096, 0,
	 "Networks (CIDR, comma-separated) whose X-Forwarded-For and X-Forwarded-Proto are believed. Empty = nobody."},
	{"mcp_hosts", TEXT, AT(mcp_hosts), "", 0, 4096, 0,
	 "Host names (comma-separated, without ports) under which the MCP endpoint may be used, and those of pages that may use it. Names of "
	 "loopback always may."},
	{"max_head_bytes", BYTES, AT(max_head_bytes), "32KiB", 4 * KIB, 128 * KIB, 0,
	 "Largest request head, target included; an answer's may be twice as large, and 64 KiB. Larger costs memory and time on every request."},
	{"max_body_bytes", BYTES, AT(max_body_bytes), "128MiB", 0, 16 * GIB, LIVE, "Largest body of a proxied request."},
	{"datasette_timeout_seconds", SECONDS, AT(datasette_timeout_ms), "60", 1000, HOUR_MS, LIVE,
	 "Longest wait for the beginning of Datasette's answer, and longest silence within it (of event streams: at least 15 minutes)."},
	{"datasette_insert_rows", NUMBER, AT(datasette_insert_rows), "100", 1, 100000, 0,
	 "Rows that a command's output is written into Datasette with at once, at most what its setting max_insert_rows says: "
	 "/-/insert and /-/upsert refuse larger batches with 400."},
	{"client_idle_seconds", NUMBER, AT(client_idle_seconds), "75", 1, 3600, 0,
	 "Longest time that a client's connection stays open between two requests, or without taking any of its answer. One that vanished is "
	 "given up 3 s later, whatever it waits for."},
	{"max_connections", NUMBER, AT(max_connections), "16384", 64, 1000000, 0,
	 "Connections of clients that may be open, divided among the workers, fewer when the limit of descriptors or "
	 "`client_memory_bytes` demands it. Beyond, those that are idle for longest are closed; when none is idle a new one is answered 503. "
	 "Each takes up to 160 KiB, more with a larger `max_head_bytes`, mostly far less."},
	{"max_connections_per_address", NUMBER, AT(max_connections_per_address), "0", 0, 1000000, 0,
	 "Connections of one client address (IPv6: of one /64), 0 = no limit. Beyond: 429. Those of `trusted_proxies` are not counted."},
	{"max_requests", NUMBER, AT(max_requests), "4096", 16, 1000000, 0,
	 "Requests that may be under way, divided among the workers, fewer when `client_memory_bytes` demands it. Beyond: 503. Each holds at "
	 "most 256 KiB of its answer and 64 KiB of its body."},
	{"client_memory_bytes", BYTES, AT(client_memory_bytes), "0", 0, 1024 * GIB, 0,
	 "Memory that clients may take at most: requests half of it, 320 KiB each, their connections the rest, 160 KiB each. Of 256 MiB: 409 "
	 "requests and 820 connections; `max_requests` and `max_connections` as they are want 3.75 GiB. 0 = half of what the machine has, or "
	 "the cgroup, but at least 10 MiB for each worker; no bound where that is not known. Less than that is refused. How many fit is said "
	 "at the start. Bodies of commands may take half as much again. Output of commands, the cache and the kernel's buffers are not "
	 "counted."},
	{"max_websockets", NUMBER, AT(max_websockets), "0", 0, 1000000, 0,
	 "WebSockets to Datasette that may be open, divided among the workers, fewer when the limit of descriptors demands it. Beyond: 503. Each "
	 "counts as a connection and as a request under way, too. 0 = none: Upgrade is dropped. Otherwise every request costs a little more."},
	{"websocket_idle_seconds", NUMBER, AT(websocket_idle_seconds), "300", 1, 86400, 0,
	 "A WebSocket is closed when for so long nothing has come from either side. A side that has vanished, or takes nothing while the other "
	 "one speaks, is reset 3 s later."},
	{"websocket_drain_seconds", NUMBER, AT(websocket_drain_seconds), "10", 0, 600, 0,
	 "What WebSockets have left after the first SIGTERM, within `drain_seconds`."},
	{"exec_max_body_bytes", BYTES, AT(exec_max_body_bytes), "16MiB", KIB, 256 * MIB, LIVE, "Largest body of POST /-/agent/exec."},
	{"redis_timeout_ms", NUMBER, AT(redis_timeout_ms), "40", 1, 10000, 0, "Longest wait for one Redis answer."},
	{"redis_down", TEXT, AT(redis_down), "refuse", 1, 16, 0,
	 "What becomes of commands while Redis is away: `refuse` all, or `degrade`: a few of tokens that it has just accepted run without network "
	 "(POLICY.md). Not with `pool_shared`."},
	{"degraded_trust_seconds", NUMBER, AT(degraded_trust_seconds), "60", 1, 300, 0,
	 "With `redis_down = degrade`: so long after Redis has accepted a token it is believed, and a revocation may go unnoticed."},
	{"degraded_budget_seconds", NUMBER, AT(degraded_budget_seconds), "120", 1, 3600, 0,
	 "With `redis_down = degrade`: most sandbox time that this gateway may have granted without Redis knowing of it."},
	{"degraded_gateways", NUMBER, AT(degraded_gateways), "1", 1, 1000, 0,
	 "With `redis_down = degrade`: gateways that share this Redis; each gives a token a quarter of its rate divided by so many."},
	{"settlements_file", TEXT, AT(settlements_file), "", 0, 1024, 0,
	 "Where the use of commands that have ended is kept when the gateway ends and Redis is away; the next start books it. On a disk that stays, "
	 "for this gateway alone: it does not start while another one has the file. Empty = nowhere: such commands are charged all the time that was reserved for them."},
	{"pool_hot", SIZE, AT(pool_hot), "2", 0, 100, LIVE,
	 "Running Sprites kept ready by this instance, at most `pool_max`; `auto`: as many as the demand is worth."},
	{"pool_warm", SIZE, AT(pool_warm), "0", 0, 1000, LIVE,
	 "Paused Sprites kept ready, by this instance or in the shared pool; `auto`: as many as the demand and its bursts need."},
	{"pool_max", NUMBER, AT(pool_max), "10", 1, 1000, 0,
	 "Most Sprites that exist or are being created, of this instance or in the shared pool."},
	{"pool_creates_per_minute", NUMBER, AT(pool_creates_per_minute), "0", 0, 1000, 0,
	 "Creations that the provider allows in a minute; 0 = not known, it will say when it is too many."},
	{"pool_running_limit", NUMBER, AT(pool_running_limit), "0", 0, 1000, 0, "Sprites that may run at once; 0 = not known."},
	{"pool_warm_limit", NUMBER, AT(pool_warm_limit), "0", 0, 1000, 0, "Sprites that may be paused at once; 0 = not known."},
	{"pool_usd_per_day", NUMBER, AT(pool_usd_per_day), "0", 0, 100000, 0,
	 "Dollars, by list prices, that this instance's Sprites may cost in 24 hours, or those of a shared pool on a UTC day; 0 = no limit."},
	{"pool_recycle", NUMBER, AT(pool_recycle), "0", 0, 1, 0,
	 "1: when creations are short, a used Sprite is restored from its clean checkpoint, for the same token only; 0: always destroyed."},
	{"pool_ahead", NUMBER, AT(pool_ahead), "1", 0, 1, 0,
	 "1: in a hot Sprite the program that starts commands runs already and waits for its command; 0: it is started with the command. "
	 "Only with a record (`exec_verify_bytes`)."},
	{"pool_shared", NUMBER, AT(pool_shared), "0", 0, 1, 0,
	 "1: gateways with the same Redis and the same `pool_name` share their Sprites: `pool_warm` and `pool_max` count those of all; 0: each has its own."},
	{"pool_name", TEXT, AT(pool_name), NULL, 1, POOL_NAME_MAX, 0,
	 "Name of the pool that is shared: a-z, 0-9 and hyphens. Default: FLY_APP_NAME, else spritegate."},
	{"pool_wait_seconds", NUMBER, AT(pool_wait_seconds), "10", 0, 120, 0, "Longest wait of a command for a Sprite."},
	{"session_idle_seconds", NUMBER, AT(session_idle_seconds), "900", 1, 86400, 0,
	 "A named session ends so long after its last command, and its Sprite is destroyed. Tokens have none without `--sessions`."},
	{"session_max_age_seconds", NUMBER, AT(session_max_age_seconds), "21600", 1, 604800, 0,
	 "A named session ends so long after it began."},
	{"cache_bytes", BYTES, AT(cache_bytes), "0", 0, 16 * GIB, 0,
	 "Response cache, of all workers together: answers to anonymous GET and HEAD, for as long as Cache-Control lets a shared cache keep "
	 "them, at most 60 s when the target has a query. Not when such answers depend on the client's address. 0 = off."},
	{"cache_stale_seconds", NUMBER, AT(cache_stale_seconds), "0", 0, 86400, 0,
	 "So long after its lifetime an answer is still given while a newer one is fetched, unless it says must-revalidate or the like; longer "
	 "when it says stale-while-revalidate itself. At most 60 s when the target has a query."},
	{"exec_timeout_seconds", SECONDS, AT(exec_timeout_ms), "30", 1, HOUR_MS, LIVE,
	 "Wall time of a command that asks for none, at most `exec_max_timeout_seconds`."},
	{"exec_max_timeout_seconds", SECONDS, AT(exec_max_timeout_ms), "300", 1, HOUR_MS, LIVE, "Longest `timeout_seconds` of a command."},
	{"exec_max_output_bytes", BYTES, AT(exec_max_output_bytes), "64MiB", 1, GIB, LIVE, "Ceiling of every `max_output_bytes`."},
	{"exec_verify_bytes", BYTES, AT(exec_verify_bytes), "256KiB", 0, GIB, 0,
	 "Output is compared with its record in the Sprite from so many bytes of a stream on, and whenever fewer arrived than the command "
	 "wrote; 0 = no record is kept."},
	{"exec_max_processes", NUMBER, AT(exec_max_processes), "0", 0, 1000000, LIVE,
	 "Processes that a sandbox's user may have while a command is running; 0 = as many as the sandbox allows. A token may have fewer. "
	 "With this or any other limit a Sprite in which the gateway's program cannot run refuses every command with 503."},
	{"exec_max_file_bytes", BYTES, AT(exec_max_file_bytes), "0", 0, 1024 * GIB, LIVE,
	 "Size of each file that a command writes; 0 = what fits its disk. A token may have less. "
	 "See `exec_max_processes` for a Sprite that cannot set it."},
	{"exec_max_memory_bytes", BYTES, AT(exec_max_memory_bytes), "0", 0, 1024 * GIB, LIVE,
	 "Memory of each process of a command; 0 = what the sandbox has. A token may have less. "
	 "See `exec_max_processes` for a Sprite that cannot set it."},
	{"exec_result_bytes", BYTES, AT(exec_result_bytes), "1MiB", 0, 8 * MIB, 0,
	 "What a command ended with is kept in Redis for an hour up to this size, larger ones without their output; 0 = not at all. Each command that streams holds up to so much memory for it, uncounted by `client_memory_bytes`."},
	{"wrong_token_burst", NUMBER, AT(wrong_token_burst), "20", 0, 10000, 0,
	 "Requests with a wrong token that one address may make at once and per worker before it gets 429; 5 a minute come back. 0 = no limit."},
	{"identity_rules", TEXT, AT(identity_rules), "", 0, 4096, 0,
	 "Who may run commands without a token, by what Datasette says of the request's cookies or `Authorization`: a JSON array of "
	 "{\"policy\": NAME, \"allow\": BLOCK} with allow blocks like Datasette's; the first that matches counts. Empty = nobody."},
	{"identity_action", TEXT, AT(identity_action), "spritegate-exec", 1, IDENTITY_ACTION_MAX, 0,
	 "An API token of Datasette that is restricted to some actions counts for `identity_rules` only if this is one of them, for the whole instance."},
	{"identity_cache_seconds", NUMBER, AT(identity_cache_seconds), "5", 0, 60, 0,
	 "So long Datasette is not asked again who the same caller is."},
	{"drain_seconds", NUMBER, AT(drain_seconds), "55", 0, 600, LIVE, "Longest time from the first SIGTERM to the exit."},
	{"drain_accept_seconds", NUMBER, AT(drain_accept_seconds), "2", 0, 600, LIVE,
	 "So long after the first SIGTERM everything is still served, while the health page says 503: what a load balancer needs to notice. At most half of "
	 "`drain_seconds`."},
	{"access_log", TEXT, AT(access_log), "stdout", 1, 1024, 0, "`stdout`, `stderr`, `off` or a file, which SIGHUP opens anew."},
	{"audit_log", TEXT, AT(audit_log), "off", 1, 1024, 0,
	 "A record of every decision on a command and of every run: `stdout`, `stderr`, `off` or a file, which SIGHUP opens anew."},
	{"audit_commands", NUMBER, AT(audit_commands), "0", 0, 1, LIVE,
	 "1: audit records hold the commands themselves, not only their digests."},
	{"audit_table", TEXT, AT(audit_table), "", 0, 129, 0,
	 "DATABASE/TABLE of this Datasette into which audit records are written as well, in batches. Empty = none. Needs `audit_token`."},
	{"audit_token", SECRET, AT(audit_token), NULL, 1, 4096, 0,
	 "API token of Datasette that may insert into that table, and create it when it is not there."},
	{"otlp_url", TEXT, AT(otlp_url), "", 0, 1024, 0,
	 "Where spans of commands are sent, by OTLP over HTTP in JSON: http://host:4318/v1/traces, or https. Empty = no tracing."},
	{"otlp_headers", SECRET, AT(otlp_headers), NULL, 1, 4096, 0,
	 "Fields of those requests: `name=value,name=value`, values percent-encoded, as in OTEL_EXPORTER_OTLP_HEADERS."},
	{"admin_token", SECRET, AT(admin_token), NULL, 32, 1024, 0,
	 "Who has it may cancel commands on the status page of the admin listener. Not set: nobody may there."},
	{"seccomp", NUMBER, AT(seccomp), "1", 0, 1, 0,
	 "1: once it has started, the process has only the system calls that it needs; without a kernel that can do this it does not start. 0: all of "
	 "them."},
};

/* A setting that may not be above another. */
static const struct {
	const char *name, *ceiling;
} ceilings[] = {
	{"pool_hot", "pool_max"},
	{"pool_warm", "pool_max"},
	{"exec_timeout_seconds", "exec_max_timeout_seconds"},
};

struct loading {
	struct config *config;
	struct buf *faults;
	unsigned line[ARRAY_LEN(settings)]; /* of the file; 0 = not in it */
	bool given[ARRAY_LEN(settings)];    /* in the file or in the environment */
};

static char **text_at(const struct config *config, const struct setting *s)
{
	return (char **)((char *)(uintptr_t)config + s->offset);
}

static uint64_t *number_at(const struct config *config, const struct setting *s)
{
	return (uint64_t *)(void *)((char *)(uintptr_t)config + s->offset);
}

static struct secret *secret_at(const struct config *config, const struct setting *s)
{
	return (struct secret *)(void *)((char *)(uintptr_t)config + s->offset);
}

static int parse_bytes(struct slice text, uint64_t *value)
{
	static const struct {
		struct slice suffix;
		uint64_t factor;
	} units[] = {{{"KiB", 3}, KIB}, {{"MiB", 3}, MIB}, {{"GiB", 3}, GIB}};
	uint64_t factor = 1;
	for (size_t i = 0; i < ARRAY_LEN(units); i++) {
		size_t n = units[i].suffix.len;
		if (text.len > n && slice_equal(slice_from(text, text.len - n), units[i].suffix)) {
			factor = units[i].factor;
			text.len -= n;
			break;
		}
	}
	int r = slice_to_u64(text, UINT64_MAX / factor, value);
	*value *= r == 0 ? factor : 0;
	return r;
}

/* Seconds with at most three decimals, in milliseconds. */
static int parse_seconds(struct slice text, uint64_t *value)
{
	struct slice whole = text, decimals = SLICE("0");
	const char *point = text.len ? memchr(text.data, '.', text.len) : NULL;
	if (point) {
		whole.len = (size_t)(point - text.data);
		decimals = slice_from(text, whole.len + 1);
	}
	uint64_t ms = 0;
	int r = slice_to_u64(whole, UINT64_MAX / 1000 - 1, value);
	if (r == 0)
		r = decimals.len <= 3 ? slice_to_u64(decimals, 999, &ms) : -EINVAL;
	for (size_t n = decimals.len; n < 3; n++)
		ms *= 10;
	*value = r == 0 ? *value * 1000 + ms : 0;
	return r;
}

static int parse_number(enum setting_type type, struct slice text, uint64_t *value)
{
	if (type == BYTES)
		return parse_bytes(text, value);
	return type == SECONDS ? parse_seconds(text, value) : slice_to_u64(text, UINT64_MAX, value);
}

/* A number as it would be written. */
struct written {
	char text[32];
};

static struct written write_number(enum setting_type type, uint64_t value)
{
	struct written out;
	if (type == SIZE && value == CONFIG_AUTO)
		return (struct written){"auto"};
	if (type != SECONDS) {
		snprintf(out.text, sizeof out.text, "%llu", (unsigned long long)value);
		return out;
	}
	int n = snprintf(out.text, sizeof out.text, "%llu.%03llu", (unsigned long long)(value / 1000), (unsigned long long)(value % 1000));
	while (out.text[n - 1] == '0')
		out.text[--n] = '\0';
	if (out.text[n - 1] == '.')
		out.text[n - 1] = '\0';
	return out;
}

static const char *expected(enum setting_type type)
{
	if (type == BYTES)
		return "a number of bytes (an integer, or with KiB, MiB, GiB)";
	if (type == SECONDS)
		return "a number of seconds (like 30 or 0.5, at most three decimals)";
	return type == SIZE ? "a whole number or `auto`" : "a whole number";
}

static int put_number(struct config *config, const struct setting *s, struct slice text, struct buf *faults)
{
	uint64_t value = 0;
	if (s->type == SIZE && slice_equal(text, SLICE("auto"))) {
		*number_at(config, s) = CONFIG_AUTO;
		return 0;
	}
	int r = parse_number(s->type, text, &value);
	if (r < 0)
		return buf_printf(faults, "%s: \"%.*s\" is not %s\n", s->name, SLICE_FMT(text), expected(s->type));
	if (value < s->min || value > s->max)
		return buf_printf(faults, "%s: %s is outside %s to %s\n", s->name, write_number(s->type, value).text,
				  write_number(s->type, s->min).text, write_number(s->type, s->max).text);
	*number_at(config, s) = value;
	return 0;
}

static int put_text(struct config *config, const struct setting *s, struct slice text, struct buf *faults)
{
	if (text.len < s->min || text.len > s->max)
		return buf_printf(faults, "%s: %zu characters, allowed are %llu to %llu\n", s->name, text.len, (unsigned long long)s->min,
				  (unsigned long long)s->max);
	for (size_t i = 0; i < text.len; i++)
		if ((unsigned char)text.data[i] < 0x20 || text.data[i] == 0x7f)
			return buf_printf(faults, "%s: contains a control character\n", s->name);
	if (s->type == SECRET) {
		secret_deinit(secret_at(config, s));
		return secret_init(secret_at(config, s), text);
	}
	char *copy = slice_dup(text);
	if (!copy)
		return -ENOMEM;
	free(*text_at(config, s));
	*text_at(config, s) = copy;
	return 0;
}

static int put(struct config *config, const struct setting *s, struct slice text, struct buf *faults)
{
	return s->type == TEXT || s->type == SECRET ? put_text(config, s, text, faults) : put_number(config, s, text, faults);
}

static int give(struct loading *loading, const struct setting *s, struct slice text)
{
	loading->given[s - settings] = true;
	return put(loading->config, s, text, loading->faults);
}

static const struct setting *find(struct slice name)
{
	for (size_t i = 0; i < ARRAY_LEN(settings); i++)
		if (slice_equal(name, slice_str(settings[i].name)))
			return &settings[i];
	return NULL;
}

static int read_line(struct loading *loading, const char *file, unsigned number, struct slice line)
{
	if (line.len && line.data[line.len - 1] == '\n')
		line.len--;
	line = slice_trim(line);
	if (!line.len || line.data[0] == '#')
		return 0;
	struct slice name, value = line;
	if (!memchr(line.data, '=', line.len) || !slice_next(&value, '=', &name))
		return buf_printf(loading->faults, "%s:%u: expected `name = value`\n", file, number);
	name = slice_trim(name);
	const struct setting *s = find(name);
	if (!s)
		return buf_printf(loading->faults, "%s:%u: unknown setting \"%.*s\"\n", file, number, SLICE_FMT(name));
	unsigned *seen = &loading->line[s - settings];
	if (*seen)
		return buf_printf(loading->faults, "%s:%u: %s is already in line %u\n", file, number, s->name, *seen);
	*seen = number;
	return give(loading, s, slice_trim(value));
}

static void close_file(FILE **file)
{
	if (*file)
		fclose(*file);
}

static int read_file(struct loading *loading, const char *path)
{
	CLEANUP(close_file) FILE *file = fopen(path, "re");
	if (!file)
		return buf_printf(loading->faults, "%s: cannot be read: %s\n", path, strerror(errno));
	CLEANUP(free_ptr) char *line = NULL;
	size_t cap = 0;
	ssize_t len;
	for (unsigned number = 1; (len = getline(&line, &cap, file)) >= 0; number++) {
		int r = read_line(loading, path, number, slice_of(line, (size_t)len));
		secret_wipe(line, (size_t)len);
		if (r < 0)
			return r;
	}
	return ferror(file) ? buf_printf(loading->faults, "%s: cannot be read\n", path) : 0;
}

static void variable_name(const struct setting *s, char out[64])
{
	int n = snprintf(out, 64, "SPRITEGATE_%s", s->name);
	for (int i = 0; i < n; i++)
		out[i] = (char)toupper((unsigned char)out[i]);
}

static int read_environment(struct loading *loading)
{
	static const char prefix[] = "SPRITEGATE_";
	for (char **entry = environ; *entry; entry++) {
		struct slice rest = slice_str(*entry), name;
		if (!slice_has_prefix(rest, SLICE("SPRITEGATE_")) || !slice_next(&rest, '=', &name))
			continue;
		const struct setting *s = NULL;
		for (size_t i = 0; i < ARRAY_LEN(settings) && !s; i++) {
			char variable[64];
			variable_name(&settings[i], variable);
			if (slice_equal(name, slice_str(variable)))
				s = &settings[i];
		}
		int r = s ? give(loading, s, rest)
			  : buf_printf(loading->faults, "%.*s: unknown setting \"%.*s\"\n", SLICE_FMT(name),
				       SLICE_FMT(slice_from(name, sizeof prefix - 1)));
		if (r < 0)
			return r;
	}
	return 0;
}

static int set_defaults(struct config *config, struct buf *faults)
{
	int r = 0;
	for (size_t i = 0; r == 0 && i < ARRAY_LEN(settings); i++)
		if (settings[i].initial)
			r = put(config, &settings[i], slice_str(settings[i].initial), faults);
	return r;
}

static int check_pool_name(struct loading *loading)
{
	const char *name = loading->config->pool_name;
	if (!loading->config->pool_shared || !name[strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-")])
		return 0;
	return buf_printf(loading->faults, "pool_name: \"%s\" has other characters than a-z, 0-9 and hyphens\n", name);
}

static int check_redis_down(struct loading *loading)
{
	const struct config *config = loading->config;
	if (!config_degrades(config) && strcmp(config->redis_down, "refuse") != 0)
		return buf_printf(loading->faults, "redis_down: \"%s\" is neither `refuse` nor `degrade`\n", config->redis_down);
	if (config_degrades(config) && config->pool_shared)
		return buf_printf(loading->faults, "redis_down: `degrade` is not for a shared pool, whose records are in Redis\n");
	return 0;
}

static int check_identity_rules(struct loading *loading)
{
	struct identity_rules rules;
	char problem[IDENTITY_PROBLEM];
	int r = identity_init(&rules, &(struct identity_options){.rules = loading->config->identity_rules}, problem);
	identity_deinit(&rules);
	return r == -EINVAL ? buf_printf(loading->faults, "identity_rules: %s\n", problem) : r;
}

static int default_pool_name(struct config *config)
{
	const char *app = getenv("FLY_APP_NAME");
	struct slice name = slice_str(app && *app ? app : "spritegate");
	config->pool_name = slice_dup(slice_of(name.data, name.len < POOL_NAME_MAX ? name.len : POOL_NAME_MAX));
	return config->pool_name ? 0 : -ENOMEM;
}

/* FLY_MACHINE_ID, else host name and port: unique on one machine without being asked for. */
static int default_instance(struct config *config)
{
	const char *machine = getenv("FLY_MACHINE_ID");
	char name[64 + 16], host[64] = "localhost";
	const char *port = strrchr(config->listen, ':');
	if (gethostname(host, sizeof host - 1) < 0)
		return -errno;
	if (machine && *machine)
		snprintf(name, sizeof name, "%.63s", machine);
	else
		snprintf(name, sizeof name, "%.50s-%.8s", host, port ? port + 1 : "0");
	config->instance = slice_dup(slice_str(name));
	return config->instance ? 0 : -ENOMEM;
}

static int check_required(const struct config *config, unsigned use, struct buf *faults)
{
	int r = 0;
	for (size_t i = 0; r == 0 && i < ARRAY_LEN(settings); i++) {
		const struct setting *s = &settings[i];
		char variable[64];
		variable_name(s, variable);
		if ((s->flags & use) && s->type == SECRET && !secret_at(config, s)->len)
			r = buf_printf(faults, "%s: required, set %s\n", s->name, variable);
	}
	return r;
}

/* A default bends to a ceiling that somebody chose; of two values that somebody chose none is changed. */
static int check_ceilings(struct loading *loading)
{
	int r = 0;
	for (size_t i = 0; r == 0 && i < ARRAY_LEN(ceilings); i++) {
		const struct setting *s = find(slice_str(ceilings[i].name)), *top = find(slice_str(ceilings[i].ceiling));
		uint64_t *value = number_at(loading->config, s), most = *number_at(loading->config, top);
		if (*value <= most || (s->type == SIZE && *value == CONFIG_AUTO))
			continue;
		if (!loading->given[s - settings])
			*value = most;
		else
			r = buf_printf(loading->faults, "%s: %s is above %s (%s)\n", s->name, write_number(s->type, *value).text, top->name,
				       write_number(top->type, most).text);
	}
	return r;
}

bool config_degrades(const struct config *config)
{
	return strcmp(config->redis_down, "degrade") == 0;
}

void config_init(struct config *config)
{
	*config = (struct config){0};
}

void config_deinit(struct config *config)
{
	for (size_t i = 0; i < ARRAY_LEN(settings); i++) {
		if (settings[i].type == SECRET)
			secret_deinit(secret_at(config, &settings[i]));
		else if (settings[i].type == TEXT)
			free(*text_at(config, &settings[i]));
	}
	config_init(config);
}

int config_load(struct config *config, const char *file, enum config_use use, struct buf *faults)
{
	struct loading loading = {.config = config, .faults = faults};
	int r = set_defaults(config, faults);
	if (r == 0 && file)
		r = read_file(&loading, file);
	if (r == 0)
		r = read_environment(&loading);
	if (r == 0 && !config->instance)
		r = default_instance(config);
	if (r == 0 && !config->pool_name)
		r = default_pool_name(config);
	if (r == 0)
		r = check_required(config, use == CONFIG_SERVE ? FOR_SERVE : FOR_TOKEN, faults);
	if (r == 0)
		r = check_ceilings(&loading);
	if (r == 0)
		r = check_pool_name(&loading);
	if (r == 0)
		r = check_identity_rules(&loading);
	if (r == 0)
		r = check_redis_down(&loading);
	if (r < 0)
		return r;
	return faults->len ? -EINVAL : 0;
}

static bool is_same(const struct config *a, const struct config *b, const struct setting *s)
{
	if (s->type == SECRET)
		return secret_equal(secret_at(a, s), secret_peek(secret_at(b, s)));
	if (s->type == TEXT)
		return slice_equal(slice_str(*text_at(a, s)), slice_str(*text_at(b, s)));
	return *number_at(a, s) == *number_at(b, s);
}

int config_compare(const struct config *a, const struct config *b, enum config_reach reach, struct buf *names)
{
	int r = 0;
	for (size_t i = 0; r == 0 && i < ARRAY_LEN(settings); i++)
		if (!is_same(a, b, &settings[i]) && !(settings[i].flags & LIVE) == (reach == CONFIG_FIXED))
			r = buf_printf(names, "%s%s", names->len ? ", " : "", settings[i].name);
	return r;
}

int config_document(struct buf *out)
{
	static const char *const types[] = {"text", "secret", "integer", "bytes", "integer or `auto`", "seconds"};
	int r = buf_append(
		out,
		SLICE("# Settings\n\nMade by `spritegate help config`. Each row is the environment variable of that name and, without\n"
		      "`SPRITEGATE_` and in lower case, a line `name = value` of the file given with `--config`. The environment wins.\n"
		      "Bytes are an integer or end in `KiB`, `MiB`, `GiB`; seconds may have up to three decimals.\n"
		      "A default that is above a ceiling you have set is lowered to it; two values you have set must fit together.\n"
		      "`spritegate check-config` shows the values in force. SIGHUP reads the file anew: settings marked Live change at once, for what\n"
		      "begins then; others that differ are named in the log and wait for a restart, and a fault anywhere changes nothing.\n\n"
		      "| Variable | Type | Default | Allowed | Meaning |\n|---|---|---|---|---|\n"));
	for (size_t i = 0; r == 0 && i < ARRAY_LEN(settings); i++) {
		const struct setting *s = &settings[i];
		char variable[64];
		variable_name(s, variable);
		r = buf_printf(out, "| `%s` | %s | %s%s%s | %s to %s%s | %s%s |\n", variable, types[s->type],
			       s->initial && *s->initial ? "`" : "",
			       s->initial && *s->initial            ? s->initial
			       : s->flags & (FOR_SERVE | FOR_TOKEN) ? "required"
								    : "–",
			       s->initial && *s->initial ? "`" : "", write_number(s->type, s->min).text, write_number(s->type, s->max).text,
			       s->type == TEXT || s->type == SECRET ? " characters" : "", s->help, s->flags & LIVE ? " Live." : "");
	}
	return r;
}

/* Text for mdoc: `literal` becomes bold, a sentence begins on a line of its own, and nothing is taken for a macro or an escape. */
static int put_mdoc(struct buf *out, const char *text)
{
	bool bold = false;
	int r = 0;
	for (const char *p = text; r == 0 && *p; p++) {
		if (*p == '`') {
			bold = !bold;
			r = buf_append(out, bold ? SLICE("\\fB") : SLICE("\\fR"));
		} else if (*p == '\\') {
			r = buf_append(out, SLICE("\\e"));
		} else if (*p == '.' && p[1] == ' ') {
			r = buf_append(out, SLICE(".\n\\&"));
			p++;
		} else {
			r = buf_append_char(out, *p);
		}
	}
	return r < 0 ? r : buf_append_char(out, '\n');
}

static int put_mdoc_setting(struct buf *out, const struct setting *s)
{
	char variable[64];
	variable_name(s, variable);
	int r = buf_printf(out, ".It Ic %s Pq Ev %s\n\\&", s->name, variable);
	if (r == 0)
		r = put_mdoc(out, s->help);
	if (r == 0 && (s->flags & LIVE))
		r = buf_append(out, SLICE("SIGHUP reads it anew.\n"));
	if (r == 0 && s->type == SECRET)
		r = buf_append(out, SLICE("A secret.\n"));
	if (r == 0 && s->initial && *s->initial)
		r = buf_printf(out, "Default:\n.Ql %s .\n", s->initial);
	else if (r == 0 && (s->flags & (FOR_SERVE | FOR_TOKEN)))
		r = buf_append(out, SLICE("Required.\n"));
	const char *unit = s->type == TEXT || s->type == SECRET ? " characters" : s->type == BYTES ? " bytes" : "";
	return r < 0 ? r
		     : buf_printf(out, "Allowed: %s to %s%s.\n", write_number(s->type, s->min).text, write_number(s->type, s->max).text,
				  unit);
}

int config_manual(struct buf *out)
{
	int r = buf_append(
		out,
		SLICE(".\\\" Made by `spritegate help manual`.\n"
		      ".Dd November 22, 2026\n.Dt SPRITEGATE.CONF 5\n.Os\n.Sh NAME\n.Nm spritegate.conf\n.Nd settings of the Spritegate gateway\n"
		      ".Sh DESCRIPTION\nThe file given to\n.Xr spritegate 1\nby\n.Fl -config .\n"
		      "Each line is\n.Ql name = value ,\nempty, or a comment that begins with\n.Ql # .\n"
		      "Every setting is an environment variable as well, which wins over the file.\n"
		      "Bytes are an integer or end in\n.Ql KiB ,\n.Ql MiB\nor\n.Ql GiB .\n"
		      "Times in seconds may have up to three decimals\nwhere the least allowed value has.\n"
		      "A default that is above a ceiling that is set is lowered to it.\n"
		      "An unknown name, a name given twice or a value that is not allowed\nkeeps the gateway from starting.\n"
		      ".Pp\nThe settings:\n.Bl -tag -width Ds\n"));
	for (size_t i = 0; r == 0 && i < ARRAY_LEN(settings); i++)
		r = put_mdoc_setting(out, &settings[i]);
	return r < 0 ? r
		     : buf_append(
			       out,
			       SLICE(".El\n.Sh FILES\n.Bl -tag -width Ds\n.It Pa /etc/spritegate/spritegate.conf\n"
				     "What the systemd unit of the Debian package reads.\n.El\n"
				     ".Sh EXAMPLES\n.Bd -literal\n"
				     "datasette_url = http://127.0.0.1:8001\nredis_url = unix:///run/redis/redis.sock\npool_hot = 3\n.Ed\n"
				     ".Sh SEE ALSO\n.Xr spritegate 1\n"));
}

/* A URL may carry a password: everything between "://" (or the start) and the last '@' is left out. */
static int print_text(const char *name, const char *text, struct buf *out)
{
	size_t len = strlen(name);
	bool is_url = len > 4 && strcmp(name + len - 4, "_url") == 0;
	const char *at = text && is_url ? strrchr(text, '@') : NULL, *authority = at ? strstr(text, "://") : NULL;
	int scheme = authority && authority < at ? (int)(authority - text) + 3 : 0;
	return buf_printf(out, "%s = %.*s%s\n", name, scheme, text ? text : "", at ? at + 1 : text ? text : "");
}

int config_print(const struct config *config, struct buf *out)
{
	int r = 0;
	for (size_t i = 0; r == 0 && i < ARRAY_LEN(settings); i++) {
		const struct setting *s = &settings[i];
		if (s->type == SECRET)
			r = buf_printf(out, "%s = (%s)\n", s->name, secret_at(config, s)->len ? "set" : "not set");
		else if (s->type == TEXT)
			r = print_text(s->name, *text_at(config, s), out);
		else
			r = buf_printf(out, "%s = %s\n", s->name, write_number(s->type, *number_at(config, s)).text);
	}
	return r;
}
