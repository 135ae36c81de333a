#include "gateway/pool/pool_parts.h"

#include "gateway/base/log.h"

#include <errno.h>
#include <stdlib.h>
#include <utlist.h>

#define BEAT_US   UINT64_C(5000000)
#define REJOIN_US UINT64_C(1000000)

enum kind { JOIN, BEAT, RESERVE, TAKE, RUN, ADOPT, SWEEP, RESTORE, LEAVE };

static const char *const kinds[] = {
	[JOIN] = "join",   [BEAT] = "beat",   [RESERVE] = "reserve", [TAKE] = "take",   [RUN] = "run",
	[ADOPT] = "adopt", [SWEEP] = "sweep", [RESTORE] = "restore", [LEAVE] = "leave",
};

/* What was asked and not answered yet. It may outlive the pool: `pool` is NULL then. */
struct pool_question {
	struct pool_question *prev, *next;
	struct pool *pool;
	struct pool_member *member;
	enum kind kind;
	uint64_t session, asked_us;
	pool_placed placed; /* RUN */
	void *placed_ctx;
};

static void hear(struct pool *pool, const struct pool_question *question, const struct lease_result *result);

static int placed_code(const struct lease_result *result)
{
	if (result->code == LEASE_OK)
		return 0;
	return result->code == LEASE_REFUSED && result->refusal == LEASE_CROWDED ? POOL_E_BUSY : POOL_E_UNAVAILABLE;
}

static void on_done(void *ctx, const struct lease_result *result)
{
	CLEANUP(free_ptr) struct pool_question *question = ctx;
	struct pool *pool = question->pool;
	if (pool) {
		DL_DELETE(pool->leases.questions, question);
		hear(pool, question, result);
	}
	if (question->placed)
		question->placed(question->placed_ctx, placed_code(result), result->retry_after_ms);
}

/* NULL: no memory. */
static struct pool_question *pose(struct pool *pool, struct pool_member *member, enum kind kind)
{
	struct pool_question *question = malloc(sizeof *question);
	if (!question)
		return NULL;
	*question = (struct pool_question){
		.pool = pool, .member = member, .kind = kind, .session = pool->leases.session, .asked_us = pool_clock(pool)};
	DL_APPEND(pool->leases.questions, question);
	return question;
}

/* `r`: what was said to it at once. What was not asked at all counts as not answered. */
static void posed(struct pool *pool, struct pool_question *question, struct pool_member *member, enum kind kind, int r)
{
	if (r == 0)
		return;
	if (question) {
		DL_DELETE(pool->leases.questions, question);
		free(question);
	}
	const struct pool_question unasked = {.pool = pool, .member = member, .kind = kind, .session = pool->leases.session};
	hear(pool, &unasked, &(struct lease_result){.code = LEASE_LOST, .detail = uv_strerror(r)});
}

/* --- what is told ----------------------------------------------------------------------------- */

static struct lease_record record_of(const struct pool *pool, const struct pool_member *member, enum pool_state state)
{
	uint64_t now_us = pool_clock(pool);
	struct lease_record record = {.state = state,
				      .owned = member->owned,
				      .tenant = member->tenant ? member->tenant->id : member->owner,
				      .uses = member->uses,
				      .age_ms = (now_us - member->created_us) / 1000};
	memcpy(record.name, member->name, sizeof record.name);
	return record;
}

/* Nothing is on its way for them. What has only been asked for is not. */
static size_t unserved(const struct machine *machine)
{
	const size_t *counts = machine->roster.counts;
	size_t on_way = counts[POOL_CREATING] + counts[POOL_PREPARING] + counts[POOL_QUARANTINE];
	return machine->waiting > on_way ? machine->waiting - on_way : 0;
}

static struct lease_report report(const struct pool *pool)
{
	const struct machine *machine = &pool->machine;
	const struct gate *gate = &machine->gate;
	uint64_t now_us = pool_clock(pool), closed_us = gate->until_us[GATE_RATE_LIMIT];
	if (gate->until_us[GATE_CAPACITY] > closed_us)
		closed_us = gate->until_us[GATE_CAPACITY];
	struct lease_report said = {
		.hot_target = machine_hot_wanted(machine),
		.leased = machine->roster.counts[POOL_LEASED],
		.waiting = unserved(machine),
		.claims_per_1000s = (uint64_t)(demand_slow(&machine->demand) * 1000),
		.spent_nusd = machine->spend.total_nusd,
		.closed_ms = closed_us > now_us ? (closed_us - now_us) / 1000 : 0,
		.limit = {.count = gate->budget.ceiling, .window_ms = gate->budget.period_us / 1000, .left = UINT64_MAX},
	};
	said.running_limit = machine_running_limit(machine);
	said.claimant_count = fair_claimants(&machine->fair, now_us, said.claimants);
	return said;
}

