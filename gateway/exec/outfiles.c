#include "gateway/exec/outfiles.h"

#include "gateway/base/base64.h"
#include "gateway/base/id.h"
#include "gateway/base/json_text.h"
#include "gateway/base/utf8.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static const char NOT_READ[] = "not_read", TOO_LARGE[] = "too_large", CHANGED[] = "changed";

#define LINE_MAX_BYTES ((size_t)64) /* of a question, without its path */
#define MEMBERS_MAX    ((size_t)96) /* of a file without contents, without its path */

int outfiles_init(struct outfiles *outfiles, const struct exec_request *request)
{
	unsigned char bytes[CHECK_NONCE_LEN / 2];
	*outfiles = (struct outfiles){.cwd = request->cwd ? request->cwd : EXEC_DEFAULT_CWD, .piece = RECORD_READ_MAX};
	int r = id_random(bytes, sizeof bytes);
	if (r < 0)
		return r;
	for (size_t i = 0; i < sizeof bytes; i++)
		snprintf(outfiles->nonce + 2 * i, 3, "%02x", bytes[i]);
	outfiles->files = calloc(request->output_count + 1, sizeof *outfiles->files);
	if (!outfiles->files)
		return -ENOMEM;
	outfiles->count = request->output_count;
	outfiles->input = BUF_MAX(outfiles->count * (LINE_MAX_BYTES + EXEC_MAX_PATH_BYTES) + 1);
	outfiles->reply = BUF_MAX(RECORD_READ_MAX + (outfiles->count + 1) * RECORD_READ_LINE_LEN + 1);
	for (size_t i = 0; i < outfiles->count; i++)
		outfiles->files[i] = (struct outfile){.path = request->outputs[i], .error = NOT_READ};
	return 0;
}

void outfiles_deinit(struct outfiles *outfiles)
{
	for (size_t i = 0; i < outfiles->count; i++)
		buf_deinit(&outfiles->files[i].bytes);
	free(outfiles->files);
	buf_deinit(&outfiles->input);
	buf_deinit(&outfiles->reply);
	*outfiles = (struct outfiles){0};
}

void outfiles_begin(struct outfiles *outfiles, uint64_t each, uint64_t left)
{
	outfiles->each = each;
	outfiles->left = left;
	for (size_t i = 0; i < outfiles->count; i++)
		outfiles->files[i].bytes = BUF_MAX(each);
}

/* --- what to run ------------------------------------------------------------------------------ */

static int put_questions(struct outfiles *outfiles)
{
	int r = 0;
	for (size_t i = outfiles->at; r == 0 && i < outfiles->count; i++) {
		const struct outfile *file = &outfiles->files[i];
		r = buf_printf(&outfiles->input, "%llu %zu\n%s", (unsigned long long)file->at, strlen(file->path), file->path);
	}
	return r < 0 ? r : buf_append_char(&outfiles->input, '\n');
}

bool outfiles_next(struct outfiles *outfiles, struct sandbox_command *command)
{
	if (outfiles->at == outfiles->count)
		return false;
	buf_consume(&outfiles->input, outfiles->input.len);
	buf_consume(&outfiles->reply, outfiles->reply.len);
	if (put_questions(outfiles) < 0) {
		outfiles_give_up(outfiles);
		return false;
	}
	snprintf(outfiles->piece_text, sizeof outfiles->piece_text, "%zu", outfiles->piece);
	const char *const argv[] = {RECORD_SHIM, RECORD_READ, outfiles->cwd, outfiles->nonce, outfiles->piece_text};
	memcpy(outfiles->argv, argv, sizeof argv);
	*command = (struct sandbox_command){.argv = outfiles->argv, .argc = ARRAY_LEN(argv), .input = buf_peek(&outfiles->input)};
	return true;
}

/* --- what it says ----------------------------------------------------------------------------- */

struct line {
	char kind;
	uint64_t size, len;
	const char *id;
};

