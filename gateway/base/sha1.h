/*
 * sha1 - SHA-1 where a protocol still asks for it (Sec-WebSocket-Accept, RFC 6455 section 4.2.2); never for security
 */
#pragma once

#include "gateway/base/slice.h"

#define SHA1_BYTES 20

/* -EIO when OpenSSL fails. */
MUST_CHECK int sha1(struct slice message, unsigned char out[SHA1_BYTES]);