/* --- sessions --------------------------------------------------------------------------------- */

static void join(struct pool *pool)
{
	struct pool_leases *leases = &pool->leases;
	leases->joining = true;
	leases->joined = false;
	leases->session++;
	struct pool_question *question = pose(pool, NULL, JOIN);
	posed(pool, question, NULL, JOIN, question ? leases->table.ops->join(leases->table.self, on_done, question) : -ENOMEM);
}

static void beat(struct pool *pool)
{
	struct pool_leases *leases = &pool->leases;
	leases->beating = true;
	leases->beat_us = pool_clock(pool) + BEAT_US;
	const struct lease_report said = report(pool);
	leases->said_nusd = said.spent_nusd;
	struct pool_question *question = pose(pool, NULL, BEAT);
	posed(pool, question, NULL, BEAT, question ? leases->table.ops->beat(leases->table.self, &said, on_done, question) : -ENOMEM);
}

static size_t collect(const struct pool *pool, bool parked, struct lease_record *records)
{
	size_t n = 0;
	for (int state = 0; state < POOL_GONE; state++) {
		const struct pool_member *member;
		DL_FOREACH (pool->machine.roster.lists[state], member)
			if (!member->foreign && state != POOL_INTENT && (parked ? !member->asked : state != POOL_WARM))
				records[n++] = record_of(pool, member, member->state);
	}
	return n;
}

/* Our members are written again. What is `parked` only where nobody can have taken it and lost that. */
static void restore(struct pool *pool, bool parked)
{
	struct pool_leases *leases = &pool->leases;
	CLEANUP(free_ptr) struct lease_record *records = calloc(pool->machine.roster.capacity, sizeof *records);
	size_t count = records ? collect(pool, parked, records) : 0;
	if (records && !count)
		return;
	struct pool_question *question = records ? pose(pool, NULL, RESTORE) : NULL;
	posed(pool, question, NULL, RESTORE,
	      question ? leases->table.ops->restore(leases->table.self, records, count, on_done, question) : -ENOMEM);
}

static void acknowledged(struct pool *pool, const struct pool_question *question, const struct lease_fleet *fleet)
{
	if (fleet->superseded && !pool->leases.superseded) {
		log_error("pool: another process runs as instance %s and has begun later: this one drains", pool->instance);
		pool->leases.superseded = true;
		if (pool->observer.on_superseded)
			pool->observer.on_superseded(pool->observer.ctx);
	}
	struct pool_leases *leases = &pool->leases;
	bool beat = question->kind == BEAT;
	const struct machine_event event = {.type = MACHINE_FLEET,
					    .fleet = fleet,
					    .sent_us = question->asked_us,
					    .said_nusd = beat ? leases->said_nusd : pool->machine.spend.total_nusd,
					    .counted = beat && leases->counting};
	leases->counting = beat;
	pool_step(pool, event);
}

static void joined(struct pool *pool, const struct pool_question *question, const struct lease_result *result)
{
	struct pool_leases *leases = &pool->leases;
	leases->joining = false;
	leases->beat_us = pool_clock(pool) + REJOIN_US;
	if (result->code != LEASE_OK) {
		log_warning("pool: join: %s", result->detail);
		return;
	}
	leases->joined = true;
	leases->beat_us = question->asked_us + BEAT_US; /* it counts as one */
	/* Before anything is reserved: what we have counts. */
	restore(pool, true);
	acknowledged(pool, question, result->fleet);
}

/* Something was refused as a whole. */
static void rejected(struct pool *pool, uint64_t session, enum lease_code code)
{
	struct pool_leases *leases = &pool->leases;
	bool fenced = code == LEASE_FENCED;
	if (session != leases->session || leases->joining || leases->ended || (!fenced && code != LEASE_FLUSHED))
		return;
	log_warning("pool: %s", fenced ? "our session has ended: what is not in use is given up"
				       : "the records are gone: what we have is written again");
	join(pool);
	pool_step(pool, (struct machine_event){.type = fenced ? MACHINE_FENCED : MACHINE_FLUSHED});
}

