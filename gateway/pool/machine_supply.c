#include "gateway/pool/machine_parts.h"

#include <utlist.h>

#define FALLEN_US        (3600 * SECOND) /* a member paused longer than this may have lost its memory, too: waking is slow */
#define STALLED_US       (60 * SECOND)
#define HEDGE_LEAST_US   (400 * MS)
#define HEDGE_PER_CLAIMS 20
#define HEDGE_STOCK      2
#define GHOSTS_MAX       2
#define NEWCOMERS        2 /* members kept for others, rather than restored ones for their tenants */

/* --- what there is ---------------------------------------------------------------------------- */

struct stock machine_take_stock(const struct machine *machine)
{
	const struct roster *roster = &machine->roster;
	const size_t *counts = roster->counts;
	struct stock stock = {.coming = counts[POOL_INTENT] + counts[POOL_CREATING] + counts[POOL_QUARANTINE]};
	const struct pool_member *member;
	DL_FOREACH (roster->lists[POOL_HOT], member)
		stock.hot += !member->aged && !member->owned;
	DL_FOREACH (roster->lists[POOL_WARM], member) {
		stock.warm += roster_is_parked(member) && !member->aged && !member->owned;
		stock.waking += member->asked && member->to == POOL_PREPARING && !member->owned;
	}
	DL_FOREACH (roster->lists[POOL_PREPARING], member) {
		if (member->owned)
			continue;
		stock.coming += !member->waking;
		stock.late += member->waking && member->late;
		stock.waking += member->waking && !member->late;
	}
	return stock;
}

/* What was left running runs on until the provider pauses it or it is destroyed. */
static size_t lingering(const struct machine *machine, enum pool_state state, uint64_t now_us)
{
	size_t n = 0;
	const struct pool_member *member;
	DL_FOREACH (machine->roster.lists[state], member)
		n += member->since_us + LINGER_US > now_us || (member->asked && member->to == POOL_PREPARING);
	return n;
}

static size_t running(const struct machine *machine)
{
	const size_t *counts = machine->roster.counts;
	return counts[POOL_INTENT] + counts[POOL_CREATING] + counts[POOL_PREPARING] + counts[POOL_HOT] + counts[POOL_RECYCLING] +
	       counts[POOL_QUARANTINE];
}

size_t machine_running_used(const struct machine *machine)
{
	return machine->roster.counts[POOL_LEASED] + machine->kept.running;
}

size_t machine_running_idle(const struct machine *machine, uint64_t now_us)
{
	return running(machine) + lingering(machine, POOL_WARM, now_us) + lingering(machine, POOL_DESTROYING, now_us);
}

static uint64_t lingered_us(const struct machine *machine, enum pool_state state, uint64_t from_us, uint64_t to_us)
{
	uint64_t us = 0;
	const struct pool_member *member;
	DL_FOREACH (machine->roster.lists[state], member) {
		uint64_t end_us = member->since_us + LINGER_US;
		us += end_us > to_us ? to_us - from_us : end_us > from_us ? end_us - from_us : 0;
	}
	return us;
}

uint64_t machine_idle_us(const struct machine *machine, uint64_t from_us, uint64_t to_us)
{
	return running(machine) * (to_us - from_us) + lingered_us(machine, POOL_WARM, from_us, to_us) +
	       lingered_us(machine, POOL_DESTROYING, from_us, to_us);
}

static void block(struct machine *machine, uint64_t until_us)
{
	if (!machine->blocked_us || until_us < machine->blocked_us)
		machine->blocked_us = until_us;
}

static bool may_run_another(struct machine *machine, uint64_t now_us, bool for_waiter)
{
	size_t limit = machine_running_limit(machine);
	if (machine->lease.place_us[for_waiter]) {
		block(machine, machine->lease.place_us[for_waiter]);
		return false;
	}
	if (!limit || machine_running_idle(machine, now_us) + machine_running_used(machine) < limit)
		return true;
	static const enum pool_state states[] = {POOL_WARM, POOL_DESTROYING};
	for (size_t i = 0; i < ARRAY_LEN(states); i++) {
		const struct pool_member *member;
		DL_FOREACH (machine->roster.lists[states[i]], member)
			if (member->since_us + LINGER_US > now_us)
				block(machine, member->since_us + LINGER_US);
	}
	return false;
}

