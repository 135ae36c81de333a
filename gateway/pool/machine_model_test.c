/*
 * A million random events against a naive model of the world: which Sprites really exist, who waits, who was given what.
 *
 * The model knows nothing of lists and states; after every event it checks what must always hold. A failure prints the seed of
 * its episode: SG_MODEL_SEED=<seed> plays that episode alone, SG_MODEL_EVENTS=<n> plays more or fewer events.
 */
#include "gateway/pool/machine_model_rules.h"

/* --- random events ---------------------------------------------------------------------------- */

static struct waiter *free_waiter(struct model *model)
{
	for (size_t i = 0; i < ARRAY_LEN(model->waiters); i++)
		if (!model->waiters[i].used)
			return &model->waiters[i];
	return NULL;
}

static void claim(struct model *model)
{
	struct waiter *waiter = free_waiter(model);
	if (!waiter)
		return;
	waiter->used = true;
	waiter->machine = (struct machine_waiter){.tenant = chance(model, 60) ? 0 : any(model, model->tenants_used),
						  .deadline_us = model->now_us + any(model, 20 * SECOND_US)};
	if (chance(model, 5))
		waiter->machine.deadline_us = model->now_us;
	if (!model->stopping && spend_level(&model->machine.spend) != SPEND_NOTHING)
		model->tenants[waiter->machine.tenant].claimed_us = model->now_us;
	model->claims++;
	send(model, (struct machine_event){.type = MACHINE_CLAIM, .waiter = &waiter->machine});
}

static void cancel(struct model *model)
{
	if (!model->queued)
		return;
	size_t position = any(model, model->queued);
	struct machine_waiter *waiter = model->queue[position];
	drop_from_queue(model, position);
	end_waiter(waiter);
	send(model, (struct machine_event){.type = MACHINE_CANCEL, .waiter = waiter});
}

static struct pool_member *any_of(struct model *model, enum pool_state state)
{
	if (!model->machine.roster.counts[state])
		return NULL;
	struct pool_member *member = model->machine.roster.lists[state];
	for (size_t i = any(model, model->machine.roster.counts[state]); i; i--)
		member = member->next;
	return member;
}

static void release(struct model *model)
{
	struct pool_member *member = any_of(model, POOL_LEASED);
	if (!member)
		return;
	bool back = chance(model, 15);
	struct member *mine = member_of(model, member);
	mine->leased = false;
	mine->used |= !back;
	mine->clean &= back;
	model->tenants[mine->tenant].held--;
	send(model, (struct machine_event){.type = back ? MACHINE_RETURN : MACHINE_RELEASE, .member = member});
}

static void tell_kept(struct model *model)
{
	send(model, (struct machine_event){.type = MACHINE_KEPT, .kept = model->kept});
}

/* It becomes a session's: it is no Sprite of the pool any more. */
static void keep(struct model *model)
{
	struct pool_member *member = any_of(model, POOL_LEASED);
	if (!member || !exists(model, member->name))
		return;
	model->kept++;
	tell_kept(model);
	struct member *mine = member_of(model, member);
	mine->leased = mine->used = false;
	model->tenants[mine->tenant].held--;
	sprite_forget(sprite_find(model, member->name));
	send(model, (struct machine_event){.type = MACHINE_KEEP, .member = member});
}

static void end_kept(struct model *model)
{
	if (!model->kept)
		return;
	model->kept--;
	tell_kept(model);
}

/* Before it was handed over. */
static void lose_granted(struct model *model)
{
	struct pool_member *member = any_of(model, POOL_LEASED);
	struct waiter *waiter = free_waiter(model);
	if (!member || !waiter)
		return;
	struct member *mine = member_of(model, member);
	waiter->used = true;
	waiter->machine = (struct machine_waiter){
		.tenant = mine->tenant, .since_us = model->now_us, .deadline_us = model->now_us + any(model, 20 * SECOND_US)};
	mine->leased = false;
	model->tenants[mine->tenant].held--;
	if (!model->stopping)
		model->tenants[mine->tenant].claimed_us = model->now_us;
	send(model, (struct machine_event){.type = MACHINE_LOST, .member = member, .waiter = &waiter->machine});
}

static void lose(struct model *model)
{
	if (chance(model, 10)) {
		lose_granted(model);
		return;
	}
	struct pool_member *member = any_of(model, chance(model, 80) ? POOL_HOT : POOL_LEASED);
	if (!member)
		return;
	if (chance(model, 30))
		sprite_forget(sprite_find(model, member->name));
	send(model, (struct machine_event){.type = MACHINE_LOST, .member = member});
}

