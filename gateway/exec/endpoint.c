#include "gateway/exec/endpoint.h"

#include "gateway/base/clock.h"
#include "gateway/base/log.h"
#include "gateway/base/redact.h"
#include "gateway/exec/intent.h"
#include "gateway/exec/reply.h"
#include "gateway/exec/throttle.h"
#include "gateway/http/peer.h"
#include "policy/token.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <utlist.h>

#define LEASES_BACK_MS 1000 /* longest wait for Redis to take leases back at the end */
#define LEASES_POLL_MS 10

struct call {
	struct exec_endpoint *endpoint;
	struct http_request *request; /* NULL when it can no longer be answered */
	char exec_id[ID_UUID_LEN + 1];
	struct buf body;
	struct slice token;           /* in the request's head */
	struct exec_request *command;
	struct admission_call *admission;
	uint64_t admit_start_us;
	bool with_agent;
	bool is_post;                 /* it has an exec id that its answer tells, and the access log */
	struct exec_reply reply;      /* what every answer of this call says */
	/* For the access log. */
	char kid[ADMISSION_KID_LEN + 1];
	char actor[129];
	char policy[65];
	uint64_t policy_version;
	char shadowed[160];
	const char *code, *outcome, *tier;
	struct call *prev, *next;
};

struct exec_endpoint {
	struct exec_endpoint_options options;
	struct admission *admission;
	struct throttle throttle;     /* of wrong tokens */
	struct mailbox mailbox;
	struct call *calls;           /* while the agent has their job */
	size_t jobs_out;
	uint64_t buffered;            /* bytes of all bodies under way */
	uint64_t asked_until_ms;      /* in loop time: until then Redis may still grant what nobody waits for any more */
	bool draining, freeing;
	uint64_t free_deadline_ms;
	uv_timer_t leases_timer;
	int closing;
	void (*on_freed)(void *ctx);
	void *freed_ctx;
};

static void decide(struct call *call, const char *outcome, const char *reason)
{
	struct metrics_labels labels = {{metrics_value(METRIC_EXEC_DECISIONS, 0, outcome), metrics_value(METRIC_EXEC_DECISIONS, 1, reason)}};
	metrics_add(call->endpoint->options.metrics, METRIC_EXEC_DECISIONS, labels, 1);
}

static void count_auth_failure(struct call *call, const char *reason)
{
	struct metrics_labels labels = {{metrics_value(METRIC_AUTH_FAILURES, 0, reason)}};
	metrics_add(call->endpoint->options.metrics, METRIC_AUTH_FAILURES, labels, 1);
}

static void drop_body(struct call *call)
{
	call->endpoint->buffered -= call->body.len;
	buf_deinit(&call->body);
}

/* Every refusal goes through here: a call is answered once. */
static void refuse(struct call *call, struct exec_problem problem)
{
	struct http_request *request = TAKE(call->request);
	decide(call, problem.outcome, problem.reason);
	call->code = problem.code;
	drop_body(call);
	if (request && exec_reply_problem(request, &call->reply, &problem) < 0)
		log_error("exec %s: the answer could not be sent", call->exec_id);
	exec_problem_deinit(&problem);
}

/* Counts a wrong token against its address: how long that should stop sending them, 0 = not at all. */
static uint64_t charge_failure(struct call *call)
{
	struct exec_endpoint *endpoint = call->endpoint;
	unsigned char address[16] = {0};
	(void)peer_parse(endpoint->options.client(endpoint->options.client_ctx, call->reply.head), address);
	return throttle_charge(&endpoint->throttle, address, uv_now(endpoint->options.loop));
}

static void refuse_token(struct call *call, const char *log_reason)
{
	count_auth_failure(call, log_reason);
	uint64_t wait_ms = charge_failure(call);
	if (wait_ms)
		metrics_add(call->endpoint->options.metrics, METRIC_AUTH_THROTTLED, METRICS_NONE, 1);
	refuse(call, wait_ms ? exec_problem_abuse(wait_ms) : exec_problem_invalid_token);
}

static void refuse_draining(struct call *call)
{
	refuse(call, exec_problem_capacity("draining", "This gateway is shutting down."));
}

static uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* Nothing has run. */
static void give_back(struct call *call, const struct admission_lease *lease)
{
	if (admission_settle(call->endpoint->admission, lease, 0, 0, true) != 0)
		log_warning("exec %s: its lease could not be given back and will end by itself", call->exec_id);
}

