/*
 * A million random events for several machines that share a pool, on a naive store: crashes, flushes, a store that forgets its last
 * second, answers that are lost or come twice, owners that stand still and go on, Sprites that become a named session's.
 *
 * Always: no more Sprites than the maximum, in all machines together; no Sprite that two machines use; none that serves a second
 * token; none that is a session's is granted or destroyed; no more run than may, those of sessions too; nothing is granted, woken or created without a young
 * beat and a record, nor before the time that the provider said. After a quiet time every Sprite is known to one machine and to the
 * store. A failure prints the seed of its episode: SG_MODEL_SEED=<seed> plays it alone, SG_MODEL_EVENTS=<n> plays more or fewer events.
 */
#include "gateway/pool/machine_fleet_wire.h"

/* --- the provider ----------------------------------------------------------------------------- */

static void list_all(struct world *world, struct node *node, struct operation *operation)
{
	operation->event.code = chance(world, world->trouble) ? PROVIDER_UNAVAILABLE : PROVIDER_OK;
	operation->event.type = MACHINE_LISTED;
	if (operation->event.code != PROVIDER_OK || !node->up || node->run != operation->run)
		return;
	struct command sweep = {.type = SWEEP, .began_us = operation->asked_us, .names = calloc(SPRITES, NAME)};
	for (size_t i = 0; i < SPRITES; i++)
		if (world->sprites[i].exists)
			strcpy(sweep.names[sweep.count++], world->sprites[i].name);
	post(world, node, sweep);
}

static void create_it(struct world *world, struct operation *operation)
{
	unsigned fate = chance(world, world->trouble) ? (unsigned)any(world, 4) : 4;
	uint64_t at_us = operation->asked_us + any(world, LATE_US);
	operation->event = (struct machine_event){.type = MACHINE_CREATED, .code = PROVIDER_UNAVAILABLE, .unanswered = fate < 3};
	if (fate == 4)
		operation->event.code = PROVIDER_OK;
	if (fate == 3)
		operation->event.code = PROVIDER_RATE_LIMIT;
	if (fate == 4 || fate == 1)
		sprite_make(world, operation->name, 0);
	if (fate == 2 && at_us > world->now_us)
		sprite_make(world, operation->name, at_us - world->now_us);
}

/* The Sprite itself knows who has woken it since it was parked. */
static bool is_taken(struct sprite *sprite, const struct operation *operation)
{
	struct provider_fence *seen = &sprite->fence, fence = operation->fence;
	if (operation->type == RESTORE_IT)
		*seen = (struct provider_fence){0};
	if (!fence.parking || (seen->parking == fence.parking && seen->taker == fence.taker))
		return false;
	if (seen->parking >= fence.parking) {
		/* Whoever is refused destroys it, whatever has become of it. */
		sprite->contested = true;
		sprite->bound = false;
		return true;
	}
	*seen = fence;
	return false;
}

static void use_it(struct world *world, struct operation *operation)
{
	struct sprite *sprite = sprite_find(world, operation->name);
	if (sprite)
		sprite->pauses_us = 0;
	operation->event.type = operation->type == RESTORE_IT ? MACHINE_RESTORED : MACHINE_PREPARED;
	operation->event.code = !exists(world, operation->name)     ? PROVIDER_GONE
				: chance(world, world->trouble / 2) ? PROVIDER_UNAVAILABLE
								    : PROVIDER_OK;
	if (operation->event.code == PROVIDER_OK && is_taken(sprite_find(world, operation->name), operation)) {
		operation->event.code = PROVIDER_TAKEN;
		world->figures.taken++;
		return;
	}
	if (!chance(world, world->trouble / 4))
		return;
	operation->event.code = chance(world, 50) ? PROVIDER_CAPACITY : PROVIDER_THROTTLED;
	operation->event.retry_after_ms = 1 + any(world, 9000);
}

static void destroy_it(struct world *world, struct operation *operation)
{
	struct sprite *sprite = sprite_find(world, operation->name);
	bool there = sprite && sprite->exists, fails = chance(world, world->trouble / 2);
	operation->event.type = MACHINE_DESTROYED;
	operation->event.code = fails ? PROVIDER_UNAVAILABLE : there ? PROVIDER_OK : PROVIDER_GONE;
	if (there && (!fails || chance(world, 50)))
		*sprite = (struct sprite){0};
}

