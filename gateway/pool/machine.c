#include "gateway/pool/machine.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <utlist.h>

#define MS     UINT64_C(1000)
#define SECOND (1000 * MS)

#define FILL_GRACE_US    (5 * SECOND)  /* filling does not wait longer for the first listing */
#define SURPLUS_US       (30 * SECOND) /* hot members beyond the target are kept this long */
#define CONFIRM_US       (5 * SECOND)  /* absence is confirmed by a second answer, this much later */
#define DOUBTFUL_US      (20 * SECOND) /* a creation whose answer was lost may still take effect this long */
#define UNAUTHORIZED_US  (30 * SECOND)
#define RELIST_US        (5 * SECOND)
#define DESTROYS_MAX     8
#define GHOSTS_MAX       2
#define RETRY_AFTER_MIN  1000
#define RETRY_AFTER_MAX  300000

/* Expected times until they have been measured. */
#define CREATE_GUESS_US  (1500 * MS)
#define PREPARE_GUESS_US (1000 * MS)
#define DESTROY_GUESS_US (500 * MS)
#define HOLD_GUESS_US    (5 * SECOND)

/* --- bookkeeping ------------------------------------------------------------------------------ */

int machine_init(struct machine *machine, const struct machine_options *options)
{
	*machine = (struct machine){.options = *options};
	if (!options->max || options->max > 1000 || options->hot > options->max || !options->max_waiters ||
	    options->max_waiters > 10000 || !options->max_age_us || !options->seed)
		return -EINVAL;
	size_t members = options->max + MACHINE_LEFTOVERS;
	/* At most waiting: of a member its close, one operation and its grant, of a waiter its refusal. */
	machine->action_cap = 3 * members + options->max_waiters + 8;
	machine->ready_us = calloc(2 * members, sizeof *machine->ready_us);
	machine->actions = calloc(machine->action_cap, sizeof *machine->actions);
	if (roster_init(&machine->roster, members) < 0 || !machine->ready_us || !machine->actions) {
		machine_deinit(machine);
		return -ENOMEM;
	}
	gate_init(&machine->gate, options->seed);
	machine->random = options->seed;
	return 0;
}

void machine_deinit(struct machine *machine)
{
	roster_deinit(&machine->roster);
	free(machine->ready_us);
	free(machine->actions);
	*machine = (struct machine){0};
}

