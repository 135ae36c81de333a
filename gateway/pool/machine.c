#include "gateway/pool/machine_parts.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <utlist.h>

/* --- bookkeeping ------------------------------------------------------------------------------ */

static bool is_fixed(const struct machine_options *options)
{
	const struct sizing_options *sizing = &options->sizing;
	return sizing->hot != SIZING_AUTO && sizing->warm != SIZING_AUTO && !sizing->running_limit && !options->day_nusd;
}

static bool is_within_bounds(const struct machine_options *options)
{
	const struct sizing_options *sizing = &options->sizing;
	if (!sizing->max || sizing->max > SIZING_MAX)
		return false;
	if (sizing->hot != SIZING_AUTO && sizing->hot > sizing->max)
		return false;
	if (sizing->warm != SIZING_AUTO && sizing->warm > sizing->max)
		return false;
	return options->max_waiters && options->max_waiters <= 10000 && options->max_age_us && options->seed;
}

int machine_init(struct machine *machine, const struct machine_options *options)
{
	const struct sizing_options *sizing = &options->sizing;
	*machine = (struct machine){.options = *options};
	if (!is_within_bounds(options))
		return -EINVAL;
	size_t members = sizing->max + MACHINE_LEFTOVERS;
	/* At most waiting: of a member its close, one operation, its grant and the notes of three moves, of a waiter its refusal. */
	machine->action_cap = 6 * members + options->max_waiters + 8;
	machine->ready_us = calloc(2 * members, sizeof *machine->ready_us);
	machine->actions = calloc(machine->action_cap, sizeof *machine->actions);
	int r = fair_init(&machine->fair, members + options->max_waiters + 1);
	if (r == 0)
		r = roster_init(&machine->roster, members);
	if (r == 0 && (!machine->ready_us || !machine->actions))
		r = -ENOMEM;
	if (r < 0) {
		machine_deinit(machine);
		return r;
	}
	gate_init(&machine->gate, options->seed);
	machine->random = options->seed;
	machine->target.hot = sizing->hot != SIZING_AUTO ? sizing->hot : 0;
	machine->target.warm = sizing->warm != SIZING_AUTO ? sizing->warm : 0;
	return 0;
}

void machine_deinit(struct machine *machine)
{
	roster_deinit(&machine->roster);
	fair_deinit(&machine->fair);
	free(machine->ready_us);
	free(machine->actions);
	*machine = (struct machine){0};
}

void machine_act(struct machine *machine, struct machine_action action)
{
	if (machine->action_count == machine->action_cap) {
		roster_impossible(&machine->roster);
		return;
	}
	size_t at = (machine->action_head + machine->action_count++) % machine->action_cap;
	machine->actions[at] = action;
}

bool machine_next_action(struct machine *machine, struct machine_action *action)
{
	if (!machine->action_count)
		return false;
	*action = machine->actions[machine->action_head];
	machine->action_head = (machine->action_head + 1) % machine->action_cap;
	machine->action_count--;
	return true;
}

void machine_operate(struct machine *machine, struct pool_member *member, enum machine_action_type type)
{
	assert(!member->busy);
	member->busy = true;
	machine_act(machine, (struct machine_action){.type = type, .member = member});
}

static bool has_channel(enum pool_state state)
{
	return state == POOL_HOT || state == POOL_LEASED;
}

static bool may_have_channel(enum pool_state state)
{
	return has_channel(state) || state == POOL_PREPARING || state == POOL_RECYCLING;
}

bool machine_move(struct machine *machine, struct pool_member *member, enum pool_state to, uint64_t now_us)
{
	enum pool_state from = member->state;
	if (from == POOL_WARM && to == POOL_GONE && !member->foreign) {
		roster_impossible(&machine->roster);
		return false;
	}
	if (!roster_move(&machine->roster, member, to, now_us))
		return false;
	if (may_have_channel(from) && !has_channel(to))
		machine_act(machine, (struct machine_action){.type = MACHINE_DO_CLOSE, .member = member});
	enum state_note note = pool_state_note(from, to);
	/* After the closing: what is noted as warm may be used by others. */
	if (machine->options.shared && !member->foreign && note != STATE_SILENT)
		machine_act(machine, (struct machine_action){.type = note == STATE_NOTE ? MACHINE_DO_NOTE : MACHINE_DO_FORGET,
							     .member = member,
							     .state = to});
	return true;
}

