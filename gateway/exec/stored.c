#include "gateway/exec/stored.h"

#include "gateway/base/base64.h"
#include "gateway/http/problem.h"
#include "gateway/json/json.h"

#include <errno.h>
#include <stdlib.h>

static int put_whole(const struct exec_answer *answer, struct buf *out)
{
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

static bool is_without_middle(const struct output *output)
{
	return !output->pass && output_cut(output);
}

static const char *first_word(const struct exec_result *result, bool unrun)
{
	if (unrun)
		return " unrun";
	return is_without_middle(&result->streams[0]) || is_without_middle(&result->streams[1]) ? " cut" : "";
}

int stored_write(const struct exec_job *job, struct exec_result *result, bool unrun, size_t max, struct buf *out)
{
	CLEANUP(exec_answer_deinit) struct exec_answer copy = {0};
	const struct exec_answer *answer = &job->answer;
	bool whole = !job->streamed;
	if (job->streamed && result->copied && exec_answer_write(result, job->message.exec_id, &copy) == 0) {
		answer = &copy;
		whole = true;
	}
	int r = buf_printf(out, "%u%s\n", answer->status, first_word(result, unrun));
	if (r < 0)
		return r;
	return whole && answer->body.len + sizeof answer->detail <= max ? put_whole(answer, out) : put_without_text(job, result, out);
}

bool stored_read(struct slice text, struct stored *stored)
{
	struct slice line, word;
	uint64_t number;
	if (!slice_next(&text, '\n', &line) || !slice_next(&line, ' ', &word) || slice_to_u64(word, 599, &number) < 0 || number < 200 ||
	    !text.len || text.data[0] != '{')
		return false;
	*stored = (struct stored){.status = (unsigned)number, .cut = slice_equal(line, SLICE("cut")), .object = text};
	return true;
}

/* --- as a stream --- */

static int tell_output(struct stream *stream, const json_t *answer, unsigned which, struct buf *text)
{
	static const char *const names[] = {"stdout", "stderr"};
	struct slice told, encoding;
	if (!json_get_string(answer, names[which], &told) || !json_get_string(json_object_get(answer, "encoding"), names[which], &encoding))
		return -EINVAL;
	CLEANUP(buf_deinit) struct buf bytes = BUF_MAX(told.len);
	int r = slice_equal(encoding, SLICE("base64")) ? base64_decode(&bytes, told) : buf_append(&bytes, told);
	if (r == 0)
		r = stream_output(stream, which, buf_peek(&bytes), text);
	return r < 0 ? r : stream_output_end(stream, which, false, text);
}

/* What a stream's result tells of it is left. */
static int tell_file(struct stream *stream, const char *path, json_t *file, struct buf *text)
{
	struct slice told;
	int r = 0;
	if (json_get_string(file, "text", &told)) {
		r = stream_file(stream, path, told, true, text);
	} else if (json_get_string(file, "base64", &told)) {
		CLEANUP(buf_deinit) struct buf bytes = BUF_MAX(told.len);
		r = base64_decode(&bytes, told);
		if (r == 0)
			r = stream_file(stream, path, buf_peek(&bytes), true, text);
	}
	json_object_del(file, "text");
	json_object_del(file, "base64");
	return r;
}

static int tell_files(struct stream *stream, json_t *answer, struct buf *text)
{
	json_t *files = json_object_get(answer, "files"), *file;
	const char *path;
	int r = 0;
	json_object_foreach(files, path, file) r = r < 0 ? r : tell_file(stream, path, file, text);
	return r;
}

static int tell_result(struct stream *stream, json_t *answer, struct buf *text)
{
	json_object_del(answer, "stdout");
	json_object_del(answer, "stderr");
	/* As many digits as a double keeps of any decimal number: 0.4 stays 0.4. */
	CLEANUP(free_ptr) char *object = json_dumps(answer, JSON_COMPACT | JSON_REAL_PRECISION(15));
	if (!object)
		return -ENOMEM;
	struct slice members = slice_from(slice_str(object), 1);
	members.len--;
	return stream_result_again(stream, members, text);
}

int stored_stream(struct slice object, const char *exec_id, enum stream_format format, struct buf *text)
{
	struct json_failure failure;
	struct stream stream;
	CLEANUP(json_decref_ptr) json_t *answer = json_parse_own(object, 8, &failure);
	if (!json_is_object(answer))
		return -EINVAL;
	if (!json_object_get(answer, "stdout"))
		return STORED_NO_TEXT;
	stream_init(&stream, format);
	int r = stream_accepted(&stream, exec_id, text);
	for (unsigned i = 0; r == 0 && i < 2; i++)
		r = tell_output(&stream, answer, i, text);
	if (r == 0)
		r = tell_files(&stream, answer, text);
	return r < 0 ? r : tell_result(&stream, answer, text);
}
