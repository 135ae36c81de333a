/*
 * machine_fleet_wire - between the machines of a fleet and their store: what is asked for, what the store answers, what is heard of it;
 * and what must hold after each event that a machine gets
 *
 * Only the test includes it.
 */
#pragma once

#include "gateway/pool/machine_fleet_model.h"

static void send(struct world *world, struct node *node, struct machine_event event);

static int number_of(const struct world *world, const struct node *node)
{
	return (int)(node - world->nodes);
}

static bool is_running(const struct world *world, const struct node *node)
{
	return node->up && node->stopped_us <= world->now_us;
}

/* --- what must always hold -------------------------------------------------------------------- */

static size_t alive(const struct world *world)
{
	size_t n = 0;
	for (size_t i = 0; i < SPRITES; i++)
		n += world->sprites[i].exists || world->sprites[i].appears_us;
	for (size_t i = 0; i < OPERATIONS; i++)
		n += world->operations[i].type == CREATE && !world->operations[i].done;
	return n;
}

static size_t running(struct world *world)
{
	size_t n = 0;
	for (size_t i = 0; i < SPRITES; i++) {
		const struct sprite *sprite = &world->sprites[i];
		bool paused = sprite->pauses_us && sprite->pauses_us <= world->now_us;
		n += sprite->exists && !paused;
	}
	return n;
}

/* Of a store that has fallen back two may have taken the same one: only one of them ever finds it ready. */
static bool uses(const struct world *world, const struct pool_member *member)
{
	if (world->fell)
		return member->state == POOL_HOT || member->state == POOL_LEASED;
	return member->state != POOL_WARM && member->state != POOL_DESTROYING && member->state != POOL_GONE;
}

static bool is_used_elsewhere(struct world *world, const struct node *node, const char *name)
{
	for (size_t i = 0; i < NODES; i++) {
		struct node *other = &world->nodes[i];
		if (other == node || !other->up)
			continue;
		const struct pool_member *member = roster_find(&other->machine.roster, name);
		if (member && uses(world, member))
			return true;
	}
	return false;
}

static void check(struct world *world)
{
	CHECK(world, alive(world) <= world->max + world->slack);
	/* A store that falls back has forgotten what was woken. */
	CHECK(world, !world->may_run || world->fell || running(world) <= world->may_run + world->slack);
	for (size_t i = 0; i < NODES; i++) {
		struct node *node = &world->nodes[i];
		if (!node->up)
			continue;
		CHECK(world, node->machine.roster.impossible == 0);
		for (int state = 0; state < POOL_DESTROYING; state++) {
			const struct pool_member *member;
			DL_FOREACH (node->machine.roster.lists[state], member)
				CHECK(world, !uses(world, member) || !member->name[0] || !is_used_elsewhere(world, node, member->name));
		}
	}
}

static bool is_fresh(const struct world *world, const struct node *node)
{
	return node->fresh_us && world->now_us < node->fresh_us + 10 * SECOND_US;
}

/* --- what a machine asks for ------------------------------------------------------------------ */

static void post(struct world *world, struct node *node, struct command command)
{
	CHECK(world, node->sent < QUEUE);
	command.session = node->session;
	command.inc = node->inc;
	command.sent_us = world->now_us;
	command.run = node->run;
	node->outbox[node->sent++] = command;
}

static void drop_inbox(struct node *node)
{
	for (size_t i = 0; i < node->received; i++)
		if (node->inbox[i].type == SWEEP && !node->inbox[i].struck)
			free(node->inbox[i].command.names);
	node->received = 0;
}

static void drop_outbox(struct node *node)
{
	for (size_t i = 0; i < node->sent; i++)
		free(node->outbox[i].names);
	node->sent = 0;
}

static struct command about(enum command_type type, const struct machine_action *action)
{
	const struct pool_member *member = action->member;
	struct command command = {.type = type,
				  .member = action->member,
				  .state = action->state,
				  .owned = member->owned,
				  .tenant = member->tenant ? member->tenant->id : member->owner,
				  .stock = action->stock};
	snprintf(command.name, sizeof command.name, "%s", member->name);
	return command;
}

static void join(struct world *world, struct node *node)
{
	size_t kept = 0;
	/* Notes that were not sent are dropped. */
	for (size_t i = 0; i < node->sent; i++)
		if (node->outbox[i].type != NOTE && node->outbox[i].type != FORGET)
			node->outbox[kept++] = node->outbox[i];
	node->sent = kept;
	node->joining = true;
	post(world, node, (struct command){.type = JOIN, .known = node->known ? node->known + !is_fresh(world, node) : 0});
}

/* As far as the store knows: one that was flushed, or fell back, may have forgotten. */
static bool is_sessions(struct world *world, const char *name)
{
	const struct sprite *sprite = sprite_find(world, name);
	return name[0] && sprite && sprite->bound && kept_find(&world->store, name);
}

