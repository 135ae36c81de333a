#include "policy/unsettled.h"

#include "gateway/base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define LINE                                                                                                                     \
	"{\"version\":1,\"kid\":\"0123456789abcdEF\",\"lease\":\"0123456789abcdef01234567\",\"exec_id\":\"\",\"actor\":\"ann\"," \
	"\"used_ms\":1500,\"out_bytes\":7,\"refund\":false,\"ended_ms\":1700000000000}\n"

/* A folder of its own for each test. */
struct place {
	char folder[64], path[80], broken[90];
};

static int make_place(void **state)
{
	struct place *place = calloc(1, sizeof *place);
	assert_non_null(place);
	snprintf(place->folder, sizeof place->folder, "/tmp/unsettled-XXXXXX");
	assert_non_null(mkdtemp(place->folder));
	snprintf(place->path, sizeof place->path, "%s/file", place->folder);
	snprintf(place->broken, sizeof place->broken, "%s.broken", place->path);
	*state = place;
	return 0;
}

static int remove_place(void **state)
{
	struct place *place = *state;
	unlink(place->path);
	unlink(place->broken);
	assert_int_equal(rmdir(place->folder), 0);
	free(place);
	return 0;
}

static off_t size_of(const char *path)
{
	struct stat status;
	return lstat(path, &status) == 0 ? status.st_size : -1;
}

static struct unsettled_entry entry_of(unsigned number)
{
	struct unsettled_entry entry = {.used_ms = 1000 + number, .out_bytes = number, .ended_ms = clock_wall_ms(), .refund = number % 2};
	snprintf(entry.lease.kid, sizeof entry.lease.kid, "%016u", number);
	snprintf(entry.lease.id, sizeof entry.lease.id, "%024x", number);
	snprintf(entry.lease.actor, sizeof entry.lease.actor, "%s", number % 3 ? "ann" : "");
	snprintf(entry.lease.exec_id, sizeof entry.lease.exec_id, "%s", number % 5 ? "" : "01234567-89ab-7def-8123-456789abcdef");
	return entry;
}

static void same(const struct unsettled_entry *a, const struct unsettled_entry *b)
{
	assert_string_equal(a->lease.kid, b->lease.kid);
	assert_string_equal(a->lease.id, b->lease.id);
	assert_string_equal(a->lease.actor, b->lease.actor);
	assert_string_equal(a->lease.exec_id, b->lease.exec_id);
	assert_int_equal(a->used_ms, b->used_ms);
	assert_int_equal(a->out_bytes, b->out_bytes);
	assert_int_equal(a->ended_ms, b->ended_ms);
	assert_int_equal(a->refund, b->refund);
}

static struct unsettled *open_file(const struct place *place)
{
	struct unsettled *unsettled = unsettled_new(place->path);
	assert_non_null(unsettled);
	return unsettled;
}

/* As the next start does. */
static size_t load(const struct place *place, struct unsettled_entry *entries, bool done)
{
	struct unsettled *unsettled = open_file(place);
	size_t count;
	assert_null(unsettled_open(unsettled));
	const struct unsettled_entry *found = unsettled_loaded(unsettled, &count);
	if (entries && count)
		memcpy(entries, found, count * sizeof *entries);
	if (done)
		unsettled_done(unsettled);
	unsettled_free(unsettled);
	return count;
}

static size_t count_of(const struct place *place)
{
	return load(place, NULL, false);
}

static void save(const struct place *place, const struct unsettled_entry *entries, size_t count)
{
	struct unsettled *unsettled = open_file(place);
	assert_null(unsettled_open(unsettled));
	for (size_t i = 0; i < count; i++)
		unsettled_keep(unsettled, &entries[i]);
	unsettled_save(unsettled);
	unsettled_free(unsettled);
}

static void put(const struct place *place, const char *text, mode_t mode)
{
	FILE *file = fopen(place->path, "w");
	assert_non_null(file);
	assert_true(fputs(text, file) >= 0);
	assert_int_equal(fclose(file), 0);
	assert_int_equal(chmod(place->path, mode), 0);
}

