#include "policy/store_parts.h"

#include "policy/keys.h"
#include "policy/limits.h"

#include <hiredis/hiredis.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define KEEP_DAYS 30 /* a record stays this long after its expiry, for `show` */
#define AUDIT_MAX "10000"

_Static_assert(STORE_E_REDIS == REDIS_BLOCKING_E_FAILED, "one code is passed on as the other");
_Static_assert(REDIS_BLOCKING_ARGS_MAX >= 2 * RECORD_FIELDS + 2, "a whole record is one HSET");

struct store *store_open(struct slice url, const char *by)
{
	struct store *store = calloc(1, sizeof *store);
	if (!store)
		return NULL;
	redis_blocking_init(&store->redis, url);
	snprintf(store->by, sizeof store->by, "%s", by);
	return store;
}

void store_close(struct store *store)
{
	if (!store)
		return;
	redis_blocking_deinit(&store->redis);
	free(store);
}

const char *store_reason(const struct store *store)
{
	return store->redis.reason;
}

int store_ask(struct store *store, const struct slice *args, size_t count, redisReply **reply)
{
	return redis_blocking_ask(&store->redis, args, count, reply);
}

int store_tell(struct store *store, const struct slice *args, size_t count)
{
	return redis_blocking_tell(&store->redis, args, count);
}

int store_fail(struct store *store, const char *reason)
{
	return redis_blocking_fail(&store->redis, reason);
}

/* --- reading ---------------------------------------------------------------- */

struct slice store_text(const redisReply *reply)
{
	bool text = reply->type == REDIS_REPLY_STRING || reply->type == REDIS_REPLY_STATUS;
	return text ? slice_of(reply->str, reply->len) : (struct slice){0};
}

uint64_t store_number(const redisReply *reply)
{
	uint64_t number = 0;
	if (reply->type == REDIS_REPLY_INTEGER)
		return reply->integer > 0 ? (uint64_t)reply->integer : 0;
	return slice_to_u64(store_text(reply), UINT64_MAX, &number) == 0 ? number : 0;
}

struct slice store_key(char key[STORE_KEY_MAX], const char *prefix, struct slice name)
{
	int len = snprintf(key, STORE_KEY_MAX, "%s%.*s", prefix, SLICE_FMT(name));
	return slice_of(key, len < 0 ? 0 : (size_t)len);
}

int store_now(struct store *store, uint64_t *now_ms)
{
	CLEANUP(redis_reply_free) redisReply *reply = NULL;
	struct slice args[] = {SLICE("TIME")};
	int r = store_ask(store, args, 1, &reply);
	if (r)
		return r;
	if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2)
		return store_fail(store, "TIME has an unexpected answer");
	*now_ms = store_number(reply->element[0]) * 1000 + store_number(reply->element[1]) / 1000;
	return 0;
}

static int load(struct store *store, struct slice key, struct record *record)
{
	CLEANUP(redis_reply_free) redisReply *reply = NULL;
	struct slice args[] = {SLICE("HGETALL"), key};
	*record = (struct record){0};
	int r = store_ask(store, args, 2, &reply);
	if (r)
		return r;
	if (reply->type != REDIS_REPLY_ARRAY || reply->elements == 0)
		return STORE_E_MISSING;
	for (size_t i = 0; i + 1 < reply->elements; i += 2) {
		struct slice name = store_text(reply->element[i]);
		if (record_read_field(record, name, store_text(reply->element[i + 1])) == 0)
			continue;
		char reason[120];
		snprintf(reason, sizeof reason, "its field %.*s is not known or cannot be read", (int)(name.len < 40 ? name.len : 40),
			 name.data);
		(void)store_fail(store, reason);
		r = STORE_E_BROKEN;
	}
	return r;
}

int store_load(struct store *store, struct slice kid, struct record *record)
{
	char key[STORE_KEY_MAX];
	return load(store, store_key(key, KEY_RECORD, kid), record);
}

