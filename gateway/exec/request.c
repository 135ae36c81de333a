#include "gateway/exec/request.h"

#include "gateway/base/base64.h"
#include "gateway/base/json_text.h"
#include "gateway/base/sha256.h"
#include "gateway/exec/source.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define MAX_DEPTH   32
#define INPUT_BYTES (256UL * 1024 * 1024)
#define MAX_SECONDS 1e9
#define MAX_BYTES   1e18 /* far above every ceiling */
#define MAX_FAULTS  32 /* told; a body can have thousands */

/* What the readers below share: where faults go, and the first error that is no fault of the caller. */
struct reading {
	struct exec_request *request;
	struct multipart *parts; /* NULL = none */
	struct buf *faults;
	unsigned count;
	size_t bytes; /* of the command, the arguments, the variables and cwd, as the sandbox's API gets them: JSON strings with a comma */
	int error;
};

static void fault(struct reading *reading, const char *pointer, const char *format, ...) PRINTF(3, 4);

static void fault(struct reading *reading, const char *pointer, const char *format, ...)
{
	char detail[256];
	va_list args;
	if (reading->count++ >= MAX_FAULTS)
		return;
	va_start(args, format);
	vsnprintf(detail, sizeof detail, format, args);
	va_end(args);
	int r = buf_append(reading->faults, reading->faults->len ? SLICE(",{\"pointer\":") : SLICE("[{\"pointer\":"));
	if (r == 0)
		r = json_text_string(reading->faults, slice_str(pointer));
	if (r == 0)
		r = buf_append(reading->faults, SLICE(",\"detail\":"));
	if (r == 0)
		r = json_text_string(reading->faults, slice_str(detail));
	if (r == 0)
		r = buf_append_char(reading->faults, '}');
	if (r < 0)
		reading->error = r;
}

static void count(struct reading *reading, const char *text)
{
	reading->bytes += json_text_len(slice_str(text)) + 1;
}

static bool is_whole(const json_t *number)
{
	return trunc(json_real_value(number)) == json_real_value(number);
}

static const char *type_name(const json_t *value)
{
	switch (json_typeof(value)) {
	case JSON_OBJECT:
		return "an object";
	case JSON_ARRAY:
		return "an array";
	case JSON_STRING:
		return "a string";
	case JSON_REAL:
		return is_whole(value) ? "an integer" : "a number with a fraction";
	case JSON_TRUE:
	case JSON_FALSE:
		return "a boolean";
	default:
		return "null";
	}
}

/* "/env/a~1b" */
static void point(char out[JSON_POINTER_LEN], const char *parent, const char *name)
{
	snprintf(out, JSON_POINTER_LEN, "%s", parent);
	json_pointer_add(out, slice_str(name));
}

static void read_command(struct reading *reading, const json_t *value)
{
	if (!json_is_string(value))
		fault(reading, "/command", "must be a string, is %s", type_name(value));
	else if (json_string_length(value) == 0)
		fault(reading, "/command", "must not be empty");
	else if (json_string_length(value) > EXEC_MAX_ARG_BYTES)
		fault(reading, "/command", "has %zu bytes, the limit is %d", json_string_length(value), EXEC_MAX_ARG_BYTES);
	else {
		reading->request->command = json_string_value(value);
		count(reading, reading->request->command);
	}
}

static void read_argument(struct reading *reading, const json_t *value, size_t i)
{
	char pointer[32];
	snprintf(pointer, sizeof pointer, "/argv/%zu", i);
	if (!json_is_string(value))
		fault(reading, pointer, "must be a string, is %s", type_name(value));
	else if (json_string_length(value) > EXEC_MAX_ARG_BYTES)
		fault(reading, pointer, "has %zu bytes, the limit is %d", json_string_length(value), EXEC_MAX_ARG_BYTES);
	else if (i == 0 && json_string_length(value) == 0)
		fault(reading, pointer, "the program must not be empty");
	else {
		reading->request->argv[reading->request->argc++] = json_string_value(value);
		count(reading, json_string_value(value));
	}
}