size_t machine_hot_wanted(const struct machine *machine)
{
	size_t announced = 0;
	for (size_t i = 0; i < MACHINE_INTENTS; i++)
		announced += machine->intents_us[i] != 0;
	if (spend_level(&machine->spend) != SPEND_FREE)
		announced = 0;
	/* What idles here is what others wait for. */
	if (machine->lease.fleet.others_crowd)
		return 0;
	return announced > machine->target.hot ? announced : machine->target.hot;
}

/* --- creating --------------------------------------------------------------------------------- */

/* Creations whose answer was lost and of which the provider has said nothing yet. */
static size_t ghosts(const struct machine *machine)
{
	size_t n = 0;
	struct pool_member *member;
	DL_FOREACH (machine->roster.lists[POOL_DESTROYING], member)
		n += member->doubtful_us && !member->absent_us;
	return n;
}

/* When creations keep failing every try may leave a Sprite: destroying those shows whether the provider is back. */
static bool too_many_ghosts(const struct machine *machine)
{
	return machine->gate.failures > 1 && ghosts(machine) >= GHOSTS_MAX;
}

/* Is it known what exists? */
static bool knows_all(const struct machine *machine, uint64_t now_us)
{
	if (!machine->options.shared)
		return machine->list.complete;
	return machine->lease.joined && !machine->lease.fleet.recovering && machine_is_fresh(machine, now_us);
}

static bool may_create(const struct machine *machine, uint64_t now_us)
{
	const struct roster *roster = &machine->roster;
	size_t begun = roster->counts[POOL_INTENT] + roster->counts[POOL_CREATING];
	return knows_all(machine, now_us) && !machine->stopping && gate_is_open(&machine->gate) && roster->free && machine_room(machine) &&
	       begun < machine->gate.window && !too_many_ghosts(machine);
}

bool machine_may_begin(const struct machine *machine, uint64_t now_us)
{
	return knows_all(machine, now_us) && !machine->stopping && gate_is_open(&machine->gate) &&
	       budget_opens_us(&machine->gate.budget, 0, false) <= now_us;
}

void machine_begin(struct machine *machine, uint64_t now_us, struct pool_member *member)
{
	if (!machine_move(machine, member, POOL_CREATING, now_us))
		return;
	gate_creating(&machine->gate, now_us);
	machine_operate(machine, member, MACHINE_DO_CREATE);
}

/* In a burst, and as soon as one may have begun, what may run is for those whom a wake serves. */
static bool leaves_to_wakes(const struct machine *machine, uint64_t now_us)
{
	size_t limit = machine_running_limit(machine), taken = machine_running_idle(machine, now_us) + machine_running_used(machine);
	if (!limit)
		return false;
	return demand_bursts(&machine->demand) || (demand_begins(&machine->demand) && taken + machine_take_stock(machine).warm >= limit);
}

/* With some stock in hand more of it leaves the last creations that the limit allows to those who wait. */
static bool create(struct machine *machine, uint64_t now_us, bool for_waiter, size_t have, size_t wanted)
{
	const struct budget *budget = &machine->gate.budget;
	size_t reserve = sizing_reserve(budget->count);
	size_t kept = for_waiter || have <= 2 * reserve || have < wanted / 2 ? 0 : reserve;
	if (!may_create(machine, now_us) || !may_run_another(machine, now_us, for_waiter))
		return false;
	if (!for_waiter && leaves_to_wakes(machine, now_us))
		return false;
	kept += machine->roster.counts[POOL_INTENT];
	uint64_t opens_us = machine_later(budget_opens_us(budget, kept, false), machine->lease.wait_us[for_waiter]);
	if (opens_us > now_us) {
		block(machine, opens_us);
		return false;
	}
	struct pool_member *member = roster_new(&machine->roster, POOL_INTENT, now_us);
	member->asked_us = now_us;
	member->stock = for_waiter ? 0 : machine->lease.fleet.others_hot_target + machine_hot_wanted(machine) + machine->target.warm;
	if (machine->options.shared)
		machine_reserve(machine, member);
	else
		machine_begin(machine, now_us, member);
	return true;
}

/* --- waking ----------------------------------------------------------------------------------- */

/* Waking one that still lingers lets no more Sprites run than before. */
static bool may_wake(struct machine *machine, const struct pool_member *member, uint64_t now_us)
{
	if (gate_wakes_open_us(&machine->gate, false) || !machine_is_fresh(machine, now_us))
		return false;
	return member->since_us + LINGER_US > now_us || may_run_another(machine, now_us, machine->waiting > 0);
}