bool machine_finish(struct machine *machine, struct pool_member *member, enum pool_state state)
{
	if (member->state != state || !member->busy) {
		roster_impossible(&machine->roster);
		return false;
	}
	member->busy = false;
	return true;
}

bool machine_is_doomed(const struct machine *machine, const struct pool_member *member)
{
	return machine->stopping || member->foreign;
}

bool machine_take(struct machine *machine, uint64_t now_us, struct pool_member *member, enum pool_state to)
{
	if (machine->options.shared)
		return machine_ask(machine, now_us, member, to);
	machine_taken_over(machine, now_us, member, to);
	return true;
}

void machine_taken_over(struct machine *machine, uint64_t now_us, struct pool_member *member, enum pool_state to)
{
	uint64_t since_us = member->since_us;
	if (!machine_move(machine, member, to, now_us) || to != POOL_PREPARING)
		return;
	member->waking = true;
	member->parked_us = since_us;
	machine_operate(machine, member, MACHINE_DO_WAKE);
}

bool machine_let_go(struct machine *machine, uint64_t now_us, struct pool_member *member)
{
	member->wait_us = 0; /* of a quarantine: destroying it need not wait */
	if (member->state == POOL_WARM)
		return machine_take(machine, now_us, member, POOL_DESTROYING);
	return machine_move(machine, member, POOL_DESTROYING, now_us);
}

/* --- sizes ------------------------------------------------------------------------------------ */

static size_t smaller_known(size_t own, size_t said)
{
	return said && (!own || said < own) ? said : own;
}

/* One that so many members cannot meet is none. */
size_t machine_running_limit(const struct machine *machine)
{
	size_t limit = smaller_known(machine->options.sizing.running_limit, smaller_known(machine->running.limit, machine->refused.limit));
	return limit < machine->options.sizing.max ? limit : 0;
}

size_t machine_warm_limit(const struct machine *machine)
{
	return smaller_known(machine->options.sizing.warm_limit, machine->paused.limit);
}

static void learn(struct machine_said *said, uint64_t now_us, uint64_t limit)
{
	if (limit)
		*said = (struct machine_said){.limit = limit < SIZING_MAX ? (size_t)limit : SIZING_MAX, .until_us = now_us + SAID_US};
}

void machine_learn(struct machine *machine, uint64_t now_us, const struct provider_limit *limit, bool refused)
{
	learn(refused ? &machine->refused : &machine->running, now_us, limit->running);
	learn(&machine->paused, now_us, limit->paused);
}

static void unlearn(struct machine_said *said, uint64_t now_us)
{
	if (is_due(said->until_us, now_us))
		*said = (struct machine_said){0};
}

size_t machine_room(const struct machine *machine)
{
	const struct lease_fleet *fleet = &machine->lease.fleet;
	size_t total = roster_total(&machine->roster), max = machine->options.sizing.max;
	/* The records of a shared pool count what is kept, too. */
	if (machine->options.shared)
		total += fleet->total > fleet->own ? fleet->total - fleet->own : 0;
	else
		total += machine->kept.total;
	return max > total ? max - total : 0;
}

static void review_sizes(struct machine *machine, uint64_t now_us)
{
	if (machine->stopping)
		return;
	uint64_t wake_us = quantile_us(&machine->wakes, 0.95, WAKE_GUESS_US);
	uint64_t supply_us = quantile_us(&machine->supplies, 0.95, CREATE_GUESS_US + PREPARE_GUESS_US);
	struct sizing_input input = {
		.demand = &machine->demand,
		.wake_s = (double)wake_us / SECOND,
		.supply_s = (double)supply_us / SECOND,
		.others_rate = (double)machine->lease.fleet.others_claims_per_1000s / 1000,
		.leased = machine_running_used(machine),
		.level = spend_level(&machine->spend),
	};
	struct sizing_options sizing = machine->options.sizing;
	sizing.create_limit = machine->gate.budget.ceiling;
	sizing.create_window_us = machine->gate.budget.period_us;
	sizing.running_limit = machine_running_limit(machine);
	sizing.warm_limit = machine_warm_limit(machine);
	machine->target = sizing_decide(&sizing, &input);
	machine->review_us = is_fixed(&machine->options) && !machine->running.limit && !machine->refused.limit ? 0 : now_us + SECOND;
}