static void post_job(struct call *call, const struct admission_answer *answer)
{
	struct exec_endpoint *endpoint = call->endpoint;
	struct exec_job *job = exec_job_new(call->exec_id);
	if (!job) {
		give_back(call, &answer->lease);
		refuse(call, exec_problem_internal);
		return;
	}
	job->reply_to = &endpoint->mailbox;
	job->max_output_bytes = answer->output_bytes;
	job->request = TAKE(call->command);
	job->lease = answer->lease;
	job->timeout_ms = answer->lease.granted_ms;
	job->admit_us = call->reply.admit_us;
	if (mailbox_post(endpoint->options.agent, &job->message.item) != 0) {
		exec_job_free(job);
		give_back(call, &answer->lease);
		refuse(call, exec_problem_capacity("capacity", "Too many commands are waiting for a sandbox."));
		return;
	}
	decide(call, "allow", "granted");
	drop_body(call);
	endpoint->jobs_out++;
	metrics_add(endpoint->options.metrics, METRIC_EXEC_LEASES, METRICS_NONE, 1);
	call->with_agent = true;
	DL_APPEND(endpoint->calls, call);
}

/* ["rate","budget"] */
static void count_shadowed(struct call *call, const char *names)
{
	struct slice rest = slice_of(names + 1, strlen(names) - 2), name;
	while (rest.len && slice_next(&rest, ',', &name)) {
		char text[32];
		snprintf(text, sizeof text, "%.*s", (int)(name.len - 2), name.data + 1);
		struct metrics_labels labels = {{metrics_value(METRIC_EXEC_SHADOWED, 0, text)}};
		metrics_add(call->endpoint->options.metrics, METRIC_EXEC_SHADOWED, labels, 1);
	}
}

static void count_policy(struct call *call, const struct admission_answer *answer)
{
	struct metrics_shard *metrics = call->endpoint->options.metrics;
	if (!answer->policy[0])
		return;
	unsigned name = metrics_name(metrics, answer->policy);
	const char *outcome = answer->code == ADMISSION_GRANTED ? "allow" : "deny";
	metrics_add(metrics, METRIC_POLICY_DECISIONS, (struct metrics_labels){{name, metrics_value(METRIC_POLICY_DECISIONS, 1, outcome)}}, 1);
	if (name < METRICS_NAMES)
		metrics_set(metrics, METRIC_POLICY_VERSION, (struct metrics_labels){{name}}, answer->policy_version);
}

static void remember(struct call *call, const struct admission_answer *answer)
{
	count_policy(call, answer);
	count_shadowed(call, answer->shadowed);
	snprintf(call->kid, sizeof call->kid, "%s", answer->kid);
	snprintf(call->actor, sizeof call->actor, "%s", answer->actor);
	snprintf(call->policy, sizeof call->policy, "%s", answer->policy);
	snprintf(call->shadowed, sizeof call->shadowed, "%s", answer->shadowed);
	call->policy_version = answer->policy_version;
	exec_reply_limits(&call->reply, answer);
}

static void on_decided(void *ctx, const struct admission_answer *answer)
{
	struct call *call = ctx;
	call->admission = NULL;
	call->reply.admit_us = clock_mono_us() - call->admit_start_us;
	remember(call, answer);
	switch (answer->code) {
	case ADMISSION_GRANTED:
		post_job(call, answer);
		break;
	case ADMISSION_INPUT_TOO_LARGE:
		refuse(call, exec_problem_too_large("standard input", answer->max_input_bytes));
		break;
	case ADMISSION_INVALID_TOKEN:
		refuse_token(call, answer->log_reason);
		break;
	case ADMISSION_QUOTA:
		refuse(call, exec_problem_quota(answer));
		break;
	case ADMISSION_UNAVAILABLE:
		refuse(call, exec_problem_unavailable(answer));
		break;
	case ADMISSION_INSUFFICIENT_SCOPE:
		refuse(call, exec_problem_scope());
		break;
	case ADMISSION_COMMAND_DENIED:
		refuse(call, exec_problem_denied(exec_request_program(call->command), answer));
		break;
	case ADMISSION_VARIABLE_DENIED:
		refuse(call, exec_problem_variable(answer));
		break;
	case ADMISSION_NETWORK_DENIED:
		refuse(call, exec_problem_network(answer));
		break;
	}
}

static uint64_t wanted_ms(const struct call *call)
{
	uint64_t asked = call->command->timeout_ms;
	return min_u64(asked ? asked : call->endpoint->options.timeout_ms, call->endpoint->options.max_timeout_ms);
}

