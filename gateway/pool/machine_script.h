/*
 * machine_script - plays scripts against the machine, for its tests
 *
 * Each row is an event and the actions that must follow it, both as text. Members are called a, b, c … in the order in which the
 * machine has them created, waiters 1, 2, 3 …
 */
#pragma once

#include "gateway/pool/machine.h"

#include "gateway/base/buf.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <utlist.h>

#include <cmocka.h>

#define WAITERS 10

struct row {
	const char *event;
	const char *actions;
};

struct script {
	struct machine machine;
	struct machine_waiter waiters[WAITERS];
	uint64_t now_us;
	char next_name;
	struct buf out;
};

static const char *const codes[] = {
	[PROVIDER_OK] = "ok",
	[PROVIDER_GONE] = "gone",
	[PROVIDER_RATE_LIMIT] = "rate-limit",
	[PROVIDER_CAPACITY] = "capacity",
	[PROVIDER_THROTTLED] = "throttled",
	[PROVIDER_UNAUTHORIZED] = "unauthorized",
	[PROVIDER_UNAVAILABLE] = "unavailable",
	[PROVIDER_POLICY] = "policy",
	[PROVIDER_TAKEN] = "taken",
	[PROVIDER_INVALID] = "invalid",
};

static const char *const refusals[] = {
	[POOL_E_FULL] = "full",     [POOL_E_DEADLINE] = "deadline", [POOL_E_STOPPING] = "stopping", [POOL_E_UNAVAILABLE] = "unavailable",
	[POOL_E_BUDGET] = "budget", [POOL_E_BUSY] = "busy",
};

static enum provider_code code_of(const char *text)
{
	for (size_t i = 0; i < ARRAY_LEN(codes); i++)
		if (strcmp(codes[i], text) == 0)
			return (enum provider_code)i;
	fail_msg("no such code: %s", text);
	return PROVIDER_INVALID;
}

static struct pool_member *member_of(struct script *script, const char *name)
{
	for (int state = 0; state < POOL_GONE; state++) {
		struct pool_member *member;
		DL_FOREACH (script->machine.roster.lists[state], member)
			if (strcmp(member->name, name) == 0)
				return member;
	}
	fail_msg("no such member: %s", name);
	return NULL;
}

static int number_of(const struct script *script, const struct machine_waiter *waiter)
{
	return (int)(waiter - script->waiters);
}

static void say(struct script *script, const char *format, ...) PRINTF(2, 3);

static void say(struct script *script, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	if (script->out.len)
		assert_int_equal(buf_append(&script->out, SLICE(", ")), 0);
	assert_int_equal(buf_vprintf(&script->out, format, args), 0);
	va_end(args);
}

static void say_action(struct script *script, const struct machine_action *action)
{
	switch (action->type) {
	case MACHINE_DO_LIST:
		say(script, "list");
		break;
	case MACHINE_DO_CREATE:
		if (!action->member->name[0])
			action->member->name[0] = script->next_name++;
		say(script, "create %s", action->member->name);
		break;
	case MACHINE_DO_PREPARE:
		say(script, "prepare %s", action->member->name);
		break;
	case MACHINE_DO_WAKE:
		say(script, "wake %s", action->member->name);
		break;
	case MACHINE_DO_RESTORE:
		say(script, "restore %s", action->member->name);
		break;
	case MACHINE_DO_CLOSE:
		say(script, "close %s", action->member->name);
		break;
	case MACHINE_DO_DESTROY:
		say(script, "destroy %s", action->member->name);
		break;
	case MACHINE_DO_GRANT:
		say(script, "grant %d %s %s", number_of(script, action->waiter), action->member->name, pool_tier_name(action->tier));
		break;
	case MACHINE_DO_REFUSE:
		say(script, "refuse %d %s %d", number_of(script, action->waiter), refusals[action->refusal], (int)action->retry_after_ms);
		break;
	case MACHINE_DO_STOPPED:
		say(script, "stopped %d", (int)action->left);
		break;
	case MACHINE_DO_RESERVE:
		if (!action->member->name[0])
			action->member->name[0] = script->next_name++;
		say(script, "reserve %s %d", action->member->name, (int)action->stock);
		break;
	case MACHINE_DO_TAKE:
		say(script, "take %s %s", action->member->name[0] ? action->member->name : "any", pool_state_name(action->state));
		break;
	case MACHINE_DO_NOTE:
		say(script, "note %s %s", action->member->name, pool_state_name(action->state));
		break;
	case MACHINE_DO_FORGET:
		say(script, "forget %s", action->member->name);
		break;
	case MACHINE_DO_ADOPT:
		say(script, "adopt %d%s", (int)action->most, action->own ? " own" : "");
		break;
	case MACHINE_DO_REVOKE:
		say(script, "revoke %s", action->member->name);
		break;
	case MACHINE_DO_ABANDON:
		say(script, "abandon %s", action->member->name);
		break;
	}
}

