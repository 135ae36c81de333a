/* What the truth table (truth_test.c) cannot show: leftovers of another command, bugs of the caller, and every sequence. */
#include "gateway/sprites/operation.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define OUT(text) {.kind = FRAME_STDOUT, .bytes = SLICE(text)}
#define EXIT(n)   {.kind = FRAME_EXIT, .code = (n)}

static const struct frame ack = {.kind = FRAME_ACK, .id = SLICE("1")};
static const struct frame ack_2 = {.kind = FRAME_ACK, .id = SLICE("2")};
static const struct frame session = {.kind = FRAME_SESSION};
static const struct frame output = OUT("x"), exit_0 = EXIT(0), exit_9 = EXIT(9);
static const struct frame complete = {.kind = FRAME_COMPLETE, .id = SLICE("1")};
static const struct frame complete_bare = {.kind = FRAME_COMPLETE};
static const struct frame text_exit = {.kind = FRAME_OTHER};
static const struct frame invalid = {.kind = FRAME_INVALID};
static const struct frame busy = {.kind = FRAME_REFUSED, .refusal = REFUSAL_BUSY};
static const struct frame not_found = {.kind = FRAME_REFUSED, .refusal = REFUSAL_NOT_FOUND, .id = SLICE("1")};
static const struct frame not_active = {.kind = FRAME_REFUSED, .refusal = REFUSAL_NOT_ACTIVE};
static const struct frame other_error = {.kind = FRAME_REFUSED, .refusal = REFUSAL_OTHER};

static struct operation operation;

static void start(void)
{
	assert_int_equal(operation_step(&operation, OPERATION_START), OPERATION_NOTHING);
	assert_int_equal(operation_step(&operation, OPERATION_HANDED), OPERATION_NOTHING);
}

static void fresh(void)
{
	operation_init(&operation);
	start();
}

static void expect(const struct frame *frame, enum operation_action action)
{
	assert_int_equal(operation_frame(&operation, frame), action);
}

static void expect_close(enum operation_action action)
{
	assert_int_equal(operation_step(&operation, OPERATION_CLOSED), action);
	/* Nothing comes out of a broken channel. */
	expect(&exit_0, OPERATION_NOTHING);
	expect(&complete, OPERATION_NOTHING);
	assert_int_equal(operation_step(&operation, OPERATION_CLOSED), OPERATION_NOTHING);
	assert_int_equal(operation_step(&operation, OPERATION_LATE), OPERATION_NOTHING);
}

static void test_cut_before_it_was_handed_over(void **state UNUSED)
{
	operation_init(&operation);
	assert_int_equal(operation_step(&operation, OPERATION_START), OPERATION_NOTHING);
	expect_close(OPERATION_BREAK_NOT_STARTED);
}

static void test_cut_while_idle(void **state UNUSED)
{
	operation_init(&operation);
	expect_close(OPERATION_LOST);
}

static void test_leftover_exit_is_not_the_next_command(void **state UNUSED)
{
	fresh();
	expect(&ack, OPERATION_NOTHING);
	expect(&exit_0, OPERATION_FINISH);
	expect(&complete, OPERATION_FREE);
	struct operation idle = operation;
	expect(&exit_9, OPERATION_LOST);
	operation = idle;
	assert_int_equal(operation_step(&operation, OPERATION_START), OPERATION_NOTHING);
	expect(&exit_9, OPERATION_BREAK_NOT_STARTED);
	operation = idle;
	start();
	expect(&exit_9, OPERATION_BREAK_MAY_HAVE_RUN);
	operation = idle;
	start();
	expect(&output, OPERATION_BREAK_MAY_HAVE_RUN);
}

static void test_leftover_envelopes_are_ignored(void **state UNUSED)
{
	fresh();
	expect(&ack, OPERATION_NOTHING);
	expect(&exit_0, OPERATION_FINISH);
	expect(&complete, OPERATION_FREE);
	start();
	expect(&ack, OPERATION_NOTHING);
	expect(&complete, OPERATION_NOTHING);
	expect(&not_found, OPERATION_NOTHING);
	assert_int_equal(operation.state, OPERATION_SENT);
	expect(&ack_2, OPERATION_NOTHING);
	expect(&exit_9, OPERATION_FINISH);
}

static void test_late_complete(void **state UNUSED)
{
	fresh();
	expect(&exit_0, OPERATION_FINISH);
	assert_int_equal(operation_step(&operation, OPERATION_LATE), OPERATION_LOST);
	expect(&complete, OPERATION_NOTHING);
}

