#include "policy/pool_reply.h"

#include <errno.h>
#include <hiredis/hiredis.h>

#define JOIN_SLOTS   4 /* ok, incarnation, session, fresh: the fleet follows */
#define BEAT_SLOTS   1
#define FLEET_SLOTS  19
#define TENANT_SLOTS 2
#define RECORD_SLOTS 10
#define STRUCK_SLOTS 2

static const char NAME_CHARS[] = "abcdefghijklmnopqrstuvwxyz0123456789-";
static const char STATE_CHARS[] = "abcdefghijklmnopqrstuvwxyz";
static const char ID_CHARS[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-";
static const char SESSION_CHARS[] = "abcdefghijklmnopqrstuvwxyz0123456789-/";
static const char HEX_CHARS[] = "0123456789abcdef";

struct word {
	const char *text;
	enum pool_reply_code code;
	enum pool_reply_refusal refusal;
	bool waits; /* a number follows: when to ask again, ms */
};

static const struct word words[] = {
	{"ok", POOL_REPLY_OK, 0, false},
	{"flushed", POOL_REPLY_FLUSHED, 0, false},
	{"fenced", POOL_REPLY_FENCED, 0, false},
	{"full", POOL_REPLY_REFUSED, POOL_REPLY_FULL, true},
	{"stock", POOL_REPLY_REFUSED, POOL_REPLY_STOCK, true},
	{"crowded", POOL_REPLY_REFUSED, POOL_REPLY_CROWDED, true},
	{"budget", POOL_REPLY_REFUSED, POOL_REPLY_BUDGET, true},
	{"closed", POOL_REPLY_REFUSED, POOL_REPLY_CLOSED, true},
	{"recovering", POOL_REPLY_REFUSED, POOL_REPLY_RECOVERING, true},
	{"none", POOL_REPLY_REFUSED, POOL_REPLY_NONE, false},
	{"late", POOL_REPLY_REFUSED, POOL_REPLY_LATE, false},
	{"stale", POOL_REPLY_LOST, 0, false},
	{"taken", POOL_REPLY_LOST, 0, true},
};

/* --- elements --------------------------------------------------------------- */

static struct slice text_at(const redisReply *array, size_t i)
{
	const redisReply *r = array->element[i];
	return r->type == REDIS_REPLY_STRING ? slice_of(r->str, r->len) : (struct slice){0};
}

static bool is_of(struct slice text, const char *chars)
{
	for (size_t i = 0; i < text.len; i++)
		if (!text.data[i] || !strchr(chars, text.data[i]))
			return false;
	return true;
}

static bool copy_at(const redisReply *array, size_t i, const char *chars, size_t least, char *out, size_t size)
{
	struct slice text = text_at(array, i);
	if (array->element[i]->type != REDIS_REPLY_STRING || text.len < least || text.len >= size || !is_of(text, chars))
		return false;
	if (text.len)
		memcpy(out, text.data, text.len);
	out[text.len] = '\0';
	return true;
}

static bool number_at(const redisReply *array, size_t i, uint64_t *out)
{
	const redisReply *r = array->element[i];
	if (r->type != REDIS_REPLY_INTEGER || r->integer < 0)
		return false;
	*out = (uint64_t)r->integer;
	return true;
}

static bool flag_at(const redisReply *array, size_t i, bool *out)
{
	uint64_t number;
	if (!number_at(array, i, &number) || number > 1)
		return false;
	*out = number == 1;
	return true;
}

static bool hex_at(const redisReply *array, size_t i, uint64_t *out)
{
	struct slice text = text_at(array, i);
	if (!text.len || text.len > 16 || !is_of(text, HEX_CHARS))
		return false;
	*out = 0;
	for (size_t at = 0; at < text.len; at++)
		*out = *out << 4 | (uint64_t)(strchr(HEX_CHARS, text.data[at]) - HEX_CHARS);
	return true;
}

bool pool_reply_is_name(struct slice text)
{
	return text.len && text.len <= POOL_REPLY_NAME_MAX && is_of(text, NAME_CHARS);
}

static bool name_at(const redisReply *array, size_t i, char out[POOL_REPLY_NAME_MAX + 1])
{
	return copy_at(array, i, NAME_CHARS, 1, out, POOL_REPLY_NAME_MAX + 1);
}

/* --- answers ---------------------------------------------------------------- */

int pool_reply_read(const struct redisReply *reply, struct pool_reply *out)
{
	*out = (struct pool_reply){.code = POOL_REPLY_LOST, .word = "no-sense"};
	if (reply->type != REDIS_REPLY_ARRAY || reply->elements == 0)
		return -EPROTO;
	struct slice text = text_at(reply, 0);
	for (size_t i = 0; i < ARRAY_LEN(words); i++) {
		const struct word *word = &words[i];
		if (!slice_equal(text, slice_str(word->text)))
			continue;
		uint64_t wait = 0;
		bool told = word->waits && reply->elements == 2;
		if (word->code != POOL_REPLY_OK && reply->elements != (told ? 2u : 1u))
			return -EPROTO;
		if (told && !number_at(reply, 1, &wait))
			return -EPROTO;
		*out = (struct pool_reply){.code = word->code, .refusal = word->refusal, .retry_after_ms = wait, .word = word->text};
		return 0;
	}
	return -EPROTO;
}

/* Money is a text: it may be beyond what Lua counts exactly. */
static bool read_fleet(const redisReply *reply, size_t at, struct pool_fleet *f)
{
	uint64_t *const numbers[] = {&f->total,
				     &f->own,
				     &f->warm,
				     &f->ended,
				     &f->instances,
				     &f->created,
				     NULL,
				     &f->closed_ms,
				     &f->limit_count,
				     &f->limit_window_ms,
				     NULL,
				     NULL,
				     NULL,
				     &f->others_hot_target,
				     &f->others_leased,
				     &f->make_way,
				     &f->others_claims,
				     &f->day_left_ms,
				     &f->others_crowd};
	_Static_assert(ARRAY_LEN(numbers) == FLEET_SLOTS, "one for each");
	*f = (struct pool_fleet){0};
	for (size_t i = 0; i < FLEET_SLOTS; i++)
		if (numbers[i] && !number_at(reply, at + i, numbers[i]))
			return false;
	return slice_to_u64(text_at(reply, at + 6), UINT64_MAX, &f->spent_nusd) == 0 && flag_at(reply, at + 10, &f->recovering) &&
	       flag_at(reply, at + 11, &f->list) && flag_at(reply, at + 12, &f->superseded);
}

/* How many tenants are told, and where; they end where the names begin. */
static bool count_tenants(const redisReply *reply, bool join, size_t *at, size_t *count)
{
	uint64_t told;
	*at = (join ? JOIN_SLOTS : BEAT_SLOTS) + FLEET_SLOTS + 1;
	if (reply->elements < *at || !number_at(reply, *at - 1, &told) || told > POOL_REPLY_TENANTS_MAX)
		return false;
	*count = (size_t)told;
	return reply->elements - *at >= *count * TENANT_SLOTS;
}

static bool read_tenants(const redisReply *reply, size_t at, size_t count, struct pool_fleet *fleet)
{
	fleet->tenant_count = count;
	for (size_t i = 0; i < count; i++)
		if (!hex_at(reply, at + i * TENANT_SLOTS, &fleet->tenants[i].id) ||
		    !number_at(reply, at + i * TENANT_SLOTS + 1, &fleet->tenants[i].held))
			return false;
	return true;
}

static size_t names_begin(const redisReply *reply, bool join)
{
	size_t at, count;
	return count_tenants(reply, join, &at, &count) ? at + count * TENANT_SLOTS : reply->elements;
}

static int read_beat(const redisReply *reply, bool join, struct pool_fleet *fleet)
{
	char name[POOL_REPLY_NAME_MAX + 1];
	size_t at, count, begin = names_begin(reply, join);
	if (!count_tenants(reply, join, &at, &count) || !read_fleet(reply, at - 1 - FLEET_SLOTS, fleet) ||
	    !read_tenants(reply, at, count, fleet))
		return -EPROTO;
	for (size_t i = begin; i < reply->elements; i++)
		if (!name_at(reply, i, name))
			return -EPROTO;
	return 0;
}

int pool_reply_beat(const struct redisReply *reply, struct pool_fleet *fleet)
{
	return read_beat(reply, false, fleet);
}

int pool_reply_join(const struct redisReply *reply, struct pool_joined *joined, struct pool_fleet *fleet)
{
	*joined = (struct pool_joined){0};
	int r = read_beat(reply, true, fleet);
	if (r < 0)
		return r;
	bool good = copy_at(reply, 1, ID_CHARS, 1, joined->incarnation, sizeof joined->incarnation) &&
		    copy_at(reply, 2, SESSION_CHARS, 1, joined->session, sizeof joined->session) && flag_at(reply, 3, &joined->fresh);
	return good ? 0 : -EPROTO;
}

size_t pool_reply_revoked_count(const struct redisReply *reply, bool join)
{
	return reply->elements - names_begin(reply, join);
}

int pool_reply_revoked(const struct redisReply *reply, bool join, size_t i, char name[POOL_REPLY_NAME_MAX + 1])
{
	return i < pool_reply_revoked_count(reply, join) && name_at(reply, names_begin(reply, join) + i, name) ? 0 : -EPROTO;
}

static int count_groups(const redisReply *reply, size_t width, size_t *count)
{
	*count = (reply->elements - 1) / width;
	return (reply->elements - 1) % width == 0 ? 0 : -EPROTO;
}

int pool_reply_record_count(const struct redisReply *reply, size_t *count)
{
	return count_groups(reply, RECORD_SLOTS, count);
}

int pool_reply_record(const struct redisReply *reply, size_t i, struct pool_record *record)
{
	size_t at = 1 + i * RECORD_SLOTS;
	uint64_t uses;
	*record = (struct pool_record){0};
	bool good = name_at(reply, at, record->name) && copy_at(reply, at + 1, STATE_CHARS, 1, record->state, sizeof record->state) &&
		    number_at(reply, at + 2, &record->age_ms) && number_at(reply, at + 3, &record->idle_ms) &&
		    flag_at(reply, at + 4, &record->owned) && hex_at(reply, at + 5, &record->tenant) && number_at(reply, at + 6, &uses) &&
		    uses <= UINT32_MAX && number_at(reply, at + 7, &record->lease_ms) &&
		    copy_at(reply, at + 8, ID_CHARS, 0, record->exec_id, sizeof record->exec_id) &&
		    number_at(reply, at + 9, &record->parking);
	if (good)
		record->uses = (unsigned)uses;
	return good ? 0 : -EPROTO;
}

int pool_reply_struck_count(const struct redisReply *reply, size_t *count)
{
	return count_groups(reply, STRUCK_SLOTS, count);
}

int pool_reply_struck(const struct redisReply *reply, size_t i, char name[POOL_REPLY_NAME_MAX + 1], bool *recorded)
{
	size_t at = 1 + i * STRUCK_SLOTS;
	return name_at(reply, at, name) && flag_at(reply, at + 1, recorded) ? 0 : -EPROTO;
}

int pool_reply_word(const struct redisReply *reply, size_t i, size_t count, enum pool_reply_word *word)
{
	static const char *const texts[] = {[POOL_REPLY_NOTED] = "ok", [POOL_REPLY_REVOKED] = "revoked", [POOL_REPLY_ABSENT] = "absent"};
	if (reply->elements != count + 1)
		return -EPROTO;
	for (size_t w = 0; w < ARRAY_LEN(texts); w++) {
		if (slice_equal(text_at(reply, i + 1), slice_str(texts[w]))) {
			*word = (enum pool_reply_word)w;
			return 0;
		}
	}
	return -EPROTO;
}
