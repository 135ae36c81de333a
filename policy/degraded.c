#include "policy/degraded.h"

#include <stdio.h>
#include <stdlib.h>
#include <uthash.h>
#include <utlist.h>

#define SHARE 4 /* of a limit, divided among the gateways: also with four times as many of them as were told no limit is exceeded */

struct kind {
	char digest[SHA256_HEX + 1];
	uint64_t asked_ms; /* 0 = empty */
	uint64_t until_ms; /* of the token's own validity */
	uint64_t granted_ms, output_bytes, max_input_bytes;
};

struct token {
	char kid[ADMISSION_KID_LEN + 1];
	char actor[129], policy[65];
	uint64_t policy_version;
	bool actor_limited;
	uint64_t interval_us, burst; /* of all gateways together */
	uint64_t tat_us;
	bool busy;
	struct kind kinds[DEGRADED_KINDS];
	UT_hash_handle hh;
	struct token *prev, *next; /* by when they were seen */
};

struct degraded {
	struct degraded_options options;
	uv_mutex_t lock; /* of what follows */
	struct token *tokens, *oldest;
	uint64_t unbooked_ms; /* granted, or used and not booked */
};

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

struct degraded *degraded_new(const struct degraded_options *options)
{
	struct degraded *degraded = calloc(1, sizeof *degraded);
	if (!degraded)
		return NULL;
	degraded->options = *options;
	if (uv_mutex_init(&degraded->lock) == 0)
		return degraded;
	free(degraded);
	return NULL;
}

static void forget(struct degraded *degraded, struct token *token)
{
	HASH_DEL(degraded->tokens, token);
	DL_DELETE(degraded->oldest, token);
	free(token);
}

void degraded_free(struct degraded *degraded)
{
	if (!degraded)
		return;
	while (degraded->oldest)
		forget(degraded, degraded->oldest);
	uv_mutex_destroy(&degraded->lock);
	free(degraded);
}

int degraded_digest(const struct slice *parts, size_t count, char out[SHA256_HEX + 1])
{
	CLEANUP(sha256_deinit) struct sha256 digest = {0};
	int r = sha256_init(&digest);
	for (size_t i = 0; r == 0 && i < count; i++) {
		char len[24];
		snprintf(len, sizeof len, "%zu:", parts[i].len);
		r = sha256_feed(&digest, slice_str(len));
		if (r == 0)
			r = sha256_feed(&digest, parts[i]);
	}
	return r < 0 ? r : sha256_hex(&digest, out);
}

/* --- learning ----------------------------------------------------------------- */

static struct token *find(const struct degraded *degraded, const char *kid)
{
	struct token *token;
	HASH_FIND_STR(degraded->tokens, kid, token);
	return token;
}

static void distrust(struct token *token)
{
	if (token)
		memset(token->kinds, 0, sizeof token->kinds);
}

static struct kind *find_kind(struct token *token, const char *digest)
{
	for (size_t i = 0; i < DEGRADED_KINDS; i++)
		if (token->kinds[i].asked_ms && strcmp(token->kinds[i].digest, digest) == 0)
			return &token->kinds[i];
	return NULL;
}

static struct kind *kind_for(struct token *token, const char *digest)
{
	struct kind *kind = find_kind(token, digest);
	if (kind)
		return kind;
	kind = token->kinds;
	for (size_t i = 1; i < DEGRADED_KINDS; i++)
		if (token->kinds[i].asked_ms < kind->asked_ms)
			kind = &token->kinds[i];
	return kind;
}

/* One that runs, or whose bucket is not full, stays: it would come back as if it had used nothing. */
static struct token *make(struct degraded *degraded, const char *kid, uint64_t now_ms)
{
	struct token *oldest = degraded->oldest;
	if (HASH_COUNT(degraded->tokens) >= DEGRADED_TOKENS) {
		if (oldest->busy || oldest->tat_us > now_ms * 1000)
			return NULL;
		forget(degraded, oldest);
	}
	struct token *token = calloc(1, sizeof *token);
	if (!token)
		return NULL;
	snprintf(token->kid, sizeof token->kid, "%s", kid);
	HASH_ADD_STR(degraded->tokens, kid, token);
	DL_APPEND(degraded->oldest, token);
	return token;
}

static uint64_t interval_us(const struct fields_rate *rate)
{
	return rate->count ? rate->per_ms * 1000 / rate->count + 1 : 0;
}

static void remember(struct degraded *degraded, const char *kid, const char *digest, const struct admission_answer *answer,
		     uint64_t asked_ms)
{
	const struct fields_state *state = &answer->state;
	struct token *token = find(degraded, kid);
	if (!token && !(token = make(degraded, kid, asked_ms)))
		return;
	DL_DELETE(degraded->oldest, token);
	DL_APPEND(degraded->oldest, token);
	memcpy(token->actor, answer->actor, sizeof token->actor);
	memcpy(token->policy, answer->policy, sizeof token->policy);
	token->policy_version = answer->policy_version;
	token->actor_limited = state->actor_rate.count || state->actor_concurrency.limit;
	token->interval_us = interval_us(&state->rate);
	token->burst = state->rate.burst;
	if (state->actor_rate.count) {
		uint64_t actors = interval_us(&state->actor_rate);
		token->interval_us = actors > token->interval_us ? actors : token->interval_us;
		token->burst = least(token->burst, state->actor_rate.burst);
	}
	struct kind *kind = kind_for(token, digest);
	*kind = (struct kind){.asked_ms = asked_ms,
			      .until_ms = answer->valid_ms ? asked_ms + answer->valid_ms : UINT64_MAX,
			      .granted_ms = answer->lease.granted_ms,
			      .output_bytes = answer->output_bytes,
			      .max_input_bytes = answer->max_input_bytes};
	snprintf(kind->digest, sizeof kind->digest, "%s", digest);
}

