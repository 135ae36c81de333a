#include "gateway/base/mailbox.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdlib.h>

#define SENDERS  4
#define MESSAGES 5000

struct message {
	struct mailbox_item item;
	unsigned sender, number;
};

struct receiver {
	struct mailbox box;
	unsigned next[SENDERS];
	unsigned total;
};

static void on_message(void *ctx, struct mailbox_item *item)
{
	struct receiver *receiver = ctx;
	struct message *message = CONTAINER_OF(item, struct message, item);
	assert_int_equal(message->number, receiver->next[message->sender]);
	receiver->next[message->sender]++;
	receiver->total++;
	free(message);
	if (receiver->total == SENDERS * MESSAGES)
		mailbox_close(&receiver->box, NULL);
}

struct sender {
	uv_thread_t thread;
	struct mailbox *box;
	unsigned index;
};

static void send_all(void *arg)
{
	struct sender *sender = arg;
	for (unsigned i = 0; i < MESSAGES; i++) {
		struct message *message = calloc(1, sizeof *message);
		message->sender = sender->index;
		message->number = i;
		while (mailbox_post(sender->box, &message->item) == MAILBOX_E_FULL)
			uv_sleep(1);
	}
}

/* Four threads, a small queue: everything arrives once, in order. */
static void test_threads(void **state UNUSED)
{
	uv_loop_t loop;
	struct receiver receiver = {0};
	struct sender senders[SENDERS];
	assert_int_equal(uv_loop_init(&loop), 0);
	assert_int_equal(mailbox_init(&receiver.box, &loop, 64, on_message, &receiver), 0);
	for (unsigned i = 0; i < SENDERS; i++) {
		senders[i] = (struct sender){.box = &receiver.box, .index = i};
		assert_int_equal(uv_thread_create(&senders[i].thread, send_all, &senders[i]), 0);
	}
	uv_run(&loop, UV_RUN_DEFAULT);
	for (unsigned i = 0; i < SENDERS; i++)
		uv_thread_join(&senders[i].thread);
	assert_int_equal(receiver.total, SENDERS * MESSAGES);
	assert_int_equal(uv_loop_close(&loop), 0);
}

static void count(void *ctx, struct mailbox_item *item UNUSED)
{
	(*(unsigned *)ctx)++;
}

static void test_bounds(void **state UNUSED)
{
	uv_loop_t loop;
	struct mailbox box;
	unsigned delivered = 0;
	struct mailbox_item items[4];
	assert_int_equal(uv_loop_init(&loop), 0);
	assert_int_equal(mailbox_init(&box, &loop, 2, count, &delivered), 0);
	assert_int_equal(mailbox_post(&box, &items[0]), 0);
	assert_int_equal(mailbox_post(&box, &items[1]), 0);
	assert_int_equal(mailbox_post(&box, &items[2]), MAILBOX_E_FULL);
	assert_int_equal(mailbox_reply(&box, &items[2]), 0);
	mailbox_close(&box, NULL);
	assert_int_equal(delivered, 3);
	assert_int_equal(mailbox_post(&box, &items[3]), MAILBOX_E_CLOSED);
	uv_run(&loop, UV_RUN_DEFAULT);
	assert_int_equal(uv_loop_close(&loop), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_threads), cmocka_unit_test(test_bounds)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
