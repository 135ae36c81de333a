#include "gateway/base/id.h"

#include <errno.h>
#include <limits.h>
#include <openssl/rand.h>
#include <stdio.h>

int id_random(void *bytes, size_t len)
{
	if (len > INT_MAX)
		return -EINVAL;
	return RAND_bytes(bytes, (int)len) == 1 ? 0 : -EIO;
}

int id_uuid7(char out[ID_UUID_LEN + 1], uint64_t wall_ms)
{
	unsigned char b[16];
	int r = id_random(b, sizeof b);
	if (r < 0)
		return r;
	for (int i = 0; i < 6; i++)
		b[i] = (unsigned char)(wall_ms >> (40 - 8 * i));
	b[6] = (unsigned char)(0x70 | (b[6] & 0x0F));
	b[8] = (unsigned char)(0x80 | (b[8] & 0x3F));
	snprintf(out, ID_UUID_LEN + 1, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1], b[2], b[3], b[4],
		 b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
	return 0;
}

int id_ulid(char out[ID_ULID_LEN + 1], uint64_t wall_ms)
{
	static const char alphabet[] = "0123456789abcdefghjkmnpqrstvwxyz";
	unsigned char random[16];
	int r = id_random(random, sizeof random);
	if (r < 0)
		return r;
	for (int i = 0; i < 10; i++)
		out[i] = alphabet[(wall_ms >> (45 - 5 * i)) & 31];
	for (int i = 0; i < 16; i++)
		out[10 + i] = alphabet[random[i] & 31];
	out[ID_ULID_LEN] = '\0';
	return 0;
}

int id_base62(char *out, size_t len)
{
	static const char alphabet[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
	size_t made = 0;
	while (made < len) {
		unsigned char random[64];
		int r = id_random(random, sizeof random);
		if (r < 0)
			return r;
		/* 248 is the largest multiple of 62 in a byte: values above it would favour the first letters. */
		for (size_t i = 0; i < sizeof random && made < len; i++)
			if (random[i] < 248)
				out[made++] = alphabet[random[i] % 62];
	}
	out[len] = '\0';
	return 0;
}