static struct pool_member *freshest(const struct machine *machine)
{
	struct pool_member *member;
	DL_FOREACH (machine->roster.lists[POOL_WARM], member)
		if (roster_is_parked(member) && !member->owned && !member->aged)
			return member;
	/* An old one is better than none. */
	DL_FOREACH (machine->roster.lists[POOL_WARM], member)
		if (roster_is_parked(member) && !member->owned)
			return member;
	return NULL;
}

static struct pool_member *owned_warm(const struct machine *machine, uint64_t tenant)
{
	struct pool_member *member;
	DL_FOREACH (machine->roster.lists[POOL_WARM], member)
		if (roster_is_parked(member) && member->owned && member->owner == tenant)
			return member;
	return NULL;
}

size_t machine_owned_on_way(const struct machine *machine, uint64_t tenant)
{
	static const enum pool_state states[] = {POOL_PREPARING, POOL_RECYCLING, POOL_WARM};
	size_t n = 0;
	for (size_t i = 0; i < ARRAY_LEN(states); i++) {
		struct pool_member *member;
		DL_FOREACH (machine->roster.lists[states[i]], member)
			n += !roster_is_parked(member) && member->owned && member->owner == tenant;
	}
	return n;
}

/* Waiters get what was restored for them first; returns how many are left that need one that nobody has used. */
static size_t serve_owners(struct machine *machine, uint64_t now_us)
{
	size_t rest = 0;
	struct fair_tenant *tenant;
	DL_FOREACH (machine->fair.tenants, tenant) {
		size_t may = machine_may_take(machine, tenant, now_us);
		size_t wanted = tenant->waiting < may ? tenant->waiting : may;
		size_t coming = wanted ? machine_owned_on_way(machine, tenant->id) : 0;
		struct pool_member *member;
		while (coming < wanted && (member = owned_warm(machine, tenant->id)) && may_wake(machine, member, now_us)) {
			machine_take(machine, now_us, member, POOL_PREPARING);
			coming++;
		}
		rest += wanted > coming ? wanted - coming : 0;
	}
	return rest;
}

static uint64_t hedge_after_us(const struct machine *machine)
{
	uint64_t usual_us = quantile_us(&machine->wakes, 0.9, 2 * SECOND);
	return usual_us > HEDGE_LEAST_US ? usual_us : HEDGE_LEAST_US;
}

/* Not for more than a few of the claims, and not with the last of the stock. */
static bool may_hedge(const struct machine *machine, const struct stock *stock)
{
	return stock->warm >= HEDGE_STOCK && machine->hedges * HEDGE_PER_CLAIMS < machine->claims;
}

/* The one to be woken next, if any may be, and it is not slower than what is on its way already. */
static struct pool_member *next_to_wake(struct machine *machine, uint64_t now_us, bool enough)
{
	struct pool_member *member = freshest(machine);
	if (!member || !may_wake(machine, member, now_us))
		return NULL;
	bool may_be_cold = member->since_us + FALLEN_US <= now_us;
	return may_be_cold && enough ? NULL : member;
}

static void wake(struct machine *machine, uint64_t now_us, struct pool_member *member, struct stock *stock)
{
	machine_take(machine, now_us, member, POOL_PREPARING);
	stock->waking++;
	stock->warm -= !member->aged;
}

/* A wake that takes too long while somebody waits: another one is begun beside it. Only ever the wake, never the command. */
static void hedge(struct machine *machine, uint64_t now_us, size_t wanted, struct stock *stock)
{
	struct pool_member *member;
	uint64_t after_us = hedge_after_us(machine);
	DL_FOREACH (machine->roster.lists[POOL_PREPARING], member) {
		if (!may_hedge(machine, stock) || stock->waking > wanted)
			return;
		if (!member->waking || member->late || member->owned || now_us < member->since_us + after_us)
			continue;
		struct pool_member *other = next_to_wake(machine, now_us, stock->waking + stock->coming > wanted);
		if (!other)
			return;
		member->late = true;
		machine->hedges++;
		stock->waking--;
		stock->late++;
		wake(machine, now_us, other, stock);
	}
}

/* When the first of the wakes that somebody waits for will have taken too long. */
static void plan_hedge(struct machine *machine, uint64_t now_us, const struct stock *stock)
{
	struct pool_member *member;
	uint64_t after_us = hedge_after_us(machine);
	if (!may_hedge(machine, stock))
		return;
	DL_FOREACH (machine->roster.lists[POOL_PREPARING], member)
		if (member->waking && !member->late && !member->owned && member->since_us + after_us > now_us)
			block(machine, member->since_us + after_us);
}