static void act(struct machine *machine, struct machine_action action)
{
	assert(machine->action_count < machine->action_cap);
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

/* An operation of this member begins. */
static void operate(struct machine *machine, struct pool_member *member, enum machine_action_type type)
{
	assert(!member->busy);
	member->busy = true;
	act(machine, (struct machine_action){.type = type, .member = member});
}

static bool has_channel(enum pool_state state)
{
	return state == POOL_HOT || state == POOL_LEASED;
}

/* Every change of state goes through here. */
static bool move(struct machine *machine, struct pool_member *member, enum pool_state to, uint64_t now_us)
{
	enum pool_state from = member->state;
	if (!roster_move(&machine->roster, member, to, now_us))
		return false;
	if ((has_channel(from) || from == POOL_PREPARING) && !has_channel(to))
		act(machine, (struct machine_action){.type = MACHINE_DO_CLOSE, .member = member});
	return true;
}

static size_t on_way(const struct machine *machine)
{
	const size_t *counts = machine->roster.counts;
	return counts[POOL_INTENT] + counts[POOL_CREATING] + counts[POOL_PREPARING];
}

/* Hot members that need no replacement. */
static size_t fresh(const struct machine *machine)
{
	return machine->roster.counts[POOL_HOT] - machine->roster.aged;
}

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

static struct outlook look_out(struct machine *machine, uint64_t now_us, bool optimistic)
{
	uint64_t create = estimate_optimistic_us(&machine->create);
	uint64_t prepare = estimate_optimistic_us(&machine->prepare);
	if (!optimistic) {
		create = expected(&machine->create, CREATE_GUESS_US);
		prepare = expected(&machine->prepare, PREPARE_GUESS_US);
	}
	uint64_t *times = machine->ready_us + (optimistic ? machine->roster.capacity : 0);
	size_t n = 0;
	for (int state = POOL_INTENT; state <= POOL_PREPARING; state++) {
		uint64_t left = state == POOL_PREPARING ? prepare : create + prepare;
		struct pool_member *member;
		DL_FOREACH(machine->roster.lists[state], member) {
			uint64_t ready = member->since_us + left;
			times[n++] = ready > now_us ? ready : now_us;
		}
	}
	qsort(times, n, sizeof *times, by_time);
	size_t total = roster_total(&machine->roster);
	struct outlook outlook = {
		.now_us = now_us,
		.ready_us = times,
		.on_way = n,
		.opens_us = gate_opens_us(&machine->gate),
		.room = machine->options.max > total ? machine->options.max - total : 0,
		.max = machine->options.max,
		.lead_us = create + prepare,
		.budget = &machine->gate.budget,
		.optimistic = optimistic,
	};
	if (!optimistic) {
		outlook.turnover_us = expected(&machine->hold, HOLD_GUESS_US) + expected(&machine->destroy, DESTROY_GUESS_US);
		return outlook;
	}
	if (machine->gate.until_us[GATE_UNAUTHORIZED])
		outlook.opens_us = UINT64_MAX;
	else if (machine->gate.until_us[GATE_CAPACITY] == outlook.opens_us)
		outlook.opens_us = 0; /* ends as soon as any Sprite is gone */
	return outlook;
}

static uint64_t retry_after_ms(struct machine *machine, uint64_t now_us, size_t position)
{
	struct outlook outlook = look_out(machine, now_us, false);
	uint64_t ms = (outlook_ready_us(&outlook, position) - now_us) / MS;
	if (ms < RETRY_AFTER_MIN)
		return RETRY_AFTER_MIN;
	return ms < RETRY_AFTER_MAX ? ms : RETRY_AFTER_MAX;
}

/* --- claims ----------------------------------------------------------------------------------- */

static void refuse(struct machine *machine, struct machine_waiter *waiter, int refusal, uint64_t retry_ms)
{
	act(machine, (struct machine_action){
			     .type = MACHINE_DO_REFUSE, .waiter = waiter, .refusal = refusal, .retry_after_ms = retry_ms});
}

static void unqueue(struct machine *machine, struct machine_waiter *waiter)
{
	DL_DELETE(machine->waiters, waiter);
	machine->waiting--;
}

static void grant(struct machine *machine, uint64_t now_us, struct machine_waiter *waiter, bool hot)
{
	struct pool_member *member = machine->roster.lists[POOL_HOT];
	if (move(machine, member, POOL_LEASED, now_us))
		act(machine, (struct machine_action){
				     .type = MACHINE_DO_GRANT, .waiter = waiter, .member = member, .hot = hot});
}

static void claim(struct machine *machine, uint64_t now_us, struct machine_waiter *waiter)
{
	waiter->since_us = now_us;
	if (machine->stopping) {
		refuse(machine, waiter, POOL_E_STOPPING, RETRY_AFTER_MIN);
	} else if (machine->roster.counts[POOL_HOT]) {
		grant(machine, now_us, waiter, true);
	} else if (machine->waiting >= machine->options.max_waiters) {
		refuse(machine, waiter, POOL_E_FULL, retry_after_ms(machine, now_us, machine->waiting));
	} else {
		DL_APPEND(machine->waiters, waiter);
		machine->waiting++;
		machine->worse = true;
	}
}

static int why_late(const struct machine *machine)
{
	const struct gate *gate = &machine->gate;
	bool trouble = gate->failures || gate->until_us[GATE_UNAVAILABLE] || gate->until_us[GATE_UNAUTHORIZED];
	return trouble ? POOL_E_UNAVAILABLE : POOL_E_DEADLINE;
}

/* Refuses every waiter whose deadline has come, or comes before it could be served at best. */
static void review_waiters(struct machine *machine, uint64_t now_us)
{
	if (!machine->waiters)
		return;
	struct outlook outlook = look_out(machine, now_us, true);
	struct machine_waiter *waiter, *next;
	size_t position = 0, refused = 0;
	DL_FOREACH_SAFE(machine->waiters, waiter, next) {
		if (outlook_ready_us(&outlook, position) < waiter->deadline_us) {
			position++;
			continue;
		}
		unqueue(machine, waiter);
		/* Those refused together should not come back together. */
		refuse(machine, waiter, why_late(machine), retry_after_ms(machine, now_us, position + refused++));
	}
}

static void serve(struct machine *machine, uint64_t now_us)
{
	while (machine->waiters && machine->roster.counts[POOL_HOT]) {
		struct machine_waiter *waiter = machine->waiters;
		unqueue(machine, waiter);
		grant(machine, now_us, waiter, false);
	}
}

/* --- creating and preparing ------------------------------------------------------------------- */

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
	       roster_total(roster) < machine->options.max && roster->counts[POOL_CREATING] < machine->gate.window &&
	       !too_many_ghosts(machine);
}

