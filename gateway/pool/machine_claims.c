#include "gateway/pool/machine_parts.h"

#include <stdlib.h>
#include <utlist.h>

/* --- the outlook of waiters ------------------------------------------------------------------- */

static uint64_t expected(const struct estimate *estimate, uint64_t guess_us)
{
	return estimate->measured ? estimate->mean_us : guess_us;
}

static int by_time(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return (x > y) - (x < y);
}

struct leads {
	uint64_t create, prepare, wake, restore;
};

static struct leads leads(const struct machine *machine, bool optimistic)
{
	if (optimistic)
		return (struct leads){estimate_optimistic_us(&machine->create), estimate_optimistic_us(&machine->prepare),
				      estimate_optimistic_us(&machine->wake), estimate_optimistic_us(&machine->restore)};
	return (struct leads){expected(&machine->create, CREATE_GUESS_US), expected(&machine->prepare, PREPARE_GUESS_US),
			      expected(&machine->wake, WAKE_GUESS_US), expected(&machine->restore, RESTORE_GUESS_US)};
}

/* How long after it has entered its state a member will be ready; 0 = it is not on its way. */
static bool is_on_way(const struct pool_member *member, const struct leads *leads, uint64_t *left_us)
{
	switch (member->state) {
	case POOL_INTENT:
	case POOL_CREATING:
		*left_us = leads->create + leads->prepare;
		return true;
	case POOL_PREPARING:
		*left_us = member->waking ? leads->wake : leads->prepare;
		return true;
	case POOL_RECYCLING:
		*left_us = leads->restore;
		return true;
	default:
		return false;
	}
}

