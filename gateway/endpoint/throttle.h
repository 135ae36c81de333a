/*
 * throttle - how many wrong tokens an address may send: `burst` at once, then one every THROTTLE_INTERVAL_MS (GCRA)
 *
 * It only counts failures: whoever has a valid token never meets it, whatever came from the same address before. IPv6 counts by /64.
 * Set-associative; in a full set the address that is nearest to being forgotten goes, so a flood of addresses makes it milder, never
 * stricter.
 *
 * Owns:     its table. Pure but for that.
 * Runs on:  one loop; each worker has its own, so an address that spreads its connections gets the burst once a worker.
 * Bounds:   THROTTLE_ADDRESSES, 96 KiB.
 */
#pragma once

#include "gateway/base/attr.h"

#include <stdint.h>

#define THROTTLE_ADDRESSES   4096
#define THROTTLE_INTERVAL_MS 12000

struct throttle_slot;

struct throttle {
	struct throttle_slot *slots;
	uint64_t tolerance_ms; /* 0 = no limit */
};

/* `burst` 0: no limit. -ENOMEM. */
MUST_CHECK int throttle_init(struct throttle *throttle, uint64_t burst);
void throttle_deinit(struct throttle *throttle);

/* One failure of this address (peer.h's 16 bytes). 0, or how many ms it should wait: it is above the limit then, and not counted. */
uint64_t throttle_charge(struct throttle *throttle, const unsigned char address[16], uint64_t now_ms);