static void fill(struct machine *machine, uint64_t now_us)
{
	while (fresh(machine) + on_way(machine) < machine->options.hot + machine->waiting && may_create(machine)) {
		struct pool_member *member = roster_new(&machine->roster, POOL_INTENT, now_us);
		if (!move(machine, member, POOL_CREATING, now_us))
			return;
		gate_creating(&machine->gate, now_us);
		operate(machine, member, MACHINE_DO_CREATE);
	}
}

static void failed(struct machine *machine, uint64_t now_us, uint64_t begun_us, const struct machine_event *event)
{
	gate_failed(&machine->gate, now_us, begun_us, event->code, event->retry_after_ms, &event->limit);
	machine->worse = true;
}

static void prepare(struct machine *machine, uint64_t now_us, struct pool_member *member)
{
	if (move(machine, member, POOL_PREPARING, now_us))
		operate(machine, member, MACHINE_DO_PREPARE);
}

/* Did a failed creation certainly have no effect? */
static bool never_made(const struct machine_event *event)
{
	return event->unsent || event->code == PROVIDER_RATE_LIMIT || event->code == PROVIDER_CAPACITY ||
	       event->code == PROVIDER_UNAUTHORIZED;
}

static void created(struct machine *machine, uint64_t now_us, const struct machine_event *event)
{
	struct pool_member *member = event->member;
	uint64_t begun_us = member->since_us;
	if (member->state != POOL_CREATING) {
		roster_impossible(&machine->roster);
		return;
	}
	member->busy = false;
	if (event->code == PROVIDER_OK) {
		estimate_add(&machine->create, now_us - begun_us);
		gate_created(&machine->gate, now_us, begun_us, event->retry_after_ms, &event->limit);
		member->created_us = now_us;
		if (machine->stopping)
			move(machine, member, POOL_DESTROYING, now_us);
		else
			prepare(machine, now_us, member);
		return;
	}
	failed(machine, now_us, begun_us, event);
	member->doubtful = !never_made(event);
	move(machine, member, member->doubtful ? POOL_DESTROYING : POOL_GONE, now_us);
}

static void prepared(struct machine *machine, uint64_t now_us, const struct machine_event *event)
{
	struct pool_member *member = event->member;
	uint64_t begun_us = member->since_us;
	if (member->state != POOL_PREPARING) {
		roster_impossible(&machine->roster);
		return;
	}
	member->busy = false;
	if (event->code == PROVIDER_OK) {
		if (!member->redialed)
			estimate_add(&machine->prepare, now_us - begun_us);
		gate_ready(&machine->gate);
		move(machine, member, machine->stopping ? POOL_DESTROYING : POOL_HOT, now_us);
		return;
	}
	/* That an idle Sprite has vanished says nothing about the next creation. */
	if (!member->redialed || event->code != PROVIDER_GONE)
		failed(machine, now_us, begun_us, event);
	machine->worse = true;
	move(machine, member, POOL_DESTROYING, now_us);
}

static void lost(struct machine *machine, uint64_t now_us, struct pool_member *member)
{
	/* A leased member's channel is its user's affair. */
	if (member->state != POOL_HOT)
		return;
	if (member->redialed) {
		move(machine, member, POOL_DESTROYING, now_us);
		return;
	}
	member->redialed = true;
	prepare(machine, now_us, member);
}

/* --- destroying ------------------------------------------------------------------------------- */

static void start_destroys(struct machine *machine)
{
	struct pool_member *member;
	DL_FOREACH(machine->roster.lists[POOL_DESTROYING], member) {
		if (machine->destroys >= DESTROYS_MAX)
			return;
		if (member->busy || member->wait_us)
			continue;
		machine->destroys++;
		operate(machine, member, MACHINE_DO_DESTROY);
	}
}

/* The provider answers again: what waits after a failure need not wait longer. */
static void hasten_destroys(struct machine *machine)
{
	struct pool_member *member;
	DL_FOREACH(machine->roster.lists[POOL_DESTROYING], member)
		if (member->attempts && !member->told && !member->absent_us)
			member->wait_us = 0;
}

/* One "not found" is no licence to forget: platforms have said so of Sprites that lived on. */
static bool is_absent(const struct pool_member *member, uint64_t now_us)
{
	if (!member->absent_us || now_us < member->absent_us + CONFIRM_US)
		return false;
	return !member->doubtful || now_us >= member->since_us + DOUBTFUL_US;
}

