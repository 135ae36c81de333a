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

/* jansson's own words are about its flags. */
static const char *explain(const json_error_t *error)
{
	switch (json_error_code(error)) {
	case json_error_duplicate_key:
		return "two members have the same name";
	case json_error_null_character:
	case json_error_null_byte_in_key:
		return "\\u0000 cannot be used";
	case json_error_invalid_utf8:
		return "a byte is not UTF-8";
	case json_error_premature_end_of_input:
		return "it ends too early";
	case json_error_end_of_input_expected:
		return "something follows the value";
	case json_error_numeric_overflow:
		return "a number is too large";
	default:
		return "it breaks the syntax";
	}
}

static json_t *parse(struct slice text, unsigned max_depth, size_t flags, struct json_failure *failure)
{
	json_t *value = NULL;
	if (!too_much(text, max_depth, failure)) {
		json_error_t error;
		value = json_loadb(text.len ? text.data : "", text.len, flags | JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
		if (value)
			return value;
		failure->position = error.position > 0 ? (size_t)error.position : 0;
		snprintf(failure->text, sizeof failure->text, "%s", explain(&error));
	}
	json_pointer_at(slice_of(text.data, failure->position < text.len ? failure->position : text.len), failure->pointer);
	return NULL;
}

json_t *json_parse(struct slice text, unsigned max_depth, struct json_failure *failure)
{
	return parse(text, max_depth, 0, failure);
}

json_t *json_parse_reals(struct slice text, unsigned max_depth, struct json_failure *failure)
{
	return parse(text, max_depth, JSON_DECODE_INT_AS_REAL, failure);
}

json_t *json_parse_own(struct slice text, unsigned max_depth, struct json_failure *failure)
{
	return parse(text, max_depth, JSON_ALLOW_NUL, failure);
}

json_t *json_parse_own_reals(struct slice text, unsigned max_depth, struct json_failure *failure)
{
	return parse(text, max_depth, JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, failure);
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
