/*
 * machine_model_rules - what the naive model allows: what must hold after every event, and whether each action of the machine was due
 *
 * Only the test includes it.
 */
#pragma once

#include "gateway/pool/machine_model.h"

/* --- fairness, naively ------------------------------------------------------------------------ */

static size_t waiting_of(struct model *model, uint64_t tenant)
{
	size_t n = 0;
	for (size_t i = 0; i < model->queued; i++)
		n += model->queue[i]->tenant == tenant;
	return n;
}

static size_t held_by_all(struct model *model)
{
	size_t n = 0;
	for (size_t i = 0; i < TENANTS; i++)
		n += model->tenants[i].held;
	return n;
}

static bool others_want(struct model *model, uint64_t tenant)
{
	for (uint64_t i = 0; i < TENANTS; i++) {
		const struct tenant *other = &model->tenants[i];
		bool recent = other->claimed_us && model->now_us < other->claimed_us + FAIR_MEMORY_US;
		if (i != tenant && (other->held || recent || waiting_of(model, i)))
			return true;
	}
	return false;
}

/* One at a time: may it take another, when it holds so many more already? */
static bool may_take(struct model *model, uint64_t tenant, size_t more)
{
	size_t taken = held_by_all(model) + model->kept + more;
	size_t free = model->options.sizing.max > taken ? model->options.sizing.max - taken : 0;
	return free && (!others_want(model, tenant) || model->tenants[tenant].held + more < free);
}

static bool may_have(const struct member *mine, uint64_t tenant)
{
	return mine->open && !mine->leased && mine->operation == NONE && (!mine->used || mine->tenant == tenant);
}

static bool has_one_for(struct model *model, uint64_t tenant)
{
	for (size_t i = 0; i < SLOTS; i++)
		if (may_have(&model->members[i], tenant))
			return true;
	return false;
}

/* --- what must hold after every event --------------------------------------------------------- */

static void check_lists(struct model *model)
{
	const struct machine *machine = &model->machine;
	size_t live = 0, leftovers = 0;
	for (int state = 0; state < POOL_STATES; state++) {
		size_t n = 0;
		const struct pool_member *member;
		DL_FOREACH (machine->roster.lists[state], member) {
			const struct member *mine = member_of(model, member);
			CHECK(model, member->state == (enum pool_state)state);
			CHECK(model, member->busy == (mine->operation != NONE));
			CHECK(model, (state == POOL_LEASED) == mine->leased);
			CHECK(model, (state == POOL_HOT || state == POOL_LEASED) == mine->open);
			CHECK(model,
			      !mine->used || mine->clean || state == POOL_RECYCLING || state == POOL_DESTROYING || state == POOL_GONE);
			n++;
			bool found = model->finding && strcmp(member->name, model->finding) == 0;
			leftovers += state != POOL_GONE && (mine->leftover || found);
		}
		CHECK(model, n == machine->roster.counts[state]);
		live += state != POOL_GONE ? n : 0;
	}
	const struct pool_member *spare;
	size_t spares = 0;
	LL_FOREACH (machine->roster.free, spare)
		spares++;
	CHECK(model, live == roster_total(&machine->roster));
	CHECK(model, live + machine->roster.counts[POOL_GONE] + spares == machine->roster.capacity);
	CHECK(model, live - leftovers <= model->options.sizing.max);
	CHECK(model, machine->roster.impossible == 0);
}

static void check_waiters(struct model *model)
{
	const struct machine *machine = &model->machine;
	const struct machine_waiter *waiter;
	size_t n = 0;
	DL_FOREACH (machine->waiters, waiter) {
		CHECK(model, n < model->queued && waiter == model->queue[n]);
		CHECK(model, !has_one_for(model, waiter->tenant) || !may_take(model, waiter->tenant, 0));
		n++;
	}
	CHECK(model, n == model->queued && n == machine->waiting && n <= model->options.max_waiters);
	CHECK(model, !n || !model->stopping);
	for (size_t i = 0; i < TENANTS; i++) {
		size_t held = 0;
		for (size_t at = 0; at < SLOTS; at++)
			held += model->members[at].leased && model->members[at].tenant == i;
		CHECK(model, held == model->tenants[i].held);
	}
	CHECK(model, machine->fair.held == held_by_all(model));
}