static size_t bounded(size_t size, size_t max)
{
	return size == SIZING_AUTO || size < max ? size : max;
}

/* The next review, in this very step, makes targets of it. */
static void resize(struct machine *machine, const struct machine_event *event)
{
	struct sizing_options *sizing = &machine->options.sizing;
	sizing->hot = bounded(event->hot, sizing->max);
	sizing->warm = bounded(event->warm, sizing->max);
}

static void intend(struct machine *machine, uint64_t until_us)
{
	for (size_t i = 0; i < MACHINE_INTENTS; i++) {
		if (machine->intents_us[i])
			continue;
		machine->intents_us[i] = until_us;
		return;
	}
}

/* --- starting and stopping -------------------------------------------------------------------- */

static void destroy_all(struct machine *machine, enum pool_state state, uint64_t now_us)
{
	/* Oldest first; utlist: the head's prev is the tail. */
	struct pool_member *head = machine->roster.lists[state], *member = head ? head->prev : NULL;
	for (size_t n = machine->roster.counts[state]; n; n--) {
		struct pool_member *newer = member->prev;
		machine_let_go(machine, now_us, member);
		member = newer;
	}
}

static void stop(struct machine *machine, uint64_t now_us, uint64_t deadline_us)
{
	if (machine->stopping && (!machine->stop_us || machine->stop_us <= deadline_us))
		return;
	machine->stop_us = deadline_us ? deadline_us : 1;
	machine->stopping = true;
	machine->list.wait_us = 0;
	machine->review_us = 0;
	machine_refuse_all(machine, POOL_E_STOPPING);
	destroy_all(machine, POOL_HOT, now_us);
	if (machine->options.shared)
		machine_leave_parked(machine, now_us);
	else
		destroy_all(machine, POOL_WARM, now_us);
	destroy_all(machine, POOL_QUARANTINE, now_us);
	machine_hasten_doubtful(machine, now_us);
}

static void check_stopped(struct machine *machine)
{
	size_t left = roster_total(&machine->roster);
	if (!machine->stopping || machine->stopped)
		return;
	if ((left || machine->list.busy) && !machine->overdue)
		return;
	machine->stopped = true;
	machine->stop_us = 0;
	machine_act(machine, (struct machine_action){.type = MACHINE_DO_STOPPED, .left = left + machine->abandoned});
}

/* --- time ------------------------------------------------------------------------------------- */

static void tick(struct machine *machine, uint64_t now_us)
{
	gate_tick(&machine->gate, now_us);
	demand_pass(&machine->demand, now_us);
	unlearn(&machine->running, now_us);
	unlearn(&machine->refused, now_us);
	unlearn(&machine->paused, now_us);
	machine_pass_destroys(machine, now_us);
	machine_pass_supply(machine, now_us);
	machine_pass_leases(machine, now_us);
	if (is_due(machine->stop_us, now_us)) {
		machine->stop_us = 0;
		machine->overdue = true;
	}
	machine->worse = true;
}

uint64_t machine_next_due(const struct machine *machine)
{
	uint64_t next = gate_next_due(&machine->gate);
	next = sooner(next, machine->review_us);
	next = sooner(next, machine->stop_us);
	next = sooner(next, machine->running.until_us);
	next = sooner(next, machine->refused.until_us);
	next = sooner(next, machine->paused.until_us);
	next = sooner(next, machine_destroy_due(machine));
	next = sooner(next, machine_supply_due(machine));
	next = sooner(next, machine_lease_due(machine));
	if (machine->waiters)
		next = sooner(next, fair_next_due(&machine->fair, machine->now_us));
	const struct machine_waiter *waiter;
	DL_FOREACH (machine->waiters, waiter)
		next = sooner(next, waiter->deadline_us);
	return next;
}

/* --- events ----------------------------------------------------------------------------------- */