static void promote(struct machine *machine, uint64_t now_us, size_t waiters, struct stock *stock)
{
	size_t hot = machine_hot_wanted(machine);
	size_t wanted = waiters + (hot > stock->hot ? hot - stock->hot : 0);
	struct pool_member *member;
	if (waiters)
		hedge(machine, now_us, wanted, stock);
	while (stock->waking < wanted && (member = next_to_wake(machine, now_us, stock->waking + stock->coming >= wanted)))
		wake(machine, now_us, member, stock);
	while (stock->waking < wanted && !gate_wakes_open_us(&machine->gate, false) &&
	       may_run_another(machine, now_us, machine->waiting > 0) && machine_steal(machine, now_us))
		stock->waking++;
}

/* --- filling ---------------------------------------------------------------------------------- */

/* What somebody waits for, or might come for, is more than what another may come back to, or what is in doubt. */
static void make_room(struct machine *machine, uint64_t now_us)
{
	static const enum pool_state states[] = {POOL_QUARANTINE, POOL_WARM, POOL_HOT};
	if (machine_room(machine) || machine->roster.counts[POOL_DESTROYING])
		return;
	for (size_t i = 0; i < ARRAY_LEN(states); i++) {
		/* The last one: of those in doubt whoever has longest to wait, of the others the oldest. */
		struct pool_member *member, *last = NULL;
		DL_FOREACH (machine->roster.lists[states[i]], member)
			if ((member->owned || member->strikes) && !member->asked)
				last = member;
		if (!last)
			continue;
		machine_let_go(machine, now_us, last);
		return;
	}
}

/* Those who wait lack nothing but a place to run. */
static bool lacks_place(struct machine *machine, uint64_t now_us, const struct stock *stock)
{
	uint64_t opens_us = budget_opens_us(&machine->gate.budget, 0, false);
	if (may_run_another(machine, now_us, true) || !machine_is_fresh(machine, now_us))
		return false;
	if ((stock->warm || machine->lease.fleet.warm) && !gate_wakes_open_us(&machine->gate, false))
		return true;
	if (opens_us > now_us)
		block(machine, opens_us);
	return machine_room(machine) && machine_may_begin(machine, now_us);
}

static void note_shortage(struct machine *machine, uint64_t now_us, bool is_short)
{
	if (!is_short)
		machine->short_us = 0;
	else if (!machine->short_us)
		machine->short_us = now_us;
}

bool machine_is_stalled(const struct machine *machine, uint64_t now_us)
{
	return machine->short_us && now_us >= machine->short_us + STALLED_US;
}

/* What is paused for its tenants takes places that nothing created now could have. */
static size_t warm_wanted(const struct machine *machine)
{
	size_t limit = machine_warm_limit(machine), target = machine->target.warm, owned = 0;
	if (!limit)
		return target;
	const struct pool_member *member;
	DL_FOREACH (machine->roster.lists[POOL_WARM], member)
		owned += member->owned && roster_is_parked(member);
	size_t places = limit > owned ? limit - owned : 0;
	return target < places ? target : places;
}

void machine_fill(struct machine *machine, uint64_t now_us)
{
	machine->blocked_us = 0;
	if (machine->stopping)
		return;
	size_t waiters = serve_owners(machine, now_us);
	struct stock stock = machine_take_stock(machine);
	promote(machine, now_us, waiters, &stock);
	stock = machine_take_stock(machine);
	if (waiters)
		plan_hedge(machine, now_us, &stock);
	size_t have = stock.hot + stock.warm + stock.waking + stock.late + stock.coming + machine->lease.fleet.warm;
	size_t hot = machine->lease.fleet.others_crowd ? 0 : machine->target.hot;
	size_t wanted = hot + warm_wanted(machine) + waiters;
	size_t on_way = stock.waking + stock.coming;
	/* Those in use may leave no room; those that cannot be destroyed are a reason to say so. */
	bool has_room = machine_room(machine) || machine->roster.counts[POOL_DESTROYING];
	note_shortage(machine, now_us, have - stock.coming < wanted && has_room);
	while (have < wanted && create(machine, now_us, on_way < waiters, have, wanted)) {
		have++;
		on_way++;
	}
	if (on_way < waiters || (have < wanted && have < NEWCOMERS))
		make_room(machine, now_us);
	/* What idles then was restored for somebody else. */
	if (on_way < waiters && lacks_place(machine, now_us, &stock))
		machine_make_way(machine, now_us, waiters - on_way);
}
