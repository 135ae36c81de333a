#include "gateway/http/chunk_line.h"

#include <stdbool.h>
#include <stdint.h>

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

static bool is_control(char c)
{
	return ((unsigned char)c < ' ' && c != '\t') || c == 0x7f;
}

/* A byte that can follow no size. There is another one behind it, so that the library does not wait for it. */
static size_t refuse(char *line, size_t digits)
{
	line[digits] = '\0';
	return digits;
}

size_t chunk_line_take(char *line, size_t len, size_t digits)
{
	size_t at = digits;
	while (at < len && is_blank(line[at]))
		at++;
	if (at < len && line[at] != ';')
		return digits;
	for (at = digits; at < len && line[at] != '\r'; at++)
		if (at - digits == CHUNK_EXTENSION_MAX || is_control(line[at]))
			return refuse(line, digits);
	if (at + 1 >= len)
		return len;
	return line[at + 1] == '\n' ? at : refuse(line, digits);
}

size_t __real_MHD_strx_to_uint64_n_(const char *text, size_t len, uint64_t *value);
size_t __wrap_MHD_strx_to_uint64_n_(char *text, size_t len, uint64_t *value);

/* The library's reading of a chunk line in its own buffer; 0 stays 0: no number, or one that is too large. */
size_t __wrap_MHD_strx_to_uint64_n_(char *text, size_t len, uint64_t *value)
{
	size_t digits = __real_MHD_strx_to_uint64_n_(text, len, value);
	return digits == 0 ? 0 : chunk_line_take(text, len, digits);
}
