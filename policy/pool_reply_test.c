#include "policy/pool_reply.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <hiredis/hiredis.h>
#include <stdio.h>
#include <stdlib.h>

/* An answer as Redis sends it: words and numbers with blanks between them; a number with ' before it is a text, - is an empty one. */
static redisReply *parse(const char *words)
{
	char wire[4096];
	struct slice rest = slice_str(words), word;
	size_t count = 0, len = 0;
	for (struct slice counted = rest; slice_next(&counted, ' ', &word);)
		count++;
	len += (size_t)snprintf(wire, sizeof wire, "*%zu\r\n", count);
	while (slice_next(&rest, ' ', &word)) {
		bool number = word.len && word.data[0] >= '0' && word.data[0] <= '9';
		struct slice text = word.data[0] == '\'' ? slice_from(word, 1) : slice_equal(word, SLICE("-")) ? SLICE("") : word;
		len += (size_t)(number ? snprintf(wire + len, sizeof wire - len, ":%.*s\r\n", SLICE_FMT(word))
				       : snprintf(wire + len, sizeof wire - len, "$%zu\r\n%.*s\r\n", text.len, SLICE_FMT(text)));
	}
	assert_true(len < sizeof wire);
	redisReader *reader = redisReaderCreate();
	void *reply = NULL;
	assert_int_equal(redisReaderFeed(reader, wire, len), REDIS_OK);
	assert_int_equal(redisReaderGetReply(reader, &reply), REDIS_OK);
	assert_non_null(reply);
	redisReaderFree(reader);
	return reply;
}

static enum pool_reply_code code_of(const char *words, struct pool_reply *head)
{
	redisReply *reply = parse(words);
	int r = pool_reply_read(reply, head);
	assert_true(r == 0 || head->code == POOL_REPLY_LOST);
	freeReplyObject(reply);
	return head->code;
}

static void test_heads(void **state UNUSED)
{
	static const struct {
		const char *words;
		enum pool_reply_code code;
		enum pool_reply_refusal refusal;
		uint64_t wait_ms;
	} heads[] = {
		{"ok", POOL_REPLY_OK, 0, 0},
		{"ok more 1", POOL_REPLY_OK, 0, 0},
		{"flushed", POOL_REPLY_FLUSHED, 0, 0},
		{"fenced", POOL_REPLY_FENCED, 0, 0},
		{"full 0", POOL_REPLY_REFUSED, POOL_REPLY_FULL, 0},
		{"budget 1500", POOL_REPLY_REFUSED, POOL_REPLY_BUDGET, 1500},
		{"closed 7", POOL_REPLY_REFUSED, POOL_REPLY_CLOSED, 7},
		{"crowded 500", POOL_REPLY_REFUSED, POOL_REPLY_CROWDED, 500},
		{"stock 5000", POOL_REPLY_REFUSED, POOL_REPLY_STOCK, 5000},
		{"recovering 20000", POOL_REPLY_REFUSED, POOL_REPLY_RECOVERING, 20000},
		{"recovering", POOL_REPLY_REFUSED, POOL_REPLY_RECOVERING, 0},
		{"none", POOL_REPLY_REFUSED, POOL_REPLY_NONE, 0},
		{"late", POOL_REPLY_REFUSED, POOL_REPLY_LATE, 0},
		{"stale", POOL_REPLY_LOST, 0, 0},
		{"taken 0", POOL_REPLY_LOST, 0, 0},
		{"okay", POOL_REPLY_LOST, 0, 0},
		{"1", POOL_REPLY_LOST, 0, 0},
		{"fenced 1", POOL_REPLY_LOST, 0, 0},
		{"full soon", POOL_REPLY_LOST, 0, 0},
		{"full 1 2", POOL_REPLY_LOST, 0, 0},
	};
	for (size_t i = 0; i < ARRAY_LEN(heads); i++) {
		struct pool_reply head;
		assert_int_equal(code_of(heads[i].words, &head), heads[i].code);
		assert_int_equal(head.refusal, heads[i].refusal);
		assert_int_equal(head.retry_after_ms, heads[i].wait_ms);
	}
	redisReply error = {.type = REDIS_REPLY_ERROR, .str = (char *)(uintptr_t)"ok", .len = 2};
	struct pool_reply head;
	assert_int_equal(pool_reply_read(&error, &head), -EPROTO);
}

