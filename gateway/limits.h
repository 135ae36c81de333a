/*
 * limits - how much fits into the descriptors and the memory that the system gives this process
 *
 * Pure but for limits_most(), limits_raise() and limits_memory().
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct limits_wanted {
	uint64_t descriptors; /* that there are */
	uint64_t memory;      /* that clients may take */
	uint64_t connections; /* of clients */
	uint64_t connection_bytes; /* of memory, each */
	uint64_t requests;
	uint64_t websockets;
	uint64_t sprites;
	unsigned workers;
};

/* What may be open at once, in all workers together. */
struct limits_plan {
	uint64_t connections;
	bool memory_decides; /* how many connections; else the descriptors or what is wanted */
	uint64_t requests;
	uint64_t bodies; /* bytes of them that wait to be whole, of commands; half as much again as clients take */
	uint64_t websockets;
	uint64_t datasette; /* connections to it, without those of WebSockets */
	uint64_t needed;    /* descriptors, at least, to start with */
	uint64_t memory_needed; /* likewise */
};

/* How many descriptors we may have. */
uint64_t limits_most(void);

/* As many as we may have; how many that is. A process that may not have more is served by what it has. */
uint64_t limits_raise(void);

/* Bytes that the machine has, or the cgroup that we are in; 0 = not known. */
uint64_t limits_memory(void);

/* Bytes that clients may take: `setting`, or with 0 half of `all`, but at least `needed`; when that is 0, not known, as much as could be set. */
uint64_t limits_client_memory(uint64_t setting, uint64_t all, uint64_t needed);

/* Of the descriptors that Sprites and everything else leave, Datasette has a quarter, WebSockets at most another one beside the connections of
 * their clients, and clients have the rest. Of the memory requests have at most half, and connections what they leave. Nothing fits when
 * there are fewer descriptors than `needed`, or less memory than `memory_needed`. */
struct limits_plan limits_plan(const struct limits_wanted *wanted);

/* The part of one worker. */
unsigned limits_share(uint64_t total, unsigned workers);