static void test_what_is_saved_is_loaded(void **state)
{
	const struct place *place = *state;
	struct unsettled_entry given[20], found[20];
	struct stat status;
	for (unsigned i = 0; i < 20; i++)
		given[i] = entry_of(i);
	save(place, given, 20);
	assert_int_equal(stat(place->path, &status), 0);
	assert_int_equal(status.st_mode & 0777, 0600);
	assert_int_equal(load(place, found, false), 20);
	for (unsigned i = 0; i < 20; i++)
		same(&given[i], &found[i]);
	assert_int_equal(load(place, found, true), 20);
	assert_int_equal(size_of(place->path), 0);
	assert_int_equal(count_of(place), 0);
}

static void test_a_later_one_takes_its_place(void **state)
{
	const struct place *place = *state;
	struct unsettled_entry entries[] = {entry_of(1), entry_of(2), entry_of(3)}, found;
	save(place, entries, 3);
	save(place, NULL, 0);
	assert_int_equal(count_of(place), 3);
	save(place, &entries[1], 1);
	assert_int_equal(load(place, &found, false), 1);
	same(&found, &entries[1]);
}

static void test_the_first_start(void **state)
{
	const struct place *place = *state;
	assert_int_equal(count_of(place), 0);
	assert_int_equal(size_of(place->path), 0);
	assert_int_equal(size_of(place->broken), -1);
}

static void test_at_most_so_many(void **state)
{
	const struct place *place = *state;
	struct unsettled *unsettled = open_file(place);
	assert_null(unsettled_open(unsettled));
	for (unsigned i = 0; i < UNSETTLED_MAX + 10; i++) {
		struct unsettled_entry entry = entry_of(i);
		unsettled_keep(unsettled, &entry);
	}
	unsettled_save(unsettled);
	unsettled_free(unsettled);
	assert_int_equal(count_of(place), UNSETTLED_MAX);
	FILE *file = fopen(place->path, "a");
	assert_non_null(file);
	assert_true(fputs(LINE, file) >= 0);
	assert_int_equal(fclose(file), 0);
	assert_int_equal(count_of(place), 0);
	assert_true(size_of(place->broken) > 0 && size_of(place->path) == 0);
}

static void test_one_that_is_too_large(void **state)
{
	const struct place *place = *state;
	put(place, "x", 0600);
	assert_int_equal(truncate(place->path, (off_t)1 << 32), 0);
	assert_int_equal(count_of(place), 0);
	assert_true(size_of(place->broken) > 0 && size_of(place->path) == 0);
}

static void test_old_ones_are_left(void **state)
{
	const struct place *place = *state;
	struct unsettled_entry entries[] = {entry_of(1), entry_of(2), entry_of(3)}, found[3];
	entries[0].ended_ms -= UINT64_C(25) * 3600 * 1000;
	entries[2].ended_ms += UINT64_C(25) * 3600 * 1000; /* the clock was set back */
	save(place, entries, 3);
	assert_int_equal(load(place, found, false), 2);
	same(&found[0], &entries[1]);
	same(&found[1], &entries[2]);
	save(place, entries, 1);
	assert_int_equal(count_of(place), 0);
	assert_int_equal(size_of(place->path), 0);
	assert_int_equal(size_of(place->broken), -1);
}

static void refused(const struct place *place)
{
	struct unsettled *unsettled = open_file(place);
	size_t count;
	assert_non_null(unsettled_open(unsettled));
	(void)unsettled_loaded(unsettled, &count);
	assert_int_equal(count, 0);
	unsettled_free(unsettled);
}

static void test_only_a_file_of_our_own(void **state)
{
	const struct place *place = *state;
	put(place, LINE, 0666);
	refused(place);
	assert_int_equal(rename(place->path, place->broken), 0);
	assert_int_equal(symlink(place->broken, place->path), 0);
	refused(place);
	assert_int_equal(unlink(place->path), 0);
	assert_int_equal(mkfifo(place->path, 0600), 0);
	refused(place);
}