/* A rate and what runs pass by themselves, and say nothing against the token; nor does what is known of its key or session. */
static bool speaks_against(const struct admission_answer *answer)
{
	switch (answer->code) {
	case ADMISSION_INVALID_TOKEN:
	case ADMISSION_INSUFFICIENT_SCOPE:
	case ADMISSION_NETWORK_DENIED:
	case ADMISSION_COMMAND_DENIED:
	case ADMISSION_VARIABLE_DENIED:
	case ADMISSION_INPUT_TOO_LARGE:
		return true;
	case ADMISSION_QUOTA:
		return strstr(answer->violated, "budget") != NULL;
	default:
		return false;
	}
}

void degraded_learn(struct degraded *degraded, const char *kid, const char *digest, const struct admission_answer *answer,
		    uint64_t asked_ms)
{
	/* Anybody may guess at a secret: that says nothing of its owner's token. */
	bool guess = answer->code == ADMISSION_INVALID_TOKEN && strcmp(answer->log_reason, "bad-mac") == 0;
	uv_mutex_lock(&degraded->lock);
	struct token *token = find(degraded, kid);
	struct kind *kind = token && guess ? find_kind(token, digest) : NULL;
	if (answer->code == ADMISSION_GRANTED)
		remember(degraded, kid, digest, answer, asked_ms);
	else if (kind) /* a secret that was rotated away */
		distrust(token);
	else if (!guess && speaks_against(answer))
		distrust(token);
	uv_mutex_unlock(&degraded->lock);
}

/* --- deciding ----------------------------------------------------------------- */

/* Tokens of an actor with limits of its own have one bucket and one place together: the latest TAT of them all counts. */
static bool find_room(const struct degraded *degraded, const struct token *token, uint64_t *tat_us)
{
	const struct token *other;
	*tat_us = token->tat_us;
	if (token->busy)
		return false;
	DL_FOREACH (degraded->oldest, other) {
		if (!token->actor_limited || strcmp(other->actor, token->actor) != 0)
			continue;
		if (other->busy)
			return false;
		if (other->tat_us > *tat_us)
			*tat_us = other->tat_us;
	}
	return true;
}

/* GCRA, as in admit.lua. */
static bool take(const struct degraded *degraded, struct token *token, uint64_t tat_us, uint64_t now_us)
{
	uint64_t share = (uint64_t)SHARE * degraded->options.gateways;
	uint64_t interval = token->interval_us * share, burst = token->burst / share ? token->burst / share : 1;
	uint64_t next = (tat_us > now_us ? tat_us : now_us) + interval;
	if (next > now_us + interval * burst)
		return false;
	token->tat_us = next;
	return true;
}

static const char *ask(struct degraded *degraded, const char *kid, const char *digest, const struct admission_request *wish,
		       uint64_t now_ms, struct degraded_grant *grant)
{
	struct token *token = find(degraded, kid);
	const struct kind *kind = token ? find_kind(token, digest) : NULL;
	uint64_t tat_us;
	if (!kind || now_ms < kind->asked_ms || now_ms - kind->asked_ms >= degraded->options.trust_ms || now_ms >= kind->until_ms ||
	    (kind->max_input_bytes && wish->input_bytes > kind->max_input_bytes))
		return "unknown";
	uint64_t run_ms = least(least(wish->want_ms, kind->granted_ms), DEGRADED_RUN_MS);
	if (run_ms > degraded->options.budget_ms - degraded->unbooked_ms)
		return "budget";
	if (!find_room(degraded, token, &tat_us))
		return "concurrency";
	if (!take(degraded, token, tat_us, now_ms * 1000))
		return "rate";
	token->busy = true;
	degraded->unbooked_ms += run_ms;
	*grant = (struct degraded_grant){.policy_version = token->policy_version,
					 .granted_ms = run_ms,
					 .output_bytes = least(kind->output_bytes, wish->most_output_bytes),
					 .max_input_bytes = kind->max_input_bytes};
	memcpy(grant->actor, token->actor, sizeof grant->actor);
	memcpy(grant->policy, token->policy, sizeof grant->policy);
	return DEGRADED_GRANTED;
}

const char *degraded_ask(struct degraded *degraded, const char *kid, const char *digest, const struct admission_request *wish,
			 uint64_t now_ms, struct degraded_grant *grant)
{
	uv_mutex_lock(&degraded->lock);
	const char *result = ask(degraded, kid, digest, wish, now_ms, grant);
	uv_mutex_unlock(&degraded->lock);
	return result;
}

/* --- giving back -------------------------------------------------------------- */

void degraded_end(struct degraded *degraded, const char *kid, uint64_t granted_ms, uint64_t used_ms)
{
	uv_mutex_lock(&degraded->lock);
	struct token *token = find(degraded, kid);
	if (token)
		token->busy = false;
	degraded->unbooked_ms -= granted_ms - least(used_ms, granted_ms);
	uv_mutex_unlock(&degraded->lock);
}

void degraded_booked(struct degraded *degraded, const char *kid, uint64_t used_ms)
{
	uv_mutex_lock(&degraded->lock);
	distrust(find(degraded, kid));
	degraded->unbooked_ms -= least(used_ms, degraded->unbooked_ms);
	uv_mutex_unlock(&degraded->lock);
}

uint64_t degraded_unbooked_ms(struct degraded *degraded)
{
	uv_mutex_lock(&degraded->lock);
	uint64_t unbooked = degraded->unbooked_ms;
	uv_mutex_unlock(&degraded->lock);
	return unbooked;
}
