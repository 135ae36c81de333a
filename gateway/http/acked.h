/*
 * acked - how much of what was sent on a TCP connection the other side's kernel has taken, and whether it keeps us from sending more
 *
 * What our kernel has taken says little of a slow reader: its buffer holds megabytes.
 */
#pragma once

#include "gateway/base/attr.h"

#include <stdbool.h>
#include <stdint.h>

struct acked {
	uint64_t bytes; /* since the connection was opened */
	bool blocked;   /* bytes wait here that could not be sent yet; not those that are on their way */
};

/* False when it is no TCP connection. */
MUST_CHECK bool acked_look(int fd, struct acked *acked);
