#include "policy/limits.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

struct unit {
	const char *name;
	uint64_t size;
};

/* Largest first, for writing. */
static const struct unit durations[] = {
	{"d", LIMITS_DAY_MS}, {"h", 3600 * LIMITS_SECOND_MS}, {"m", 60 * LIMITS_SECOND_MS}, {"s", LIMITS_SECOND_MS}, {"ms", 1},
};
static const struct unit sizes[] = {
	{"GiB", UINT64_C(1) << 30},
	{"MiB", UINT64_C(1) << 20},
	{"KiB", UINT64_C(1) << 10},
	{"", 1},
};

static size_t count_digits(struct slice text)
{
	size_t n = 0;
	while (n < text.len && text.data[n] >= '0' && text.data[n] <= '9')
		n++;
	return n;
}

static const struct unit *find_unit(struct slice name, const struct unit *units, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (slice_equal(name, slice_str(units[i].name)))
			return &units[i];
	return NULL;
}

static int in_bounds(uint64_t value, uint64_t min, uint64_t max, uint64_t *out)
{
	if (value < min || value > max)
		return -ERANGE;
	*out = value;
	return 0;
}

/* <digits><unit> */
static int scaled(struct slice text, const struct unit *units, size_t count, uint64_t min, uint64_t max, uint64_t *out)
{
	size_t digits = count_digits(text);
	const struct unit *unit = find_unit(slice_from(text, digits), units, count);
	if (!digits || !unit)
		return -EINVAL;
	uint64_t number;
	int r = slice_to_u64(slice_of(text.data, digits), UINT64_MAX / unit->size, &number);
	return r < 0 ? r : in_bounds(number * unit->size, min, max, out);
}

int limits_count(struct slice text, uint64_t min, uint64_t max, uint64_t *out)
{
	uint64_t number;
	int r = slice_to_u64(text, UINT64_MAX, &number);
	return r < 0 ? r : in_bounds(number, min, max, out);
}

int limits_duration(struct slice text, uint64_t min_ms, uint64_t max_ms, uint64_t *out_ms)
{
	return scaled(text, durations, ARRAY_LEN(durations), min_ms, max_ms, out_ms);
}

int limits_bytes(struct slice text, uint64_t min, uint64_t max, uint64_t *out)
{
	return scaled(text, sizes, ARRAY_LEN(sizes), min, max, out);
}

/* A window may leave out its 1: 60/m. */
static int window(struct slice text, uint64_t *out_ms)
{
	const struct unit *unit = find_unit(text, durations, ARRAY_LEN(durations));
	uint64_t ms = 0;
	int r = unit ? in_bounds(unit->size, LIMITS_SECOND_MS, LIMITS_WINDOW_MAX_MS, &ms)
		     : limits_duration(text, LIMITS_SECOND_MS, LIMITS_WINDOW_MAX_MS, &ms);
	if (r == 0 && ms % LIMITS_SECOND_MS)
		r = -ERANGE;
	if (r == 0)
		*out_ms = ms;
	return r;
}

int limits_rate(struct slice text, struct limits_rate *out)
{
	struct slice count, rest = text;
	struct limits_rate rate;
	if (!slice_next(&rest, '/', &count) || !rest.data)
		return -EINVAL;
	int r = limits_count(count, 1, LIMITS_RATE_COUNT_MAX, &rate.count);
	if (r == 0)
		r = window(rest, &rate.per_ms);
	if (r == 0)
		*out = rate;
	return r;
}

int limits_budget(struct slice text, uint64_t min_ms, uint64_t max_ms, uint64_t *out_ms)
{
	struct slice time, rest = text;
	if (!slice_next(&rest, '/', &time) || !slice_equal(rest, SLICE("day")))
		return -EINVAL;
	return limits_duration(time, min_ms, max_ms, out_ms);
}

static void write_scaled(uint64_t value, const struct unit *units, size_t count, char out[LIMITS_TEXT_LEN + 1])
{
	size_t i = 0;
	while (i + 1 < count && (value == 0 || value % units[i].size))
		i++;
	snprintf(out, LIMITS_TEXT_LEN + 1, "%" PRIu64 "%s", value / units[i].size, units[i].name);
}

void limits_write_duration(uint64_t ms, char out[LIMITS_TEXT_LEN + 1])
{
	write_scaled(ms, durations, ARRAY_LEN(durations), out);
}

void limits_write_bytes(uint64_t bytes, char out[LIMITS_TEXT_LEN + 1])
{
	write_scaled(bytes, sizes, ARRAY_LEN(sizes), out);
}