static void read_argv(struct reading *reading, const json_t *value)
{
	size_t n = json_is_array(value) ? json_array_size(value) : 0;
	if (!json_is_array(value)) {
		fault(reading, "/argv", "must be an array of strings, is %s", type_name(value));
		return;
	}
	if (n == 0 || n > EXEC_MAX_ARGS) {
		fault(reading, "/argv", "has %zu entries, allowed are 1 to %d", n, EXEC_MAX_ARGS);
		return;
	}
	reading->request->argv = calloc(n + 1, sizeof *reading->request->argv);
	if (!reading->request->argv) {
		reading->error = -ENOMEM;
		return;
	}
	for (size_t i = 0; i < n; i++)
		read_argument(reading, json_array_get(value, i), i);
}

#define SOURCES "a string, {\"base64\": \"…\"}, {\"datasette\": \"/…\"} or {\"part\": \"…\"}"

static void read_base64(struct reading *reading, const char *pointer, const json_t *text, struct buf *bytes)
{
	char below[JSON_POINTER_LEN];
	point(below, pointer, "base64");
	int r = base64_decode(bytes, slice_of(json_string_value(text), json_string_length(text)));
	if (r == -EINVAL)
		fault(reading, below, "is not canonical base64 (RFC 4648 section 4, with padding, no line ends)");
	else if (r < 0)
		reading->error = r;
}

