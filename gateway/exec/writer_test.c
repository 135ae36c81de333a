#include "gateway/exec/writer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <utlist.h>
#include <uv.h>

/* A worker that keeps what it is sent. */
static uv_loop_t loop;
static struct mailbox mailbox;
static struct exec_piece *sent;

static void on_message(void *ctx UNUSED, struct mailbox_item *item)
{
	struct exec_message *message = CONTAINER_OF(item, struct exec_message, item);
	assert_int_equal(message->kind, EXEC_BATCH);
	DL_APPEND(sent, CONTAINER_OF(message, struct exec_piece, message));
}

static struct exec_request request;
static struct exec_job job = {.reply_to = &mailbox, .request = &request};
static struct writer writer;

static void begin(uint64_t each, uint64_t skip)
{
	request.rows_to = (struct exec_rows_to){.path = "/d/t/-/insert", .skip = skip, .head = BUF_MAX(64)};
	assert_int_equal(buf_append(&request.rows_to.head, SLICE("{\"rows\":[")), 0);
	writer_init(&writer, &job, each);
}

static void end(const char *want)
{
	CLEANUP(buf_deinit) struct buf json = BUF_MAX(4096);
	assert_true(writer_is_done(&writer));
	assert_int_equal(writer_put(&writer, &json), 0);
	if (!slice_equal(buf_peek(&json), slice_str(want)))
		fail_msg("%.*s, not %s", SLICE_FMT(buf_peek(&json)), want);
	writer_deinit(&writer);
	buf_deinit(&request.rows_to.head);
	assert_null(sent);
}

/* The oldest batch is answered so. */
static void answer(const char *body, enum exec_written_how how, unsigned status)
{
	uv_run(&loop, UV_RUN_NOWAIT);
	assert_non_null(sent);
	struct exec_piece *piece = sent;
	struct exec_written written = {.how = how, .rows = piece->rows, .status = status, .detail = "Said so."};
	if (body && !slice_equal(buf_peek(&piece->text), slice_str(body)))
		fail_msg("%.*s, not %s", SLICE_FMT(buf_peek(&piece->text)), body);
	DL_DELETE(sent, piece);
	exec_piece_free(piece);
	assert_int_equal(writer_written(&writer, &written), 0);
}

static void drop(void)
{
	uv_run(&loop, UV_RUN_NOWAIT);
	while (sent) {
		struct exec_piece *piece = sent;
		DL_DELETE(sent, piece);
		exec_piece_free(piece);
	}
}

static void feed(const char *text)
{
	assert_int_equal(writer_feed(&writer, slice_str(text)), 0);
}

static void test_batches(void **state UNUSED)
{
	begin(2, 0);
	feed("a\n1\n2\n3\n4\n5\n");
	assert_true(writer_is_full(&writer));
	answer("{\"rows\":[{\"a\":\"1\"},{\"a\":\"2\"}]}", EXEC_WRITTEN, 201);
	assert_false(writer_is_full(&writer));
	assert_true(writer_went_on(&writer));
	assert_false(writer_went_on(&writer));
	assert_int_equal(writer_end(&writer, NULL), 0);
	assert_false(writer_is_done(&writer));
	answer("{\"rows\":[{\"a\":\"3\"},{\"a\":\"4\"}]}", EXEC_WRITTEN, 201);
	answer("{\"rows\":[{\"a\":\"5\"}]}", EXEC_WRITTEN, 201);
	end("{\"rows_written\":5,\"batches\":3,\"rows_in_doubt\":0,\"resume_from\":5,\"error\":null}");
}

static void test_skipped(void **state UNUSED)
{
	begin(2, 3);
	feed("[{\"a\":1},{\"a\":2},{\"a\":3},{\"a\":4}]");
	assert_int_equal(writer_end(&writer, NULL), 0);
	answer("{\"rows\":[{\"a\":4}]}", EXEC_NOT_WRITTEN, 400);
	end("{\"rows_written\":0,\"batches\":0,\"rows_in_doubt\":0,\"resume_from\":3,\"error\":{\"row\":3,\"status\":400,\"detail\":\"Said so.\"}}");
}

static void test_nothing_follows_a_refusal(void **state UNUSED)
{
	begin(1, 0);
	feed("{}{}");
	answer("{\"rows\":[{}]}", EXEC_WRITTEN, 200);
	answer("{\"rows\":[{}]}", EXEC_WRITTEN_IN_DOUBT, 0);
	feed("{}{}{}");
	assert_int_equal(writer_end(&writer, "It timed out."), 0);
	end("{\"rows_written\":1,\"batches\":1,\"rows_in_doubt\":1,\"resume_from\":1,\"error\":{\"row\":1,\"status\":null,\"detail\":\"Said so.\"}}");
}