static void test_one_has_it_at_a_time(void **state)
{
	const struct place *place = *state;
	for (int bad = 0; bad < 2; bad++) {
		put(place, bad ? "rubbish\n" : "", 0600);
		struct unsettled *first = open_file(place), *second = open_file(place);
		assert_null(unsettled_open(first));
		assert_non_null(strstr(unsettled_open(second), "another gateway"));
		unsettled_done(first);
		assert_non_null(strstr(unsettled_open(second), "another gateway"));
		unsettled_free(first);
		assert_null(unsettled_open(second));
		unsettled_free(second);
	}
}

static void test_nobody_else_reads_it(void **state)
{
	const struct place *place = *state;
	struct stat status;
	put(place, LINE, 0644);
	(void)count_of(place);
	assert_int_equal(stat(place->path, &status), 0);
	assert_int_equal(status.st_mode & 0777, 0600);
	assert_int_equal(size_of(place->broken), -1);
}

static void test_where_nothing_can_be_written(void **state UNUSED)
{
	struct unsettled *unsettled = unsettled_new("/nowhere/at/all");
	struct unsettled_entry entry = entry_of(1);
	assert_non_null(unsettled);
	assert_string_equal(unsettled_open(unsettled), strerror(ENOENT));
	unsettled_keep(unsettled, &entry);
	unsettled_save(unsettled);
	unsettled_free(unsettled);
}

/* --- lines ------------------------------------------------------------------ */

static int read_text(struct slice text, size_t *count, size_t *bad_line)
{
	struct unsettled_entry *entries = calloc(UNSETTLED_MAX, sizeof *entries);
	assert_non_null(entries);
	int r = unsettled_read_lines(text, entries, count, bad_line);
	free(entries);
	return r;
}

static void test_a_name_that_is_none(void **state UNUSED)
{
	struct unsettled_entry entry = entry_of(1), *read = calloc(UNSETTLED_MAX, sizeof *read);
	struct buf line = BUF_MAX(UNSETTLED_LINE_MAX);
	size_t count, bad_line;
	assert_non_null(read);
	memset(entry.lease.actor, '\n', sizeof entry.lease.actor - 1);
	assert_int_equal(unsettled_write_line(&line, &entry), 0);
	assert_int_equal(unsettled_read_lines(buf_peek(&line), read, &count, &bad_line), 0);
	assert_string_equal(read[0].lease.actor, "");
	buf_deinit(&line);
	free(read);
}

static void test_the_longest_fits(void **state UNUSED)
{
	struct unsettled_entry entry = entry_of(5);
	struct buf line = BUF_MAX(UNSETTLED_LINE_MAX);
	size_t count, bad_line;
	memset(entry.lease.actor, 'x', sizeof entry.lease.actor - 1);
	entry.used_ms = entry.out_bytes = entry.ended_ms = INT64_MAX;
	assert_int_equal(unsettled_write_line(&line, &entry), 0);
	assert_int_equal(read_text(buf_peek(&line), &count, &bad_line), 0);
	assert_int_equal(count, 1);
	buf_deinit(&line);
}

/* `with` in place of `what`. */
static void changed(const char *what, const char *with, char out[2 * sizeof LINE])
{
	const char *at = strstr(LINE, what);
	assert_non_null(at);
	snprintf(out, 2 * sizeof LINE, "%.*s%s%s", (int)(at - LINE), LINE, with, at + strlen(what));
}