static void operate(struct world *world, struct node *node, const struct machine_action *action, enum operation_type type)
{
	size_t i = 0;
	while (i < OPERATIONS && world->operations[i].type)
		i++;
	CHECK(world, i < OPERATIONS);
	struct operation *operation = &world->operations[i];
	*operation = (struct operation){.type = type,
					.node = number_of(world, node),
					.run = node->run,
					.member = action->member,
					.asked_us = world->now_us,
					.due_us = world->now_us + 1 + any(world, (chance(world, 10) ? 25 : 3) * SECOND_US)};
	if (!action->member)
		return;
	operation->fence = action->member->fence;
	snprintf(operation->name, sizeof operation->name, "%s", action->member->name);
}

/* By what it holds, and what it was told that the others do: what is free is nobody's, and who is not alone holds less than that. */
static void check_fair(struct world *world, const struct node *node, uint64_t tenant)
{
	const struct machine *machine = &node->machine;
	size_t ours = roster_total(&machine->roster) - machine->roster.counts[POOL_INTENT] - machine->lease.stealing;
	size_t theirs = world->max > ours ? world->max - ours : 0;
	size_t taken = node->fleet.others_leased < theirs ? node->fleet.others_leased : theirs, held = node->held[tenant];
	bool alone = true;
	for (uint64_t i = 1; i <= TENANTS; i++) {
		taken += node->held[i];
		alone &= i == tenant || !node->held[i];
	}
	for (size_t i = 0; i < node->fleet.tenant_count; i++) {
		const struct lease_tenant *told = &node->fleet.tenants[i];
		held += told->id == tenant ? told->held : 0;
		alone &= told->id == tenant;
	}
	CHECK(world, taken < world->max && (alone || held < world->max - taken));
}

static void on_grant(struct world *world, struct node *node, const struct machine_action *action)
{
	struct sprite *sprite = sprite_find(world, action->member->name);
	uint64_t tenant = action->waiter->tenant;
	CHECK(world, is_fresh(world, node) && ((sprite && sprite->exists) || world->fell));
	CHECK(world, !sprite || !sprite->used || sprite->tenant == tenant);
	CHECK(world, !sprite || !sprite->bound);
	CHECK(world, !is_used_elsewhere(world, node, action->member->name));
	check_fair(world, node, tenant);
	node->held[tenant]++;
	CONTAINER_OF(action->waiter, struct waiter, machine)->used = false;
	size_t slot = (size_t)(action->member - node->machine.roster.slots);
	node->returns[slot] = chance(world, 15);
	if (!node->returns[slot] && sprite) {
		sprite->used = true;
		sprite->tenant = tenant;
	}
	world->figures.grants++;
}

static void sprite_pauses(struct world *world, const char *name)
{
	struct sprite *sprite = name[0] ? sprite_find(world, name) : NULL;
	if (sprite && !sprite->pauses_us)
		sprite->pauses_us = world->now_us + PAUSE_US;
}

static void on_action(struct world *world, struct node *node, const struct machine_action *action)
{
	switch (action->type) {
	case MACHINE_DO_LIST:
		operate(world, node, action, LIST);
		break;
	case MACHINE_DO_CREATE:
		/* It was recorded before. */
		CHECK(world, is_fresh(world, node) && action->member->name[0] && world->now_us >= node->told_us);
		operate(world, node, action, CREATE);
		break;
	case MACHINE_DO_PREPARE:
		CHECK(world, world->now_us >= node->told_us);
		operate(world, node, action, PREPARE);
		break;
	case MACHINE_DO_WAKE:
		CHECK(world, is_fresh(world, node) && world->now_us >= node->told_us);
		operate(world, node, action, WAKE_UP);
		break;
	case MACHINE_DO_RESTORE:
		operate(world, node, action, RESTORE_IT);
		break;
	case MACHINE_DO_DESTROY:
		CHECK(world, !is_sessions(world, action->member->name));
		operate(world, node, action, DESTROY);
		break;
	case MACHINE_DO_GRANT:
		on_grant(world, node, action);
		break;
	case MACHINE_DO_REFUSE:
		CONTAINER_OF(action->waiter, struct waiter, machine)->used = false;
		break;
	case MACHINE_DO_STOPPED:
		post(world, node, (struct command){.type = LEAVE});
		break;
	case MACHINE_DO_RESERVE:
		if (!action->member->name[0])
			snprintf(action->member->name, NAME, "s%u", world->names++);
		post(world, node, about(RESERVE, action));
		break;
	case MACHINE_DO_TAKE:
		post(world, node, about(TAKE, action));
		break;
	case MACHINE_DO_NOTE:
	case MACHINE_DO_FORGET:
		if (!node->joining)
			post(world, node, about(action->type == MACHINE_DO_NOTE ? NOTE : FORGET, action));
		break;
	case MACHINE_DO_ADOPT:
		post(world, node, (struct command){.type = ADOPT, .most = action->most, .own = action->own});
		break;
	case MACHINE_DO_CLOSE:
		sprite_pauses(world, action->member->name);
		break;
	case MACHINE_DO_REVOKE:
	case MACHINE_DO_ABANDON:
		break;
	}
}

