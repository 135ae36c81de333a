#include "gateway/exec/copy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define MAX ((size_t)100)

static char printed[MAX + 1];

static struct slice some(size_t len)
{
	return slice_of(printed, len);
}

struct told {
	struct output streams[2];
	struct outfile files[2];
	struct outfiles outfiles;
	struct copy copy;
};

static void begin(struct told *told)
{
	*told = (struct told){.outfiles = {.files = told->files, .count = 2}};
	for (size_t i = 0; i < 2; i++)
		told->files[i].bytes = BUF_MAX(10 * MAX);
	copy_init(&told->copy, told->streams, &told->outfiles, MAX);
}

static void end(struct told *told)
{
	for (size_t i = 0; i < 2; i++) {
		output_deinit(&told->streams[i]);
		buf_deinit(&told->files[i].bytes);
	}
}

static void is_dropped(const struct told *told)
{
	assert_false(told->copy.whole);
	for (size_t i = 0; i < 2; i++) {
		assert_null(told->streams[i].bytes.data);
		assert_null(told->files[i].bytes.data);
	}
}

static void test_all_that_fits(void **state UNUSED)
{
	struct told told;
	begin(&told);
	copy_output(&told.copy, 0, some(20));
	copy_output(&told.copy, 1, some(30));
	copy_file(&told.copy, &told.files[0], some(40));
	copy_file(&told.copy, &told.files[1], some(10));
	assert_true(told.copy.whole);
	assert_int_equal(told.streams[0].bytes.len, 20);
	assert_int_equal(told.files[1].bytes.len, 10);
	end(&told);
}

/* One byte more, wherever it comes: nothing is held, and nothing again. */
static void test_more_than_fits(void **state UNUSED)
{
	for (size_t last = 0; last < 4; last++) {
		struct told told;
		begin(&told);
		copy_output(&told.copy, 0, some(20));
		copy_output(&told.copy, 1, some(20));
		copy_file(&told.copy, &told.files[0], some(30));
		copy_file(&told.copy, &told.files[1], some(30));
		assert_true(told.copy.whole);
		for (size_t i = 0; i < 2; i++) {
			if (last < 2)
				copy_output(&told.copy, (unsigned)last, some(1));
			else
				copy_file(&told.copy, &told.files[last - 2], some(1));
			is_dropped(&told);
		}
		end(&told);
	}
}

/* What was held of a file that failed takes no room from the next one. */
static void test_after_a_file_that_failed(void **state UNUSED)
{
	struct told told;
	begin(&told);
	copy_output(&told.copy, 0, some(10));
	copy_file(&told.copy, &told.files[0], some(90));
	buf_deinit(&told.files[0].bytes);
	copy_file(&told.copy, &told.files[1], some(90));
	assert_true(told.copy.whole);
	copy_file(&told.copy, &told.files[1], some(1));
	is_dropped(&told);
	end(&told);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_all_that_fits), cmocka_unit_test(test_more_than_fits),
					   cmocka_unit_test(test_after_a_file_that_failed)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
