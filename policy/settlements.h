/*
 * settlements - leases on their way back to Redis
 *
 * Owns:       a copy of each lease until Redis has acknowledged it.
 * Lifetime:   settlements_init … settlements_deinit; the link must have been freed first (it ends what is under way).
 * Runs on:    the link's loop.
 * Results:    0, SETTLEMENTS_E_FULL, -ENOMEM.
 * Bounds:     `max` of them, 32 under way at once; 16 MiB of results, those beyond are left out.
 * Invariants: what was under way when the connection ended is sent again: the script settles a lease once, however often it is asked.
 *             One that Redis refuses with an error that will be the same next time is set aside after 3 times: it is told in the log
 *             and tried every 5 s, until it is settled, or its lease has ended and was charged in full.
 */
#pragma once

#include "policy/admission.h"
#include "policy/link.h"
#include "policy/unsettled.h"

#define SETTLEMENTS_E_FULL 1

struct settlement;

struct settlements {
	struct link *link;
	struct settlement *queued; /* oldest first */
	struct settlement *sent;
	struct settlement *aside; /* those that Redis refuses, the next to be tried first */
	size_t count, under_way, max;
	size_t aside_count;       /* of count */
	size_t result_bytes;      /* of all that wait */
	bool stopped;
	/* Redis has acknowledged it; may be NULL. */
	void (*on_settled)(void *ctx, const struct admission_lease *lease);
	void *ctx;
	struct degraded *degraded;   /* is told of its leases that are booked */
	struct unsettled *unsettled; /* where those go that are left; NULL = nowhere */
	bool restored;               /* some of them are from there */
};

/* `unsettled` may be NULL. */
void settlements_init(struct settlements *list, struct link *link, size_t max, struct unsettled *unsettled);

/* Takes up those of the last run. -ENOMEM. */
MUST_CHECK int settlements_restore(struct settlements *list);

/* Nothing is sent from now on; for the time in which the link is being freed. */
void settlements_stop(struct settlements *list);
void settlements_deinit(struct settlements *list);

/* `result` may be NULL. The lease has no actor when the answer to the admission was never seen.
 * `refund`: the command certainly did not start, its rate is given back as well. */
MUST_CHECK int settlements_add(struct settlements *list, const struct admission_lease *lease, uint64_t used_ms, uint64_t out_bytes,
			       bool refund, const struct admission_result *result);

/* Those that may be acknowledged soon: without those that are set aside. */
size_t settlements_owed(const struct settlements *list);

/* Sends what can be sent: to be called when the link is back, and now and then. */
void settlements_pump(struct settlements *list);