static size_t ready_times(const struct machine *machine, uint64_t now_us, const struct leads *leads, uint64_t *times)
{
	static const enum pool_state states[] = {POOL_INTENT, POOL_CREATING, POOL_PREPARING, POOL_RECYCLING};
	size_t n = 0;
	for (size_t i = 0; i < ARRAY_LEN(states); i++) {
		struct pool_member *member;
		uint64_t left_us;
		DL_FOREACH (machine->roster.lists[states[i]], member) {
			if (!is_on_way(member, leads, &left_us))
				continue;
			uint64_t ready_us = member->since_us + left_us;
			times[n++] = ready_us > now_us ? ready_us : now_us;
		}
	}
	qsort(times, n, sizeof *times, by_time);
	return n;
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* The soonest that a member that exists but is not on its way could serve; UINT64_MAX without any. */
static uint64_t spare_us(const struct machine *machine, uint64_t now_us, const struct leads *lead)
{
	const size_t *counts = machine->roster.counts;
	uint64_t opens_us = machine_later(gate_wakes_open_us(&machine->gate, true), now_us), soonest_us = UINT64_MAX;
	if (counts[POOL_WARM])
		soonest_us = earlier(soonest_us, opens_us + lead->wake);
	if (counts[POOL_QUARANTINE])
		soonest_us = earlier(soonest_us, opens_us + lead->prepare);
	if (machine->options.recycle && counts[POOL_LEASED])
		soonest_us = earlier(soonest_us, now_us + lead->restore);
	return soonest_us;
}

/* The soonest that anything could serve that is not on its way. */
static void hope(const struct machine *machine, struct outlook *outlook, const struct leads *lead)
{
	static const struct budget unlimited = {0};
	bool refused = machine->gate.until_us[GATE_UNAUTHORIZED];
	outlook->opens_us = refused ? UINT64_MAX : gate_opens_us(&machine->gate, true);
	uint64_t soonest_us = spare_us(machine, outlook->now_us, lead);
	if (soonest_us == UINT64_MAX)
		return;
	/* It needs no creation. */
	if (!refused)
		soonest_us = earlier(soonest_us, outlook_ready_us(outlook, outlook->on_way));
	outlook->opens_us = 0;
	outlook->budget = &unlimited;
	outlook->lead_us = soonest_us - outlook->now_us;
}

static struct outlook look_out(struct machine *machine, uint64_t now_us, bool optimistic)
{
	struct leads lead = leads(machine, optimistic);
	uint64_t *times = machine->ready_us + (optimistic ? machine->roster.capacity : 0);
	struct outlook outlook = {
		.now_us = now_us,
		.ready_us = times,
		.on_way = ready_times(machine, now_us, &lead, times),
		.opens_us = gate_opens_us(&machine->gate, false),
		.budget = &machine->gate.budget,
		.optimistic = optimistic,
		.room = machine_room(machine),
		.max = machine->options.sizing.max,
		.lead_us = lead.create + lead.prepare,
	};
	if (optimistic)
		hope(machine, &outlook, &lead);
	else
		outlook.turnover_us = expected(&machine->hold, HOLD_GUESS_US) + expected(&machine->destroy, DESTROY_GUESS_US);
	return outlook;
}

static uint64_t clip_retry(uint64_t ms)
{
	if (ms < RETRY_AFTER_MIN)
		return RETRY_AFTER_MIN;
	return ms < RETRY_AFTER_MAX ? ms : RETRY_AFTER_MAX;
}

/* Behind so many who wait, and those who were told to come back. */
static uint64_t retry_after_ms(struct machine *machine, uint64_t now_us, const struct machine_waiter *waiter, size_t waiting)
{
	bookings_expire(&machine->bookings, now_us);
	struct outlook outlook = look_out(machine, now_us, false);
	uint64_t ready_us = outlook_ready_us(&outlook, waiting + bookings_ahead(&machine->bookings, waiter->tenant));
	return ready_us == UINT64_MAX ? RETRY_AFTER_UNKNOWN : clip_retry((ready_us - now_us) / MS);
}

/* --- refusing --------------------------------------------------------------------------------- */

static void refuse(struct machine *machine, struct machine_waiter *waiter, int refusal, uint64_t retry_ms)
{
	machine_act(machine,
		    (struct machine_action){.type = MACHINE_DO_REFUSE, .waiter = waiter, .refusal = refusal, .retry_after_ms = retry_ms});
}

/* Until it is likely to be served; while the provider fails nobody knows. */
static void refuse_until_ready(struct machine *machine, uint64_t now_us, struct machine_waiter *waiter, int refusal, size_t waiting)
{
	uint64_t retry_ms = retry_after_ms(machine, now_us, waiter, waiting);
	if (refusal != POOL_E_UNAVAILABLE)
		bookings_add(&machine->bookings, waiter->tenant, now_us + retry_ms * MS);
	refuse(machine, waiter, refusal, retry_ms);
}

static void unqueue(struct machine *machine, struct machine_waiter *waiter)
{
	DL_DELETE(machine->waiters, waiter);
	machine->waiting--;
	fair_unwait(&machine->fair, waiter->record);
}

void machine_cancel(struct machine *machine, struct machine_waiter *waiter)
{
	unqueue(machine, waiter);
}

void machine_refuse_all(struct machine *machine, int refusal)
{
	while (machine->waiters) {
		struct machine_waiter *waiter = machine->waiters;
		unqueue(machine, waiter);
		refuse(machine, waiter, refusal, RETRY_AFTER_MIN);
	}
}

/* What is ours, and not only asked for, nobody else has by now, whatever the last beat said. */
size_t machine_may_take(const struct machine *machine, const struct fair_tenant *tenant, uint64_t now_us)
{
	size_t room = machine->options.sizing.max, kept = machine->kept.total, elsewhere = machine->lease.fleet.others_leased;
	size_t max = room > kept ? room - kept : 0;
	size_t ours = roster_total(&machine->roster) - machine->roster.counts[POOL_INTENT] - machine->lease.stealing;
	size_t theirs = max > ours ? max - ours : 0;
	return fair_allows(&machine->fair, tenant, max - (elsewhere < theirs ? elsewhere : theirs), now_us);
}

static bool may_take(const struct machine *machine, const struct fair_tenant *record, uint64_t now_us)
{
	return machine_may_take(machine, record, now_us) > 0;
}

/* Nothing is on its way for it: because nothing may be? */
static bool is_crowded(const struct machine *machine, uint64_t now_us)
{
	static const enum gate_reason limits[] = {GATE_RATE_LIMIT, GATE_CAPACITY, GATE_THROTTLED, GATE_BUDGET};
	size_t may_run = machine_running_limit(machine);
	for (size_t i = 0; i < ARRAY_LEN(limits); i++)
		if (machine->gate.until_us[limits[i]])
			return true;
	return !machine_room(machine) || machine->lease.place_us[true] ||
	       (may_run && machine_running_idle(machine, now_us) + machine_running_used(machine) >= may_run);
}

static int why_late(const struct machine *machine, const struct machine_waiter *waiter)
{
	const struct gate *gate = &machine->gate;
	if (gate->failures || gate->until_us[GATE_UNAVAILABLE] || gate->until_us[GATE_UNAUTHORIZED])
		return POOL_E_UNAVAILABLE;
	return waiter->crowded ? POOL_E_BUSY : POOL_E_DEADLINE;
}

void machine_review_waiters(struct machine *machine, uint64_t now_us)
{
	if (!machine->waiters)
		return;
	struct outlook outlook = look_out(machine, now_us, true);
	struct machine_waiter *waiter, *next;
	size_t positions[2] = {0}; /* by whether they were told to come back: among them, among all */
	DL_FOREACH_SAFE (machine->waiters, waiter, next) {
		size_t position = positions[!waiter->booked];
		waiter->crowded |=
			!may_take(machine, waiter->record, now_us) || (position >= outlook.on_way && is_crowded(machine, now_us));
		if (outlook_ready_us(&outlook, position) < waiter->deadline_us) {
			positions[0] += waiter->booked;
			positions[1]++;
			continue;
		}
		unqueue(machine, waiter);
		refuse_until_ready(machine, now_us, waiter, why_late(machine, waiter), position);
	}
}

/* --- granting --------------------------------------------------------------------------------- */

/* A hot member that this tenant may have: one that it used before, else the newest that nobody used. */
static struct pool_member *pick(const struct machine *machine, uint64_t tenant)
{
	struct pool_member *member, *fresh = NULL;
	DL_FOREACH (machine->roster.lists[POOL_HOT], member) {
		if (member->owned && member->owner == tenant)
			return member;
		if (!member->owned && !fresh)
			fresh = member;
	}
	return fresh;
}

static void grant(struct machine *machine, uint64_t now_us, struct machine_waiter *waiter, struct pool_member *member, enum pool_tier tier)
{
	if (!machine_move(machine, member, POOL_LEASED, now_us))
		return;
	member->tenant = waiter->record;
	fair_hold(&machine->fair, waiter->record);
	machine_act(machine, (struct machine_action){.type = MACHINE_DO_GRANT, .waiter = waiter, .member = member, .tier = tier});
}

static bool goes_before(const struct machine_waiter *waiter, const struct machine_waiter *other)
{
	if (waiter->record->held != other->record->held)
		return waiter->record->held < other->record->held;
	return waiter->booked && !other->booked;
}

/* Whoever holds least comes first, among equals who was told to come back, among equals whoever has waited longest. */
static struct machine_waiter *next_waiter(const struct machine *machine, uint64_t now_us)
{
	struct machine_waiter *waiter, *best = NULL;
	DL_FOREACH (machine->waiters, waiter)
		if ((!best || goes_before(waiter, best)) && pick(machine, waiter->tenant) && may_take(machine, waiter->record, now_us))
			best = waiter;
	return best;
}

void machine_serve(struct machine *machine, uint64_t now_us)
{
	struct machine_waiter *waiter;
	if (!machine->roster.counts[POOL_HOT] || !machine_is_fresh(machine, now_us))
		return;
	while ((waiter = next_waiter(machine, now_us))) {
		struct pool_member *member = pick(machine, waiter->tenant);
		DL_DELETE(machine->waiters, waiter);
		machine->waiting--;
		grant(machine, now_us, waiter, member, member->woken ? POOL_TIER_WARM : POOL_TIER_COLD);
		fair_unwait(&machine->fair, waiter->record);
	}
}

/* The queue is full: the youngest waiter of the tenant with most of them gives way, if that is fairer. */
static struct machine_waiter *one_too_many(const struct machine *machine, const struct fair_tenant *record)
{
	struct machine_waiter *waiter, *worst = NULL;
	DL_FOREACH (machine->waiters, waiter)
		if (waiter->record->waiting > record->waiting + 1 && (!worst || waiter->record->waiting >= worst->record->waiting))
			worst = waiter;
	return worst;
}

static void enqueue(struct machine *machine, uint64_t now_us, struct machine_waiter *waiter)
{
	if (machine->waiting >= machine->options.max_waiters) {
		struct machine_waiter *other = one_too_many(machine, waiter->record);
		if (other)
			unqueue(machine, other);
		refuse_until_ready(machine, now_us, other ? other : waiter, POOL_E_FULL, machine->waiting);
		if (!other)
			return;
	}
	DL_APPEND(machine->waiters, waiter);
	machine->waiting++;
	fair_wait(&machine->fair, waiter->record);
	machine->worse = true;
}

/* It was announced: the oldest announcement is fulfilled. */
static void fulfil_intent(struct machine *machine)
{
	uint64_t *first = NULL;
	for (size_t i = 0; i < MACHINE_INTENTS; i++)
		if (machine->intents_us[i] && (!first || machine->intents_us[i] < *first))
			first = &machine->intents_us[i];
	if (first)
		*first = 0;
}

static void settle(struct machine *machine, uint64_t now_us, struct machine_waiter *waiter)
{
	waiter->record = fair_claim(&machine->fair, waiter->tenant, now_us);
	struct pool_member *member = pick(machine, waiter->tenant);
	if (member && may_take(machine, waiter->record, now_us) && machine_is_fresh(machine, now_us))
		grant(machine, now_us, waiter, member, POOL_TIER_HOT);
	else
		enqueue(machine, now_us, waiter);
}

void machine_claim(struct machine *machine, uint64_t now_us, struct machine_waiter *waiter)
{
	waiter->since_us = now_us;
	waiter->crowded = false;
	waiter->booked = bookings_take(&machine->bookings, waiter->tenant, now_us);
	if (machine->stopping) {
		refuse(machine, waiter, POOL_E_STOPPING, RETRY_AFTER_MIN);
		return;
	}
	if (spend_level(&machine->spend) == SPEND_NOTHING) {
		refuse(machine, waiter, POOL_E_BUDGET, clip_retry((spend_renews_us(&machine->spend) - now_us) / MS));
		return;
	}
	machine->claims++;
	demand_claim(&machine->demand, now_us);
	fulfil_intent(machine);
	settle(machine, now_us, waiter);
}

void machine_claim_again(struct machine *machine, uint64_t now_us, struct machine_waiter *waiter)
{
	if (machine->stopping)
		refuse(machine, waiter, POOL_E_STOPPING, RETRY_AFTER_MIN);
	else
		settle(machine, now_us, waiter);
}