#define FLEET "1 2 3 4 5 6 '18446744073709551615 8 9 10 0 1 0 14 15 16 17 18 19 2 'deadbeefdeadbeef 3 '0 0"

static void test_join_and_beat(void **state UNUSED)
{
	struct pool_joined joined;
	struct pool_fleet fleet;
	char name[POOL_REPLY_NAME_MAX + 1];
	redisReply *reply = parse("ok Inc-1 a-b/17 1 " FLEET " sg-a sg-b");
	assert_int_equal(pool_reply_join(reply, &joined, &fleet), 0);
	assert_string_equal(joined.incarnation, "Inc-1");
	assert_string_equal(joined.session, "a-b/17");
	assert_true(joined.fresh && fleet.list && !fleet.recovering && !fleet.superseded);
	assert_true(fleet.total == 1 && fleet.instances == 5 && fleet.spent_nusd == UINT64_MAX && fleet.limit_window_ms == 10);
	assert_true(fleet.others_hot_target == 14 && fleet.make_way == 16 && fleet.others_claims == 17 && fleet.day_left_ms == 18 &&
		    fleet.others_crowd == 19);
	assert_true(fleet.others_leased == 15 && fleet.tenant_count == 2);
	assert_true(fleet.tenants[0].id == 0xdeadbeefdeadbeef && fleet.tenants[0].held == 3 && fleet.tenants[1].held == 0);
	assert_int_equal(pool_reply_revoked_count(reply, true), 2);
	assert_int_equal(pool_reply_revoked(reply, true, 1, name), 0);
	assert_string_equal(name, "sg-b");
	freeReplyObject(reply);
	reply = parse("ok " FLEET);
	assert_int_equal(pool_reply_beat(reply, &fleet), 0);
	assert_int_equal(pool_reply_revoked_count(reply, false), 0);
	freeReplyObject(reply);
}

static void test_wrong_beats(void **state UNUSED)
{
	static const char *const wrong[] = {
		"ok",
		"ok 1 2 3",
		"ok 1 2 3 4 5 6 7 8 9 10 0 1 0 14 15 16 17 18 0" /* money as a number */,
		"ok 1 2 3 4 5 6 '7x 8 9 10 0 1 0 14 15 16 17 18 0",
		"ok 1 2 3 4 5 6 '7 8 9 10 0 2 0 14 15 16 17 18 0",
		"ok x 2 3 4 5 6 '7 8 9 10 0 1 0 14 15 16 17 18 0",
		"ok 1 2 3 4 5 6 '7 8 9 10 0 1 0 14 15 16 17 18",
		"ok 1 2 3 4 5 6 '7 8 9 10 0 1 0 14 15 16 17 18 sg-a",
		"ok 1 2 3 4 5 6 '7 8 9 10 0 1 0 14 15 16 17 18 1 a",
		"ok 1 2 3 4 5 6 '7 8 9 10 0 1 0 14 15 16 17 18 1 g 1",
		"ok 1 2 3 4 5 6 '7 8 9 10 0 1 0 14 15 16 17 18 1 a b",
		"ok 1 2 3 4 5 6 '7 8 9 10 0 1 0 14 15 16 17 18 33 a 1 a 1 a 1 a 1 a 1 a 1 a 1 a 1 a 1 a 1 a 1 a 1 a 1 a 1 a 1 a 1 a 1 a 1 a 1 a 1 "
		"a 1 a 1 a 1 a 1 a 1 a 1 a 1 a 1 a 1 a 1 a 1 a 1 a 1",
		"ok " FLEET " Name",
		"ok " FLEET " 1",
		"ok " FLEET " -",
	};
	for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
		struct pool_fleet fleet;
		redisReply *reply = parse(wrong[i]);
		assert_int_equal(pool_reply_beat(reply, &fleet), -EPROTO);
		freeReplyObject(reply);
	}
	static const char *const joins[] = {"ok inc A/1 0 " FLEET, "ok - a/1 0 " FLEET, "ok inc a/1 2 " FLEET, "ok in:c a/1 0 " FLEET,
					    "ok inc a/1 " FLEET};
	for (size_t i = 0; i < ARRAY_LEN(joins); i++) {
		struct pool_fleet fleet;
		struct pool_joined joined;
		redisReply *reply = parse(joins[i]);
		assert_int_equal(pool_reply_join(reply, &joined, &fleet), -EPROTO);
		freeReplyObject(reply);
	}
}