static void test_strict(void **state UNUSED)
{
	static const char *const changes[][2] = {
		{"\"version\":1", "\"version\":3"},
		{"\"version\":1", "\"version\":\"1\""},
		{"\"version\":1,", ""},
		{"\"version\":1", "\"version\":1,\"more\":1"},
		{"\"version\":1", "\"version\":1,\"version\":1"},
		{"abcdEF", "abcdE"},
		{"abcdEF", "abcdEF0"},
		{"abcdEF", "abcd:*"},
		{"abcdef01234567", "abcdef0123456"},
		{"abcdef01234567", "ABCDEF01234567"},
		{"\"exec_id\":\"\"", "\"exec_id\":\"x\""},
		{"\"exec_id\":\"\"", "\"exec_id\":\"0123456789ab-7def-8123-456789abcdef0000\""},
		{"\"exec_id\":\"\"", "\"exec_id\":null"},
		{"\"ann\"", "\"an n\""},
		{"\"ann\"", "[]"},
		{"1500", "-1"},
		{"1500", "1.5"},
		{"1500", "99999999999999999999"},
		{":7", ":\"7\""},
		{"false", "0"},
		{"}", "},"},
		{"}", "} {}"},
		{"{", "[{"},
		{"\n", "\n\n"},
	};
	size_t count, bad_line;
	assert_int_equal(read_text(SLICE(LINE LINE), &count, &bad_line), 0);
	assert_int_equal(count, 2);
	for (size_t i = 0; i < ARRAY_LEN(changes); i++) {
		char bad[2 * sizeof LINE], text[3 * sizeof LINE];
		changed(changes[i][0], changes[i][1], bad);
		snprintf(text, sizeof text, "%s%s", LINE, bad);
		if (read_text(slice_str(text), &count, &bad_line) != -EINVAL)
			fail_msg("taken: %s", text);
		assert_in_range(bad_line, 2, 3);
	}
	for (size_t len = 1; len < sizeof LINE - 1; len++)
		assert_int_equal(read_text(slice_of(LINE, len), &count, &bad_line), -EINVAL);
}

/* Whatever of a line follows good ones; nothing else that is not understood does. */
static void test_a_last_line_that_is_cut(void **state UNUSED)
{
	size_t count, bad_line;
	for (size_t len = 1; len < sizeof LINE - 1; len++) {
		assert_int_equal(read_text(slice_of(LINE LINE LINE, 2 * (sizeof LINE - 1) + len), &count, &bad_line), 0);
		assert_int_equal(count, 2);
		assert_int_equal(bad_line, 3);
	}
	char long_one[sizeof LINE + UNSETTLED_LINE_MAX];
	memset(long_one, 'x', sizeof long_one);
	memcpy(long_one, LINE, sizeof LINE - 1);
	assert_int_equal(read_text(slice_of(long_one, sizeof LINE - 1 + UNSETTLED_LINE_MAX), &count, &bad_line), -EINVAL);
	assert_int_equal(read_text(SLICE(LINE "{}\n{"), &count, &bad_line), -EINVAL);
	assert_int_equal(bad_line, 2);
}

static void test_a_full_disk(void **state)
{
	const struct place *place = *state;
	struct unsettled_entry given[20], found[20];
	struct rlimit before;
	for (unsigned i = 0; i < 20; i++)
		given[i] = entry_of(i);
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &(struct rlimit){.rlim_cur = 1000, .rlim_max = before.rlim_max}), 0);
	save(place, given, 20);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
	assert_int_equal(size_of(place->path), 1000);
	size_t count = load(place, found, false);
	assert_in_range(count, 2, 19);
	for (size_t i = 0; i < count; i++)
		same(&given[i], &found[i]);
	assert_int_equal(size_of(place->broken), -1);
	assert_int_equal(load(place, found, true), count);
	assert_int_equal(size_of(place->path), 0);
}

static void test_a_bad_file_counts_as_none(void **state)
{
	const struct place *place = *state;
	put(place, LINE "rubbish\n", 0600);
	assert_int_equal(count_of(place), 0);
	assert_true(size_of(place->broken) > 0 && size_of(place->path) == 0);
}

int main(void)
{
#define ON_DISK(test) cmocka_unit_test_setup_teardown(test, make_place, remove_place)
	const struct CMUnitTest tests[] = {
		ON_DISK(test_what_is_saved_is_loaded),
		ON_DISK(test_at_most_so_many),
		ON_DISK(test_old_ones_are_left),
		ON_DISK(test_a_later_one_takes_its_place),
		ON_DISK(test_the_first_start),
		ON_DISK(test_one_that_is_too_large),
		ON_DISK(test_only_a_file_of_our_own),
		ON_DISK(test_one_has_it_at_a_time),
		ON_DISK(test_nobody_else_reads_it),
		ON_DISK(test_a_bad_file_counts_as_none),
		ON_DISK(test_a_full_disk),
		cmocka_unit_test(test_a_last_line_that_is_cut),
		cmocka_unit_test(test_where_nothing_can_be_written),
		cmocka_unit_test(test_a_name_that_is_none),
		cmocka_unit_test(test_the_longest_fits),
		cmocka_unit_test(test_strict),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
