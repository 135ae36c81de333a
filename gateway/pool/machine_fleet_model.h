/*
 * machine_fleet_model - the naive world in which several machines share a pool: the Sprites that really exist, one store of records,
 * and what is on its way between them
 *
 * Commands of one machine reach the store in order. One may be carried out twice, or its answer may never come; what was not carried
 * out at all is only ever an operation, never a note.
 */
#pragma once

#include "gateway/pool/machine.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <utlist.h>

#include <cmocka.h>

#define EVENTS         1000000
#define EPISODE_EVENTS 10000
#define NODES          3
#define TENANTS        3
#define WAITERS        8
#define SPRITES        256
#define RECORDS        256
#define SESSIONS       4096
#define QUEUE          512
#define OPERATIONS     512
#define NAME           (PROVIDER_NAME_MAX + 1)
#define SECOND_US      UINT64_C(1000000)
#define SESSION_US     (15 * SECOND_US)
#define BEAT_US        (5 * SECOND_US)
#define RELIST_US      (10 * SECOND_US)
#define ANSWER_US      (9 * SECOND_US) /* an operation that was not answered until then is lost */
#define RECOVERY_US    (20 * SECOND_US)
#define UNKNOWN_US     (90 * SECOND_US)
#define STRIKE_US      (60 * SECOND_US)
#define PAUSE_US       (30 * SECOND_US) /* what has no channel is paused by the provider */
#define LINGER_US      (35 * SECOND_US) /* … and counts as running in the store so long */
#define CHANNEL_US     (60 * SECOND_US) /* a session's channel is kept so long */
#define QUIET_US       (100 * SECOND_US) /* … and it counts as running in the store so long after its last use */
#define LATE_US        (85 * SECOND_US) /* a creation that nobody answered takes effect this late at most */

