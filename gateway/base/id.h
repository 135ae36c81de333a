/*
 * id - random identifiers from OpenSSL's generator
 *
 * Results: 0, or -EIO when the random generator fails (the request or start-up fails then; no weak fallback).
 */
#pragma once

#include "gateway/base/attr.h"

#include <stdint.h>

#define ID_UUID_LEN 36
#define ID_ULID_LEN 26

MUST_CHECK int id_random(void *bytes, size_t len);

/* UUID version 7 (RFC 9562 section 5.7), lower case, with NUL. */
MUST_CHECK int id_uuid7(char out[ID_UUID_LEN + 1], uint64_t wall_ms);

/* A ULID in lower case (Crockford base 32), so it may stand in a Sprite's name; with NUL. */
MUST_CHECK int id_ulid(char out[ID_ULID_LEN + 1], uint64_t wall_ms);

/* `len` unbiased characters of 0-9A-Za-z, with NUL. */
MUST_CHECK int id_base62(char *out, size_t len);