int store_load_policy(struct store *store, struct slice name, uint64_t version, struct record *policy)
{
	char key[STORE_KEY_MAX], past[RECORD_NAME_MAX + 24];
	if (!version)
		return load(store, store_key(key, KEY_POLICY, name), policy);
	snprintf(past, sizeof past, "%.*s:%" PRIu64, SLICE_FMT(name), version);
	return load(store, store_key(key, KEY_POLICY_PAST, slice_str(past)), policy);
}

static int load_running(struct store *store, struct slice kid, uint64_t now_ms, struct store_usage *usage)
{
	CLEANUP(redis_reply_free) redisReply *reply = NULL;
	char key[STORE_KEY_MAX], now[24];
	snprintf(now, sizeof now, "%" PRIu64, now_ms);
	struct slice args[] = {SLICE("ZCOUNT"), store_key(key, KEY_LEASES, kid), slice_str(now), SLICE("+inf")};
	int r = store_ask(store, args, 4, &reply);
	if (r == 0)
		usage->running = store_number(reply);
	return r;
}

/* <lease>:<granted ms>:<day>:…:out=<reserved bytes>: what nobody settled counts in full, as for scripts/shared/caller.lua. */
static void charge_ended(struct slice member, struct slice today, struct store_usage *usage)
{
	struct slice id, granted, day, part = {0};
	uint64_t granted_ms, out;
	if (!slice_next(&member, ':', &id) || !slice_next(&member, ':', &granted) || !slice_next(&member, ':', &day) ||
	    !slice_equal(day, today) || slice_to_u64(granted, UINT64_MAX, &granted_ms) < 0)
		return;
	usage->used_ms += granted_ms;
	usage->held_ms -= granted_ms < usage->held_ms ? granted_ms : usage->held_ms;
	while (slice_next(&member, ':', &part))
		continue;
	if (slice_has_prefix(part, SLICE("out=")) && slice_to_u64(slice_from(part, 4), UINT64_MAX, &out) == 0)
		usage->out_bytes += out;
}

/* Asked for after the sums: one that is settled in between is still told as held, and not twice as used. */
static int charge_all_ended(struct store *store, struct slice kid, struct slice today, uint64_t now_ms, struct store_usage *usage)
{
	CLEANUP(redis_reply_free) redisReply *reply = NULL;
	char key[STORE_KEY_MAX];
	struct slice args[] = {SLICE("ZRANGE"), store_key(key, KEY_LEASES, kid), SLICE("0"), SLICE("-1"), SLICE("WITHSCORES")};
	int r = store_ask(store, args, ARRAY_LEN(args), &reply);
	for (size_t i = 0; r == 0 && reply->type == REDIS_REPLY_ARRAY && i + 1 < reply->elements; i += 2)
		if (store_number(reply->element[i + 1]) <= now_ms)
			charge_ended(store_text(reply->element[i]), today, usage);
	return r;
}

int store_usage(struct store *store, struct slice kid, struct store_usage *usage)
{
	CLEANUP(redis_reply_free) redisReply *reply = NULL;
	char key[STORE_KEY_MAX], name[TOKEN_KID_LEN + 10], today[9];
	uint64_t now_ms;
	*usage = (struct store_usage){0};
	int r = store_now(store, &now_ms);
	if (r == 0)
		r = load_running(store, kid, now_ms, usage);
	if (r)
		return r;
	time_t seconds = (time_t)(now_ms / 1000);
	struct tm utc;
	gmtime_r(&seconds, &utc);
	strftime(today, sizeof today, "%Y%m%d", &utc);
	snprintf(name, sizeof name, "%.*s:%s", SLICE_FMT(kid), today);
	struct slice args[] = {SLICE("HMGET"), store_key(key, KEY_BUDGET, slice_str(name)), SLICE("used"), SLICE("held"), SLICE("out"),
			       SLICE("reqs")};
	r = store_ask(store, args, ARRAY_LEN(args), &reply);
	if (r == 0 && reply->type == REDIS_REPLY_ARRAY && reply->elements == 4)
		*usage = (struct store_usage){
			.running = usage->running,
			.used_ms = store_number(reply->element[0]),
			.held_ms = store_number(reply->element[1]),
			.out_bytes = store_number(reply->element[2]),
			.requests = store_number(reply->element[3]),
		};
	return r == 0 && usage->held_ms ? charge_all_ended(store, kid, slice_str(today), now_ms, usage) : r;
}