static void handle(struct machine *machine, uint64_t now_us, const struct machine_event *event)
{
	switch (event->type) {
	case MACHINE_START:
		/* What a shared pool has is known from its records. */
		if (!machine->options.shared)
			machine_start_listing(machine);
		break;
	case MACHINE_STOP:
		stop(machine, now_us, event->deadline_us);
		break;
	case MACHINE_TICK:
		tick(machine, now_us);
		break;
	case MACHINE_RESIZE:
		resize(machine, event);
		break;
	case MACHINE_INTENT:
		intend(machine, event->deadline_us);
		break;
	case MACHINE_CLAIM:
		machine_claim(machine, now_us, event->waiter);
		break;
	case MACHINE_CANCEL:
		machine_cancel(machine, event->waiter);
		break;
	case MACHINE_RETURN:
	case MACHINE_RELEASE:
		machine_release(machine, now_us, event->member,
				event->type == MACHINE_RETURN ? MACHINE_UNUSED
				: event->opened               ? MACHINE_OPENED
							      : MACHINE_USED);
		break;
	case MACHINE_LOST:
		machine_lost(machine, now_us, event->member, event->waiter);
		break;
	case MACHINE_KEEP:
		machine_keep(machine, now_us, event->member);
		break;
	case MACHINE_KEPT:
		machine->kept.total = event->kept;
		machine->kept.running = event->running;
		break;
	case MACHINE_CREATED:
		machine_created(machine, now_us, event);
		break;
	case MACHINE_PREPARED:
		machine_prepared(machine, now_us, event);
		break;
	case MACHINE_RESTORED:
		machine_restored(machine, now_us, event);
		break;
	case MACHINE_DESTROYED:
		machine_destroyed(machine, now_us, event);
		break;
	case MACHINE_FOUND:
		machine_found(machine, now_us, event->name);
		break;
	case MACHINE_LISTED:
		machine_listed(machine, now_us, event);
		break;
	case MACHINE_FLEET:
		machine_fleet(machine, now_us, event);
		break;
	case MACHINE_RESERVED:
		machine_reserved(machine, now_us, event);
		break;
	case MACHINE_TAKEN:
		machine_taken(machine, now_us, event);
		break;
	case MACHINE_ADOPTED:
		machine_adopted(machine, now_us, event);
		break;
	case MACHINE_ADOPTION:
		machine_adoption(machine, now_us, event);
		break;
	case MACHINE_STRUCK:
		machine_struck(machine, now_us, event->name);
		break;
	case MACHINE_REVOKED:
		machine_revoked(machine, now_us, event->name);
		break;
	case MACHINE_CROWDED:
		machine_make_way(machine, now_us, 1);
		break;
	case MACHINE_FENCED:
		machine_fenced(machine, now_us);
		break;
	case MACHINE_FLUSHED:
		machine_flushed(machine, now_us);
		break;
	}
}

static void pass(struct machine *machine, uint64_t now_us)
{
	if (!machine->begun) {
		const struct sizing_options *sizing = &machine->options.sizing;
		budget_configure(&machine->gate.budget, sizing->create_limit, sizing->create_window_us);
		demand_init(&machine->demand, now_us);
		spend_init(&machine->spend, machine->options.day_nusd, now_us);
		machine->begun = true;
	}
	uint64_t idle_us = machine_idle_us(machine, machine->spend.at_us, now_us);
	spend_pass(&machine->spend, now_us, idle_us, machine_running_used(machine));
	machine->now_us = now_us;
}

void machine_step(struct machine *machine, uint64_t now_us, const struct machine_event *event)
{
	if (!machine->action_count) /* else actions of theirs have not been carried out yet */
		roster_reap(&machine->roster);
	machine->worse = false;
	pass(machine, now_us);
	handle(machine, now_us, event);
	review_sizes(machine, now_us);
	machine_serve(machine, now_us);
	machine_retire(machine, now_us);
	machine_fill(machine, now_us);
	/* After filling: what has just begun is part of the outlook. */
	if (machine->worse)
		machine_review_waiters(machine, now_us);
	machine_start_destroys(machine);
	check_stopped(machine);
}
