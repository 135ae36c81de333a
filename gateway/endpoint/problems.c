#include "gateway/endpoint/problems.h"

#include "gateway/base/id.h"
#include "gateway/base/json_text.h"
#include "gateway/base/utf8.h"

#include <inttypes.h>
#include <stdio.h>

#define EXTRA_MAX   4096
#define PROGRAM_MAX 256 /* told of a program's name */

const struct exec_problem exec_problem_missing_token = {
	.status = 401,
	.code = "missing-token",
	.outcome = "deny",
	.reason = "missing_token",
	.detail = "Send a token: Authorization: Bearer sgt_…",
	.authenticate = "Bearer realm=\"exec\"",
};

/* One text for every way a token can be wrong, so that nothing leaks. */
const struct exec_problem exec_problem_invalid_token = {
	.status = 401,
	.code = "invalid-token",
	.outcome = "deny",
	.reason = "invalid_token",
	.detail = "The token is not valid.",
	.authenticate = "Bearer realm=\"exec\", error=\"invalid_token\", error_description=\"The token is not valid\"",
};

const struct exec_problem exec_problem_invalid_authorization = {
	.status = 400,
	.code = "invalid-authorization",
	.outcome = "deny",
	.reason = "invalid_request",
	.detail = "Authorization must be the word Bearer, a space and one token.",
	.authenticate =
		"Bearer realm=\"exec\", error=\"invalid_request\", error_description=\"Authorization must be the word Bearer and one token\"",
};

const struct exec_problem exec_problem_token_in_query = {
	.status = 400,
	.code = "invalid-authorization",
	.outcome = "deny",
	.reason = "invalid_request",
	.detail = "A token belongs into the Authorization field: addresses are logged and passed on. Take this one for disclosed.",
	.authenticate = "Bearer realm=\"exec\", error=\"invalid_request\", error_description=\"The token must not be in the query\"",
};

const struct exec_problem exec_problem_media_type = {
	.status = 415,
	.code = "unsupported-media-type",
	.outcome = "deny",
	.reason = "invalid_request",
	.detail = "The body must be application/json, or multipart/form-data with a boundary, without a content coding.",
};

const struct exec_problem exec_problem_internal = {
	.status = 500,
	.code = "internal",
	.outcome = "error",
	.reason = "other",
	.detail = "The gateway failed; it is not your fault.",
};

/* One text for every id that is not of a command of this token. */
const struct exec_problem exec_problem_no_command = {
	.status = 404,
	.code = "exec-not-found",
	.outcome = "deny",
	.reason = "invalid_request",
	.detail = "There is no command with this id, or nothing is known of it any more.",
};

const struct exec_problem exec_problem_no_session = {
	.status = 404,
	.code = "session-not-found",
	.outcome = "deny",
	.reason = "invalid_request",
	.detail = "There is no session with this name.",
};

const struct exec_problem exec_problem_bad_key = {
	.status = 400,
	.code = "malformed-request",
	.outcome = "deny",
	.reason = "invalid_request",
	.detail = "Idempotency-Key must be one string of 1 to 255 printable ASCII characters, in quotes or without.",
};

const struct exec_problem exec_problem_other_body = {
	.status = 422,
	.code = "idempotency-mismatch",
	.outcome = "deny",
	.reason = "idempotency",
	.detail = "This Idempotency-Key was sent with another body before.",
};

const struct exec_problem exec_problem_datasette_twice = {
	.status = 400,
	.code = "invalid-authorization",
	.outcome = "deny",
	.reason = "invalid_request",
	.detail = "X-Datasette-Authorization must not be there more than once.",
};

const struct exec_problem exec_problem_cross_origin = {
	.status = 403,
	.code = "cross-origin-denied",
	.outcome = "deny",
	.reason = "cross_origin",
	.detail = "Without a token a page of another origin may not do this.",
};

const struct exec_problem exec_problem_anonymous = {
	.status = 401,
	.code = "missing-token",
	.outcome = "deny",
	.reason = "missing_token",
	.detail = "Datasette does not know who you are: log in there, or send a token: Authorization: Bearer sgt_…",
	.authenticate = "Bearer realm=\"exec\"",
};

const struct exec_problem exec_problem_identity_denied = {
	.status = 403,
	.code = "identity-denied",
	.outcome = "deny",
	.reason = "identity",
	.detail = "Whom Datasette takes you for may not run commands here, or not with these credentials.",
};

const struct exec_problem exec_problem_identity_unavailable = {
	.status = 503,
	.code = "identity-unavailable",
	.outcome = "error",
	.reason = "identity",
	.detail = "Datasette did not say who you are; nothing was run.",
	.retry_after_s = 2,
};

