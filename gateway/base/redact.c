#include "gateway/base/redact.h"

#define PREFIX_LEN 4
#define KID_LEN    16

static bool is_base62(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

static size_t run_of_base62(struct slice text)
{
	size_t n = 0;
	while (n < text.len && is_base62(text.data[n]))
		n++;
	return n;
}

/* Where the next sgt_ is, at `from` or later; text.len when there is none. */
static size_t next_prefix(struct slice text, size_t from)
{
	for (size_t at = from + PREFIX_LEN - 1; at < text.len; at++) {
		const char *mark = memchr(text.data + at, '_', text.len - at);
		if (!mark)
			break;
		at = (size_t)(mark - text.data);
		if (slice_has_prefix_nocase(slice_from(text, at - (PREFIX_LEN - 1)), SLICE("sgt_")))
			return at - (PREFIX_LEN - 1);
	}
	return text.len;
}

struct slice redact_find(struct slice text)
{
	for (size_t at = next_prefix(text, 0); at < text.len; at = next_prefix(text, at + 1)) {
		struct slice kid = slice_from(text, at + PREFIX_LEN), secret = slice_from(kid, KID_LEN + 1);
		if (secret.len && run_of_base62(kid) == KID_LEN && kid.data[KID_LEN] == '_' && is_base62(secret.data[0]))
			return slice_of(secret.data, run_of_base62(secret));
	}
	return (struct slice){0};
}

/* Of what other tokens are made: sgt_ in the middle of one is chance. */
static bool continues_word(char c)
{
	return is_base62(c) || memchr("-._~+/=", c, 7);
}

bool redact_has_token(struct slice credentials)
{
	for (size_t at = next_prefix(credentials, 0); at < credentials.len; at = next_prefix(credentials, at + 1))
		if (at == 0 || !continues_word(credentials.data[at - 1]))
			return true;
	return redact_find(credentials).len > 0;
}
