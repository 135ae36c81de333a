#include "gateway/cache/rules.h"

#include "gateway/cache/cache_control.h"

#include <errno.h>

static bool is_get(const struct http_head *head)
{
	return slice_equal(head->method, SLICE("GET"));
}

/* Does it say nothing of who asks? An answer that depends on such a field says so in Vary, and is not kept. */
static bool is_harmless(struct slice name)
{
	static const struct slice names[] = {
		SLICE("accept"),
		SLICE("accept-charset"),
		SLICE("accept-language"),
		SLICE("accept-encoding"),
		SLICE("host"),
		SLICE("via"),
		SLICE("user-agent"),
		SLICE("referer"),
		SLICE("date"),
		SLICE("dnt"),
		SLICE("priority"),
		SLICE("save-data"),
		SLICE("sec-gpc"),
		SLICE("sec-purpose"),
		SLICE("traceparent"),
		SLICE("tracestate"),
		SLICE("upgrade-insecure-requests"),
	};
	if (slice_has_prefix_nocase(name, SLICE("sec-ch-")) || slice_has_prefix_nocase(name, SLICE("sec-fetch-")))
		return true;
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		if (slice_equal_nocase(name, names[i]))
			return true;
	/* The others do not reach it, but for what Fly says of the connection. */
	return http_known_find(name)->flags & (HTTP_HOP | HTTP_IDENTITY | HTTP_DROP_REQUEST);
}

enum cache_use cache_use_of(const struct http_head *head)
{
	static const struct slice conditions[] = {
		SLICE("range"),
		SLICE("if-range"),
		SLICE("if-match"),
		SLICE("if-none-match"),
		SLICE("if-modified-since"),
		SLICE("if-unmodified-since"),
		SLICE("cache-control"),
		SLICE("pragma"),
		SLICE("expect"),
	};
	if (head->body != HTTP_BODY_NONE || (!is_get(head) && !slice_equal(head->method, SLICE("HEAD"))))
		return CACHE_BYPASS_METHOD;
	enum cache_use use = CACHE_USE;
	bool unknown = false;
	for (size_t i = 0; i < head->fields->count; i++) {
		struct slice name = head->fields->at[i].name;
		/* What says who asks goes before everything else. */
		if (slice_equal_nocase(name, SLICE("cookie")))
			return CACHE_BYPASS_COOKIE;
		if (slice_equal_nocase(name, SLICE("authorization")) || slice_equal_nocase(name, SLICE("x-datasette-authorization")))
			return CACHE_BYPASS_AUTHORIZATION;
		bool condition = false;
		for (size_t j = 0; j < ARRAY_LEN(conditions); j++)
			condition |= slice_equal_nocase(name, conditions[j]);
		if (condition)
			use = CACHE_BYPASS_REQUEST;
		else if (!is_harmless(name))
			unknown = true;
	}
	return unknown ? CACHE_BYPASS_FIELD : use;
}

const char *cache_use_status(enum cache_use use, bool stored)
{
	static const char *const texts[CACHE_USES] = {
		[CACHE_USE] = "spritegate; fwd=uri-miss",
		[CACHE_BYPASS_METHOD] = "spritegate; fwd=method",
		[CACHE_BYPASS_COOKIE] = "spritegate; fwd=bypass; detail=cookie",
		[CACHE_BYPASS_AUTHORIZATION] = "spritegate; fwd=bypass; detail=authorization",
		[CACHE_BYPASS_FIELD] = "spritegate; fwd=bypass; detail=field",
		[CACHE_BYPASS_REQUEST] = "spritegate; fwd=request",
	};
	return stored ? "spritegate; fwd=uri-miss; stored" : texts[use];
}

