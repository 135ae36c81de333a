#include "gateway/base/sha1.h"

#include <errno.h>
#include <openssl/evp.h>

int sha1(struct slice message, unsigned char out[SHA1_BYTES])
{
	unsigned len = 0;
	if (!EVP_Digest(message.data, message.len, out, &len, EVP_sha1(), NULL) || len != SHA1_BYTES)
		return -EIO;
	return 0;
}
