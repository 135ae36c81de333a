#include "gateway/pool/machine_parts.h"

#include <utlist.h>

#define CONFIRM_US      (5 * SECOND)  /* absence is confirmed by a second answer, this much later */
#define DOUBTFUL_US     (20 * SECOND) /* is what one that may yet appear is asked about so often */
#define DRAINING_US     (2 * SECOND)  /* while stopping: nobody looks after it later */
#define RECHECK_US      (300 * SECOND) /* after one was given up because it was not found, what exists is listed once more */
#define UNAUTHORIZED_US (30 * SECOND)
#define RELIST_US       (5 * SECOND)
#define ASK_AGAIN_US    (SAID_US - 60 * SECOND) /* for the limits, before what the last list said of them is not believed any more */
#define DESTROYS_MAX    8

/* --- destroying ------------------------------------------------------------------------------- */

/* Somebody waits until fewer exist, or run: here, or at another machine. */
static bool lacks_room(const struct machine *machine)
{
	return !machine_room(machine) || machine->gate.until_us[GATE_CAPACITY] || machine_running_limit(machine) ||
	       machine->lease.place_us[true] || machine->lease.fleet.others_crowd;
}

/* Nobody waits any more, or only for room: what was put off need not be. */
static void end_deferral(struct machine *machine)
{
	struct pool_member *member;
	if (machine->waiting && !lacks_room(machine) && !machine->stopping)
		return;
	DL_FOREACH (machine->roster.lists[POOL_DESTROYING], member) {
		if (!member->deferred)
			continue;
		member->deferred = false;
		member->wait_us = 0;
	}
}

void machine_start_destroys(struct machine *machine)
{
	struct pool_member *member;
	end_deferral(machine);
	DL_FOREACH (machine->roster.lists[POOL_DESTROYING], member) {
		if (machine->destroys >= DESTROYS_MAX)
			return;
		if (member->busy || member->wait_us)
			continue;
		machine->destroys++;
		member->deferred = false;
		machine_operate(machine, member, MACHINE_DO_DESTROY);
	}
}

/* The provider answers again: what waits after a failure need not wait longer. */
static void hasten_destroys(struct machine *machine)
{
	struct pool_member *member;
	DL_FOREACH (machine->roster.lists[POOL_DESTROYING], member)
		if (member->attempts && !member->told && !member->absent_us)
			member->wait_us = 0;
}

void machine_hasten_doubtful(struct machine *machine, uint64_t now_us)
{
	struct pool_member *member;
	DL_FOREACH (machine->roster.lists[POOL_DESTROYING], member)
		if (member->doubtful_us && member->absent_us && member->wait_us > now_us + DRAINING_US)
			member->wait_us = now_us + DRAINING_US;
}

/* One "not found" is no licence to forget: platforms have said so of Sprites that lived on. */
static bool is_absent(const struct pool_member *member, uint64_t now_us)
{
	if (!member->absent_us || now_us < member->absent_us + CONFIRM_US)
		return false;
	return !member->doubtful_us || now_us >= member->doubtful_us;
}

static void destroy_failed(struct machine *machine, uint64_t now_us, const struct machine_event *event)
{
	struct pool_member *member = event->member;
	uint64_t wait_us = event->code == PROVIDER_UNAUTHORIZED ? UNAUTHORIZED_US : 0;
	uint64_t asked_us = machine_retry_us(event->retry_after_ms);
	uint64_t backoff_us = gate_backoff_us(++member->attempts, &machine->random);
	member->told = asked_us > 0 || wait_us > 0;
	member->absent_us = 0; /* it may have been denied and on the list */
	member->wait_us = now_us + machine_later(machine_later(wait_us, asked_us), backoff_us);
}

