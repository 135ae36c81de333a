#include "gateway/sprites/heartbeat.h"

void heartbeat_init(struct heartbeat *heartbeat, uint64_t interval_us, uint64_t dead_after_us, uint64_t now_us)
{
	*heartbeat =
		(struct heartbeat){.interval_us = interval_us, .dead_after_us = dead_after_us, .heard_us = now_us, .pinged_us = now_us};
}

void heartbeat_heard(struct heartbeat *heartbeat, uint64_t now_us)
{
	heartbeat->heard_us = now_us;
}

void heartbeat_pause(struct heartbeat *heartbeat, bool paused, uint64_t now_us)
{
	heartbeat->paused = paused;
	heartbeat->heard_us = now_us;
}

enum heartbeat_action heartbeat_step(struct heartbeat *heartbeat, uint64_t now_us, uint64_t *next_us)
{
	uint64_t dead_us = heartbeat->heard_us + heartbeat->dead_after_us;
	bool ping = now_us >= heartbeat->pinged_us + heartbeat->interval_us;
	if (ping)
		heartbeat->pinged_us = now_us;
	*next_us = heartbeat->pinged_us + heartbeat->interval_us;
	if (heartbeat->paused)
		return ping ? HEARTBEAT_PING : HEARTBEAT_WAIT;
	if (now_us >= dead_us)
		return HEARTBEAT_DEAD;
	if (dead_us < *next_us)
		*next_us = dead_us;
	return ping ? HEARTBEAT_PING : HEARTBEAT_WAIT;
}
