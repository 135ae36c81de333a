#include "gateway/pool/machine_parts.h"

#include <utlist.h>

#define SURPLUS_US       (30 * SECOND)  /* members beyond a fixed size are kept this long */
#define OWNED_IDLE_US    (600 * SECOND) /* a restored member is kept this long for its tenant */
#define DEFER_US         (5 * SECOND)   /* a destruction is put off this long at most while others wait */
#define LINGER_US        (35 * SECOND)  /* a parked member may run this long before the provider pauses it */
#define FALLEN_US        (3600 * SECOND) /* a member paused longer than this may have lost its memory, too: waking is slow */
#define STALLED_US       (60 * SECOND)
#define HEDGE_LEAST_US   (400 * MS)
#define HEDGE_PER_CLAIMS 20
#define HEDGE_STOCK      2
#define GHOSTS_MAX       2
#define MAX_USES         50
#define SPARE_OWNED      2 /* restored members kept for a tenant beyond those it has */
#define NEWCOMERS        2 /* members kept for others, rather than restored ones for their tenants */

/* --- what there is ---------------------------------------------------------------------------- */

struct stock {
	size_t hot;    /* fresh ones, of whoever */
	size_t warm;   /* fresh ones, nobody's */
	size_t free;   /* fresh ones, hot or warm, nobody's */
	size_t waking; /* nobody's, by a wake that is not late */
	size_t late;
	size_t coming; /* being created, prepared for the first time, or soon to be prepared once more */
};

