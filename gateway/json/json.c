#include "gateway/json/json.h"

#include <stdio.h>

/* jansson's own depth limit is 2048 at build time, and a value of two bytes takes it hundreds: count before parsing, outside strings. */
static bool too_much(struct slice text, unsigned max_depth, struct json_failure *failure)
{
	unsigned depth = 0;
	size_t values = 0;
	bool in_string = false;
	for (size_t i = 0; i < text.len; i++) {
		char c = text.data[i];
		if (in_string) {
			if (c == '\\')
				i++;
			else if (c == '"')
				in_string = false;
			continue;
		}
		if (c == '"')
			in_string = true;
		else if (c == '{' || c == '[')
			depth++;
		else if ((c == '}' || c == ']') && depth)
			depth--;
		values += c == ',' || c == '{' || c == '[';
		failure->position = i;
		if (depth > max_depth) {
			snprintf(failure->text, sizeof failure->text, "nested deeper than %u levels", max_depth);
			return true;
		}
		if (values > JSON_MAX_VALUES) {
			snprintf(failure->text, sizeof failure->text, "more than %d values", JSON_MAX_VALUES);
			return true;
		}
	}
	return false;
}

json_t *json_parse(struct slice text, unsigned max_depth, struct json_failure *failure)
{
	if (too_much(text, max_depth, failure))
		return NULL;
	json_error_t error;
	json_t *value = json_loadb(text.len ? text.data : "", text.len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
	if (!value) {
		failure->position = error.position > 0 ? (size_t)error.position : 0;
		snprintf(failure->text, sizeof failure->text, "%s", error.text);
	}
	return value;
}

void json_decref_ptr(json_t **value)
{
	json_decref(*value);
}

bool json_get_string(const json_t *object, const char *key, struct slice *out)
{
	const json_t *member = json_object_get(object, key);
	*out = (struct slice){0};
	if (!json_is_string(member))
		return false;
	*out = slice_of(json_string_value(member), json_string_length(member));
	return true;
}

bool json_get_u64(const json_t *object, const char *key, uint64_t *out)
{
	const json_t *member = json_object_get(object, key);
	if (!json_is_integer(member) || json_integer_value(member) < 0)
		return false;
	*out = (uint64_t)json_integer_value(member);
	return true;
}
