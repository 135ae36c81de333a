/*
 * secret - bytes that are never printed, are zeroed when freed and compared in constant time
 *
 * Owns:     its copy of the bytes.
 * Lifetime: secret_init … secret_deinit.
 */
#pragma once

#include "gateway/base/slice.h"

struct secret {
	unsigned char *bytes;
	size_t len;
};

/* Copies. -ENOMEM. */
MUST_CHECK int secret_init(struct secret *secret, struct slice bytes);
void secret_deinit(struct secret *secret);

/* Borrowed, for the one place that hands it to a library; valid until secret_deinit. */
struct slice secret_peek(const struct secret *secret);

/* Constant time in the contents (not in the length). */
bool secret_equal(const struct secret *secret, struct slice candidate);

/* Zeroes memory that held a secret, never optimised away. */
void secret_wipe(void *memory, size_t len);
