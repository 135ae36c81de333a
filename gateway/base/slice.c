#include "gateway/base/slice.h"

#include <errno.h>
#include <stdlib.h>

static char lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

bool slice_equal_nocase(struct slice a, struct slice b)
{
	return a.len == b.len && slice_has_prefix_nocase(a, b);
}

bool slice_has_prefix(struct slice s, struct slice prefix)
{
	return s.len >= prefix.len && slice_equal(slice_of(s.data, prefix.len), prefix);
}

bool slice_has_prefix_nocase(struct slice s, struct slice prefix)
{
	if (s.len < prefix.len)
		return false;
	for (size_t i = 0; i < prefix.len; i++)
		if (lower(s.data[i]) != lower(prefix.data[i]))
			return false;
	return true;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

struct slice slice_trim(struct slice s)
{
	while (s.len && is_blank(s.data[0]))
		s = slice_of(s.data + 1, s.len - 1);
	while (s.len && is_blank(s.data[s.len - 1]))
		s.len--;
	return s;
}

bool slice_next(struct slice *rest, char separator, struct slice *part)
{
	if (!rest->data)
		return false;
	const char *end = rest->len ? memchr(rest->data, separator, rest->len) : NULL;
	if (!end) {
		*part = *rest;
		*rest = (struct slice){0};
		return true;
	}
	size_t len = (size_t)(end - rest->data);
	*part = slice_of(rest->data, len);
	*rest = slice_of(end + 1, rest->len - len - 1);
	return true;
}

int slice_to_u64(struct slice s, uint64_t max, uint64_t *value)
{
	if (!s.len)
		return -EINVAL;
	uint64_t sum = 0;
	for (size_t i = 0; i < s.len; i++) {
		if (s.data[i] < '0' || s.data[i] > '9')
			return -EINVAL;
		uint64_t digit = (uint64_t)(s.data[i] - '0');
		if (sum > (UINT64_MAX - digit) / 10)
			return -ERANGE;
		sum = sum * 10 + digit;
	}
	if (sum > max)
		return -ERANGE;
	*value = sum;
	return 0;
}

char *slice_dup(struct slice s)
{
	char *copy = malloc(s.len + 1);
	if (!copy)
		return NULL;
	if (s.len)
		memcpy(copy, s.data, s.len);
	copy[s.len] = '\0';
	return copy;
}
