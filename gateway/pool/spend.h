/*
 * spend - what the members cost, against an allowance for each 24 hours
 *
 * An estimate from list prices (sizing.h) and the time that Sprites run; the provider's bill decides. The 24 hours are counted from
 * the start. Where several share a pool they are the UTC day, and the allowance is for all together: what the others have spent is known
 * as of the last answer of Redis. Pure: no clock.
 */
#pragma once

#include <stdbool.h>
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
	bool shared;
	uint64_t told_nusd;    /* by all, this day, as Redis said last */
	uint64_t said_nusd;    /* of total_nusd, what is part of that, or can never be */
	uint64_t missing_nusd; /* this day, of which Redis knows no more */
	uint64_t renews_us;
};

void spend_init(struct spend *spend, uint64_t allowed_nusd, uint64_t now_us);

/* Since the last call Sprites ran idle for idle_us, added up, and so many worked. */
void spend_pass(struct spend *spend, uint64_t now_us, uint64_t idle_us, size_t busy);

/* Redis has answered: so much have all spent on this UTC day, which goes on for left_us; of ours the first said_nusd of the total were said to
 * it. Not `counted`: what was said since the last time is no part of its sum, as always at the beginning of a session. */
void spend_told(struct spend *spend, uint64_t now_us, uint64_t told_nusd, uint64_t left_us, uint64_t said_nusd, bool counted);

enum spend_level spend_level(const struct spend *spend);

/* When the next 24 hours begin. */
uint64_t spend_renews_us(const struct spend *spend);
