/*
 * pointer - JSON Pointers (RFC 6901) as text, and the one of a place in a JSON text that could not be parsed
 *
 * Pure.
 * Bounds: JSON_POINTER_LEN bytes; of a longer one the beginning.
 */
#pragma once

#include "gateway/base/slice.h"

#define JSON_POINTER_LEN 192

/* Appends "/name" to the pointer that is there. */
void json_pointer_add(char pointer[JSON_POINTER_LEN], struct slice name);

/*
 * Of the member or element that `before`, the beginning of a JSON text, ends in or right behind. A name with escapes in it is left out:
 * the pointer is then its object's.
 */
void json_pointer_at(struct slice before, char pointer[JSON_POINTER_LEN]);