static void on_revoked(void *ctx, const char *name)
{
	struct pool *pool = ctx;
	log_warning("pool: %s is another session's by now", name);
	pool_step(pool, (struct machine_event){.type = MACHINE_REVOKED, .name = name});
}

static void on_lost(void *ctx)
{
	struct pool *pool = ctx;
	if (pool->leases.joined)
		restore(pool, false);
}

static void on_fenced(void *ctx)
{
	struct pool *pool = ctx;
	rejected(pool, pool->leases.session, LEASE_FENCED);
}

static void on_flushed(void *ctx)
{
	struct pool *pool = ctx;
	rejected(pool, pool->leases.session, LEASE_FLUSHED);
}

/* --- what the machine asks for ---------------------------------------------------------------- */

static void on_adopted(void *ctx, const struct lease_record *record)
{
	const struct pool_question *question = ctx;
	struct pool *pool = question->pool;
	if (!pool || question->session != pool->leases.session)
		return;
	bool outdated = !member_name_is_of(record->name, pool->gen);
	pool_step(pool, (struct machine_event){.type = MACHINE_ADOPTED, .record = record, .outdated = outdated});
}

static void on_struck(void *ctx, const char *name, bool recorded)
{
	const struct pool_question *question = ctx;
	struct pool *pool = question->pool;
	if (!pool || question->session != pool->leases.session)
		return;
	log_warning("pool: %s %s", name, recorded ? "does not exist any more" : "was not recorded: it is removed");
	pool_step(pool, (struct machine_event){.type = MACHINE_STRUCK, .name = name});
}

static int put(struct pool *pool, const struct machine_action *action, enum kind kind, struct pool_question *question)
{
	const struct lease_ops *ops = pool->leases.table.ops;
	void *self = pool->leases.table.self;
	struct pool_member *member = action->member;
	if (kind == ADOPT)
		return ops->adopt(self, action->most, action->own, on_adopted, on_done, question);
	if (kind == TAKE) {
		const struct lease_want want = {.name = member->name[0] ? member->name : NULL,
						.generation = pool->gen,
						.to = action->state,
						.running_limit = machine_running_limit(&pool->machine),
						.for_stock = action->stock};
		return ops->take(self, &want, on_done, question);
	}
	int r = member->name[0] ? 0 : pool_name_member(pool, member);
	const struct budget *budget = &pool->machine.gate.budget;
	const struct lease_wish wish = {.name = member->name,
					.max = pool->machine.options.sizing.max,
					.stock = action->stock,
					.create_limit = budget->ceiling,
					.create_window_ms = budget->period_us / 1000,
					.running_limit = machine_running_limit(&pool->machine)};
	return r < 0 ? r : ops->reserve(self, &wish, on_done, question);
}

static void put_question(struct pool *pool, const struct machine_action *action, enum kind kind)
{
	struct pool_question *question = pose(pool, action->member, kind);
	posed(pool, question, action->member, kind, question ? put(pool, action, kind, question) : -ENOMEM);
}

void pool_ask(struct pool *pool, const struct machine_action *action)
{
	const struct lease_table *table = &pool->leases.table;
	struct lease_record record;
	switch (action->type) {
	case MACHINE_DO_RESERVE:
		put_question(pool, action, RESERVE);
		break;
	case MACHINE_DO_TAKE:
		put_question(pool, action, TAKE);
		break;
	case MACHINE_DO_ADOPT:
		put_question(pool, action, ADOPT);
		break;
	case MACHINE_DO_NOTE:
		record = record_of(pool, action->member, action->state);
		table->ops->note(table->self, &record);
		break;
	case MACHINE_DO_FORGET:
		table->ops->forget(table->self, action->member->name);
		break;
	case MACHINE_DO_REVOKE:
		log_warning("pool: %s is in use, but not ours any more: whoever has it now destroys it", action->member->name);
		break;
	default:
		break;
	}
}

bool pool_is_shared(const struct pool *pool)
{
	return pool->leases.table.ops != NULL;
}

int pool_place(struct pool *pool, const char *sprite, pool_placed done, void *ctx)
{
	const struct lease_table *table = &pool->leases.table;
	if (!table->ops)
		return 1;
	struct pool_question *question = pose(pool, NULL, RUN);
	if (!question)
		return -ENOMEM;
	question->placed = done;
	question->placed_ctx = ctx;
	int r = table->ops->run(table->self, sprite, machine_running_limit(&pool->machine), on_done, question);
	if (r < 0) {
		DL_DELETE(pool->leases.questions, question);
		free(question);
	}
	return r;
}

/* --- answers ---------------------------------------------------------------------------------- */

