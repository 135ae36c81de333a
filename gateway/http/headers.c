#include "gateway/http/headers.h"

#define IDENTITY (HTTP_IDENTITY | HTTP_PROTECTED)

/* Sorted by length. */
static const struct http_known known[] = {
	{SLICE("te"), HTTP_OTHER, HTTP_HOP},
	{SLICE("via"), HTTP_VIA, HTTP_PROTECTED},
	{SLICE("date"), HTTP_DATE, 0},
	{SLICE("host"), HTTP_HOST, HTTP_PROTECTED | HTTP_SINGLE},
	{SLICE("proxy"), HTTP_OTHER, HTTP_DROP_REQUEST},
	{SLICE("cookie"), HTTP_COOKIE, HTTP_PROTECTED},
	{SLICE("expect"), HTTP_EXPECT, HTTP_DROP_REQUEST},
	{SLICE("alt-svc"), HTTP_OTHER, HTTP_DROP_RESPONSE},
	{SLICE("trailer"), HTTP_OTHER, HTTP_HOP},
	{SLICE("upgrade"), HTTP_OTHER, HTTP_HOP},
	{SLICE("forwarded"), HTTP_FORWARDED, IDENTITY},
	{SLICE("x-real-ip"), HTTP_OTHER, IDENTITY},
	{SLICE("connection"), HTTP_CONNECTION, HTTP_HOP},
	{SLICE("keep-alive"), HTTP_OTHER, HTTP_HOP},
	{SLICE("content-type"), HTTP_CONTENT_TYPE, 0},
	{SLICE("max-forwards"), HTTP_MAX_FORWARDS, HTTP_SINGLE},
	{SLICE("x-request-id"), HTTP_OTHER, HTTP_DROP_REQUEST | HTTP_DROP_RESPONSE},
	{SLICE("authorization"), HTTP_AUTHORIZATION, HTTP_PROTECTED},
	{SLICE("cache-control"), HTTP_OTHER, HTTP_PROTECTED},
	{SLICE("fly-client-ip"), HTTP_FLY_CLIENT_IP, IDENTITY},
	{SLICE("content-length"), HTTP_CONTENT_LENGTH, HTTP_HOP | HTTP_PROTECTED | HTTP_SINGLE},
	{SLICE("http2-settings"), HTTP_OTHER, HTTP_HOP},
	{SLICE("x-forwarded-for"), HTTP_X_FORWARDED_FOR, IDENTITY},
	{SLICE("proxy-connection"), HTTP_OTHER, HTTP_HOP},
	{SLICE("transfer-encoding"), HTTP_TRANSFER_ENCODING, HTTP_HOP | HTTP_SINGLE},
	{SLICE("x-forwarded-proto"), HTTP_X_FORWARDED_PROTO, IDENTITY},
	{SLICE("proxy-authenticate"), HTTP_OTHER, HTTP_HOP},
	{SLICE("proxy-authorization"), HTTP_OTHER, HTTP_HOP},
	{SLICE("x-datasette-authorization"), HTTP_OTHER, HTTP_DROP_REQUEST},
};

/* In this order: the first prefix that fits decides. */
static const struct http_known prefixes[] = {
	{SLICE("x-forwarded-"), HTTP_OTHER, IDENTITY},
	{SLICE("fly-replay"), HTTP_OTHER, HTTP_DROP_REQUEST | HTTP_DROP_RESPONSE | HTTP_PROTECTED},
	{SLICE("fly-prefer"), HTTP_OTHER, HTTP_DROP_REQUEST | HTTP_PROTECTED},
	{SLICE("fly-force-"), HTTP_OTHER, HTTP_DROP_REQUEST | HTTP_PROTECTED},
	{SLICE("fly-"), HTTP_OTHER, IDENTITY},
};

static const struct http_known unknown = {SLICE(""), HTTP_OTHER, 0};

int http_fields_add(struct http_fields *fields, struct slice name, struct slice value)
{
	if (fields->count == HTTP_FIELDS_MAX)
		return HTTP_FIELDS_E_FULL;
	fields->at[fields->count++] = (struct http_field){name, value};
	return 0;
}

const struct http_field *http_fields_find(const struct http_fields *fields, struct slice name)
{
	for (size_t i = 0; i < fields->count; i++)
		if (slice_equal_nocase(fields->at[i].name, name))
			return &fields->at[i];
	return NULL;
}

struct slice http_fields_value(const struct http_fields *fields, struct slice name)
{
	const struct http_field *field = http_fields_find(fields, name);
	return field ? field->value : (struct slice){0};
}

size_t http_fields_count(const struct http_fields *fields, struct slice name)
{
	size_t count = 0;
	for (size_t i = 0; i < fields->count; i++)
		count += slice_equal_nocase(fields->at[i].name, name);
	return count;
}

/* One bit a byte value: RFC 9110 section 5.6.2, "!#$%&'*+-.^_`|~", digits, letters. */
static const uint32_t token_bits[8] = {0x00000000, 0x03ff6cfa, 0xc7fffffe, 0x57ffffff, 0, 0, 0, 0};

bool http_is_token(struct slice text)
{
	for (size_t i = 0; i < text.len; i++) {
		unsigned char c = (unsigned char)text.data[i];
		if (!(token_bits[c >> 5] >> (c & 31) & 1))
			return false;
	}
	return text.len > 0;
}

bool http_is_value(struct slice text)
{
	for (size_t i = 0; i < text.len; i++) {
		unsigned char c = (unsigned char)text.data[i];
		if ((c < 0x20 && c != '\t') || c == 0x7f)
			return false;
	}
	return true;
}

bool http_list_has(struct slice list, struct slice member)
{
	struct slice part;
	while (slice_next(&list, ',', &part))
		if (slice_equal_nocase(slice_trim(part), member))
			return true;
	return false;
}

/* Both in ASCII; `lower` is lower case already. */
static bool equals_lower(const char *text, const char *lower, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		char c = text[i];
		if ((c >= 'A' && c <= 'Z' ? (char)(c + 32) : c) != lower[i])
			return false;
	}
	return true;
}

const struct http_known *http_known_find(struct slice name)
{
	char first = name.len ? (char)(name.data[0] | 0x20) : '\0';
	for (size_t i = 0; i < ARRAY_LEN(known) && known[i].name.len <= name.len; i++)
		if (known[i].name.len == name.len && known[i].name.data[0] == first &&
		    equals_lower(name.data, known[i].name.data, name.len))
			return &known[i];
	if (first != 'x' && first != 'f')
		return &unknown;
	for (size_t i = 0; i < ARRAY_LEN(prefixes); i++)
		if (slice_has_prefix_nocase(name, prefixes[i].name))
			return &prefixes[i];
	return &unknown;
}
