#include "gateway/pool/machine_parts.h"

#include <assert.h>
#include <utlist.h>

/* A refused reservation that does not say when is made again so much later. Of stock nothing new is known before the next beat. */
#define REFUSED_US       (1 * SECOND)
#define REFUSED_STOCK_US (5 * SECOND)
#define ADOPTED_DOUBT_US (90 * SECOND) /* whoever had it may have asked for its creation just before */

bool machine_is_fresh(const struct machine *machine, uint64_t now_us)
{
	return !machine->options.shared || (machine->lease.sent_us && now_us < machine->lease.sent_us + LEASE_GRANT_US);
}

/* --- letting others have it ------------------------------------------------------------------- */

/* Its record is another's, or gone. What is warm may be in use by now; everything else nobody but us could use: it is destroyed. */
static void disown(struct machine *machine, uint64_t now_us, struct pool_member *member)
{
	member->foreign = true;
	switch (member->state) {
	case POOL_INTENT:
	case POOL_WARM:
		if (!member->busy)
			machine_move(machine, member, POOL_GONE, now_us);
		break;
	case POOL_HOT:
	case POOL_QUARANTINE:
		member->wait_us = 0;
		machine_move(machine, member, POOL_DESTROYING, now_us);
		break;
	case POOL_LEASED:
		machine_act(machine, (struct machine_action){.type = MACHINE_DO_REVOKE, .member = member});
		break;
	default: /* its operation ends first */
		break;
	}
}

static void disown_all(struct machine *machine, uint64_t now_us, enum pool_state state)
{
	struct pool_member *member, *next;
	DL_FOREACH_SAFE (machine->roster.lists[state], member, next)
		disown(machine, now_us, member);
}

void machine_fenced(struct machine *machine, uint64_t now_us)
{
	machine->lease.joined = false;
	machine->lease.sent_us = 0;
	/* Backwards: what is moved to a later state must not be met again. */
	for (int state = POOL_DESTROYING; state >= 0; state--)
		disown_all(machine, now_us, (enum pool_state)state);
}

/* Who took what we had parked has written it again; who parked what we took does not know that. So nobody writes what is warm. */
void machine_flushed(struct machine *machine, uint64_t now_us)
{
	/* The session may have ended before, unseen, and another machine may have destroyed what was ours. */
	if (!machine_is_fresh(machine, now_us)) {
		machine_fenced(machine, now_us);
		return;
	}
	machine->lease.joined = false;
	disown_all(machine, now_us, POOL_WARM);
	disown_all(machine, now_us, POOL_INTENT);
}

void machine_revoked(struct machine *machine, uint64_t now_us, const char *name)
{
	struct pool_member *member = roster_find(&machine->roster, name);
	if (member && !member->foreign)
		disown(machine, now_us, member);
}

/* By a pool that is being stopped: it stays as it is, and its record with it. */
static void let_be(struct machine *machine, uint64_t now_us, struct pool_member *member)
{
	/* Nobody else is there to use it. */
	if (machine->lease.fleet.instances <= 1) {
		machine->abandoned++;
		machine_act(machine, (struct machine_action){.type = MACHINE_DO_ABANDON, .member = member});
	}
	disown(machine, now_us, member);
}

/* Left to the others, who can use it; without any it is destroyed. */
static void leave(struct machine *machine, uint64_t now_us, struct pool_member *member)
{
	bool alone = machine->lease.fleet.instances <= 1;
	if (!alone || !machine_ask(machine, now_us, member, POOL_DESTROYING))
		let_be(machine, now_us, member);
}

void machine_leave_parked(struct machine *machine, uint64_t now_us)
{
	struct pool_member *member, *next;
	DL_FOREACH_SAFE (machine->roster.lists[POOL_WARM], member, next)
		if (!member->busy)
			leave(machine, now_us, member);
	DL_FOREACH_SAFE (machine->roster.lists[POOL_INTENT], member, next)
		if (!member->busy)
			machine_move(machine, member, POOL_GONE, now_us);
}

/* --- asking ----------------------------------------------------------------------------------- */

void machine_reserve(struct machine *machine, struct pool_member *member)
{
	assert(!member->busy);
	member->busy = true;
	member->wait_us = 0;
	machine_act(machine, (struct machine_action){.type = MACHINE_DO_RESERVE, .member = member, .stock = member->stock});
}

static void take(struct machine *machine, struct pool_member *member)
{
	assert(!member->busy);
	member->busy = true;
	member->wait_us = 0;
	member->stock = !machine->waiting;
	machine_act(machine,
		    (struct machine_action){.type = MACHINE_DO_TAKE, .member = member, .state = member->to, .stock = member->stock});
}

