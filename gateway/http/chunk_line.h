/*
 * chunk_line - chunk extensions, which libmicrohttpd 1.0.1 gets wrong, are skipped before it sees them
 *
 * It takes the line feed after an extension for the first byte of the chunk. The linker leads its reading of a chunk's size to us
 * (cmake/microhttpd.cmake), where what follows the size and is to be ignored (RFC 9112 section 7.1.1) counts as digits of it.
 *
 * Pure.
 * Bounds: CHUNK_EXTENSION_MAX bytes of extension, the blanks before it included.
 */
#pragma once

#include <stddef.h>

#define CHUNK_EXTENSION_MAX 256

/*
 * How many bytes of a chunk line libmicrohttpd is to take for its digits: `digits` when there is no extension, all up to the line's end
 * after a whole one, and all that is there (len) while the end of an extension is not: it waits for more then. An extension that is too
 * long, or has a control character or an end other than CRLF, is made a line that it refuses.
 */
size_t chunk_line_take(char *line, size_t len, size_t digits);
