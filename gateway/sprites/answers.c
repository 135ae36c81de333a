#include "gateway/sprites/answers.h"

#include "gateway/base/domain.h"
#include "gateway/sprites/progress.h"

#include <errno.h>
#include <stdio.h>

#define MAX_DEPTH       32
#define MAX_RETRY_AFTER ((uint64_t)24 * 3600 * 1000)
#define WINDOW_GUESS_MS 60000

static const char *const names[SPRITES_CALLS] = {
	[SPRITES_CREATE] = "create",
	[SPRITES_GET] = "get",
	[SPRITES_DELETE] = "delete",
	[SPRITES_LIST] = "list",
	[SPRITES_SET_POLICY] = "set_policy",
	[SPRITES_GET_POLICY] = "get_policy",
	[SPRITES_KILL] = "kill",
	[SPRITES_CHECKPOINT] = "checkpoint",
	[SPRITES_RESTORE] = "restore",
	[SPRITES_LABEL] = "label",
};

const char *sprites_call_name(enum sprites_call call)
{
	return names[call];
}

/* --- errors --- */

/* The text of an error body in any of its shapes; empty when there is none that can be shown. */
static struct slice error_text(const json_t *body)
{
	struct slice text;
	if (json_get_string(body, "message", &text) || json_get_string(body, "error", &text))
		return text;
	const json_t *first = json_array_get(json_object_get(body, "errors"), 0);
	if (json_is_string(first))
		return slice_of(json_string_value(first), json_string_length(first));
	return text;
}

static struct slice one_line(struct slice text)
{
	struct slice line;
	text = slice_trim(text);
	return slice_next(&text, '\n', &line) ? line : text;
}

static void describe(struct verdict *verdict, enum sprites_call call, const struct answer *answer, const json_t *body)
{
	struct slice text = body ? error_text(body) : one_line(answer->body);
	if (text.len > 160)
		text.len = 160;
	snprintf(verdict->detail, sizeof verdict->detail, "%s: the API answered %u%s%.*s", names[call], answer->status,
		 text.len ? ": " : "", SLICE_FMT(text));
}

/* The limit on creations; the body's word comes before the fields'. */
static struct provider_limit creation_limit(const struct answer *answer, const json_t *body)
{
	struct provider_limit limit = {.left = answer->rate.remaining};
	uint64_t seconds;
	if (!json_get_u64(body, "limit", &limit.count))
		limit.count = answer->rate.limit != UINT64_MAX ? answer->rate.limit : 0;
	if (json_get_u64(body, "window_seconds", &seconds) && seconds < MAX_RETRY_AFTER / 1000)
		limit.window_ms = seconds * 1000;
	return limit;
}

static uint64_t reset_hint(const struct answer *answer, const struct provider_limit *limit)
{
	uint64_t most_ms = limit->window_ms ? limit->window_ms : WINDOW_GUESS_MS;
	if (answer->rate.remaining != 0 || answer->rate.reset_ms == UINT64_MAX)
		return 0;
	return answer->rate.reset_ms < most_ms ? answer->rate.reset_ms : most_ms;
}

static uint64_t retry_hint(const struct answer *answer, const struct provider_limit *limit, const json_t *body)
{
	uint64_t seconds, hint_ms = answer->retry_after_ms ? answer->retry_after_ms : reset_hint(answer, limit);
	if (json_get_u64(body, "retry_after_seconds", &seconds))
		hint_ms = seconds < MAX_RETRY_AFTER / 1000 ? seconds * 1000 : MAX_RETRY_AFTER;
	return hint_ms < MAX_RETRY_AFTER ? hint_ms : MAX_RETRY_AFTER;
}

/* Nothing but a creation uses up creations. */
static enum provider_code limit_code(enum sprites_call call, const json_t *body)
{
	struct slice error;
	json_get_string(body, "error", &error);
	if (slice_equal(error, SLICE("concurrent_sprite_limit_exceeded")))
		return PROVIDER_CAPACITY;
	return call == SPRITES_CREATE ? PROVIDER_RATE_LIMIT : PROVIDER_THROTTLED;
}

static enum provider_code error_code(enum sprites_call call, unsigned status, const json_t *body)
{
	switch (status) {
	case 401:
	case 403:
		return PROVIDER_UNAUTHORIZED;
	case 404:
	case 410:
		return PROVIDER_GONE;
	case 408:
		return PROVIDER_UNAVAILABLE;
	case 429:
		return limit_code(call, body);
	default:
		return status >= 500 ? PROVIDER_UNAVAILABLE : PROVIDER_INVALID;
	}
}

