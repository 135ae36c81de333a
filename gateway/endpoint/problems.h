/*
 * problems - what a call is refused with, and how the refusal is counted
 *
 * Pure but for the memory of `extra`. A member that does not fit into memory is left out: the refusal itself always can be told.
 */
#pragma once

#include "gateway/exec/request.h"
#include "gateway/exec/source.h"
#include "policy/admission.h"

struct exec_problem {
	unsigned status;
	const char *code;
	const char *outcome, *reason; /* label values of METRIC_EXEC_DECISIONS */
	const char *authenticate;     /* WWW-Authenticate */
	uint64_t retry_after_s;       /* 0 = none */
	char detail[256];
	struct buf extra;             /* further members, as in struct http_problem */
};

void exec_problem_deinit(struct exec_problem *problem);

extern const struct exec_problem exec_problem_missing_token;
extern const struct exec_problem exec_problem_invalid_token;
extern const struct exec_problem exec_problem_invalid_authorization;
extern const struct exec_problem exec_problem_token_in_query;
extern const struct exec_problem exec_problem_media_type;
extern const struct exec_problem exec_problem_internal;
extern const struct exec_problem exec_problem_no_command;
extern const struct exec_problem exec_problem_bad_key;
extern const struct exec_problem exec_problem_no_session;
extern const struct exec_problem exec_problem_other_body;
extern const struct exec_problem exec_problem_datasette_twice;
extern const struct exec_problem exec_problem_cross_origin;
extern const struct exec_problem exec_problem_anonymous;
extern const struct exec_problem exec_problem_identity_denied;
extern const struct exec_problem exec_problem_identity_unavailable;
extern const struct exec_problem exec_problem_foreign_origin;

/* Each is the caller's: exec_problem_deinit(). */
struct exec_problem exec_problem_malformed(const struct json_failure *failure);
/* Of a multipart body; `detail` is a plain sentence. */
struct exec_problem exec_problem_parts(const char *detail);
struct exec_problem exec_problem_invalid(const struct buf *faults);
struct exec_problem exec_problem_too_large(const char *what, uint64_t limit);
/* Standard input above the token's limit. */
struct exec_problem exec_problem_input(const struct admission_answer *answer);
struct exec_problem exec_problem_abuse(uint64_t wait_ms);
struct exec_problem exec_problem_scope(const struct admission_answer *answer);
struct exec_problem exec_problem_denied(const char *program, const struct admission_answer *answer);
struct exec_problem exec_problem_variable(const struct admission_answer *answer);
struct exec_problem exec_problem_network(const struct admission_answer *answer);
struct exec_problem exec_problem_quota(const struct admission_answer *answer);
struct exec_problem exec_problem_in_progress(const struct admission_answer *answer);
struct exec_problem exec_problem_forgotten(const struct admission_answer *answer);
struct exec_problem exec_problem_session_denied(const struct admission_answer *answer);
struct exec_problem exec_problem_session_busy(const char *session);
struct exec_problem exec_problem_session_limit(const struct admission_answer *answer);
struct exec_problem exec_problem_unavailable(const struct admission_answer *answer);
/* A source whose command was not started; `status` 0 = Datasette did not answer. */
struct exec_problem exec_problem_source(const struct source_failure *failure, const char *exec_id);
/* `reason` is "capacity" or "draining". */
struct exec_problem exec_problem_capacity(const char *reason, const char *detail);

/* Whole seconds, rounded up, at least 1; waits over 10 s get up to 10 % (at most 30 s) more, so that callers do not come back at once. */
uint64_t exec_retry_after_seconds(uint64_t ms);
