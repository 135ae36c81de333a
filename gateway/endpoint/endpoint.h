/*
 * endpoint - /-/agent/exec on a worker: token, body, admission, a job for the agent, the answer
 *
 * Owns:       its link to Redis (admission), its mailbox, the calls under way and what they ask of Datasette.
 * Lifetime:   exec_endpoint_new … exec_endpoint_free (asynchronous), which waits for the jobs that are still with the agent, and up to 1 s
 *             for Redis to take back what was granted to clients that have left.
 * Runs on:    its worker's loop.
 * Re-entry:   none of ours; http's rules for requests apply.
 * Bounds:     bodies that no agent has yet: max_body each, max_buffered in all (503 beyond); one job a request.
 * Invariants: every granted admission is settled: by the agent once the job was posted, here before that.
 */
#pragma once

#include "gateway/endpoint/identity.h"
#include "gateway/exec/job.h"
#include "gateway/http/request.h"
#include "gateway/proxy/relay.h"
#include "gateway/telemetry/access_log.h"
#include "gateway/telemetry/audit.h"
#include "gateway/telemetry/metrics.h"
#include "gateway/telemetry/tracer.h"

struct exec_endpoint;

/* What may change while it runs, for requests that come from then on. */
struct exec_endpoint_limits {
	uint64_t max_body;         /* of one request */
	uint64_t max_buffered;     /* of all that no agent has yet */
	uint64_t timeout_ms, max_timeout_ms;
	uint64_t max_output_bytes; /* ceiling per stream */
	struct admission_caps caps; /* of every command; a token's may be lower */
	bool audit_commands;       /* the audit has the text of commands */
	bool announces;            /* a head with a token of the right form is told to the agent before its body is there */
};

struct exec_endpoint_options {
	uv_loop_t *loop;
	struct mailbox *agent;
	struct admission_options admission; /* loop is filled in here */
	struct metrics_shard *metrics;
	struct audit *audit;                /* NULL = none */
	struct tracer *tracer;              /* NULL = none */
	/* Writes its line of the access log: `record` has who and how, and is filled in by what every request has. */
	void (*log_request)(void *ctx, const struct http_head *head, const struct http_summary *summary, struct access_record *record);
	struct exec_endpoint_limits limits;
	uint64_t wait_ms;                   /* longest wait for a sandbox, as the agent has it */
	uint64_t session_idle_ms, session_age_ms; /* as the agent has them */
	uint64_t wrong_token_burst;         /* per address, see throttle.h; 0 = no limit */
	/* Whose failures are counted together: the client's address, after what trusted proxies say. */
	struct slice (*client)(void *ctx, const struct http_head *head);
	/* How Datasette was asked for the input of a command. */
	void (*on_fetched)(void *ctx, const struct relay_summary *summary);
	/* What is at this path of Datasette may have been changed. */
	void (*on_written)(void *ctx, struct slice path);
	void *client_ctx;
	struct slice mcp_hosts;             /* as mcp/origin.h has them; outlives the endpoint */
	struct exchange_pool *exchanges;    /* with Datasette; borrowed */
	struct forward_options forward;
	struct identity_options identity;   /* whom Datasette knows may do without a token; borrowed */
	uint64_t identity_ms;               /* so long is known who it is */
	unsigned datasette_ms;              /* longest wait for Datasette's answer to begin, and longest silence in it */
};

/* Per stream, unless the request or the token says less. */
#define EXEC_DEFAULT_OUTPUT_BYTES (1024 * 1024)
/* Most of a tool's command, per stream: a result has the answer twice, with escapes of escapes, and is made in one piece. */
#define EXEC_TOOL_OUTPUT_BYTES (4 * 1024 * 1024)

struct exec_endpoint *exec_endpoint_new(const struct exec_endpoint_options *options);

void exec_endpoint_set_limits(struct exec_endpoint *endpoint, const struct exec_endpoint_limits *limits);

/* Takes a request whose route is HTTP_ROUTE_EXEC or HTTP_ROUTE_EXEC_SUB; called inside on_request. */
void exec_endpoint_handle(struct exec_endpoint *endpoint, struct http_request *request);

/* From now on every new command is refused with 503. */
void exec_endpoint_drain(struct exec_endpoint *endpoint);

/* After the server was stopped. */
void exec_endpoint_free(struct exec_endpoint *endpoint, void (*on_freed)(void *ctx), void *ctx);