static void send(struct script *script, struct machine_event event)
{
	machine_step(&script->machine, script->now_us, &event);
	struct machine_action action;
	while (machine_next_action(&script->machine, &action))
		say_action(script, &action);
}

/* `ms` is the Retry-After, `limit` the running limit that was said. */
static bool send_outcome(struct script *script, const char *verb, const char *who, const char *code, const char *ms, const char *limit)
{
	static const char *const verbs[] = {"created", "prepared", "restored", "destroyed"};
	for (size_t i = 0; i < ARRAY_LEN(verbs); i++) {
		if (strcmp(verbs[i], verb) != 0)
			continue;
		bool unsent = strcmp(code, "unsent") == 0, lost = strcmp(code, "lost") == 0;
		send(script, (struct machine_event){.type = MACHINE_CREATED + i,
						    .member = member_of(script, who),
						    .code = unsent || lost ? PROVIDER_UNAVAILABLE : code_of(code),
						    .retry_after_ms = (uint64_t)atoi(ms),
						    .limit = {.left = UINT64_MAX, .running = (uint64_t)atoi(limit)},
						    .unsent = unsent,
						    .unanswered = lost});
		return true;
	}
	return false;
}

static bool send_member(struct script *script, const char *verb, const char *who, const char *waiter)
{
	static const char *const verbs[] = {"return", "release", "lost", "keep"};
	for (size_t i = 0; i < ARRAY_LEN(verbs); i++)
		if (strcmp(verbs[i], verb) == 0) {
			send(script, (struct machine_event){.type = MACHINE_RETURN + i,
							    .member = member_of(script, who),
							    .waiter = *waiter ? &script->waiters[atoi(waiter)] : NULL});
			return true;
		}
	return false;
}

/* What a beat tells, as key=number. It tells no more than that: all else is 0. */
static size_t told(const char *key, const char *a, const char *b, const char *c, const char *d)
{
	const char *const words[] = {a, b, c, d};
	size_t len = strlen(key);
	for (size_t i = 0; i < ARRAY_LEN(words); i++)
		if (strncmp(words[i], key, len) == 0 && words[i][len] == '=')
			return (size_t)atoi(words[i] + len + 1);
	return 0;
}

static void send_fleet(struct script *script, const char *a, const char *b, const char *c, const char *d)
{
	struct lease_fleet fleet = {.own = told("own", a, b, c, d),
				    .warm = told("warm", a, b, c, d),
				    .others_hot_target = told("hot", a, b, c, d),
				    .others_claims_per_1000s = told("claims", a, b, c, d),
				    .others_leased = told("leased", a, b, c, d),
				    .others_crowd = told("crowd", a, b, c, d),
				    .make_way = told("way", a, b, c, d),
				    .day_left_ms = 86400000};
	/* What tenant 1 holds there, and another that wants something. */
	const size_t first = told("first", a, b, c, d), wants = told("wants", a, b, c, d);
	if (first)
		fleet.tenants[fleet.tenant_count++] = (struct lease_tenant){.id = 1, .held = first};
	if (wants)
		fleet.tenants[fleet.tenant_count++] = (struct lease_tenant){.id = wants};
	fleet.total = fleet.own + fleet.warm + told("more", a, b, c, d);
	fleet.instances = 2;
	send(script, (struct machine_event){.type = MACHINE_FLEET, .fleet = &fleet, .sent_us = script->now_us});
}

