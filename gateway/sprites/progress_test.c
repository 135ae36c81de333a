#include "gateway/sprites/progress.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#define INFO(text) "{\"type\":\"info\",\"data\":\"" text "\",\"time\":\"2026-01-31T15:35:26.123456789Z\"}\n"
#define DONE       "{\"type\":\"complete\",\"data\":\"Checkpoint v1 created successfully\"}\n"
#define FAILED     "{\"type\":\"error\",\"error\":\"Failed to restore checkpoint: not found\"}\n"

static struct verdict judge(enum sprites_call call, const char *text)
{
	struct verdict verdict = {.code = PROVIDER_OK};
	progress_judge(&verdict, call, slice_str(text));
	return verdict;
}

static void a_checkpoint_has_an_id(void **state UNUSED)
{
	struct verdict verdict = judge(SPRITES_CHECKPOINT, INFO("Creating checkpoint...") INFO("\\nCheckpoint Details:") INFO("  ID: v1")
								   INFO("  Path: checkpoints/v1") DONE);
	assert_int_equal(verdict.code, PROVIDER_OK);
	assert_string_equal(verdict.checkpoint, "v1");
	/* The last line may lack its end. */
	assert_int_equal(judge(SPRITES_RESTORE, INFO("x") "{\"type\":\"complete\"}").code, PROVIDER_OK);
}

static void nothing_but_complete_is_success(void **state UNUSED)
{
	static const struct {
		enum sprites_call call;
		const char *text, *detail;
	} rows[] = {
		{SPRITES_RESTORE, "", "restore: the stream ended before it was complete"},
		{SPRITES_RESTORE, INFO("Restoring from checkpoint v1..."), "restore: the stream ended before it was complete"},
		{SPRITES_RESTORE, INFO("a") FAILED, "restore: Failed to restore checkpoint: not found"},
		{SPRITES_RESTORE, FAILED DONE, "restore: Failed to restore checkpoint: not found"},
		{SPRITES_RESTORE, DONE "{\"type\":\"comp", "restore: the stream has a line that cannot be read"},
		{SPRITES_RESTORE, "[]\n" DONE, "restore: the stream has a line that cannot be read"},
		{SPRITES_CHECKPOINT, DONE, "checkpoint: the stream has no id"},
		{SPRITES_CHECKPOINT, INFO("  ID: ../v1") DONE, "checkpoint: the stream has no id"},
		{SPRITES_CHECKPOINT, INFO("  ID: ..") DONE, "checkpoint: the stream has no id"},
		{SPRITES_CHECKPOINT, INFO("  ID: v1/restore") DONE, "checkpoint: the stream has no id"},
		{SPRITES_CHECKPOINT, INFO("  ID: ") DONE, "checkpoint: the stream has no id"},
		{SPRITES_CHECKPOINT, INFO("  ID: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa") DONE, "checkpoint: the stream has no id"},
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct verdict verdict = judge(rows[i].call, rows[i].text);
		assert_int_equal(verdict.code, PROVIDER_INVALID);
		assert_string_equal(verdict.detail, rows[i].detail);
		assert_string_equal(verdict.checkpoint, "");
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_checkpoint_has_an_id),
		cmocka_unit_test(nothing_but_complete_is_success),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
