/*
 * request_id - UUIDv7 ids (RFC 9562 section 5.7) for requests, from random bytes fetched in batches
 *
 * id_uuid7() asks OpenSSL each time, which costs a system call and about a microsecond; a proxied request has no such time. A request id
 * is no secret.
 *
 * Results: 0, or -EIO when the random generator fails.
 */
#pragma once

#include "gateway/base/id.h"

#define REQUEST_ID_RANDOM 10
#define REQUEST_ID_BATCH  64

struct request_id_source {
	unsigned char random[REQUEST_ID_BATCH][REQUEST_ID_RANDOM];
	size_t left; /* 0 at the start: the first id fills the batch */
};

MUST_CHECK int request_id_next(struct request_id_source *source, uint64_t wall_ms, char out[ID_UUID_LEN + 1]);
