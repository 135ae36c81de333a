#include "gateway/base/secret.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <stdlib.h>

int secret_init(struct secret *secret, struct slice bytes)
{
	secret->bytes = malloc(bytes.len ? bytes.len : 1);
	if (!secret->bytes)
		return -ENOMEM;
	if (bytes.len)
		memcpy(secret->bytes, bytes.data, bytes.len);
	secret->len = bytes.len;
	return 0;
}

void secret_deinit(struct secret *secret)
{
	if (secret->bytes)
		OPENSSL_cleanse(secret->bytes, secret->len);
	free(secret->bytes);
	*secret = (struct secret){0};
}

struct slice secret_peek(const struct secret *secret)
{
	return slice_of((const char *)secret->bytes, secret->len);
}

bool secret_equal(const struct secret *secret, struct slice candidate)
{
	return secret->len == candidate.len && (candidate.len == 0 || CRYPTO_memcmp(secret->bytes, candidate.data, candidate.len) == 0);
}

void secret_wipe(void *memory, size_t len)
{
	OPENSSL_cleanse(memory, len);
}
