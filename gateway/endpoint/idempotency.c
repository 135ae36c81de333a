#include "gateway/endpoint/idempotency.h"

#include <errno.h>

/* Without quotes and backslashes before what they stand for; -EINVAL when it is no String. */
static int unquote(struct slice text, char out[IDEMPOTENCY_KEY_MAX], size_t *len)
{
	bool quoted = text.len >= 2 && text.data[0] == '"' && text.data[text.len - 1] == '"';
	if (quoted)
		text = slice_of(text.data + 1, text.len - 2);
	*len = 0;
	for (size_t i = 0; i < text.len; i++) {
		char c = text.data[i];
		if (quoted && c == '\\') {
			if (++i == text.len || (text.data[i] != '"' && text.data[i] != '\\'))
				return -EINVAL;
			c = text.data[i];
		} else if (c == '"') {
			return -EINVAL;
		}
		if (c < 0x20 || c > 0x7e || *len == IDEMPOTENCY_KEY_MAX)
			return -EINVAL;
		out[(*len)++] = c;
	}
	return *len ? 0 : -EINVAL;
}

int idempotency_key(const struct http_fields *fields, char out[SHA256_HEX + 1])
{
	char key[IDEMPOTENCY_KEY_MAX];
	size_t len;
	out[0] = '\0';
	if (!http_fields_find(fields, SLICE("Idempotency-Key")))
		return 0;
	if (http_fields_count(fields, SLICE("Idempotency-Key")) > 1)
		return -EINVAL;
	int r = unquote(slice_trim(http_fields_value(fields, SLICE("Idempotency-Key"))), key, &len);
	struct sha256 digest = {0};
	if (r == 0)
		r = sha256_init(&digest);
	if (r == 0)
		r = sha256_feed(&digest, slice_of(key, len));
	if (r == 0)
		r = sha256_hex(&digest, out);
	sha256_deinit(&digest);
	return r;
}

static int feed(const char *bytes, size_t len, void *ctx)
{
	return sha256_feed(ctx, slice_of(bytes, len));
}

int idempotency_fingerprint(const json_t *body, char out[SHA256_HEX + 1])
{
	struct sha256 digest = {0};
	int r = sha256_init(&digest);
	if (r == 0 && json_dump_callback(body, feed, &digest, JSON_SORT_KEYS | JSON_COMPACT | JSON_ENCODE_ANY) != 0)
		r = -ENOMEM;
	if (r == 0)
		r = sha256_hex(&digest, out);
	sha256_deinit(&digest);
	return r;
}
