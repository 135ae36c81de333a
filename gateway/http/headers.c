#include "gateway/http/headers.h"

#define IDENTITY (HTTP_IDENTITY | HTTP_PROTECTED)

/* By the length of the name; a row ends with an empty name. */
#define ROW 4
static const struct http_known known[][ROW] = {
	[2] = {{SLICE("te"), HTTP_OTHER, HTTP_HOP}},
	[3] = {{SLICE("via"), HTTP_VIA, HTTP_PROTECTED}},
	[4] = {{SLICE("date"), HTTP_DATE, 0}, {SLICE("host"), HTTP_HOST, HTTP_PROTECTED | HTTP_SINGLE}},
	[5] = {{SLICE("proxy"), HTTP_OTHER, HTTP_DROP_REQUEST}},
	[6] = {{SLICE("cookie"), HTTP_COOKIE, HTTP_PROTECTED}, {SLICE("expect"), HTTP_EXPECT, HTTP_DROP_REQUEST}},
	[7] = {{SLICE("alt-svc"), HTTP_OTHER, HTTP_DROP_RESPONSE},
	       {SLICE("trailer"), HTTP_OTHER, HTTP_HOP},
	       {SLICE("upgrade"), HTTP_OTHER, HTTP_HOP}},
	[9] = {{SLICE("forwarded"), HTTP_FORWARDED, IDENTITY}, {SLICE("x-real-ip"), HTTP_OTHER, IDENTITY}},
	[10] = {{SLICE("connection"), HTTP_CONNECTION, HTTP_HOP}, {SLICE("keep-alive"), HTTP_OTHER, HTTP_HOP}},
	[12] = {{SLICE("content-type"), HTTP_CONTENT_TYPE, 0},
		{SLICE("max-forwards"), HTTP_MAX_FORWARDS, HTTP_SINGLE},
		{SLICE("x-request-id"), HTTP_OTHER, HTTP_DROP_REQUEST | HTTP_DROP_RESPONSE}},
	[13] = {{SLICE("authorization"), HTTP_AUTHORIZATION, HTTP_PROTECTED},
		{SLICE("cache-control"), HTTP_OTHER, HTTP_PROTECTED},
		{SLICE("fly-client-ip"), HTTP_FLY_CLIENT_IP, IDENTITY}},
	[14] = {{SLICE("content-length"), HTTP_CONTENT_LENGTH, HTTP_HOP | HTTP_PROTECTED | HTTP_SINGLE},
		{SLICE("http2-settings"), HTTP_OTHER, HTTP_HOP}},
	[15] = {{SLICE("x-forwarded-for"), HTTP_X_FORWARDED_FOR, IDENTITY}},
	[16] = {{SLICE("proxy-connection"), HTTP_OTHER, HTTP_HOP}},
	[17] = {{SLICE("transfer-encoding"), HTTP_TRANSFER_ENCODING, HTTP_HOP | HTTP_SINGLE},
		{SLICE("x-forwarded-proto"), HTTP_X_FORWARDED_PROTO, IDENTITY}},
	[18] = {{SLICE("proxy-authenticate"), HTTP_OTHER, HTTP_HOP}},
	[19] = {{SLICE("proxy-authorization"), HTTP_OTHER, HTTP_HOP}},
	[25] = {{SLICE("x-datasette-authorization"), HTTP_OTHER, HTTP_DROP_REQUEST}},
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

/* tchar, RFC 9110 section 5.6.2. */
static const bool is_token_byte[256] = {
	['!'] = true,         ['#' ... '\''] = true, ['*'] = true,         ['+'] = true, ['-'] = true, ['.'] = true,
	['0' ... '9'] = true, ['A' ... 'Z'] = true,  ['^' ... 'z'] = true, ['|'] = true, ['~'] = true,
};

bool http_is_token(struct slice text)
{
	for (size_t i = 0; i < text.len; i++)
		if (!is_token_byte[(unsigned char)text.data[i]])
			return false;
	return text.len > 0;
}

static bool is_value_byte(unsigned char c)
{
	return (c >= 0x20 && c != 0x7f) || c == '\t';
}

#define EACH_BYTE(value) (UINT64_MAX / 0xff * (value))

/* False if one of eight bytes is below 0x20 (HTAB is) or 0x7f; and now and then, because of a carry, if none is. */
static bool are_plain(const char *bytes)
{
	uint64_t word;
	memcpy(&word, bytes, sizeof word);
	return !(((word - EACH_BYTE(0x20)) | (word + EACH_BYTE(0x01))) & ~word & EACH_BYTE(0x80));
}

bool http_is_value(struct slice text)
{
	const size_t word = sizeof(uint64_t);
	size_t i = 0;
	while (text.len - i >= word && are_plain(text.data + i))
		i += word;
	/* The last eight, of which some have been seen. */
	if (text.len >= word && text.len - i < word && are_plain(text.data + text.len - word))
		return true;
	for (; i < text.len; i++)
		if (!is_value_byte((unsigned char)text.data[i]))
			return false;
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
	if (name.len < ARRAY_LEN(known))
		for (const struct http_known *entry = known[name.len]; entry->name.len; entry++)
			if (entry->name.data[0] == first && equals_lower(name.data, entry->name.data, name.len))
				return entry;
	if (first != 'x' && first != 'f')
		return &unknown;
	for (size_t i = 0; i < ARRAY_LEN(prefixes); i++)
		if (slice_has_prefix_nocase(name, prefixes[i].name))
			return &prefixes[i];
	return &unknown;
}