static void test_records(void **state UNUSED)
{
	struct pool_record record;
	size_t count;
	redisReply *reply = parse("ok sg-a warm 100 50 1 deadbeefdeadbeef 3 0 - 7 sg-b leased 1 2 0 '0 0 700 "
				  "'0196e1a0-7c1f-7d8a-8a5b-0123456789ab 0");
	assert_int_equal(pool_reply_record_count(reply, &count), 0);
	assert_int_equal(count, 2);
	assert_int_equal(pool_reply_record(reply, 0, &record), 0);
	assert_string_equal(record.name, "sg-a");
	assert_string_equal(record.state, "warm");
	assert_true(record.owned && record.tenant == 0xdeadbeefdeadbeef && record.uses == 3 && record.age_ms == 100 &&
		    record.idle_ms == 50 && record.parking == 7);
	freeReplyObject(reply);
	static const char *const wrong[] = {
		"ok SG warm 1 2 0 '0 0 0 - 0",
		"ok sg Warm 1 2 0 '0 0 0 - 0",
		"ok sg warm x 2 0 '0 0 0 - 0",
		"ok sg warm 1 2 7 '0 0 0 - 0",
		"ok sg warm 1 2 0 '00000000000000001 0 0 - 0",
		"ok sg warm 1 2 0 xyz 0 0 - 0",
		"ok sg warm 1 2 0 '0 4294967296 0 - 0",
		"ok sg warm 1 2 0 '0 0 0 a:b 0",
		"ok sg warm 1 2 0 '0 0 0 - '0",
		"ok sg abcdefghijklmnop 1 2 0 '0 0 0 - 0",
	};
	for (size_t i = 0; i < ARRAY_LEN(wrong); i++) {
		reply = parse(wrong[i]);
		assert_int_equal(pool_reply_record_count(reply, &count), 0);
		assert_int_equal(pool_reply_record(reply, 0, &record), -EPROTO);
		freeReplyObject(reply);
	}
	reply = parse("ok sg warm 1 2 0 '0 0 0 -");
	assert_int_equal(pool_reply_record_count(reply, &count), -EPROTO);
	freeReplyObject(reply);
}

static void test_struck_and_words(void **state UNUSED)
{
	char name[POOL_REPLY_NAME_MAX + 1];
	bool recorded;
	size_t count;
	enum pool_reply_word word;
	redisReply *reply = parse("ok sg-a 0 sg-b 1 sg.c 1");
	assert_int_equal(pool_reply_struck_count(reply, &count), 0);
	assert_int_equal(count, 3);
	assert_int_equal(pool_reply_struck(reply, 1, name, &recorded), 0);
	assert_true(recorded && strcmp(name, "sg-b") == 0);
	assert_int_equal(pool_reply_struck(reply, 2, name, &recorded), -EPROTO);
	freeReplyObject(reply);
	reply = parse("ok ok revoked absent else");
	static const enum pool_reply_word expected[] = {POOL_REPLY_NOTED, POOL_REPLY_REVOKED, POOL_REPLY_ABSENT};
	for (size_t i = 0; i < ARRAY_LEN(expected); i++) {
		assert_int_equal(pool_reply_word(reply, i, 4, &word), 0);
		assert_int_equal(word, expected[i]);
	}
	assert_int_equal(pool_reply_word(reply, 3, 4, &word), -EPROTO);
	assert_int_equal(pool_reply_word(reply, 0, 3, &word), -EPROTO);
	freeReplyObject(reply);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_heads),   cmocka_unit_test(test_join_and_beat),    cmocka_unit_test(test_wrong_beats),
		cmocka_unit_test(test_records), cmocka_unit_test(test_struck_and_words),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