/* Names without values, separated by blanks. */
static int list_variables(const struct exec_request *command, struct buf *names)
{
	int r = 0;
	for (size_t i = 0; r == 0 && i < command->env_count; i++)
		r = buf_printf(names, "%s%.*s", i ? " " : "", (int)strcspn(command->env[i], "="), command->env[i]);
	return r;
}

static void admit(struct call *call)
{
	struct exec_endpoint *endpoint = call->endpoint;
	CLEANUP(buf_deinit) struct buf variables = BUF_MAX(EXEC_MAX_ARGV_BYTES + EXEC_MAX_ENV);
	if (list_variables(call->command, &variables) < 0) {
		refuse(call, exec_problem_internal);
		return;
	}
	unsigned char address[16];
	bool known = peer_parse(endpoint->options.client(endpoint->options.client_ctx, call->reply.head), address);
	/* A wish is a ceiling, for tokens with a limit of their own and without. */
	uint64_t most = endpoint->options.max_output_bytes, usual = min_u64(EXEC_DEFAULT_OUTPUT_BYTES, most);
	if (call->command->has_max_output)
		usual = most = min_u64(call->command->max_output_bytes, most);
	struct admission_request request = {.token = call->token,
					    .program = slice_str(exec_request_program(call->command)),
					    .want_ms = wanted_ms(call),
					    .wait_ms = call->endpoint->options.wait_ms,
					    .input_bytes = call->command->input.len,
					    .address = known ? address : NULL,
					    .variables = buf_peek(&variables),
					    .usual_output_bytes = usual,
					    .most_output_bytes = most};
	call->admit_start_us = clock_mono_us();
	if (admission_decide(call->endpoint->admission, &request, on_decided, call, &call->admission) < 0)
		refuse(call, exec_problem_internal);
}

static void on_body_end(void *ctx)
{
	struct call *call = ctx;
	CLEANUP(buf_deinit) struct buf faults = BUF_MAX(64 * 1024);
	if (!call->request)
		return;
	if (call->endpoint->draining) {
		refuse_draining(call);
		return;
	}
	struct json_failure failure;
	int r = exec_request_parse(buf_peek(&call->body), &call->command, &faults, &failure);
	drop_body(call);
	if (r == EXEC_REQUEST_MALFORMED)
		refuse(call, exec_problem_malformed(&failure));
	else if (r == EXEC_REQUEST_INVALID)
		refuse(call, exec_problem_invalid(&faults));
	else if (r < 0)
		refuse(call, exec_problem_internal);
	else
		admit(call);
}

static size_t on_body(void *ctx, struct slice bytes)
{
	struct call *call = ctx;
	struct exec_endpoint *endpoint = call->endpoint;
	if (!call->request)
		return bytes.len; /* answered already: the rest is of no use */
	if (endpoint->buffered + bytes.len > endpoint->options.max_buffered) {
		refuse(call, exec_problem_capacity("capacity", "Too many request bodies are being received."));
		return bytes.len;
	}
	if (buf_append(&call->body, bytes) < 0) {
		refuse(call, exec_problem_internal);
		return bytes.len;
	}
	endpoint->buffered += bytes.len;
	return bytes.len;
}

static void cancel_job(struct call *call)
{
	struct exec_cancel *cancel = calloc(1, sizeof *cancel);
	if (!cancel) {
		log_error("exec %s: could not be canceled, it ends at its timeout", call->exec_id);
		return;
	}
	cancel->message.kind = EXEC_CANCEL;
	memcpy(cancel->message.exec_id, call->exec_id, sizeof cancel->message.exec_id);
	/* Not counted against the queue: every cancellation belongs to a job that was. */
	if (mailbox_reply(call->endpoint->options.agent, &cancel->message.item) != 0)
		free(cancel);
}

static void on_gone(void *ctx)
{
	struct call *call = ctx;
	call->request = NULL;
	if (call->admission) {
		struct exec_endpoint *endpoint = call->endpoint;
		admission_cancel(endpoint->admission, call->admission);
		call->admission = NULL;
		endpoint->asked_until_ms = uv_now(endpoint->options.loop) + endpoint->options.admission.timeout_ms;
	}
	if (call->with_agent)
		cancel_job(call);
}

