#include "gateway/base/base64.h"

#include <errno.h>
#include <limits.h>
#include <openssl/evp.h>

/* A multiple of 3, so that pieces join without padding, and small enough for OpenSSL's int lengths. */
#define PIECE 49152

int base64_encode(struct buf *out, struct slice bytes)
{
	while (bytes.len) {
		size_t n = bytes.len < PIECE ? bytes.len : PIECE;
		char *space;
		int r = buf_reserve(out, (n + 2) / 3 * 4, &space);
		if (r < 0)
			return r;
		int written = EVP_EncodeBlock((unsigned char *)space, (const unsigned char *)bytes.data, (int)n);
		buf_commit(out, (size_t)written);
		bytes = slice_from(bytes, n);
	}
	return 0;
}

static bool is_alphabet(char c)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '+' || c == '/';
}

static int value_of(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '+' ? 62 : 63;
}

/* EVP_DecodeBlock forgives blanks and stray bits: check the alphabet, the padding and the unused low bits first. */
static bool is_canonical(struct slice text, size_t *padding)
{
	if (text.len % 4)
		return false;
	*padding = 0;
	while (*padding < 2 && *padding < text.len && text.data[text.len - 1 - *padding] == '=')
		(*padding)++;
	size_t body = text.len - *padding;
	for (size_t i = 0; i < body; i++)
		if (!is_alphabet(text.data[i]))
			return false;
	if (!*padding)
		return true;
	int unused = *padding == 1 ? 0x3 : 0xF;
	return (value_of(text.data[body - 1]) & unused) == 0;
}

int base64_decode(struct buf *out, struct slice text)
{
	size_t padding;
	if (!is_canonical(text, &padding))
		return -EINVAL;
	if (!text.len)
		return 0;
	if (text.len > INT_MAX)
		return -EMSGSIZE;
	char *space;
	int r = buf_reserve(out, text.len / 4 * 3, &space);
	if (r < 0)
		return r;
	int written = EVP_DecodeBlock((unsigned char *)space, (const unsigned char *)text.data, (int)text.len);
	if (written < 0)
		return -EINVAL;
	buf_commit(out, (size_t)written - padding);
	return 0;
}