static void check_nothing_leaks(struct model *model)
{
	uint64_t list_us = model->machine.list.wait_us;
	bool is_listed_soon = model->stopping || model->listing || (list_us && list_us <= model->now_us + 300 * SECOND_US);
	for (size_t i = 0; i < SPRITES; i++) {
		const struct sprite *sprite = &model->sprites[i];
		if (sprite->exists && model->listed)
			CHECK(model, model->stopped || is_held(model, sprite->name) || (is_given_up(model, sprite) && is_listed_soon));
	}
}

/* Whatever exists, is being created or may yet appear. */
static size_t alive(struct model *model)
{
	size_t n = 0;
	for (size_t i = 0; i < SPRITES; i++) {
		const struct sprite *sprite = &model->sprites[i];
		n += (sprite->exists && !is_given_up(model, sprite)) || sprite->appears_us;
	}
	for (size_t i = 0; i < SLOTS; i++)
		n += model->members[i].operation == CREATE;
	return n;
}

static size_t running(const struct model *model)
{
	const size_t *counts = model->machine.roster.counts;
	return counts[POOL_INTENT] + counts[POOL_CREATING] + counts[POOL_PREPARING] + counts[POOL_HOT] + counts[POOL_LEASED] +
	       counts[POOL_RECYCLING] + counts[POOL_QUARANTINE];
}

/* Creations of the last minute, the limit's window. */
static size_t recent_creations(const struct model *model)
{
	size_t n = 0;
	for (size_t i = 0; i < CREATIONS && i < model->created; i++)
		n += model->creations[i] + model->options.sizing.create_window_us > model->now_us;
	return n;
}

/* The smallest of what was set and said counts, if so many members can meet it. */
static size_t known_limit(const struct model *model)
{
	const struct sizing_options *sizing = &model->options.sizing;
	const struct told_limit *told[] = {&model->listed_limit, &model->refused_limit};
	uint64_t limit = sizing->running_limit ? sizing->running_limit : UINT64_MAX;
	for (size_t i = 0; i < ARRAY_LEN(told); i++)
		if (told[i]->limit && told[i]->until_us > model->now_us && told[i]->limit < limit)
			limit = told[i]->limit;
	return limit < sizing->max ? (size_t)limit : 0;
}

static void check_limits(struct model *model)
{
	const struct sizing_options *sizing = &model->options.sizing;
	CHECK(model, machine_running_limit(&model->machine) == known_limit(model));
	CHECK(model, !sizing->running_limit || running(model) <= sizing->running_limit);
	CHECK(model, !sizing->create_limit || recent_creations(model) <= sizing->create_limit);
	CHECK(model, model->hedges <= 1 + model->claims / 20);
}

/* Of those who wait: how many need one that nobody has used, as far as fairness allows. */
static size_t needed_by_waiters(struct model *model)
{
	size_t needed = 0;
	for (uint64_t tenant = 0; tenant < TENANTS; tenant++) {
		size_t allowed = 0, coming = 0, waiting = waiting_of(model, tenant);
		while (allowed < waiting && may_take(model, tenant, allowed))
			allowed++;
		for (size_t i = 0; i < SLOTS; i++) {
			const struct member *mine = &model->members[i];
			coming += mine->used && mine->tenant == tenant && mine->operation != NONE && mine->operation != DESTROY;
		}
		needed += allowed > coming ? allowed - coming : 0;
	}
	return needed;
}

struct have {
	size_t hot, warm, waking, coming;
};

static struct have have(struct model *model)
{
	struct have have = {0};
	for (size_t i = 0; i < model->machine.roster.capacity; i++) {
		const struct pool_member *member = &model->machine.roster.slots[i];
		const struct member *mine = &model->members[i];
		bool fresh = !member->aged;
		have.coming += mine->operation == CREATE || (mine->operation == PREPARE && !member->waking);
		have.waking += !mine->used && (mine->operation == WAKE || (mine->operation == PREPARE && member->waking));
		have.coming += member->state == POOL_QUARANTINE;
		if (mine->used)
			continue;
		have.hot += fresh && member->state == POOL_HOT && mine->open;
		have.warm += fresh && member->state == POOL_WARM;
	}
	return have;
}

/* What is paused for its tenant takes a place of those that may be paused. */
static size_t warm_wanted(const struct machine *machine)
{
	size_t places = machine_warm_limit(machine), wanted = machine->target.warm;
	if (!places)
		return wanted;
	const struct pool_member *member;
	DL_FOREACH (machine->roster.lists[POOL_WARM], member)
		places -= member->owned && places;
	return wanted < places ? wanted : places;
}

