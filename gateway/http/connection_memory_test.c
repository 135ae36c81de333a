#include "gateway/http/connection_memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <string.h>
#include <sys/mman.h>

#define LEN ((size_t)16 * 4096)

static unsigned char *take(size_t len)
{
	void *block = microhttpd_mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(block, MAP_FAILED);
	return block;
}

static void assert_zeroes(const unsigned char *block, size_t len)
{
	for (size_t i = 0; i < len; i++)
		assert_int_equal(block[i], 0);
}

static void test_no_byte_reaches_the_next_connection(void **state UNUSED)
{
	unsigned char *first = take(LEN);
	memset(first, 'x', LEN);
	assert_int_equal(microhttpd_munmap(first, LEN), 0);
	unsigned char *second = take(LEN);
	assert_ptr_equal(second, first);
	assert_zeroes(second, LEN);
	assert_int_equal(microhttpd_munmap(second, LEN), 0);
}

static void test_what_is_kept_is_mostly_the_kernel_s(void **state UNUSED)
{
	unsigned char resident[LEN / 4096];
	size_t count = 0;
	unsigned char *block = take(LEN);
	memset(block, 'x', LEN);
	assert_int_equal(microhttpd_munmap(block, LEN), 0);
	assert_int_equal(mincore(block, LEN, resident), 0);
	for (size_t i = 0; i < sizeof resident; i++)
		count += resident[i] & 1;
	assert_true(count <= sizeof resident / 2);
	assert_ptr_equal(take(LEN), block);
}

static void test_many_at_once(void **state UNUSED)
{
	unsigned char *blocks[CONNECTION_MEMORY_KEPT + 8];
	unsigned char resident;
	for (size_t i = 0; i < ARRAY_LEN(blocks); i++) {
		blocks[i] = take(LEN);
		for (size_t j = 0; j < i; j++)
			assert_ptr_not_equal(blocks[i], blocks[j]);
		memset(blocks[i], 'x', LEN);
	}
	for (size_t i = 0; i < ARRAY_LEN(blocks); i++)
		assert_int_equal(microhttpd_munmap(blocks[i], LEN), 0);
	/* What is more than may be kept is the kernel's again. */
	assert_int_equal(mincore(blocks[CONNECTION_MEMORY_KEPT - 1], 4096, &resident), 0);
	assert_int_equal(mincore(blocks[CONNECTION_MEMORY_KEPT], 4096, &resident), -1);
	for (size_t i = 0; i < ARRAY_LEN(blocks); i++)
		assert_zeroes(take(LEN), LEN);
}

static void test_other_sizes_are_not_mixed(void **state UNUSED)
{
	unsigned char *block = take(LEN);
	assert_int_equal(microhttpd_munmap(block, LEN), 0);
	unsigned char *larger = take(2 * LEN);
	assert_ptr_not_equal(larger, block);
	memset(larger, 'x', 2 * LEN);
	assert_int_equal(microhttpd_munmap(larger, 2 * LEN), 0);
	assert_ptr_equal(take(LEN), block);
}

static void test_only_large_blocks_stay_as_they_are(void **state UNUSED)
{
	static unsigned char bytes[4096];
	memset(bytes, 'x', sizeof bytes);
	assert_ptr_equal(microhttpd_memset(bytes, 0, 2047), bytes);
	assert_zeroes(bytes, 2047);
	assert_ptr_equal(microhttpd_memset(bytes, 'y', sizeof bytes), bytes);
	assert_int_equal(bytes[4000], 'x');
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_no_byte_reaches_the_next_connection),
		cmocka_unit_test(test_what_is_kept_is_mostly_the_kernel_s),
		cmocka_unit_test(test_many_at_once),
		cmocka_unit_test(test_other_sizes_are_not_mixed),
		cmocka_unit_test(test_only_large_blocks_stay_as_they_are),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