static bool is_missing_quirk(unsigned status, const json_t *body)
{
	struct slice error;
	return status == 500 && json_get_string(body, "error", &error) &&
	       (slice_equal(error, SLICE("failed to delete sprite")) || slice_equal(error, SLICE("failed to retrieve sprite")));
}

static void judge_error(struct verdict *verdict, enum sprites_call call, const struct answer *answer)
{
	struct json_failure failure;
	CLEANUP(json_decref_ptr) json_t *body = json_parse(answer->body, MAX_DEPTH, &failure);
	verdict->code = error_code(call, answer->status, body);
	verdict->not_ready = answer->status == 502 || answer->status == 503 || verdict->code == PROVIDER_THROTTLED;
	verdict->missing_quirk = is_missing_quirk(answer->status, body);
	if (verdict->code == PROVIDER_RATE_LIMIT)
		verdict->limit = creation_limit(answer, body);
	if (verdict->code == PROVIDER_CAPACITY)
		json_get_u64(body, "limit", &verdict->limit.running);
	verdict->retry_after_ms = retry_hint(answer, &verdict->limit, body);
	describe(verdict, call, answer, body);
}

/* --- success --- */

void answers_fail(struct verdict *verdict, enum provider_code code, const char *detail)
{
	*verdict = (struct verdict){.code = code};
	snprintf(verdict->detail, sizeof verdict->detail, "%s", detail);
}

static void contradict(struct verdict *verdict, enum sprites_call call, const char *what)
{
	verdict->code = PROVIDER_INVALID;
	snprintf(verdict->detail, sizeof verdict->detail, "%s: %s", names[call], what);
}

static void read_taken(struct taken_label *taken, const char *text)
{
	struct taken_label found = {.told = true};
	char again[64] = "";
	if (sscanf(text, ANSWERS_TAKEN "%16" SCNx64 "-%16" SCNx64, &found.parking, &found.taker) == 2)
		snprintf(again, sizeof again, ANSWERS_TAKEN_FORMAT, found.parking, found.taker);
	/* In doubt it is the latest of all. */
	if (strcmp(again, text) != 0)
		found = (struct taken_label){.told = true, .parking = UINT64_MAX};
	if (found.parking >= taken->parking)
		*taken = found;
}

static void read_labels(struct taken_label *taken, const json_t *labels)
{
	taken->told = json_is_array(labels);
	for (size_t i = 0; i < json_array_size(labels); i++) {
		const char *label = json_string_value(json_array_get(labels, i));
		if (label && slice_has_prefix(slice_str(label), SLICE(ANSWERS_TAKEN)))
			read_taken(taken, label);
	}
}

static void judge_sprite(struct verdict *verdict, enum sprites_call call, const char *name, struct slice text)
{
	struct json_failure failure;
	struct slice found;
	CLEANUP(json_decref_ptr) json_t *body = json_parse(text, MAX_DEPTH, &failure);
	if (!json_get_string(body, "name", &found) || !slice_equal(found, slice_str(name)))
		contradict(verdict, call, "the answer is not the Sprite that was asked for");
	else
		read_labels(&verdict->taken, json_object_get(body, "labels"));
}

int answers_open_policy(struct slice profile, struct buf *out)
{
	struct slice word;
	size_t count = 0;
	int r = buf_append(out, SLICE("{\"rules\":["));
	while (r == 0 && profile.len && slice_next(&profile, ' ', &word)) {
		bool defaults = slice_equal(word, SLICE("defaults"));
		if (!defaults && !domain_is_pattern(word))
			return -EINVAL;
		r = defaults ? buf_append(out, SLICE("{\"include\":\"defaults\"},"))
			     : buf_printf(out, "{\"domain\":\"%.*s\",\"action\":\"allow\"},", SLICE_FMT(word));
		count++;
	}
	if (r == 0 && !count)
		return -EINVAL;
	return r < 0 ? r : buf_append(out, SLICE("{\"domain\":\"*\",\"action\":\"deny\"}]}"));
}