const struct exec_problem exec_problem_foreign_origin = {
	.status = 403,
	.code = "foreign-origin",
	.outcome = "deny",
	.reason = "invalid_request",
	.detail = "Host, and Origin if it is there, must name this machine or one of MCP_HOSTS.",
};

void exec_problem_deinit(struct exec_problem *problem)
{
	buf_deinit(&problem->extra);
}

/* `r` is how writing `extra` went. */
static struct exec_problem whole(struct exec_problem problem, int r)
{
	if (r < 0)
		buf_deinit(&problem.extra);
	return problem;
}

struct exec_problem exec_problem_malformed(const struct json_failure *failure)
{
	struct exec_problem problem = {
		.status = 400, .code = "malformed-request", .outcome = "deny", .reason = "invalid_request", .extra = BUF_MAX(EXTRA_MAX)};
	snprintf(problem.detail, sizeof problem.detail, "The body is not JSON that can be used: %s (byte %zu; pointer says where).",
		 failure->text, failure->position);
	int r = buf_append(&problem.extra, SLICE("\"pointer\":"));
	return whole(problem, r < 0 ? r : json_text_string(&problem.extra, slice_str(failure->pointer)));
}

struct exec_problem exec_problem_parts(const char *detail)
{
	struct exec_problem problem = {
		.status = 400, .code = "malformed-request", .outcome = "deny", .reason = "invalid_request", .extra = BUF_MAX(EXTRA_MAX)};
	snprintf(problem.detail, sizeof problem.detail, "The body is not multipart/form-data that can be used. %s", detail);
	return problem;
}

struct exec_problem exec_problem_invalid(const struct buf *faults)
{
	struct exec_problem problem = {.status = 422,
				       .code = "invalid-request",
				       .outcome = "deny",
				       .reason = "invalid_request",
				       .detail = "Some fields cannot be used; errors says which and why.",
				       .extra = BUF_MAX(faults->len + 64)};
	int r = buf_printf(&problem.extra, "\"errors\":%.*s", SLICE_FMT(buf_peek(faults)));
	return whole(problem, r);
}

struct exec_problem exec_problem_too_large(const char *what, uint64_t limit)
{
	struct exec_problem problem = {
		.status = 413, .code = "body-too-large", .outcome = "deny", .reason = "body_limit", .extra = BUF_MAX(EXTRA_MAX)};
	snprintf(problem.detail, sizeof problem.detail, "The %s is larger than the limit of %" PRIu64 " bytes.", what, limit);
	int r = buf_printf(&problem.extra, "\"limit_bytes\":%" PRIu64, limit);
	return whole(problem, r);
}

/* Which policy refused, when the token follows one. */
static int put_policy(struct buf *extra, const struct admission_answer *answer)
{
	if (!answer->policy[0])
		return 0;
	int r = buf_printf(extra, "%s\"policy\":", extra->len ? "," : "");
	if (r == 0)
		r = json_text_string(extra, slice_str(answer->policy));
	return r < 0 ? r : buf_printf(extra, ",\"policy_version\":%" PRIu64, answer->policy_version);
}

struct exec_problem exec_problem_input(const struct admission_answer *answer)
{
	struct exec_problem problem = exec_problem_too_large("standard input, with files,", answer->max_input_bytes);
	return whole(problem, put_policy(&problem.extra, answer));
}

struct exec_problem exec_problem_abuse(uint64_t wait_ms)
{
	struct exec_problem problem = {.status = 429,
				       .code = "abnormal-usage",
				       .outcome = "deny",
				       .reason = "abnormal_usage",
				       .retry_after_s = exec_retry_after_seconds(wait_ms),
				       .detail = "Too many wrong tokens came from this address; a valid one is accepted at any time.",
				       .extra = BUF_MAX(EXTRA_MAX)};
	int r = buf_printf(&problem.extra, "\"violated-policies\":[\"wrong-tokens\"],\"retry_after\":%" PRIu64, problem.retry_after_s);
	return whole(problem, r);
}

struct exec_problem exec_problem_scope(const struct admission_answer *answer)
{
	struct exec_problem problem = {.status = 403,
				       .code = "insufficient-scope",
				       .outcome = "deny",
				       .reason = "scope",
				       .detail = "The token may not run commands.",
				       .authenticate = "Bearer realm=\"exec\", error=\"insufficient_scope\", scope=\"exec:run\"",
				       .extra = BUF_MAX(EXTRA_MAX)};
	int r = buf_append(&problem.extra, SLICE("\"required\":\"exec:run\""));
	return whole(problem, r < 0 ? r : put_policy(&problem.extra, answer));
}