/* --- changing --------------------------------------------------------------- */

int store_audit(struct store *store, const char *action, const char *what, struct slice name, struct slice who)
{
	struct slice args[14] = {SLICE("XADD"), SLICE(KEY_AUDIT), SLICE("MAXLEN"),   SLICE("~"),      SLICE(AUDIT_MAX),
				 SLICE("*"),    SLICE("action"),  slice_str(action), slice_str(what), name};
	const struct slice more[][2] = {{SLICE("actor"), who}, {SLICE("by"), slice_str(store->by)}};
	size_t count = 10;
	for (size_t i = 0; i < ARRAY_LEN(more); i++) {
		if (!more[i][1].len)
			continue;
		args[count++] = more[i][0];
		args[count++] = more[i][1];
	}
	return store_tell(store, args, count);
}

int store_begin(struct store *store)
{
	struct slice args[] = {SLICE("MULTI")};
	return store_tell(store, args, 1);
}

int store_commit(struct store *store)
{
	CLEANUP(redis_reply_free) redisReply *reply = NULL;
	struct slice args[] = {SLICE("EXEC")};
	int r = store_ask(store, args, 1, &reply);
	if (r)
		return r;
	if (reply->type != REDIS_REPLY_ARRAY) {
		(void)store_fail(store, "somebody else changed it at the same time; look, and try again");
		return STORE_E_CHANGED;
	}
	for (size_t i = 0; i < reply->elements; i++)
		if (reply->element[i]->type == REDIS_REPLY_ERROR)
			return store_fail(store, reply->element[i]->str);
	return 0;
}

static int put_record(struct store *store, const char *prefix, struct slice name, const struct record *record)
{
	char key[STORE_KEY_MAX], numbers[RECORD_FIELDS][21];
	struct slice args[REDIS_BLOCKING_ARGS_MAX] = {SLICE("HSET"), store_key(key, prefix, name)};
	size_t count = record_write(record, args + 2, numbers);
	return count ? store_tell(store, args, 2 + count) : 0;
}

static int remove_fields(struct store *store, struct slice kid, uint64_t fields)
{
	char key[STORE_KEY_MAX];
	struct slice args[REDIS_BLOCKING_ARGS_MAX] = {SLICE("HDEL"), store_key(key, KEY_RECORD, kid)};
	size_t count = 2;
	for (size_t i = 0; i < RECORD_FIELDS; i++)
		if (fields & RECORD_BIT(i))
			args[count++] = slice_str(record_field_name((enum record_field)i));
	return count > 2 ? store_tell(store, args, count) : 0;
}

static int put_expiry(struct store *store, struct slice kid, uint64_t exp_ms)
{
	char key[STORE_KEY_MAX], end[24];
	if (!exp_ms)
		return 0;
	snprintf(end, sizeof end, "%" PRIu64, exp_ms + KEEP_DAYS * LIMITS_DAY_MS);
	struct slice args[] = {SLICE("PEXPIREAT"), store_key(key, KEY_RECORD, kid), slice_str(end)};
	return store_tell(store, args, 3);
}

static int put_index(struct store *store, struct slice kid, struct slice actor)
{
	char key[STORE_KEY_MAX];
	struct slice args[] = {SLICE("SADD"), store_key(key, KEY_ACTOR_INDEX, actor), kid};
	return store_tell(store, args, 3);
}

int store_create(struct store *store, struct slice kid, const struct record *record)
{
	struct slice actor = slice_str(record->actor);
	int r = store_begin(store);
	if (r == 0)
		r = put_record(store, KEY_RECORD, kid, record);
	if (r == 0)
		r = put_expiry(store, kid, record->exp);
	if (r == 0)
		r = put_index(store, kid, actor);
	if (r == 0)
		r = store_audit(store, "create", "kid", kid, actor);
	return r ? r : store_commit(store);
}

