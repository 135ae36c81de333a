/*
 * bookings - who was refused and told when to come back
 *
 * Each refusal is told a time of its own, behind those told before, and whoever comes back then is served before those who came for
 * the first time: else the time told would be worth nothing while more come than can be served. Nothing is kept free for a booking,
 * so that nobody is refused for one who does not come back. Of several tenants' bookings each has its turn, however many one of them has.
 *
 * Pure. Bounds: BOOKINGS_TENANTS tenants, BOOKINGS_EACH bookings of one; who finds no room has none.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BOOKINGS_TENANTS 32
#define BOOKINGS_EACH    96
#define BOOKINGS_LATE_US UINT64_C(60000000) /* a booking is kept so long for whoever comes later than told */

struct bookings {
	struct bookings_of {
		uint64_t tenant;
		size_t count;
		uint64_t due_us[BOOKINGS_EACH];
	} tenants[BOOKINGS_TENANTS]; /* those with a count of 0 are free */
};

/* How many are before one more of this tenant; with a fifth more, for those who come for the first time and hold less. */
size_t bookings_ahead(const struct bookings *bookings, uint64_t tenant);

void bookings_add(struct bookings *bookings, uint64_t tenant, uint64_t due_us);

/* A claim of this tenant: true when one that was told to come back is due, which is used up. */
bool bookings_take(struct bookings *bookings, uint64_t tenant, uint64_t now_us);

void bookings_expire(struct bookings *bookings, uint64_t now_us);