static int put_denial(struct buf *extra, const char *what, const char *name, const struct admission_answer *answer)
{
	struct slice shown = slice_of(name, strnlen(name, PROGRAM_MAX));
	shown.len -= utf8_unfinished_tail(shown);
	int r = buf_printf(extra, "\"%s\":", what);
	if (r == 0)
		r = json_text_string(extra, shown);
	return r < 0 ? r : put_policy(extra, answer);
}

struct exec_problem exec_problem_denied(const char *program, const struct admission_answer *answer)
{
	struct exec_problem problem = {.status = 403,
				       .code = "command-denied",
				       .outcome = "deny",
				       .reason = "command",
				       .detail = "The token's policy does not allow this program.",
				       .extra = BUF_MAX(EXTRA_MAX)};
	int r = put_denial(&problem.extra, "command", program, answer);
	return whole(problem, r);
}

struct exec_problem exec_problem_variable(const struct admission_answer *answer)
{
	struct exec_problem problem = {.status = 403,
				       .code = "environment-denied",
				       .outcome = "deny",
				       .reason = "environment",
				       .detail = "The token's policy does not allow this environment variable.",
				       .extra = BUF_MAX(EXTRA_MAX)};
	int r = put_denial(&problem.extra, "variable", answer->variable, answer);
	return whole(problem, r);
}

struct exec_problem exec_problem_network(const struct admission_answer *answer)
{
	struct exec_problem problem = {.status = 403,
				       .code = "ip-denied",
				       .outcome = "deny",
				       .reason = "network",
				       .detail = "The token may not be used from this address.",
				       .extra = BUF_MAX(EXTRA_MAX)};
	int r = put_policy(&problem.extra, answer);
	return whole(problem, r);
}

/* The field's dictionary "limit=1, used=2" as members of an object: its keys are plain words, its values integers. */
static int put_budget(const char *field, struct buf *extra)
{
	struct slice rest = slice_str(field), member;
	int r = buf_append(extra, SLICE(",\"budget\":{"));
	for (const char *comma = ""; r == 0 && slice_next(&rest, ',', &member); comma = ",") {
		struct slice value = slice_trim(member), key;
		if (slice_next(&value, '=', &key))
			r = buf_printf(extra, "%s\"%.*s\":%.*s", comma, SLICE_FMT(key), SLICE_FMT(value));
	}
	return r < 0 ? r : buf_append_char(extra, '}');
}

static uint64_t seconds_up(uint64_t ms)
{
	return ms > 1000 ? (ms + 999) / 1000 : 1;
}

struct exec_problem exec_problem_quota(const struct admission_answer *answer)
{
	/* A day's budget starts anew for everybody at a time that Exec-Budget tells: a later one would contradict it. */
	bool budget = strstr(answer->violated, "budget\"");
	const char *reason = strstr(answer->violated, "concurrency") ? "concurrency" : budget ? "budget" : "rate";
	struct exec_problem problem = {.status = 429,
				       .code = "quota-exceeded",
				       .outcome = "deny",
				       .reason = reason,
				       .retry_after_s = budget ? seconds_up(answer->retry_after_ms)
							       : exec_retry_after_seconds(answer->retry_after_ms),
				       .detail = "One of the token's limits is used up; violated-policies names it.",
				       .extra = BUF_MAX(EXTRA_MAX)};
	int r = buf_printf(&problem.extra, "\"violated-policies\":%s,\"retry_after\":%" PRIu64, answer->violated, problem.retry_after_s);
	if (r == 0 && answer->exec_budget[0])
		r = put_budget(answer->exec_budget, &problem.extra);
	if (r == 0)
		r = put_policy(&problem.extra, answer);
	return whole(problem, r);
}

static int put_prior(struct buf *extra, const struct admission_answer *answer)
{
	return buf_printf(extra, "\"exec_id\":\"%s\"", answer->prior);
}

struct exec_problem exec_problem_in_progress(const struct admission_answer *answer)
{
	struct exec_problem problem = {.status = 409,
				       .code = "idempotency-in-progress",
				       .outcome = "deny",
				       .reason = "idempotency",
				       .retry_after_s = 2,
				       .detail = "The command that this Idempotency-Key has started is still running.",
				       .extra = BUF_MAX(EXTRA_MAX)};
	int r = put_prior(&problem.extra, answer);
	return whole(problem, r < 0 ? r : buf_append(&problem.extra, SLICE(",\"retry_after\":2")));
}

