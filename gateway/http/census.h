/*
 * census - how many connections each address has, over all workers
 *
 * IPv6 counts by /64, which is one subscriber. Several addresses may share a counter by chance (the hash is keyed, so nobody can choose
 * whose): with CENSUS_COUNTERS of them and two for each address, the smaller of which is believed, that takes many more connections than
 * there can be.
 *
 * Owns:     its counters.
 * Runs on:  any thread.
 * Bounds:   128 KiB.
 */
#pragma once

#include "gateway/base/attr.h"

#include <stdbool.h>

#define CENSUS_COUNTERS (16 * 1024)

struct census;

/* NULL: no memory, or no random key. */
struct census *census_new(unsigned limit);
void census_free(struct census *census);

/* One more of this address (peer.h's 16 bytes); false when it has `limit` already, and nothing is counted. */
MUST_CHECK bool census_enter(struct census *census, const unsigned char address[16]);
void census_leave(struct census *census, const unsigned char address[16]);