/* As it is told; what it gives back it does not hold any more. */
static void note_event(struct node *node, const struct machine_event *event)
{
	if (event->type == MACHINE_FLEET)
		node->fleet = *event->fleet;
	memset(node->held, 0, sizeof node->held);
	bool returns = event->type == MACHINE_RETURN || event->type == MACHINE_RELEASE || event->type == MACHINE_KEEP;
	const struct pool_member *member;
	DL_FOREACH (node->machine.roster.lists[POOL_LEASED], member)
		node->held[member->tenant->id] += !returns || member != event->member;
}

static void send(struct world *world, struct node *node, struct machine_event event)
{
	note_event(node, &event);
	machine_step(&node->machine, world->now_us, &event);
	struct machine_action action;
	while (machine_next_action(&node->machine, &action))
		on_action(world, node, &action);
	check(world);
	world->events++;
}

/* --- the store answers ------------------------------------------------------------------------ */

static struct message *say(struct world *world, struct node *node, const struct message *message)
{
	CHECK(world, node->received < QUEUE);
	node->inbox[node->received] = *message;
	return &node->inbox[node->received++];
}

static void say_struck(struct world *world, const struct message *message, const char *name)
{
	struct message said = *message;
	said.struck = true;
	snprintf(said.record.name, sizeof said.record.name, "%s", name);
	said.command.names = NULL;
	say(world, &world->nodes[said.node], &said);
}

static void store_adopt(struct world *world, const struct command *command, const struct message *message)
{
	size_t most = command->most;
	for (size_t i = 0; i < RECORDS; i++) {
		struct record *record = &world->store.records[i];
		if (!record->name[0])
			continue;
		bool ended = has_ended(world, record->session) && record->session != command->session && most;
		if (!ended && !(command->own && record->session == command->session))
			continue;
		most -= ended;
		if (kept_find(&world->store, record->name)) {
			*record = (struct record){0};
			continue;
		}
		world->figures.adoptions += ended;
		if (ended && record->state != POOL_WARM)
			record->state = POOL_DESTROYING;
		record->session = command->session;
		struct message said = *message;
		said.adopted = true;
		said.record = tell(world, record);
		say(world, &world->nodes[said.node], &said);
	}
}

/* Also of what another run of the same node left. */
static void store_restore(struct world *world, const struct command *command, struct message *answer)
{
	struct record *record = record_find(&world->store, command->name);
	snprintf(answer->record.name, sizeof answer->record.name, "%s", command->name);
	if (record && record->session != command->session) {
		answer->revoked = true;
		return;
	}
	if (!record) {
		record_add(world, command->name, command->state, command->session);
		record = record_find(&world->store, command->name);
		CHECK(world, record);
	}
	if (command->state == POOL_WARM && record->state != POOL_WARM)
		park(world, record);
	record->state = command->state;
	record->owned = command->owned;
	record->tenant = command->tenant;
}

static void carry_out(struct world *world, const struct command *command, struct message *answer)
{
	struct store *store = &world->store;
	if (command->type == JOIN) {
		store_join(world, command, answer->node, answer);
		return;
	}
	if (command->inc != store->inc) {
		answer->code = LEASE_FLUSHED;
		return;
	}
	if (has_ended(world, command->session)) {
		answer->code = LEASE_FENCED;
		return;
	}
	switch (command->type) {
	case BEAT:
		store->sessions[command->session].end_us = world->now_us + SESSION_US;
		store->back[answer->node] = true;
		answer->fleet = fleet_of(world, command->session);
		break;
	case RESERVE:
		store_reserve(world, command, answer);
		break;
	case NOTE:
	case FORGET:
		store_note(world, command, answer);
		break;
	case TAKE:
		store_take(world, command, answer);
		break;
	case ADOPT:
		store_adopt(world, command, answer);
		break;
	case SWEEP:
		store_sweep(world, command, answer, say_struck, answer);
		break;
	case RESTORE:
		store_restore(world, command, answer);
		break;
	case LEAVE:
		store->sessions[command->session].end_us = world->now_us;
		break;
	case JOIN:
		break;
	}
}

