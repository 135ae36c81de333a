/*
 * sha256 - the SHA-256 digest of bytes that come in pieces
 *
 * Owns:       its context.
 * Lifetime:   sha256_init … sha256_deinit; a zeroed struct may be given to sha256_deinit.
 * Results:    0, -ENOMEM, -EIO (OpenSSL fails).
 */
#pragma once

#include "gateway/base/slice.h"

#define SHA256_HEX 64

struct sha256 {
	struct evp_md_ctx_st *context;
};

/* Begins, or begins anew. */
MUST_CHECK int sha256_init(struct sha256 *digest);
void sha256_deinit(struct sha256 *digest);

MUST_CHECK int sha256_feed(struct sha256 *digest, struct slice bytes);

/* The digest of what came so far, in lower case; more may follow. */
MUST_CHECK int sha256_hex(const struct sha256 *digest, char out[SHA256_HEX + 1]);
