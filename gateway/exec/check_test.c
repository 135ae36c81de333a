/* The check against a Sprite that the test plays: a record of each stream, and a network that loses bytes. */
#include "gateway/exec/check.h"
#include "gateway/sprites/record.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#define SIZE        ((size_t)700000)
#define RECORDED_AS "a nonce"

static char content[SIZE + 1]; /* both streams print the beginning of it */

struct sprite {
	size_t written[2];   /* what the command printed, and the record holds */
	size_t whole_below;  /* of a stream only so much arrives; 0 = all */
	size_t gap_at, gap;  /* bytes lost in the middle of the command's stdout */
	size_t record_lacks; /* the record of stdout is so much shorter */
	const char *say;     /* instead of a measurement */
	unsigned exit_code;
	bool changes;   /* the record is another one once it was measured */
	bool corrupts;  /* pieces arrive as long as they should be, with other bytes */
	bool no_nonce;
	bool reports;
	size_t reported_less; /* of stdout */
	size_t limit;   /* commands it runs before the channel breaks; 0 = any number */
};

static struct check check;
static struct output streams[2];
static size_t ran;

static void digest_of(const char *bytes, size_t len, char out[SHA256_HEX + 1])
{
	struct sha256 digest = {0};
	assert_int_equal(sha256_init(&digest), 0);
	assert_int_equal(sha256_feed(&digest, slice_of(bytes, len)), 0);
	assert_int_equal(sha256_hex(&digest, out), 0);
	sha256_deinit(&digest);
}

static void arrive(unsigned stream, const char *bytes, size_t len)
{
	for (size_t at = 0; at < len; at += 10000) {
		struct slice piece = slice_of(bytes + at, len - at < 10000 ? len - at : 10000);
		assert_int_equal(output_feed(&streams[stream], piece), 0);
		assert_int_equal(check_arrived(&check, stream, piece), 0);
	}
}

static void print(const struct sprite *sprite)
{
	for (unsigned i = 0; i < 2; i++) {
		size_t len = sprite->written[i];
		if (sprite->whole_below && len > sprite->whole_below)
			len = sprite->whole_below;
		size_t gap = i == 0 ? sprite->gap : 0, before = gap ? sprite->gap_at : len;
		arrive(i, content, before);
		if (gap)
			arrive(i, content + before + gap, len - before - gap);
	}
}

static void reply(unsigned stream, const char *bytes, size_t len)
{
	assert_int_equal(check_reply(&check, stream, slice_of(bytes, len)), 0);
}

static size_t recorded(const struct sprite *sprite, unsigned stream)
{
	return sprite->written[stream] - (stream == 0 ? sprite->record_lacks : 0);
}

static void measure(const struct sprite *sprite, const struct check_command *command)
{
	assert_string_equal(command->argv[6], RECORDED_AS);
	for (unsigned i = 0; i < 2; i++) {
		char line[256], whole[SHA256_HEX + 1], arrived[SHA256_HEX + 1];
		size_t size = recorded(sprite, i), first = strtoull(command->argv[4 + i], NULL, 10);
		digest_of(content + (sprite->changes ? 1 : 0), size, whole);
		digest_of(content, first < size ? first : size, arrived);
		int len = snprintf(line, sizeof line, "%.*s %zu %s - %s -\n", sprite->no_nonce ? 0 : CHECK_NONCE_LEN, command->input.data,
				   size, whole, arrived);
		reply(0, line, (size_t)len);
	}
}

static void fetch(const struct sprite *sprite, const struct check_command *command)
{
	char line[256], digest[SHA256_HEX + 1];
	unsigned stream = strcmp(command->argv[4], "stderr") == 0;
	size_t at = strtoull(command->argv[5], NULL, 10), len = strtoull(command->argv[6], NULL, 10);
	assert_true(at + len <= recorded(sprite, stream));
	assert_true(len > 0 && len <= CHECK_PIECE);
	digest_of(content + at, len, digest);
	reply(0, content + at + (sprite->corrupts ? 1 : 0), sprite->whole_below && len > sprite->whole_below ? sprite->whole_below : len);
	int n = snprintf(line, sizeof line, "%.*s %s -\n", CHECK_NONCE_LEN, command->input.data, digest);
	reply(1, line, (size_t)n);
}

