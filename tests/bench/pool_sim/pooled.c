/*
 * The gateway's machine: its actions are carried out by latencies and limits.
 */
#include "tests/bench/pool_sim/sim.h"

#include <utlist.h>

#define MEMBERS_MAX (100 + MACHINE_LEFTOVERS)

static struct machine machine;
static double parked_s[MEMBERS_MAX]; /* when each member was last parked */

static void outcome_at(double after_s, enum machine_event_type type, struct pool_member *member, enum provider_code code, double retry_s)
{
	events_push(
		(struct event){.at_s = sim.now_s + after_s,
			       .kind = OUTCOME,
			       .outcome = {.type = type, .member = member, .code = code, .retry_after_ms = (uint64_t)(retry_s * 1000)}});
}

static void do_create(struct pool_member *member)
{
	if (!creation_take()) {
		sim.figures.refused_creates += sim_counts();
		outcome_at(0.1, MACHINE_CREATED, member, PROVIDER_RATE_LIMIT, creation_wait_s());
		return;
	}
	sim.figures.creates += sim_counts();
	outcome_at(trace_took(CREATE), MACHINE_CREATED, member, PROVIDER_OK, 0);
}

static bool lingers(const struct pool_member *member)
{
	return sim.now_s < parked_s[member - machine.roster.slots] + PAUSE_S;
}

static void do_grant(const struct machine_action *action)
{
	struct claim *claim = CONTAINER_OF(action->waiter, struct claim, waiter);
	claim->member = action->member;
	claim->tier = action->tier;
	claim->added_s = sim.now_s - (claim->returns ? claim->back_s : claim->at_s) + HOT_S;
	if (claim->session)
		events_push((struct event){
			.at_s = sim.now_s, .kind = OUTCOME, .claim = claim, .outcome = {.type = MACHINE_KEEP, .member = action->member}});
	events_push((struct event){.at_s = sim.now_s + claim->service_s, .kind = END, .claim = claim});
}

static void do_refuse(const struct machine_action *action)
{
	struct claim *claim = CONTAINER_OF(action->waiter, struct claim, waiter);
	double told_s = (double)action->retry_after_ms / 1000;
	claim->added_s = -1;
	if (!claim->returns)
		claim->told_s = told_s;
	if (claim->returns < sim.returns)
		events_push((struct event){.at_s = sim.now_s + told_s, .kind = ARRIVE, .claim = claim});
}

static void carry_out(const struct machine_action *action)
{
	struct pool_member *member = action->member;
	switch (action->type) {
	case MACHINE_DO_LIST:
		outcome_at(0.1, MACHINE_LISTED, NULL, PROVIDER_OK, 0);
		break;
	case MACHINE_DO_CREATE:
		do_create(member);
		break;
	case MACHINE_DO_PREPARE:
		outcome_at(trace_took(PREPARE), MACHINE_PREPARED, member, PROVIDER_OK, 0);
		break;
	case MACHINE_DO_WAKE:
		/* One that still runs needs only dialling. */
		outcome_at(lingers(member) ? DIAL_S : trace_took(WAKE), MACHINE_PREPARED, member, PROVIDER_OK, 0);
		break;
	case MACHINE_DO_RESTORE:
		sim.figures.restores += sim_counts();
		outcome_at(trace_took(RESTORE), MACHINE_RESTORED, member, PROVIDER_OK, 0);
		break;
	case MACHINE_DO_DESTROY:
		outcome_at(trace_took(DESTROY), MACHINE_DESTROYED, member, PROVIDER_OK, 0);
		break;
	case MACHINE_DO_GRANT:
		do_grant(action);
		break;
	case MACHINE_DO_REFUSE:
		do_refuse(action);
		break;
	case MACHINE_DO_CLOSE:
		if (member->state == POOL_WARM)
			parked_s[member - machine.roster.slots] = sim.now_s;
		break;
	case MACHINE_DO_STOPPED:
	case MACHINE_DO_RESERVE:
	case MACHINE_DO_TAKE:
	case MACHINE_DO_NOTE:
	case MACHINE_DO_FORGET:
	case MACHINE_DO_ADOPT:
	case MACHINE_DO_REVOKE:
	case MACHINE_DO_ABANDON:
		break;
	}
}

