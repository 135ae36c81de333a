#include "policy/verdict.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <hiredis/hiredis.h>

#define SLOTS 40

/* An answer of the script as hiredis would hand it over. */
struct fake {
	redisReply reply, element[SLOTS];
	redisReply *pointer[SLOTS];
};

static void set_text(struct fake *fake, size_t i, const char *text)
{
	fake->element[i] = (redisReply){.type = REDIS_REPLY_STRING, .str = (char *)(uintptr_t)text, .len = strlen(text)};
}

static void set_number(struct fake *fake, size_t i, long long number)
{
	fake->element[i] = (redisReply){.type = REDIS_REPLY_INTEGER, .integer = number};
}

static void fill(struct fake *fake, const char *code)
{
	static const long long numbers[SLOTS] = {
		[3] = 7, [4] = 30000, [7] = 1500001, [8] = 2, [9] = 4096, [10] = 512, [11] = 60, 60000, 5,    4, 1000000, [21] = 3, 1,
		0,       1,           [25] = 600000, 1000,    30000,      1000000,    5000,      200,   3000,
	};
	*fake = (struct fake){0};
	for (size_t i = 0; i < SLOTS; i++) {
		set_number(fake, i, numbers[i]);
		fake->pointer[i] = &fake->element[i];
	}
	set_text(fake, 0, code);
	set_text(fake, 1, "ann");
	set_text(fake, 2, "batch");
	set_text(fake, 5, "20261122");
	set_text(fake, 6, "");
	set_text(fake, 32, "");
	set_text(fake, 33, "");
	set_text(fake, 34, "pypi.org");
	set_number(fake, 35, 4);
	set_number(fake, 36, 90000);
	set_number(fake, 37, 64);
	set_number(fake, 38, 1 << 20);
	set_number(fake, 39, 1 << 28);
	fake->reply = (redisReply){.type = REDIS_REPLY_ARRAY, .elements = SLOTS, .element = fake->pointer};
}

static void test_granted(void **state UNUSED)
{
	struct fake fake;
	struct admission_answer answer;
	uint64_t reaped;
	fill(&fake, "granted");
	assert_int_equal(verdict_read(&fake.reply, &answer, &reaped), 0);
	assert_int_equal(answer.code, ADMISSION_GRANTED);
	assert_string_equal(answer.egress, "pypi.org");
	assert_int_equal(answer.max_sessions, 4);
	assert_int_equal(answer.valid_ms, 90000);
	assert_int_equal(answer.caps.processes, 64);
	assert_int_equal(answer.caps.file_bytes, 1 << 20);
	assert_int_equal(answer.caps.memory_bytes, 1 << 28);
	assert_null(answer.degraded);
	assert_string_equal(answer.session.sprite, "");
	assert_false(answer.session.fresh);
	assert_string_equal(answer.actor, "ann");
	assert_string_equal(answer.policy, "batch");
	assert_int_equal(answer.policy_version, 7);
	assert_string_equal(answer.lease.actor, "ann");
	assert_string_equal(answer.lease.day, "20261122");
	assert_int_equal(answer.lease.granted_ms, 30000);
	assert_int_equal(answer.output_bytes, 4096);
	assert_int_equal(answer.max_input_bytes, 512);
	assert_int_equal(reaped, 2);
	assert_string_equal(answer.violated, "[]");
	assert_string_equal(answer.rate_limit, "\"rate\";r=4;t=1, \"concurrency\";r=2");
	assert_string_equal(answer.rate_limit_policy, "\"rate\";q=60;w=60;sg-burst=5, \"concurrency\";q=3;qu=\"concurrent-requests\"");
	assert_string_equal(answer.exec_budget,
			    "limit=600000, used=1000, held=30000, out_limit=5000, out_used=200, out_held=3000, reset=1");
	assert_string_equal(answer.shadowed, "[]");
	assert_string_equal(answer.variable, "");
}

