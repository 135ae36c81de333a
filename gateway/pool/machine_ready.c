#include "gateway/pool/machine_parts.h"

#include <utlist.h>

#define DEFER_US      (5 * SECOND)   /* a destruction is put off this long at most while others wait */
#define MAX_USES      50
#define UNANSWERED_US (90 * SECOND) /* a creation that nobody answered may take effect this long */
#define FAILED_US     (20 * SECOND) /* one that was answered with a failure */
#define SPARE_OWNED   2 /* restored members kept for a tenant beyond those it has */

/* Refused without effect, whatever the operation was. */
static bool is_limit(enum provider_code code)
{
	return code == PROVIDER_CAPACITY || code == PROVIDER_THROTTLED;
}

/* --- outcomes --------------------------------------------------------------------------------- */

/* What the provider says of the time of a failure, rather than of a limit, is of this operation alone. */
static void failed(struct machine *machine, uint64_t now_us, uint64_t begun_us, const struct machine_event *event)
{
	bool concerns_creations = event->type == MACHINE_CREATED || is_limit(event->code);
	gate_failed(&machine->gate, now_us, begun_us, event->code, concerns_creations ? event->retry_after_ms : 0, &event->limit);
	machine->worse = true;
	if (event->code == PROVIDER_CAPACITY)
		machine_learn(machine, now_us, &event->limit, true);
}

/* Did a failed creation certainly have no effect? */
static bool never_made(const struct machine_event *event)
{
	return event->unsent || is_limit(event->code) || event->code == PROVIDER_RATE_LIMIT || event->code == PROVIDER_UNAUTHORIZED;
}

void machine_prepare(struct machine *machine, uint64_t now_us, struct pool_member *member)
{
	if (machine_move(machine, member, POOL_PREPARING, now_us))
		machine_operate(machine, member, MACHINE_DO_PREPARE);
}

/* It is prepared when the limit allows. */
static void hold_back(struct machine *machine, uint64_t now_us, struct pool_member *member)
{
	if (!machine_move(machine, member, POOL_QUARANTINE, now_us))
		return;
	member->asked_us = 0;
	member->wait_us = gate_wakes_open_us(&machine->gate, false);
}

void machine_created(struct machine *machine, uint64_t now_us, const struct machine_event *event)
{
	struct pool_member *member = event->member;
	uint64_t begun_us = member->since_us;
	if (!machine_finish(machine, member, POOL_CREATING))
		return;
	if (event->code == PROVIDER_OK) {
		estimate_add(&machine->create, now_us - begun_us);
		gate_created(&machine->gate, now_us, begun_us, event->retry_after_ms, &event->limit);
		member->created_us = now_us;
		if (machine_is_doomed(machine, member))
			machine_move(machine, member, POOL_DESTROYING, now_us);
		else if (gate_wakes_open_us(&machine->gate, false))
			hold_back(machine, now_us, member);
		else
			machine_prepare(machine, now_us, member);
		return;
	}
	failed(machine, now_us, begun_us, event);
	bool made = !never_made(event);
	if (made)
		member->doubtful_us = now_us + (event->unanswered ? UNANSWERED_US : FAILED_US);
	machine_move(machine, member, made ? POOL_DESTROYING : POOL_GONE, now_us);
}

bool machine_warm_is_full(const struct machine *machine)
{
	size_t limit = machine_warm_limit(machine);
	return limit && machine->roster.counts[POOL_WARM] + machine->lease.fleet.warm >= limit;
}

/* A warm tier has a place for it. */
bool machine_may_park(const struct machine *machine, const struct pool_member *member, const struct stock *stock)
{
	bool wanted = machine->options.sizing.warm == SIZING_AUTO || stock->warm + machine->lease.fleet.warm < machine->target.warm;
	return !member->aged && (member->owned || wanted) && !machine_warm_is_full(machine);
}