static void take_effect(struct world *world, struct operation *operation)
{
	operation->done = true;
	switch (operation->type) {
	case CREATE:
		create_it(world, operation);
		break;
	case DESTROY:
		destroy_it(world, operation);
		break;
	case LIST:
		list_all(world, &world->nodes[operation->node], operation);
		break;
	default:
		use_it(world, operation);
		break;
	}
}

/* It takes effect, and its machine hears of it when it runs. */
static bool pass_operation(struct world *world, struct operation *operation)
{
	struct node *node = &world->nodes[operation->node];
	if (!operation->type || (operation->type == LIST && !is_running(world, node) && node->up && node->run == operation->run))
		return false;
	if (!operation->done)
		take_effect(world, operation);
	bool alive_yet = node->up && node->run == operation->run;
	if (alive_yet && !is_running(world, node))
		return false;
	struct operation done = *operation;
	operation->type = 0;
	done.event.member = done.member;
	uint64_t told_us = world->now_us + done.event.retry_after_ms * 1000;
	if (alive_yet && done.event.retry_after_ms && told_us > node->told_us)
		node->told_us = told_us;
	if (alive_yet)
		send(world, node, done.event);
	return true;
}

/* --- machines come and go --------------------------------------------------------------------- */

static void begin(struct world *world, struct node *node)
{
	size_t max = world->max;
	struct machine_options options = {.sizing = {.hot = any(world, 2),
						     .warm = chance(world, 20) ? 0 : any(world, max + 1),
						     .max = max,
						     .running_limit = world->may_run},
					  .max_waiters = WAITERS,
					  .max_age_us = (60 + any(world, 600)) * SECOND_US,
					  .recycle = chance(world, 50),
					  .shared = true,
					  .seed = (any(world, UINT64_MAX) << 1) | 1};
	CHECK(world, machine_init(&node->machine, &options) == 0);
	node->up = true;
	node->run++;
	node->stopping = node->joining = node->beating = node->told_fenced = node->told_flushed = false;
	node->stopped_us = node->fresh_us = node->session = node->told_us = node->inc = node->known = 0;
	memset(node->waiters, 0, sizeof node->waiters);
	node->fleet = (struct lease_fleet){0};
	drop_inbox(node);
	send(world, node, (struct machine_event){.type = MACHINE_START});
	join(world, node);
}

/* What it has sent may still arrive, and what it has asked of the provider may still happen. */
static void crash(struct world *world, struct node *node)
{
	for (size_t i = 0; i < OPERATIONS; i++) {
		struct operation *operation = &world->operations[i];
		if (operation->type != CREATE || operation->node != number_of(world, node) || operation->run != node->run ||
		    operation->done)
			continue;
		uint64_t at_us = operation->asked_us + any(world, LATE_US);
		if (chance(world, 80))
			sprite_make(world, operation->name, at_us > world->now_us ? at_us - world->now_us : 0);
		operation->type = 0;
	}
	world->figures.crashes++;
	node->up = false;
	drop_inbox(node);
	machine_deinit(&node->machine);
}

/* What may yet appear and will not be written again is beyond the maximum only if nobody is left who knows of it. */
static void flush(struct world *world)
{
	struct store *store = &world->store;
	for (size_t i = 0; i < SPRITES; i++)
		world->unknown += world->sprites[i].appears_us != 0;
	for (size_t i = 0; i < NODES; i++) {
		const struct node *node = &world->nodes[i];
		if (node->up)
			world->unknown += node->machine.roster.counts[POOL_INTENT] + node->machine.roster.counts[POOL_CREATING];
	}
	world->flush_next = false;
	world->figures.flushes++;
	memset(store->records, 0, sizeof store->records);
	memset(store->strays, 0, sizeof store->strays);
	memset(store->kept, 0, sizeof store->kept);
	store->inc = 0;
}

/* It comes back as it was a while ago, and nobody is told. What is beyond the maximum until its maker has written it again: */
static void fall_back(struct world *world)
{
	struct store *store = &world->store;
	uint64_t latest = store->latest, parkings = store->parkings;
	world->fall_next = false;
	if (store->inc != world->before.inc)
		return;
	*store = world->before;
	for (uint64_t i = store->latest + 1; i <= latest; i++)
		store->sessions[i].end_us = 0;
	store->latest = latest;
	store->parkings = parkings;
	for (size_t i = 0; i < SPRITES; i++)
		world->slack += world->sprites[i].name[0] && !record_find(store, world->sprites[i].name) &&
				!kept_find(store, world->sprites[i].name);
	for (size_t i = 0; i < NODES; i++)
		if (world->nodes[i].up)
			world->slack +=
				world->nodes[i].machine.roster.counts[POOL_INTENT] + world->nodes[i].machine.roster.counts[POOL_CREATING];
	world->fell = true;
	world->figures.falls++;
}

