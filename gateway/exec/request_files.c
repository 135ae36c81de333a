#include "gateway/exec/request_parts.h"

#include "gateway/base/base64.h"
#include "gateway/base/sha256.h"
#include "gateway/exec/source.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#define SOURCES "a string, {\"base64\": \"…\"}, {\"datasette\": \"/…\"} or {\"part\": \"…\"}"

static void read_base64(struct request_reading *reading, const char *pointer, const json_t *text, struct buf *bytes)
{
	char below[JSON_POINTER_LEN];
	request_point(below, pointer, "base64");
	int r = base64_decode(bytes, slice_of(json_string_value(text), json_string_length(text)));
	if (r == -EINVAL)
		request_fault(reading, below, "is not canonical base64 (RFC 4648 section 4, with padding, no line ends)");
	else if (r < 0)
		reading->error = r;
}

static void read_datasette(struct request_reading *reading, const char *pointer, const json_t *target, const char **from)
{
	char below[JSON_POINTER_LEN];
	const char *wrong = source_fault(slice_str(json_string_value(target)));
	request_point(below, pointer, "datasette");
	if (wrong)
		request_fault(reading, below, "%s", wrong);
	else
		*from = json_string_value(target);
}

/* What it holds becomes part of the parsed body by its digest: another file is another request. */
static int note_digest(json_t *value, struct slice bytes)
{
	char hex[SHA256_HEX + 1];
	struct sha256 digest = {0};
	int r = sha256_init(&digest);
	if (r == 0)
		r = sha256_feed(&digest, bytes);
	if (r == 0)
		r = sha256_hex(&digest, hex);
	sha256_deinit(&digest);
	if (r < 0)
		return r;
	return json_object_set_new(value, "sha256", json_string(hex)) == 0 ? 0 : -ENOMEM;
}

static void read_part(struct request_reading *reading, const char *pointer, json_t *value, struct buf *bytes)
{
	char below[JSON_POINTER_LEN];
	const char *name = json_string_value(json_object_get(value, "part"));
	struct multipart_part *part = reading->parts ? multipart_find(reading->parts, name) : NULL;
	request_point(below, pointer, "part");
	if (!part || strcmp(name, EXEC_REQUEST_PART) == 0) {
		request_fault(reading, below, "there is no such part in the body");
	} else if (part->used) {
		request_fault(reading, below, "the part is used twice");
	} else {
		part->used = true;
		int r = buf_append(bytes, part->bytes);
		if (r == 0)
			r = note_digest(value, part->bytes);
		if (r < 0)
			reading->error = r;
	}
}

/* That of a file may have a mode, too, and is a text under a name then. */
static void read_source(struct request_reading *reading, const char *pointer, json_t *value, bool file, struct buf *bytes,
			const char **from)
{
	const json_t *base64 = json_object_get(value, "base64"), *datasette = json_object_get(value, "datasette");
	const json_t *text = file && json_is_object(value) ? json_object_get(value, "text") : value;
	size_t others = file && json_object_get(value, "mode") ? 1 : 0;
	bool one = !json_is_object(value) || json_object_size(value) == 1 + others;
	if (one && json_is_string(base64)) {
		read_base64(reading, pointer, base64, bytes);
	} else if (one && json_is_string(datasette)) {
		read_datasette(reading, pointer, datasette, from);
	} else if (one && json_is_string(json_object_get(value, "part"))) {
		read_part(reading, pointer, value, bytes);
	} else if (one && json_is_string(text)) {
		int r = buf_append(bytes, slice_of(json_string_value(text), json_string_length(text)));
		if (r < 0)
			reading->error = r;
	} else {
		bool object = json_is_object(value);
		request_fault(reading, pointer, "must be " SOURCES "%s%s", object ? "" : ", is ", object ? "" : request_type_name(value));
	}
}

void request_read_stdin(struct request_reading *reading, json_t *value)
{
	read_source(reading, "/stdin", value, false, &reading->request->input, &reading->request->input_from);
}

/* NULL, or what is wrong with it. */
static const char *path_fault(const char *path)
{
	struct slice rest = slice_str(path[0] == '/' ? path + 1 : path), part;
	if (rest.len >= EXEC_MAX_PATH_BYTES)
		return "the path is longer than 4094 bytes";
	while (slice_next(&rest, '/', &part)) {
		if (!part.len || slice_equal(part, SLICE(".")) || slice_equal(part, SLICE("..")))
			return "the path must not have an empty part, . or ..";
		if (part.len > NAME_MAX)
			return "the path has a part of more than 255 bytes";
	}
	return NULL;
}

static void read_mode(struct request_reading *reading, const char *pointer, const json_t *value, unsigned *mode)
{
	char below[JSON_POINTER_LEN], *end = NULL;
	const char *text = json_string_value(value);
	request_point(below, pointer, "mode");
	unsigned long number = text && strspn(text, "01234567") == strlen(text) && *text ? strtoul(text, &end, 8) : 01000;
	if (number > 0777)
		request_fault(reading, below, "must be a string of octal digits, at most \"0777\"");
	else
		*mode = (unsigned)number;
}

static void read_file(struct request_reading *reading, const char *path, json_t *value)
{
	char pointer[JSON_POINTER_LEN];
	struct exec_file *file = &reading->request->files[reading->request->file_count++];
	const json_t *mode = json_object_get(value, "mode");
	const char *wrong = path_fault(path);
	*file = (struct exec_file){.path = path, .mode = 0644, .bytes = BUF_MAX(REQUEST_INPUT_BYTES)};
	request_point(pointer, "/files", path);
	if (wrong)
		request_fault(reading, pointer, "%s", wrong);
	if (mode)
		read_mode(reading, pointer, mode, &file->mode);
	read_source(reading, pointer, value, true, &file->bytes, &file->from);
}

void request_read_files(struct request_reading *reading, json_t *value)
{
	const char *path;
	json_t *member;
	if (!json_is_object(value)) {
		request_fault(reading, "/files", "must be an object of sources, is %s", request_type_name(value));
		return;
	}
	reading->request->files = request_room(reading, "/files", json_object_size(value), EXEC_MAX_FILES, sizeof *reading->request->files);
	if (!reading->request->files)
		return;
	json_object_foreach(value, path, member) read_file(reading, path, member);
}

static bool has_output(const struct exec_request *request, const char *path)
{
	for (size_t i = 0; i < request->output_count; i++)
		if (strcmp(request->outputs[i], path) == 0)
			return true;
	return false;
}

static void read_output(struct request_reading *reading, const json_t *value, size_t i)
{
	char pointer[32];
	const char *path = json_string_value(value), *wrong = path ? path_fault(path) : NULL;
	snprintf(pointer, sizeof pointer, "/outputs/%zu", i);
	if (!path)
		request_fault(reading, pointer, "must be a string, is %s", request_type_name(value));
	else if (wrong)
		request_fault(reading, pointer, "%s", wrong);
	else if (has_output(reading->request, path))
		request_fault(reading, pointer, "is there twice");
	else
		reading->request->outputs[reading->request->output_count++] = path;
}

void request_read_outputs(struct request_reading *reading, const json_t *value)
{
	if (!json_is_array(value)) {
		request_fault(reading, "/outputs", "must be an array of paths, is %s", request_type_name(value));
		return;
	}
	reading->request->outputs =
		request_room(reading, "/outputs", json_array_size(value), EXEC_MAX_OUTPUTS, sizeof *reading->request->outputs);
	if (!reading->request->outputs)
		return;
	for (size_t i = 0; i < json_array_size(value); i++)
		read_output(reading, json_array_get(value, i), i);
}
