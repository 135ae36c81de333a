/*
 * reply - the answers of /-/agent/exec: their fields and their problems
 *
 * Runs on:  the worker's loop, on requests of http.
 * Results:  those of http_request_respond.
 */
#pragma once

#include "gateway/endpoint/problems.h"
#include "gateway/exec/job.h"
#include "gateway/http/request.h"
#include "gateway/mcp/mcp.h"

/* What every answer of one call says besides its own content. */
struct exec_reply {
	const struct http_head *head; /* borrowed from the request */
	const char *exec_id;          /* NULL = of no command */
	const struct mcp_request *mcp; /* NULL, or the call of a tool: every answer is its result, with status 200 */
	uint64_t admit_us;            /* how long Redis was asked; 0 when it was not */
	char rate_limit[160];
	char rate_limit_policy[200];
	char exec_budget[200];
	bool degraded;                /* let in without Redis */
};

#define EXEC_BEARER_MISSING 1 /* no Authorization, or another scheme */
#define EXEC_BEARER_SYNTAX  2 /* Bearer, but not followed by one token (RFC 6750 section 2.1) */

/* The token of `Authorization: Bearer <token>`, borrowed from the value. */
MUST_CHECK int exec_bearer_token(struct slice authorization, struct slice *token);

/* The same of a request's fields; two Authorization lines are EXEC_BEARER_SYNTAX, whatever they say. */
MUST_CHECK int exec_authorization(const struct http_fields *fields, struct slice *token);

/* Is it application/json, with or without parameters? */
bool exec_is_json(struct slice content_type);

void exec_reply_init(struct exec_reply *reply, const struct http_head *head, const char *exec_id);
void exec_reply_limits(struct exec_reply *reply, const struct admission_answer *answer);

MUST_CHECK int exec_reply_problem(struct http_request *request, const struct exec_reply *reply, const struct exec_problem *problem);

/* The body of a job's problem, with whatever the command had printed: it may be as large as an answer. Results: those of buf. */
MUST_CHECK int exec_reply_job_body(const struct exec_reply *reply, const struct exec_job *job, struct buf *body);

/* The same as the result of a tool: the whole message. Takes the memory of the job's body. */
MUST_CHECK int exec_reply_job_message(const struct exec_reply *reply, struct exec_job *job, struct buf *message);

/* The answer of a finished job; takes the memory of its body. */
MUST_CHECK int exec_reply_job(struct http_request *request, const struct exec_reply *reply, struct exec_job *job);

MUST_CHECK int exec_reply_json(struct http_request *request, const struct exec_reply *reply, unsigned status, struct slice body);

/* The answer that an earlier request got: a command's, or a problem. `object` begins with its brace. As a stream, when one is asked for and
 * the command's output was kept; else as JSON. */
MUST_CHECK int exec_reply_again(struct http_request *request, const struct exec_reply *reply, unsigned status, enum stream_format format,
				struct slice object);

/* The head of a streamed answer. */
MUST_CHECK int exec_reply_stream(struct http_request *request, const struct exec_reply *reply, enum stream_format format);

/* For the answers of pages.c too: a field whose value is NULL or empty is left out. Results: those of http_fields_add. */
MUST_CHECK int exec_reply_add(struct http_fields *fields, struct slice name, const char *value);

/* A page of another origin may call us with a token it was given. It can read no answer to a visitor's cookies: credentials are never allowed. */
MUST_CHECK int exec_reply_add_cors(struct http_fields *fields, const struct http_head *head);