bool machine_ask(struct machine *machine, uint64_t now_us, struct pool_member *member, enum pool_state to)
{
	if (member->asked || !machine_is_fresh(machine, now_us))
		return false;
	member->asked = true;
	member->to = to;
	take(machine, member);
	return true;
}

bool machine_steal(struct machine *machine, uint64_t now_us)
{
	struct lease_fleet *fleet = &machine->lease.fleet;
	if (!fleet->warm || fleet->recovering || machine->lease.adopting || !machine_is_fresh(machine, now_us))
		return false;
	struct pool_member *member = roster_new(&machine->roster, POOL_WARM, now_us);
	if (!member)
		return false;
	fleet->warm--;
	machine->lease.stealing++;
	return machine_ask(machine, now_us, member, POOL_PREPARING);
}

/* Not answered: asked once more, under the same name, for the same answer. */
static void ask_later(struct machine *machine, uint64_t now_us, struct pool_member *member)
{
	member->wait_us = now_us + gate_backoff_us(++member->attempts, &machine->random);
}

/* --- answers ---------------------------------------------------------------------------------- */

/* As many run as may, in all machines together. */
static void crowded(struct machine *machine, uint64_t now_us, const struct machine_event *event)
{
	uint64_t until_us = now_us + (event->retry_after_ms ? machine_retry_us(event->retry_after_ms) : REFUSED_US);
	bool for_waiter = !event->member->stock;
	machine->lease.place_us[for_waiter] = machine_later(machine->lease.place_us[for_waiter], until_us);
	machine->worse = true;
}

static void reservation_refused(struct machine *machine, uint64_t now_us, const struct machine_event *event)
{
	if (event->refusal == LEASE_CROWDED) {
		crowded(machine, now_us, event);
		return;
	}
	uint64_t usual_us = event->refusal == LEASE_STOCK ? REFUSED_STOCK_US : REFUSED_US;
	uint64_t wait_us = now_us + (event->retry_after_ms ? machine_retry_us(event->retry_after_ms) : usual_us);
	machine->lease.wait_us[0] = wait_us;
	if (event->refusal != LEASE_STOCK)
		machine->lease.wait_us[1] = wait_us;
	machine->worse = true;
}

void machine_reserved(struct machine *machine, uint64_t now_us, const struct machine_event *event)
{
	struct pool_member *member = event->member;
	if (!machine_finish(machine, member, POOL_INTENT))
		return;
	if (event->answer == LEASE_LOST && !machine_is_doomed(machine, member)) {
		ask_later(machine, now_us, member);
		return;
	}
	if (event->answer == LEASE_OK && !member->foreign && machine_may_begin(machine, now_us)) {
		machine_begin(machine, now_us, member);
		return;
	}
	if (event->answer == LEASE_REFUSED)
		reservation_refused(machine, now_us, event);
	/* Of what was lost or came too late the record is given back; else there is none. */
	member->foreign |= event->answer != LEASE_OK && event->answer != LEASE_LOST;
	machine_move(machine, member, POOL_GONE, now_us);
}

static void fill_in(struct pool_member *member, const struct lease_record *record, uint64_t now_us)
{
	memcpy(member->name, record->name, sizeof member->name);
	member->owned = record->owned;
	member->owner = record->tenant;
	member->uses = record->uses;
	uint64_t age_us = record->age_ms < now_us / MS ? record->age_ms * MS : now_us;
	member->created_us = now_us - age_us;
}

/* The records were set back. What we have under this name already is the truth and says so with its next note; one that by its record was
 * never parked was parked by us since, and who has it is not known. */
static bool was_set_back(const struct machine *machine, const struct machine_event *event, bool stolen)
{
	return event->answer == LEASE_OK && (!event->record->parking || (stolen && roster_find(&machine->roster, event->record->name)));
}

static uint64_t parked_us(const struct lease_record *record, uint64_t now_us)
{
	return record->idle_ms < now_us / MS ? now_us - record->idle_ms * MS : 0;
}

/* It was found to run no more. */
static void stay_parked(struct machine *machine, uint64_t now_us, struct pool_member *member)
{
	if (machine->stopping)
		leave(machine, now_us, member);
	else if (member->since_us + LINGER_US > now_us)
		roster_backdate(&machine->roster, member, now_us > LINGER_US ? now_us - LINGER_US : 0);
}

