#include "policy/pool_reply.h"

#include <hiredis/hiredis.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_name(const char *name)
{
	if (!pool_reply_is_name(slice_str(name)))
		abort();
}

static void read_lists(const redisReply *reply)
{
	size_t count;
	char name[POOL_REPLY_NAME_MAX + 1];
	struct pool_record record;
	bool recorded;
	enum pool_reply_word word;
	if (pool_reply_record_count(reply, &count) == 0)
		for (size_t i = 0; i < count; i++)
			if (pool_reply_record(reply, i, &record) == 0)
				check_name(record.name);
	if (pool_reply_struck_count(reply, &count) == 0)
		for (size_t i = 0; i < count; i++)
			if (pool_reply_struck(reply, i, name, &recorded) == 0)
				check_name(name);
	for (size_t i = 0; i + 1 < reply->elements; i++)
		(void)!pool_reply_word(reply, i, reply->elements - 1, &word);
}

static void read_fleet(const redisReply *reply, bool join)
{
	struct pool_fleet fleet;
	struct pool_joined joined;
	char name[POOL_REPLY_NAME_MAX + 1];
	int r = join ? pool_reply_join(reply, &joined, &fleet) : pool_reply_beat(reply, &fleet);
	if (r != 0)
		return;
	for (size_t i = 0; i < pool_reply_revoked_count(reply, join); i++) {
		if (pool_reply_revoked(reply, join, i, name) != 0)
			abort(); /* all were looked at before */
		check_name(name);
	}
}

/* The bytes are Redis' protocol. Whatever it says, no text that is not ours gets through. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	redisReader *reader = redisReaderCreate();
	void *found = NULL;
	struct pool_reply head;
	if (!reader)
		return 0;
	reader->maxelements = 4096; /* hiredis makes room for as many as are announced */
	if (redisReaderFeed(reader, (const char *)data, size) == REDIS_OK && redisReaderGetReply(reader, &found) == REDIS_OK && found) {
		const redisReply *reply = found;
		if (pool_reply_read(reply, &head) == 0 && head.code == POOL_REPLY_OK) {
			read_lists(reply);
			read_fleet(reply, false);
			read_fleet(reply, true);
		}
		freeReplyObject(found);
	}
	redisReaderFree(reader);
	return 0;
}
