/*
 * pool_reply - what the pool script answered, as the caller wants it
 *
 * Pure; knows the order of the arrays that scripts/pool.lua returns. Nothing is taken from an answer that is not wholly as it should be.
 *
 * Results: 0, or -EPROTO for anything that the script does not return.
 */
#pragma once

#include "gateway/base/slice.h"

#define POOL_REPLY_NAME_MAX    63
#define POOL_REPLY_STATE_MAX   15
#define POOL_REPLY_EXEC_ID_MAX 36
#define POOL_REPLY_TEXT_MAX    63 /* of incarnation and session */
#define POOL_REPLY_TENANTS_MAX 32

struct redisReply;

enum pool_reply_code {
	POOL_REPLY_OK,
	POOL_REPLY_REFUSED, /* nothing was changed */
	POOL_REPLY_LOST,    /* it may have been done, or be done yet */
	POOL_REPLY_FENCED,
	POOL_REPLY_FLUSHED,
};

enum pool_reply_refusal {
	POOL_REPLY_RECOVERING,
	POOL_REPLY_FULL,
	POOL_REPLY_STOCK,
	POOL_REPLY_CROWDED, /* as many run as may */
	POOL_REPLY_BUDGET,
	POOL_REPLY_CLOSED,
	POOL_REPLY_NONE, /* nothing to take */
	POOL_REPLY_LATE, /* a list that comes too late, or is not whole */
};

struct pool_reply {
	enum pool_reply_code code;
	enum pool_reply_refusal refusal; /* POOL_REPLY_REFUSED */
	uint64_t retry_after_ms;
	const char *word; /* what the script said; static */
};

struct pool_fleet {
	uint64_t total, own, warm, ended, instances, created, spent_nusd, day_left_ms, closed_ms, limit_count, limit_window_ms;
	bool recovering, list, superseded;
	uint64_t others_hot_target, others_leased, make_way, others_claims, others_crowd;
	struct pool_fleet_tenant {
		uint64_t id, held;
	} tenants[POOL_REPLY_TENANTS_MAX];
	size_t tenant_count;
};

struct pool_joined {
	char incarnation[POOL_REPLY_TEXT_MAX + 1];
	char session[POOL_REPLY_TEXT_MAX + 1];
	bool fresh;
};

struct pool_record {
	char name[POOL_REPLY_NAME_MAX + 1];
	char state[POOL_REPLY_STATE_MAX + 1]; /* a word of small letters */
	bool owned;
	uint64_t tenant;
	unsigned uses;
	uint64_t age_ms, idle_ms, lease_ms;
	char exec_id[POOL_REPLY_EXEC_ID_MAX + 1];
	uint64_t parking; /* only told, never written: lease.h */
};

/* Every answer begins so. POOL_REPLY_OK: the rest is read by one of the others. */
MUST_CHECK int pool_reply_read(const struct redisReply *reply, struct pool_reply *out);

MUST_CHECK int pool_reply_join(const struct redisReply *reply, struct pool_joined *joined, struct pool_fleet *fleet);
MUST_CHECK int pool_reply_beat(const struct redisReply *reply, struct pool_fleet *fleet);

/* Of a join or a beat: how many names follow that are not this session's any more. */
size_t pool_reply_revoked_count(const struct redisReply *reply, bool join);
MUST_CHECK int pool_reply_revoked(const struct redisReply *reply, bool join, size_t i, char name[POOL_REPLY_NAME_MAX + 1]);

/* Of take and adopt. */
MUST_CHECK int pool_reply_record_count(const struct redisReply *reply, size_t *count);
MUST_CHECK int pool_reply_record(const struct redisReply *reply, size_t i, struct pool_record *record);

/* Of sweep. */
MUST_CHECK int pool_reply_struck_count(const struct redisReply *reply, size_t *count);
MUST_CHECK int pool_reply_struck(const struct redisReply *reply, size_t i, char name[POOL_REPLY_NAME_MAX + 1], bool *recorded);

/* Of note and restore: a word for each of the members that were sent. */
enum pool_reply_word { POOL_REPLY_NOTED, POOL_REPLY_REVOKED, POOL_REPLY_ABSENT };
MUST_CHECK int pool_reply_word(const struct redisReply *reply, size_t i, size_t count, enum pool_reply_word *word);

/* What may be a Sprite's name and go into a call: a-z, 0-9 and hyphens. */
bool pool_reply_is_name(struct slice text);