#define CHECK(world, condition)                                                                                                       \
	do {                                                                                                                          \
		if (!(condition))                                                                                                     \
			fail_msg("seed %llu, event %zu: not so: %s", (unsigned long long)(world)->seed, (world)->events, #condition); \
	} while (0)

struct sprite {
	char name[NAME];
	bool exists;
	uint64_t appears_us; /* 0 = not on its way */
	uint64_t pauses_us;  /* 0 = it runs on */
	bool used;           /* a command of `tenant` ran in it */
	uint64_t tenant;
	struct provider_fence fence; /* of the last wake */
	bool contested;              /* somebody was refused, and destroys it */
	bool bound;                  /* it became a session's */
};

struct record {
	char name[NAME];
	enum pool_state state;
	uint64_t session;
	bool owned;
	uint64_t tenant, created_us, parked_us, strike_us, parking;
};

struct stray {
	char name[NAME];
	uint64_t strike_us;
};

/* The Sprite of a named session. */
struct kept {
	char name[NAME];
	bool in_use, asleep;
	uint64_t used_us;
};

struct session {
	uint64_t end_us;
	int node;
};

struct store {
	uint64_t inc, recovers_us; /* inc 0 = nothing is there */
	uint64_t listed_us;        /* when the last list was begun; 0 = there was none */
	size_t known[NODES];       /* sessions of which this node knew before a flush */
	bool back[NODES];
	struct record records[RECORDS];
	struct stray strays[SPRITES];
	struct session sessions[SESSIONS];
	struct kept kept[SPRITES]; /* no records, but they count */
	uint64_t latest, turn_us, parkings;
};

enum command_type { JOIN, BEAT, RESERVE, NOTE, FORGET, TAKE, ADOPT, SWEEP, RESTORE, LEAVE };

struct command {
	enum command_type type;
	uint64_t session, inc, sent_us;
	size_t known; /* join */
	uint64_t began_us; /* sweep */
	unsigned run;
	struct pool_member *member;
	char name[NAME];
	enum pool_state state;
	bool owned, own;
	uint64_t tenant;
	size_t stock, most;
	char (*names)[NAME]; /* of a sweep; the command's */
	size_t count;
};

/* What comes back to a machine. */
struct message {
	enum command_type type;
	int node;
	bool revoked, struck, adopted; /* about `record.name`, before the answer itself */
	struct command command;
	enum lease_code code;
	enum lease_refusal refusal;
	struct lease_fleet fleet;
	struct lease_record record;
	uint64_t session, inc;
};

enum operation_type { CREATE = 1, PREPARE, WAKE_UP, RESTORE_IT, DESTROY, LIST };

struct operation {
	enum operation_type type; /* 0 = free */
	int node;
	unsigned run;
	struct pool_member *member;
	char name[NAME];
	struct provider_fence fence;
	uint64_t asked_us, due_us;
	bool done;
	struct machine_event event;
};

struct waiter {
	struct machine_waiter machine;
	bool used;
};

struct node {
	struct machine machine;
	bool up, stopping, joining, beating;
	unsigned run;
	uint64_t stopped_us; /* stands still until then */
	uint64_t session, inc, fresh_us, beat_us;
	size_t known;     /* sessions that the last answer told of */
	uint64_t told_us; /* the provider said: no other Sprite before */
	struct lease_fleet fleet; /* what it was told last */
	size_t held[TENANTS + 1];
	bool told_fenced, told_flushed;
	struct command outbox[QUEUE];
	struct message inbox[QUEUE];
	size_t sent, received;
	struct waiter waiters[WAITERS];
	bool returns[16 + MACHINE_LEFTOVERS]; /* the leased one in this slot will not be used */
};

struct figures {
	uint64_t grants, crowded, steals, adoptions, flushes, fences, crashes, falls, taken, keeps, wakes;
};

struct world {
	uint64_t seed, random, now_us;
	size_t events, max, slack;
	size_t may_run; /* Sprites at once; 0 = all */
	size_t unknown; /* that a flush may have made so, until something is created again */
	unsigned trouble; /* percent of what goes wrong */
	unsigned demand;  /* of 1000 events: somebody claims */
	unsigned upsets;  /* of 10000 events: a machine crashes, stands still, begins, ends, or the store is flushed */
	bool flush_next, fall_next; /* the store is lost, or falls back, with the next event */
	unsigned names;
	struct store store, before; /* what a store that falls back has kept */
	uint64_t kept_us;
	bool fell;
	struct sprite sprites[SPRITES];
	struct operation operations[OPERATIONS];
	struct node nodes[NODES];
	uint64_t incarnation;
	struct figures figures;
};

static uint64_t any(struct world *world, uint64_t below)
{
	/* splitmix64 */
	uint64_t z = (world->random += UINT64_C(0x9e3779b97f4a7c15));
	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return (z ^ z >> 31) % below;
}

static bool chance(struct world *world, unsigned percent)
{
	return any(world, 100) < percent;
}

/* --- what really exists ----------------------------------------------------------------------- */

static struct sprite *sprite_find(struct world *world, const char *name)
{
	for (size_t i = 0; i < SPRITES; i++)
		if (strcmp(world->sprites[i].name, name) == 0)
			return &world->sprites[i];
	return NULL;
}

static bool exists(struct world *world, const char *name)
{
	const struct sprite *sprite = sprite_find(world, name);
	return sprite && sprite->exists;
}

static void sprite_make(struct world *world, const char *name, uint64_t later_us)
{
	struct sprite *sprite = sprite_find(world, "");
	CHECK(world, sprite);
	*sprite = (struct sprite){.exists = !later_us, .appears_us = later_us ? world->now_us + later_us : 0};
	strcpy(sprite->name, name);
}

/* --- the store -------------------------------------------------------------------------------- */

static struct record *record_find(struct store *store, const char *name)
{
	for (size_t i = 0; i < RECORDS; i++)
		if (strcmp(store->records[i].name, name) == 0)
			return &store->records[i];
	return NULL;
}

static struct stray *stray_find(struct store *store, const char *name)
{
	for (size_t i = 0; i < SPRITES; i++)
		if (strcmp(store->strays[i].name, name) == 0)
			return &store->strays[i];
	return NULL;
}

/* "" = a free one. */
static struct kept *kept_find(struct store *store, const char *name)
{
	for (size_t i = 0; i < SPRITES; i++)
		if (strcmp(store->kept[i].name, name) == 0)
			return &store->kept[i];
	return NULL;
}

static bool has_ended(const struct world *world, uint64_t session)
{
	return world->store.sessions[session].end_us <= world->now_us;
}

static bool is_recovering(const struct world *world)
{
	const struct store *store = &world->store;
	size_t most = 0, back = 0;
	for (size_t i = 0; i < NODES; i++) {
		most = store->known[i] > most ? store->known[i] : most;
		back += store->known[i] && store->back[i];
	}
	bool complete = back >= most || store->listed_us >= store->recovers_us + UNKNOWN_US;
	return world->now_us < store->recovers_us || !store->listed_us || !complete;
}

static size_t total(struct store *store)
{
	size_t n = 0;
	for (size_t i = 0; i < RECORDS; i++)
		n += store->records[i].name[0] != 0;
	for (size_t i = 0; i < SPRITES; i++)
		n += (store->strays[i].name[0] && !record_find(store, store->strays[i].name)) + (store->kept[i].name[0] != 0);
	return n;
}

/* What was not counted once has no place from then on. */
static bool session_runs(const struct world *world, struct kept *kept)
{
	kept->asleep |= !kept->in_use && kept->used_us + QUIET_US <= world->now_us;
	return !kept->asleep;
}

/* What was paused long ago does not run. */
static bool is_crowded(struct world *world)
{
	struct store *store = &world->store;
	size_t running = 0;
	if (!world->may_run)
		return false;
	for (size_t i = 0; i < RECORDS; i++) {
		const struct record *record = &store->records[i];
		running += record->name[0] && (record->state != POOL_WARM || record->parked_us + LINGER_US > world->now_us);
	}
	for (size_t i = 0; i < SPRITES; i++) {
		struct kept *kept = &store->kept[i];
		running += store->strays[i].name[0] && !record_find(store, store->strays[i].name);
		running += kept->name[0] && !record_find(store, kept->name) && session_runs(world, kept);
	}
	world->figures.crowded += running >= world->may_run;
	return running >= world->may_run;
}

/* One whose wake came to nothing has the number that it had. */
static void park(struct world *world, struct record *record)
{
	record->parked_us = world->now_us;
	if (record->state != POOL_PREPARING || !record->parking)
		record->parking = ++world->store.parkings;
}

static void record_add(struct world *world, const char *name, enum pool_state state, uint64_t session)
{
	struct record *record = record_find(&world->store, "");
	CHECK(world, record);
	*record = (struct record){.state = state, .session = session, .created_us = world->now_us, .parked_us = world->now_us};
	strcpy(record->name, name);
	if (state == POOL_WARM)
		park(world, record);
}

static struct lease_record tell(const struct world *world, const struct record *record)
{
	struct lease_record told = {.state = record->state,
				    .owned = record->owned,
				    .tenant = record->tenant,
				    .age_ms = (world->now_us - record->created_us) / 1000,
				    .idle_ms = (world->now_us - record->parked_us) / 1000,
				    .parking = record->parking};
	strcpy(told.name, record->name);
	return told;
}

/* By others than this session. */
static size_t leased_to(const struct store *store, uint64_t tenant, uint64_t session)
{
	size_t n = 0;
	for (size_t i = 0; i < RECORDS; i++) {
		const struct record *record = &store->records[i];
		n += record->name[0] && record->state == POOL_LEASED && record->tenant == tenant && record->session != session;
	}
	return n;
}

static struct lease_fleet fleet_of(struct world *world, uint64_t session)
{
	struct store *store = &world->store;
	struct lease_fleet fleet = {.total = total(store), .recovering = is_recovering(world)};
	for (size_t i = 0; i < RECORDS; i++) {
		const struct record *record = &store->records[i];
		if (!record->name[0])
			continue;
		fleet.own += record->session == session;
		fleet.ended += has_ended(world, record->session);
		fleet.warm += record->session != session && record->state == POOL_WARM && !record->owned;
		fleet.others_leased += record->session != session && record->state == POOL_LEASED;
	}
	for (uint64_t i = 1; i <= TENANTS; i++) {
		struct lease_tenant tenant = {.id = i, .held = leased_to(store, i, session)};
		/* It holds something, or has claimed lately. */
		if (tenant.held || chance(world, 30))
			fleet.tenants[fleet.tenant_count++] = tenant;
	}
	for (size_t i = 0; i <= store->latest; i++)
		fleet.instances += !has_ended(world, i);
	fleet.list = world->now_us >= store->turn_us;
	if (fleet.list)
		store->turn_us = world->now_us + (is_recovering(world) ? RELIST_US : STRIKE_US);
	fleet.others_crowd = world->may_run && chance(world, 10);
	fleet.make_way = fleet.others_crowd ? any(world, 3) : 0;
	return fleet;
}

static void store_join(struct world *world, const struct command *command, int node, struct message *answer)
{
	struct store *store = &world->store;
	if (!store->inc) {
		store->inc = ++world->incarnation;
		store->recovers_us = world->now_us + RECOVERY_US;
		store->listed_us = 0;
		memset(store->known, 0, sizeof store->known);
		memset(store->back, 0, sizeof store->back);
		store->turn_us = world->now_us;
	}
	if (command->known && command->inc != store->inc) {
		store->known[node] = command->known;
		store->back[node] = false;
	}
	CHECK(world, store->latest + 1 < SESSIONS);
	store->sessions[++store->latest] = (struct session){.end_us = world->now_us + SESSION_US, .node = node};
	answer->session = store->latest;
	answer->inc = store->inc;
	answer->fleet = fleet_of(world, store->latest);
}

static bool is_idle_or_coming(enum pool_state state)
{
	return state != POOL_LEASED && state != POOL_DESTROYING && state != POOL_RECYCLING;
}

static void store_reserve(struct world *world, const struct command *command, struct message *answer)
{
	struct record *record = record_find(&world->store, command->name);
	size_t stock = 0;
	for (size_t i = 0; i < RECORDS; i++)
		stock += world->store.records[i].name[0] && is_idle_or_coming(world->store.records[i].state);
	if (record) {
		answer->code = record->session == command->session ? LEASE_OK : LEASE_REFUSED;
		return;
	}
	answer->code = LEASE_REFUSED;
	if (is_recovering(world))
		answer->refusal = LEASE_RECOVERING;
	else if (total(&world->store) >= world->max)
		answer->refusal = LEASE_FULL;
	else if (command->stock && stock >= command->stock)
		answer->refusal = LEASE_STOCK;
	else if (is_crowded(world))
		answer->refusal = LEASE_CROWDED;
	else
		answer->code = LEASE_OK;
	if (answer->code != LEASE_OK)
		return;
	bool known = false;
	for (size_t i = 0; i < NODES; i++)
		known |= world->store.known[i] != 0;
	if (!known)
		world->slack += world->unknown;
	world->unknown = 0;
	record_add(world, command->name, POOL_INTENT, command->session);
}

static void store_note(struct world *world, const struct command *command, struct message *answer)
{
	struct record *record = record_find(&world->store, command->name);
	strcpy(answer->record.name, command->name);
	if (!record || record->session != command->session) {
		answer->revoked = record || command->type != FORGET;
		return;
	}
	if (command->type == FORGET) {
		*record = (struct record){0};
		return;
	}
	if (command->state == POOL_WARM && record->state != POOL_WARM)
		park(world, record);
	record->state = command->state;
	record->owned = command->owned;
	record->tenant = command->tenant;
}

static void refuse(struct message *answer, enum lease_refusal refusal)
{
	answer->code = LEASE_REFUSED;
	answer->refusal = refusal;
}

static void store_take(struct world *world, const struct command *command, struct message *answer)
{
	struct store *store = &world->store;
	struct record *record = command->name[0] ? record_find(store, command->name) : NULL;
	if (!command->name[0] && !is_recovering(world))
		for (size_t i = 0; i < RECORDS; i++) {
			struct record *other = &store->records[i];
			if (other->name[0] && other->state == POOL_WARM && !other->owned && other->session != command->session &&
			    (!record || other->parked_us > record->parked_us))
				record = other;
		}
	bool again = record && record->session == command->session && record->state == command->state;
	answer->refusal = LEASE_REFUSALS;
	answer->code = again || (record && record->state == POOL_WARM) ? LEASE_OK : LEASE_REFUSED;
	bool wakes = answer->code == LEASE_OK && !again && command->state == POOL_PREPARING && world->may_run;
	if (wakes && is_recovering(world))
		refuse(answer, LEASE_RECOVERING);
	else if (wakes && record->parked_us + LINGER_US <= world->now_us && is_crowded(world))
		refuse(answer, LEASE_CROWDED);
	if (answer->code != LEASE_OK)
		return;
	world->figures.steals += record->session != command->session;
	/* The moment in which two believe that they have it. */
	bool risky = record->session != command->session && world->upsets;
	world->flush_next |= risky && chance(world, 10);
	world->fall_next |= risky && chance(world, 10);
	record->state = command->state;
	record->session = command->session;
	answer->record = tell(world, record);
}

static void store_sweep(struct world *world, const struct command *command, struct message *answer,
			void (*struck)(struct world *world, const struct message *message, const char *name), struct message *said)
{
	struct store *store = &world->store;
	(void)answer;
	for (size_t i = 0; i < RECORDS; i++) {
		struct record *record = &store->records[i];
		bool listed = !record->name[0];
		for (size_t n = 0; n < command->count && !listed; n++)
			listed = strcmp(record->name, command->names[n]) == 0;
		if (listed)
			record->strike_us = 0;
		else if (!record->strike_us)
			record->strike_us = world->now_us;
		else if (record->session == command->session && world->now_us >= record->strike_us + STRIKE_US)
			struck(world, said, record->name);
	}
	for (size_t i = 0; i < SPRITES; i++) {
		struct stray *stray = &store->strays[i];
		bool listed = false;
		for (size_t n = 0; n < command->count && !listed; n++)
			listed = strcmp(stray->name, command->names[n]) == 0;
		if (!listed)
			*stray = (struct stray){0};
	}
	for (size_t n = 0; n < command->count; n++) {
		const char *name = command->names[n];
		struct stray *stray = stray_find(store, name);
		if (record_find(store, name) || kept_find(store, name)) {
			if (stray)
				*stray = (struct stray){0};
		} else if (!stray) {
			stray = stray_find(store, "");
			CHECK(world, stray);
			strcpy(stray->name, name);
			stray->strike_us = world->now_us;
		} else if (world->now_us >= stray->strike_us + STRIKE_US) {
			*stray = (struct stray){0};
			record_add(world, name, POOL_DESTROYING, command->session);
			struck(world, said, name);
		}
	}
	store->listed_us = command->began_us;
}