static void judge_policy(struct verdict *verdict, struct slice text, const char *policy)
{
	struct json_failure failure;
	CLEANUP(json_decref_ptr) json_t *body = json_parse(text, MAX_DEPTH, &failure);
	CLEANUP(json_decref_ptr) json_t *wanted = json_parse(slice_str(policy ? policy : ANSWERS_POLICY), MAX_DEPTH, &failure);
	if (!wanted || !json_equal(json_object_get(body, "rules"), json_object_get(wanted, "rules"))) {
		contradict(verdict, SPRITES_GET_POLICY, "the network policy that was read back is not the one that was set");
		verdict->code = PROVIDER_POLICY;
	}
}

static bool is_success(enum sprites_call call, unsigned status)
{
	if (call == SPRITES_CREATE || call == SPRITES_DELETE || call == SPRITES_SET_POLICY)
		return status >= 200 && status <= 204;
	return status == 200;
}

/* What all answers have in common; false when nothing is left to look at. */
static bool judge_status(struct verdict *verdict, enum sprites_call call, const struct answer *answer)
{
	*verdict = (struct verdict){.code = PROVIDER_OK, .status = answer->status};
	if (!answer->status) {
		verdict->code = PROVIDER_UNAVAILABLE;
		verdict->not_ready = true;
		snprintf(verdict->detail, sizeof verdict->detail, "%s: no answer from the API: %s", names[call], answer->failure);
		return false;
	}
	if (!is_success(call, answer->status)) {
		judge_error(verdict, call, answer);
		return false;
	}
	snprintf(verdict->detail, sizeof verdict->detail, "%s: done", names[call]);
	return true;
}

void answers_judge(struct verdict *verdict, enum sprites_call call, const char *name, const struct answer *answer)
{
	if (!judge_status(verdict, call, answer)) {
		if (call == SPRITES_CREATE && answer->status == 409) {
			verdict->code = PROVIDER_OK;
			snprintf(verdict->detail, sizeof verdict->detail, "create: the Sprite exists already");
		}
		/* An exited session: as dead as asked for. */
		if (call == SPRITES_KILL && answer->status == 410)
			verdict->code = PROVIDER_OK;
		return;
	}
	if (call == SPRITES_CREATE) {
		verdict->limit = creation_limit(answer, NULL);
		verdict->retry_after_ms = reset_hint(answer, &verdict->limit);
	}
	if (call == SPRITES_CREATE || call == SPRITES_GET || call == SPRITES_LABEL)
		judge_sprite(verdict, call, name, answer->body);
	else if (call == SPRITES_GET_POLICY)
		judge_policy(verdict, answer->body, answer->policy);
	else if (call == SPRITES_CHECKPOINT || call == SPRITES_RESTORE)
		progress_judge(verdict, call, answer->body);
}

/* --- the list --- */

static bool is_page(const json_t *page, struct slice *token)
{
	const json_t *sprites = json_object_get(page, "sprites"), *next = json_object_get(page, "next_continuation_token");
	*token = (struct slice){0};
	if (!json_is_array(sprites))
		return false;
	for (size_t i = 0; i < json_array_size(sprites); i++) {
		if (!json_is_string(json_object_get(json_array_get(sprites, i), "name")))
			return false;
	}
	if (!next || json_is_null(next))
		return true;
	return json_get_string(page, "next_continuation_token", token);
}

/* Counters that newer servers add, beside the list or in an object of the organisation. */
static struct provider_limit page_limit(const json_t *page)
{
	const json_t *org = json_object_get(page, "org");
	struct provider_limit limit = {.left = UINT64_MAX};
	if (!json_get_u64(page, "running_limit", &limit.running) && !json_get_u64(org, "running_limit", &limit.running))
		limit.running = 0;
	if (!json_get_u64(page, "warm_limit", &limit.paused) && !json_get_u64(org, "warm_limit", &limit.paused))
		limit.paused = 0;
	return limit;
}

json_t *answers_page(struct verdict *verdict, const struct answer *answer, struct slice *token)
{
	if (!judge_status(verdict, SPRITES_LIST, answer))
		return NULL;
	struct json_failure failure;
	json_t *page = json_parse(answer->body, MAX_DEPTH, &failure);
	if (is_page(page, token)) {
		verdict->limit = page_limit(page);
		return page;
	}
	/* Never read as an empty list: what is not on the list gets forgotten. */
	contradict(verdict, SPRITES_LIST, "the answer is not a list of Sprites");
	json_decref(page);
	return NULL;
}
