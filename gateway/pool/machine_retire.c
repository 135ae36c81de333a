#include "gateway/pool/machine_parts.h"

#include <utlist.h>

#define SURPLUS_US    (30 * SECOND)  /* members beyond a fixed size are kept this long */
#define OWNED_IDLE_US (600 * SECOND) /* a restored member is kept this long for its tenant */

/* --- letting go ------------------------------------------------------------------------------- */

static struct pool_member *oldest_aged(const struct machine *machine, enum pool_state state)
{
	struct pool_member *member, *oldest = NULL;
	DL_FOREACH (machine->roster.lists[state], member)
		if (member->aged && !member->asked && (!oldest || member->created_us <= oldest->created_us))
			oldest = member;
	return oldest;
}

/* The oldest one that is too old goes when its replacement is there, or to make room for it. */
static void retire_aged(struct machine *machine, uint64_t now_us, enum pool_state state)
{
	struct pool_member *member;
	while ((member = oldest_aged(machine, state))) {
		struct stock stock = machine_take_stock(machine);
		size_t target = state == POOL_HOT ? machine->target.hot : machine->target.warm;
		bool replaced = (state == POOL_HOT ? stock.hot : stock.warm) >= target;
		bool no_place = !machine_room(machine) || (state == POOL_WARM && machine_warm_is_full(machine));
		bool full = no_place && !machine->roster.counts[POOL_DESTROYING];
		bool coming = stock.coming || stock.waking || stock.late;
		if (!member->owned && !replaced && !(full && !coming && gate_is_open(&machine->gate)))
			return;
		if (!machine_let_go(machine, now_us, member))
			return;
	}
}

static void watch(uint64_t *since_us, bool too_many, uint64_t now_us)
{
	if (!too_many)
		*since_us = 0;
	else if (!*since_us)
		*since_us = now_us;
}

/* Of what is too much in all machines together this one's share, which it gives up for itself. */
static size_t excess(const struct machine *machine)
{
	size_t own = machine_take_stock(machine).warm, all = own + machine->lease.fleet.warm, target = machine->target.warm;
	if (machine->options.sizing.warm == SIZING_AUTO || all <= target)
		return 0;
	return own - (own * target + all - 1) / all;
}

/* How many, and the oldest one. */
static size_t hot_of_nobody(const struct machine *machine, struct pool_member **oldest)
{
	size_t n = 0;
	struct pool_member *member;
	DL_FOREACH (machine->roster.lists[POOL_HOT], member) {
		if (member->owned)
			continue;
		n++;
		if (oldest)
			*oldest = member;
	}
	return n;
}

/* Those whose place will soon be free: nothing has shown yet that it takes longer. */
static size_t on_their_way(const struct machine *machine)
{
	size_t n = 0;
	const struct pool_member *member;
	DL_FOREACH (machine->roster.lists[POOL_DESTROYING], member)
		n += !member->wait_us && !member->absent_us && !member->doubtful_us && !member->foreign;
	return n;
}

/* What was restored for its tenant goes last. utlist: the head's prev is the tail. */
static struct pool_member *most_dispensable(const struct machine *machine)
{
	struct pool_member *head = machine->roster.lists[POOL_HOT], *oldest = head ? head->prev : NULL;
	hot_of_nobody(machine, &oldest);
	return oldest;
}

/* Destroyed, not parked: the provider pauses only later, and so long it runs. */
void machine_make_way(struct machine *machine, uint64_t now_us, size_t count)
{
	struct pool_member *member;
	while (on_their_way(machine) < count && (member = most_dispensable(machine)))
		machine_let_go(machine, now_us, member);
}

void machine_retire(struct machine *machine, uint64_t now_us)
{
	retire_aged(machine, now_us, POOL_HOT);
	retire_aged(machine, now_us, POOL_WARM);
	watch(&machine->surplus_us, hot_of_nobody(machine, NULL) > machine_hot_wanted(machine), now_us);
	watch(&machine->excess_us, excess(machine) > 0, now_us);
}

static uint64_t surplus_keep_us(const struct machine *machine)
{
	return machine->options.sizing.hot == SIZING_AUTO ? SIZING_KEEP_US : SURPLUS_US;
}