static int put_no_expiry(struct store *store, struct slice kid)
{
	char key[STORE_KEY_MAX];
	struct slice args[] = {SLICE("PERSIST"), store_key(key, KEY_RECORD, kid)};
	return store_tell(store, args, 2);
}

static int raise_version(struct store *store, struct slice kid)
{
	char key[STORE_KEY_MAX];
	struct slice args[] = {SLICE("HINCRBY"), store_key(key, KEY_RECORD, kid), SLICE("ver"), SLICE("1")};
	return store_tell(store, args, 4);
}

static int announce(struct store *store, const char *action, struct slice kid)
{
	char text[TOKEN_KID_LEN + 20];
	snprintf(text, sizeof text, "%s %.*s", action, SLICE_FMT(kid));
	struct slice args[] = {SLICE("PUBLISH"), SLICE(KEY_EVENTS), slice_str(text)};
	return store_tell(store, args, 3);
}

int store_watch(struct store *store, enum store_kind kind, struct slice name)
{
	char key[STORE_KEY_MAX];
	struct slice args[] = {SLICE("WATCH"), store_key(key, kind == STORE_POLICIES ? KEY_POLICY : KEY_RECORD, name)};
	return store_tell(store, args, 2);
}

int store_change(struct store *store, struct slice kid, const struct record *loaded, const struct record *changes, uint64_t removed,
		 const char *action)
{
	int r = store_begin(store);
	if (r == 0)
		r = put_record(store, KEY_RECORD, kid, changes);
	if (r == 0)
		r = remove_fields(store, kid, removed);
	if (r == 0 && (changes->present & RECORD_BIT(RECORD_EXP)))
		r = put_expiry(store, kid, changes->exp);
	if (r == 0 && (removed & RECORD_BIT(RECORD_EXP)))
		r = put_no_expiry(store, kid);
	if (r == 0)
		r = raise_version(store, kid);
	if (r == 0)
		r = announce(store, action, kid);
	if (r == 0)
		r = store_audit(store, action, "kid", kid, slice_str(loaded->actor));
	return r ? r : store_commit(store);
}

static int set_for_kill(struct store *store, const char *prefix, struct slice name, struct slice value)
{
	char key[STORE_KEY_MAX];
	struct slice args[] = {SLICE("SET"), store_key(key, prefix, name), value, SLICE("PX"), SLICE(STORE_KILL_MS)};
	return store_tell(store, args, ARRAY_LEN(args));
}

int store_mark(struct store *store, struct slice name)
{
	char note[RECORD_NAME_MAX + sizeof store->by + 2];
	snprintf(note, sizeof note, "%.*s %s", SLICE_FMT(name), store->by);
	int r = set_for_kill(store, KEY_KILL, name, name);
	return r || !store->by[0] ? r : set_for_kill(store, KEY_KILL_BY, name, slice_str(note));
}

int store_kill(struct store *store, const char *what, struct slice name)
{
	int r = store_begin(store);
	if (r == 0)
		r = store_mark(store, name);
	if (r == 0)
		r = store_audit(store, "kill", what, name, (struct slice){0});
	return r ? r : store_commit(store);
}

int store_put_policy(struct store *store, struct slice name, const struct record *policy)
{
	char key[STORE_KEY_MAX], past[RECORD_NAME_MAX + 24];
	snprintf(past, sizeof past, "%.*s:%" PRIu64, SLICE_FMT(name), policy->ver);
	struct slice clear[] = {SLICE("DEL"), store_key(key, KEY_POLICY, name)};
	int r = store_begin(store);
	if (r == 0)
		r = store_tell(store, clear, 2);
	if (r == 0)
		r = put_record(store, KEY_POLICY, name, policy);
	if (r == 0)
		r = put_record(store, KEY_POLICY_PAST, slice_str(past), policy);
	if (r == 0)
		r = store_audit(store, "policy-set", "policy", name, (struct slice){0});
	return r ? r : store_commit(store);
}

