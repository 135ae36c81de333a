/*
 * json - strict parsing with jansson; the only place that includes its header
 *
 * Duplicate keys are refused (JSON_REJECT_DUPLICATES), so two readers cannot see two different values (RFC 8259 section 4);
 * so are bytes after the value, invalid UTF-8, \u0000 in strings and nesting deeper than asked.
 * Bounds:  JSON_MAX_VALUES values (about 20 MiB of memory), beside the text itself.
 */
#pragma once

#include "gateway/json/pointer.h"

#include <jansson.h>

#define JSON_ERROR_LEN  160
#define JSON_MAX_VALUES 65536 /* commas and opening brackets */

struct json_failure {
	size_t position;                /* byte offset of the fault, as far as known */
	char pointer[JSON_POINTER_LEN]; /* where that is */
	char text[JSON_ERROR_LEN];      /* a plain phrase without input bytes: "nested deeper than 32 levels" */
};

/* The value, owned by the caller (json_decref), or NULL and *failure. */
json_t *json_parse(struct slice text, unsigned max_depth, struct json_failure *failure);

/* The same with every number as a real: there an integer has no limit of its own, which json_parse() draws at 64 bits. */
json_t *json_parse_reals(struct slice text, unsigned max_depth, struct json_failure *failure);

/* Scope clean-up: `CLEANUP(json_decref_ptr) json_t *value = …`. */
void json_decref_ptr(json_t **value);

/* json_parse() and json_parse_reals() of a text that we have written ourselves: strings may hold \u0000, as what commands print does. */
json_t *json_parse_own(struct slice text, unsigned max_depth, struct json_failure *failure);
json_t *json_parse_own_reals(struct slice text, unsigned max_depth, struct json_failure *failure);

/* A member that is a string, as a borrowed slice valid while the object lives; empty and false when missing or of another type. */
bool json_get_string(const json_t *object, const char *key, struct slice *out);

/* A member that is an integer >= 0. */
bool json_get_u64(const json_t *object, const char *key, uint64_t *out);
