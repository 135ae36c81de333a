#include "gateway/exec/answer.h"

#include "gateway/base/json_text.h"
#include "gateway/exec/writer.h"

#include <stdio.h>

static const char *const outcome_names[EXEC_OUTCOMES] = {"exited", "signaled", "timed_out", "canceled", "unknown", "not_started"};

const char *exec_outcome_name(enum exec_outcome outcome)
{
	return outcome_names[outcome];
}

static int put_texts(struct exec_result *result, struct buf *body)
{
	static const char *const names[] = {"stdout", "stderr"};
	int r = 0;
	for (size_t i = 0; r == 0 && i < 2; i++) {
		r = buf_printf(body, "\"%s\":", names[i]);
		if (r == 0)
			r = output_put(&result->streams[i], body, &result->encoding[i]);
		if (r == 0)
			r = buf_append_char(body, ',');
	}
	return r;
}

/* The encoding of a text that was never told is that of an empty one. */
static const char *encoding_of(const struct exec_result *result, unsigned stream)
{
	return result->encoding[stream] ? result->encoding[stream] : "utf-8";
}

static int put_counts(const struct exec_result *result, struct buf *body)
{
	const struct output *streams = result->streams;
	return buf_printf(body,
			  "\"encoding\":{\"stdout\":\"%s\",\"stderr\":\"%s\"},\"stdout_bytes\":%llu,\"stdout_truncated\":%s,"
			  "\"stderr_bytes\":%llu,\"stderr_truncated\":%s",
			  encoding_of(result, 0), encoding_of(result, 1), (unsigned long long)output_written(&streams[0]),
			  output_truncated(&streams[0]) ? "true" : "false", (unsigned long long)output_written(&streams[1]),
			  output_truncated(&streams[1]) ? "true" : "false");
}

static int put_streams(struct exec_result *result, bool texts, struct buf *body)
{
	int r = texts ? put_texts(result, body) : 0;
	return r < 0 ? r : put_counts(result, body);
}

static int put_check(const struct exec_result *result, struct buf *body)
{
	return buf_printf(body, ",\"output_check\":\"%s\",\"recovered\":%s,\"stdout_lost_bytes\":%llu,\"stderr_lost_bytes\":%llu",
			  check_verdict_name(result->check), result->check == CHECK_RECOVERED ? "true" : "false",
			  (unsigned long long)result->streams[0].lost, (unsigned long long)result->streams[1].lost);
}

static int put_sandbox(const struct exec_result *result, struct buf *body)
{
	int r = buf_printf(body, ",\"sandbox\":{\"tier\":\"%s\",\"session\":", result->tier);
	if (r < 0)
		return r;
	return result->session
		       ? buf_printf(body, "{\"name\":\"%s\",\"created\":%s}}", result->session, result->session_created ? "true" : "false")
		       : buf_append(body, SLICE("null}"));
}

static int put_timing(const struct exec_result *result, struct buf *body)
{
	int r = buf_printf(body, ",\"duration_ms\":%llu", (unsigned long long)((result->run_us + 500) / 1000));
	if (r == 0)
		r = put_sandbox(result, body);
	return r < 0 ? r
		     : buf_printf(body, ",\"timing_ms\":{\"admit\":%.1f,\"claim\":%.1f,\"exec\":%.1f}", (double)result->admit_us / 1000,
				  (double)result->claim_us / 1000, (double)result->run_us / 1000);
}

static int put_files(const struct exec_result *result, bool texts, struct buf *body)
{
	int r = buf_append(body, SLICE(",\"files\":"));
	if (r < 0)
		return r;
	return result->files ? outfiles_put(result->files, texts, body) : buf_append(body, SLICE("{}"));
}

static int put_written(const struct exec_result *result, struct buf *body)
{
	int r = result->writer ? buf_append(body, SLICE(",\"stdout_to\":")) : 0;
	return r < 0 || !result->writer ? r : writer_put(result->writer, body);
}

static int put_members(struct exec_result *result, const char *exec_id, bool ok, bool texts, struct buf *body)
{
	int r = buf_printf(body, "\"ok\":%s,\"exec_id\":\"%s\",\"outcome\":\"%s\",\"exit_code\":", ok ? "true" : "false", exec_id,
			   outcome_names[result->outcome]);
	if (r == 0)
		r = result->outcome == EXEC_EXITED ? buf_printf(body, "%u", result->exit_code) : buf_append(body, SLICE("null"));
	if (r == 0)
		r = buf_append(body, SLICE(",\"signal\":null,"));
	if (r == 0)
		r = put_streams(result, texts, body);
	if (r == 0)
		r = put_check(result, body);
	if (r == 0)
		r = put_files(result, texts, body);
	if (r == 0)
		r = put_written(result, body);
	return r < 0 ? r : put_timing(result, body);
}

