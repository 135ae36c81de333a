#include "gateway/endpoint/reply.h"

#include "gateway/endpoint/accept.h"
#include "gateway/exec/stored.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

/* token68, RFC 9110 section 11.2 */
static bool is_token68(struct slice text)
{
	while (text.len && text.data[text.len - 1] == '=')
		text.len--;
	for (size_t i = 0; i < text.len; i++) {
		char c = text.data[i];
		bool ok = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '-' || c == '.' || c == '_' ||
			  c == '~' || c == '+' || c == '/';
		if (!ok)
			return false;
	}
	return text.len > 0;
}

int exec_bearer_token(struct slice authorization, struct slice *token)
{
	struct slice rest = slice_trim(authorization), scheme;
	if (!rest.len || !slice_next(&rest, ' ', &scheme) || !slice_equal_nocase(scheme, SLICE("Bearer")))
		return EXEC_BEARER_MISSING;
	*token = slice_trim(rest);
	return is_token68(*token) ? 0 : EXEC_BEARER_SYNTAX;
}

int exec_authorization(const struct http_fields *fields, struct slice *token)
{
	if (http_fields_count(fields, SLICE("Authorization")) > 1)
		return EXEC_BEARER_SYNTAX;
	return exec_bearer_token(http_fields_value(fields, SLICE("Authorization")), token);
}

bool exec_is_json(struct slice content_type)
{
	struct slice rest = content_type, type;
	return content_type.len && slice_next(&rest, ';', &type) && slice_equal_nocase(slice_trim(type), SLICE("application/json"));
}

void exec_reply_init(struct exec_reply *reply, const struct http_head *head, const char *exec_id)
{
	*reply = (struct exec_reply){.head = head, .exec_id = exec_id};
}

void exec_reply_limits(struct exec_reply *reply, const struct admission_answer *answer)
{
	memcpy(reply->rate_limit, answer->rate_limit, sizeof reply->rate_limit);
	memcpy(reply->rate_limit_policy, answer->rate_limit_policy, sizeof reply->rate_limit_policy);
	memcpy(reply->exec_budget, answer->exec_budget, sizeof reply->exec_budget);
	reply->degraded = answer->lease.degraded;
}

int exec_reply_add(struct http_fields *fields, struct slice name, const char *value)
{
	return value && *value ? http_fields_add(fields, name, slice_str(value)) : 0;
}

int exec_reply_add_cors(struct http_fields *fields, const struct http_head *head)
{
	if (!http_fields_find(head->fields, SLICE("Origin")))
		return 0;
	int r = exec_reply_add(fields, SLICE("Access-Control-Allow-Origin"), "*");
	return r ? r
		 : exec_reply_add(
			   fields, SLICE("Access-Control-Expose-Headers"),
			   "Retry-After, RateLimit, RateLimit-Policy, Exec-Budget, Exec-Usage, Exec-Degraded, X-Exec-Id, X-Request-Id, Server-Timing, Idempotency-Replayed");
}

static int add_common(struct http_fields *fields, const struct exec_reply *reply)
{
	int r = exec_reply_add(fields, SLICE("X-Exec-Id"), reply->exec_id);
	if (!r)
		r = exec_reply_add(fields, SLICE("RateLimit-Policy"), reply->rate_limit_policy);
	if (!r)
		r = exec_reply_add(fields, SLICE("RateLimit"), reply->rate_limit);
	if (!r)
		r = exec_reply_add(fields, SLICE("Exec-Budget"), reply->exec_budget);
	if (!r)
		r = exec_reply_add(fields, SLICE("Exec-Degraded"), reply->degraded ? "?1" : NULL);
	return r ? r : exec_reply_add_cors(fields, reply->head);
}

static int add_content(struct http_fields *fields, struct slice type)
{
	if (http_fields_add(fields, SLICE("Content-Type"), type) != 0 || exec_reply_add(fields, SLICE("Cache-Control"), "no-store"))
		return -1;
	return exec_reply_add(fields, SLICE("X-Content-Type-Options"), "nosniff");
}

static int respond_message(struct http_request *request, struct http_fields *fields, struct buf *message)
{
	if (add_content(fields, SLICE("application/json")))
		return -1;
	return http_request_respond_buf(request, 200, fields, message);
}

/* Takes `object`, the JSON that would have been the body. */
static int reply_tool(struct http_request *request, const struct exec_reply *reply, struct http_fields *fields, struct buf *object,
		      bool is_error)
{
	CLEANUP(buf_deinit) struct buf body = BUF_MAX(3 * EXEC_ANSWER_MAX);
	int r = mcp_put_tool_result(reply->mcp, buf_peek(object), is_error, &body);
	buf_deinit(object);
	return r < 0 ? -1 : respond_message(request, fields, &body);
}