static uint64_t any_retry(struct model *model)
{
	return chance(model, 50) ? any(model, 15000) : 0;
}

static struct machine_event refusal(struct model *model, enum operation operation)
{
	enum provider_code codes[] = {operation == CREATE ? PROVIDER_RATE_LIMIT : PROVIDER_THROTTLED, PROVIDER_CAPACITY,
				      PROVIDER_UNAUTHORIZED};
	enum provider_code code = codes[any(model, chance(model, 80) ? 2 : 3)];
	struct provider_limit limit = {.left = UINT64_MAX};
	if (code == PROVIDER_CAPACITY && chance(model, 10))
		limit.running = 1 + any(model, 12);
	else if (operation == CREATE && !model->options.sizing.create_limit && chance(model, 50))
		limit = (struct provider_limit){.count = any(model, 20), .window_ms = any(model, 20000), .left = any(model, 20)};
	return (struct machine_event){.code = code, .retry_after_ms = any_retry(model), .limit = limit};
}

static void told(uint64_t *told_us, uint64_t at_us)
{
	if (at_us > *told_us)
		*told_us = at_us;
}

/* What may not be asked before the time that the provider said with this refusal. */
static void note_told(struct model *model, struct member *mine, enum operation operation, const struct machine_event *event)
{
	uint64_t at_us = model->now_us + event->retry_after_ms * 1000;
	if (event->code == PROVIDER_OK || !event->retry_after_ms)
		return;
	if (operation == DESTROY) {
		told(&mine->destroy_told_us, at_us);
		return;
	}
	if (operation == CREATE || event->code == PROVIDER_CAPACITY || event->code == PROVIDER_THROTTLED)
		told(&model->create_told_us, at_us);
	if (event->code == PROVIDER_CAPACITY || event->code == PROVIDER_THROTTLED)
		told(&model->wake_told_us, at_us);
	if (event->code == PROVIDER_THROTTLED)
		told(&model->restore_told_us, at_us);
}

static void note_limit(struct model *model, struct told_limit *told, uint64_t limit)
{
	if (limit)
		*told = (struct told_limit){.limit = limit, .until_us = model->now_us + 3600 * SECOND_US};
}

static struct machine_event answer_create(struct model *model, const char *name)
{
	if (!chance(model, model->trouble)) {
		sprite_new(model, name)->exists = true;
		return (struct machine_event){.code = PROVIDER_OK};
	}
	if (chance(model, 50))
		return refusal(model, CREATE);
	if (chance(model, 10))
		return (struct machine_event){.code = PROVIDER_UNAVAILABLE, .unsent = true};
	unsigned fate = (unsigned)any(model, 3);
	bool unanswered = chance(model, 50);
	if (fate == 1)
		sprite_new(model, name)->exists = true;
	if (fate == 2)
		sprite_new(model, name)->appears_us = model->now_us + 1 + any(model, unanswered ? UNANSWERED_US : FAILED_US);
	return (struct machine_event){.code = chance(model, 80) ? PROVIDER_UNAVAILABLE : PROVIDER_INVALID,
				      .retry_after_ms = chance(model, 20) ? any_retry(model) : 0,
				      .unanswered = unanswered};
}

static struct machine_event answer_prepare(struct model *model, struct pool_member *member)
{
	if (!exists(model, member->name))
		return (struct machine_event){.code = PROVIDER_GONE};
	if (chance(model, model->trouble)) {
		static const enum provider_code codes[] = {PROVIDER_GONE, PROVIDER_UNAVAILABLE, PROVIDER_POLICY, PROVIDER_INVALID};
		return chance(model, 20) ? refusal(model, PREPARE) : (struct machine_event){.code = codes[any(model, 4)]};
	}
	member_of(model, member)->open = true;
	return (struct machine_event){.code = PROVIDER_OK};
}

static struct machine_event answer_restore(struct model *model, struct pool_member *member)
{
	struct machine_event event = answer_prepare(model, member);
	member_of(model, member)->clean = event.code == PROVIDER_OK;
	return event;
}