/* --- time ------------------------------------------------------------------------------------- */

static void keep(struct world *world)
{
	if (world->now_us < world->kept_us)
		return;
	world->before = world->store;
	world->kept_us = world->now_us + SECOND_US;
}

static void beat(struct world *world, struct node *node)
{
	if (node->beating || node->joining || node->stopping || world->now_us < node->beat_us)
		return;
	node->beating = true;
	node->beat_us = world->now_us + BEAT_US;
	post(world, node, (struct command){.type = BEAT});
}

static void tick(struct world *world, struct node *node)
{
	while (is_running(world, node) && machine_next_due(&node->machine) <= world->now_us) {
		send(world, node, (struct machine_event){.type = MACHINE_TICK});
		CHECK(world, machine_next_due(&node->machine) > world->now_us);
	}
	if (is_running(world, node))
		beat(world, node);
}

static void appear(struct world *world)
{
	for (size_t i = 0; i < SPRITES; i++) {
		struct sprite *sprite = &world->sprites[i];
		if (!sprite->appears_us || sprite->appears_us > world->now_us)
			continue;
		sprite->appears_us = 0;
		sprite->exists = true;
	}
}

static void pass_time(struct world *world, uint64_t us)
{
	uint64_t until_us = world->now_us + us;
	while (world->now_us < until_us) {
		uint64_t step_us = until_us - world->now_us < SECOND_US / 4 ? until_us - world->now_us : SECOND_US / 4;
		world->now_us += step_us;
		keep(world);
		appear(world);
		for (size_t i = 0; i < OPERATIONS; i++)
			if (world->operations[i].type && world->operations[i].due_us <= world->now_us)
				pass_operation(world, &world->operations[i]);
		for (size_t i = 0; i < NODES; i++)
			tick(world, &world->nodes[i]);
	}
}

/* --- random events ---------------------------------------------------------------------------- */

static void claim(struct world *world, struct node *node)
{
	for (size_t i = 0; i < WAITERS; i++) {
		struct waiter *waiter = &node->waiters[i];
		if (waiter->used)
			continue;
		waiter->used = true;
		waiter->machine = (struct machine_waiter){.tenant = 1 + any(world, TENANTS),
							  .deadline_us = world->now_us + any(world, 40 * SECOND_US)};
		send(world, node, (struct machine_event){.type = MACHINE_CLAIM, .waiter = &waiter->machine});
		return;
	}
}

static bool release(struct world *world, struct node *node)
{
	struct pool_member *member = node->machine.roster.lists[POOL_LEASED];
	if (!member)
		return false;
	bool back = node->returns[member - node->machine.roster.slots];
	send(world, node, (struct machine_event){.type = back ? MACHINE_RETURN : MACHINE_RELEASE, .member = member});
	return true;
}

static void lose(struct world *world, struct node *node)
{
	struct pool_member *member = node->machine.roster.lists[POOL_HOT];
	if (member)
		send(world, node, (struct machine_event){.type = MACHINE_LOST, .member = member});
}

/* Written down first. One that another has taken by then is destroyed all the same, and the session told so. */
static void become_sessions(struct world *world, struct node *node)
{
	struct pool_member *member = node->machine.roster.lists[POOL_LEASED];
	if (!member || member->foreign || node->returns[member - node->machine.roster.slots])
		return;
	struct sprite *sprite = sprite_find(world, member->name);
	const struct record *record = record_find(&world->store, member->name);
	if (!sprite || !sprite->exists || (record && record->session != node->session))
		return;
	struct kept *kept = kept_find(&world->store, "");
	CHECK(world, kept);
	*kept = (struct kept){.in_use = true, .used_us = world->now_us};
	strcpy(kept->name, member->name);
	sprite->bound = !sprite->contested;
	world->figures.keeps++;
	if (world->upsets && chance(world, 10))
		crash(world, node);
	else
		send(world, node, (struct machine_event){.type = MACHINE_KEEP, .member = member});
}