static int reply_tool_problem(struct http_request *request, const struct exec_reply *reply, const struct http_problem *problem,
			      const char *timing)
{
	CLEANUP(buf_deinit) struct buf object = BUF_MAX(128UL * 1024);
	struct http_fields fields = {0};
	if (http_problem_write(problem, &object) < 0 || exec_reply_add(&fields, SLICE("Server-Timing"), timing) ||
	    add_common(&fields, reply))
		return -1;
	return reply_tool(request, reply, &fields, &object, true);
}

int exec_reply_problem(struct http_request *request, const struct exec_reply *reply, const struct exec_problem *problem)
{
	struct http_fields fields = {0};
	char retry_after[24] = "", timing[64];
	struct http_problem http = {.status = problem->status,
				    .code = problem->code,
				    .detail = slice_str(problem->detail),
				    .request_id = reply->head->id,
				    .extra = buf_peek(&problem->extra)};
	if (problem->retry_after_s)
		snprintf(retry_after, sizeof retry_after, "%llu", (unsigned long long)problem->retry_after_s);
	snprintf(timing, sizeof timing, "admit;dur=%.1f", (double)reply->admit_us / 1000);
	if (reply->mcp)
		return reply_tool_problem(request, reply, &http, timing);
	int r = exec_reply_add(&fields, SLICE("WWW-Authenticate"), problem->authenticate);
	if (!r)
		r = exec_reply_add(&fields, SLICE("Retry-After"), retry_after);
	if (!r && problem->status == 415)
		r = exec_reply_add(&fields, SLICE("Accept"), "application/json");
	if (!r)
		r = exec_reply_add(&fields, SLICE("Server-Timing"), timing);
	if (!r)
		r = add_common(&fields, reply);
	return r ? -1 : http_request_respond_problem(request, &http, &fields);
}

static int add_job_fields(struct http_fields *fields, const struct exec_reply *reply, const struct exec_job *job, char timing[128],
			  char used[96])
{
	snprintf(timing, 128, "admit;dur=%.1f, exec;dur=%llu", (double)job->admit_us / 1000, (unsigned long long)job->wall_ms);
	snprintf(used, 96, "wall_ms=%llu, out_bytes=%llu", (unsigned long long)job->wall_ms, (unsigned long long)job->output_bytes);
	int r = exec_reply_add(fields, SLICE("Server-Timing"), timing);
	if (!r)
		r = exec_reply_add(fields, SLICE("Exec-Usage"), used);
	return r ? r : add_common(fields, reply);
}

int exec_reply_job_body(const struct exec_reply *reply, const struct exec_job *job, struct buf *body)
{
	struct http_problem problem = {.status = job->answer.status,
				       .code = job->answer.code,
				       .detail = slice_str(job->answer.detail),
				       .request_id = reply->head->id,
				       .extra = buf_peek(&job->answer.body)};
	return http_problem_write(&problem, body);
}

/* http_request_respond_problem() is for problems without a command's output. */
static int reply_job_problem(struct http_request *request, const struct exec_reply *reply, struct exec_job *job, struct http_fields *fields)
{
	CLEANUP(buf_deinit) struct buf body = BUF_MAX(EXEC_ANSWER_MAX + 4096);
	char retry_after[24] = "";
	if (job->answer.retry_after_ms)
		snprintf(retry_after, sizeof retry_after, "%llu", (unsigned long long)(job->answer.retry_after_ms + 999) / 1000);
	if (exec_reply_add(fields, SLICE("Retry-After"), retry_after) || http_problem_fields(fields) < 0)
		return -1;
	int r = exec_reply_job_body(reply, job, &body);
	exec_answer_deinit(&job->answer);
	return r < 0 ? r : http_request_respond_buf(request, job->answer.status, fields, &body);
}

int exec_reply_job_message(const struct exec_reply *reply, struct exec_job *job, struct buf *message)
{
	CLEANUP(buf_deinit) struct buf body = BUF_MAX(EXEC_ANSWER_MAX + 4096);
	int r = 0;
	if (job->answer.code)
		r = exec_reply_job_body(reply, job, &body);
	struct buf *object = job->answer.code ? &body : &job->answer.body;
	if (r == 0)
		r = mcp_put_tool_result(reply->mcp, buf_peek(object), job->answer.code || job->outcome != EXEC_EXITED, message);
	buf_deinit(object);
	return r;
}

