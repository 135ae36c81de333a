#include "gateway/endpoint/accept.h"

#define FORMATS 3
#define FULL    1000

static const char *const types[FORMATS] = {
	[STREAM_NONE] = "application/json",
	[STREAM_NDJSON] = "application/x-ndjson",
	[STREAM_SSE] = "text/event-stream",
};

struct slice exec_content_type(enum stream_format format)
{
	return slice_str(types[format]);
}

/* Thousandths; what is no weight counts as none given. */
static unsigned weight(struct slice text)
{
	unsigned value = 0, scale = FULL;
	for (size_t i = 0; i < text.len && i < 5; i++) {
		char c = text.data[i];
		if (i == 1 ? c != '.' : c < '0' || c > '9')
			return FULL;
		if (i == 1)
			continue;
		value += (unsigned)(c - '0') * scale;
		scale /= 10;
	}
	return text.len && value <= FULL ? value : FULL;
}

static unsigned weight_of(struct slice parameters)
{
	struct slice parameter;
	while (parameters.len && slice_next(&parameters, ';', &parameter)) {
		parameter = slice_trim(parameter);
		if (parameter.len >= 2 && (parameter.data[0] | 0x20) == 'q' && parameter.data[1] == '=')
			return weight(slice_from(parameter, 2));
	}
	return FULL;
}

static void consider(struct slice range, enum stream_format *best, unsigned *best_weight)
{
	struct slice rest = range, type;
	if (!slice_next(&rest, ';', &type))
		return;
	type = slice_trim(type);
	for (unsigned i = 0; i < FORMATS; i++) {
		unsigned w = weight_of(rest);
		if (slice_equal_nocase(type, slice_str(types[i])) && w > *best_weight) {
			*best = (enum stream_format)i;
			*best_weight = w;
		}
	}
}

bool exec_accepts_events(const struct http_fields *fields)
{
	for (size_t i = 0; i < fields->count; i++) {
		struct slice rest = fields->at[i].value, range;
		if (!slice_equal_nocase(fields->at[i].name, SLICE("Accept")))
			continue;
		while (rest.len && slice_next(&rest, ',', &range)) {
			enum stream_format named = STREAM_NONE;
			unsigned weight = 0;
			consider(range, &named, &weight);
			if (named == STREAM_SSE)
				return true;
		}
	}
	return false;
}

enum stream_format exec_accept(const struct http_fields *fields)
{
	enum stream_format best = STREAM_NONE;
	unsigned best_weight = 0;
	for (size_t i = 0; i < fields->count; i++) {
		struct slice rest = fields->at[i].value, range;
		if (!slice_equal_nocase(fields->at[i].name, SLICE("Accept")))
			continue;
		while (rest.len && slice_next(&rest, ',', &range))
			consider(range, &best, &best_weight);
	}
	return best;
}