struct exec_problem exec_problem_forgotten(const struct admission_answer *answer)
{
	struct exec_problem problem = {.status = 409,
				       .code = "idempotency-forgotten",
				       .outcome = "deny",
				       .reason = "idempotency",
				       .detail = "This Idempotency-Key has started a command, and how it ended is not known any more.",
				       .extra = BUF_MAX(EXTRA_MAX)};
	return whole(problem, put_prior(&problem.extra, answer));
}

struct exec_problem exec_problem_source(const struct source_failure *failure, const char *exec_id)
{
	struct exec_problem problem = {
		.status = 502, .code = "source-failed", .outcome = "error", .reason = "source", .extra = BUF_MAX(EXTRA_MAX)};
	snprintf(problem.detail, sizeof problem.detail, "%s", failure->detail);
	int r = buf_printf(&problem.extra, "\"outcome\":\"not_started\",\"exec_id\":\"%s\",\"may_have_run\":false,", exec_id);
	return whole(problem, r < 0 ? r : source_put_failure(failure, &problem.extra));
}

struct exec_problem exec_problem_session_denied(const struct admission_answer *answer)
{
	struct exec_problem problem = {.status = 403,
				       .code = "session-denied",
				       .outcome = "deny",
				       .reason = "session",
				       .detail = "The token may have no sessions.",
				       .extra = BUF_MAX(EXTRA_MAX)};
	return whole(problem, put_policy(&problem.extra, answer));
}

struct exec_problem exec_problem_session_busy(const char *session)
{
	struct exec_problem problem = {.status = 409,
				       .code = "session-busy",
				       .outcome = "deny",
				       .reason = "session",
				       .retry_after_s = 1,
				       .detail = "A command runs in this session; it runs one at a time.",
				       .extra = BUF_MAX(EXTRA_MAX)};
	return whole(problem, buf_printf(&problem.extra, "\"session\":\"%s\",\"retry_after\":1", session));
}

struct exec_problem exec_problem_session_limit(const struct admission_answer *answer)
{
	struct exec_problem problem = {.status = 429,
				       .code = "session-limit",
				       .outcome = "deny",
				       .reason = "session",
				       .retry_after_s = 60,
				       .detail = "The token has as many sessions as it may have.",
				       .extra = BUF_MAX(EXTRA_MAX)};
	int r = buf_printf(&problem.extra, "\"violated-policies\":[\"sessions\"],\"max_sessions\":%" PRIu64 ",\"retry_after\":60",
			   answer->max_sessions);
	if (r == 0)
		r = put_policy(&problem.extra, answer);
	return whole(problem, r);
}

/* Why not even while Redis is away (policy/degraded.h). */
static const char *degraded_detail(const char *result)
{
	static const char *const details[][2] = {
		{"unknown", " Until it does, only what it has just allowed this token may run."},
		{"rate", " Until it does, commands may begin at a fraction of the usual rate."},
		{"concurrency", " Until it does, one command may run at a time."},
		{"budget", " What may run until it does is used up."},
		{"unsupported",
		 " Until it does, there are no sessions, idempotency keys, rows into Datasette, MCP tools or looks at commands."},
	};
	for (size_t i = 0; i < ARRAY_LEN(details); i++)
		if (strcmp(result, details[i][0]) == 0)
			return details[i][1];
	return "";
}

struct exec_problem exec_problem_unavailable(const struct admission_answer *answer)
{
	struct exec_problem problem = {.status = 503,
				       .code = "policy-unavailable",
				       .outcome = "error",
				       .reason = "unavailable",
				       .retry_after_s = exec_retry_after_seconds(answer->retry_after_ms)};
	const char *more = answer->degraded ? degraded_detail(answer->degraded) : "";
	snprintf(problem.detail, sizeof problem.detail, "The store of tokens and limits does not answer; nothing was run.%s", more);
	return problem;
}

struct exec_problem exec_problem_capacity(const char *reason, const char *detail)
{
	struct exec_problem problem = {.status = 503,
				       .code = "temporary-reduced-capacity",
				       .outcome = "error",
				       .reason = reason,
				       .retry_after_s = 2,
				       .extra = BUF_MAX(EXTRA_MAX)};
	snprintf(problem.detail, sizeof problem.detail, "%s", detail);
	int r = buf_append(&problem.extra, SLICE("\"violated-policies\":[\"fleet\"],\"retry_after\":2"));
	return whole(problem, r);
}

uint64_t exec_retry_after_seconds(uint64_t ms)
{
	uint64_t seconds = seconds_up(ms);
	if (seconds > 10) {
		uint64_t spread = seconds / 10 < 30 ? seconds / 10 : 30;
		uint64_t random = 0;
		if (id_random(&random, sizeof random) == 0)
			seconds += random % (spread + 1);
	}
	return seconds;
}