/* As many run as may; `ms` says when to ask again. "any" has no name. */
static void send_crowded(struct script *script, const char *who, const char *ms)
{
	struct pool_member *member = member_of(script, strcmp(who, "any") == 0 ? "" : who);
	send(script, (struct machine_event){.type = member->state == POOL_INTENT ? MACHINE_RESERVED : MACHINE_TAKEN,
					    .member = member,
					    .answer = LEASE_REFUSED,
					    .refusal = LEASE_CROWDED,
					    .retry_after_ms = (uint64_t)atoi(ms)});
}

static bool send_answer(struct script *script, const char *verb, const char *who, const char *ms)
{
	if (strcmp(verb, "reserved") == 0) {
		send(script, (struct machine_event){.type = MACHINE_RESERVED, .member = member_of(script, who), .answer = LEASE_OK});
	} else if (strcmp(verb, "taken") == 0) {
		struct lease_record record = {.state = POOL_WARM, .parking = 1};
		strcpy(record.name, who);
		send(script, (struct machine_event){
				     .type = MACHINE_TAKEN, .member = member_of(script, who), .answer = LEASE_OK, .record = &record});
	} else if (strcmp(verb, "crowded") == 0) {
		send_crowded(script, who, ms);
	} else {
		return false;
	}
	return true;
}

static void say_counts(struct script *script)
{
	for (int state = 0; state < POOL_GONE; state++)
		if (script->machine.roster.counts[state])
			say(script, "%s %d", pool_state_name((enum pool_state)state), (int)script->machine.roster.counts[state]);
	if (script->machine.waiting)
		say(script, "waiting %d", (int)script->machine.waiting);
}

/* Ticks when the machine wants them, and only then. */
static void pass_time(struct script *script, uint64_t us)
{
	uint64_t until_us = script->now_us + us;
	for (;;) {
		uint64_t due_us = machine_next_due(&script->machine);
		if (due_us > until_us)
			break;
		script->now_us = due_us > script->now_us ? due_us : script->now_us;
		send(script, (struct machine_event){.type = MACHINE_TICK});
		assert_true(machine_next_due(&script->machine) > script->now_us);
	}
	script->now_us = until_us;
}