static void destroy_failed(struct machine *machine, uint64_t now_us, const struct machine_event *event)
{
	struct pool_member *member = event->member;
	uint64_t wait_us = event->code == PROVIDER_UNAUTHORIZED ? UNAUTHORIZED_US : 0;
	uint64_t asked_us = event->retry_after_ms < RETRY_AFTER_MAX ? event->retry_after_ms * MS : RETRY_AFTER_MAX * MS;
	uint64_t backoff_us = gate_backoff_us(++member->attempts, &machine->random);
	member->told = asked_us > 0 || wait_us > 0;
	if (wait_us < asked_us)
		wait_us = asked_us;
	if (wait_us < backoff_us)
		wait_us = backoff_us;
	member->wait_us = now_us + wait_us;
}

static void destroyed(struct machine *machine, uint64_t now_us, const struct machine_event *event)
{
	struct pool_member *member = event->member;
	if (member->state != POOL_DESTROYING || !member->busy) {
		roster_impossible(&machine->roster);
		return;
	}
	member->busy = false;
	machine->destroys--;
	if (event->code == PROVIDER_GONE && !is_absent(member, now_us)) {
		if (!member->absent_us)
			member->absent_us = now_us;
		member->wait_us = now_us + CONFIRM_US;
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
	move(machine, member, POOL_GONE, now_us);
}

static void destroy_oldest_hot(struct machine *machine, uint64_t now_us)
{
	move(machine, machine->roster.lists[POOL_HOT]->prev, POOL_DESTROYING, now_us); /* utlist: the head's prev is the tail */
}

static void destroy_aged(struct machine *machine, uint64_t now_us)
{
	struct pool_member *member, *oldest = NULL;
	DL_FOREACH(machine->roster.lists[POOL_HOT], member)
		if (member->aged && (!oldest || member->created_us <= oldest->created_us))
			oldest = member;
	if (oldest)
		move(machine, oldest, POOL_DESTROYING, now_us);
}

/* --- what an earlier run left ----------------------------------------------------------------- */

static void found(struct machine *machine, uint64_t now_us, const char *name)
{
	if (roster_find(&machine->roster, name))
		return;
	struct pool_member *member = roster_new(&machine->roster, POOL_DESTROYING, now_us);
	if (!member) {
		machine->list.incomplete = true;
		return;
	}
	strncpy(member->name, name, sizeof member->name - 1);
}

static void start_listing(struct machine *machine)
{
	machine->list.wait_us = 0;
	machine->list.busy = true;
	machine->list.incomplete = false;
	act(machine, (struct machine_action){.type = MACHINE_DO_LIST});
}

static void listed(struct machine *machine, uint64_t now_us, const struct machine_event *event)
{
	machine->list.busy = false;
	machine->filling = true;
	machine->fill_us = 0;
	if (machine->stopping)
		return;
	if (event->code == PROVIDER_OK)
		machine->list.attempts = 0;
	if (event->code != PROVIDER_OK)
		machine->list.wait_us = now_us + gate_backoff_us(++machine->list.attempts + 1, &machine->random);
	else if (machine->list.incomplete)
		machine->list.wait_us = now_us + RELIST_US;
}

/* --- time ------------------------------------------------------------------------------------- */

static bool is_due(uint64_t at_us, uint64_t now_us)
{
	return at_us && at_us <= now_us;
}

static void tick(struct machine *machine, uint64_t now_us)
{
	gate_tick(&machine->gate, now_us);
	if (is_due(machine->fill_us, now_us)) {
		machine->filling = true;
		machine->fill_us = 0;
	}
	if (is_due(machine->list.wait_us, now_us))
		start_listing(machine);
	struct pool_member *member;
	DL_FOREACH(machine->roster.lists[POOL_DESTROYING], member)
		if (is_due(member->wait_us, now_us))
			member->wait_us = 0;
	roster_age(&machine->roster, machine->options.max_age_us, now_us);
	if (is_due(machine->surplus_us, now_us))
		while (machine->roster.counts[POOL_HOT] > machine->options.hot)
			destroy_oldest_hot(machine, now_us);
	if (is_due(machine->stop_us, now_us)) {
		machine->stop_us = 0;
		machine->overdue = true;
	}
	machine->worse = true;
}

static uint64_t sooner(uint64_t next, uint64_t at_us)
{
	return at_us && at_us < next ? at_us : next;
}

uint64_t machine_next_due(const struct machine *machine)
{
	uint64_t next = gate_next_due(&machine->gate);
	next = sooner(next, machine->fill_us);
	next = sooner(next, machine->list.wait_us);
	next = sooner(next, machine->surplus_us);
	next = sooner(next, machine->stop_us);
	const struct machine_waiter *waiter;
	DL_FOREACH(machine->waiters, waiter)
		next = sooner(next, waiter->deadline_us);
	const struct pool_member *member;
	DL_FOREACH(machine->roster.lists[POOL_DESTROYING], member)
		next = sooner(next, member->wait_us);
	DL_FOREACH(machine->roster.lists[POOL_HOT], member)
		next = sooner(next, member->aged ? 0 : member->created_us + machine->options.max_age_us);
	return next;
}

/* --- after every event ------------------------------------------------------------------------ */

/* Members that are too old go when their replacement is there, or to make room for it. */
static void retire(struct machine *machine, uint64_t now_us)
{
	while (machine->roster.aged && fresh(machine) >= machine->options.hot)
		destroy_aged(machine, now_us);
	bool full = roster_total(&machine->roster) >= machine->options.max && !machine->roster.counts[POOL_DESTROYING];
	if (machine->roster.aged && full && !on_way(machine) && gate_is_open(&machine->gate))
		destroy_aged(machine, now_us);
}

static void watch_surplus(struct machine *machine, uint64_t now_us)
{
	if (machine->roster.counts[POOL_HOT] <= machine->options.hot)
		machine->surplus_us = 0;
	else if (!machine->surplus_us)
		machine->surplus_us = now_us + SURPLUS_US;
}

static void stop(struct machine *machine, uint64_t now_us, uint64_t deadline_us)
{
	if (machine->stopping && (!machine->stop_us || machine->stop_us <= deadline_us))
		return;
	machine->stop_us = deadline_us ? deadline_us : 1;
	machine->stopping = true;
	machine->list.wait_us = 0;
	machine->fill_us = 0;
	while (machine->waiters) {
		struct machine_waiter *waiter = machine->waiters;
		unqueue(machine, waiter);
		refuse(machine, waiter, POOL_E_STOPPING, RETRY_AFTER_MIN);
	}
	while (machine->roster.lists[POOL_HOT])
		destroy_oldest_hot(machine, now_us);
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
	act(machine, (struct machine_action){.type = MACHINE_DO_STOPPED, .left = left});
}

static void release(struct machine *machine, uint64_t now_us, struct pool_member *member, bool used)
{
	if (used && member->state == POOL_LEASED)
		estimate_add(&machine->hold, now_us - member->since_us);
	if (!used && !machine->stopping)
		move(machine, member, POOL_HOT, now_us);
	else
		move(machine, member, POOL_DESTROYING, now_us);
}

static void start(struct machine *machine, uint64_t now_us)
{
	machine->fill_us = now_us + FILL_GRACE_US;
	start_listing(machine);
}

static void handle(struct machine *machine, uint64_t now_us, const struct machine_event *event)
{
	switch (event->type) {
	case MACHINE_START:
		start(machine, now_us);
		break;
	case MACHINE_STOP:
		stop(machine, now_us, event->deadline_us);
		break;
	case MACHINE_TICK:
		tick(machine, now_us);
		break;
	case MACHINE_CLAIM:
		claim(machine, now_us, event->waiter);
		break;
	case MACHINE_CANCEL:
		unqueue(machine, event->waiter);
		break;
	case MACHINE_RETURN:
	case MACHINE_RELEASE:
		release(machine, now_us, event->member, event->type == MACHINE_RELEASE);
		break;
	case MACHINE_LOST:
		lost(machine, now_us, event->member);
		break;
	case MACHINE_CREATED:
		created(machine, now_us, event);
		break;
	case MACHINE_PREPARED:
		prepared(machine, now_us, event);
		break;
	case MACHINE_DESTROYED:
		destroyed(machine, now_us, event);
		break;
	case MACHINE_FOUND:
		found(machine, now_us, event->name);
		break;
	case MACHINE_LISTED:
		listed(machine, now_us, event);
		break;
	}
}

void machine_step(struct machine *machine, uint64_t now_us, const struct machine_event *event)
{
	roster_reap(&machine->roster); /* all their actions have been carried out by now */
	machine->worse = false;
	handle(machine, now_us, event);
	serve(machine, now_us);
	retire(machine, now_us);
	fill(machine, now_us);
	/* After fill: what it has just begun is part of the outlook. */
	if (machine->worse)
		review_waiters(machine, now_us);
	watch_surplus(machine, now_us);
	start_destroys(machine);
	check_stopped(machine);
}
