#include "gateway/exec/stored.h"

#include "gateway/http/problem.h"

static int put_whole(const struct exec_job *job, struct buf *out)
{
	const struct exec_answer *answer = &job->answer;
	if (!answer->code)
		return buf_append(out, buf_peek(&answer->body));
	struct http_problem problem = {
		.status = answer->status, .code = answer->code, .detail = slice_str(answer->detail), .extra = buf_peek(&answer->body)};
	return http_problem_write(&problem, out);
}

static int put_without_text(const struct exec_job *job, struct exec_result *result, struct buf *out)
{
	struct exec_answer again;
	int r = buf_append_char(out, '{');
	if (r == 0)
		r = exec_answer_result(result, job->message.exec_id, &again, out);
	return r < 0 ? r : buf_append(out, SLICE("}\n"));
}

int stored_write(const struct exec_job *job, struct exec_result *result, bool unrun, size_t max, struct buf *out)
{
	bool whole = !job->streamed && job->answer.body.len + sizeof job->answer.detail <= max;
	int r = buf_printf(out, "%u%s\n", job->answer.status, unrun ? " unrun" : "");
	if (r < 0)
		return r;
	return whole ? put_whole(job, out) : put_without_text(job, result, out);
}

bool stored_read(struct slice text, unsigned *status, struct slice *object)
{
	struct slice line, word;
	uint64_t number;
	if (!slice_next(&text, '\n', &line) || !slice_next(&line, ' ', &word) || slice_to_u64(word, 599, &number) < 0 || number < 200 ||
	    !text.len || text.data[0] != '{')
		return false;
	*status = (unsigned)number;
	*object = text;
	return true;
}
