/*
 * utf8 - validity of UTF-8 (RFC 3629: no overlong forms, no surrogates, at most U+10FFFF)
 */
#pragma once

#include "gateway/base/slice.h"

/* Length of the longest prefix that is whole, valid UTF-8. */
size_t utf8_valid_prefix(struct slice text);

static inline bool utf8_is_valid(struct slice text)
{
	return utf8_valid_prefix(text) == text.len;
}

/* How many bytes at the end are the start of a character that is not finished yet: 0 to 3. */
size_t utf8_unfinished_tail(struct slice text);
