#include "gateway/http/census.h"

#include "gateway/base/id.h"
#include "gateway/http/peer.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

#define ROWS 2

struct census {
	unsigned limit;
	uint64_t key[ROWS];
	_Atomic uint32_t counts[ROWS][CENSUS_COUNTERS];
};

struct census *census_new(unsigned limit)
{
	struct census *census = calloc(1, sizeof *census);
	if (!census)
		return NULL;
	census->limit = limit;
	if (id_random(census->key, sizeof census->key) == 0)
		return census;
	free(census);
	return NULL;
}

void census_free(struct census *census)
{
	free(census);
}

/* The finalizer of MurmurHash3, whose low bits depend on all others. */
static uint64_t mix(uint64_t value)
{
	value = (value ^ value >> 33) * 0xff51afd7ed558ccdULL;
	value = (value ^ value >> 33) * 0xc4ceb9fe1a85ec53ULL;
	return value ^ value >> 33;
}

static _Atomic uint32_t *counter_of(struct census *census, unsigned row, const unsigned char network[16])
{
	uint64_t halves[2];
	memcpy(halves, network, sizeof halves);
	return &census->counts[row][mix(mix(halves[0] ^ census->key[row]) + halves[1]) % CENSUS_COUNTERS];
}

bool census_enter(struct census *census, const unsigned char address[16])
{
	unsigned char network[16];
	uint32_t least = UINT32_MAX;
	peer_network_of(address, network);
	for (unsigned row = 0; row < ROWS; row++) {
		uint32_t before = atomic_fetch_add(counter_of(census, row, network), 1);
		least = before < least ? before : least;
	}
	if (least < census->limit)
		return true;
	census_leave(census, address);
	return false;
}

void census_leave(struct census *census, const unsigned char address[16])
{
	unsigned char network[16];
	peer_network_of(address, network);
	for (unsigned row = 0; row < ROWS; row++)
		atomic_fetch_sub(counter_of(census, row, network), 1);
}