static void play(struct script *script, const char *text)
{
	char verb[16] = "", a[32] = "", b[16] = "", c[16] = "", d[16] = "";
	sscanf(text, "%15s %31s %15s %15s %15s", verb, a, b, c, d);
	uint64_t ms = (uint64_t)atoi(a);
	if (send_outcome(script, verb, a, b, c, d) || send_member(script, verb, a, b) || send_answer(script, verb, a, b))
		return;
	if (strcmp(verb, "start") == 0) {
		send(script, (struct machine_event){.type = MACHINE_START});
	} else if (strcmp(verb, "stop") == 0) {
		send(script, (struct machine_event){.type = MACHINE_STOP, .deadline_us = script->now_us + ms * 1000});
	} else if (strcmp(verb, "pass") == 0) {
		script->now_us += ms * 1000;
	} else if (strcmp(verb, "wait") == 0) {
		pass_time(script, ms * 1000);
	} else if (strcmp(verb, "claim") == 0) {
		struct machine_waiter *waiter = &script->waiters[atoi(a)];
		waiter->tenant = (uint64_t)atoi(c);
		waiter->deadline_us = script->now_us + (uint64_t)atoi(b) * 1000;
		send(script, (struct machine_event){.type = MACHINE_CLAIM, .waiter = waiter});
	} else if (strcmp(verb, "intent") == 0) {
		send(script, (struct machine_event){.type = MACHINE_INTENT, .deadline_us = script->now_us + ms * 1000});
	} else if (strcmp(verb, "cancel") == 0) {
		send(script, (struct machine_event){.type = MACHINE_CANCEL, .waiter = &script->waiters[atoi(a)]});
	} else if (strcmp(verb, "unplaced") == 0) {
		send(script, (struct machine_event){.type = MACHINE_CROWDED});
	} else if (strcmp(verb, "kept") == 0) {
		send(script, (struct machine_event){.type = MACHINE_KEPT, .kept = (size_t)atoi(a), .running = (size_t)atoi(b)});
	} else if (strcmp(verb, "fleet") == 0) {
		send_fleet(script, a, b, c, d);
	} else if (strcmp(verb, "struck") == 0) {
		send(script, (struct machine_event){.type = MACHINE_STRUCK, .name = a});
	} else if (strcmp(verb, "found") == 0) {
		send(script, (struct machine_event){.type = MACHINE_FOUND, .name = a});
	} else if (strcmp(verb, "listed") == 0) {
		send(script, (struct machine_event){.type = MACHINE_LISTED,
						    .code = code_of(a),
						    .retry_after_ms = (uint64_t)atoi(b),
						    .limit = {.running = (uint64_t)atoi(c), .paused = (uint64_t)atoi(d)}});
	} else if (strcmp(verb, "counts") == 0) {
		say_counts(script);
	} else if (strcmp(verb, "creation") == 0) {
		say(script, "%s", gate_text(&script->machine.gate));
	} else {
		fail_msg("no such event: %s", text);
	}
}

static void begin(struct script *script, const struct machine_options *wanted)
{
	*script = (struct script){.now_us = 1000000000, .next_name = 'a', .out = BUF_MAX(4096)};
	struct machine_options options = *wanted;
	options.seed = 7;
	if (!options.max_waiters)
		options.max_waiters = 8;
	if (!options.max_age_us)
		options.max_age_us = UINT64_C(3600000000);
	options.sizing.create_window_us = 60000000;
	assert_int_equal(machine_init(&script->machine, &options), 0);
}

static void expect(struct script *script, const char *event, const char *actions)
{
	play(script, event);
	char *got = buf_take_string(&script->out);
	if (strcmp(got ? got : "", actions) != 0)
		fail_msg("\"%s\":\n  expected: %s\n  got:      %s", event, actions, got);
	free(got);
}

static void end(struct script *script)
{
	assert_int_equal(script->machine.roster.impossible, 0);
	buf_deinit(&script->out);
	machine_deinit(&script->machine);
}

static void run(const struct machine_options *options, const struct row *rows, size_t count)
{
	struct script script;
	begin(&script, options);
	for (size_t i = 0; i < count; i++)
		expect(&script, rows[i].event, rows[i].actions);
	end(&script);
}

#define RUN(h, m, waiters, ...)                                                                                          \
	do {                                                                                                             \
		static const struct machine_options options_ = {.sizing = {.hot = h, .max = m}, .max_waiters = waiters}; \
		static const struct row rows_[] = {__VA_ARGS__};                                                         \
		run(&options_, rows_, ARRAY_LEN(rows_));                                                                 \
	} while (0)

/* With these options of sizing, and recycling or not. */
#define PLAY(recycles, options, ...)                                                                     \
	do {                                                                                             \
		static const struct machine_options options_ = {.sizing = options, .recycle = recycles}; \
		static const struct row rows_[] = {__VA_ARGS__};                                         \
		run(&options_, rows_, ARRAY_LEN(rows_));                                                 \
	} while (0)

#define SIZES(...) {__VA_ARGS__}

#define STARTED {"start", "list"}, {"listed ok", ""}

/* Two hot members, a newer than b. */
#define TWO_HOT                                                                                                   \
	{"start", "list"}, {"listed ok", "create a, create b"}, {"pass 2000", ""}, {"created a ok", "prepare a"}, \
		{"created b ok", "prepare b"}, {"pass 1000", ""}, {"prepared b ok", ""}, {"prepared a ok", ""}
