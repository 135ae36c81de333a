/*
 * connection_memory - where libmicrohttpd has the memory of its connections from
 *
 * cmake/microhttpd.cmake binds libmicrohttpd's memset, mmap and munmap to these; nobody else calls them. Reasons and figures:
 * docs/decisions/0004-libmicrohttpd-pool.md
 *
 * Owns:       up to CONNECTION_MEMORY_KEPT blocks a thread that no connection uses, until the process ends.
 * Bounds:     blocks of one size a thread, which is that of its server; others go to the kernel and back.
 * Invariants: a block is all zeroes when a connection gets it, so no byte of one client reaches another.
 */
#pragma once

#include "gateway/base/attr.h"

#include <stddef.h>
#include <sys/types.h>

#define CONNECTION_MEMORY_KEPT 32

/* Clears what is small, and leaves the rest alone. */
void *microhttpd_memset(void *to, int byte, size_t len);

/* Like those without the prefix, for private anonymous memory. */
void *microhttpd_mmap(void *address, size_t len, int protection, int flags, int fd, off_t offset);
int microhttpd_munmap(void *block, size_t len);
