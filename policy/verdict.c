#include "policy/verdict.h"

#include "policy/fields.h"

#include <errno.h>
#include <hiredis/hiredis.h>
#include <stdio.h>

/* The order in which report() of caller.lua returns. */
enum slot {
	SLOT_CODE,
	SLOT_ACTOR,
	SLOT_POLICY,
	SLOT_VERSION,
	SLOT_GRANTED_MS,
	SLOT_DAY,
	SLOT_VIOLATED,
	SLOT_WAIT_US,
	SLOT_REAPED,
	SLOT_OUTPUT,
	SLOT_MAX_IN,
	SLOT_RATE,       /* count, per_ms, burst, left, reset_us */
	SLOT_ACTOR_RATE = SLOT_RATE + 5,
	SLOT_CONCURRENCY = SLOT_ACTOR_RATE + 5, /* limit, running */
	SLOT_ACTOR_CONCURRENCY = SLOT_CONCURRENCY + 2,
	SLOT_BUDGET = SLOT_ACTOR_CONCURRENCY + 2, /* limit_ms, used_ms, held_ms, reset_us */
	SLOT_OUTPUT_BUDGET = SLOT_BUDGET + 4, /* limit, used, held bytes */
	SLOT_SHADOWED = SLOT_OUTPUT_BUDGET + 3,
	SLOT_WHAT,
	SLOT_EGRESS,
	SLOT_SESSIONS,
	SLOT_VALID_MS,
	SLOT_CAPS, /* processes, file_bytes, memory_bytes */
	SLOT_COUNT = SLOT_CAPS + 3,
};

struct outcome {
	const char *word;
	enum admission_code code;
	bool full; /* the whole array follows, not the word alone */
};

static const struct outcome outcomes[] = {
	{"granted", ADMISSION_GRANTED, true},
	{"scope", ADMISSION_INSUFFICIENT_SCOPE, true},
	{"network", ADMISSION_NETWORK_DENIED, true},
	{"command", ADMISSION_COMMAND_DENIED, true},
	{"environment", ADMISSION_VARIABLE_DENIED, true},
	{"input", ADMISSION_INPUT_TOO_LARGE, true},
	{"quota", ADMISSION_QUOTA, true},
	{"replay", ADMISSION_REPLAY, true},
	{"in-progress", ADMISSION_IN_PROGRESS, true},
	{"forgotten", ADMISSION_FORGOTTEN, true},
	{"other-body", ADMISSION_OTHER_BODY, true},
	{"running", ADMISSION_RUNNING, true},
	{"ending", ADMISSION_ENDING, true},
	{"finished", ADMISSION_FINISHED, true},
	{"absent", ADMISSION_NO_COMMAND, true},
	{"session-denied", ADMISSION_SESSION_DENIED, true},
	{"session-limit", ADMISSION_SESSION_LIMIT, true},
	{"session-busy", ADMISSION_SESSION_BUSY, true},
	{"sessions", ADMISSION_SESSIONS, true},
	{"session-closed", ADMISSION_SESSION_CLOSED, true},
	{"unknown", ADMISSION_INVALID_TOKEN, false},
	{"bad-mac", ADMISSION_INVALID_TOKEN, false},
	{"other-pepper", ADMISSION_INVALID_TOKEN, false},
	{"revoked", ADMISSION_INVALID_TOKEN, false},
	{"suspended", ADMISSION_INVALID_TOKEN, false},
	{"not-yet-valid", ADMISSION_INVALID_TOKEN, false},
	{"expired", ADMISSION_INVALID_TOKEN, false},
	{"broken-record", ADMISSION_INVALID_TOKEN, false},
};

static struct slice text_at(const redisReply *array, size_t i)
{
	const redisReply *r = array->element[i];
	return r->type == REDIS_REPLY_STRING ? slice_of(r->str, r->len) : (struct slice){0};
}

/* What is below zero is shown as nothing left. */
static uint64_t number_at(const redisReply *array, size_t i)
{
	const redisReply *r = array->element[i];
	return r->type == REDIS_REPLY_INTEGER && r->integer > 0 ? (uint64_t)r->integer : 0;
}

static bool copy_at(const redisReply *array, size_t i, char *out, size_t size)
{
	struct slice text = text_at(array, i);
	if (text.len >= size)
		return false;
	if (text.len)
		memcpy(out, text.data, text.len);
	out[text.len] = '\0';
	return true;
}

static const struct outcome *find_outcome(struct slice word)
{
	for (size_t i = 0; i < ARRAY_LEN(outcomes); i++)
		if (slice_equal(word, slice_str(outcomes[i].word)))
			return &outcomes[i];
	return NULL;
}

/* rate,concurrency → ["rate","concurrency"] */
static bool write_violated(struct slice names, char *out, size_t size)
{
	size_t len = 0;
	struct slice name;
	if (!names.len)
		names = (struct slice){0};
	while (slice_next(&names, ',', &name)) {
		int n = snprintf(out + len, size - len, "%s\"%.*s\"", len ? "," : "[", SLICE_FMT(name));
		if (n < 0 || (size_t)n >= size - len)
			return false;
		len += (size_t)n;
	}
	int n = snprintf(out + len, size - len, len ? "]" : "[]");
	return n >= 0 && (size_t)n < size - len;
}

