/*
 * limits - how many clients fit into what the system gives this process
 *
 * Pure but for limits_raise().
 */
#pragma once

#include <stdint.h>

/* As many descriptors as we may have; how many that is. A process that may not have more is served by what it has. */
uint64_t limits_raise(void);

/* How many connections of clients fit: a quarter of the descriptors is kept for Datasette, and some for everything else. */
uint64_t limits_connections(uint64_t wanted, uint64_t descriptors);

/* The part of one worker. */
unsigned limits_share(uint64_t total, unsigned workers);