/* It is ours, or not; false: that is not known. */
static bool take_ended(struct machine *machine, uint64_t now_us, struct pool_member *member, const struct machine_event *event)
{
	bool nameless = !member->name[0];
	machine->lease.stealing -= nameless;
	if (event->answer == LEASE_LOST && nameless)
		machine->lease.orphans = true;
	bool later = event->answer == LEASE_LOST || (event->answer == LEASE_REFUSED && event->refusal == LEASE_RECOVERING);
	if (later && !nameless && !machine_is_doomed(machine, member)) {
		ask_later(machine, now_us, member);
		return false;
	}
	if (event->answer == LEASE_REFUSED && event->refusal == LEASE_CROWDED)
		crowded(machine, now_us, event);
	else if (event->answer == LEASE_REFUSED && nameless)
		machine->lease.fleet.warm = 0;
	/* Also of one of our own: another may have taken, used and parked it since. */
	if (event->answer == LEASE_OK) {
		fill_in(member, event->record, now_us);
		member->fence = (struct provider_fence){.parking = event->record->parking, .taker = gate_random(&machine->random)};
	}
	return true;
}

/* Nothing may be woken any more: it is paused as it was. */
static void put_back(struct machine *machine, uint64_t now_us, struct pool_member *member)
{
	uint64_t since_us = member->since_us;
	if (machine_move(machine, member, POOL_PREPARING, now_us) && machine_move(machine, member, POOL_WARM, now_us))
		roster_backdate(&machine->roster, member, since_us);
}

void machine_taken(struct machine *machine, uint64_t now_us, const struct machine_event *event)
{
	struct pool_member *member = event->member;
	bool stolen = !member->name[0], set_back = was_set_back(machine, event, stolen);
	if (!machine_finish(machine, member, POOL_WARM) || !take_ended(machine, now_us, member, event))
		return;
	enum pool_state to = member->to;
	member->asked = false;
	member->attempts = 0;
	if (event->answer == LEASE_REFUSED && event->refusal == LEASE_CROWDED && !stolen && !member->foreign) {
		stay_parked(machine, now_us, member);
		return;
	}
	if (machine->stopping && !stolen && !member->foreign && event->answer != LEASE_OK && event->answer != LEASE_REFUSED) {
		let_be(machine, now_us, member);
		return;
	}
	if (event->answer != LEASE_OK || member->foreign || set_back) {
		machine->lease.orphans |= event->answer == LEASE_OK;
		member->foreign = true;
		machine_move(machine, member, POOL_GONE, now_us);
		machine->worse = true;
		return;
	}
	if (stolen)
		roster_backdate(&machine->roster, member, parked_us(event->record, now_us));
	/* The permission to wake it may have run out in the meantime. */
	if (machine->stopping || !machine_is_fresh(machine, now_us))
		to = POOL_DESTROYING;
	if (to == POOL_PREPARING && gate_wakes_open_us(&machine->gate, false))
		put_back(machine, now_us, member);
	else
		machine_taken_over(machine, now_us, member, to);
}

/* --- what others left ------------------------------------------------------------------------- */

static void adopt(struct machine *machine, uint64_t now_us)
{
	const struct roster *roster = &machine->roster;
	bool own = machine->lease.orphans && !machine->lease.stealing;
	if (machine->lease.adopting || machine->stopping || !machine_is_fresh(machine, now_us) || (!machine->lease.fleet.ended && !own))
		return;
	size_t free = roster->capacity - roster_total(roster) - roster->counts[POOL_GONE];
	machine->lease.adopting = true;
	if (own)
		machine->lease.orphans = false;
	struct pool_member *member;
	DL_FOREACH (roster->lists[POOL_WARM], member)
		member->missing = own && roster_is_parked(member);
	machine_act(machine,
		    (struct machine_action){.type = MACHINE_DO_ADOPT, .most = free < MACHINE_ADOPTS ? free : MACHINE_ADOPTS, .own = own});
}

/* A member that must go, though we have not made it. */
static void take_in(struct machine *machine, uint64_t now_us, const char *name)
{
	struct pool_member *member = roster_new(&machine->roster, POOL_DESTROYING, now_us);
	if (!member) {
		machine->lease.orphans = true;
		return;
	}
	strncpy(member->name, name, sizeof member->name - 1);
	member->doubtful_us = now_us + ADOPTED_DOUBT_US;
}