static struct stock take_stock(const struct machine *machine)
{
	const struct roster *roster = &machine->roster;
	const size_t *counts = roster->counts;
	struct stock stock = {.coming = counts[POOL_INTENT] + counts[POOL_CREATING] + counts[POOL_QUARANTINE]};
	const struct pool_member *member;
	DL_FOREACH(roster->lists[POOL_HOT], member) {
		stock.hot += !member->aged;
		stock.free += !member->aged && !member->owned;
	}
	DL_FOREACH(roster->lists[POOL_WARM], member)
		stock.warm += !member->aged && !member->owned;
	stock.free += stock.warm;
	DL_FOREACH(roster->lists[POOL_PREPARING], member) {
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
	DL_FOREACH(machine->roster.lists[state], member)
		n += member->since_us + LINGER_US > now_us;
	return n;
}

size_t machine_running_idle(const struct machine *machine, uint64_t now_us)
{
	const size_t *counts = machine->roster.counts;
	size_t running = counts[POOL_INTENT] + counts[POOL_CREATING] + counts[POOL_PREPARING] + counts[POOL_HOT] +
			 counts[POOL_RECYCLING] + counts[POOL_QUARANTINE];
	return running + lingering(machine, POOL_WARM, now_us) + lingering(machine, POOL_DESTROYING, now_us);
}

static void block(struct machine *machine, uint64_t until_us)
{
	if (!machine->blocked_us || until_us < machine->blocked_us)
		machine->blocked_us = until_us;
}

static bool may_run_another(struct machine *machine, uint64_t now_us)
{
	size_t limit = machine->options.sizing.running_limit;
	if (!limit || machine_running_idle(machine, now_us) + machine->roster.counts[POOL_LEASED] < limit)
		return true;
	static const enum pool_state states[] = {POOL_WARM, POOL_DESTROYING};
	for (size_t i = 0; i < ARRAY_LEN(states); i++) {
		const struct pool_member *member;
		DL_FOREACH(machine->roster.lists[states[i]], member)
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
	return announced > machine->target.hot ? announced : machine->target.hot;
}

/* --- creating --------------------------------------------------------------------------------- */

/* Creations whose answer was lost and of which the provider has said nothing yet. */
static size_t ghosts(const struct machine *machine)
{
	size_t n = 0;
	struct pool_member *member;
	DL_FOREACH(machine->roster.lists[POOL_DESTROYING], member)
		n += member->doubtful && !member->absent_us;
	return n;
}

/* When creations keep failing every try may leave a Sprite: destroying those shows whether the provider is back. */
static bool too_many_ghosts(const struct machine *machine)
{
	return machine->gate.failures > 1 && ghosts(machine) >= GHOSTS_MAX;
}

static bool may_create(const struct machine *machine)
{
	const struct roster *roster = &machine->roster;
	return machine->filling && !machine->stopping && gate_is_open(&machine->gate) && roster->free &&
	       roster_total(roster) < machine->options.sizing.max && roster->counts[POOL_CREATING] < machine->gate.window &&
	       !too_many_ghosts(machine);
}

/* With some stock in hand more of it leaves the last creations that the limit allows to those who wait. */
static bool create(struct machine *machine, uint64_t now_us, bool for_waiter, size_t have, size_t wanted)
{
	const struct budget *budget = &machine->gate.budget;
	size_t reserve = sizing_reserve(budget->count);
	size_t kept = for_waiter || have <= 2 * reserve || have < wanted / 2 ? 0 : reserve;
	if (!may_create(machine) || !may_run_another(machine, now_us))
		return false;
	/* In a burst what may run is for those whom a wake serves. */
	if (!for_waiter && machine->options.sizing.running_limit && demand_bursts(&machine->demand))
		return false;
	if (budget_opens_us(budget, kept, false) > now_us) {
		block(machine, budget_opens_us(budget, kept, false));
		return false;
	}
	struct pool_member *member = roster_new(&machine->roster, POOL_INTENT, now_us);
	if (!machine_move(machine, member, POOL_CREATING, now_us))
		return false;
	member->asked_us = now_us;
	gate_creating(&machine->gate, now_us);
	machine_operate(machine, member, MACHINE_DO_CREATE);
	return true;
}

/* --- waking ----------------------------------------------------------------------------------- */

static void wake(struct machine *machine, uint64_t now_us, struct pool_member *member)
{
	if (!machine_move(machine, member, POOL_PREPARING, now_us))
		return;
	member->waking = true;
	machine_operate(machine, member, MACHINE_DO_WAKE);
}

/* Waking one that still lingers lets no more Sprites run than before. */
static bool may_wake(struct machine *machine, const struct pool_member *member, uint64_t now_us)
{
	return member->since_us + LINGER_US > now_us || may_run_another(machine, now_us);
}

static struct pool_member *freshest(const struct machine *machine)
{
	struct pool_member *member;
	DL_FOREACH(machine->roster.lists[POOL_WARM], member)
		if (!member->owned && !member->aged)
			return member;
	/* An old one is better than none. */
	DL_FOREACH(machine->roster.lists[POOL_WARM], member)
		if (!member->owned)
			return member;
	return NULL;
}

static struct pool_member *owned_warm(const struct machine *machine, uint64_t tenant)
{
	struct pool_member *member;
	DL_FOREACH(machine->roster.lists[POOL_WARM], member)
		if (member->owned && member->owner == tenant)
			return member;
	return NULL;
}

static size_t owned_on_way(const struct machine *machine, uint64_t tenant)
{
	static const enum pool_state states[] = {POOL_PREPARING, POOL_RECYCLING};
	size_t n = 0;
	for (size_t i = 0; i < ARRAY_LEN(states); i++) {
		struct pool_member *member;
		DL_FOREACH(machine->roster.lists[states[i]], member)
			n += member->owned && member->owner == tenant;
	}
	return n;
}

/* Waiters get what was restored for them first; returns how many are left that need one that nobody has used. */
static size_t serve_owners(struct machine *machine, uint64_t now_us)
{
	size_t rest = 0, capacity = machine->options.sizing.max;
	struct fair_tenant *tenant;
	DL_FOREACH(machine->fair.tenants, tenant) {
		size_t may = fair_allows(&machine->fair, tenant, capacity, now_us);
		size_t wanted = tenant->waiting < may ? tenant->waiting : may;
		size_t coming = wanted ? owned_on_way(machine, tenant->id) : 0;
		struct pool_member *member;
		while (coming < wanted && (member = owned_warm(machine, tenant->id)) && may_wake(machine, member, now_us)) {
			wake(machine, now_us, member);
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

/* A wake that takes too long while somebody waits: another one is begun beside it. Only ever the wake, never the command. */
static void hedge(struct machine *machine, uint64_t now_us, struct stock *stock)
{
	struct pool_member *member;
	uint64_t after_us = hedge_after_us(machine);
	DL_FOREACH(machine->roster.lists[POOL_PREPARING], member) {
		if (!may_hedge(machine, stock))
			return;
		if (!member->waking || member->late || member->owned || now_us < member->since_us + after_us)
			continue;
		member->late = true;
		machine->hedges++;
		stock->waking--;
		stock->late++;
	}
}

/* When the first of the wakes that somebody waits for will have taken too long. */
static void plan_hedge(struct machine *machine, uint64_t now_us, const struct stock *stock)
{
	struct pool_member *member;
	uint64_t after_us = hedge_after_us(machine);
	if (!may_hedge(machine, stock))
		return;
	DL_FOREACH(machine->roster.lists[POOL_PREPARING], member)
		if (member->waking && !member->late && !member->owned && member->since_us + after_us > now_us)
			block(machine, member->since_us + after_us);
}

static void promote(struct machine *machine, uint64_t now_us, size_t waiters, struct stock *stock)
{
	size_t hot = machine_hot_wanted(machine);
	size_t wanted = waiters + (hot > stock->hot ? hot - stock->hot : 0);
	if (waiters)
		hedge(machine, now_us, stock);
	while (stock->waking < wanted) {
		struct pool_member *member = freshest(machine);
		if (!member || !may_wake(machine, member, now_us))
			return;
		/* One that may have fallen cold is slower than what is already on its way. */
		if (member->since_us + FALLEN_US <= now_us && stock->waking + stock->coming >= wanted)
			return;
		wake(machine, now_us, member);
		stock->waking++;
		stock->warm -= !member->aged;
	}
}

/* --- filling ---------------------------------------------------------------------------------- */

/* What somebody waits for, or might come for, is more than what another may come back to, or what is in doubt. */
static void make_room(struct machine *machine, uint64_t now_us)
{
	static const enum pool_state states[] = {POOL_QUARANTINE, POOL_WARM, POOL_HOT};
	if (roster_total(&machine->roster) < machine->options.sizing.max || machine->roster.counts[POOL_DESTROYING])
		return;
	for (size_t i = 0; i < ARRAY_LEN(states); i++) {
		struct pool_member *member, *oldest = NULL;
		DL_FOREACH(machine->roster.lists[states[i]], member)
			if (member->owned || states[i] == POOL_QUARANTINE)
				oldest = member;
		if (!oldest)
			continue;
		machine_move(machine, oldest, POOL_DESTROYING, now_us);
		return;
	}
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

void machine_fill(struct machine *machine, uint64_t now_us)
{
	machine->blocked_us = 0;
	if (machine->stopping)
		return;
	size_t waiters = serve_owners(machine, now_us);
	struct stock stock = take_stock(machine);
	promote(machine, now_us, waiters, &stock);
	stock = take_stock(machine);
	if (waiters)
		plan_hedge(machine, now_us, &stock);
	size_t have = stock.free + stock.waking + stock.late + stock.coming;
	size_t wanted = machine->target.hot + machine->target.warm + waiters;
	size_t on_way = stock.waking + stock.coming;
	bool full = roster_total(&machine->roster) >= machine->options.sizing.max;
	note_shortage(machine, now_us, have - stock.coming < wanted && !full);
	while (have < wanted && create(machine, now_us, on_way < waiters, have, wanted)) {
		have++;
		on_way++;
	}
	if (on_way < waiters || (have < wanted && have < NEWCOMERS))
		make_room(machine, now_us);
}

/* --- outcomes --------------------------------------------------------------------------------- */

static void failed(struct machine *machine, uint64_t now_us, uint64_t begun_us, const struct machine_event *event)
{
	gate_failed(&machine->gate, now_us, begun_us, event->code, event->retry_after_ms, &event->limit);
	machine->worse = true;
}

/* Did a failed creation certainly have no effect? */
static bool never_made(const struct machine_event *event)
{
	return event->unsent || event->code == PROVIDER_RATE_LIMIT || event->code == PROVIDER_CAPACITY ||
	       event->code == PROVIDER_UNAUTHORIZED;
}

/* A member in this state has the outcome of an operation. */
static bool finish(struct machine *machine, struct pool_member *member, enum pool_state state)
{
	if (member->state != state || !member->busy) {
		roster_impossible(&machine->roster);
		return false;
	}
	member->busy = false;
	return true;
}

static void prepare(struct machine *machine, uint64_t now_us, struct pool_member *member)
{
	if (machine_move(machine, member, POOL_PREPARING, now_us))
		machine_operate(machine, member, MACHINE_DO_PREPARE);
}

void machine_created(struct machine *machine, uint64_t now_us, const struct machine_event *event)
{
	struct pool_member *member = event->member;
	uint64_t begun_us = member->since_us;
	if (!finish(machine, member, POOL_CREATING))
		return;
	if (event->code == PROVIDER_OK) {
		estimate_add(&machine->create, now_us - begun_us);
		gate_created(&machine->gate, now_us, begun_us, event->retry_after_ms, &event->limit);
		member->created_us = now_us;
		if (machine->stopping)
			machine_move(machine, member, POOL_DESTROYING, now_us);
		else
			prepare(machine, now_us, member);
		return;
	}
	failed(machine, now_us, begun_us, event);
	member->doubtful = !never_made(event);
	machine_move(machine, member, member->doubtful ? POOL_DESTROYING : POOL_GONE, now_us);
}

/* A warm tier has a place for it. */
static bool may_park(const struct machine *machine, const struct pool_member *member, const struct stock *stock)
{
	bool wanted = machine->options.sizing.warm == SIZING_AUTO || stock->warm < machine->target.warm;
	return !member->aged && (member->owned || wanted);
}

/* Where a member that has just become ready belongs. */
static enum pool_state place(const struct machine *machine, const struct pool_member *member)
{
	struct stock stock = take_stock(machine);
	if (machine->stopping)
		return POOL_DESTROYING;
	if (machine->waiting || stock.hot + stock.waking < machine_hot_wanted(machine))
		return POOL_HOT;
	return may_park(machine, member, &stock) ? POOL_WARM : POOL_HOT;
}

static void measure_ready(struct machine *machine, uint64_t now_us, const struct pool_member *member)
{
	uint64_t took_us = now_us - member->since_us;
	if (!member->waking) {
		estimate_add(&machine->prepare, took_us);
		if (!member->strikes)
			quantile_add(&machine->supplies, now_us - member->asked_us);
	} else if (!member->redialed) {
		estimate_add(&machine->wake, took_us);
		quantile_add(&machine->wakes, took_us);
	}
}

static void ready(struct machine *machine, uint64_t now_us, struct pool_member *member)
{
	measure_ready(machine, now_us, member);
	gate_ready(&machine->gate);
	machine->short_us = 0;
	member->strikes = 0;
	member->woken = member->waking;
	/* Its channel is open now: a wake that has become superfluous is kept for a while all the same. */
	enum pool_state to = member->waking && !machine->stopping ? POOL_HOT : place(machine, member);
	member->waking = member->late = false;
	machine_move(machine, member, to, now_us);
}

/* Nobody has used it, so it may be prepared once more; what was used is never trusted again. */
static void doubt(struct machine *machine, uint64_t now_us, struct pool_member *member, enum provider_code code)
{
	bool again = code != PROVIDER_GONE && !member->redialed && !member->uses && !member->strikes && !machine->stopping;
	member->waking = member->late = false;
	if (!machine_move(machine, member, again ? POOL_QUARANTINE : POOL_DESTROYING, now_us) || !again)
		return;
	member->strikes++;
	member->wait_us = now_us + gate_backoff_us(2, &machine->random);
}

void machine_prepared(struct machine *machine, uint64_t now_us, const struct machine_event *event)
{
	struct pool_member *member = event->member;
	uint64_t begun_us = member->since_us;
	if (!finish(machine, member, POOL_PREPARING))
		return;
	if (event->code == PROVIDER_OK) {
		ready(machine, now_us, member);
		return;
	}
	/* That an idle Sprite has vanished says nothing about the next creation. */
	if (!member->waking || event->code != PROVIDER_GONE)
		failed(machine, now_us, begun_us, event);
	machine->worse = true;
	doubt(machine, now_us, member, event->code);
}

void machine_restored(struct machine *machine, uint64_t now_us, const struct machine_event *event)
{
	struct pool_member *member = event->member;
	if (!finish(machine, member, POOL_RECYCLING))
		return;
	machine->worse = true;
	if (event->code != PROVIDER_OK) {
		machine_move(machine, member, POOL_DESTROYING, now_us);
		return;
	}
	machine->restores++;
	estimate_add(&machine->restore, now_us - member->since_us);
	member->woken = false;
	machine_move(machine, member, place(machine, member), now_us);
}

void machine_lost(struct machine *machine, uint64_t now_us, struct pool_member *member)
{
	/* A leased member's channel is its user's affair. */
	if (member->state != POOL_HOT)
		return;
	if (member->redialed) {
		machine_move(machine, member, POOL_DESTROYING, now_us);
		return;
	}
	member->redialed = member->waking = true;
	prepare(machine, now_us, member);
}

/* --- giving back ------------------------------------------------------------------------------ */

/* Creations are what the pool lacks, or soon will. */
static bool is_tight(const struct machine *machine, uint64_t now_us)
{
	const struct budget *budget = &machine->gate.budget;
	if (machine->gate.until_us[GATE_RATE_LIMIT])
		return true;
	if (!budget->ceiling)
		return false;
	double wanted = demand_slow(&machine->demand) * (double)budget->period_us / SECOND;
	return wanted > 0.7 * (double)budget->ceiling || budget_opens_us(budget, budget->count / 2, false) > now_us;
}

/* Idle members that only this tenant may have. */
static size_t owned_idle(const struct machine *machine, uint64_t tenant)
{
	static const enum pool_state states[] = {POOL_HOT, POOL_WARM};
	size_t n = owned_on_way(machine, tenant);
	for (size_t i = 0; i < ARRAY_LEN(states); i++) {
		struct pool_member *member;
		DL_FOREACH(machine->roster.lists[states[i]], member)
			n += member->owned && member->owner == tenant;
	}
	return n;
}

/* As many as its tenant is likely to come back to, and may take. */
static bool may_recycle(const struct machine *machine, const struct pool_member *member, const struct fair_tenant *tenant,
			uint64_t now_us)
{
	size_t may = fair_allows(&machine->fair, tenant, machine->options.sizing.max, now_us);
	size_t idle = owned_idle(machine, tenant->id);
	unsigned uses = machine->options.max_uses ? machine->options.max_uses : MAX_USES;
	return machine->options.recycle && !machine->stopping && member->uses < uses &&
	       now_us < member->created_us + machine->options.max_age_us && is_tight(machine, now_us) &&
	       idle < tenant->held + SPARE_OWNED && idle <= may;
}

static void used(struct machine *machine, uint64_t now_us, struct pool_member *member, const struct fair_tenant *tenant)
{
	estimate_add(&machine->hold, now_us - member->since_us);
	member->uses++;
	if (may_recycle(machine, member, tenant, now_us)) {
		member->owned = true;
		member->owner = tenant->id;
		if (machine_move(machine, member, POOL_RECYCLING, now_us))
			machine_operate(machine, member, MACHINE_DO_RESTORE);
		return;
	}
	machine_move(machine, member, POOL_DESTROYING, now_us);
	member->deferred = true;
	member->wait_us = now_us + DEFER_US;
}

void machine_release(struct machine *machine, uint64_t now_us, struct pool_member *member, bool was_used)
{
	if (member->state != POOL_LEASED) {
		roster_impossible(&machine->roster);
		return;
	}
	struct fair_tenant *tenant = TAKE(member->tenant);
	if (was_used)
		used(machine, now_us, member, tenant);
	else
		machine_move(machine, member, machine->stopping ? POOL_DESTROYING : POOL_HOT, now_us);
	fair_unhold(&machine->fair, tenant);
}

/* --- letting go ------------------------------------------------------------------------------- */

static struct pool_member *oldest_aged(const struct machine *machine, enum pool_state state)
{
	struct pool_member *member, *oldest = NULL;
	DL_FOREACH(machine->roster.lists[state], member)
		if (member->aged && (!oldest || member->created_us <= oldest->created_us))
			oldest = member;
	return oldest;
}

/* The oldest one that is too old goes when its replacement is there, or to make room for it. */
static void retire_aged(struct machine *machine, uint64_t now_us, enum pool_state state)
{
	struct pool_member *member;
	while ((member = oldest_aged(machine, state))) {
		struct stock stock = take_stock(machine);
		size_t target = state == POOL_HOT ? machine->target.hot : machine->target.warm;
		bool replaced = (state == POOL_HOT ? stock.hot : stock.warm) >= target;
		bool full = roster_total(&machine->roster) >= machine->options.sizing.max &&
			    !machine->roster.counts[POOL_DESTROYING];
		bool coming = stock.coming || stock.waking || stock.late;
		if (!member->owned && !replaced && !(full && !coming && gate_is_open(&machine->gate)))
			return;
		machine_move(machine, member, POOL_DESTROYING, now_us);
	}
}

static void watch(uint64_t *since_us, bool too_many, uint64_t now_us)
{
	if (!too_many)
		*since_us = 0;
	else if (!*since_us)
		*since_us = now_us;
}

static bool is_excess(const struct machine *machine)
{
	return machine->options.sizing.warm != SIZING_AUTO && take_stock(machine).warm > machine->target.warm;
}

void machine_retire(struct machine *machine, uint64_t now_us)
{
	retire_aged(machine, now_us, POOL_HOT);
	retire_aged(machine, now_us, POOL_WARM);
	watch(&machine->surplus_us, machine->roster.counts[POOL_HOT] > machine_hot_wanted(machine), now_us);
	watch(&machine->excess_us, is_excess(machine), now_us);
}

static uint64_t surplus_keep_us(const struct machine *machine)
{
	return machine->options.sizing.hot == SIZING_AUTO ? SIZING_KEEP_US : SURPLUS_US;
}

static void end_surplus(struct machine *machine, uint64_t now_us)
{
	while (machine->roster.counts[POOL_HOT] > machine_hot_wanted(machine)) {
		struct pool_member *oldest = machine->roster.lists[POOL_HOT]->prev; /* utlist: the head's prev is the tail */
		struct stock stock = take_stock(machine);
		bool park = may_park(machine, oldest, &stock);
		machine_move(machine, oldest, park ? POOL_WARM : POOL_DESTROYING, now_us);
	}
}

static void end_excess(struct machine *machine, uint64_t now_us)
{
	while (is_excess(machine)) {
		struct pool_member *member, *oldest = NULL;
		DL_FOREACH(machine->roster.lists[POOL_WARM], member)
			if (!member->owned && !member->aged)
				oldest = member;
		machine_move(machine, oldest, POOL_DESTROYING, now_us);
	}
}

static void end_ownership(struct machine *machine, uint64_t now_us)
{
	struct pool_member *member, *next;
	DL_FOREACH_SAFE(machine->roster.lists[POOL_WARM], member, next)
		if (member->owned && member->since_us + OWNED_IDLE_US <= now_us)
			machine_move(machine, member, POOL_DESTROYING, now_us);
}

static void end_quarantine(struct machine *machine, uint64_t now_us)
{
	struct pool_member *member, *next;
	DL_FOREACH_SAFE(machine->roster.lists[POOL_QUARANTINE], member, next) {
		if (!is_due(member->wait_us, now_us))
			continue;
		member->wait_us = 0;
		prepare(machine, now_us, member);
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
	if (member->state == POOL_WARM && member->owned)
		next = sooner(next, member->since_us + OWNED_IDLE_US);
	return next;
}

uint64_t machine_supply_due(const struct machine *machine)
{
	uint64_t next = sooner(UINT64_MAX, machine->blocked_us);
	if (machine->surplus_us)
		next = sooner(next, machine->surplus_us + surplus_keep_us(machine));
	if (machine->excess_us)
		next = sooner(next, machine->excess_us + SURPLUS_US);
	for (size_t i = 0; i < MACHINE_INTENTS; i++)
		next = sooner(next, machine->intents_us[i]);
	const struct pool_member *member;
	DL_FOREACH(machine->roster.lists[POOL_HOT], member)
		next = sooner(next, idle_due(machine, member));
	DL_FOREACH(machine->roster.lists[POOL_WARM], member)
		next = sooner(next, idle_due(machine, member));
	DL_FOREACH(machine->roster.lists[POOL_QUARANTINE], member)
		next = sooner(next, member->wait_us);
	return next;
}