/* --- listing ---------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
	return strcmp(a, b);
}

/* SCAN may give a key twice. */
static size_t sort_unique(store_name *kids, size_t count)
{
	size_t kept = 0;
	if (count)
		qsort(kids, count, sizeof *kids, by_name);
	for (size_t i = 0; i < count; i++)
		if (!kept || by_name(kids[kept - 1], kids[i]) != 0)
			memmove(kids[kept++], kids[i], sizeof *kids);
	return kept;
}

static const struct {
	const char *prefix;
	const char *pattern;
	bool (*is_name)(struct slice name);
} kinds[] = {
	[STORE_TOKENS] = {KEY_RECORD, KEY_RECORD "*", token_kid_is_valid},
	[STORE_POLICIES] = {KEY_POLICY, KEY_POLICY "*", record_policy_name_is_valid},
	[STORE_SESSIONS] = {KEY_SESSIONS, KEY_SESSIONS "*", token_kid_or_identity},
	[STORE_LEASES] = {KEY_LEASES, KEY_LEASES "*", token_kid_or_identity},
};

static int add_page(struct store *store, enum store_kind kind, const redisReply *page, store_name **names, size_t *count)
{
	size_t prefix = strlen(kinds[kind].prefix);
	if (*count + page->elements > STORE_NAMES_MAX)
		return store_fail(store, "there are too many to list");
	store_name *grown = realloc(*names, (*count + page->elements + 1) * sizeof **names);
	if (!grown)
		return store_fail(store, "out of memory");
	*names = grown;
	for (size_t i = 0; i < page->elements; i++) {
		struct slice kid = slice_from(store_text(page->element[i]), prefix);
		if (!kinds[kind].is_name(kid))
			continue;
		memcpy(grown[*count], kid.data, kid.len);
		grown[(*count)++][kid.len] = '\0';
	}
	return 0;
}

/* One SCAN; `cursor` moves on and is "0" after the last. */
static int scan(struct store *store, enum store_kind kind, char cursor[24], store_name **names, size_t *count)
{
	CLEANUP(redis_reply_free) redisReply *reply = NULL;
	struct slice args[] = {SLICE("SCAN"),  slice_str(cursor), SLICE("MATCH"), slice_str(kinds[kind].pattern),
			       SLICE("COUNT"), SLICE("1000")};
	int r = store_ask(store, args, ARRAY_LEN(args), &reply);
	if (r)
		return r;
	if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2 || reply->element[1]->type != REDIS_REPLY_ARRAY)
		return store_fail(store, "SCAN has an unexpected answer");
	snprintf(cursor, 24, "%.*s", SLICE_FMT(store_text(reply->element[0])));
	return add_page(store, kind, reply->element[1], names, count);
}

int store_list(struct store *store, enum store_kind kind, store_name **names, size_t *count)
{
	CLEANUP(free_ptr) store_name *found = NULL;
	char cursor[24] = "0";
	size_t n = 0;
	do {
		int r = scan(store, kind, cursor, &found, &n);
		if (r)
			return r;
	} while (strcmp(cursor, "0") != 0);
	*count = sort_unique(found, n);
	*names = TAKE(found);
	return 0;
}

/* <lease>:<granted ms>:<day>:<since µs>:… */
static bool read_lease(struct slice member, uint64_t end_ms, struct store_lease *lease)
{
	struct slice id, granted, day, since;
	uint64_t since_us;
	if (!slice_next(&member, ':', &id) || !slice_next(&member, ':', &granted) || !slice_next(&member, ':', &day) ||
	    !slice_next(&member, ':', &since) || id.len >= sizeof lease->id || slice_to_u64(granted, UINT64_MAX, &lease->granted_ms) < 0 ||
	    slice_to_u64(since, UINT64_MAX, &since_us) < 0)
		return false;
	snprintf(lease->id, sizeof lease->id, "%.*s", SLICE_FMT(id));
	lease->since_ms = since_us / 1000;
	lease->end_ms = end_ms;
	return true;
}