static void check_it_does_its_work(struct model *model)
{
	const struct machine *machine = &model->machine;
	const struct sizing_options *sizing = &model->options.sizing;
	struct have now = have(model);
	size_t needed = needed_by_waiters(model);
	size_t may_run = machine_running_limit(machine);
	bool limited = gate_wakes_open_us(&machine->gate, false) ||
		       (may_run && machine_running_idle(machine, model->now_us) + machine_running_used(machine) >= may_run);
	bool held_back = !model->listed || model->stopping || !gate_is_open(&machine->gate) || limited ||
			 roster_total(&machine->roster) + model->kept >= sizing->max || machine->gate.failures > 1 ||
			 machine->roster.counts[POOL_CREATING] >= machine->gate.window ||
			 budget_opens_us(&machine->gate.budget, 2, false) > model->now_us ||
			 (may_run && (demand_bursts(&machine->demand) || demand_begins(&machine->demand)));
	CHECK(model, now.hot + now.warm + now.waking + now.coming >= machine->target.hot + warm_wanted(machine) + needed || held_back);
	/* Nobody who may be served waits while one could be woken for him. */
	CHECK(model, now.waking >= needed || !now.warm || limited || model->stopping);
}

static void check_destroys(struct model *model)
{
	const struct machine *machine = &model->machine;
	size_t destroys = 0, ready = 0;
	const struct pool_member *member;
	DL_FOREACH (machine->roster.lists[POOL_DESTROYING], member) {
		destroys += member->busy;
		ready += !member->busy && !member->wait_us;
		CHECK(model, !member->deferred || member->busy || model->queued);
	}
	CHECK(model, destroys == machine->destroys && destroys <= 8);
	CHECK(model, !ready || destroys == 8);
}

static void check(struct model *model)
{
	check_lists(model);
	check_waiters(model);
	check_nothing_leaks(model);
	check_limits(model);
	check_it_does_its_work(model);
	check_destroys(model);
}

/* --- are its answers allowed? ----------------------------------------------------------------- */

static void drop_from_queue(struct model *model, size_t position)
{
	memmove(&model->queue[position], &model->queue[position + 1], (model->queued - position - 1) * sizeof model->queue[0]);
	model->queued--;
}

static void end_waiter(struct machine_waiter *waiter)
{
	CONTAINER_OF(waiter, struct waiter, machine)->used = false;
}

static size_t position_of(struct model *model, const struct machine_waiter *waiter)
{
	size_t i = 0;
	while (i < model->queued && model->queue[i] != waiter)
		i++;
	return i;
}

/* How many are before it at most, whoever holds how much: those who were told to come back are before all others. */
static size_t before(struct model *model, const struct machine_waiter *waiter)
{
	size_t position = position_of(model, waiter), booked = 0;
	for (size_t i = 0; i < position; i++)
		booked += model->queue[i]->booked;
	return waiter->booked ? booked : position;
}

static size_t count_state(const struct model *model, enum pool_state state)
{
	return model->machine.roster.counts[state];
}

/* The soonest time at which the waiter at this position could be served, found by trying every member. */
static uint64_t soonest(struct model *model, size_t position)
{
	const struct machine *machine = &model->machine;
	uint64_t create = estimate_optimistic_us(&machine->create), prepare = estimate_optimistic_us(&machine->prepare);
	uint64_t wake = estimate_optimistic_us(&machine->wake), restore = estimate_optimistic_us(&machine->restore);
	uint64_t times[SLOTS];
	size_t n = 0;
	for (size_t i = 0; i < machine->roster.capacity; i++) {
		const struct pool_member *member = &machine->roster.slots[i];
		const uint64_t left[] = {
			[CREATE] = create + prepare, [PREPARE] = member->waking ? wake : prepare, [WAKE] = wake, [RESTORE] = restore};
		enum operation operation = model->members[i].operation;
		if (operation == NONE || operation == DESTROY)
			continue;
		uint64_t at = member->since_us + left[operation];
		times[n++] = at > model->now_us ? at : model->now_us;
	}
	for (size_t rank = 0; rank < n; rank++)
		for (size_t i = rank + 1; i < n; i++)
			if (times[i] < times[rank]) {
				uint64_t swap = times[i];
				times[i] = times[rank];
				times[rank] = swap;
			}
	if (position < n)
		return times[position];
	/* One that exists and is not on its way. */
	uint64_t soonest_us = UINT64_MAX, opens_us = model->now_us;
	const uint64_t holds_us[] = {machine->gate.told_us, machine->gate.until_us[GATE_THROTTLED]};
	for (size_t i = 0; i < ARRAY_LEN(holds_us); i++)
		opens_us = holds_us[i] > opens_us ? holds_us[i] : opens_us;
	if (count_state(model, POOL_WARM))
		soonest_us = opens_us + wake;
	if (count_state(model, POOL_QUARANTINE) && opens_us + prepare < soonest_us)
		soonest_us = opens_us + prepare;
	if (model->options.recycle && count_state(model, POOL_LEASED) && model->now_us + restore < soonest_us)
		soonest_us = model->now_us + restore;
	if (machine->gate.until_us[GATE_UNAUTHORIZED])
		return soonest_us;
	/* A new one. */
	uint64_t start = opens_us;
	for (int reason = 0; reason < GATE_REASONS; reason++)
		if (reason != GATE_CAPACITY && machine->gate.until_us[reason] > start)
			start = machine->gate.until_us[reason];
	struct budget best = machine->gate.budget;
	best.count = best.ceiling;
	best.heard_us = 0; /* that a limit will be outgrown is not hoped for */
	for (size_t i = n; i <= position; i++) {
		uint64_t fits_us = budget_opens_us(&best, 0, false);
		start = fits_us > start ? fits_us : start;
		budget_spend(&best, start);
		/* A spare may serve any number: how many there are is not counted. */
		if (soonest_us != UINT64_MAX)
			break;
	}
	return start + create + prepare < soonest_us ? start + create + prepare : soonest_us;
}