static bool take_hex(struct slice *rest, uint64_t *number)
{
	*number = 0;
	for (size_t i = 0; i < 16; i++) {
		char c = rest->data[i];
		bool digit = c >= '0' && c <= '9';
		if (!digit && !(c >= 'a' && c <= 'f'))
			return false;
		*number = *number << 4 | (uint64_t)(digit ? c - '0' : c - 'a' + 10);
	}
	*rest = slice_from(*rest, 16);
	return *number <= INT64_MAX; /* no file is larger, and every reader of JSON takes it */
}

/* A line and the bytes after it. */
static bool take_line(const struct outfiles *outfiles, struct slice *rest, struct line *line, struct slice *bytes)
{
	struct slice text = slice_of(rest->data, RECORD_READ_LINE_LEN);
	if (rest->len < text.len || memcmp(text.data, outfiles->nonce, RECORD_NONCE_LEN) != 0 || text.data[text.len - 1] != '\n')
		return false;
	line->kind = text.data[RECORD_NONCE_LEN];
	line->id = text.data + RECORD_NONCE_LEN + 1 + 2 * 16;
	text = slice_from(text, RECORD_NONCE_LEN + 1);
	if (!take_hex(&text, &line->size) || !take_hex(&text, &line->len))
		return false;
	*rest = slice_from(*rest, RECORD_READ_LINE_LEN);
	if (line->len > rest->len || (line->kind != RECORD_READ_FILE && line->len))
		return false;
	*bytes = slice_of(rest->data, (size_t)line->len);
	*rest = slice_from(*rest, (size_t)line->len);
	return true;
}

/* All of it arrived, it is about as many files as there are, and at least about one. */
static bool is_whole(const struct outfiles *outfiles)
{
	struct slice rest = buf_peek(&outfiles->reply), bytes;
	struct line line = {0};
	size_t lines = 0;
	while (take_line(outfiles, &rest, &line, &bytes) && line.kind != RECORD_READ_END)
		lines++;
	return line.kind == RECORD_READ_END && !rest.len && lines && lines <= outfiles->count - outfiles->at;
}

static void end_file(struct outfiles *outfiles, const char *error)
{
	struct outfile *file = &outfiles->files[outfiles->at++];
	file->error = error;
	if (error)
		buf_deinit(&file->bytes);
}

static const char *error_of(char kind)
{
	switch (kind) {
	case RECORD_READ_NOT_FOUND:
		return "not_found";
	case RECORD_READ_DIRECTORY:
		return "is_directory";
	case RECORD_READ_NOT_REGULAR:
		return "not_regular";
	case RECORD_READ_DENIED:
		return "denied";
	case RECORD_READ_CHANGED:
		return CHANGED;
	default:
		return NOT_READ;
	}
}

/* NULL, or why no more of it is taken. */
static const char *begin_file(struct outfiles *outfiles, struct outfile *file, const struct line *line)
{
	if (file->begun)
		return file->size != line->size || memcmp(file->id, line->id, sizeof file->id) != 0 ? CHANGED : NULL;
	file->begun = true;
	file->size = line->size;
	memcpy(file->id, line->id, sizeof file->id);
	if (file->size > outfiles->each || file->size > outfiles->left)
		return TOO_LARGE;
	outfiles->left -= file->size;
	return NULL;
}

static int take_bytes(struct outfiles *outfiles, struct outfile *file, struct slice bytes)
{
	file->at += bytes.len;
	file->done = file->at == file->size;
	return outfiles->pass ? outfiles->pass(outfiles->pass_ctx, file, bytes) : buf_append(&file->bytes, bytes);
}

static int take_file(struct outfiles *outfiles, const struct line *line, struct slice bytes)
{
	struct outfile *file = &outfiles->files[outfiles->at];
	const char *error = line->kind == RECORD_READ_FILE ? begin_file(outfiles, file, line) : error_of(line->kind);
	/* More than it has, or nothing of what is missing. */
	if (!error && (bytes.len > file->size - file->at || (!bytes.len && file->at < file->size)))
		error = NOT_READ;
	if (error) {
		end_file(outfiles, error);
		return 0;
	}
	int r = take_bytes(outfiles, file, bytes);
	if (r == 0 && file->done)
		end_file(outfiles, NULL);
	return r;
}

