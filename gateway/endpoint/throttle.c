#include "gateway/endpoint/throttle.h"

#include "gateway/http/peer.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define WAYS 4
#define SETS (THROTTLE_ADDRESSES / WAYS)

struct throttle_slot {
	unsigned char address[16];
	uint64_t tat_ms; /* theoretical arrival time: when it is forgotten */
};

/* FNV-1a. Whoever finds addresses of one set gains nothing: see the header. */
static struct throttle_slot *set_of(const struct throttle *throttle, const unsigned char network[16])
{
	uint32_t hash = 2166136261u;
	for (size_t i = 0; i < 16; i++)
		hash = (hash ^ network[i]) * 16777619u;
	return &throttle->slots[(hash ^ hash >> 16) % SETS * WAYS];
}

int throttle_init(struct throttle *throttle, uint64_t burst)
{
	*throttle = (struct throttle){.tolerance_ms = burst * THROTTLE_INTERVAL_MS};
	throttle->slots = calloc(THROTTLE_ADDRESSES, sizeof *throttle->slots);
	return throttle->slots ? 0 : -ENOMEM;
}

void throttle_deinit(struct throttle *throttle)
{
	free(throttle->slots);
	throttle->slots = NULL;
}

uint64_t throttle_charge(struct throttle *throttle, const unsigned char address[16], uint64_t now_ms)
{
	unsigned char network[16];
	if (!throttle->tolerance_ms)
		return 0;
	peer_network_of(address, network);
	struct throttle_slot *set = set_of(throttle, network), *slot = set;
	for (size_t i = 0; i < WAYS; i++) {
		if (memcmp(set[i].address, network, sizeof network) == 0) {
			slot = &set[i];
			break;
		}
		if (set[i].tat_ms < slot->tat_ms)
			slot = &set[i];
	}
	bool known = memcmp(slot->address, network, sizeof network) == 0;
	uint64_t tat = (known && slot->tat_ms > now_ms ? slot->tat_ms : now_ms) + THROTTLE_INTERVAL_MS;
	if (tat > now_ms + throttle->tolerance_ms)
		return tat - throttle->tolerance_ms - now_ms;
	memcpy(slot->address, network, sizeof network);
	slot->tat_ms = tat;
	return 0;
}