static void hear(struct pool *pool, const struct pool_question *question, const struct lease_result *result)
{
	struct machine_event event = {.member = question->member,
				      .answer = result->code,
				      .refusal = result->refusal,
				      .retry_after_ms = result->retry_after_ms,
				      .record = result->record};
	if (result->code == LEASE_LOST)
		log_warning("pool: %s: %s", kinds[question->kind], result->detail);
	switch (question->kind) {
	case JOIN:
		joined(pool, question, result);
		return;
	case BEAT:
		pool->leases.beating = false;
		if (result->code == LEASE_OK && question->session == pool->leases.session && !pool->leases.joining)
			acknowledged(pool, question, result->fleet);
		break;
	case RESERVE:
		event.type = MACHINE_RESERVED;
		pool_step(pool, event);
		break;
	case TAKE:
		event.type = MACHINE_TAKEN;
		pool_step(pool, event);
		break;
	case ADOPT:
		event.type = MACHINE_ADOPTION;
		pool_step(pool, event);
		break;
	case LEAVE:
		pool->stopped = true;
		pool_wake(pool);
		return;
	case RUN:
		event.type = MACHINE_CROWDED;
		if (result->code == LEASE_REFUSED && result->refusal == LEASE_CROWDED)
			pool_step(pool, event);
		break;
	case SWEEP:
	case RESTORE:
		break;
	}
	rejected(pool, question->session, result->code);
}

/* --- listing ---------------------------------------------------------------------------------- */

void pool_leases_listing(struct pool *pool)
{
	pool->leases.count = 0;
	pool->leases.incomplete = false;
}

void pool_leases_found(struct pool *pool, const char *name, bool ours)
{
	struct pool_leases *leases = &pool->leases;
	if (!ours)
		return;
	if (leases->count == leases->room) {
		size_t room = leases->room ? 2 * leases->room : 64;
		void *names = reallocarray(leases->names, room, sizeof *leases->names);
		leases->incomplete |= !names;
		if (!names)
			return;
		leases->names = names;
		leases->room = room;
	}
	snprintf(leases->names[leases->count++], sizeof *leases->names, "%s", name);
}

void pool_leases_listed(struct pool *pool)
{
	struct pool_leases *leases = &pool->leases;
	CLEANUP(free_ptr) const char **names = leases->incomplete ? NULL : calloc(leases->count + 1, sizeof *names);
	for (size_t i = 0; names && i < leases->count; i++)
		names[i] = leases->names[i];
	struct pool_question *question = names ? pose(pool, NULL, SWEEP) : NULL;
	posed(pool, question, NULL, SWEEP,
	      question ? leases->table.ops->sweep(leases->table.self, names, leases->count, on_struck, on_done, question) : -ENOMEM);
}

/* --- life ------------------------------------------------------------------------------------- */

void pool_leases_start(struct pool *pool)
{
	const struct lease_table *table = &pool->leases.table;
	if (!table->ops)
		return;
	const struct lease_listener listener = {
		.revoked = on_revoked, .lost = on_lost, .fenced = on_fenced, .flushed = on_flushed, .ctx = pool};
	table->ops->listen(table->self, &listener);
	join(pool);
}

void pool_leases_tick(struct pool *pool)
{
	struct pool_leases *leases = &pool->leases;
	if (pool_leases_due(pool) > pool_clock(pool))
		return;
	if (leases->joined)
		beat(pool);
	else
		join(pool);
}

uint64_t pool_leases_due(const struct pool *pool)
{
	const struct pool_leases *leases = &pool->leases;
	bool idle = leases->session && !leases->joining && !leases->beating && !leases->ended;
	return idle ? leases->beat_us : UINT64_MAX;
}

void pool_leave(struct pool *pool)
{
	struct pool_leases *leases = &pool->leases;
	if (!leases->joined) {
		pool->stopped = true;
		pool_wake(pool);
		return;
	}
	leases->ended = true;
	struct pool_question *question = pose(pool, NULL, LEAVE);
	posed(pool, question, NULL, LEAVE, question ? leases->table.ops->leave(leases->table.self, on_done, question) : -ENOMEM);
}

void pool_leases_end(struct pool *pool)
{
	struct pool_leases *leases = &pool->leases;
	struct pool_question *question;
	DL_FOREACH (leases->questions, question)
		question->pool = NULL;
	if (leases->table.ops)
		leases->table.ops->listen(leases->table.self, NULL);
	free(leases->names);
	leases->names = NULL;
}
