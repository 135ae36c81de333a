#include "gateway/cache/cache_control.h"

#define SECONDS_MAX (1u << 31) /* more means this much (RFC 9111 section 1.2.2) */

/* `=value` with or without quotes, which seconds may have or not; escapes within quotes are in no lifetime. */
static bool take_value(struct slice *rest, struct slice *value)
{
	*value = (struct slice){0};
	if (!rest->len || rest->data[0] != '=')
		return true;
	*rest = slice_from(*rest, 1);
	bool quoted = rest->len && rest->data[0] == '"';
	size_t n = quoted ? 1 : 0;
	while (n < rest->len && (quoted ? rest->data[n] != '"' : rest->data[n] != ',' && rest->data[n] != ' ' && rest->data[n] != '\t'))
		n += quoted && rest->data[n] == '\\' ? 2 : 1;
	if (n > rest->len || (quoted && n == rest->len))
		return false;
	*value = quoted ? slice_of(rest->data + 1, n - 1) : slice_of(rest->data, n);
	*rest = slice_from(*rest, quoted ? n + 1 : n);
	return true;
}

static void put_seconds(struct cache_control *control, uint64_t *at, struct slice value)
{
	uint64_t seconds;
	int r = slice_to_u64(value, SECONDS_MAX, &seconds);
	bool all_digits = value.len > 0;
	for (size_t i = 0; i < value.len; i++)
		all_digits &= value.data[i] >= '0' && value.data[i] <= '9';
	if (r != 0)
		seconds = SECONDS_MAX;
	if (!all_digits || (*at != CACHE_CONTROL_NONE && *at != seconds))
		control->broken = true;
	*at = seconds;
}

static void put(struct cache_control *control, struct slice name, struct slice value)
{
	if (slice_equal_nocase(name, SLICE("max-age")))
		put_seconds(control, &control->max_age, value);
	else if (slice_equal_nocase(name, SLICE("s-maxage")))
		put_seconds(control, &control->s_maxage, value);
	else if (slice_equal_nocase(name, SLICE("stale-while-revalidate")))
		put_seconds(control, &control->stale, value);
	control->revalidates |= slice_equal_nocase(name, SLICE("must-revalidate")) || slice_equal_nocase(name, SLICE("proxy-revalidate")) ||
				slice_equal_nocase(name, SLICE("s-maxage"));
	control->forbids |= slice_equal_nocase(name, SLICE("no-store")) || slice_equal_nocase(name, SLICE("no-cache")) ||
			    slice_equal_nocase(name, SLICE("private"));
}

static bool is_name_byte(char c)
{
	return http_is_token(slice_of(&c, 1));
}

static bool parse_line(struct slice rest, struct cache_control *control)
{
	for (;;) {
		rest = slice_trim(rest);
		while (rest.len && rest.data[0] == ',')
			rest = slice_trim(slice_from(rest, 1));
		if (!rest.len)
			return true;
		size_t n = 0;
		while (n < rest.len && is_name_byte(rest.data[n]))
			n++;
		struct slice name = slice_of(rest.data, n), value;
		rest = slice_from(rest, n);
		if (!n || !take_value(&rest, &value))
			return false;
		put(control, name, value);
		rest = slice_trim(rest);
		if (rest.len && rest.data[0] != ',')
			return false;
	}
}

void cache_control_parse(const struct http_fields *fields, struct cache_control *control)
{
	*control = (struct cache_control){.max_age = CACHE_CONTROL_NONE, .s_maxage = CACHE_CONTROL_NONE, .stale = CACHE_CONTROL_NONE};
	for (size_t i = 0; i < fields->count; i++) {
		if (!slice_equal_nocase(fields->at[i].name, SLICE("cache-control")))
			continue;
		control->present = true;
		control->broken |= !parse_line(fields->at[i].value, control);
	}
}