static int put_ran(struct exec_result *result, const char *exec_id, struct buf *body)
{
	int r = buf_append_char(body, '{');
	if (r == 0)
		r = put_members(result, exec_id, true, true, body);
	return r < 0 ? r : buf_append(body, SLICE("}\n"));
}

static int put_refusal(const struct exec_result *result, struct buf *body)
{
	if (result->refusal == EXEC_REFUSED_TOO_LONG) {
		int r = buf_append(body, SLICE(",\"errors\":[{\"pointer\":\"\",\"detail\":"));
		if (r == 0)
			r = json_text_string(body, slice_str(result->detail));
		return r < 0 ? r : buf_append(body, SLICE("}]"));
	}
	if (result->refusal == EXEC_REFUSED_SOURCE) {
		int r = buf_append_char(body, ',');
		return r < 0 ? r : source_put_failure(&result->source, body);
	}
	if (result->refusal == EXEC_REFUSED_SESSION_LOST)
		return buf_printf(body, ",\"session\":\"%s\"", result->session);
	int r = buf_printf(body, ",\"retry_after\":%llu", (unsigned long long)((result->retry_after_ms + 999) / 1000));
	if (r == 0 && result->refusal != EXEC_REFUSED_BY_PROVIDER)
		r = buf_append(body, SLICE(",\"violated-policies\":[\"fleet\"]"));
	return r;
}

static bool may_have_run(const struct exec_result *result)
{
	return result->outcome != EXEC_NOT_STARTED;
}

static int put_not_run(struct exec_result *result, const char *exec_id, struct buf *body)
{
	bool ran = may_have_run(result);
	int r = buf_printf(body, "\"outcome\":\"%s\",\"exec_id\":\"%s\",\"may_have_run\":%s", outcome_names[result->outcome], exec_id,
			   ran ? "true" : "false");
	if (r == 0 && ran)
		r = buf_append_char(body, ',');
	if (r == 0 && ran)
		r = put_streams(result, true, body);
	if (r == 0 && ran && result->files)
		r = put_files(result, true, body);
	if (r == 0 && ran)
		r = put_written(result, body);
	return r < 0 || result->outcome == EXEC_UNKNOWN ? r : put_refusal(result, body);
}

/* Status and code; NULL = it ran. */
static void classify(struct exec_result *result, struct exec_answer *answer)
{
	*answer = (struct exec_answer){.status = 200, .body = BUF_MAX(EXEC_ANSWER_MAX)};
	snprintf(answer->detail, sizeof answer->detail, "%s", result->detail);
	if (result->outcome == EXEC_UNKNOWN) {
		answer->status = 502;
		answer->code = "outcome-unknown";
	} else if (result->refusal == EXEC_REFUSED_SOURCE) {
		answer->status = 502;
		answer->code = "source-failed";
	} else if (result->outcome == EXEC_NOT_STARTED && result->refusal == EXEC_REFUSED_TOO_LONG) {
		answer->status = 422;
		answer->code = "invalid-request";
	} else if (result->outcome == EXEC_NOT_STARTED && result->refusal == EXEC_REFUSED_SESSION_LOST) {
		answer->status = 410;
		answer->code = "session-lost";
	} else if (result->outcome == EXEC_NOT_STARTED) {
		answer->status = 503;
		answer->code = result->refusal != EXEC_REFUSED_BY_PROVIDER ? "temporary-reduced-capacity" : "not-started";
		if (result->retry_after_ms < 1000)
			result->retry_after_ms = 1000;
		answer->retry_after_ms = result->retry_after_ms;
	}
}

int exec_answer_write(struct exec_result *result, const char *exec_id, struct exec_answer *answer)
{
	classify(result, answer);
	int r = answer->code ? put_not_run(result, exec_id, &answer->body) : put_ran(result, exec_id, &answer->body);
	if (r < 0)
		exec_answer_deinit(answer);
	return r;
}

int exec_answer_result(struct exec_result *result, const char *exec_id, struct exec_answer *answer, struct buf *text)
{
	classify(result, answer);
	int r = put_members(result, exec_id, !answer->code, false, text);
	if (r < 0 || !answer->code)
		return r;
	r = buf_printf(text, ",\"status\":%u,\"code\":\"%s\",\"may_have_run\":%s,\"detail\":", answer->status, answer->code,
		       may_have_run(result) ? "true" : "false");
	if (r == 0)
		r = json_text_string(text, slice_str(answer->detail));
	return r < 0 || result->outcome == EXEC_UNKNOWN ? r : put_refusal(result, text);
}

void exec_answer_deinit(struct exec_answer *answer)
{
	buf_deinit(&answer->body);
}