int outfiles_reply(struct outfiles *outfiles, struct slice bytes)
{
	struct buf *reply = &outfiles->reply;
	/* Too much is as wrong as too little. */
	if (bytes.len > reply->max - reply->len)
		bytes.len = reply->max - reply->len;
	return buf_append(reply, bytes);
}

int outfiles_replied(struct outfiles *outfiles, unsigned exit_code)
{
	struct slice rest = buf_peek(&outfiles->reply), bytes;
	struct line line;
	int r = 0;
	if (exit_code || !is_whole(outfiles)) {
		outfiles->piece /= 2;
		if (outfiles->piece < CHECK_PIECE_MIN)
			outfiles_give_up(outfiles);
		return 0;
	}
	while (r == 0 && outfiles->at < outfiles->count && take_line(outfiles, &rest, &line, &bytes) && line.kind != RECORD_READ_END) {
		size_t at = outfiles->at;
		r = take_file(outfiles, &line, bytes);
		/* The next piece of it comes with the next reply. */
		if (outfiles->at == at)
			break;
	}
	return r;
}

void outfiles_give_up(struct outfiles *outfiles)
{
	while (outfiles->at < outfiles->count)
		end_file(outfiles, NOT_READ);
}

/* --- what is told of them --------------------------------------------------------------------- */

uint64_t outfiles_bytes(const struct outfiles *outfiles)
{
	uint64_t bytes = 0;
	for (size_t i = 0; i < outfiles->count; i++)
		bytes += outfiles->pass || !outfiles->files[i].error ? outfiles->files[i].at : 0;
	return bytes;
}

static int put_base64(struct slice bytes, struct buf *json)
{
	int r = buf_append(json, SLICE("\"base64\":\""));
	if (r == 0)
		r = base64_encode(json, bytes);
	return r < 0 ? r : buf_append(json, SLICE("\","));
}

static int put_text(struct slice bytes, struct buf *json)
{
	int r = buf_append(json, SLICE("\"text\":"));
	if (r == 0)
		r = json_text_string(json, bytes);
	return r < 0 ? r : buf_append_char(json, ',');
}

static int put_file(const struct outfile *file, bool contents, struct buf *json)
{
	if (file->error && file->error != TOO_LARGE)
		return buf_printf(json, "{\"error\":\"%s\"}", file->error);
	int r = file->error ? buf_printf(json, "{\"error\":\"%s\",", file->error) : buf_append_char(json, '{');
	struct slice bytes = buf_peek(&file->bytes);
	if (r == 0 && contents && !file->error)
		r = utf8_is_valid(bytes) ? put_text(bytes, json) : put_base64(bytes, json);
	return r < 0 ? r : buf_printf(json, "\"bytes\":%llu}", (unsigned long long)file->size);
}

int outfiles_put(const struct outfiles *outfiles, bool contents, struct buf *json)
{
	int r = buf_append_char(json, '{');
	for (size_t i = 0; r == 0 && i < outfiles->count; i++) {
		if (i)
			r = buf_append_char(json, ',');
		if (r == 0)
			r = json_text_string(json, slice_str(outfiles->files[i].path));
		if (r == 0)
			r = buf_append_char(json, ':');
		if (r == 0)
			r = put_file(&outfiles->files[i], contents, json);
	}
	return r < 0 ? r : buf_append_char(json, '}');
}

size_t outfiles_put_max(const struct outfiles *outfiles)
{
	size_t len = 2;
	for (size_t i = 0; i < outfiles->count; i++)
		len += json_text_len(slice_str(outfiles->files[i].path)) + MEMBERS_MAX;
	return len;
}
