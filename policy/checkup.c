#include "policy/checkup.h"

#include "gateway/base/clock.h"
#include "policy/keys.h"
#include "policy/redis_blocking.h"
#include "policy/script.h"

#include <hiredis/hiredis.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#define TESTED_MAJOR 7
#define SKEW_MS      2000
#define PINGS        9
#define NOBODY       "................" /* no kid has dots */

struct examination {
	const struct checkup_options *options;
	struct redis_blocking redis;
};

static void tell(struct examination *exam, const char *name, enum checkup_status status, const char *advice, const char *format, ...)
	PRINTF(5, 6);

static void tell(struct examination *exam, const char *name, enum checkup_status status, const char *advice, const char *format, ...)
{
	char detail[256];
	va_list args;
	va_start(args, format);
	vsnprintf(detail, sizeof detail, format, args);
	va_end(args);
	struct checkup checkup = {.status = status, .name = name, .detail = detail, .advice = status == CHECKUP_OK ? NULL : advice};
	exam->options->tell(exam->options->ctx, &checkup);
}

static int ask(struct examination *exam, const struct slice *args, size_t count, redisReply **reply)
{
	return redis_blocking_ask(&exam->redis, args, count, reply);
}

static bool check_reachable(struct examination *exam)
{
	const struct slice ping[] = {SLICE("PING")};
	bool ok = redis_blocking_tell(&exam->redis, ping, 1) == 0;
	tell(exam, "redis", ok ? CHECKUP_OK : CHECKUP_FAIL,
	     "Check REDIS_URL, its password, and that Redis runs: without it every command is refused, but for a few with REDIS_DOWN=degrade.",
	     ok ? "answers" : "%s", exam->redis.reason);
	return ok;
}

/* "redis_version:8.0.2\r\n" → "8.0.2" */
static bool info(struct examination *exam, struct slice section, const char *field, char out[64])
{
	const struct slice args[] = {SLICE("INFO"), section};
	CLEANUP(redis_reply_free) redisReply *reply = NULL;
	if (ask(exam, args, 2, &reply) != 0)
		return false;
	if (reply->type != REDIS_REPLY_STRING && reply->type != REDIS_REPLY_VERB) {
		snprintf(exam->redis.reason, sizeof exam->redis.reason, "INFO gave no text");
		return false;
	}
	const char *found = strstr(reply->str, field);
	if (!found) {
		snprintf(exam->redis.reason, sizeof exam->redis.reason, "INFO has no %s", field);
		return false;
	}
	found += strlen(field);
	snprintf(out, 64, "%.*s", (int)strcspn(found, "\r\n"), found);
	return true;
}

static void check_version(struct examination *exam)
{
	char version[64];
	if (!info(exam, SLICE("server"), "redis_version:", version))
		tell(exam, "redis-version", CHECKUP_WARN, "Let the user call INFO, or look yourself.", "not known: %s", exam->redis.reason);
	else
		tell(exam, "redis-version", atoi(version) < TESTED_MAJOR ? CHECKUP_WARN : CHECKUP_OK,
		     "The gateway is tested with Redis 7 and later: upgrade.", "%s", version);
}

static void check_eviction(struct examination *exam)
{
	char policy[64];
	if (!info(exam, SLICE("memory"), "maxmemory_policy:", policy))
		tell(exam, "redis-eviction", CHECKUP_WARN, "Let the user call INFO, or look yourself: maxmemory-policy must be noeviction.",
		     "not known: %s", exam->redis.reason);
	else
		tell(exam, "redis-eviction", strcmp(policy, "noeviction") == 0 ? CHECKUP_OK : CHECKUP_FAIL,
		     "Set maxmemory-policy to noeviction: else limits and leases are dropped when memory is short.",
		     "maxmemory-policy is %s", policy);
}