static int reply_job_tool(struct http_request *request, const struct exec_reply *reply, struct exec_job *job, struct http_fields *fields)
{
	CLEANUP(buf_deinit) struct buf message = BUF_MAX(3 * EXEC_ANSWER_MAX);
	int r = exec_reply_job_message(reply, job, &message);
	return r < 0 ? r : respond_message(request, fields, &message);
}

int exec_reply_job(struct http_request *request, const struct exec_reply *reply, struct exec_job *job)
{
	struct http_fields fields = {0};
	char timing[128], used[96];
	if (add_job_fields(&fields, reply, job, timing, used))
		return -1;
	if (reply->mcp)
		return reply_job_tool(request, reply, job, &fields);
	if (job->answer.code)
		return reply_job_problem(request, reply, job, &fields);
	if (add_content(&fields, SLICE("application/json")))
		return -1;
	return http_request_respond_buf(request, 200, &fields, &job->answer.body);
}

/* What the command used is not known yet: its result tells. */
int exec_reply_stream(struct http_request *request, const struct exec_reply *reply, enum stream_format format)
{
	struct http_fields fields = {0};
	char timing[64];
	snprintf(timing, sizeof timing, "admit;dur=%.1f", (double)reply->admit_us / 1000);
	/* nginx holds answers back without it. */
	if (add_content(&fields, exec_content_type(format)) || exec_reply_add(&fields, SLICE("Server-Timing"), timing) ||
	    exec_reply_add(&fields, SLICE("X-Accel-Buffering"), "no") || add_common(&fields, reply))
		return -1;
	return http_request_respond_stream(request, 200, &fields, HTTP_LENGTH_UNKNOWN);
}

int exec_reply_json(struct http_request *request, const struct exec_reply *reply, unsigned status, struct slice body)
{
	struct http_fields fields = {0};
	char timing[64];
	snprintf(timing, sizeof timing, "admit;dur=%.1f", (double)reply->admit_us / 1000);
	if ((body.len && add_content(&fields, SLICE("application/json"))) || exec_reply_add(&fields, SLICE("Server-Timing"), timing) ||
	    add_common(&fields, reply))
		return -1;
	return http_request_respond(request, status, &fields, body);
}

/* A stored answer. */
static bool has_exited(struct slice object)
{
	struct json_failure failure;
	struct slice outcome;
	CLEANUP(json_decref_ptr) json_t *answer = json_parse_own_reals(object, 32, &failure);
	return json_get_string(answer, "outcome", &outcome) && slice_equal(outcome, SLICE("exited"));
}

static int put_object_again(const struct exec_reply *reply, unsigned status, struct slice object, struct buf *body)
{
	int r = buf_append_char(body, '{');
	if (r == 0 && status != 200)
		r = buf_printf(body, "\"request_id\":\"%.*s\",", SLICE_FMT(reply->head->id));
	return r < 0 ? r : buf_append(body, slice_from(object, 1));
}

/* The type of its body; empty when that cannot be written. */
static struct slice put_again(const struct exec_reply *reply, unsigned status, enum stream_format format, struct slice object,
			      struct buf *body)
{
	int r = STORED_NO_TEXT;
	if (format && status == 200)
		r = stored_stream(object, reply->exec_id, format, body);
	if (r == 0)
		return exec_content_type(format);
	/* What cannot be read to be streamed is still what was answered. */
	if (r == -EINVAL)
		buf_consume(body, body->len);
	if (r == STORED_NO_TEXT || r == -EINVAL)
		r = put_object_again(reply, status, object, body);
	if (r < 0)
		return (struct slice){0};
	return status == 200 ? SLICE("application/json") : SLICE("application/problem+json");
}

int exec_reply_again(struct http_request *request, const struct exec_reply *reply, unsigned status, enum stream_format format,
		     struct slice object)
{
	struct http_fields fields = {0};
	struct buf body = BUF_MAX(EXEC_ANSWER_MAX);
	struct slice type = put_again(reply, status, format, object, &body);
	int r = type.len ? 0 : -1;
	if (r == 0)
		r = exec_reply_add(&fields, SLICE("Idempotency-Replayed"), "true");
	if (r == 0)
		r = add_common(&fields, reply);
	if (r == 0 && reply->mcp)
		return reply_tool(request, reply, &fields, &body, status != 200 || !has_exited(object));
	if (r == 0)
		r = add_content(&fields, type);
	if (r != 0) {
		buf_deinit(&body);
		return -1;
	}
	return http_request_respond_buf(request, status, &fields, &body);
}
