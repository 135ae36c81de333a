#include "gateway/sprites/outbox.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>

static struct outbox outbox;
static struct outbox_piece piece;

static int push(enum outbox_kind kind, struct slice bytes)
{
	return outbox_push(&outbox, kind, bytes, (struct slice){0});
}

static void expect(enum outbox_kind kind, struct slice bytes)
{
	assert_true(outbox_next(&outbox, &piece));
	assert_int_equal(piece.kind, kind);
	assert_true(slice_equal(piece.bytes, bytes));
}

static void test_order_and_parts(void **state UNUSED)
{
	outbox_init(&outbox, 100);
	assert_false(outbox_next(&outbox, &piece));
	assert_int_equal(outbox_push(&outbox, OUTBOX_BINARY, SLICE("\001"), SLICE("ab")), 0);
	assert_int_equal(push(OUTBOX_TEXT, SLICE("t")), 0);
	assert_int_equal(outbox.bytes, 4);
	expect(OUTBOX_BINARY, SLICE("\001ab"));
	outbox_sent(&outbox, 1);
	expect(OUTBOX_BINARY, SLICE("ab"));
	assert_int_equal(outbox.bytes, 4);
	outbox_sent(&outbox, 2);
	assert_int_equal(outbox.bytes, 1);
	expect(OUTBOX_TEXT, SLICE("t"));
	outbox_sent(&outbox, 1);
	assert_false(outbox_next(&outbox, &piece));
	assert_int_equal(outbox.bytes, 0);
	outbox_deinit(&outbox);
}

/* libcurl fails when a pong is sent between two halves of a message. */
static void test_nothing_interrupts_a_message(void **state UNUSED)
{
	outbox_init(&outbox, 100);
	assert_int_equal(push(OUTBOX_BINARY, SLICE("abc")), 0);
	assert_int_equal(push(OUTBOX_BINARY, SLICE("def")), 0);
	expect(OUTBOX_BINARY, SLICE("abc")); /* handed over, though nothing was taken */
	assert_int_equal(push(OUTBOX_PING, SLICE("")), 0);
	assert_int_equal(push(OUTBOX_PONG, SLICE("p")), 0);
	expect(OUTBOX_BINARY, SLICE("abc"));
	outbox_sent(&outbox, 3);
	expect(OUTBOX_PONG, SLICE("p"));
	outbox_sent(&outbox, 1);
	expect(OUTBOX_PING, SLICE(""));
	outbox_sent(&outbox, 0);
	expect(OUTBOX_BINARY, SLICE("def"));
	outbox_deinit(&outbox);
}

static void test_only_the_last_ping_is_answered(void **state UNUSED)
{
	outbox_init(&outbox, 100);
	assert_int_equal(push(OUTBOX_PONG, SLICE("1")), 0);
	assert_int_equal(push(OUTBOX_PONG, SLICE("2")), 0);
	expect(OUTBOX_PONG, SLICE("2"));
	assert_int_equal(push(OUTBOX_PONG, SLICE("3")), 0);
	expect(OUTBOX_PONG, SLICE("2"));
	outbox_sent(&outbox, 1);
	expect(OUTBOX_PONG, SLICE("3"));
	outbox_deinit(&outbox);
}

static void test_bounds(void **state UNUSED)
{
	static char block[300];
	outbox_init(&outbox, 100);
	assert_int_equal(push(OUTBOX_PONG, slice_of(block, 126)), -EMSGSIZE);
	assert_int_equal(push(OUTBOX_PING, slice_of(block, 126)), -EMSGSIZE);
	assert_int_equal(push(OUTBOX_BINARY, slice_of(block, 60)), 0);
	assert_int_equal(push(OUTBOX_BINARY, slice_of(block, 41)), OUTBOX_E_FULL);
	assert_int_equal(push(OUTBOX_BINARY, slice_of(block, 40)), 0);
	outbox_deinit(&outbox);
	/* One message may be larger, but only alone. */
	assert_int_equal(push(OUTBOX_BINARY, slice_of(block, 300)), 0);
	assert_int_equal(push(OUTBOX_BINARY, slice_of(block, 1)), OUTBOX_E_FULL);
	outbox_deinit(&outbox);
}

static void test_counts_and_dropping(void **state UNUSED)
{
	outbox_init(&outbox, 100);
	assert_int_equal(push(OUTBOX_BINARY, SLICE("a")), 0);
	assert_int_equal(push(OUTBOX_BINARY, SLICE("b")), 0);
	assert_int_equal(push(OUTBOX_PONG, SLICE("p")), 0);
	assert_int_equal(outbox.pushed, 2);
	expect(OUTBOX_PONG, SLICE("p"));
	assert_int_equal(outbox.handed, 0);
	outbox_sent(&outbox, 1);
	expect(OUTBOX_BINARY, SLICE("a"));
	assert_int_equal(outbox.handed, 1);
	outbox_drop(&outbox);
	assert_int_equal(outbox.bytes, 1);
	expect(OUTBOX_BINARY, SLICE("a")); /* has to be finished */
	outbox_sent(&outbox, 1);
	assert_false(outbox_next(&outbox, &piece));
	assert_int_equal(push(OUTBOX_BINARY, SLICE("c")), 0);
	expect(OUTBOX_BINARY, SLICE("c"));
	assert_int_equal(outbox.pushed, 3);
	assert_int_equal(outbox.handed, 2);
	outbox_deinit(&outbox);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order_and_parts),
		cmocka_unit_test(test_nothing_interrupts_a_message),
		cmocka_unit_test(test_only_the_last_ping_is_answered),
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_counts_and_dropping),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
