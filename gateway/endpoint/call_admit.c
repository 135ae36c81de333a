#include "gateway/endpoint/call.h"

#include "gateway/base/clock.h"
#include "gateway/base/log.h"
#include "gateway/base/redact.h"
#include "gateway/endpoint/accept.h"
#include "gateway/endpoint/idempotency.h"
#include "gateway/exec/intent.h"
#include "gateway/http/peer.h"
#include "policy/token.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <utlist.h>

#define PARSE_REFUSED 100 /* beside the results of exec_request_parse() */

static void count_auth_failure(struct call *call, const char *reason)
{
	struct metrics_labels labels = {{metrics_value(METRIC_AUTH_FAILURES, 0, reason)}};
	metrics_add(call->endpoint->options.metrics, METRIC_AUTH_FAILURES, labels, 1);
}

bool call_address(const struct call *call, unsigned char address[16])
{
	const struct exec_endpoint_options *options = &call->endpoint->options;
	return peer_parse(options->client(options->client_ctx, call->reply.head), address);
}

/* Counts a wrong token against its address: how long that should stop sending them, 0 = not at all. */
static uint64_t charge_failure(struct call *call)
{
	struct exec_endpoint *endpoint = call->endpoint;
	unsigned char address[16] = {0};
	(void)call_address(call, address);
	return throttle_charge(&endpoint->throttle, address, uv_now(endpoint->options.loop));
}

void call_refuse_caller(struct call *call, const char *log_reason, struct exec_problem problem)
{
	count_auth_failure(call, log_reason);
	uint64_t wait_ms = charge_failure(call);
	if (wait_ms)
		metrics_add(call->endpoint->options.metrics, METRIC_AUTH_THROTTLED, METRICS_NONE, 1);
	call_refuse(call, wait_ms ? exec_problem_abuse(wait_ms) : problem);
}

static void refuse_token(struct call *call, const char *log_reason)
{
	call_refuse_caller(call, log_reason, exec_problem_invalid_token);
}

/* Of a caller without a token only the rules of its policy can be wrong, which is none of its faults. */
static void refuse_unknown(struct call *call, const char *log_reason)
{
	if (!call->by_identity) {
		refuse_token(call, log_reason);
		return;
	}
	log_warning_of(&call->subject, "exec: the policy of its actor is not there or cannot be used (IDENTITY_RULES)");
	count_auth_failure(call, log_reason);
	call_refuse(call, exec_problem_identity_denied);
}

static void refuse_draining(struct call *call)
{
	call_refuse(call, exec_problem_capacity("draining", "This gateway is shutting down."));
}

static uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* Nothing has run. */
static void give_back(struct call *call, const struct admission_lease *lease)
{
	if (admission_settle(call->endpoint->admission, lease, 0, 0, true, NULL) != 0)
		log_warning_of(&call->subject, "exec: its lease could not be given back and will end by itself");
}

void call_give_back(struct call *call, struct exec_job *job)
{
	give_back(call, &job->lease);
	exec_job_free(job);
}

void call_send_job(struct call *call, struct exec_job *job)
{
	struct exec_endpoint *endpoint = call->endpoint;
	if (mailbox_post(endpoint->options.agent, &job->message.item) != 0) {
		call_give_back(call, job);
		call_refuse(call, exec_problem_capacity("capacity", "Too many commands are waiting for a sandbox."));
		return;
	}
	call_decide(call, "allow", call->reply.degraded ? "degraded" : "granted", NULL);
	call_drop_body(call);
	endpoint->jobs_out++;
	metrics_add(endpoint->options.metrics, METRIC_EXEC_LEASES, METRICS_NONE, 1);
	call->with_agent = true;
	DL_APPEND(endpoint->calls, call);
	if (call->mcp)
		call_signs_begin(call);
}

/* 0 = no limit. */
static uint64_t lower_cap(uint64_t a, uint64_t b)
{
	return a && b ? min_u64(a, b) : a + b;
}

struct admission_caps call_caps(const struct call *call, const struct admission_answer *answer)
{
	const struct admission_caps *own = &answer->caps, *gateways = &call->endpoint->options.limits.caps;
	return (struct admission_caps){.processes = lower_cap(own->processes, gateways->processes),
				       .file_bytes = lower_cap(own->file_bytes, gateways->file_bytes),
				       .memory_bytes = lower_cap(own->memory_bytes, gateways->memory_bytes)};
}

