/*
 * headers - field names and values, lists of them, and what each known field means to a gateway
 *
 * Pure: borrows every slice, allocates nothing.
 * Results: HTTP_FIELDS_E_FULL; lookups give NULL when there is nothing.
 * Bounds:  HTTP_FIELDS_MAX fields in a list; a request is refused above HTTP_REQUEST_FIELDS_MAX, so there is room for ours.
 */
#pragma once

#include "gateway/base/slice.h"

#define HTTP_FIELDS_MAX         128
#define HTTP_REQUEST_FIELDS_MAX 100

#define HTTP_FIELDS_E_FULL 1

struct http_field {
	struct slice name, value;
};

/* In wire order; duplicates are kept. */
struct http_fields {
	size_t count;
	struct http_field at[HTTP_FIELDS_MAX];
};

static inline void http_fields_clear(struct http_fields *fields)
{
	fields->count = 0;
}

/* Borrows: name and value must stay valid as long as the list is used. */
MUST_CHECK int http_fields_add(struct http_fields *fields, struct slice name, struct slice value);

/* The first field of that name (ASCII case-insensitive), or NULL. */
const struct http_field *http_fields_find(const struct http_fields *fields, struct slice name);

/* Value of the first field of that name; the empty slice (data NULL) when there is none. */
struct slice http_fields_value(const struct http_fields *fields, struct slice name);

size_t http_fields_count(const struct http_fields *fields, struct slice name);

/* token, RFC 9110 section 5.6.2; never empty. */
bool http_is_token(struct slice text);

/* field-value as we pass it on: no control byte but HTAB (RFC 9110 section 5.5); may be empty, bytes above 0x7f are allowed. */
bool http_is_value(struct slice text);

/* Is `member` one of the elements of a comma-separated list, e.g. Connection (ASCII case-insensitive)? */
bool http_list_has(struct slice list, struct slice member);

enum http_known_flags {
	HTTP_HOP = 1 << 0,               /* for one connection only: never passed on (RFC 9110 section 7.6.1) */
	HTTP_PROTECTED = 1 << 1,         /* a client may not name it in Connection */
	HTTP_SINGLE = 1 << 2,            /* more than one line is refused */
	HTTP_IDENTITY = 1 << 3,          /* says who the client is: replaced by our own */
	HTTP_DROP_REQUEST = 1 << 4,      /* never sent to Datasette */
	HTTP_DROP_RESPONSE = 1 << 5,     /* never sent to the client */
};

enum http_known_id {
	HTTP_OTHER,
	HTTP_AUTHORIZATION,
	HTTP_CONNECTION,
	HTTP_CONTENT_LENGTH,
	HTTP_CONTENT_TYPE,
	HTTP_COOKIE,
	HTTP_DATE,
	HTTP_EXPECT,
	HTTP_FLY_CLIENT_IP,
	HTTP_FORWARDED,
	HTTP_HOST,
	HTTP_MAX_FORWARDS,
	HTTP_TRANSFER_ENCODING,
	HTTP_VIA,
	HTTP_X_FORWARDED_FOR,
	HTTP_X_FORWARDED_PROTO,
};

struct http_known {
	struct slice name;
	enum http_known_id id;
	unsigned flags;
};

/* Never NULL: an entry with id HTTP_OTHER and the flags of its prefix (fly-, x-forwarded-) for a name that is not in the table. */
const struct http_known *http_known_find(struct slice name);
