#include "gateway/exec/reply.h"

#include "gateway/exec/accept.h"

#include <stdio.h>
#include <stdlib.h>

#define PATH		 "/-/agent/exec/"
#define METHODS		 "POST, GET, HEAD, OPTIONS"
#define METHODS_OF_AN_ID "GET, HEAD, DELETE, OPTIONS"

static const char usage[] =
	"Run a command in a sandbox: POST /-/agent/exec\n"
	"\n"
	"  Authorization: Bearer sgt_…\n"
	"  Content-Type: application/json\n"
	"\n"
	"  {\"command\": \"echo hello\"}             a shell line, run as bash -lc\n"
	"  {\"argv\": [\"python3\", \"-c\", \"…\"]}     or a program and its arguments\n"
	"\n"
	"Optional: stdin (text or {\"base64\": \"…\"}), env (object), cwd (path), timeout_seconds, max_output_bytes.\n"
	"The answer is JSON: outcome, exit_code, stdout, stderr and how long it took.\n"
	"With an Idempotency-Key it may be sent again without running again.\n"
	"With Accept: application/x-ndjson or text/event-stream it comes while the command runs.\n";

/* token68, RFC 9110 section 11.2 */
static bool is_token68(struct slice text)
{
	while (text.len && text.data[text.len - 1] == '=')
		text.len--;
	for (size_t i = 0; i < text.len; i++) {
		char c = text.data[i];
		bool ok = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '-' || c == '.' ||
			  c == '_' || c == '~' || c == '+' || c == '/';
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
}

static int add(struct http_fields *fields, struct slice name, const char *value)
{
	return value && *value ? http_fields_add(fields, name, slice_str(value)) : 0;
}

/* A page of another origin may call us with a token it was given; there is no ambient authority to protect (no cookies here). */
static int add_cors(struct http_fields *fields, const struct http_head *head)
{
	if (!http_fields_find(head->fields, SLICE("Origin")))
		return 0;
	int r = add(fields, SLICE("Access-Control-Allow-Origin"), "*");
	return r ? r
		 : add(fields, SLICE("Access-Control-Expose-Headers"),
		       "Retry-After, RateLimit, RateLimit-Policy, Exec-Budget, Exec-Usage, X-Exec-Id, X-Request-Id, Server-Timing, Idempotency-Replayed");
}

static int add_common(struct http_fields *fields, const struct exec_reply *reply)
{
	int r = add(fields, SLICE("X-Exec-Id"), reply->exec_id);
	if (!r)
		r = add(fields, SLICE("RateLimit-Policy"), reply->rate_limit_policy);
	if (!r)
		r = add(fields, SLICE("RateLimit"), reply->rate_limit);
	if (!r)
		r = add(fields, SLICE("Exec-Budget"), reply->exec_budget);
	return r ? r : add_cors(fields, reply->head);
}

int exec_reply_problem(struct http_request *request, const struct exec_reply *reply, const struct exec_problem *problem)
{
	struct http_fields fields = {0};
	char retry_after[24] = "", timing[64];
	if (problem->retry_after_s)
		snprintf(retry_after, sizeof retry_after, "%llu", (unsigned long long)problem->retry_after_s);
	snprintf(timing, sizeof timing, "admit;dur=%.1f", (double)reply->admit_us / 1000);
	int r = add(&fields, SLICE("WWW-Authenticate"), problem->authenticate);
	if (!r)
		r = add(&fields, SLICE("Retry-After"), retry_after);
	if (!r && problem->status == 415)
		r = add(&fields, SLICE("Accept"), "application/json");
	if (!r)
		r = add(&fields, SLICE("Server-Timing"), timing);
	if (!r)
		r = add_common(&fields, reply);
	if (r)
		return -1;
	struct http_problem http = {.status = problem->status,
				    .code = problem->code,
				    .detail = slice_str(problem->detail),
				    .request_id = reply->head->id,
				    .extra = buf_peek(&problem->extra)};
	return http_request_respond_problem(request, &http, &fields);
}

static int add_job_fields(struct http_fields *fields, const struct exec_reply *reply, const struct exec_job *job, char timing[128],
			  char used[96])
{
	snprintf(timing, 128, "admit;dur=%.1f, exec;dur=%llu", (double)job->admit_us / 1000, (unsigned long long)job->wall_ms);
	snprintf(used, 96, "wall_ms=%llu, out_bytes=%llu", (unsigned long long)job->wall_ms, (unsigned long long)job->output_bytes);
	int r = add(fields, SLICE("Server-Timing"), timing);
	if (!r)
		r = add(fields, SLICE("Exec-Usage"), used);
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
static int reply_job_problem(struct http_request *request, const struct exec_reply *reply, struct exec_job *job,
			     struct http_fields *fields)
{
	CLEANUP(buf_deinit) struct buf body = BUF_MAX(EXEC_ANSWER_MAX + 4096);
	char retry_after[24] = "";
	if (job->answer.retry_after_ms)
		snprintf(retry_after, sizeof retry_after, "%llu", (unsigned long long)(job->answer.retry_after_ms + 999) / 1000);
	if (add(fields, SLICE("Retry-After"), retry_after) || http_problem_fields(fields) < 0)
		return -1;
	int r = exec_reply_job_body(reply, job, &body);
	exec_answer_deinit(&job->answer);
	return r < 0 ? r : http_request_respond_buf(request, job->answer.status, fields, &body);
}

int exec_reply_job(struct http_request *request, const struct exec_reply *reply, struct exec_job *job)
{
	struct http_fields fields = {0};
	char timing[128], used[96];
	if (add_job_fields(&fields, reply, job, timing, used))
		return -1;
	if (job->answer.code)
		return reply_job_problem(request, reply, job, &fields);
	if (add(&fields, SLICE("Content-Type"), "application/json") || add(&fields, SLICE("Cache-Control"), "no-store") ||
	    add(&fields, SLICE("X-Content-Type-Options"), "nosniff"))
		return -1;
	return http_request_respond_buf(request, 200, &fields, &job->answer.body);
}

/* What the command used is not known yet: its result tells. */
int exec_reply_stream(struct http_request *request, const struct exec_reply *reply, enum stream_format format)
{
	struct http_fields fields = {0};
	char timing[64];
	snprintf(timing, sizeof timing, "admit;dur=%.1f", (double)reply->admit_us / 1000);
	if (http_fields_add(&fields, SLICE("Content-Type"), exec_content_type(format)) != 0 ||
	    add(&fields, SLICE("Cache-Control"), "no-store") || add(&fields, SLICE("X-Content-Type-Options"), "nosniff") ||
	    add(&fields, SLICE("Server-Timing"), timing) || add_common(&fields, reply))
		return -1;
	return http_request_respond_stream(request, 200, &fields, HTTP_LENGTH_UNKNOWN);
}

static int reply_usage(struct http_request *request)
{
	struct http_fields fields = {0};
	if (add(&fields, SLICE("Content-Type"), "text/plain; charset=utf-8") || add(&fields, SLICE("Cache-Control"), "no-store") ||
	    add(&fields, SLICE("X-Content-Type-Options"), "nosniff"))
		return -1;
	return http_request_respond(request, 200, &fields, SLICE(usage));
}

static int reply_options(struct http_request *request, const struct exec_reply *reply, const char *methods)
{
	struct http_fields fields = {0};
	int r = add(&fields, SLICE("Allow"), methods);
	if (!r)
		r = add(&fields, SLICE("Cache-Control"), "no-store");
	if (!r)
		r = add_cors(&fields, reply->head);
	if (!r && http_fields_find(reply->head->fields, SLICE("Access-Control-Request-Method"))) {
		r = add(&fields, SLICE("Access-Control-Allow-Methods"), methods);
		if (!r)
			r = add(&fields, SLICE("Access-Control-Allow-Headers"), "Authorization, Content-Type, Idempotency-Key");
		if (!r)
			r = add(&fields, SLICE("Access-Control-Max-Age"), "600");
	}
	return r ? -1 : http_request_respond(request, 204, &fields, (struct slice){0});
}

static int reply_method(struct http_request *request, const char *methods, const char **code)
{
	struct http_fields fields = {0};
	char detail[64];
	int len = snprintf(detail, sizeof detail, "Allowed here: %s.", methods);
	struct http_problem problem = {.status = 405, .code = "method-not-allowed", .detail = slice_of(detail, (size_t)len)};
	*code = problem.code;
	return add(&fields, SLICE("Allow"), methods) ? -1 : http_request_respond_problem(request, &problem, &fields);
}

static int reply_not_found(struct http_request *request, const char **code)
{
	struct http_problem problem = {.status = 404, .code = "not-found", .detail = SLICE("There is nothing at this path.")};
	*code = problem.code;
	return http_request_respond_problem(request, &problem, NULL);
}

/* The canonical text of a UUID: nothing else is the id of a command, and nothing is asked for it. */
static bool is_uuid(struct slice text)
{
	for (size_t i = 0; i < text.len; i++) {
		char c = text.data[i];
		bool dash = i == 8 || i == 13 || i == 18 || i == 23;
		if (dash ? c != '-' : !((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')))
			return false;
	}
	return text.len == ID_UUID_LEN;
}

bool exec_path_id(const struct http_head *head, struct slice *exec_id)
{
	*exec_id = slice_from(head->path, sizeof PATH - 1);
	return head->route == HTTP_ROUTE_EXEC_SUB && is_uuid(*exec_id);
}

int exec_reply_json(struct http_request *request, const struct exec_reply *reply, unsigned status, struct slice body)
{
	struct http_fields fields = {0};
	char timing[64];
	snprintf(timing, sizeof timing, "admit;dur=%.1f", (double)reply->admit_us / 1000);
	if (add(&fields, SLICE("Content-Type"), "application/json") || add(&fields, SLICE("Cache-Control"), "no-store") ||
	    add(&fields, SLICE("X-Content-Type-Options"), "nosniff") || add(&fields, SLICE("Server-Timing"), timing) ||
	    add_common(&fields, reply))
		return -1;
	return http_request_respond(request, status, &fields, body);
}

int exec_reply_again(struct http_request *request, const struct exec_reply *reply, unsigned status, struct slice object)
{
	struct http_fields fields = {0};
	struct buf body = BUF_MAX(object.len + 128);
	int r = buf_append_char(&body, '{');
	if (r == 0 && status != 200)
		r = buf_printf(&body, "\"request_id\":\"%.*s\",", SLICE_FMT(reply->head->id));
	if (r == 0)
		r = buf_append(&body, slice_from(object, 1));
	if (r == 0)
		r = add(&fields, SLICE("Content-Type"), status == 200 ? "application/json" : "application/problem+json");
	if (r == 0)
		r = add(&fields, SLICE("Cache-Control"), "no-store");
	if (r == 0)
		r = add(&fields, SLICE("X-Content-Type-Options"), "nosniff");
	if (r == 0)
		r = add(&fields, SLICE("Idempotency-Replayed"), "true");
	if (r == 0)
		r = add_common(&fields, reply);
	if (r != 0) {
		buf_deinit(&body);
		return -1;
	}
	return http_request_respond_buf(request, status, &fields, &body);
}

int exec_reply_other(struct http_request *request, const struct exec_reply *reply, const char **code)
{
	struct slice method = reply->head->method, exec_id;
	bool of_an_id = exec_path_id(reply->head, &exec_id);
	const char *methods = of_an_id ? METHODS_OF_AN_ID : METHODS;
	if (reply->head->route == HTTP_ROUTE_EXEC_SUB && !of_an_id)
		return reply_not_found(request, code);
	if (!of_an_id && (slice_equal(method, SLICE("GET")) || slice_equal(method, SLICE("HEAD"))))
		return reply_usage(request);
	if (slice_equal(method, SLICE("OPTIONS")))
		return reply_options(request, reply, methods);
	return reply_method(request, methods, code);
}
