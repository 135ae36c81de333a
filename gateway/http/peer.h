/*
 * peer - client addresses as text, and the set of peers whose forwarding fields are believed
 *
 * Pure.
 * Bounds: PEER_SET_MAX networks.
 */
#pragma once

#include "gateway/base/slice.h"

#define PEER_SET_MAX 32

struct peer_network {
	unsigned char bytes[16]; /* IPv4 as ::ffff:a.b.c.d */
	unsigned prefix;         /* bits, 0-128 */
};

struct peer_set {
	size_t count;
	struct peer_network at[PEER_SET_MAX];
};

/* "10.0.0.0/8, fdaa::/16, 127.0.0.1"; empty = nobody. -EINVAL (not an address or prefix), -E2BIG. */
MUST_CHECK int peer_set_parse(struct slice text, struct peer_set *set);

/* False for anything that is not an address. */
bool peer_set_has(const struct peer_set *set, struct slice address);

bool peer_is_address(struct slice text);

/* The address as 16 bytes, IPv4 as ::ffff:a.b.c.d; false when it is none. */
bool peer_parse(struct slice text, unsigned char address[16]);

/* What limits count as one address: of IPv6 the whole /64, which one subscriber has. */
void peer_network_of(const unsigned char address[16], unsigned char network[16]);