/* The next command of this machine reaches the store, and its answer goes back, as far as both do. */
static bool pass_command(struct world *world, struct node *node)
{
	if (!node->sent)
		return false;
	struct command command = node->outbox[0];
	memmove(node->outbox, node->outbox + 1, --node->sent * sizeof node->outbox[0]);
	struct message answer = {
		.type = command.type, .node = number_of(world, node), .command = command, .session = command.session, .inc = command.inc};
	bool is_note = command.type == NOTE || command.type == FORGET || command.type == RESTORE;
	bool lost = !is_note && (chance(world, world->trouble / 3) || world->now_us > command.sent_us + ANSWER_US);
	if (!lost || chance(world, 50))
		carry_out(world, &command, &answer);
	if (chance(world, world->trouble / 3) && command.type != JOIN && command.type != SWEEP && command.type != ADOPT) {
		struct message again = answer;
		carry_out(world, &command, &again);
		answer = again;
	}
	if (lost)
		answer = (struct message){.type = command.type,
					  .node = answer.node,
					  .command = command,
					  .code = LEASE_LOST,
					  .session = command.session,
					  .inc = command.inc};
	if (node->up && node->run == command.run)
		say(world, node, &answer);
	else
		free(command.names);
	return true;
}

/* --- and the machine hears it ----------------------------------------------------------------- */

static void restore_all(struct world *world, struct node *node)
{
	for (int state = POOL_CREATING; state < POOL_GONE; state++) {
		struct pool_member *member;
		DL_FOREACH (node->machine.roster.lists[state], member)
			if (!member->foreign && member->name[0])
				post(world, node, about(RESTORE, &(struct machine_action){.member = member, .state = member->state}));
	}
}

static void joined(struct world *world, struct node *node, const struct message *message)
{
	node->joining = false;
	if (message->code != LEASE_OK) {
		join(world, node);
		return;
	}
	node->session = message->session;
	node->inc = message->inc;
	node->told_fenced = node->told_flushed = false;
	node->fresh_us = message->command.sent_us;
	node->known = message->fleet.instances + (message->fleet.ended != 0);
	restore_all(world, node);
	send(world, node, (struct machine_event){.type = MACHINE_FLEET, .fleet = &message->fleet, .sent_us = message->command.sent_us});
}

/* Something was refused as a whole: said once, and joined again. */
static void hear_refusal(struct world *world, struct node *node, const struct message *message)
{
	bool fenced = message->code == LEASE_FENCED && !node->told_fenced;
	bool flushed = message->code == LEASE_FLUSHED && !node->told_flushed;
	if (message->session != node->session || message->inc != node->inc || node->joining || (!fenced && !flushed))
		return;
	node->told_fenced |= fenced;
	node->told_flushed |= flushed;
	world->figures.fences += fenced;
	if (fenced)
		node->fresh_us = 0;
	join(world, node);
	send(world, node, (struct machine_event){.type = fenced ? MACHINE_FENCED : MACHINE_FLUSHED});
}

static void hear(struct world *world, struct node *node, const struct message *message)
{
	struct machine_event event = {.member = message->command.member,
				      .answer = message->code,
				      .refusal = message->refusal,
				      .record = &message->record,
				      .name = message->record.name};
	if (message->adopted || message->struck || message->revoked) {
		if (message->session != node->session)
			return;
		event.type = message->adopted ? MACHINE_ADOPTED : message->struck ? MACHINE_STRUCK : MACHINE_REVOKED;
		event.outdated = message->adopted && chance(world, 5);
		send(world, node, event);
		return;
	}
	switch (message->type) {
	case JOIN:
		joined(world, node, message);
		return;
	case BEAT:
		node->beating = false;
		if (message->code == LEASE_OK && message->session == node->session && !node->joining) {
			node->fresh_us = message->command.sent_us;
			node->known = message->fleet.instances + (message->fleet.ended != 0);
			send(world, node,
			     (struct machine_event){.type = MACHINE_FLEET, .fleet = &message->fleet, .sent_us = message->command.sent_us});
		}
		break;
	case RESERVE:
		event.type = MACHINE_RESERVED;
		send(world, node, event);
		break;
	case TAKE:
		event.type = MACHINE_TAKEN;
		send(world, node, event);
		break;
	case ADOPT:
		event.type = MACHINE_ADOPTION;
		send(world, node, event);
		break;
	case LEAVE:
		if (node->stopping) {
			node->up = false;
			drop_inbox(node);
			drop_outbox(node);
			machine_deinit(&node->machine);
			return;
		}
		break;
	case SWEEP:
		free(message->command.names);
		break;
	case NOTE:
	case FORGET:
	case RESTORE:
		break;
	}
	hear_refusal(world, node, message);
}

static bool pass_message(struct world *world, struct node *node)
{
	if (!node->received || !is_running(world, node))
		return false;
	struct message message = node->inbox[0];
	memmove(node->inbox, node->inbox + 1, --node->received * sizeof node->inbox[0]);
	hear(world, node, &message);
	return true;
}
