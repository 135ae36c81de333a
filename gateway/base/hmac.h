/*
 * hmac - HMAC-SHA-256 and hexadecimal text
 */
#pragma once

#include "gateway/base/slice.h"

#define HMAC_BYTES 32

/* -EIO when OpenSSL fails. */
MUST_CHECK int hmac_sha256(struct slice key, struct slice message, unsigned char out[HMAC_BYTES]);

/* Lower case; out has room for 2*len+1. */
void hex_encode(const unsigned char *bytes, size_t len, char *out);