/* A full queue: the newcomer is refused, or the youngest of whoever has most of it. */
static void check_full(struct model *model, const struct machine_waiter *refused, size_t position)
{
	size_t before = model->queued - (model->queued && model->queue[model->queued - 1] == model->claiming);
	CHECK(model, model->claiming && before == model->options.max_waiters && !model->stopping);
	if (refused == model->claiming) {
		for (uint64_t tenant = 0; tenant < TENANTS; tenant++)
			CHECK(model, tenant == refused->tenant || waiting_of(model, tenant) <= waiting_of(model, refused->tenant) + 1);
		return;
	}
	CHECK(model, position < model->queued && refused->tenant != model->claiming->tenant);
	CHECK(model, waiting_of(model, refused->tenant) > waiting_of(model, model->claiming->tenant));
	for (size_t i = position + 1; i < model->queued; i++)
		CHECK(model, model->queue[i]->tenant != refused->tenant);
}

static void on_refuse(struct model *model, const struct machine_action *action)
{
	size_t position = position_of(model, action->waiter);
	const struct gate *gate = &model->machine.gate;
	CHECK(model, action->retry_after_ms >= 1000 && action->retry_after_ms <= 3600000);
	switch (action->refusal) {
	case POOL_E_FULL:
		check_full(model, action->waiter, position);
		break;
	case POOL_E_BUDGET:
		CHECK(model, action->waiter == model->claiming && spend_level(&model->machine.spend) == SPEND_NOTHING);
		break;
	case POOL_E_STOPPING:
		CHECK(model, model->stopping);
		break;
	case POOL_E_UNAVAILABLE:
		CHECK(model, gate->failures || gate->until_us[GATE_UNAVAILABLE] || gate->until_us[GATE_UNAUTHORIZED]);
		CHECK(model, soonest(model, before(model, action->waiter)) >= action->waiter->deadline_us);
		break;
	default:
		CHECK(model, action->refusal == (action->waiter->crowded ? POOL_E_BUSY : POOL_E_DEADLINE));
		CHECK(model, soonest(model, before(model, action->waiter)) >= action->waiter->deadline_us);
		break;
	}
	CHECK(model, CONTAINER_OF(action->waiter, struct waiter, machine)->used);
	if (position < model->queued)
		drop_from_queue(model, position);
	else
		CHECK(model, action->waiter == model->claiming);
	end_waiter(action->waiter);
}

/* Was it this one's turn? Whoever holds least comes first, among equals who was told to come back, then whoever has waited longest. */
static void check_turn(struct model *model, size_t position)
{
	size_t held = model->tenants[model->queue[position]->tenant].held;
	bool booked = model->queue[position]->booked;
	for (size_t i = 0; i < model->queued; i++) {
		uint64_t tenant = model->queue[i]->tenant;
		size_t other = model->tenants[tenant].held;
		bool before = model->queue[i]->booked != booked ? !booked : i < position;
		if (other < held || (other == held && before))
			CHECK(model, !has_one_for(model, tenant) || !may_take(model, tenant, 0));
	}
}