static void make_job(struct call *call, const struct admission_answer *answer)
{
	struct exec_endpoint *endpoint = call->endpoint;
	struct exec_job *job = exec_job_new(call->exec_id);
	if (!job) {
		give_back(call, &answer->lease);
		call_refuse(call, exec_problem_internal);
		return;
	}
	job->reply_to = &endpoint->mailbox;
	job->max_output_bytes = answer->output_bytes;
	job->caps = call_caps(call, answer);
	if (call->command->rows_to.path)
		snprintf(call->deposit.path, sizeof call->deposit.path, "%s", call->command->rows_to.path);
	job->request = TAKE(call->command);
	job->lease = answer->lease;
	job->timeout_ms = answer->lease.granted_ms;
	job->admit_us = call->reply.admit_us;
	job->budget = answer->state.budget;
	job->format = call->format;
	job->session = answer->session;
	memcpy(job->egress, answer->egress, sizeof job->egress);
	memcpy(job->command_sha256, call->trail.sha256, sizeof job->command_sha256);
	job->root = call->root;
	if (exec_request_fetches(job->request))
		call_fetch(call, job, answer->max_input_bytes);
	else
		call_send_job(call, job);
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

/* Nothing was asked to run. */
static bool is_about_a_command(enum admission_code code)
{
	return code == ADMISSION_NO_COMMAND || code == ADMISSION_RUNNING || code == ADMISSION_ENDING || code == ADMISSION_FINISHED ||
	       code == ADMISSION_SESSIONS || code == ADMISSION_SESSION_CLOSED;
}

static void count_policy(struct call *call, const struct admission_answer *answer)
{
	struct metrics_shard *metrics = call->endpoint->options.metrics;
	if (!answer->policy[0] || is_about_a_command(answer->code))
		return;
	unsigned name = metrics_name(metrics, answer->policy);
	const char *outcome = answer->code == ADMISSION_GRANTED ? "allow" : "deny";
	metrics_add(metrics, METRIC_POLICY_DECISIONS, (struct metrics_labels){{name, metrics_value(METRIC_POLICY_DECISIONS, 1, outcome)}},
		    1);
	if (name < METRICS_NAMES)
		metrics_set(metrics, METRIC_POLICY_VERSION, (struct metrics_labels){{name}}, answer->policy_version);
}

void call_remember(struct call *call, const struct admission_answer *answer)
{
	call->reply.admit_us = clock_mono_us() - call->admit_start_us;
	count_policy(call, answer);
	count_shadowed(call, answer->shadowed);
	if (answer->degraded) {
		struct metrics_labels labels = {{metrics_value(METRIC_EXEC_DEGRADED, 0, answer->degraded)}};
		metrics_add(call->endpoint->options.metrics, METRIC_EXEC_DEGRADED, labels, 1);
	}
	snprintf(call->kid, sizeof call->kid, "%s", answer->kid);
	if (!call->by_identity)
		snprintf(call->actor, sizeof call->actor, "%s", answer->actor);
	snprintf(call->policy, sizeof call->policy, "%s", answer->policy);
	snprintf(call->shadowed, sizeof call->shadowed, "%s", answer->shadowed);
	call->policy_version = answer->policy_version;
	call->granted_ms = answer->code == ADMISSION_GRANTED ? answer->lease.granted_ms : 0;
	exec_reply_limits(&call->reply, answer);
}

void call_refuse_decision(struct call *call, const struct admission_answer *answer)
{
	switch (answer->code) {
	case ADMISSION_INPUT_TOO_LARGE:
		call_refuse(call, exec_problem_input(answer));
		break;
	case ADMISSION_INVALID_TOKEN:
		call->reply.mcp = NULL; /* no tool was called */
		refuse_unknown(call, answer->log_reason);
		break;
	case ADMISSION_QUOTA:
		call_refuse(call, exec_problem_quota(answer));
		break;
	case ADMISSION_UNAVAILABLE:
		call_refuse(call, exec_problem_unavailable(answer));
		break;
	case ADMISSION_INSUFFICIENT_SCOPE:
		call_refuse(call, exec_problem_scope(answer));
		break;
	case ADMISSION_COMMAND_DENIED:
		call_refuse(call, exec_problem_denied(exec_request_program(call->command), answer));
		break;
	case ADMISSION_VARIABLE_DENIED:
		call_refuse(call, exec_problem_variable(answer));
		break;
	case ADMISSION_NETWORK_DENIED:
		call_refuse(call, exec_problem_network(answer));
		break;
	case ADMISSION_IN_PROGRESS:
		call_refuse(call, exec_problem_in_progress(answer));
		break;
	case ADMISSION_FORGOTTEN:
		call_refuse(call, exec_problem_forgotten(answer));
		break;
	case ADMISSION_OTHER_BODY:
		call_refuse(call, exec_problem_other_body);
		break;
	case ADMISSION_SESSION_DENIED:
		call_refuse(call, exec_problem_session_denied(answer));
		break;
	case ADMISSION_SESSION_LIMIT:
		call_refuse(call, exec_problem_session_limit(answer));
		break;
	case ADMISSION_SESSION_BUSY:
		call_refuse(call, exec_problem_session_busy(call->command->session));
		break;
	case ADMISSION_SESSIONS:
	case ADMISSION_SESSION_CLOSED:
	case ADMISSION_GRANTED:
	case ADMISSION_REPLAY:
	case ADMISSION_RUNNING:
	case ADMISSION_ENDING:
	case ADMISSION_FINISHED:
	case ADMISSION_NO_COMMAND:
		log_error_of(&call->subject, "exec: an answer to another question");
		call_refuse(call, exec_problem_internal);
		break;
	}
}

static void on_decided(void *ctx, const struct admission_answer *answer)
{
	struct call *call = ctx;
	call->admission = NULL;
	call_remember(call, answer);
	if (answer->code == ADMISSION_INVALID_TOKEN || answer->code == ADMISSION_UNAVAILABLE)
		call->root.span[0] = '\0'; /* anybody could fill a collector */
	if (answer->code == ADMISSION_GRANTED)
		make_job(call, answer);
	else if (answer->code == ADMISSION_REPLAY)
		call_replay(call, answer);
	else
		call_refuse_decision(call, answer);
}

static uint64_t wanted_ms(const struct call *call)
{
	uint64_t asked = call->command->timeout_ms;
	return min_u64(asked ? asked : call->endpoint->options.limits.timeout_ms, call->endpoint->options.limits.max_timeout_ms);
}

uint64_t call_output_max(const struct call *call)
{
	uint64_t most = call->endpoint->options.limits.max_output_bytes;
	return call->mcp ? min_u64(most, EXEC_TOOL_OUTPUT_BYTES) : most;
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
	if (endpoint->options.audit && trail_take(&call->trail, call->command, endpoint->options.limits.audit_commands) < 0) {
		call_refuse(call, exec_problem_internal);
		return;
	}
	CLEANUP(buf_deinit) struct buf variables = BUF_MAX(EXEC_MAX_ARGV_BYTES + EXEC_MAX_ENV);
	if (list_variables(call->command, &variables) < 0) {
		call_refuse(call, exec_problem_internal);
		return;
	}
	unsigned char address[16];
	bool known = call_address(call, address);
	/* A wish is a ceiling, for tokens with a limit of their own and without. */
	uint64_t most = call_output_max(call), usual = min_u64(EXEC_DEFAULT_OUTPUT_BYTES, most);
	if (call->command->rows_to.path)
		usual = most;
	if (call->command->has_max_output)
		usual = most = min_u64(call->command->max_output_bytes, most);
	struct admission_request request = {.token = call->token,
					    .subject = &call->subject,
					    .identity = call->by_identity ? &call->identity : NULL,
					    .exec_id = slice_str(call->exec_id),
					    .key = slice_str(call->key),
					    .fingerprint = slice_str(call->fingerprint),
					    .program = slice_str(exec_request_program(call->command)),
					    .want_ms = wanted_ms(call),
					    .wait_ms = call->endpoint->options.wait_ms +
						       (exec_request_fetches(call->command) ? endpoint->options.datasette_ms : 0),
					    .input_bytes = exec_request_input(call->command),
					    .address = known ? address : NULL,
					    .variables = buf_peek(&variables),
					    .degradable = !call->key[0] && !call->command->session && !call->command->rows_to.path,
					    .session = slice_str(call->command->session ? call->command->session : ""),
					    .session_idle_ms = call->endpoint->options.session_idle_ms,
					    .session_age_ms = call->endpoint->options.session_age_ms,
					    .usual_output_bytes = usual,
					    .most_output_bytes = most};
	call->admit_start_us = clock_mono_us();
	tracer_root(endpoint->options.tracer, &call->trace, &call->root);
	if (admission_decide(call->endpoint->admission, &request, on_decided, call, &call->admission) < 0)
		call_refuse(call, exec_problem_internal);
}

/* What is wrong with the parts themselves is told here. */
static int parse_parts(struct call *call, struct multipart *parts, struct buf *faults, struct json_failure *failure)
{
	bool whole = multipart_parse(parts, call->boundary, buf_peek(&call->body)) == 0;
	const struct multipart_part *request = whole ? multipart_find(parts, EXEC_REQUEST_PART) : NULL;
	if (request)
		return exec_request_parse(request->bytes, parts, &call->command, faults, failure);
	call_refuse(call, exec_problem_parts(whole ? "No part is named " EXEC_REQUEST_PART "." : parts->detail));
	return PARSE_REFUSED;
}

static int parse(struct call *call, struct buf *faults, struct json_failure *failure)
{
	if (!call->boundary[0])
		return exec_request_parse(buf_peek(&call->body), NULL, &call->command, faults, failure);
	struct multipart *parts = calloc(1, sizeof *parts);
	int r = parts ? parse_parts(call, parts, faults, failure) : -ENOMEM;
	free(parts);
	return r;
}

void call_admit(struct call *call, int parsed, struct buf *faults)
{
	if (parsed == EXEC_REQUEST_INVALID)
		call_refuse(call, exec_problem_invalid(faults));
	else if (parsed < 0 || (call->key[0] && idempotency_fingerprint(call->command->root, call->fingerprint) < 0))
		call_refuse(call, exec_problem_internal);
	else if (call->mcp)
		admit(call); /* who it is was asked before the message was read */
	else
		call_identify(call, admit);
}

void call_on_body_end(void *ctx)
{
	struct call *call = ctx;
	CLEANUP(buf_deinit) struct buf faults = BUF_MAX(EXEC_FAULTS_MAX);
	if (!call->request)
		return;
	if (call->endpoint->draining) {
		refuse_draining(call);
		return;
	}
	if (call->is_mcp) {
		call_mcp_body(call);
		return;
	}
	struct json_failure failure;
	int r = parse(call, &faults, &failure);
	buf_deinit(&call->body);
	if (r == PARSE_REFUSED)
		return;
	if (r == EXEC_REQUEST_MALFORMED)
		call_refuse(call, exec_problem_malformed(&failure));
	else
		call_admit(call, r, &faults);
}

size_t call_on_body(void *ctx, struct slice bytes)
{
	struct call *call = ctx;
	struct exec_endpoint *endpoint = call->endpoint;
	if (!call->request)
		return bytes.len; /* answered already: the rest is of no use */
	if (endpoint->buffered + bytes.len > endpoint->options.limits.max_buffered) {
		call_refuse(call, exec_problem_capacity("capacity", "Too many request bodies are being received."));
		return bytes.len;
	}
	if (buf_append(&call->body, bytes) < 0) {
		call_refuse(call, exec_problem_internal);
		return bytes.len;
	}
	endpoint->buffered += bytes.len;
	call->buffered += bytes.len;
	return bytes.len;
}

static bool has_token_in_query(const struct http_head *head)
{
	struct slice rest = head->query, parameter;
	while (rest.len && slice_next(&rest, '&', &parameter))
		if (slice_has_prefix(parameter, SLICE("access_token=")))
			return true;
	return redact_find(head->query).len > 0;
}

int call_token(struct call *call, const struct http_head *head)
{
	struct token_parts parts;
	if (has_token_in_query(head)) {
		count_auth_failure(call, "malformed");
		call_refuse(call, exec_problem_token_in_query);
		return -EACCES;
	}
	if (call_has_identity(call, head))
		return call_check_origin(call, head);
	int r = exec_authorization(head->fields, &call->token);
	if (r == 0 && token_parse(call->token, &parts) == 0)
		return 0;
	if (r == 0) {
		refuse_token(call, "checksum");
	} else if (r == EXEC_BEARER_MISSING) {
		count_auth_failure(call, "missing");
		call_refuse(call, exec_problem_missing_token);
	} else {
		count_auth_failure(call, "malformed");
		call_refuse(call, exec_problem_invalid_authorization);
	}
	return -EACCES;
}

void call_read(struct call *call, const struct http_head *head)
{
	if (call_token(call, head) < 0)
		return;
	if (call->endpoint->draining) {
		refuse_draining(call);
		return;
	}
	struct slice type = http_fields_value(head->fields, SLICE("Content-Type"));
	if ((!exec_is_json(type) && (call->is_mcp || !multipart_boundary(type, call->boundary))) ||
	    http_fields_count(head->fields, SLICE("Content-Type")) > 1 || http_fields_find(head->fields, SLICE("Content-Encoding"))) {
		call_refuse(call, exec_problem_media_type);
		return;
	}
	if (http_fields_count(head->fields, SLICE("X-Datasette-Authorization")) > 1) {
		call_refuse(call, exec_problem_datasette_twice);
		return;
	}
	int r = idempotency_key(head->fields, call->key);
	if (r < 0) {
		call_refuse(call, r == -EINVAL ? exec_problem_bad_key : exec_problem_internal);
		return;
	}
	if (head->body == HTTP_BODY_LENGTH && head->content_length > call->endpoint->options.limits.max_body) {
		call_refuse(call, exec_problem_too_large("body", call->endpoint->options.limits.max_body));
		return;
	}
	if (call->is_post && call->endpoint->options.limits.announces && !call->by_identity)
		exec_intent_send(call->endpoint->options.agent, EXEC_INTENT_HEAD_MS);
	if (http_request_read(call->request, call->endpoint->options.limits.max_body) < 0)
		call_refuse(call, exec_problem_internal);
}

void call_post(struct call *call, const struct http_head *head)
{
	call->is_post = true;
	memcpy(call->subject.exec_id, call->exec_id, sizeof call->subject.exec_id);
	call->format = exec_accept(head->fields);
	call_read(call, head);
}