static void end_idling(struct machine *machine, uint64_t now_us, struct pool_member *member)
{
	struct stock stock = machine_take_stock(machine);
	machine_move(machine, member, machine_may_park(machine, member, &stock) ? POOL_WARM : POOL_DESTROYING, now_us);
}

static void end_surplus(struct machine *machine, uint64_t now_us)
{
	struct pool_member *oldest = NULL;
	while (hot_of_nobody(machine, &oldest) > machine_hot_wanted(machine))
		end_idling(machine, now_us, oldest);
}

static void end_excess(struct machine *machine, uint64_t now_us)
{
	while (excess(machine)) {
		struct pool_member *member, *oldest = NULL;
		DL_FOREACH (machine->roster.lists[POOL_WARM], member)
			if (roster_is_parked(member) && !member->owned && !member->aged)
				oldest = member;
		if (!oldest || !machine_take(machine, now_us, oldest, POOL_DESTROYING))
			return;
	}
}

static void end_ownership(struct machine *machine, uint64_t now_us)
{
	struct pool_member *member, *next;
	DL_FOREACH_SAFE (machine->roster.lists[POOL_HOT], member, next)
		if (member->owned && member->since_us + surplus_keep_us(machine) <= now_us)
			end_idling(machine, now_us, member);
	DL_FOREACH_SAFE (machine->roster.lists[POOL_WARM], member, next)
		if (member->owned && !member->asked && member->since_us + OWNED_IDLE_US <= now_us)
			machine_take(machine, now_us, member, POOL_DESTROYING);
}

static void end_quarantine(struct machine *machine, uint64_t now_us)
{
	struct pool_member *member, *next;
	DL_FOREACH_SAFE (machine->roster.lists[POOL_QUARANTINE], member, next) {
		if (!is_due(member->wait_us, now_us))
			continue;
		member->wait_us = gate_wakes_open_us(&machine->gate, false);
		if (!member->wait_us)
			machine_prepare(machine, now_us, member);
	}
}

/* --- time ------------------------------------------------------------------------------------- */

void machine_pass_supply(struct machine *machine, uint64_t now_us)
{
	for (size_t i = 0; i < MACHINE_INTENTS; i++)
		if (is_due(machine->intents_us[i], now_us))
			machine->intents_us[i] = 0;
	roster_age(&machine->roster, machine->options.max_age_us, now_us);
	if (machine->surplus_us && machine->surplus_us + surplus_keep_us(machine) <= now_us)
		end_surplus(machine, now_us);
	if (machine->excess_us && machine->excess_us + SURPLUS_US <= now_us)
		end_excess(machine, now_us);
	end_ownership(machine, now_us);
	end_quarantine(machine, now_us);
}

static uint64_t idle_due(const struct machine *machine, const struct pool_member *member)
{
	uint64_t next = member->aged ? UINT64_MAX : member->created_us + machine->options.max_age_us;
	if (roster_is_parked(member) && member->owned && machine_is_fresh(machine, machine->now_us))
		next = sooner(next, member->since_us + OWNED_IDLE_US);
	if (member->state == POOL_HOT && member->owned)
		next = sooner(next, member->since_us + surplus_keep_us(machine));
	return next;
}

uint64_t machine_supply_due(const struct machine *machine)
{
	uint64_t next = sooner(UINT64_MAX, machine->blocked_us);
	if (machine->surplus_us)
		next = sooner(next, machine->surplus_us + surplus_keep_us(machine));
	if (machine->excess_us && machine_is_fresh(machine, machine->now_us))
		next = sooner(next, machine->excess_us + SURPLUS_US);
	for (size_t i = 0; i < MACHINE_INTENTS; i++)
		next = sooner(next, machine->intents_us[i]);
	const struct pool_member *member;
	DL_FOREACH (machine->roster.lists[POOL_HOT], member)
		next = sooner(next, idle_due(machine, member));
	DL_FOREACH (machine->roster.lists[POOL_WARM], member)
		next = sooner(next, idle_due(machine, member));
	DL_FOREACH (machine->roster.lists[POOL_QUARANTINE], member)
		next = sooner(next, member->wait_us);
	return next;
}