static int read_leases(struct store *store, const char *prefix, struct slice name, struct store_lease **leases, size_t *count)
{
	CLEANUP(redis_reply_free) redisReply *reply = NULL;
	char key[STORE_KEY_MAX];
	struct slice args[] = {SLICE("ZRANGE"), store_key(key, prefix, name), SLICE("0"), SLICE("-1"), SLICE("WITHSCORES")};
	int r = store_ask(store, args, ARRAY_LEN(args), &reply);
	if (r)
		return r;
	if (reply->type != REDIS_REPLY_ARRAY)
		return store_fail(store, "ZRANGE has an unexpected answer");
	struct store_lease *found = calloc(reply->elements / 2 + 1, sizeof *found);
	if (!found)
		return store_fail(store, "out of memory");
	*count = 0;
	for (size_t i = 0; i + 1 < reply->elements; i += 2)
		if (read_lease(store_text(reply->element[i]), store_number(reply->element[i + 1]), &found[*count]))
			(*count)++;
	qsort(found, *count, sizeof *found, by_name);
	*leases = found;
	return 0;
}

int store_leases(struct store *store, struct slice kid, struct store_lease **leases, size_t *count)
{
	return read_leases(store, KEY_LEASES, kid, leases, count);
}

int store_actor_leases(struct store *store, struct slice actor, struct store_lease **leases, size_t *count)
{
	return read_leases(store, KEY_ACTOR_LEASES, actor, leases, count);
}

const struct store_lease *store_find_lease(const struct store_lease *leases, size_t count, const char *id)
{
	return count ? bsearch(id, leases, count, sizeof *leases, by_name) : NULL;
}

bool store_copy_text(struct slice from, char *to, size_t size)
{
	if (from.len >= size)
		return false;
	for (size_t i = 0; i < from.len; i++)
		if ((unsigned char)from.data[i] <= ' ' || (unsigned char)from.data[i] > '~' || from.data[i] == '"' || from.data[i] == '\\')
			return false;
	snprintf(to, size, "%.*s", SLICE_FMT(from));
	return true;
}

/* --- shared pools --------------------------------------------------------------- */

/* state:session:turn:since:created:owned:tenant:uses:exec id:end of the lease */
static bool read_member(struct slice name, struct slice text, struct store_member *member)
{
	struct slice f[10];
	size_t n = 0;
	while (n < ARRAY_LEN(f) && slice_next(&text, ':', &f[n]))
		n++;
	*member = (struct store_member){0};
	return n == ARRAY_LEN(f) && store_copy_text(name, member->name, sizeof member->name) &&
	       store_copy_text(f[0], member->state, sizeof member->state) &&
	       store_copy_text(f[1], member->session, sizeof member->session) && slice_to_u64(f[3], UINT64_MAX, &member->since_ms) == 0 &&
	       slice_to_u64(f[4], UINT64_MAX, &member->created_ms) == 0 && slice_to_u64(f[7], UINT64_MAX, &member->uses) == 0 &&
	       store_copy_text(f[8], member->exec_id, sizeof member->exec_id);
}

int store_pool(struct store *store, struct slice pool, struct store_member **members, size_t *count)
{
	CLEANUP(redis_reply_free) redisReply *reply = NULL;
	char key[STORE_KEY_MAX];
	snprintf(key, sizeof key, KEY_POOL "%.*s:m", SLICE_FMT(pool));
	struct slice args[] = {SLICE("HGETALL"), slice_str(key)};
	int r = store_ask(store, args, ARRAY_LEN(args), &reply);
	if (r)
		return r;
	if (reply->type != REDIS_REPLY_ARRAY)
		return store_fail(store, "HGETALL has an unexpected answer");
	struct store_member *found = calloc(reply->elements / 2 + 1, sizeof *found);
	if (!found)
		return store_fail(store, "out of memory");
	*count = 0;
	for (size_t i = 0; i + 1 < reply->elements; i += 2)
		if (read_member(store_text(reply->element[i]), store_text(reply->element[i + 1]), &found[*count]))
			(*count)++;
	qsort(found, *count, sizeof *found, by_name);
	*members = found;
	return 0;
}