static struct machine_event answer_destroy(struct model *model, const char *name)
{
	struct sprite *sprite = sprite_find(model, name);
	bool there = sprite && sprite->exists;
	if (chance(model, model->trouble)) {
		if (there && chance(model, 50))
			sprite_forget(sprite); /* it worked, the answer was lost */
		return chance(model, 20) ? refusal(model, DESTROY) : (struct machine_event){.code = PROVIDER_UNAVAILABLE};
	}
	if (!there)
		return (struct machine_event){.code = PROVIDER_GONE};
	if (sprite->denied < 2 && chance(model, model->trouble)) {
		sprite->denied++;
		return (struct machine_event){.code = PROVIDER_GONE};
	}
	sprite_forget(sprite);
	return (struct machine_event){.code = PROVIDER_OK};
}

static void finish(struct model *model, struct pool_member *member)
{
	struct member *mine = member_of(model, member);
	enum operation operation = mine->operation;
	struct machine_event event;
	mine->operation = NONE;
	static const enum machine_event_type types[] = {[CREATE] = MACHINE_CREATED,
							[PREPARE] = MACHINE_PREPARED,
							[WAKE] = MACHINE_PREPARED,
							[RESTORE] = MACHINE_RESTORED,
							[DESTROY] = MACHINE_DESTROYED};
	if (operation == CREATE)
		event = answer_create(model, member->name);
	else if (operation == DESTROY)
		event = answer_destroy(model, member->name);
	else
		event = operation == RESTORE ? answer_restore(model, member) : answer_prepare(model, member);
	event.member = member;
	event.type = types[operation];
	note_told(model, mine, operation, &event);
	if (operation != DESTROY)
		note_limit(model, &model->refused_limit, event.limit.running);
	if (operation == DESTROY && event.code != PROVIDER_GONE)
		mine->denied_us = 0;
	else if (operation == DESTROY && !mine->denied_us)
		mine->denied_us = model->now_us;
	send(model, event);
	/* Only OK, or two denials in a row that are 5 s apart, let it go. */
	CHECK(model, operation != DESTROY || member->state != POOL_GONE || event.code == PROVIDER_OK ||
			     model->now_us >= mine->denied_us + 5 * SECOND_US);
}

static bool finish_any(struct model *model)
{
	size_t first = any(model, model->machine.roster.capacity);
	for (size_t i = 0; i < model->machine.roster.capacity; i++) {
		size_t at = (first + i) % model->machine.roster.capacity;
		if (model->members[at].operation == NONE)
			continue;
		finish(model, &model->machine.roster.slots[at]);
		return true;
	}
	return false;
}

static void finish_listing(struct model *model)
{
	bool failed = chance(model, model->trouble);
	for (size_t i = 0; i < SPRITES; i++) {
		if (!model->sprites[i].exists || (failed && chance(model, 50)))
			continue;
		const char *name = model->sprites[i].name;
		model->finding = is_held(model, name) ? NULL : name;
		struct pool_member *known;
		DL_FOREACH (model->machine.roster.lists[POOL_DESTROYING], known)
			if (strcmp(known->name, name) == 0)
				member_of(model, known)->denied_us = 0;
		send(model, (struct machine_event){.type = MACHINE_FOUND, .name = name});
		DL_FOREACH (model->machine.roster.lists[POOL_DESTROYING], known)
			if (model->finding && strcmp(known->name, name) == 0)
				*member_of(model, known) =
					(struct member){.leftover = true, .operation = member_of(model, known)->operation};
		model->finding = NULL;
	}
	for (size_t i = 0; i < SPRITES && !failed; i++)
		CHECK(model, !model->sprites[i].exists || is_held(model, model->sprites[i].name));
	struct machine_event event = {.type = MACHINE_LISTED, .code = failed ? PROVIDER_UNAVAILABLE : PROVIDER_OK};
	if (!failed && chance(model, 50))
		event.limit = (struct provider_limit){.running = any(model, 16), .paused = any(model, 16)};
	if (!model->stopping)
		note_limit(model, &model->listed_limit, event.limit.running);
	model->listing = false;
	model->listed |= !failed;
	send(model, event);
}

static void pass_time(struct model *model, uint64_t us)
{
	uint64_t until_us = model->now_us + us;
	for (;;) {
		uint64_t due_us = machine_next_due(&model->machine);
		if (due_us > until_us)
			break;
		if (due_us > model->now_us)
			model->now_us = due_us;
		let_late_ones_appear(model);
		send(model, (struct machine_event){.type = MACHINE_TICK});
		CHECK(model, machine_next_due(&model->machine) > model->now_us);
	}
	model->now_us = until_us;
	for (size_t i = 0; i < model->queued; i++)
		CHECK(model, model->queue[i]->deadline_us > model->now_us);
	let_late_ones_appear(model);
}