static void play_on(const struct sprite *sprite)
{
	struct check_command command;
	assert_int_equal(check_init(&check, streams, RECORDED_AS), 0);
	print(sprite);
	const uint64_t sizes[] = {sprite->written[0] - sprite->reported_less, sprite->written[1]};
	assert_true(check_ended(&check, sprite->reports ? sizes : NULL, 256 * 1024));
	for (ran = 0; check_next(&check, &command); ran++) {
		if (sprite->limit && ran == sprite->limit) {
			check_give_up(&check);
			break;
		}
		assert_true(command.argc <= ARRAY_LEN(command.argv) && ran < 1000);
		if (ran)
			fetch(sprite, &command);
		else if (sprite->say)
			reply(0, sprite->say, strlen(sprite->say));
		else
			measure(sprite, &command);
		assert_int_equal(check_replied(&check, sprite->exit_code), 0);
	}
}

static void play(const struct sprite *sprite, size_t cap)
{
	output_init(&streams[0], cap);
	output_init(&streams[1], cap);
	play_on(sprite);
}

static void end(void)
{
	check_deinit(&check);
	output_deinit(&streams[0]);
	output_deinit(&streams[1]);
}

static void is_whole(const struct sprite *sprite)
{
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(streams[i].total, sprite->written[i]);
		assert_int_equal(streams[i].lost, 0);
		if (!output_truncated(&streams[i]))
			assert_true(slice_equal(buf_peek(&streams[i].bytes), slice_of(content, sprite->written[i])));
	}
}

static void test_verdicts(void **state UNUSED)
{
	static const struct {
		struct sprite sprite;
		enum check_verdict verdict;
	} rows[] = {
		{{.written = {300000, 7}}, CHECK_VERIFIED},
		{{.written = {0, 300000}}, CHECK_VERIFIED},
		{{.written = {300000, 0}, .whole_below = 140000}, CHECK_RECOVERED},
		{{.written = {300000, 280000}, .whole_below = 140000}, CHECK_RECOVERED},
		{{.written = {SIZE, 9}, .whole_below = 20000}, CHECK_RECOVERED}, /* pieces have to become smaller */
		{{.written = {300000, 0}, .gap_at = 1000, .gap = 1}, CHECK_RECOVERED},
		{{.written = {300000, 0}, .gap_at = 0, .gap = 100000}, CHECK_RECOVERED},
		{{.written = {300000, 0}, .record_lacks = 1}, CHECK_FAILED},
		{{.written = {300000, 0}, .reports = true}, CHECK_VERIFIED},
		{{.written = {300000, 0}, .reports = true, .reported_less = 1}, CHECK_FAILED},
		{{.written = {300000, 0}, .reports = true, .whole_below = 1000}, CHECK_INCOMPLETE},
		{{.written = {300000, 0}, .reports = true, .whole_below = 10000}, CHECK_RECOVERED},
		/* The record does not help, the report does. */
		{{.written = {300000, 7}, .reports = true, .whole_below = 140000, .exit_code = 125}, CHECK_INCOMPLETE},
		{{.written = {300000, 7}, .reports = true, .whole_below = 140000, .record_lacks = 1}, CHECK_INCOMPLETE},
		{{.written = {300000, 7}, .reports = true, .gap_at = 1000, .gap = 1, .say = ""}, CHECK_INCOMPLETE},
		{{.written = {300000, 7}, .reports = true, .exit_code = 125}, CHECK_FAILED},
		{{.written = {300000, 7}, .whole_below = 140000, .exit_code = 125}, CHECK_FAILED},
		{{.written = {300000, 0}, .changes = true}, CHECK_FAILED},
		{{.written = {300000, 0}, .whole_below = 140000, .changes = true}, CHECK_FAILED},
		{{.written = {300000, 0}, .no_nonce = true}, CHECK_FAILED},
		{{.written = {300000, 0}, .exit_code = 126}, CHECK_FAILED},
		{{.written = {300000, 0}, .say = ""}, CHECK_FAILED},
		{{.written = {300000, 0}, .say = "\n\n"}, CHECK_FAILED},
		{{.written = {300000, 0}, .say = "late output of the command\n"}, CHECK_FAILED},
		{{.written = {300000, 0}, .whole_below = 4000}, CHECK_INCOMPLETE},
		{{.written = {300000, 0}, .whole_below = 140000, .corrupts = true}, CHECK_INCOMPLETE},
		{{.written = {SIZE, 0}, .whole_below = 270000, .limit = 2}, CHECK_INCOMPLETE},
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		const struct sprite *sprite = &rows[i].sprite;
		play(sprite, SIZE);
		if (check.verdict != rows[i].verdict)
			fail_msg("row %zu: %s, not %s", i, check_verdict_name(check.verdict), check_verdict_name(rows[i].verdict));
		if (check.verdict == CHECK_VERIFIED || check.verdict == CHECK_RECOVERED)
			is_whole(sprite);
		if (check.verdict == CHECK_INCOMPLETE)
			assert_true(output_truncated(&streams[0]) && output_written(&streams[0]) == sprite->written[0]);
		struct check_command command;
		assert_false(check_next(&check, &command));
		end();
	}
}