static void on_grant(struct model *model, const struct machine_action *action)
{
	struct member *mine = member_of(model, action->member);
	size_t position = position_of(model, action->waiter);
	uint64_t tenant = action->waiter->tenant;
	CHECK(model, may_have(mine, tenant) && may_take(model, tenant, 0));
	CHECK(model, !mine->used || (mine->clean && mine->tenant == tenant));
	CHECK(model, !model->stopping);
	CHECK(model, CONTAINER_OF(action->waiter, struct waiter, machine)->used);
	if (position < model->queued) {
		CHECK(model, action->tier != POOL_TIER_HOT);
		check_turn(model, position);
		drop_from_queue(model, position);
	} else {
		CHECK(model, action->tier == POOL_TIER_HOT && action->waiter == model->claiming);
	}
	mine->leased = true;
	mine->tenant = tenant;
	model->tenants[tenant].held++;
	end_waiter(action->waiter);
}

static void on_operation(struct model *model, const struct machine_action *action, enum operation operation)
{
	struct member *mine = member_of(model, action->member);
	CHECK(model, mine->operation == NONE && !mine->open && !mine->leased);
	CHECK(model, operation != RESTORE || (mine->used && model->options.recycle));
	CHECK(model, operation != PREPARE || !mine->used || mine->clean);
	CHECK(model, operation != CREATE || model->now_us >= model->create_told_us);
	CHECK(model, (operation != PREPARE && operation != WAKE) || model->now_us >= model->wake_told_us);
	CHECK(model, operation != RESTORE || model->now_us >= model->restore_told_us);
	CHECK(model, operation != DESTROY || model->now_us >= mine->destroy_told_us);
	mine->operation = operation;
	if (operation != CREATE)
		return;
	CHECK(model, !model->stopping && roster_total(&model->machine.roster) <= model->options.sizing.max);
	snprintf(action->member->name, sizeof action->member->name, "m%u", model->names++);
	*mine = (struct member){.operation = CREATE};
	CHECK(model, model->listed && alive(model) + model->kept <= model->options.sizing.max);
	model->creations[model->created++ % CREATIONS] = model->now_us;
}

static void on_action(struct model *model, const struct machine_action *action)
{
	switch (action->type) {
	case MACHINE_DO_LIST:
		CHECK(model, !model->listing && !model->stopping);
		model->listing = true;
		break;
	case MACHINE_DO_CREATE:
		on_operation(model, action, CREATE);
		break;
	case MACHINE_DO_PREPARE:
		on_operation(model, action, PREPARE);
		break;
	case MACHINE_DO_WAKE:
		model->wakes++;
		on_operation(model, action, WAKE);
		break;
	case MACHINE_DO_RESTORE:
		on_operation(model, action, RESTORE);
		break;
	case MACHINE_DO_CLOSE:
		CHECK(model, !member_of(model, action->member)->leased);
		member_of(model, action->member)->open = false;
		break;
	case MACHINE_DO_DESTROY:
		on_operation(model, action, DESTROY);
		break;
	case MACHINE_DO_GRANT:
		on_grant(model, action);
		break;
	case MACHINE_DO_REFUSE:
		on_refuse(model, action);
		break;
	case MACHINE_DO_STOPPED:
		CHECK(model, model->stopping && !model->stopped);
		CHECK(model, action->left == roster_total(&model->machine.roster));
		model->stopped = true;
		model->left = action->left;
		break;
	case MACHINE_DO_RESERVE:
	case MACHINE_DO_TAKE:
	case MACHINE_DO_NOTE:
	case MACHINE_DO_FORGET:
	case MACHINE_DO_ADOPT:
	case MACHINE_DO_REVOKE:
	case MACHINE_DO_ABANDON:
		CHECK(model, !"the pool is not shared");
		break;
	}
}

static void send(struct model *model, struct machine_event event)
{
	machine_step(&model->machine, model->now_us, &event);
	if (event.waiter && event.type != MACHINE_CANCEL) {
		/* What the machine did not answer at once must be in its queue, last. */
		model->claiming = event.waiter;
		struct machine_waiter *last = model->machine.waiters ? model->machine.waiters->prev : NULL;
		if (last == event.waiter)
			model->queue[model->queued++] = event.waiter;
	}
	struct machine_action action;
	model->wakes = 0;
	while (machine_next_action(&model->machine, &action))
		on_action(model, &action);
	CHECK(model, model->machine.hedges - model->hedges <= model->wakes);
	model->claiming = NULL;
	model->hedges = model->machine.hedges;
	check(model);
	model->events++;
}
