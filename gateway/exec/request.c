#include "gateway/exec/request.h"

#include "gateway/base/json_text.h"
#include "gateway/exec/request_parts.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define MAX_DEPTH   32
#define MAX_SECONDS 1e9
#define MAX_FAULTS  32 /* told; a body can have thousands */

void request_fault(struct request_reading *reading, const char *pointer, const char *format, ...)
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

static void count(struct request_reading *reading, const char *text)
{
	reading->bytes += json_text_len(slice_str(text)) + 1;
}

bool request_is_whole(const json_t *number)
{
	return trunc(json_real_value(number)) == json_real_value(number);
}

void *request_room(struct request_reading *reading, const char *pointer, size_t entries, size_t limit, size_t size)
{
	if (entries > limit) {
		request_fault(reading, pointer, "has %zu entries, the limit is %zu", entries, limit);
		return NULL;
	}
	void *room = calloc(entries + 1, size);
	if (!room)
		reading->error = -ENOMEM;
	return room;
}

const char *request_type_name(const json_t *value)
{
	switch (json_typeof(value)) {
	case JSON_OBJECT:
		return "an object";
	case JSON_ARRAY:
		return "an array";
	case JSON_STRING:
		return "a string";
	case JSON_REAL:
		return request_is_whole(value) ? "an integer" : "a number with a fraction";
	case JSON_TRUE:
	case JSON_FALSE:
		return "a boolean";
	default:
		return "null";
	}
}

void request_point(char out[JSON_POINTER_LEN], const char *parent, const char *name)
{
	snprintf(out, JSON_POINTER_LEN, "%s", parent);
	json_pointer_add(out, slice_str(name));
}

static void read_command(struct request_reading *reading, const json_t *value)
{
	if (!json_is_string(value))
		request_fault(reading, "/command", "must be a string, is %s", request_type_name(value));
	else if (json_string_length(value) == 0)
		request_fault(reading, "/command", "must not be empty");
	else if (json_string_length(value) > EXEC_MAX_ARG_BYTES)
		request_fault(reading, "/command", "has %zu bytes, the limit is %d", json_string_length(value), EXEC_MAX_ARG_BYTES);
	else {
		reading->request->command = json_string_value(value);
		count(reading, reading->request->command);
	}
}

static void read_argument(struct request_reading *reading, const json_t *value, size_t i)
{
	char pointer[32];
	snprintf(pointer, sizeof pointer, "/argv/%zu", i);
	if (!json_is_string(value))
		request_fault(reading, pointer, "must be a string, is %s", request_type_name(value));
	else if (json_string_length(value) > EXEC_MAX_ARG_BYTES)
		request_fault(reading, pointer, "has %zu bytes, the limit is %d", json_string_length(value), EXEC_MAX_ARG_BYTES);
	else if (i == 0 && json_string_length(value) == 0)
		request_fault(reading, pointer, "the program must not be empty");
	else {
		reading->request->argv[reading->request->argc++] = json_string_value(value);
		count(reading, json_string_value(value));
	}
}