/* What is kept is a prefix of what was written, also when fetching broke off. */
static void test_incomplete(void **state UNUSED)
{
	struct sprite sprite = {.written = {SIZE, 0}, .whole_below = 270000, .limit = 2};
	play(&sprite, SIZE);
	assert_int_equal(streams[0].total, 270000 + CHECK_PIECE);
	assert_int_equal(streams[0].lost, SIZE - 270000 - CHECK_PIECE);
	assert_true(output_truncated(&streams[0]));
	assert_true(slice_equal(buf_peek(&streams[0].bytes), slice_of(content, 270000 + CHECK_PIECE)));
	end();
}

/* Of an output above the cap only the tail is fetched, in one piece here. */
static void test_cut(void **state UNUSED)
{
	static const size_t arrived[] = {600, 1000, 5000, 400000};
	for (size_t i = 0; i < ARRAY_LEN(arrived); i++) {
		CLEANUP(buf_deinit) struct buf got = BUF_MAX(SIZE), want = BUF_MAX(SIZE);
		struct sprite sprite = {.written = {SIZE, 0}, .whole_below = arrived[i]};
		struct output whole;
		const char *encoding;
		play(&sprite, 1000);
		assert_int_equal(check.verdict, CHECK_RECOVERED);
		assert_true(ran <= 16);
		output_init(&whole, 1000);
		assert_int_equal(output_feed(&whole, slice_of(content, SIZE)), 0);
		assert_int_equal(output_put(&whole, &want, &encoding), 0);
		assert_int_equal(output_put(&streams[0], &got, &encoding), 0);
		assert_true(slice_equal(buf_peek(&got), buf_peek(&want)));
		output_deinit(&whole);
		end();
	}
	struct sprite sprite = {.written = {SIZE, 0}, .whole_below = 600};
	play(&sprite, 0);
	assert_int_equal(check.verdict, CHECK_RECOVERED);
	assert_int_equal(streams[0].total, SIZE);
	end();
}

static struct buf passed[2];

static int pass(void *ctx UNUSED, const struct output *output, struct slice bytes)
{
	return buf_append(&passed[output - streams], bytes);
}

/* What was passed on cannot be taken back: the end can follow, a gap cannot be filled. */
static void test_passed_on(void **state UNUSED)
{
	static const struct {
		struct sprite sprite;
		size_t cap;
		enum check_verdict verdict;
		size_t whole[2]; /* so much of the content was passed on; 0 = something else */
		uint64_t lost;
	} rows[] = {
		{{.written = {300000, 7}}, SIZE, CHECK_VERIFIED, {300000, 7}, 0},
		{{.written = {300000, 280000}, .whole_below = 140000}, SIZE, CHECK_RECOVERED, {300000, 280000}, 0},
		{{.written = {300000, 0}, .whole_below = 1000}, 500, CHECK_RECOVERED, {500, 0}, 0},
		{{.written = {300000, 0}, .whole_below = 1000}, 2000, CHECK_RECOVERED, {2000, 0}, 0},
		{{.written = {300000, 0}, .whole_below = 1000}, 0, CHECK_RECOVERED, {0, 0}, 0},
		{{.written = {300000, 0}, .gap_at = 1000, .gap = 1}, SIZE, CHECK_INCOMPLETE, {0, 0}, 1},
		{{.written = {300000, 7}, .gap_at = 0, .gap = 100000}, SIZE, CHECK_INCOMPLETE, {0, 7}, 100000},
		{{.written = {300000, 0}, .record_lacks = 1}, SIZE, CHECK_FAILED, {300000, 0}, 0},
		{{.written = {300000, 0}, .changes = true}, SIZE, CHECK_FAILED, {300000, 0}, 0},
		{{.written = {300000, 0}, .whole_below = 4000}, SIZE, CHECK_INCOMPLETE, {4000, 0}, 296000},
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		for (size_t s = 0; s < 2; s++) {
			passed[s] = BUF_MAX(SIZE);
			output_init_passing(&streams[s], rows[i].cap, pass, NULL);
		}
		play_on(&rows[i].sprite);
		if (check.verdict != rows[i].verdict)
			fail_msg("row %zu: %s, not %s", i, check_verdict_name(check.verdict), check_verdict_name(rows[i].verdict));
		for (size_t s = 0; s < 2; s++)
			if (rows[i].whole[s])
				assert_true(slice_equal(buf_peek(&passed[s]), slice_of(content, rows[i].whole[s])));
		assert_int_equal(streams[0].lost, rows[i].lost);
		if (check.verdict != CHECK_FAILED)
			assert_int_equal(output_written(&streams[0]), rows[i].sprite.written[0]);
		buf_deinit(&passed[0]);
		buf_deinit(&passed[1]);
		end();
	}
}