static struct fields_rate rate_at(const redisReply *array, size_t i)
{
	return (struct fields_rate){
		.count = number_at(array, i),
		.per_ms = number_at(array, i + 1),
		.burst = number_at(array, i + 2),
		.left = number_at(array, i + 3),
		.reset_us = number_at(array, i + 4),
	};
}

static void write_fields(const redisReply *array, struct admission_answer *answer)
{
	struct fields_state state = {
		.rate = rate_at(array, SLOT_RATE),
		.actor_rate = rate_at(array, SLOT_ACTOR_RATE),
		.concurrency = {number_at(array, SLOT_CONCURRENCY), number_at(array, SLOT_CONCURRENCY + 1)},
		.actor_concurrency = {number_at(array, SLOT_ACTOR_CONCURRENCY), number_at(array, SLOT_ACTOR_CONCURRENCY + 1)},
		.budget = {number_at(array, SLOT_BUDGET), number_at(array, SLOT_BUDGET + 1), number_at(array, SLOT_BUDGET + 2),
			   number_at(array, SLOT_BUDGET + 3), number_at(array, SLOT_OUTPUT_BUDGET),
			   number_at(array, SLOT_OUTPUT_BUDGET + 1), number_at(array, SLOT_OUTPUT_BUDGET + 2)},
	};
	answer->state = state;
	fields_rate_limit(&state, answer->rate_limit, sizeof answer->rate_limit);
	fields_rate_limit_policy(&state, answer->rate_limit_policy, sizeof answer->rate_limit_policy);
	fields_exec_budget(&state, answer->exec_budget, sizeof answer->exec_budget);
}

/* As id_uuid7() writes them. It goes into answers and logs as it is. */
static bool is_id(struct slice text)
{
	for (size_t i = 0; i < text.len; i++)
		if (!memchr("0123456789abcdef-", text.data[i], 17))
			return false;
	return text.len == ID_UUID_LEN;
}

static bool read_what(struct slice what, struct admission_answer *answer)
{
	struct slice prior = {0};
	switch (answer->code) {
	case ADMISSION_GRANTED:
		/* The Sprite of its session, empty = none yet, and 1 = it is fresh. */
		(void)slice_next(&what, ' ', &prior);
		snprintf(answer->session.sprite, sizeof answer->session.sprite, "%.*s", SLICE_FMT(prior));
		answer->session.fresh = slice_equal(what, SLICE("1"));
		break;
	case ADMISSION_FINISHED:
	case ADMISSION_SESSIONS:
		answer->result = what;
		break;
	case ADMISSION_REPLAY:
	case ADMISSION_IN_PROGRESS:
	case ADMISSION_FORGOTTEN:
		(void)slice_next(&what, ' ', &prior);
		if (!is_id(prior))
			return false;
		snprintf(answer->prior, sizeof answer->prior, "%.*s", SLICE_FMT(prior));
		answer->result = what;
		break;
	default:
		snprintf(answer->variable, sizeof answer->variable, "%.*s", SLICE_FMT(what));
	}
	return true;
}

static int read_full(const redisReply *array, struct admission_answer *answer, uint64_t *reaped)
{
	struct admission_lease *lease = &answer->lease;
	if (array->elements != SLOT_COUNT || !copy_at(array, SLOT_ACTOR, answer->actor, sizeof answer->actor) ||
	    !copy_at(array, SLOT_POLICY, answer->policy, sizeof answer->policy) ||
	    !copy_at(array, SLOT_DAY, lease->day, sizeof lease->day) ||
	    !write_violated(text_at(array, SLOT_VIOLATED), answer->violated, sizeof answer->violated) ||
	    !write_violated(text_at(array, SLOT_SHADOWED), answer->shadowed, sizeof answer->shadowed) ||
	    !copy_at(array, SLOT_EGRESS, answer->egress, sizeof answer->egress))
		return -EPROTO;
	if (!read_what(text_at(array, SLOT_WHAT), answer))
		return -EPROTO;
	memcpy(lease->actor, answer->actor, sizeof lease->actor);
	lease->granted_ms = number_at(array, SLOT_GRANTED_MS);
	answer->policy_version = number_at(array, SLOT_VERSION);
	answer->output_bytes = number_at(array, SLOT_OUTPUT);
	answer->max_input_bytes = number_at(array, SLOT_MAX_IN);
	answer->max_sessions = number_at(array, SLOT_SESSIONS);
	answer->valid_ms = number_at(array, SLOT_VALID_MS);
	answer->caps = (struct admission_caps){.processes = number_at(array, SLOT_CAPS),
					       .file_bytes = number_at(array, SLOT_CAPS + 1),
					       .memory_bytes = number_at(array, SLOT_CAPS + 2)};
	answer->retry_after_ms = (number_at(array, SLOT_WAIT_US) + 999) / 1000;
	*reaped = number_at(array, SLOT_REAPED);
	write_fields(array, answer);
	return 0;
}

int verdict_read(const struct redisReply *reply, struct admission_answer *answer, uint64_t *reaped)
{
	*answer = (struct admission_answer){.violated = "[]", .shadowed = "[]"};
	*reaped = 0;
	if (reply->type != REDIS_REPLY_ARRAY || reply->elements == 0)
		return -EPROTO;
	const struct outcome *outcome = find_outcome(text_at(reply, SLOT_CODE));
	if (!outcome)
		return -EPROTO;
	answer->code = outcome->code;
	answer->log_reason = outcome->word;
	return outcome->full ? read_full(reply, answer, reaped) : 0;
}
