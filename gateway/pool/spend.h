/*
 * spend - what the members cost, against an allowance for each 24 hours
 *
 * An estimate from list prices (sizing.h) and the time that Sprites run; the provider's bill decides. The 24 hours are counted from
 * the start. Pure: no clock.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* What is saved first: idling, then stock, then new claims. */
enum spend_level { SPEND_FREE, SPEND_NO_IDLING, SPEND_NO_STOCK, SPEND_NOTHING };

struct spend {
	uint64_t allowed_nusd; /* for each 24 hours, in nano dollars; 0 = no limit */
	uint64_t day_us;       /* when the present 24 hours began */
	uint64_t day_nusd;     /* spent since */
	uint64_t total_nusd;
	uint64_t idle_us;      /* Sprite time, running but idle */
	uint64_t at_us;
};

void spend_init(struct spend *spend, uint64_t allowed_nusd, uint64_t now_us);

/* Since the last call Sprites ran idle for idle_us, added up, and so many worked. */
void spend_pass(struct spend *spend, uint64_t now_us, uint64_t idle_us, size_t busy);

enum spend_level spend_level(const struct spend *spend);

/* When the next 24 hours begin. */
uint64_t spend_renews_us(const struct spend *spend);