/* Its Sprite is destroyed by whoever ends it. */
static void end_session(struct world *world, struct kept *kept)
{
	struct sprite *sprite = kept->name[0] ? sprite_find(world, kept->name) : NULL;
	if (sprite)
		*sprite = (struct sprite){0};
	*kept = (struct kept){0};
}

/* A command of the session ends, or begins: it finds a channel, or its Sprite is woken if it may run. */
static void use_session(struct world *world, struct node *node, struct kept *kept)
{
	struct sprite *sprite = kept->name[0] ? sprite_find(world, kept->name) : NULL;
	if (!sprite || !sprite->bound)
		return;
	if (kept->in_use) {
		bool long_ago = chance(world, 50);
		kept->in_use = false;
		kept->used_us = world->now_us - (long_ago ? QUIET_US : 0);
		sprite->pauses_us = world->now_us + (long_ago ? 0 : CHANNEL_US + PAUSE_US);
		return;
	}
	if (world->may_run && !session_runs(world, kept) && (is_recovering(world) || is_crowded(world))) {
		send(world, node, (struct machine_event){.type = MACHINE_CROWDED});
		return;
	}
	world->figures.wakes += kept->asleep;
	*kept = (struct kept){.in_use = true, .used_us = world->now_us};
	strcpy(kept->name, sprite->name);
	sprite->pauses_us = 0;
}

static void upset(struct world *world, struct node *node)
{
	uint64_t dice = any(world, 100);
	if (!node->up)
		begin(world, node);
	else if (dice < 30)
		crash(world, node);
	else if (dice < 80)
		node->stopped_us = world->now_us + any(world, 40 * SECOND_US);
	else if (dice < 84 && world->store.inc)
		flush(world);
	else if (dice < 90 && world->store.inc)
		fall_back(world);
	else if (!node->stopping && is_running(world, node)) {
		node->stopping = true;
		send(world, node, (struct machine_event){.type = MACHINE_STOP, .deadline_us = world->now_us + any(world, 60 * SECOND_US)});
	}
}

static void random_event(struct world *world)
{
	struct node *node = &world->nodes[any(world, NODES)];
	uint64_t dice = any(world, 1000);
	bool running = is_running(world, node);
	if (world->flush_next)
		flush(world);
	else if (world->fall_next)
		fall_back(world);
	else if (any(world, 10000) < world->upsets)
		upset(world, node);
	else if (dice < 330)
		for (uint64_t n = any(world, 8); n && pass_command(world, node); n--)
			;
	else if (dice < 630)
		for (uint64_t n = any(world, 8); n && pass_message(world, node); n--)
			;
	else if (dice < 700)
		pass_operation(world, &world->operations[any(world, 16)]);
	else if (dice < 700 + world->demand && running)
		claim(world, node);
	else if (dice < 860 && running)
		release(world, node);
	else if (dice < 870 && running)
		lose(world, node);
	else if (dice < 880 && running)
		become_sessions(world, node);
	else if (dice < 892)
		end_session(world, &world->store.kept[any(world, 16)]);
	else if (dice < 900 && running)
		use_session(world, node, &world->store.kept[any(world, 8)]);
	else
		pass_time(world, any(world, chance(world, 1) ? 10 * SECOND_US : SECOND_US / 3));
}

/* --- episodes --------------------------------------------------------------------------------- */

static void answer_all(struct world *world)
{
	for (size_t i = 0; i < NODES; i++)
		while (pass_command(world, &world->nodes[i]) || pass_message(world, &world->nodes[i]))
			;
}

/* Everything is carried out and answered, and everybody gives back. */
static void settle(struct world *world, uint64_t us)
{
	uint64_t until_us = world->now_us + us;
	while (world->now_us < until_us) {
		answer_all(world);
		for (size_t i = 0; i < NODES; i++)
			while (is_running(world, &world->nodes[i]) && release(world, &world->nodes[i]))
				;
		for (size_t i = 0; i < OPERATIONS; i++)
			pass_operation(world, &world->operations[i]);
		pass_time(world, SECOND_US);
	}
}

/* Members of which the store knows; who has parked one learns only later that another took it. */
static size_t held_by(struct world *world, struct node *node)
{
	size_t n = 0;
	for (int state = 0; state < POOL_GONE; state++) {
		const struct pool_member *member;
		DL_FOREACH (node->machine.roster.lists[state], member) {
			const struct record *record = record_find(&world->store, member->name);
			bool is_ours = record && record->session == node->session;
			CHECK(world, is_ours || state == POOL_WARM);
			n += is_ours;
		}
	}
	return n;
}

