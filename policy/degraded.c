#include "policy/degraded.h"

#include <stdio.h>
#include <stdlib.h>
#include <uthash.h>
#include <utlist.h>

#define SHARE 4 /* of a limit, divided among the gateways: also with four times as many of them as were told no limit is exceeded */

struct kind {
	char digest[SHA256_HEX + 1], secret[SHA256_HEX + 1];
	uint64_t asked_ms; /* 0 = empty */
	uint64_t until_ms; /* of the token's own validity */
	uint64_t granted_ms, output_bytes, max_input_bytes;
	struct admission_caps caps;
};

struct bucket {
	uint64_t interval_us, burst; /* of all gateways together; 0 = no limit */
	uint64_t tat_us;
};

struct token {
	char kid[ADMISSION_KID_LEN + 1];
	char actor[129], policy[65];
	uint64_t policy_version;
	bool actor_limited;
	struct bucket own, actors; /* the second is of all its actor's tokens: the latest TAT of them counts */
	uint64_t distrusted_ms;    /* what was asked until then is not believed */
	uint64_t unbooked_ms;
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

/* Answers arrive in any order: a grant that was asked for earlier may follow. */
static void distrust(struct token *token, uint64_t until_ms)
{
	if (!token)
		return;
	memset(token->kinds, 0, sizeof token->kinds);
	if (until_ms > token->distrusted_ms)
		token->distrusted_ms = until_ms;
}

static uint64_t last_asked(const struct token *token)
{
	uint64_t last = 0;
	for (size_t i = 0; i < DEGRADED_KINDS; i++)
		if (token->kinds[i].asked_ms > last)
			last = token->kinds[i].asked_ms;
	return last;
}

/* One that was rotated away. What the new one was granted stays. */
static void distrust_secret(struct token *token, const char *secret, uint64_t until_ms)
{
	for (size_t i = 0; i < DEGRADED_KINDS; i++) {
		struct kind *kind = &token->kinds[i];
		if (!kind->asked_ms || strcmp(kind->secret, secret) != 0)
			continue;
		*kind = (struct kind){0};
		if (until_ms > token->distrusted_ms)
			token->distrusted_ms = until_ms;
	}
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

/* One that runs, whose buckets are not full or whose use is not booked stays: it would come back as if it had used nothing. */
static bool may_go(const struct token *token, uint64_t now_ms)
{
	return !token->busy && !token->unbooked_ms && token->own.tat_us <= now_ms * 1000 && token->actors.tat_us <= now_ms * 1000;
}

static bool make_room(struct degraded *degraded, uint64_t now_ms)
{
	struct token *token;
	if (HASH_COUNT(degraded->tokens) < DEGRADED_TOKENS)
		return true;
	DL_FOREACH (degraded->oldest, token) {
		if (!may_go(token, now_ms))
			continue;
		forget(degraded, token);
		return true;
	}
	return false;
}

static struct token *make(struct degraded *degraded, const char *kid, uint64_t now_ms)
{
	if (!make_room(degraded, now_ms))
		return NULL;
	struct token *token = calloc(1, sizeof *token);
	if (!token)
		return NULL;
	snprintf(token->kid, sizeof token->kid, "%s", kid);
	HASH_ADD_STR(degraded->tokens, kid, token);
	DL_APPEND(degraded->oldest, token);
	return token;
}

static void set_limit(struct bucket *bucket, const struct fields_rate *rate)
{
	bucket->interval_us = rate->count ? rate->per_ms * 1000 / rate->count + 1 : 0;
	bucket->burst = rate->burst;
}

static bool same_rules(const struct token *token, const struct admission_answer *answer)
{
	return token->policy_version == answer->policy_version && strcmp(token->policy, answer->policy) == 0;
}

static void remember(struct degraded *degraded, const char *kid, const char *secret, const char *digest,
		     const struct admission_answer *answer, uint64_t asked_ms)
{
	const struct fields_state *state = &answer->state;
	struct token *token = find(degraded, kid);
	if (!token && !(token = make(degraded, kid, asked_ms)))
		return;
	if (!same_rules(token, answer)) /* what the rules before allowed is not asked of these */
		distrust(token, last_asked(token));
	if (asked_ms <= token->distrusted_ms)
		return;
	DL_DELETE(degraded->oldest, token);
	DL_APPEND(degraded->oldest, token);
	memcpy(token->actor, answer->actor, sizeof token->actor);
	memcpy(token->policy, answer->policy, sizeof token->policy);
	token->policy_version = answer->policy_version;
	token->actor_limited = state->actor_rate.count || state->actor_concurrency.limit;
	set_limit(&token->own, &state->rate);
	set_limit(&token->actors, &state->actor_rate);
	struct kind *kind = kind_for(token, digest);
	*kind = (struct kind){.asked_ms = asked_ms,
			      .until_ms = answer->valid_ms ? asked_ms + answer->valid_ms : UINT64_MAX,
			      .granted_ms = answer->lease.granted_ms,
			      .output_bytes = answer->output_bytes,
			      .max_input_bytes = answer->max_input_bytes,
			      .caps = answer->caps};
	snprintf(kind->digest, sizeof kind->digest, "%s", digest);
	snprintf(kind->secret, sizeof kind->secret, "%s", secret);
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

void degraded_learn(struct degraded *degraded, const char *kid, const char *secret, const char *digest,
		    const struct admission_answer *answer, uint64_t asked_ms)
{
	/* Anybody may guess at a secret: that says nothing of its owner's token. */
	bool guess = answer->code == ADMISSION_INVALID_TOKEN && strcmp(answer->log_reason, "bad-mac") == 0;
	uv_mutex_lock(&degraded->lock);
	struct token *token = find(degraded, kid);
	if (answer->code == ADMISSION_GRANTED)
		remember(degraded, kid, secret, digest, answer, asked_ms);
	else if (token && guess)
		distrust_secret(token, secret, asked_ms);
	else if (!guess && speaks_against(answer))
		distrust(token, asked_ms);
	uv_mutex_unlock(&degraded->lock);
}

/* --- deciding ----------------------------------------------------------------- */

/* Tokens of an actor with limits of its own have one bucket and one place together. */
static bool find_room(const struct degraded *degraded, const struct token *token, uint64_t *actor_tat_us)
{
	const struct token *other;
	*actor_tat_us = token->actors.tat_us;
	if (token->busy)
		return false;
	DL_FOREACH (degraded->oldest, other) {
		if (!token->actor_limited || strcmp(other->actor, token->actor) != 0)
			continue;
		if (other->busy)
			return false;
		if (other->actors.tat_us > *actor_tat_us)
			*actor_tat_us = other->actors.tat_us;
	}
	return true;
}

/* GCRA, as in caller.lua: the TAT after one more, 0 = no room for it. */
static uint64_t next_tat(const struct degraded *degraded, const struct bucket *bucket, uint64_t tat_us, uint64_t now_us)
{
	uint64_t share = (uint64_t)SHARE * degraded->options.gateways;
	uint64_t interval = bucket->interval_us * share, burst = bucket->burst / share ? bucket->burst / share : 1;
	uint64_t next = (tat_us > now_us ? tat_us : now_us) + interval;
	return next > now_us + interval * burst ? 0 : next;
}

static bool take(const struct degraded *degraded, struct token *token, uint64_t actor_tat_us, uint64_t now_us)
{
	uint64_t own = next_tat(degraded, &token->own, token->own.tat_us, now_us);
	uint64_t actors = token->actors.interval_us ? next_tat(degraded, &token->actors, actor_tat_us, now_us) : token->actors.tat_us;
	if (!own || (token->actors.interval_us && !actors))
		return false;
	token->own.tat_us = own;
	token->actors.tat_us = actors;
	return true;
}

/* One token leaves half of what there is to the others. */
static bool has_budget(const struct degraded *degraded, const struct token *token, uint64_t run_ms)
{
	uint64_t all = degraded->options.budget_ms;
	return run_ms + degraded->unbooked_ms <= all && run_ms + token->unbooked_ms <= all / 2;
}

static const char *ask(struct degraded *degraded, const char *kid, const char *digest, const struct admission_request *wish,
		       uint64_t now_ms, struct degraded_grant *grant)
{
	struct token *token = find(degraded, kid);
	const struct kind *kind = token ? find_kind(token, digest) : NULL;
	uint64_t actor_tat_us;
	if (!kind || now_ms < kind->asked_ms || now_ms - kind->asked_ms >= degraded->options.trust_ms || now_ms >= kind->until_ms ||
	    (kind->max_input_bytes && wish->input_bytes > kind->max_input_bytes))
		return "unknown";
	uint64_t run_ms = least(least(wish->want_ms, kind->granted_ms), DEGRADED_RUN_MS);
	if (!has_budget(degraded, token, run_ms))
		return "budget";
	if (!find_room(degraded, token, &actor_tat_us))
		return "concurrency";
	if (!take(degraded, token, actor_tat_us, now_ms * 1000))
		return "rate";
	token->busy = true;
	token->unbooked_ms += run_ms;
	degraded->unbooked_ms += run_ms;
	*grant = (struct degraded_grant){.policy_version = token->policy_version,
					 .granted_ms = run_ms,
					 .output_bytes = least(kind->output_bytes, wish->most_output_bytes),
					 .max_input_bytes = kind->max_input_bytes,
					 .caps = kind->caps};
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
	uint64_t unused_ms = granted_ms - least(used_ms, granted_ms);
	uv_mutex_lock(&degraded->lock);
	struct token *token = find(degraded, kid);
	if (token) {
		token->busy = false;
		token->unbooked_ms -= unused_ms;
	}
	degraded->unbooked_ms -= unused_ms;
	uv_mutex_unlock(&degraded->lock);
}

void degraded_booked(struct degraded *degraded, const char *kid, uint64_t used_ms, uint64_t now_ms)
{
	uv_mutex_lock(&degraded->lock);
	struct token *token = find(degraded, kid);
	distrust(token, now_ms);
	if (token)
		token->unbooked_ms -= least(used_ms, token->unbooked_ms);
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
