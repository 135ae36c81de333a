#include "gateway/http/connection_memory.h"

#include <sanitizer/asan_interface.h>
#include <string.h>
#include <sys/mman.h>

/* libmicrohttpd would clear the pool of a connection one and a half times a request though nothing in it relies on zeroes: pools that
 * malloc gives were never cleared. What it clears besides is smaller than this. */
#define POOL_CLEAR_MIN 2048

/* Of a block given back, so much at either end is cleared and the rest is the kernel's: libmicrohttpd fills a pool from both ends, and
 * a small exchange touches nothing in between. */
#define END_LEN ((size_t)4 * 4096)

struct block {
	struct block *next;
};

static _Thread_local struct {
	struct block *first;
	size_t count, len; /* all are of this length */
} kept;

void *microhttpd_memset(void *to, int byte, size_t len)
{
	return len < POOL_CLEAR_MIN ? memset(to, byte, len) : to;
}

void *microhttpd_mmap(void *address, size_t len, int protection, int flags, int fd, off_t offset)
{
	struct block *block = kept.first;
	if (!block || kept.len != len)
		return mmap(address, len, protection, flags, fd, offset);
	kept.first = block->next;
	kept.count--;
	block->next = NULL;
	ASAN_UNPOISON_MEMORY_REGION(block, len);
	return block;
}

static void clear(char *memory, size_t len)
{
	size_t between = len > 2 * END_LEN ? len - 2 * END_LEN : 0;
	/* A fresh page of the kernel is all zeroes. */
	if (!between || madvise(memory + END_LEN, between, MADV_DONTNEED) < 0) {
		memset(memory, 0, len);
		return;
	}
	memset(memory, 0, END_LEN);
	memset(memory + len - END_LEN, 0, END_LEN);
}

int microhttpd_munmap(void *memory, size_t len)
{
	if (kept.count == CONNECTION_MEMORY_KEPT || (kept.count && kept.len != len))
		return munmap(memory, len);
	clear(memory, len);
	struct block *block = memory;
	block->next = kept.first;
	kept.first = block;
	kept.count++;
	kept.len = len;
	/* A request that outlived its connection shows in tests, as it would if the block were the kernel's again. */
	ASAN_POISON_MEMORY_REGION(block + 1, len - sizeof *block);
	return 0;
}