static void read_argv(struct request_reading *reading, const json_t *value)
{
	size_t n = json_is_array(value) ? json_array_size(value) : 0;
	if (!json_is_array(value)) {
		request_fault(reading, "/argv", "must be an array of strings, is %s", request_type_name(value));
		return;
	}
	if (n == 0 || n > EXEC_MAX_ARGS) {
		request_fault(reading, "/argv", "has %zu entries, allowed are 1 to %d", n, EXEC_MAX_ARGS);
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

static void read_variable(struct request_reading *reading, const char *name, const json_t *value)
{
	char pointer[JSON_POINTER_LEN];
	request_point(pointer, "/env", name);
	if (!is_name(name))
		request_fault(reading, pointer, "is not a name of letters, digits and underscores");
	else if (strncmp(name, "SPRITEGATE_", 11) == 0)
		request_fault(reading, pointer, "names that begin with SPRITEGATE_ are reserved");
	else if (!json_is_string(value))
		request_fault(reading, pointer, "must be a string, is %s", request_type_name(value));
	else if (strlen(name) + 1 + json_string_length(value) > EXEC_MAX_ARG_BYTES)
		request_fault(reading, pointer, "name and value have more than %d bytes", EXEC_MAX_ARG_BYTES);
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

static void read_env(struct request_reading *reading, json_t *value)
{
	const char *name;
	json_t *member;
	if (!json_is_object(value)) {
		request_fault(reading, "/env", "must be an object of strings, is %s", request_type_name(value));
		return;
	}
	reading->request->env = request_room(reading, "/env", json_object_size(value), EXEC_MAX_ENV, sizeof *reading->request->env);
	if (!reading->request->env)
		return;
	json_object_foreach(value, name, member) read_variable(reading, name, member);
}

static void read_cwd(struct request_reading *reading, const json_t *value)
{
	if (!json_is_string(value))
		request_fault(reading, "/cwd", "must be a string, is %s", request_type_name(value));
	else if (json_string_value(value)[0] != '/')
		request_fault(reading, "/cwd", "must be an absolute path");
	else if (json_string_length(value) > EXEC_MAX_CWD_BYTES)
		request_fault(reading, "/cwd", "has %zu bytes, the limit is %d", json_string_length(value), EXEC_MAX_CWD_BYTES);
	else {
		reading->request->cwd = json_string_value(value);
		count(reading, reading->request->cwd);
	}
}

static void read_timeout(struct request_reading *reading, const json_t *value)
{
	double seconds = json_is_number(value) ? json_number_value(value) : 0;
	if (!json_is_number(value))
		request_fault(reading, "/timeout_seconds", "must be a number, is %s", request_type_name(value));
	else if (!(seconds >= 0.001 && seconds <= MAX_SECONDS))
		request_fault(reading, "/timeout_seconds", "must be at least 0.001 and at most %.0f", MAX_SECONDS);
	else
		reading->request->timeout_ms = (uint64_t)llround(seconds * 1000);
}

static void read_max_output(struct request_reading *reading, const json_t *value)
{
	double bytes = json_number_value(value);
	if (!json_is_number(value) || !request_is_whole(value))
		request_fault(reading, "/max_output_bytes", "must be an integer, is %s", request_type_name(value));
	else if (bytes < 0)
		request_fault(reading, "/max_output_bytes", "must not be negative");
	else {
		reading->request->has_max_output = true;
		reading->request->max_output_bytes = bytes < REQUEST_MAX_BYTES ? (uint64_t)bytes : (uint64_t)REQUEST_MAX_BYTES;
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

static void read_session(struct request_reading *reading, const json_t *value)
{
	if (!json_is_string(value))
		request_fault(reading, "/session", "must be a string, is %s", request_type_name(value));
	else if (!exec_session_name_is_valid(slice_of(json_string_value(value), json_string_length(value))))
		request_fault(reading, "/session", "must be 1 to %d of letters, digits, dot, dash and underscore, no dot first",
			      EXEC_MAX_SESSION);
	else
		reading->request->session = json_string_value(value);
}

static void read_member(struct request_reading *reading, const char *key, json_t *value)
{
	if (strcmp(key, "command") == 0)
		read_command(reading, value);
	else if (strcmp(key, "argv") == 0)
		read_argv(reading, value);
	else if (strcmp(key, "stdin") == 0)
		request_read_stdin(reading, value);
	else if (strcmp(key, "files") == 0)
		request_read_files(reading, value);
	else if (strcmp(key, "outputs") == 0)
		request_read_outputs(reading, value);
	else if (strcmp(key, "env") == 0)
		read_env(reading, value);
	else if (strcmp(key, "cwd") == 0)
		read_cwd(reading, value);
	else if (strcmp(key, "timeout_seconds") == 0)
		read_timeout(reading, value);
	else if (strcmp(key, "max_output_bytes") == 0)
		read_max_output(reading, value);
	else if (strcmp(key, "stdout_to") == 0)
		request_read_stdout_to(reading, value);
	else if (strcmp(key, "session") == 0)
		read_session(reading, value);
	else {
		char pointer[JSON_POINTER_LEN];
		request_point(pointer, "", key);
		request_fault(reading, pointer, "is not a field of this request");
	}
}

static void read_object(struct request_reading *reading)
{
	const char *key;
	json_t *value, *root = reading->request->root;
	if (!json_is_object(root)) {
		request_fault(reading, "", "must be an object, is %s", request_type_name(root));
		return;
	}
	json_object_foreach(root, key, value) read_member(reading, key, value);
	bool command = json_object_get(root, "command"), argv = json_object_get(root, "argv");
	if (command == argv)
		request_fault(reading, "", command ? "has both command and argv, allowed is one of them" : "must have command or argv");
	if (reading->bytes > EXEC_MAX_ARGV_BYTES)
		request_fault(reading, argv ? "/argv" : "/env",
			      "arguments and variables have %zu bytes in all as JSON strings, the limit is %d", reading->bytes,
			      EXEC_MAX_ARGV_BYTES);
}

/* A part that nothing refers to is a mistake. */
static void check_parts(struct request_reading *reading)
{
	for (size_t i = 0; reading->parts && i < reading->parts->count; i++) {
		const struct multipart_part *part = &reading->parts->parts[i];
		if (!part->used && strcmp(part->name, EXEC_REQUEST_PART) != 0)
			request_fault(reading, "", "the part %s is not used", part->name);
	}
}

int exec_request_read(json_t *root, struct multipart *parts, struct exec_request **out, struct buf *faults)
{
	CLEANUP(exec_request_free_ptr) struct exec_request *request = calloc(1, sizeof *request);
	if (!request) {
		json_decref(root);
		return -ENOMEM;
	}
	buf_init(&request->input, REQUEST_INPUT_BYTES);
	buf_init(&request->rows_to.head, EXEC_MAX_ROWS_HEAD);
	request->root = root;
	struct request_reading reading = {.request = request, .parts = parts, .faults = faults};
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