/* The rows before it are written; a batch of those that is refused comes earlier. */
static void test_a_bad_row(void **state UNUSED)
{
	for (int refused = 0; refused < 2; refused++) {
		begin(10, 0);
		feed("{\"a\":1}\n{\"a\":2}\n3");
		feed("{}");
		assert_int_equal(writer_end(&writer, NULL), 0);
		answer("{\"rows\":[{\"a\":1},{\"a\":2}]}", refused ? EXEC_NOT_WRITTEN : EXEC_WRITTEN, refused ? 403 : 201);
		end(refused ? "{\"rows_written\":0,\"batches\":0,\"rows_in_doubt\":0,\"resume_from\":0,\"error\":{\"row\":0,\"status\":403,"
			      "\"detail\":\"Said so.\"}}"
			    : "{\"rows_written\":2,\"batches\":1,\"rows_in_doubt\":0,\"resume_from\":2,\"error\":{\"row\":2,\"status\":null,"
			      "\"detail\":\"What comes next is no JSON object.\"}}");
	}
}

static void test_what_is_missing(void **state UNUSED)
{
	begin(10, 0);
	feed("a\n1\n2");
	assert_int_equal(writer_end(&writer, "It timed out."), 0);
	answer("{\"rows\":[{\"a\":\"1\"}]}", EXEC_WRITTEN, 201);
	end("{\"rows_written\":1,\"batches\":1,\"rows_in_doubt\":0,\"resume_from\":1,\"error\":{\"row\":1,\"status\":null,"
	    "\"detail\":\"The output ends within a row.\"}}");
	begin(10, 0);
	feed("a\n1\n");
	assert_int_equal(writer_end(&writer, "It timed out."), 0);
	answer(NULL, EXEC_WRITTEN, 201);
	end("{\"rows_written\":1,\"batches\":1,\"rows_in_doubt\":0,\"resume_from\":1,\"error\":{\"row\":1,\"status\":null,"
	    "\"detail\":\"It timed out.\"}}");
}

static void test_given_up(void **state UNUSED)
{
	static const char *const details[] = {"The command's end was not seen.", "Datasette did not take the rows in time."};
	for (int ended = 0; ended < 2; ended++) {
		char want[256];
		begin(1, 0);
		feed("{}{}");
		if (ended)
			assert_int_equal(writer_end(&writer, NULL), 0);
		writer_give_up(&writer, "The command's end was not seen.");
		drop();
		snprintf(
			want, sizeof want,
			"{\"rows_written\":0,\"batches\":0,\"rows_in_doubt\":2,\"resume_from\":0,\"error\":{\"row\":0,\"status\":null,\"detail\":\"%s\"}}",
			details[ended]);
		end(want);
	}
}

/* It stays in doubt what was before. */
static void test_given_up_in_doubt(void **state UNUSED)
{
	begin(1, 0);
	feed("{}{}");
	answer(NULL, EXEC_WRITTEN_IN_DOUBT, 0);
	drop();
	writer_give_up(&writer, "It was late.");
	end("{\"rows_written\":0,\"batches\":0,\"rows_in_doubt\":1,\"resume_from\":0,\"error\":{\"row\":0,\"status\":null,\"detail\":\"Said so.\"}}");
}

/* Nobody knows which rows are written, whatever else went wrong. */
static void test_lost(void **state UNUSED)
{
	for (int refused = 0; refused < 2; refused++) {
		begin(1, 3);
		feed("{}{}{}{}");
		assert_int_equal(writer_end(&writer, "It did not arrive."), 0);
		answer(NULL, refused ? EXEC_NOT_WRITTEN : EXEC_WRITTEN, refused ? 400 : 201);
		writer_lost(&writer);
		end(refused ? "{\"rows_written\":0,\"batches\":0,\"rows_in_doubt\":0,\"resume_from\":null,\"error\":{\"row\":3,\"status\":400,"
			      "\"detail\":\"Said so. Rows may be missing among those before.\"}}"
			    : "{\"rows_written\":1,\"batches\":1,\"rows_in_doubt\":0,\"resume_from\":null,\"error\":{\"row\":4,\"status\":null,"
			      "\"detail\":\"It did not arrive. Rows may be missing among those before.\"}}");
	}
}