static void nothing_is_lost(struct world *world)
{
	size_t held = 0;
	for (size_t n = 0; n < NODES; n++)
		held += held_by(world, &world->nodes[n]);
	for (size_t i = 0; i < SPRITES; i++) {
		const struct sprite *sprite = &world->sprites[i];
		if (!sprite->name[0])
			continue;
		const struct record *record = record_find(&world->store, sprite->name);
		CHECK(world, sprite->exists && record && !has_ended(world, record->session));
		struct node *node = &world->nodes[world->store.sessions[record->session].node];
		struct pool_member *member = roster_find(&node->machine.roster, sprite->name);
		CHECK(world, node->up && node->session == record->session && member && !member->foreign);
	}
	CHECK(world, total(&world->store) == held);
}

static void calm(struct world *world)
{
	world->trouble = world->upsets = 0;
	world->flush_next = world->fall_next = false;
	for (size_t i = 0; i < NODES; i++) {
		struct node *node = &world->nodes[i];
		node->stopped_us = 0;
	}
	for (size_t i = 0; i < SPRITES; i++)
		end_session(world, &world->store.kept[i]);
	settle(world, 90 * SECOND_US);
	for (size_t i = 0; i < NODES; i++)
		if (!world->nodes[i].up)
			begin(world, &world->nodes[i]);
	settle(world, 500 * SECOND_US);
	answer_all(world);
	nothing_is_lost(world);
}

static size_t play(uint64_t seed, struct figures *all)
{
	static struct world world;
	world = (struct world){.seed = seed, .random = seed, .now_us = 1000 * SECOND_US};
	world.max = 1 + any(&world, 9);
	world.may_run = world.max > 1 && chance(&world, 50) ? 1 + any(&world, world.max - 1) : 0;
	world.trouble = chance(&world, 30) ? 0 : (unsigned)any(&world, 30);
	world.demand = 1 + (unsigned)any(&world, chance(&world, 50) ? 80 : 8);
	world.upsets = chance(&world, 20) ? 0 : 1 + (unsigned)any(&world, 20);
	for (size_t i = 0; i < NODES; i++)
		begin(&world, &world.nodes[i]);
	while (world.events < EPISODE_EVENTS)
		random_event(&world);
	calm(&world);
	for (size_t i = 0; i < NODES; i++) {
		drop_inbox(&world.nodes[i]);
		drop_outbox(&world.nodes[i]);
		machine_deinit(&world.nodes[i].machine);
	}
	all->grants += world.figures.grants;
	all->crowded += world.figures.crowded;
	all->steals += world.figures.steals;
	all->adoptions += world.figures.adoptions;
	all->fences += world.figures.fences;
	all->flushes += world.figures.flushes;
	all->crashes += world.figures.crashes;
	all->falls += world.figures.falls;
	all->taken += world.figures.taken;
	all->keeps += world.figures.keeps;
	all->wakes += world.figures.wakes;
	return world.events;
}

static uint64_t setting(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);
	return text && *text ? strtoull(text, NULL, 10) : otherwise;
}

static void random_events_break_no_rule(void **state)
{
	(void)state;
	uint64_t seed = setting("SG_MODEL_SEED", 0);
	uint64_t events = setting("SG_MODEL_EVENTS", EVENTS);
	if (seed) {
		play(seed, &(struct figures){0});
		return;
	}
	struct figures all = {0};
	for (size_t played = 0; played < events;)
		played += play(++seed, &all);
	/* A world in which nothing happens proves nothing. */
	print_message(
		"seeds 1 to %llu: %llu grants, %llu times as many ran as may, %llu stolen, %llu adopted, %llu fenced, %llu flushed, %llu crashed, "
		"%llu fell back, %llu taken before, %llu became a session's, %llu of those woken\n",
		(unsigned long long)seed, (unsigned long long)all.grants, (unsigned long long)all.crowded, (unsigned long long)all.steals,
		(unsigned long long)all.adoptions, (unsigned long long)all.fences, (unsigned long long)all.flushes,
		(unsigned long long)all.crashes, (unsigned long long)all.falls, (unsigned long long)all.taken,
		(unsigned long long)all.keeps, (unsigned long long)all.wakes);
	assert_true(events < EVENTS || (all.grants && all.crowded && all.steals && all.adoptions && all.fences && all.flushes &&
					all.crashes && all.falls && all.taken && all.keeps && all.wakes));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_events_break_no_rule),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