static void write_log(struct call *call, const struct http_head *head, const struct http_summary *summary)
{
	static const char *const aborted[] = {NULL, "client", "gateway", "client", "gateway"};
	bool gone = summary->end == HTTP_END_GONE || summary->end == HTTP_END_TIMEOUT;
	bool late = summary->end == HTTP_END_TIMEOUT && summary->status == 408;
	struct access_record record = {
		.wall_ms = clock_wall_ms() - summary->duration_us / 1000,
		.request_id = head->id,
		.client = head->peer,
		.method = head->method,
		.path = head->path,
		.route = "exec",
		.status = gone && !summary->status ? 499 : summary->status,
		.bytes_in = summary->bytes_in,
		.bytes_out = summary->bytes_out,
		.duration_us = summary->duration_us,
		.first_byte_us = summary->first_byte_us,
		.aborted = aborted[summary->end],
		.code = call->code || !late ? call->code : "request-timeout",
		.exec_id = call->is_post ? slice_str(call->exec_id) : (struct slice){0},
		.kid = slice_str(call->kid),
		.actor = slice_str(call->actor),
		.policy = slice_str(call->policy),
		.policy_version = call->policy_version,
		.shadowed = slice_str(call->shadowed),
		.outcome = call->outcome,
		.tier = call->tier,
	};
	access_log_write(call->endpoint->options.log, &record);
}

static void on_finished(void *ctx, const struct http_summary *summary)
{
	struct call *call = ctx;
	struct exec_endpoint *endpoint = call->endpoint;
	write_log(call, call->reply.head, summary);
	if (call->with_agent)
		DL_DELETE(endpoint->calls, call);
	drop_body(call);
	exec_request_free(call->command);
	free(call);
}

static const struct http_sink sink = {.on_body = on_body, .on_body_end = on_body_end, .on_gone = on_gone, .on_finished = on_finished};

static void answer_job(struct call *call, struct exec_job *job)
{
	struct http_request *request = TAKE(call->request);
	call->outcome = exec_outcome_name(job->outcome);
	call->tier = job->tier;
	call->code = job->answer.code;
	if (!request)
		return;
	int r = job->error < 0 ? job->error : exec_reply_job(request, &call->reply, job);
	if (r < 0) {
		log_error("exec %s: its answer could not be sent: %s", call->exec_id, strerror(-r));
		call->request = request;
		refuse(call, exec_problem_internal);
	}
}

static void maybe_freed(struct exec_endpoint *endpoint);

static void on_job_back(void *ctx, struct mailbox_item *item)
{
	struct exec_endpoint *endpoint = ctx;
	struct exec_job *job = CONTAINER_OF(CONTAINER_OF(item, struct exec_message, item), struct exec_job, message);
	struct call *call;
	DL_FOREACH (endpoint->calls, call)
		if (strcmp(call->exec_id, job->message.exec_id) == 0)
			break;
	metrics_sub(endpoint->options.metrics, METRIC_EXEC_LEASES, METRICS_NONE, 1);
	endpoint->jobs_out--;
	if (call) {
		DL_DELETE(endpoint->calls, call);
		call->with_agent = false;
		answer_job(call, job);
	}
	exec_job_free(job);
	maybe_freed(endpoint);
}

static bool has_token_in_query(const struct http_head *head)
{
	struct slice rest = head->query, parameter;
	while (rest.len && slice_next(&rest, '&', &parameter))
		if (slice_has_prefix(parameter, SLICE("access_token=")))
			return true;
	return redact_find(head->query).len > 0;
}

/* 0: call->token is set. Otherwise the call was answered. */
static int read_token(struct call *call, const struct http_head *head)
{
	struct token_parts parts;
	if (has_token_in_query(head)) {
		count_auth_failure(call, "malformed");
		refuse(call, exec_problem_token_in_query);
		return -EACCES;
	}
	int r = exec_authorization(head->fields, &call->token);
	if (r == 0 && token_parse(call->token, &parts) == 0)
		return 0;
	if (r == 0) {
		refuse_token(call, "checksum");
	} else if (r == EXEC_BEARER_MISSING) {
		count_auth_failure(call, "missing");
		refuse(call, exec_problem_missing_token);
	} else {
		count_auth_failure(call, "malformed");
		refuse(call, exec_problem_invalid_authorization);
	}
	return -EACCES;
}

static void handle_post(struct call *call, const struct http_head *head)
{
	call->is_post = true;
	if (read_token(call, head) < 0)
		return;
	if (call->endpoint->draining) {
		refuse_draining(call);
		return;
	}
	if (!exec_is_json(http_fields_value(head->fields, SLICE("Content-Type"))) ||
	    http_fields_count(head->fields, SLICE("Content-Type")) > 1 || http_fields_find(head->fields, SLICE("Content-Encoding"))) {
		refuse(call, exec_problem_media_type);
		return;
	}
	if (head->body == HTTP_BODY_LENGTH && head->content_length > call->endpoint->options.max_body) {
		refuse(call, exec_problem_too_large("body", call->endpoint->options.max_body));
		return;
	}
	if (call->endpoint->options.announces)
		exec_intent_send(call->endpoint->options.agent, EXEC_INTENT_HEAD_MS);
	if (http_request_read(call->request, call->endpoint->options.max_body) < 0)
		refuse(call, exec_problem_internal);
}