static void check_clock(struct examination *exam)
{
	const struct slice args[] = {SLICE("TIME")};
	CLEANUP(redis_reply_free) redisReply *reply = NULL;
	uint64_t before = clock_wall_ms();
	if (ask(exam, args, 1, &reply) != 0 || reply->type != REDIS_REPLY_ARRAY || reply->elements != 2 || !reply->element[0]->str ||
	    !reply->element[1]->str) {
		tell(exam, "redis-clock", CHECKUP_FAIL, "Let the user call TIME: the scripts need it.", "TIME: %s", exam->redis.reason);
		return;
	}
	uint64_t here = before + (clock_wall_ms() - before) / 2;
	uint64_t there = strtoull(reply->element[0]->str, NULL, 10) * 1000 + strtoull(reply->element[1]->str, NULL, 10) / 1000;
	int64_t ahead = (int64_t)(there - here);
	tell(exam, "redis-clock", llabs(ahead) > SKEW_MS ? CHECKUP_WARN : CHECKUP_OK,
	     "Synchronise both clocks (NTP): expiry and days go by Redis' clock, logs by this one.", "%" PRIu64 " ms %s this machine's",
	     (uint64_t)llabs(ahead), ahead < 0 ? "behind" : "ahead of");
}

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return (x > y) - (x < y);
}

static void check_latency(struct examination *exam)
{
	static const char advice[] = "Move Redis nearer, or raise REDIS_TIMEOUT_MS: a command that waits longer is refused with 503.";
	const struct slice ping[] = {SLICE("PING")};
	uint64_t took[PINGS], limit = exam->options->timeout_ms * 1000;
	for (size_t i = 0; i < PINGS; i++) {
		uint64_t start = clock_mono_us();
		if (redis_blocking_tell(&exam->redis, ping, 1) != 0) {
			tell(exam, "redis-latency", CHECKUP_FAIL, advice, "PING: %s", exam->redis.reason);
			return;
		}
		took[i] = clock_mono_us() - start;
	}
	qsort(took, PINGS, sizeof took[0], compare);
	uint64_t middle = took[PINGS / 2];
	tell(exam, "redis-latency",
	     middle > limit       ? CHECKUP_FAIL
	     : middle > limit / 2 ? CHECKUP_WARN
				  : CHECKUP_OK,
	     advice, "%.1f ms in the middle, %.1f at worst; the gateway waits %" PRIu64, (double)middle / 1000,
	     (double)took[PINGS - 1] / 1000, exam->options->timeout_ms);
}

/* By its text, which loads it, then by the hash that we reckon with. */
static bool run_script(struct examination *exam, const struct script *script, const struct slice *values, size_t count, redisReply **reply)
{
	struct slice args[3 + SCRIPT_ARGS_MAX] = {SLICE("EVAL"), slice_of(script->text, script->len), SLICE("1")};
	CLEANUP(redis_reply_free) redisReply *first = NULL;
	memcpy(args + 3, values, count * sizeof *values);
	if (ask(exam, args, 3 + count, &first) != 0)
		return false;
	args[0] = SLICE("EVALSHA");
	args[1] = slice_str(script->sha1);
	return ask(exam, args, 3 + count, reply) == 0;
}

static bool is_unknown(const redisReply *reply)
{
	return reply->type == REDIS_REPLY_ARRAY && reply->elements == 1 && reply->element[0]->str &&
	       strcmp(reply->element[0]->str, "unknown") == 0;
}

