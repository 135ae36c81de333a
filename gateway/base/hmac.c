#include "gateway/base/hmac.h"

#include <errno.h>
#include <limits.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

int hmac_sha256(struct slice key, struct slice message, unsigned char out[HMAC_BYTES])
{
	unsigned int len = 0;
	if (key.len > INT_MAX)
		return -EINVAL;
	const unsigned char *done = HMAC(EVP_sha256(), key.len ? (const void *)key.data : "", (int)key.len,
					 (const unsigned char *)message.data, message.len, out, &len);
	return done && len == HMAC_BYTES ? 0 : -EIO;
}

void hex_encode(const unsigned char *bytes, size_t len, char *out)
{
	static const char digits[] = "0123456789abcdef";
	for (size_t i = 0; i < len; i++) {
		out[2 * i] = digits[bytes[i] >> 4];
		out[2 * i + 1] = digits[bytes[i] & 15];
	}
	out[2 * len] = '\0';
}