void machine_destroyed(struct machine *machine, uint64_t now_us, const struct machine_event *event)
{
	struct pool_member *member = event->member;
	if (member->state != POOL_DESTROYING || !member->busy) {
		roster_impossible(&machine->roster);
		return;
	}
	member->busy = false;
	machine->destroys--;
	if (event->code == PROVIDER_GONE && !is_absent(member, now_us)) {
		bool again = member->absent_us && now_us >= member->absent_us + CONFIRM_US;
		if (!member->absent_us)
			member->absent_us = now_us;
		uint64_t next_us = now_us + (again ? DOUBTFUL_US : CONFIRM_US);
		/* It is asked about for the last time when it can appear no more. */
		member->wait_us = again && member->doubtful_us < next_us ? member->doubtful_us : next_us;
		if (machine->stopping)
			machine_hasten_doubtful(machine, now_us);
		return;
	}
	if (event->code != PROVIDER_OK && event->code != PROVIDER_GONE) {
		destroy_failed(machine, now_us, event);
		return;
	}
	if (event->code == PROVIDER_OK) {
		estimate_add(&machine->destroy, now_us - member->since_us);
		hasten_destroys(machine);
	}
	gate_room(&machine->gate);
	if (event->code == PROVIDER_GONE && !machine->stopping && !machine->options.shared)
		machine->list.wait_us = machine->list.wait_us ? sooner(machine->list.wait_us, now_us + RECHECK_US) : now_us + RECHECK_US;
	machine_move(machine, member, POOL_GONE, now_us);
}

void machine_pass_destroys(struct machine *machine, uint64_t now_us)
{
	struct pool_member *member;
	DL_FOREACH (machine->roster.lists[POOL_DESTROYING], member)
		if (is_due(member->wait_us, now_us))
			member->wait_us = 0;
	if (!is_due(machine->list.wait_us, now_us))
		return;
	if (machine->list.busy)
		machine->list.wait_us = now_us + RELIST_US;
	else
		machine_start_listing(machine);
}

uint64_t machine_destroy_due(const struct machine *machine)
{
	uint64_t next = sooner(UINT64_MAX, machine->list.wait_us);
	const struct pool_member *member;
	DL_FOREACH (machine->roster.lists[POOL_DESTROYING], member)
		next = sooner(next, member->wait_us);
	return next;
}

/* --- what an earlier run left ----------------------------------------------------------------- */

void machine_found(struct machine *machine, uint64_t now_us, const char *name)
{
	struct pool_member *known = roster_find(&machine->roster, name);
	if (known) {
		known->absent_us = 0;
		return;
	}
	struct pool_member *member = roster_new(&machine->roster, POOL_DESTROYING, now_us);
	if (!member) {
		machine->list.incomplete = true;
		return;
	}
	strncpy(member->name, name, sizeof member->name - 1);
}

void machine_start_listing(struct machine *machine)
{
	machine->list.wait_us = 0;
	machine->list.busy = true;
	machine->list.incomplete = false;
	machine_act(machine, (struct machine_action){.type = MACHINE_DO_LIST});
}

/* Until it is known what exists nothing is created: who waits learns from the gate why. */
static void listing_failed(struct machine *machine, uint64_t now_us, const struct machine_event *event)
{
	machine->list.wait_us = now_us + machine_later(gate_backoff_us(++machine->list.attempts + 1, &machine->random),
						       machine_retry_us(event->retry_after_ms));
	if (machine->list.complete || machine->options.shared || event->code == PROVIDER_RATE_LIMIT || event->code == PROVIDER_CAPACITY)
		return;
	gate_failed(&machine->gate, now_us, now_us, event->code, event->retry_after_ms, &event->limit);
	machine->worse = true;
}

void machine_listed(struct machine *machine, uint64_t now_us, const struct machine_event *event)
{
	machine->list.busy = false;
	if (machine->stopping)
		return;
	if (event->code != PROVIDER_OK) {
		listing_failed(machine, now_us, event);
		return;
	}
	machine->list.attempts = 0;
	machine_learn(machine, now_us, &event->limit, false);
	if (machine->list.incomplete)
		machine->list.wait_us = now_us + RELIST_US;
	else if (!machine->list.complete)
		gate_listed(&machine->gate);
	machine->list.complete |= !machine->list.incomplete;
	/* A shared pool is listed every minute. */
	if (!machine->list.wait_us && !machine->options.shared && (event->limit.running || event->limit.paused))
		machine->list.wait_us = now_us + ASK_AGAIN_US;
}