/* Where a member that has just become ready belongs. */
static enum pool_state place(const struct machine *machine, const struct pool_member *member)
{
	struct stock stock = machine_take_stock(machine);
	if (machine_is_doomed(machine, member))
		return POOL_DESTROYING;
	if (machine->waiting || (member->owned ? machine->roster.counts[POOL_HOT] : stock.hot) + stock.waking < machine_hot_wanted(machine))
		return POOL_HOT;
	return machine_may_park(machine, member, &stock) ? POOL_WARM : POOL_HOT;
}

static void measure_ready(struct machine *machine, uint64_t now_us, const struct pool_member *member)
{
	uint64_t took_us = now_us - member->since_us;
	if (!member->waking) {
		estimate_add(&machine->prepare, took_us);
		if (!member->strikes && member->asked_us)
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
	/* Its channel is open now: a wake that has become superfluous is kept for a while all the same. What is parked again without having
	 * been hot would have the number that its wake has used. */
	bool woken = member->waking || member->fence.parking;
	enum pool_state to = woken && !machine_is_doomed(machine, member) ? POOL_HOT : place(machine, member);
	member->waking = member->late = false;
	machine_move(machine, member, to, now_us);
}

/* Nobody has used it, so it may be prepared once more; what was used is never trusted again. */
static void doubt(struct machine *machine, uint64_t now_us, struct pool_member *member, const struct machine_event *event)
{
	bool again = event->code != PROVIDER_GONE && event->code != PROVIDER_TAKEN && !member->redialed && !member->uses &&
		     !member->strikes && !machine_is_doomed(machine, member);
	member->waking = member->late = false;
	if (!machine_move(machine, member, again ? POOL_QUARANTINE : POOL_DESTROYING, now_us) || !again)
		return;
	member->strikes++;
	member->wait_us = now_us + machine_later(gate_backoff_us(2, &machine->random), machine_retry_us(event->retry_after_ms));
}

/* A limit says nothing against the Sprite: one that was prepared before is paused as it was, another one waits. */
static void refused(struct machine *machine, uint64_t now_us, struct pool_member *member, enum provider_code code)
{
	bool was_ready = member->waking;
	member->waking = member->late = false;
	if (machine_is_doomed(machine, member)) {
		machine_move(machine, member, POOL_DESTROYING, now_us);
	} else if (!was_ready) {
		hold_back(machine, now_us, member);
	} else if (machine_move(machine, member, POOL_WARM, now_us) && code == PROVIDER_CAPACITY) {
		/* It does not run. */
		uint64_t paused_us = now_us > LINGER_US ? now_us - LINGER_US : 0;
		roster_backdate(&machine->roster, member, member->parked_us < paused_us ? member->parked_us : paused_us);
	}
}

void machine_prepared(struct machine *machine, uint64_t now_us, const struct machine_event *event)
{
	struct pool_member *member = event->member;
	uint64_t begun_us = member->since_us;
	if (!machine_finish(machine, member, POOL_PREPARING))
		return;
	if (event->code == PROVIDER_OK) {
		ready(machine, now_us, member);
		return;
	}
	/* That an idle Sprite has vanished, or was taken, says nothing about the next creation. */
	if (event->code != PROVIDER_TAKEN && (!member->waking || event->code != PROVIDER_GONE))
		failed(machine, now_us, begun_us, event);
	machine->worse = true;
	if (is_limit(event->code))
		refused(machine, now_us, member, event->code);
	else
		doubt(machine, now_us, member, event);
}

/* A restore holds its Sprite for long, and one that cannot be restored is destroyed all the same. */
static void restore_failed(struct machine *machine, uint64_t now_us, const struct machine_event *event)
{
	if (is_limit(event->code)) {
		failed(machine, now_us, event->member->since_us, event);
	} else if (!machine->restoring.failures || event->member->since_us >= machine->restoring.failed_us) {
		uint64_t backoff_us = gate_backoff_us(++machine->restoring.failures, &machine->random);
		machine->restoring.wait_us = now_us + machine_later(backoff_us, machine_retry_us(event->retry_after_ms));
		machine->restoring.failed_us = now_us;
	}
}

void machine_restored(struct machine *machine, uint64_t now_us, const struct machine_event *event)
{
	struct pool_member *member = event->member;
	if (!machine_finish(machine, member, POOL_RECYCLING))
		return;
	machine->worse = true;
	if (event->code != PROVIDER_OK) {
		restore_failed(machine, now_us, event);
		machine_move(machine, member, POOL_DESTROYING, now_us);
		return;
	}
	machine->restores++;
	machine->restoring.failures = 0;
	estimate_add(&machine->restore, now_us - member->since_us);
	member->woken = false;
	machine_move(machine, member, place(machine, member), now_us);
}

static void lost(struct machine *machine, uint64_t now_us, struct pool_member *member)
{
	if (member->redialed) {
		machine_move(machine, member, POOL_DESTROYING, now_us);
		return;
	}
	member->redialed = true;
	if (gate_wakes_open_us(&machine->gate, false)) {
		machine_move(machine, member, POOL_WARM, now_us);
		return;
	}
	member->waking = true;
	member->parked_us = now_us;
	machine_prepare(machine, now_us, member);
}

void machine_lost(struct machine *machine, uint64_t now_us, struct pool_member *member, struct machine_waiter *waiter)
{
	if (waiter)
		machine_release(machine, now_us, member, MACHINE_UNUSED);
	/* The channel of a member that was handed over is its user's affair. */
	if (member->state == POOL_HOT)
		lost(machine, now_us, member);
	if (waiter)
		machine_claim_again(machine, now_us, waiter);
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
	size_t n = machine_owned_on_way(machine, tenant);
	for (size_t i = 0; i < ARRAY_LEN(states); i++) {
		struct pool_member *member;
		DL_FOREACH (machine->roster.lists[states[i]], member)
			n += member->owned && member->owner == tenant;
	}
	return n;
}

/* As many as its tenant is likely to come back to, and may take. */
static bool may_recycle(const struct machine *machine, const struct pool_member *member, const struct fair_tenant *tenant, uint64_t now_us)
{
	size_t may = machine_may_take(machine, tenant, now_us);
	size_t idle = owned_idle(machine, tenant->id);
	unsigned uses = machine->options.max_uses ? machine->options.max_uses : MAX_USES;
	return machine->options.recycle && !machine_is_doomed(machine, member) && now_us >= machine->restoring.wait_us &&
	       !machine->gate.until_us[GATE_THROTTLED] && member->uses < uses &&
	       now_us < member->created_us + machine->options.max_age_us && is_tight(machine, now_us) &&
	       idle < tenant->held + SPARE_OWNED && idle <= may;
}

static void used(struct machine *machine, uint64_t now_us, struct pool_member *member, const struct fair_tenant *tenant,
		 enum machine_use use)
{
	estimate_add(&machine->hold, now_us - member->since_us);
	member->uses++;
	if (use != MACHINE_OPENED && may_recycle(machine, member, tenant, now_us)) {
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

void machine_release(struct machine *machine, uint64_t now_us, struct pool_member *member, enum machine_use use)
{
	if (member->state != POOL_LEASED) {
		roster_impossible(&machine->roster);
		return;
	}
	struct fair_tenant *tenant = TAKE(member->tenant);
	if (use != MACHINE_UNUSED)
		used(machine, now_us, member, tenant, use);
	else
		machine_move(machine, member, machine_is_doomed(machine, member) ? POOL_DESTROYING : POOL_HOT, now_us);
	fair_unhold(&machine->fair, tenant);
}

void machine_keep(struct machine *machine, uint64_t now_us, struct pool_member *member)
{
	if (member->state != POOL_LEASED) {
		roster_impossible(&machine->roster);
		return;
	}
	struct fair_tenant *tenant = TAKE(member->tenant);
	machine->lease.stale |= machine->lease.adopting;
	machine_move(machine, member, POOL_GONE, now_us);
	fair_unhold(&machine->fair, tenant);
}