static void check_scripts(struct examination *exam)
{
	static const char advice[] =
		"Let the user run EVAL, EVALSHA, MGET and the commands listed in docs/POLICY.md on the keys " KEY_PREFIX "*.";
	const struct slice admit[] = {SLICE(KEY_RECORD NOBODY),
				      SLICE(NOBODY),
				      SLICE("-"),
				      SLICE("-"),
				      SLICE("-"),
				      SLICE("-"),
				      SLICE("1"),
				      SLICE("-"),
				      SLICE("0"),
				      SLICE("0")};
	const struct slice settle[] = {SLICE(KEY_RECORD NOBODY),
				       SLICE(NOBODY),
				       SLICE("-"),
				       SLICE("-"),
				       SLICE("0"),
				       SLICE("0"),
				       SLICE("0"),
				       SLICE(""),
				       SLICE(""),
				       SLICE("0")};
	const struct slice renew[] = {SLICE(KEY_RECORD NOBODY), SLICE(NOBODY), SLICE("-"), SLICE("-")};
	const struct slice peek[] = {SLICE(KEY_RECORD NOBODY), SLICE(NOBODY), SLICE("-"), SLICE("-"), SLICE("-"), SLICE(""), SLICE("-")};
	const struct slice marks[] = {SLICE("MGET"), SLICE(KEY_KILL NOBODY)};
	CLEANUP(redis_reply_free) redisReply *admitted = NULL, *settled = NULL, *renewed = NULL, *peeked = NULL;
	if (redis_blocking_tell(&exam->redis, marks, ARRAY_LEN(marks)) != 0 ||
	    !run_script(exam, &script_admit, admit, ARRAY_LEN(admit), &admitted) ||
	    !run_script(exam, &script_peek, peek, ARRAY_LEN(peek), &peeked) ||
	    !run_script(exam, &script_settle, settle, ARRAY_LEN(settle), &settled) ||
	    !run_script(exam, &script_renew, renew, ARRAY_LEN(renew), &renewed)) {
		tell(exam, "redis-scripts", CHECKUP_FAIL, advice, "%s", exam->redis.reason);
		return;
	}
	bool right = is_unknown(admitted) && is_unknown(peeked) && settled->type == REDIS_REPLY_INTEGER && settled->integer == 0 &&
		     renewed->type == REDIS_REPLY_INTEGER && renewed->integer == 0;
	tell(exam, "redis-scripts", right ? CHECKUP_OK : CHECKUP_FAIL, "This is not Redis, or one that changes scripts: use another.",
	     right ? "all run, under the hashes that were expected" : "a script gave another answer than it can");
}

/* By the script that tells what it knows of a caller. */
static bool ask_about_policy(struct examination *exam, const char *policy, redisReply **exists, redisReply **reply)
{
	char key[128];
	snprintf(key, sizeof key, KEY_POLICY "%s", policy);
	const struct slice known[] = {SLICE("EXISTS"), slice_str(key)};
	const struct slice peek[] = {SLICE(KEY_RECORD NOBODY), SLICE(NOBODY), SLICE("-"),       SLICE("-"), SLICE("exec:run"), SLICE(""),
				     SLICE("sessions"),        SLICE(NOBODY), slice_str(policy)};
	return ask(exam, known, ARRAY_LEN(known), exists) == 0 && run_script(exam, &script_peek, peek, ARRAY_LEN(peek), reply);
}

static const char *policy_fault(struct examination *exam, const char *policy)
{
	CLEANUP(redis_reply_free) redisReply *exists = NULL, *reply = NULL;
	if (!ask_about_policy(exam, policy, &exists, &reply))
		return exam->redis.reason;
	if (exists->type == REDIS_REPLY_INTEGER && exists->integer == 0)
		return "is not there";
	if (reply->type != REDIS_REPLY_ARRAY || !reply->elements || !reply->element[0]->str)
		return "the script gave another answer than it can";
	if (strcmp(reply->element[0]->str, "scope") == 0)
		return "has not the scope exec:run";
	return reply->elements == 1 ? "has a rule that cannot be used" : NULL;
}

static void check_policies(struct examination *exam)
{
	const struct checkup_options *options = exam->options;
	const char *policy;
	size_t count = 0, bad = 0;
	for (; options->policy && (policy = options->policy(options->ctx, count)); count++) {
		const char *fault = policy_fault(exam, policy);
		if (!fault)
			continue;
		bad++;
		tell(exam, "identity-policy", CHECKUP_FAIL,
		     "Nobody gets in by its rule of IDENTITY_RULES: see `spritegate policy show`, put it right with `spritegate policy set`.",
		     "%s: %s", policy, fault);
	}
	if (count && !bad)
		tell(exam, "identity-policy", CHECKUP_OK, NULL, "those that IDENTITY_RULES names can be used (%zu)", count);
}

void checkup_redis(const struct checkup_options *options)
{
	struct examination exam = {.options = options};
	redis_blocking_init(&exam.redis, slice_str(options->redis_url));
	if (check_reachable(&exam)) {
		check_version(&exam);
		check_eviction(&exam);
		check_clock(&exam);
		check_latency(&exam);
		check_scripts(&exam);
		check_policies(&exam);
	}
	redis_blocking_deinit(&exam.redis);
}