static void test_session(void **state UNUSED)
{
	static const struct {
		const char *what, *sprite;
		bool fresh;
	} rows[] = {{" 1", "", true}, {"sg-a-1 0", "sg-a-1", false}, {"sg-a-1 1", "sg-a-1", true}};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct fake fake;
		struct admission_answer answer;
		uint64_t reaped;
		fill(&fake, "granted");
		set_text(&fake, 33, rows[i].what);
		assert_int_equal(verdict_read(&fake.reply, &answer, &reaped), 0);
		assert_string_equal(answer.session.sprite, rows[i].sprite);
		assert_int_equal(answer.session.fresh, rows[i].fresh);
	}
}

/* It goes into answers and logs as it is. */
static void test_what_is_no_id_of_a_command(void **state UNUSED)
{
	static const char good[] = "01a20740-3ca8-7506-b5eb-1d46bb637d07 200";
	static const char *const bad[] = {"", "01a20740-3ca8-7506-b5eb-1d46bb637d0 200", "01a20740-3ca8-7506-b5eb-1d46bb637d079 200",
					  "01a20740-3ca8-7506-b5eb-1d46bb637d0\" 200", "01a20740-3ca8-7506-b5eb-1d46bb637d0\n 200"};
	static const char *const words[] = {"replay", "in-progress", "forgotten"};
	for (size_t i = 0; i < ARRAY_LEN(words); i++) {
		struct fake fake;
		struct admission_answer answer;
		uint64_t reaped;
		fill(&fake, words[i]);
		set_text(&fake, 33, good);
		assert_int_equal(verdict_read(&fake.reply, &answer, &reaped), 0);
		assert_memory_equal(answer.prior, good, ID_UUID_LEN);
		assert_true(slice_equal(answer.result, SLICE("200")));
		for (size_t j = 0; j < ARRAY_LEN(bad); j++) {
			set_text(&fake, 33, bad[j]);
			assert_int_equal(verdict_read(&fake.reply, &answer, &reaped), -EPROTO);
		}
	}
}

static void test_quota(void **state UNUSED)
{
	struct fake fake;
	struct admission_answer answer;
	uint64_t reaped;
	fill(&fake, "quota");
	set_text(&fake, 6, "rate,actor-rate,concurrency,actor-concurrency,budget,output-budget");
	set_text(&fake, 32, "rate,actor-rate,concurrency,actor-concurrency,budget,output-budget,network,command,environment,input");
	set_number(&fake, 14, -1);
	assert_int_equal(verdict_read(&fake.reply, &answer, &reaped), 0);
	assert_int_equal(answer.code, ADMISSION_QUOTA);
	assert_string_equal(answer.violated,
			    "[\"rate\",\"actor-rate\",\"concurrency\",\"actor-concurrency\",\"budget\",\"output-budget\"]");
	assert_string_equal(answer.shadowed, "[\"rate\",\"actor-rate\",\"concurrency\",\"actor-concurrency\",\"budget\",\"output-budget\","
					     "\"network\",\"command\",\"environment\",\"input\"]");
	assert_int_equal(answer.retry_after_ms, 1501);
	assert_string_equal(answer.rate_limit, "\"rate\";r=0;t=1, \"concurrency\";r=2");
}

/* However long, and not taken for a variable's name. */
static void test_finished(void **state UNUSED)
{
	static char text[100000];
	struct fake fake;
	struct admission_answer answer;
	uint64_t reaped;
	memset(text, 'x', sizeof text - 1);
	fill(&fake, "finished");
	set_text(&fake, 33, text);
	assert_int_equal(verdict_read(&fake.reply, &answer, &reaped), 0);
	assert_int_equal(answer.code, ADMISSION_FINISHED);
	assert_true(slice_equal(answer.result, slice_str(text)));
	assert_string_equal(answer.variable, "");
}

