/*
 * idempotency - the Idempotency-Key of a request, and what makes two requests the same (draft-ietf-httpapi-idempotency-key-header-07)
 *
 * Results: -EINVAL for a key that cannot be one; else those of sha256.
 */
#pragma once

#include "gateway/base/sha256.h"
#include "gateway/http/headers.h"
#include "gateway/json/json.h"

#define IDEMPOTENCY_KEY_MAX 255

/* The digest of the key, "" when there is none. A key is an RFC 9651 String, or the same without its quotes: printable ASCII. */
MUST_CHECK int idempotency_key(const struct http_fields *fields, char out[SHA256_HEX + 1]);

/* The digest of a body, whatever the order of its members and the blanks between them. */
MUST_CHECK int idempotency_fingerprint(const json_t *body, char out[SHA256_HEX + 1]);