static void handle(struct call *call, const struct http_head *head)
{
	struct http_request *request = call->request;
	if (head->route == HTTP_ROUTE_EXEC && slice_equal(head->method, SLICE("POST"))) {
		handle_post(call, head);
		return;
	}
	call->request = NULL;
	if (exec_reply_other(request, &call->reply, &call->code) < 0)
		log_error("exec: the answer could not be sent");
}

void exec_endpoint_handle(struct exec_endpoint *endpoint, struct http_request *request)
{
	struct call *call = calloc(1, sizeof *call);
	if (!call || id_uuid7(call->exec_id, clock_wall_ms()) < 0) {
		free(call);
		struct http_problem problem = {.status = 500, .code = "internal"};
		if (http_request_respond_problem(request, &problem, NULL) < 0)
			log_error("exec: out of memory");
		return;
	}
	call->endpoint = endpoint;
	call->request = request;
	buf_init(&call->body, endpoint->options.max_body);
	exec_reply_init(&call->reply, http_request_head(request), call->exec_id);
	http_request_attach(request, &sink, call);
	handle(call, http_request_head(request));
}

struct exec_endpoint *exec_endpoint_new(const struct exec_endpoint_options *options)
{
	struct exec_endpoint *endpoint = calloc(1, sizeof *endpoint);
	if (!endpoint)
		return NULL;
	endpoint->options = *options;
	struct admission_options admission = options->admission;
	admission.loop = options->loop;
	if (throttle_init(&endpoint->throttle, options->wrong_token_burst) < 0 ||
	    mailbox_init(&endpoint->mailbox, options->loop, 1, on_job_back, endpoint) < 0) {
		throttle_deinit(&endpoint->throttle);
		free(endpoint);
		return NULL;
	}
	uv_timer_init(options->loop, &endpoint->leases_timer);
	endpoint->leases_timer.data = endpoint;
	/* Only a start-up that fails, and then ends the process, leaves the handles open. */
	endpoint->admission = admission_new(&admission);
	return endpoint->admission ? endpoint : NULL;
}

void exec_endpoint_drain(struct exec_endpoint *endpoint)
{
	endpoint->draining = true;
}

static void on_part_freed(void *ctx)
{
	struct exec_endpoint *endpoint = ctx;
	if (--endpoint->closing > 0)
		return;
	endpoint->on_freed(endpoint->freed_ctx);
	throttle_deinit(&endpoint->throttle);
	free(endpoint);
}

static void on_timer_closed(uv_handle_t *handle)
{
	on_part_freed(handle->data);
}

/* Grants that nobody waits for: what is lost now would be held, and charged in full, until the lease ends by itself. */
static bool owes_leases(const struct exec_endpoint *endpoint)
{
	uint64_t now = uv_now(endpoint->options.loop);
	if (now >= endpoint->free_deadline_ms || !admission_link_up(endpoint->admission))
		return false;
	return now < endpoint->asked_until_ms || admission_unsettled(endpoint->admission);
}

static void on_leases_timer(uv_timer_t *timer)
{
	maybe_freed(timer->data);
}

static void maybe_freed(struct exec_endpoint *endpoint)
{
	if (!endpoint->freeing || endpoint->jobs_out || endpoint->closing)
		return;
	if (owes_leases(endpoint)) {
		uv_timer_start(&endpoint->leases_timer, on_leases_timer, LEASES_POLL_MS, 0);
		return;
	}
	endpoint->closing = 3;
	mailbox_close(&endpoint->mailbox, on_part_freed);
	uv_close((uv_handle_t *)&endpoint->leases_timer, on_timer_closed);
	admission_free(endpoint->admission, on_part_freed, endpoint);
}

void exec_endpoint_free(struct exec_endpoint *endpoint, void (*on_freed)(void *ctx), void *ctx)
{
	endpoint->on_freed = on_freed;
	endpoint->freed_ctx = ctx;
	endpoint->freeing = true;
	endpoint->free_deadline_ms = uv_now(endpoint->options.loop) + LEASES_BACK_MS;
	maybe_freed(endpoint);
}