static void test_words(void **state UNUSED)
{
	static const struct {
		const char *word;
		enum admission_code code;
	} words[] = {
		{"unknown", ADMISSION_INVALID_TOKEN},       {"bad-mac", ADMISSION_INVALID_TOKEN},
		{"revoked", ADMISSION_INVALID_TOKEN},       {"suspended", ADMISSION_INVALID_TOKEN},
		{"expired", ADMISSION_INVALID_TOKEN},       {"not-yet-valid", ADMISSION_INVALID_TOKEN},
		{"broken-record", ADMISSION_INVALID_TOKEN}, {"other-pepper", ADMISSION_INVALID_TOKEN},
		{"scope", ADMISSION_INSUFFICIENT_SCOPE},    {"command", ADMISSION_COMMAND_DENIED},
		{"input", ADMISSION_INPUT_TOO_LARGE},       {"network", ADMISSION_NETWORK_DENIED},
		{"environment", ADMISSION_VARIABLE_DENIED}, {"running", ADMISSION_RUNNING},
		{"absent", ADMISSION_NO_COMMAND},           {"replay", ADMISSION_REPLAY},
		{"in-progress", ADMISSION_IN_PROGRESS},     {"forgotten", ADMISSION_FORGOTTEN},
		{"other-body", ADMISSION_OTHER_BODY},       {"ending", ADMISSION_ENDING},
	};
	for (size_t i = 0; i < ARRAY_LEN(words); i++) {
		struct fake fake;
		struct admission_answer answer;
		uint64_t reaped;
		fill(&fake, words[i].word);
		set_text(&fake, 33, "01a20740-3ca8-7506-b5eb-1d46bb637d07");
		if (words[i].code == ADMISSION_INVALID_TOKEN)
			fake.reply.elements = 1;
		assert_int_equal(verdict_read(&fake.reply, &answer, &reaped), 0);
		assert_int_equal(answer.code, words[i].code);
		assert_string_equal(answer.log_reason, words[i].word);
		assert_int_equal(answer.rate_limit[0] == '\0', words[i].code == ADMISSION_INVALID_TOKEN);
	}
}

/* Nothing but the script's own answer may ever grant. */
static void test_refuses_anything_else(void **state UNUSED)
{
	struct fake fake;
	struct admission_answer answer;
	uint64_t reaped;
	redisReply error = {.type = REDIS_REPLY_ERROR, .str = (char *)(uintptr_t)"ERR granted", .len = 11};
	redisReply ok = {.type = REDIS_REPLY_STATUS, .str = (char *)(uintptr_t)"granted", .len = 7};
	redisReply nil = {.type = REDIS_REPLY_NIL};
	assert_int_equal(verdict_read(&error, &answer, &reaped), -EPROTO);
	assert_int_equal(verdict_read(&ok, &answer, &reaped), -EPROTO);
	assert_int_equal(verdict_read(&nil, &answer, &reaped), -EPROTO);
	for (size_t count = 0; count < SLOTS; count++) {
		fill(&fake, "granted");
		fake.reply.elements = count;
		assert_int_equal(verdict_read(&fake.reply, &answer, &reaped), -EPROTO);
	}
	fill(&fake, "Granted");
	assert_int_equal(verdict_read(&fake.reply, &answer, &reaped), -EPROTO);
	fill(&fake, "granted");
	set_number(&fake, 0, 1);
	assert_int_equal(verdict_read(&fake.reply, &answer, &reaped), -EPROTO);
	fill(&fake, "granted");
	set_text(&fake, 5, "202611223");
	assert_int_equal(verdict_read(&fake.reply, &answer, &reaped), -EPROTO);
}

static void test_long_actor_is_refused_not_cut(void **state UNUSED)
{
	struct fake fake;
	struct admission_answer answer;
	uint64_t reaped;
	char actor[130];
	memset(actor, 'x', sizeof actor);
	actor[129] = '\0';
	fill(&fake, "granted");
	set_text(&fake, 1, actor);
	assert_int_equal(verdict_read(&fake.reply, &answer, &reaped), -EPROTO);
	set_text(&fake, 1, actor + 1);
	assert_int_equal(verdict_read(&fake.reply, &answer, &reaped), 0);
	assert_string_equal(answer.lease.actor, actor + 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_granted),
		cmocka_unit_test(test_session),
		cmocka_unit_test(test_what_is_no_id_of_a_command),
		cmocka_unit_test(test_quota),
		cmocka_unit_test(test_words),
		cmocka_unit_test(test_finished),
		cmocka_unit_test(test_refuses_anything_else),
		cmocka_unit_test(test_long_actor_is_refused_not_cut),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
