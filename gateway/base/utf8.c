#include "gateway/base/utf8.h"

static bool is_continuation(unsigned char c)
{
	return (c & 0xC0) == 0x80;
}

/* Length of the character that starts with `lead`, and the allowed range of its second byte; 0 for no lead byte. */
static size_t lead_length(unsigned char lead, unsigned char *low, unsigned char *high)
{
	*low = 0x80;
	*high = 0xBF;
	if (lead < 0x80)
		return 1;
	if (lead >= 0xC2 && lead <= 0xDF)
		return 2;
	if (lead >= 0xE0 && lead <= 0xEF) {
		if (lead == 0xE0)
			*low = 0xA0;
		if (lead == 0xED)
			*high = 0x9F;
		return 3;
	}
	if (lead >= 0xF0 && lead <= 0xF4) {
		if (lead == 0xF0)
			*low = 0x90;
		if (lead == 0xF4)
			*high = 0x8F;
		return 4;
	}
	return 0;
}

/* 0 when the bytes are no valid character or its start; *need is its whole length. */
static size_t check_character(const unsigned char *p, size_t len, size_t *need)
{
	unsigned char low, high;
	*need = lead_length(p[0], &low, &high);
	size_t have = *need < len ? *need : len;
	for (size_t i = 1; i < have; i++) {
		bool ok = i == 1 ? p[1] >= low && p[1] <= high : is_continuation(p[i]);
		if (!ok)
			return 0;
	}
	return have;
}

size_t utf8_valid_prefix(struct slice text)
{
	const unsigned char *p = (const unsigned char *)text.data;
	size_t i = 0;
	while (i < text.len) {
		if (p[i] < 0x80) {
			i++;
			continue;
		}
		size_t need;
		size_t have = check_character(p + i, text.len - i, &need);
		if (!have || have < need)
			break;
		i += need;
	}
	return i;
}

size_t utf8_unfinished_tail(struct slice text)
{
	const unsigned char *p = (const unsigned char *)text.data;
	for (size_t back = 1; back <= 3 && back <= text.len; back++) {
		unsigned char c = p[text.len - back];
		if (is_continuation(c))
			continue;
		size_t need;
		size_t have = check_character(p + text.len - back, back, &need);
		return have == back && need > back ? back : 0;
	}
	return 0;
}
