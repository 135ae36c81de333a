/*
 * heartbeat - when to ping a peer and when to take it for dead; no I/O
 *
 * A ping goes out every interval, and a peer that was not heard for dead_after is dead: a live one answers pings (RFC
 * 6455 5.5.2). While we do not read (paused) nothing can be heard, so that time does not count.
 */
#pragma once

#include "gateway/base/attr.h"

#include <stdbool.h>
#include <stdint.h>

struct heartbeat {
	uint64_t interval_us, dead_after_us;
	uint64_t heard_us, pinged_us;
	bool paused;
};

enum heartbeat_action { HEARTBEAT_WAIT, HEARTBEAT_PING, HEARTBEAT_DEAD };

void heartbeat_init(struct heartbeat *heartbeat, uint64_t interval_us, uint64_t dead_after_us, uint64_t now_us);
void heartbeat_heard(struct heartbeat *heartbeat, uint64_t now_us);
void heartbeat_pause(struct heartbeat *heartbeat, bool paused, uint64_t now_us);

/* What is due now; *next_us is when to ask again. */
enum heartbeat_action heartbeat_step(struct heartbeat *heartbeat, uint64_t now_us, uint64_t *next_us);
