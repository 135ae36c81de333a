#include "gateway/base/sha256.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>

int sha256_init(struct sha256 *digest)
{
	if (!digest->context)
		digest->context = EVP_MD_CTX_new();
	if (!digest->context)
		return -ENOMEM;
	return EVP_DigestInit_ex(digest->context, EVP_sha256(), NULL) ? 0 : -EIO;
}

void sha256_deinit(struct sha256 *digest)
{
	EVP_MD_CTX_free(digest->context);
	*digest = (struct sha256){0};
}

int sha256_feed(struct sha256 *digest, struct slice bytes)
{
	return EVP_DigestUpdate(digest->context, bytes.data, bytes.len) ? 0 : -EIO;
}

int sha256_hex(const struct sha256 *digest, char out[SHA256_HEX + 1])
{
	unsigned char bytes[EVP_MAX_MD_SIZE];
	unsigned len = 0;
	EVP_MD_CTX *copy = EVP_MD_CTX_new();
	bool done = copy && EVP_MD_CTX_copy_ex(copy, digest->context) && EVP_DigestFinal_ex(copy, bytes, &len);
	EVP_MD_CTX_free(copy);
	if (!done)
		return copy ? -EIO : -ENOMEM;
	for (unsigned i = 0; i < SHA256_HEX / 2; i++)
		snprintf(out + (size_t)2 * i, 3, "%02x", bytes[i]);
	return 0;
}