static void test_large_rows(void **state UNUSED)
{
	static char row[300 * 1024];
	memset(row, ' ', sizeof row);
	row[0] = '{';
	row[sizeof row - 1] = '}';
	begin(100, 0);
	for (int i = 0; i < 3; i++)
		assert_int_equal(writer_feed(&writer, slice_of(row, sizeof row)), 0);
	assert_int_equal(writer_end(&writer, NULL), 0);
	for (int i = 0; i < 3; i++)
		answer(NULL, EXEC_WRITTEN, 201);
	end("{\"rows_written\":3,\"batches\":3,\"rows_in_doubt\":0,\"resume_from\":3,\"error\":null}");
}

static size_t waiting(void)
{
	size_t count = 0;
	struct exec_piece *piece;
	uv_run(&loop, UV_RUN_NOWAIT);
	DL_COUNT(sent, piece, count);
	return count;
}

/* However many batches one feed would be. */
static void test_nothing_is_read_while_full(void **state UNUSED)
{
	for (int whole = 0; whole < 2; whole++) {
		begin(1, 0);
		feed("a\n1\n2\n3\n4\n");
		feed("5\n6");
		assert_int_equal(waiting(), WRITER_UNDER_WAY);
		assert_int_equal(writer_end(&writer, whole ? NULL : "It timed out."), 0);
		for (int i = 1; i <= 5; i++) {
			char body[64];
			assert_false(writer_is_done(&writer));
			snprintf(body, sizeof body, "{\"rows\":[{\"a\":\"%d\"}]}", i);
			answer(body, EXEC_WRITTEN, 201);
		}
		if (whole)
			answer("{\"rows\":[{\"a\":\"6\"}]}", EXEC_WRITTEN, 201);
		end(whole ? "{\"rows_written\":6,\"batches\":6,\"rows_in_doubt\":0,\"resume_from\":6,\"error\":null}"
			  : "{\"rows_written\":5,\"batches\":5,\"rows_in_doubt\":0,\"resume_from\":5,\"error\":{\"row\":5,\"status\":null,"
			    "\"detail\":\"The output ends within a row.\"}}");
	}
}

static void test_unread_is_dropped(void **state UNUSED)
{
	begin(1, 0);
	feed("{}{}{}{}");
	assert_int_equal(writer_end(&writer, NULL), 0);
	answer(NULL, EXEC_NOT_WRITTEN, 403);
	drop();
	end("{\"rows_written\":0,\"batches\":0,\"rows_in_doubt\":0,\"resume_from\":0,\"error\":{\"row\":0,\"status\":403,\"detail\":\"Said so.\"}}");
	begin(1, 0);
	feed("{}{}{}3{}");
	assert_int_equal(writer_end(&writer, "It timed out."), 0);
	for (int i = 0; i < 3; i++)
		answer(NULL, EXEC_WRITTEN, 201);
	end("{\"rows_written\":3,\"batches\":3,\"rows_in_doubt\":0,\"resume_from\":3,\"error\":{\"row\":3,\"status\":null,"
	    "\"detail\":\"What comes next is no JSON object.\"}}");
}

static void test_too_much_is_unread(void **state UNUSED)
{
	static char much[WRITER_REST_MAX];
	memset(much, ' ', sizeof much);
	begin(1, 0);
	feed("{}{}{}");
	assert_int_equal(writer_feed(&writer, slice_of(much, sizeof much)), 0);
	assert_int_equal(writer_end(&writer, NULL), 0);
	for (int i = 0; i < 2; i++)
		answer(NULL, EXEC_WRITTEN, 201);
	end("{\"rows_written\":2,\"batches\":2,\"rows_in_doubt\":0,\"resume_from\":2,\"error\":{\"row\":2,\"status\":null,"
	    "\"detail\":\"More output came at once than can wait for Datasette.\"}}");
}

static void on_closed(void *ctx UNUSED)
{
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_batches),
		cmocka_unit_test(test_skipped),
		cmocka_unit_test(test_nothing_follows_a_refusal),
		cmocka_unit_test(test_a_bad_row),
		cmocka_unit_test(test_what_is_missing),
		cmocka_unit_test(test_given_up),
		cmocka_unit_test(test_lost),
		cmocka_unit_test(test_given_up_in_doubt),
		cmocka_unit_test(test_large_rows),
		cmocka_unit_test(test_nothing_is_read_while_full),
		cmocka_unit_test(test_unread_is_dropped),
		cmocka_unit_test(test_too_much_is_unread),
	};
	if (uv_loop_init(&loop) < 0 || mailbox_init(&mailbox, &loop, 1, on_message, NULL) < 0)
		return 1;
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	mailbox_close(&mailbox, on_closed);
	uv_run(&loop, UV_RUN_DEFAULT);
	uv_loop_close(&loop);
	return failed;
}