static void test_bugs_of_the_caller(void **state UNUSED)
{
	operation_init(&operation);
	assert_int_equal(operation_step(&operation, OPERATION_HANDED), OPERATION_IMPOSSIBLE);
	fresh();
	assert_int_equal(operation_step(&operation, OPERATION_START), OPERATION_IMPOSSIBLE);
	fresh();
	assert_int_equal(operation_step(&operation, OPERATION_LATE), OPERATION_IMPOSSIBLE);
	assert_int_equal(operation.state, OPERATION_BROKEN);
	/* Before its acknowledgement an exit frame may be the last command's. */
	fresh();
	assert_int_equal(operation_step(&operation, OPERATION_ADOPT), OPERATION_IMPOSSIBLE);
}

/* Started ahead, acknowledged, and given its command now. */
static void adopted(void)
{
	fresh();
	expect(&ack, OPERATION_NOTHING);
	expect(&session, OPERATION_NOTHING);
	assert_int_equal(operation_step(&operation, OPERATION_ADOPT), OPERATION_NOTHING);
}

/* What was there before its command does not say that the command has started. */
static void test_adopted(void **state UNUSED)
{
	adopted();
	expect_close(OPERATION_BREAK_NOT_STARTED);
	adopted();
	expect(&exit_9, OPERATION_BREAK_NOT_STARTED);
	adopted();
	assert_int_equal(operation_step(&operation, OPERATION_HANDED), OPERATION_NOTHING);
	expect(&ack, OPERATION_NOTHING);
	expect(&session, OPERATION_NOTHING);
	assert_int_equal(operation.state, OPERATION_SENT);
	struct operation handed = operation;
	expect_close(OPERATION_BREAK_MAY_HAVE_RUN);
	operation = handed;
	expect(&output, OPERATION_DELIVER);
	assert_int_equal(operation.state, OPERATION_RUNNING);
	expect(&exit_9, OPERATION_FINISH);
	expect(&complete, OPERATION_FREE);
	/* The next one is like any other. */
	start();
	expect(&output, OPERATION_BREAK_MAY_HAVE_RUN);
	/* The end of a process that printed nothing, no report either, is not the command's. */
	operation = handed;
	expect(&exit_9, OPERATION_BREAK_MAY_HAVE_RUN);
}

/* Once it was handed over, no refusal says that it did not run. */
static void test_adopted_and_refused(void **state UNUSED)
{
	static const struct frame *const refusals[] = {&busy, &not_found};
	for (size_t i = 0; i < ARRAY_LEN(refusals); i++) {
		adopted();
		expect(refusals[i], OPERATION_BREAK_NOT_STARTED);
		adopted();
		assert_int_equal(operation_step(&operation, OPERATION_HANDED), OPERATION_NOTHING);
		expect(refusals[i], OPERATION_BREAK_MAY_HAVE_RUN);
	}
}

static bool is_end(enum operation_action action)
{
	return action == OPERATION_FINISH || action == OPERATION_BREAK_NOT_STARTED || action == OPERATION_BREAK_MAY_HAVE_RUN;
}

/* Every sequence of frames: a command ends at most once, its status comes from an exit frame, and once handed over only a refusal
 * says that it was not started, of an adopted one not even that. */
static void walk(struct operation from, unsigned depth, bool ended)
{
	const struct frame *const all[] = {&ack,       &session, &output, &exit_0,    &exit_9,     &complete,   &complete_bare,
					   &text_exit, &invalid, &busy,   &not_found, &not_active, &other_error};
	for (size_t i = 0; depth && i < ARRAY_LEN(all); i++) {
		operation = from;
		enum operation_action action = operation_frame(&operation, all[i]);
		assert_int_not_equal(action, OPERATION_IMPOSSIBLE);
		assert_false(is_end(action) && ended);
		if (action == OPERATION_FINISH)
			assert_int_equal(all[i]->kind, FRAME_EXIT);
		if (action == OPERATION_BREAK_NOT_STARTED)
			assert_true(!from.adopted && (all[i] == &busy || all[i] == &not_found));
		assert_false(action == OPERATION_DELIVER && ended);
		walk(operation, depth - 1, ended || is_end(action));
	}
}

static void test_every_sequence(void **state UNUSED)
{
	fresh();
	walk(operation, 4, false);
	operation.acknowledges = true;
	fresh();
	walk(operation, 4, false);
	adopted();
	assert_int_equal(operation_step(&operation, OPERATION_HANDED), OPERATION_NOTHING);
	walk(operation, 4, false);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cut_before_it_was_handed_over),
		cmocka_unit_test(test_cut_while_idle),
		cmocka_unit_test(test_leftover_exit_is_not_the_next_command),
		cmocka_unit_test(test_leftover_envelopes_are_ignored),
		cmocka_unit_test(test_late_complete),
		cmocka_unit_test(test_bugs_of_the_caller),
		cmocka_unit_test(test_adopted),
		cmocka_unit_test(test_adopted_and_refused),
		cmocka_unit_test(test_every_sequence),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