void machine_adopted(struct machine *machine, uint64_t now_us, const struct machine_event *event)
{
	const struct lease_record *record = event->record;
	struct pool_member *member = roster_find(&machine->roster, record->name);
	if (member) {
		member->missing = false;
		/* Of an earlier session: what remains to be done is noted again. */
		member->foreign &= member->state != POOL_DESTROYING;
		return;
	}
	if (record->state != POOL_WARM) {
		/* Not what has become a session's since. Anything else is missing in the next beat's count, and asked for again. */
		if (!machine->lease.stale)
			take_in(machine, now_us, record->name);
		return;
	}
	member = roster_new(&machine->roster, POOL_WARM, now_us);
	if (!member) {
		machine->lease.orphans = true;
		return;
	}
	fill_in(member, record, now_us);
	roster_backdate(&machine->roster, member, parked_us(record, now_us));
	if (event->outdated)
		member->created_us = 0;
	if (machine->stopping)
		leave(machine, now_us, member);
}

void machine_adoption(struct machine *machine, uint64_t now_us, const struct machine_event *event)
{
	machine->lease.adopting = false;
	machine->lease.orphans |= event->answer == LEASE_LOST;
	machine->lease.stale = false;
	struct pool_member *member, *next;
	DL_FOREACH_SAFE (machine->roster.lists[POOL_WARM], member, next) {
		bool taken = member->missing && event->answer == LEASE_OK && roster_is_parked(member);
		member->missing = false;
		if (taken)
			disown(machine, now_us, member);
	}
}

/* Others may have taken what we had parked, and an answer that was lost may have left a record. */
static bool is_known(const struct machine *machine, size_t own)
{
	size_t n = roster_total(&machine->roster) - machine->roster.counts[POOL_INTENT] - machine->lease.stealing;
	for (int state = 0; state < POOL_GONE; state++) {
		const struct pool_member *member;
		DL_FOREACH (machine->roster.lists[state], member)
			n -= member->foreign && state != POOL_INTENT;
	}
	return own == n;
}

void machine_struck(struct machine *machine, uint64_t now_us, const char *name)
{
	struct pool_member *member = roster_find(&machine->roster, name);
	if (!member)
		take_in(machine, now_us, name);
	else if (member->state == POOL_HOT || member->state == POOL_QUARANTINE || roster_is_parked(member))
		machine_let_go(machine, now_us, member);
}

/* --- time ------------------------------------------------------------------------------------- */

void machine_fleet(struct machine *machine, uint64_t now_us, const struct machine_event *event)
{
	machine->lease.joined = true;
	machine->lease.sent_us = event->sent_us;
	machine->lease.fleet = *event->fleet;
	fair_told(&machine->fair, machine->lease.fleet.tenants, machine->lease.fleet.tenant_count);
	spend_told(&machine->spend, now_us, event->fleet->spent_nusd, event->fleet->day_left_ms * MS, event->said_nusd, event->counted);
	if (event->fleet->list && !machine->list.busy && !machine->stopping)
		machine_start_listing(machine);
	machine_make_way(machine, now_us, machine->lease.fleet.make_way);
	/* What waited for it. */
	machine_pass_supply(machine, now_us);
	machine_pass_leases(machine, now_us);
	machine->lease.orphans |= !is_known(machine, event->fleet->own);
	adopt(machine, now_us);
}

void machine_pass_leases(struct machine *machine, uint64_t now_us)
{
	struct pool_member *member;
	for (size_t i = 0; i < ARRAY_LEN(machine->lease.wait_us); i++) {
		if (is_due(machine->lease.wait_us[i], now_us))
			machine->lease.wait_us[i] = 0;
		if (is_due(machine->lease.place_us[i], now_us))
			machine->lease.place_us[i] = 0;
	}
	if (!machine_is_fresh(machine, now_us))
		return;
	DL_FOREACH (machine->roster.lists[POOL_INTENT], member)
		if (!member->busy && is_due(member->wait_us, now_us))
			machine_reserve(machine, member);
	DL_FOREACH (machine->roster.lists[POOL_WARM], member)
		if (member->asked && !member->busy && is_due(member->wait_us, now_us))
			take(machine, member);
}

uint64_t machine_lease_due(const struct machine *machine)
{
	uint64_t next = UINT64_MAX;
	const struct pool_member *member;
	if (!machine_is_fresh(machine, machine->now_us))
		return next;
	DL_FOREACH (machine->roster.lists[POOL_INTENT], member)
		if (!member->busy)
			next = sooner(next, member->wait_us);
	DL_FOREACH (machine->roster.lists[POOL_WARM], member)
		if (member->asked && !member->busy)
			next = sooner(next, member->wait_us);
	return next;
}
