#include "gateway/exec/request_parts.h"

#include "gateway/exec/source.h"

#include <errno.h>
#include <stdlib.h>

static void put_member(struct request_reading *reading, const char *name, const json_t *value)
{
	struct buf *head = &reading->request->rows_to.head;
	char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY);
	int r = text ? 0 : -ENOMEM;
	if (r == 0 && strlen(text) > EXEC_MAX_ROWS_KEY)
		request_fault(reading, "/stdout_to/pk", "has %zu bytes as JSON, the limit is %d", strlen(text), EXEC_MAX_ROWS_KEY);
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

static void read_format(struct request_reading *reading, const json_t *value)
{
	static const char *const names[] = {[ROWS_JSON] = "json", [ROWS_NDJSON] = "ndjson", [ROWS_CSV] = "csv"};
	const char *name = json_string_value(value);
	for (size_t i = ROWS_JSON; name && i < ARRAY_LEN(names); i++)
		if (strcmp(name, names[i]) == 0)
			reading->request->rows_to.format = (enum rows_format)i;
	if (!reading->request->rows_to.format)
		request_fault(reading, "/stdout_to/format", "must be \"json\", \"ndjson\" or \"csv\"");
}

static void read_skip(struct request_reading *reading, const json_t *value)
{
	double rows = json_number_value(value);
	if (!json_is_number(value) || !request_is_whole(value) || rows < 0 || rows > REQUEST_MAX_BYTES)
		request_fault(reading, "/stdout_to/skip_rows", "must be an integer that is not negative");
	else
		reading->request->rows_to.skip = (uint64_t)rows;
}

/* Handed on to Datasette as they stand. */
static bool read_option(struct request_reading *reading, const char *key, const json_t *value, bool creates)
{
	static const char *const flags[] = {"ignore", "replace", "alter"};
	bool flag = false, table = strcmp(key, "table") == 0, pk = strcmp(key, "pk") == 0;
	char pointer[JSON_POINTER_LEN];
	for (size_t i = 0; i < ARRAY_LEN(flags); i++)
		flag |= strcmp(key, flags[i]) == 0;
	request_point(pointer, "/stdout_to", key);
	if (!flag && !table && !pk)
		return false;
	if (!flag && !creates)
		request_fault(reading, pointer, "belongs to /-/create only");
	else if (flag ? !json_is_boolean(value) : table ? !json_is_string(value) : !is_pk(value))
		request_fault(reading, pointer, "must be %s",
			      flag    ? "true or false"
			      : table ? "a string"
				      : "a string or an array of strings");
	else if (name_bytes(value) > EXEC_MAX_ROWS_NAME)
		request_fault(reading, pointer, "has a name of %zu bytes, the limit is %d", name_bytes(value), EXEC_MAX_ROWS_NAME);
	else
		put_member(reading, pk && json_is_array(value) ? "pks" : key, value);
	return true;
}

static bool read_rows_path(struct request_reading *reading, const json_t *object, bool *creates)
{
	const json_t *value = json_object_get(object, "datasette");
	const char *path = json_string_value(value);
	const char *wrong = path ? source_rows_fault(slice_str(path), creates) : "must be a string";
	if (path && !wrong && strlen(path) > EXEC_MAX_ROWS_PATH)
		wrong = "is too long";
	if (wrong)
		request_fault(reading, "/stdout_to/datasette", "%s", wrong);
	else
		reading->request->rows_to.path = path;
	return !wrong;
}

void request_read_stdout_to(struct request_reading *reading, json_t *object)
{
	const char *key;
	json_t *value;
	bool creates = false;
	if (!json_is_object(object)) {
		request_fault(reading, "/stdout_to", "must be an object, is %s", request_type_name(object));
		return;
	}
	if (!read_rows_path(reading, object, &creates))
		return;
	if (creates && !json_object_get(object, "table"))
		request_fault(reading, "/stdout_to", "must have the table that is created");
	int r = buf_append_char(&reading->request->rows_to.head, '{');
	json_object_foreach(object, key, value)
	{
		char pointer[JSON_POINTER_LEN];
		request_point(pointer, "/stdout_to", key);
		if (strcmp(key, "format") == 0)
			read_format(reading, value);
		else if (strcmp(key, "skip_rows") == 0)
			read_skip(reading, value);
		else if (strcmp(key, "datasette") != 0 && !read_option(reading, key, value, creates))
			request_fault(reading, pointer, "is not a field of this object");
	}
	if (r == 0)
		r = buf_append(&reading->request->rows_to.head, SLICE("\"rows\":["));
	if (r < 0)
		reading->error = r;
}