static void read_datasette(struct reading *reading, const char *pointer, const json_t *target, const char **from)
{
	char below[JSON_POINTER_LEN];
	const char *wrong = source_fault(slice_str(json_string_value(target)));
	point(below, pointer, "datasette");
	if (wrong)
		fault(reading, below, "%s", wrong);
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

static void read_part(struct reading *reading, const char *pointer, json_t *value, struct buf *bytes)
{
	char below[JSON_POINTER_LEN];
	const char *name = json_string_value(json_object_get(value, "part"));
	struct multipart_part *part = reading->parts ? multipart_find(reading->parts, name) : NULL;
	point(below, pointer, "part");
	if (!part || strcmp(name, EXEC_REQUEST_PART) == 0) {
		fault(reading, below, "there is no such part in the body");
	} else if (part->used) {
		fault(reading, below, "the part is used twice");
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
static void read_source(struct reading *reading, const char *pointer, json_t *value, bool file, struct buf *bytes, const char **from)
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
		fault(reading, pointer, "must be " SOURCES "%s%s", object ? "" : ", is ", object ? "" : type_name(value));
	}
}

static void read_stdin(struct reading *reading, json_t *value)
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

static void read_mode(struct reading *reading, const char *pointer, const json_t *value, unsigned *mode)
{
	char below[JSON_POINTER_LEN], *end = NULL;
	const char *text = json_string_value(value);
	point(below, pointer, "mode");
	unsigned long number = text && strspn(text, "01234567") == strlen(text) && *text ? strtoul(text, &end, 8) : 01000;
	if (number > 0777)
		fault(reading, below, "must be a string of octal digits, at most \"0777\"");
	else
		*mode = (unsigned)number;
}

static void read_file(struct reading *reading, const char *path, json_t *value)
{
	char pointer[JSON_POINTER_LEN];
	struct exec_file *file = &reading->request->files[reading->request->file_count++];
	const json_t *mode = json_object_get(value, "mode");
	const char *wrong = path_fault(path);
	*file = (struct exec_file){.path = path, .mode = 0644, .bytes = BUF_MAX(INPUT_BYTES)};
	point(pointer, "/files", path);
	if (wrong)
		fault(reading, pointer, "%s", wrong);
	if (mode)
		read_mode(reading, pointer, mode, &file->mode);
	read_source(reading, pointer, value, true, &file->bytes, &file->from);
}

static void read_files(struct reading *reading, json_t *value)
{
	const char *path;
	json_t *member;
	if (!json_is_object(value)) {
		fault(reading, "/files", "must be an object of sources, is %s", type_name(value));
		return;
	}
	if (json_object_size(value) > EXEC_MAX_FILES) {
		fault(reading, "/files", "has %zu entries, the limit is %d", json_object_size(value), EXEC_MAX_FILES);
		return;
	}
	reading->request->files = calloc(json_object_size(value) + 1, sizeof *reading->request->files);
	if (!reading->request->files) {
		reading->error = -ENOMEM;
		return;
	}
	json_object_foreach(value, path, member) read_file(reading, path, member);
}

static bool has_output(const struct exec_request *request, const char *path)
{
	for (size_t i = 0; i < request->output_count; i++)
		if (strcmp(request->outputs[i], path) == 0)
			return true;
	return false;
}

static void read_output(struct reading *reading, const json_t *value, size_t i)
{
	char pointer[32];
	const char *path = json_string_value(value), *wrong = path ? path_fault(path) : NULL;
	snprintf(pointer, sizeof pointer, "/outputs/%zu", i);
	if (!path)
		fault(reading, pointer, "must be a string, is %s", type_name(value));
	else if (wrong)
		fault(reading, pointer, "%s", wrong);
	else if (has_output(reading->request, path))
		fault(reading, pointer, "is there twice");
	else
		reading->request->outputs[reading->request->output_count++] = path;
}

static void read_outputs(struct reading *reading, const json_t *value)
{
	if (!json_is_array(value)) {
		fault(reading, "/outputs", "must be an array of paths, is %s", type_name(value));
		return;
	}
	if (json_array_size(value) > EXEC_MAX_OUTPUTS) {
		fault(reading, "/outputs", "has %zu entries, the limit is %d", json_array_size(value), EXEC_MAX_OUTPUTS);
		return;
	}
	reading->request->outputs = calloc(json_array_size(value) + 1, sizeof *reading->request->outputs);
	if (!reading->request->outputs) {
		reading->error = -ENOMEM;
		return;
	}
	for (size_t i = 0; i < json_array_size(value); i++)
		read_output(reading, json_array_get(value, i), i);
}

/* --- stdout_to --- */

static void put_member(struct reading *reading, const char *name, const json_t *value)
{
	struct buf *head = &reading->request->rows_to.head;
	char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
	int r = text ? 0 : -ENOMEM;
	if (r == 0 && strlen(text) > EXEC_MAX_ROWS_KEY)
		fault(reading, "/stdout_to/pk", "has %zu bytes as JSON, the limit is %d", strlen(text), EXEC_MAX_ROWS_KEY);
	else if (r == 0)
		r = buf_printf(head, "\"%s\":%s,", name, text);
	free(text);
	if (r < 0)
		reading->error = r;
}

static bool is_pk(const json_t *value)
{
	size_t count = json_array_size(value);
	for (size_t i = 0; i < count; i++)
		if (!json_is_string(json_array_get(value, i)))
			return false;
	return json_is_string(value) || (count && count <= EXEC_MAX_ARGS);
}

/* Of a name, or the longest of several. */
static size_t name_bytes(const json_t *value)
{
	size_t most = json_string_length(value);
	for (size_t i = 0; i < json_array_size(value); i++) {
		size_t bytes = json_string_length(json_array_get(value, i));
		most = bytes > most ? bytes : most;
	}
	return most;
}

static void read_format(struct reading *reading, const json_t *value)
{
	static const char *const names[] = {[ROWS_JSON] = "json", [ROWS_NDJSON] = "ndjson", [ROWS_CSV] = "csv"};
	const char *name = json_string_value(value);
	for (size_t i = ROWS_JSON; name && i < ARRAY_LEN(names); i++)
		if (strcmp(name, names[i]) == 0)
			reading->request->rows_to.format = (enum rows_format)i;
	if (!reading->request->rows_to.format)
		fault(reading, "/stdout_to/format", "must be \"json\", \"ndjson\" or \"csv\"");
}

static void read_skip(struct reading *reading, const json_t *value)
{
	double rows = json_number_value(value);
	if (!json_is_number(value) || !is_whole(value) || rows < 0 || rows > MAX_BYTES)
		fault(reading, "/stdout_to/skip_rows", "must be an integer that is not negative");
	else
		reading->request->rows_to.skip = (uint64_t)rows;
}

/* Handed on to Datasette as they stand. */
static bool read_option(struct reading *reading, const char *key, const json_t *value, bool creates)
{
	static const char *const flags[] = {"ignore", "replace", "alter"};
	bool flag = false, table = strcmp(key, "table") == 0, pk = strcmp(key, "pk") == 0;
	char pointer[JSON_POINTER_LEN];
	for (size_t i = 0; i < ARRAY_LEN(flags); i++)
		flag |= strcmp(key, flags[i]) == 0;
	point(pointer, "/stdout_to", key);
	if (!flag && !table && !pk)
		return false;
	if (!flag && !creates)
		fault(reading, pointer, "belongs to /-/create only");
	else if (flag ? !json_is_boolean(value) : table ? !json_is_string(value) : !is_pk(value))
		fault(reading, pointer, "must be %s", flag ? "true or false" : table ? "a string" : "a string or an array of strings");
	else if (name_bytes(value) > EXEC_MAX_ROWS_NAME)
		fault(reading, pointer, "has a name of %zu bytes, the limit is %d", name_bytes(value), EXEC_MAX_ROWS_NAME);
	else
		put_member(reading, pk && json_is_array(value) ? "pks" : key, value);
	return true;
}

static bool read_rows_path(struct reading *reading, const json_t *object, bool *creates)
{
	const json_t *value = json_object_get(object, "datasette");
	const char *path = json_string_value(value);
	const char *wrong = path ? source_rows_fault(slice_str(path), creates) : "must be a string";
	if (path && !wrong && strlen(path) > EXEC_MAX_ROWS_PATH)
		wrong = "is too long";
	if (wrong)
		fault(reading, "/stdout_to/datasette", "%s", wrong);
	else
		reading->request->rows_to.path = path;
	return !wrong;
}

static void read_stdout_to(struct reading *reading, json_t *object)
{
	const char *key;
	json_t *value;
	bool creates = false;
	if (!json_is_object(object)) {
		fault(reading, "/stdout_to", "must be an object, is %s", type_name(object));
		return;
	}
	if (!read_rows_path(reading, object, &creates))
		return;
	if (creates && !json_object_get(object, "table"))
		fault(reading, "/stdout_to", "must have the table that is created");
	int r = buf_append_char(&reading->request->rows_to.head, '{');
	json_object_foreach(object, key, value)
	{
		char pointer[JSON_POINTER_LEN];
		point(pointer, "/stdout_to", key);
		if (strcmp(key, "format") == 0)
			read_format(reading, value);
		else if (strcmp(key, "skip_rows") == 0)
			read_skip(reading, value);
		else if (strcmp(key, "datasette") != 0 && !read_option(reading, key, value, creates))
			fault(reading, pointer, "is not a field of this object");
	}
	if (r == 0)
		r = buf_append(&reading->request->rows_to.head, SLICE("\"rows\":["));
	if (r < 0)
		reading->error = r;
}

/* POSIX 8.1: letters, digits, underscore, no digit first. */
static bool is_name(const char *name)
{
	if (!*name || (*name >= '0' && *name <= '9'))
		return false;
	for (; *name; name++)
		if (!((*name >= 'A' && *name <= 'Z') || (*name >= 'a' && *name <= 'z') || (*name >= '0' && *name <= '9') || *name == '_'))
			return false;
	return true;
}

static void read_variable(struct reading *reading, const char *name, const json_t *value)
{
	char pointer[JSON_POINTER_LEN];
	point(pointer, "/env", name);
	if (!is_name(name))
		fault(reading, pointer, "is not a name of letters, digits and underscores");
	else if (strncmp(name, "SPRITEGATE_", 11) == 0)
		fault(reading, pointer, "names that begin with SPRITEGATE_ are reserved");
	else if (!json_is_string(value))
		fault(reading, pointer, "must be a string, is %s", type_name(value));
	else if (strlen(name) + 1 + json_string_length(value) > EXEC_MAX_ARG_BYTES)
		fault(reading, pointer, "name and value have more than %d bytes", EXEC_MAX_ARG_BYTES);
	else {
		char *pair;
		if (asprintf(&pair, "%s=%s", name, json_string_value(value)) < 0) {
			reading->error = -ENOMEM;
			return;
		}
		reading->request->env[reading->request->env_count++] = pair;
		count(reading, pair);
	}
}

static void read_env(struct reading *reading, json_t *value)
{
	const char *name;
	json_t *member;
	if (!json_is_object(value)) {
		fault(reading, "/env", "must be an object of strings, is %s", type_name(value));
		return;
	}
	if (json_object_size(value) > EXEC_MAX_ENV) {
		fault(reading, "/env", "has %zu entries, the limit is %d", json_object_size(value), EXEC_MAX_ENV);
		return;
	}
	reading->request->env = calloc(json_object_size(value) + 1, sizeof *reading->request->env);
	if (!reading->request->env) {
		reading->error = -ENOMEM;
		return;
	}
	json_object_foreach(value, name, member) read_variable(reading, name, member);
}

static void read_cwd(struct reading *reading, const json_t *value)
{
	if (!json_is_string(value))
		fault(reading, "/cwd", "must be a string, is %s", type_name(value));
	else if (json_string_value(value)[0] != '/')
		fault(reading, "/cwd", "must be an absolute path");
	else if (json_string_length(value) > EXEC_MAX_CWD_BYTES)
		fault(reading, "/cwd", "has %zu bytes, the limit is %d", json_string_length(value), EXEC_MAX_CWD_BYTES);
	else {
		reading->request->cwd = json_string_value(value);
		count(reading, reading->request->cwd);
	}
}

static void read_timeout(struct reading *reading, const json_t *value)
{
	double seconds = json_is_number(value) ? json_number_value(value) : 0;
	if (!json_is_number(value))
		fault(reading, "/timeout_seconds", "must be a number, is %s", type_name(value));
	else if (!(seconds >= 0.001 && seconds <= MAX_SECONDS))
		fault(reading, "/timeout_seconds", "must be at least 0.001 and at most %.0f", MAX_SECONDS);
	else
		reading->request->timeout_ms = (uint64_t)llround(seconds * 1000);
}

static void read_max_output(struct reading *reading, const json_t *value)
{
	double bytes = json_number_value(value);
	if (!json_is_number(value) || !is_whole(value))
		fault(reading, "/max_output_bytes", "must be an integer, is %s", type_name(value));
	else if (bytes < 0)
		fault(reading, "/max_output_bytes", "must not be negative");
	else {
		reading->request->has_max_output = true;
		reading->request->max_output_bytes = bytes < MAX_BYTES ? (uint64_t)bytes : (uint64_t)MAX_BYTES;
	}
}

bool exec_session_name_is_valid(struct slice name)
{
	static const char allowed[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_-.";
	if (name.len == 0 || name.len > EXEC_MAX_SESSION || name.data[0] == '.')
		return false;
	for (size_t i = 0; i < name.len; i++)
		if (!memchr(allowed, name.data[i], sizeof allowed - 1))
			return false;
	return true;
}

static void read_session(struct reading *reading, const json_t *value)
{
	if (!json_is_string(value))
		fault(reading, "/session", "must be a string, is %s", type_name(value));
	else if (!exec_session_name_is_valid(slice_of(json_string_value(value), json_string_length(value))))
		fault(reading, "/session", "must be 1 to %d of letters, digits, dot, dash and underscore, no dot first", EXEC_MAX_SESSION);
	else
		reading->request->session = json_string_value(value);
}

static void read_member(struct reading *reading, const char *key, json_t *value)
{
	if (strcmp(key, "command") == 0)
		read_command(reading, value);
	else if (strcmp(key, "argv") == 0)
		read_argv(reading, value);
	else if (strcmp(key, "stdin") == 0)
		read_stdin(reading, value);
	else if (strcmp(key, "files") == 0)
		read_files(reading, value);
	else if (strcmp(key, "outputs") == 0)
		read_outputs(reading, value);
	else if (strcmp(key, "env") == 0)
		read_env(reading, value);
	else if (strcmp(key, "cwd") == 0)
		read_cwd(reading, value);
	else if (strcmp(key, "timeout_seconds") == 0)
		read_timeout(reading, value);
	else if (strcmp(key, "max_output_bytes") == 0)
		read_max_output(reading, value);
	else if (strcmp(key, "stdout_to") == 0)
		read_stdout_to(reading, value);
	else if (strcmp(key, "session") == 0)
		read_session(reading, value);
	else {
		char pointer[JSON_POINTER_LEN];
		point(pointer, "", key);
		fault(reading, pointer, "is not a field of this request");
	}
}

static void read_object(struct reading *reading)
{
	const char *key;
	json_t *value, *root = reading->request->root;
	if (!json_is_object(root)) {
		fault(reading, "", "must be an object, is %s", type_name(root));
		return;
	}
	json_object_foreach(root, key, value) read_member(reading, key, value);
	bool command = json_object_get(root, "command"), argv = json_object_get(root, "argv");
	if (command == argv)
		fault(reading, "", command ? "has both command and argv, allowed is one of them" : "must have command or argv");
	if (reading->bytes > EXEC_MAX_ARGV_BYTES)
		fault(reading, argv ? "/argv" : "/env", "arguments and variables have %zu bytes in all as JSON strings, the limit is %d",
		      reading->bytes, EXEC_MAX_ARGV_BYTES);
}

/* A part that nothing refers to is a mistake. */
static void check_parts(struct reading *reading)
{
	for (size_t i = 0; reading->parts && i < reading->parts->count; i++) {
		const struct multipart_part *part = &reading->parts->parts[i];
		if (!part->used && strcmp(part->name, EXEC_REQUEST_PART) != 0)
			fault(reading, "", "the part %s is not used", part->name);
	}
}

int exec_request_read(json_t *root, struct multipart *parts, struct exec_request **out, struct buf *faults)
{
	CLEANUP(exec_request_free_ptr) struct exec_request *request = calloc(1, sizeof *request);
	if (!request) {
		json_decref(root);
		return -ENOMEM;
	}
	buf_init(&request->input, INPUT_BYTES);
	buf_init(&request->rows_to.head, EXEC_MAX_ROWS_HEAD);
	request->root = root;
	struct reading reading = {.request = request, .parts = parts, .faults = faults};
	read_object(&reading);
	check_parts(&reading);
	if (reading.error < 0)
		return reading.error;
	if (faults->len) {
		int r = buf_append_char(faults, ']');
		return r < 0 ? r : EXEC_REQUEST_INVALID;
	}
	*out = TAKE(request);
	return 0;
}

int exec_request_parse(struct slice body, struct multipart *parts, struct exec_request **out, struct buf *faults,
		       struct json_failure *failure)
{
	json_t *root = json_parse_reals(body, MAX_DEPTH, failure);
	return root ? exec_request_read(root, parts, out, faults) : EXEC_REQUEST_MALFORMED;
}

void exec_request_free(struct exec_request *request)
{
	if (!request)
		return;
	for (size_t i = 0; i < request->env_count; i++)
		free((char *)(uintptr_t)request->env[i]);
	for (size_t i = 0; i < request->file_count; i++)
		buf_deinit(&request->files[i].bytes);
	free(request->files);
	free(request->outputs);
	buf_deinit(&request->rows_to.head);
	free(request->env);
	free(request->argv);
	buf_deinit(&request->input);
	json_decref(request->root);
	free(request);
}

void exec_request_free_ptr(struct exec_request **request)
{
	exec_request_free(*request);
}

const char *exec_request_program(const struct exec_request *request)
{
	return request->command ? "bash" : request->argv[0];
}

uint64_t exec_request_input(const struct exec_request *request)
{
	uint64_t bytes = request->input.len;
	for (size_t i = 0; i < request->file_count; i++)
		bytes += request->files[i].bytes.len;
	return bytes;
}

bool exec_request_fetches_files(const struct exec_request *request)
{
	for (size_t i = 0; i < request->file_count; i++)
		if (request->files[i].from)
			return true;
	return false;
}

bool exec_request_fetches(const struct exec_request *request)
{
	return request->input_from || exec_request_fetches_files(request);
}