static void random_event(struct model *model)
{
	uint64_t dice = any(model, 100);
	if (dice < 3)
		send(model, (struct machine_event){.type = MACHINE_INTENT, .deadline_us = model->now_us + 1 + any(model, 60 * SECOND_US)});
	else if (dice < 22)
		claim(model);
	else if (dice < 26)
		cancel(model);
	else if (dice < 42)
		chance(model, 5) ? keep(model) : release(model);
	else if (dice < 44)
		chance(model, 80) ? lose(model) : end_kept(model);
	else if (dice < 80)
		finish_any(model);
	else if (dice < 82 && model->listing)
		finish_listing(model);
	else
		pass_time(model, any(model, chance(model, 5) ? 60 * SECOND_US : SECOND_US));
}

/* --- episodes --------------------------------------------------------------------------------- */

static void choose_sizes(struct model *model, struct sizing_options *sizing)
{
	sizing->max = 1 + any(model, 12);
	sizing->hot = chance(model, 30) ? SIZING_AUTO : any(model, sizing->max + 1);
	sizing->warm = chance(model, 30) ? SIZING_AUTO : chance(model, 30) ? 0 : any(model, sizing->max + 1);
	sizing->running_limit = chance(model, 70) ? 0 : 1 + any(model, sizing->max);
	sizing->warm_limit = chance(model, 70) ? 0 : 1 + any(model, sizing->max);
	sizing->create_limit = chance(model, 50) ? 0 : 1 + (unsigned)any(model, 20);
	sizing->create_window_us = 60 * SECOND_US;
}

static void begin(struct model *model, uint64_t seed)
{
	*model = (struct model){.seed = seed, .random = seed, .now_us = SECOND_US};
	choose_sizes(model, &model->options.sizing);
	model->tenants_used = 1 + any(model, TENANTS);
	model->options.recycle = chance(model, 40);
	model->options.max_uses = 1 + (unsigned)any(model, 4);
	model->options.day_nusd = chance(model, 10) ? 1 + any(model, 1000000000) : 0;
	model->options.max_waiters = 1 + any(model, WAITERS);
	model->options.max_age_us = (20 + any(model, 600)) * SECOND_US;
	model->options.seed = seed | 1;
	model->trouble = chance(model, 30) ? 0 : (unsigned)any(model, 60);
	assert_int_equal(machine_init(&model->machine, &model->options), 0);
	/* What an earlier run left. */
	for (uint64_t n = chance(model, 50) ? any(model, 40) : 0; n; n--) {
		char name[16];
		snprintf(name, sizeof name, "old%u", model->names++);
		sprite_new(model, name)->exists = true;
	}
	if (chance(model, 20))
		claim(model);
	struct machine_event event = {.type = MACHINE_START};
	machine_step(&model->machine, model->now_us, &event);
	struct machine_action action;
	while (machine_next_action(&model->machine, &action))
		on_action(model, &action);
	while (model->listing)
		finish_listing(model);
}

/* Everything answers, everybody releases: nothing may be left. */
static void drain(struct model *model)
{
	bool in_time = chance(model, 80);
	uint64_t patience_us = in_time ? 100000 * SECOND_US : any(model, 30 * SECOND_US);
	model->stopping = true;
	send(model, (struct machine_event){.type = MACHINE_STOP, .deadline_us = model->now_us + patience_us});
	for (unsigned round = 0; !model->stopped; round++) {
		CHECK(model, round < 100000);
		if (in_time && round > 200)
			model->trouble = 0;
		if (model->listing)
			finish_listing(model);
		if (in_time)
			release(model);
		if (!(in_time || chance(model, 20)) || !finish_any(model))
			pass_time(model, SECOND_US);
	}
	CHECK(model, !in_time || !model->left);
	for (size_t i = 0; i < SPRITES && in_time && model->listed; i++)
		CHECK(model, (!model->sprites[i].exists || is_given_up(model, &model->sprites[i])) && !model->sprites[i].appears_us);
}

static size_t play(uint64_t seed)
{
	static struct model model;
	begin(&model, seed);
	while (model.events < EPISODE_EVENTS)
		random_event(&model);
	drain(&model);
	machine_deinit(&model.machine);
	return model.events;
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
		play(seed);
		return;
	}
	for (size_t played = 0; played < events;)
		played += play(++seed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_events_break_no_rule),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