static size_t ready_or_on_way(void)
{
	const size_t *counts = machine.roster.counts;
	return counts[POOL_HOT] + counts[POOL_CREATING] + counts[POOL_PREPARING] + counts[POOL_RECYCLING];
}

/* What has run since the last event. */
static void integrate(double to_s)
{
	double from_s = sim.now_s > sim.shape->rest_s ? sim.now_s : sim.shape->rest_s, passed_s = to_s - from_s;
	sim.now_s = to_s;
	if (passed_s <= 0)
		return;
	const size_t *counts = machine.roster.counts;
	const struct pool_member *member;
	double lingering_s = 0;
	DL_FOREACH (machine.roster.lists[POOL_WARM], member) {
		double paused_s = parked_s[member - machine.roster.slots] + PAUSE_S;
		lingering_s += paused_s > to_s ? passed_s : paused_s > from_s ? paused_s - from_s : 0;
	}
	sessions_integrate(from_s, to_s);
	sim.figures.counted_s += passed_s;
	sim.figures.hot_idle_s += (double)counts[POOL_HOT] * passed_s;
	sim.figures.running_idle_s += lingering_s + (double)ready_or_on_way() * passed_s;
	sim.figures.leased_s += (double)counts[POOL_LEASED] * passed_s;
	sim.figures.target_s += (double)(machine.target.hot + machine.target.warm) * passed_s;
}

static void step(struct machine_event event)
{
	struct machine_action action;
	machine_step(&machine, (uint64_t)(sim.now_s * SECOND), &event);
	while (machine_next_action(&machine, &action))
		carry_out(&action);
}

static void measure(void)
{
	const struct pool_member *member;
	size_t running = machine.roster.counts[POOL_LEASED] + machine.roster.counts[POOL_DESTROYING] + ready_or_on_way();
	DL_FOREACH (machine.roster.lists[POOL_WARM], member)
		running += lingers(member);
	sim_measure_alive(roster_total(&machine.roster) + sessions_total(), running + sessions_running());
}

static void tell_kept(void)
{
	step((struct machine_event){.type = MACHINE_KEPT, .kept = sessions_total(), .running = sessions_counted()});
}

static void arrive(struct claim *claim)
{
	if (claim_goes_on(claim)) {
		sessions_serve(claim, false);
		tell_kept();
		return;
	}
	if (claim->added_s < 0) {
		claim->returns++;
		claim->back_s = sim.now_s;
	}
	claim->added_s = 0;
	claim->waiter = (struct machine_waiter){.tenant = claim->tenant, .deadline_us = (uint64_t)((sim.now_s + DEADLINE_S) * SECOND)};
	step((struct machine_event){.type = MACHINE_CLAIM, .waiter = &claim->waiter});
}

static void end(struct claim *claim)
{
	if (!claim->session) {
		step((struct machine_event){.type = MACHINE_RELEASE, .member = claim->member});
		return;
	}
	sessions_end(claim);
	tell_kept();
}

static void handle(const struct event *event)
{
	switch (event->kind) {
	case ARRIVE:
		arrive(event->claim);
		break;
	case END:
		end(event->claim);
		break;
	case PAUSED:
	case FORGOTTEN:
	case REMOVED:
		sessions_handle(event);
		tell_kept();
		break;
	default:
		/* Counted twice for a moment rather than not at all. */
		if (event->outcome.type == MACHINE_KEEP) {
			sessions_begin(event->claim);
			tell_kept();
		}
		step(event->outcome);
	}
}

int pooled_run(const struct machine_options *options)
{
	if (machine_init(&machine, options) < 0)
		return -1;
	events_push_claims();
	sim.now_s = 1e-3;
	step((struct machine_event){.type = MACHINE_START});
	while (events_peek() && sim.now_s < sim.shape->end_s + 100) {
		double due_s = (double)machine_next_due(&machine) / SECOND, next_s = events_peek()->at_s;
		if (due_s < next_s) {
			integrate(due_s > sim.now_s ? due_s : sim.now_s);
			sim.now_s += 1e-6; /* rounding must not put a tick before its time */
			step((struct machine_event){.type = MACHINE_TICK});
		} else {
			struct event event = events_pop();
			integrate(next_s > sim.now_s ? next_s : sim.now_s);
			handle(&event);
		}
		measure();
	}
	int impossible = (int)machine.roster.impossible;
	machine_deinit(&machine);
	return impossible ? -1 : 0;
}