int cache_key(const struct http_head *head, struct slice scheme, struct buf *key)
{
	/* None of them holds a NUL. */
	struct slice parts[] = {scheme, head->host, http_fields_value(head->fields, SLICE("accept-encoding")), head->target};
	if (http_fields_count(head->fields, SLICE("accept-encoding")) > 1)
		return -EINVAL;
	int r = 0;
	for (size_t i = 0; r == 0 && i < ARRAY_LEN(parts); i++) {
		r = buf_append(key, parts[i]);
		if (r == 0)
			r = buf_append_char(key, '\0');
	}
	return r;
}

/* Those that a request of ours does not have, and the one that is part of the key. */
static bool varies_within_key(const struct http_fields *fields)
{
	static const struct slice known[] = {SLICE("cookie"), SLICE("authorization"), SLICE("accept-encoding")};
	for (size_t i = 0; i < fields->count; i++) {
		struct slice rest = fields->at[i].value, member;
		if (!slice_equal_nocase(fields->at[i].name, SLICE("vary")))
			continue;
		while (slice_next(&rest, ',', &member)) {
			bool found = !slice_trim(member).len;
			for (size_t j = 0; j < ARRAY_LEN(known); j++)
				found |= slice_equal_nocase(slice_trim(member), known[j]);
			if (!found)
				return false;
		}
	}
	return true;
}

static bool is_kept_status(unsigned status)
{
	return status == 200 || status == 301 || status == 404 || status == 410;
}

static uint64_t smaller(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t stale_of(const struct cache_control *control, uint64_t seconds)
{
	if (control->revalidates)
		return 0;
	return control->stale != CACHE_CONTROL_NONE && control->stale > seconds ? control->stale : seconds;
}

bool cache_may_keep(const struct http_head *head, unsigned status, const struct http_fields *fields, uint64_t stale_seconds,
		    struct cache_lifetime *lifetime)
{
	struct cache_control control;
	if (!is_get(head) || !is_kept_status(status) || http_fields_find(fields, SLICE("set-cookie")) ||
	    http_fields_find(fields, SLICE("content-range")) || !varies_within_key(fields))
		return false;
	cache_control_parse(fields, &control);
	uint64_t seconds = control.s_maxage != CACHE_CONTROL_NONE ? control.s_maxage : control.max_age, age = 0;
	if (control.broken || control.forbids || seconds == CACHE_CONTROL_NONE)
		return false;
	const struct http_field *aged = http_fields_find(fields, SLICE("age"));
	if (aged && slice_to_u64(slice_trim(aged->value), UINT32_MAX, &age) != 0)
		return false;
	uint64_t most = head->query.data ? CACHE_QUERY_MAX_SECONDS : CACHE_MAX_SECONDS;
	seconds = seconds > age ? seconds - age : 0;
	*lifetime = (struct cache_lifetime){.fresh_ms = smaller(seconds, most) * 1000,
					    .age_ms = age * 1000,
					    .stale_ms = smaller(stale_of(&control, stale_seconds), most) * 1000};
	return seconds > 0;
}

bool cache_drops_field(struct slice name)
{
	return slice_equal_nocase(name, SLICE("age")) || slice_equal_nocase(name, SLICE("traceparent")) ||
	       slice_equal_nocase(name, SLICE("tracestate")) || slice_has_prefix_nocase(name, SLICE("ratelimit")) ||
	       slice_has_prefix_nocase(name, SLICE("fly-"));
}

static bool is_plain(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_' || c == '-';
}

struct cache_scope cache_scope_of(struct slice path)
{
	struct slice rest = slice_from(path, 1);
	size_t n = 0;
	while (n < rest.len && is_plain(rest.data[n]))
		n++;
	/* "/-/…" may change anything, and so may what can be written in more than one way ("~44B" is "DB"). */
	bool ends = n == rest.len || rest.data[n] == '/' || rest.data[n] == '.';
	if (!n || !ends || (n == 1 && rest.data[0] == '-'))
		return (struct cache_scope){.database = {0}};
	return (struct cache_scope){.database = slice_of(rest.data, n)};
}
