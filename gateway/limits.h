/*
 * limits - how much fits into the descriptors that the system gives this process
 *
 * Pure but for limits_most() and limits_raise().
 */
#pragma once

#include <stdint.h>

struct limits_wanted {
	uint64_t descriptors; /* that there are */
	uint64_t connections; /* of clients */
	uint64_t websockets;
	uint64_t sprites;
	unsigned workers;
};

/* What may be open at once, in all workers together. */
struct limits_plan {
	uint64_t connections;
	uint64_t websockets;
	uint64_t datasette; /* connections to it, without those of WebSockets */
	uint64_t needed;    /* descriptors, at least, to start with */
};

/* How many descriptors we may have. */
uint64_t limits_most(void);

/* As many as we may have; how many that is. A process that may not have more is served by what it has. */
uint64_t limits_raise(void);

/* Of what Sprites and everything else leave, Datasette has a quarter, WebSockets at most another one beside the connections of their
 * clients, and clients have the rest. Nothing fits when there are fewer than `needed`. */
struct limits_plan limits_plan(const struct limits_wanted *wanted);

/* The part of one worker. */
unsigned limits_share(uint64_t total, unsigned workers);