static void test_give_up_before_anything(void **state UNUSED)
{
	struct sprite sprite = {.written = {300000, 0}, .limit = 0};
	output_init(&streams[0], SIZE);
	output_init(&streams[1], SIZE);
	assert_int_equal(check_init(&check, streams, RECORDED_AS), 0);
	print(&sprite);
	assert_int_equal(check.verdict, CHECK_NONE);
	check_give_up(&check);
	assert_int_equal(check.verdict, CHECK_FAILED);
	assert_int_equal(streams[0].lost, 0);
	end();
}

/* When there is no need to look, and when there is nothing to look at. */
static void test_counted(void **state UNUSED)
{
	static const struct {
		uint64_t arrived[2], wrote[2];
		bool reported, look;
	} rows[] = {
		{{0, 0}, {0, 0}, true, false},      {{4999, 0}, {4999, 0}, true, false}, {{4999, 4999}, {4999, 4999}, true, false},
		{{5000, 0}, {5000, 0}, true, true}, {{0, 5000}, {0, 5000}, true, true},  {{3, 3}, {4, 3}, true, true},
		{{3, 3}, {3, 1000000}, true, true}, {{4, 3}, {3, 3}, true, true},        {{0, 0}, {0, 0}, false, true},
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct output arrived[2] = {{.total = rows[i].arrived[0]}, {.total = rows[i].arrived[1]}};
		assert_int_equal(check_init(&check, arrived, RECORDED_AS), 0);
		assert_int_equal(check_ended(&check, rows[i].reported ? rows[i].wrote : NULL, 5000), rows[i].look);
		assert_int_equal(check.verdict, rows[i].look ? CHECK_NONE : CHECK_COUNTED);
		check_deinit(&check);
	}
}

/* Nothing is kept of a stream that is too long for it. */
static void test_too_long(void **state UNUSED)
{
	static const uint64_t size = RECORD_MAX + 1;
	static const struct {
		uint64_t arrived[2], wrote[2];
		bool reported;
		enum check_verdict verdict;
		uint64_t lost[2];
	} rows[] = {
		{{size, 7}, {size, 7}, true, CHECK_COUNTED, {0, 0}},
		{{size, 7}, {size, 9}, true, CHECK_INCOMPLETE, {0, 2}},
		{{1000, 7}, {size, 7}, true, CHECK_INCOMPLETE, {size - 1000, 0}},
		{{7, size + 1}, {7, size}, true, CHECK_FAILED, {0, 0}},
		{{size, 7}, {0, 0}, false, CHECK_UNVERIFIED, {0, 0}},
	};
	for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
		struct output arrived[2] = {{.total = rows[i].arrived[0]}, {.total = rows[i].arrived[1]}};
		assert_int_equal(check_init(&check, arrived, RECORDED_AS), 0);
		assert_false(check_ended(&check, rows[i].reported ? rows[i].wrote : NULL, 5000));
		assert_int_equal(check.verdict, rows[i].verdict);
		assert_true(arrived[0].lost == rows[i].lost[0] && arrived[1].lost == rows[i].lost[1]);
		check_deinit(&check);
	}
}

static void test_without_record(void **state UNUSED)
{
	for (unsigned stream = 0; stream < 2; stream++)
		for (uint64_t total = CHECK_SUSPECT - 1; total <= CHECK_SUSPECT; total++) {
			struct output arrived[2] = {0};
			arrived[stream].total = total;
			assert_int_equal(check_init(&check, arrived, RECORDED_AS), 0);
			check_without_record(&check);
			assert_int_equal(check.verdict, total < CHECK_SUSPECT ? CHECK_NONE : CHECK_UNVERIFIED);
			check_deinit(&check);
		}
}

static int set_up(void **state UNUSED)
{
	/* No two parts alike. */
	uint32_t x = 1;
	for (size_t i = 0; i < sizeof content; i++) {
		x = x * 1664525 + 1013904223;
		content[i] = (char)('a' + (x >> 24) % 26);
	}
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_verdicts),
		cmocka_unit_test(test_incomplete),
		cmocka_unit_test(test_cut),
		cmocka_unit_test(test_passed_on),
		cmocka_unit_test(test_give_up_before_anything),
		cmocka_unit_test(test_counted),
		cmocka_unit_test(test_too_long),
		cmocka_unit_test(test_without_record),
	};
	return cmocka_run_group_tests(tests, set_up, NULL);
}
