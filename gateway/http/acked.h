/*
 * acked - how much of what was sent on a TCP connection the other side's kernel has taken
 *
 * What our kernel has taken says little of a slow reader: its buffer holds megabytes.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* Since the connection was opened; false when it is no TCP connection. */
bool acked_bytes(int fd, uint64_t *bytes);
