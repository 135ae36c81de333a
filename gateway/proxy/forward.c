#include "gateway/proxy/forward.h"

#include "gateway/base/redact.h"
#include "gateway/http/trace_of.h"

#include <errno.h>

/* --- requests ------------------------------------------------------------------------------------------------------------ */

/* What every field of the request is to us, looked up once. */
struct scan {
	const struct http_known *known[HTTP_FIELDS_MAX];
	bool has_connection, has_via; /* a Connection field that names others */
};

/* Nearly every Connection field says only this, and then names no field. */
static bool names_fields(struct slice connection)
{
	return !slice_equal_nocase(connection, SLICE("keep-alive")) && !slice_equal_nocase(connection, SLICE("close"));
}

static void scan_fields(const struct http_fields *fields, struct scan *scan)
{
	scan->has_connection = scan->has_via = false;
	for (size_t i = 0; i < fields->count; i++) {
		scan->known[i] = http_known_find(fields->at[i].name);
		scan->has_connection |= scan->known[i]->id == HTTP_CONNECTION && names_fields(fields->at[i].value);
		scan->has_via |= scan->known[i]->id == HTTP_VIA;
	}
}

/* Does a Connection field name it? */
static bool is_named(const struct http_fields *fields, const struct scan *scan, struct slice name)
{
	if (!scan->has_connection)
		return false;
	for (size_t i = 0; i < fields->count; i++)
		if (scan->known[i]->id == HTTP_CONNECTION && http_list_has(fields->at[i].value, name))
			return true;
	return false;
}

static int write_field(struct buf *out, struct slice name, struct slice value)
{
	/* Checked where they came in; this is the last place before the wire. */
	if (!http_is_token(name) || !http_is_value(value))
		return -EINVAL;
	char *to;
	int r = buf_reserve(out, name.len + value.len + 4, &to);
	if (r < 0)
		return r;
	memcpy(to, name.data, name.len);
	to += name.len;
	*to++ = ':';
	*to++ = ' ';
	if (value.len)
		memcpy(to, value.data, value.len);
	to += value.len;
	*to++ = '\r';
	*to++ = '\n';
	buf_commit(out, name.len + value.len + 4);
	return 0;
}

/* Formatting by printf would cost more than the rest of the head. */
static int append_all(struct buf *out, const struct slice *pieces, size_t count)
{
	size_t total = 0;
	char *to;
	for (size_t i = 0; i < count; i++)
		total += pieces[i].len;
	int r = buf_reserve(out, total, &to);
	if (r < 0)
		return r;
	for (size_t i = 0; i < count; i++) {
		if (pieces[i].len)
			memcpy(to, pieces[i].data, pieces[i].len);
		to += pieces[i].len;
	}
	buf_commit(out, total);
	return 0;
}

/* Every line of one field in one, in order. */
static int write_joined(const struct http_fields *fields, const struct scan *scan, enum http_known_id id, struct slice name,
			struct slice separator, struct slice last, struct buf *out)
{
	bool any = false;
	int r = buf_append(out, name);
	if (r == 0)
		r = buf_append(out, SLICE(": "));
	for (size_t i = 0; r == 0 && i < fields->count; i++) {
		if (scan->known[i]->id != id)
			continue;
		if (any)
			r = buf_append(out, separator);
		if (r == 0)
			r = buf_append(out, fields->at[i].value);
		any = true;
	}
	if (r == 0 && last.len && any)
		r = buf_append(out, separator);
	if (r == 0)
		r = buf_append(out, last);
	return r < 0 ? r : buf_append(out, SLICE("\r\n"));
}

/* received-by of one member of Via: "1.1 spritegate (comment)". */
static struct slice via_name(struct slice member)
{
	member = slice_trim(member);
	const char *space = member.len ? memchr(member.data, ' ', member.len) : NULL;
	if (!space)
		return (struct slice){0};
	struct slice rest = slice_trim(slice_from(member, (size_t)(space - member.data)));
	const char *end = rest.len ? memchr(rest.data, ' ', rest.len) : NULL;
	return end ? slice_of(rest.data, (size_t)(end - rest.data)) : rest;
}

static bool passed_here(const struct http_fields *fields, const struct scan *scan, struct slice pseudonym)
{
	for (size_t i = 0; scan->has_via && i < fields->count; i++) {
		if (scan->known[i]->id != HTTP_VIA)
			continue;
		struct slice rest = fields->at[i].value, member;
		while (slice_next(&rest, ',', &member))
			if (slice_equal_nocase(via_name(member), pseudonym))
				return true;
	}
	return false;
}

static bool is_dropped(const struct http_head *head, const struct scan *scan, size_t i, bool trusted)
{
	const struct http_known *known = scan->known[i];
	const struct http_field *field = &head->fields->at[i];
	if (known->flags & (HTTP_HOP | HTTP_DROP_REQUEST))
		return true;
	/* Fly's own fields say something when they come from Fly. */
	if (known->flags & HTTP_IDENTITY)
		return !trusted || !slice_has_prefix_nocase(field->name, SLICE("fly-"));
	/* Tokens of this gateway are nobody else's business, whatever stands around them. */
	if (known->id == HTTP_AUTHORIZATION && redact_has_token(field->value))
		return true;
	return is_named(head->fields, scan, field->name);
}

static int write_max_forwards(const struct http_head *head, struct slice value, struct buf *out)
{
	uint64_t left;
	if (!slice_equal(head->method, SLICE("OPTIONS")) || slice_to_u64(value, UINT32_MAX, &left) != 0)
		return write_field(out, SLICE("Max-Forwards"), value);
	return left ? buf_printf(out, "Max-Forwards: %llu\r\n", (unsigned long long)left - 1) : FORWARD_E_LAST;
}

static int write_client_fields(const struct http_head *head, const struct scan *scan, bool trusted, struct buf *out)
{
	const struct http_fields *fields = head->fields;
	bool cookies = false, expects = !forward_awaits_continue(head);
	int r = 0;
	for (size_t i = 0; r == 0 && i < fields->count; i++) {
		enum http_known_id id = scan->known[i]->id;
		if (id == HTTP_EXPECT && !expects) {
			r = write_field(out, fields->at[i].name, fields->at[i].value);
			expects = true;
			continue;
		}
		if (id == HTTP_HOST || id == HTTP_VIA || is_dropped(head, scan, i, trusted))
			continue;
		if (id == HTTP_MAX_FORWARDS) {
			r = write_max_forwards(head, fields->at[i].value, out);
		} else if (id != HTTP_COOKIE) {
			r = write_field(out, fields->at[i].name, fields->at[i].value);
		} else if (!cookies) {
			/* Datasette reads only the last of several lines. */
			r = write_joined(fields, scan, HTTP_COOKIE, fields->at[i].name, SLICE("; "), (struct slice){0}, out);
			cookies = true;
		}
	}
	return r;
}

static struct slice port_of(struct slice host, struct slice scheme)
{
	const char *colon = host.len ? memrchr(host.data, ':', host.len) : NULL;
	bool in_brackets = colon && memchr(colon, ']', (size_t)(host.data + host.len - colon));
	if (colon && !in_brackets && colon + 1 < host.data + host.len)
		return slice_from(host, (size_t)(colon - host.data) + 1);
	return slice_equal(scheme, SLICE("https")) ? SLICE("443") : SLICE("80");
}

static int write_forwarded(const struct http_head *head, const struct forward_options *options, struct slice host, bool trusted,
			   struct buf *out)
{
	struct forward_client client =
		trusted ? forward_client_of(head, options) : (struct forward_client){.address = head->peer, .scheme = SLICE("http")};
	bool v6 = client.address.len && memchr(client.address.data, ':', client.address.len);
	struct slice pieces[] = {
		SLICE("X-Forwarded-For: "),
		client.address,
		SLICE("\r\nX-Forwarded-Proto: "),
		client.scheme,
		SLICE("\r\nX-Forwarded-Host: "),
		host,
		SLICE("\r\nX-Forwarded-Port: "),
		port_of(host, client.scheme),
		SLICE("\r\nForwarded: for="),
		v6 ? SLICE("\"[") : SLICE(""),
		client.address,
		v6 ? SLICE("]\"") : SLICE(""),
		SLICE(";proto="),
		client.scheme,
		SLICE(";host=\""),
		host,
		SLICE("\";by=_"),
		options->pseudonym,
		SLICE("\r\nX-Request-Id: "),
		head->id,
		SLICE("\r\n"),
	};
	return append_all(out, pieces, ARRAY_LEN(pieces));
}

static int write_via(const struct http_head *head, const struct scan *scan, const struct forward_options *options, struct buf *out)
{
	struct slice protocol = head->version_minor ? SLICE("1.1 ") : SLICE("1.0 ");
	if (!scan->has_via) {
		struct slice pieces[] = {SLICE("Via: "), protocol, options->pseudonym, SLICE("\r\n")};
		return append_all(out, pieces, ARRAY_LEN(pieces));
	}
	CLEANUP(buf_deinit) struct buf ours = BUF_MAX(256);
	int r = buf_append(&ours, protocol);
	if (r == 0)
		r = buf_append(&ours, options->pseudonym);
	return r < 0 ? r : write_joined(head->fields, scan, HTTP_VIA, SLICE("Via"), SLICE(", "), buf_peek(&ours), out);
}

int forward_request(const struct http_head *head, const struct forward_options *options, struct buf *out)
{
	struct scan scan;
	scan_fields(head->fields, &scan);
	if (passed_here(head->fields, &scan, options->pseudonym))
		return FORWARD_E_LOOP;
	bool trusted = peer_set_has(&options->trusted, head->peer);
	struct slice host = head->host.len ? head->host : options->default_host;
	struct slice line[] = {head->method, SLICE(" "), head->target, SLICE(" HTTP/1.1\r\n")};
	int r = append_all(out, line, ARRAY_LEN(line));
	if (r == 0)
		r = write_field(out, SLICE("Host"), host);
	if (r == 0)
		r = write_client_fields(head, &scan, trusted, out);
	if (r == 0)
		r = write_via(head, &scan, options, out);
	return r == 0 ? write_forwarded(head, options, host, trusted, out) : r;
}

static bool names_caller(const struct http_known *known, struct slice name)
{
	switch (known->id) {
	case HTTP_COOKIE:
	case HTTP_VIA:
	case HTTP_FLY_CLIENT_IP:
	case HTTP_X_FORWARDED_FOR:
	case HTTP_X_FORWARDED_PROTO:
		return true;
	default:
		return slice_equal_nocase(name, SLICE("User-Agent"));
	}
}

static bool passes_on_behalf(const struct http_field *field, bool in_trace)
{
	if (slice_equal_nocase(field->name, SLICE("tracestate")))
		return in_trace;
	return names_caller(http_known_find(field->name), field->name);
}

int forward_on_behalf(const struct http_head *head, const struct forward_options *options, struct slice method, struct slice target,
		      struct slice credentials, struct slice traceparent, struct buf *out)
{
	struct trace trace;
	bool in_trace = traceparent.len && http_trace_of(head, &trace);
	struct http_fields fields;
	struct http_head own = *head;
	int r = 0;
	http_fields_clear(&fields);
	for (size_t i = 0; r == 0 && i < head->fields->count; i++) {
		const struct http_field *field = &head->fields->at[i];
		if (passes_on_behalf(field, in_trace))
			r = http_fields_add(&fields, field->name, field->value);
		else if (slice_equal_nocase(field->name, credentials))
			r = http_fields_add(&fields, SLICE("Authorization"), field->value);
	}
	if (r == 0 && traceparent.len)
		r = http_fields_add(&fields, SLICE("traceparent"), traceparent);
	if (r != 0)
		return -E2BIG;
	own.method = method;
	own.target = own.path = target;
	own.fields = &fields;
	own.body = HTTP_BODY_NONE;
	own.expect_continue = false;
	return forward_request(&own, options, out);
}

static bool is_read_only(struct slice method)
{
	return slice_equal(method, SLICE("GET")) || slice_equal(method, SLICE("HEAD")) || slice_equal(method, SLICE("OPTIONS"));
}

bool forward_passes_body(const struct http_head *head)
{
	return !is_read_only(head->method);
}

bool forward_awaits_continue(const struct http_head *head)
{
	bool has_body = head->body == HTTP_BODY_CHUNKED || (head->body == HTTP_BODY_LENGTH && head->content_length > 0);
	return head->expect_continue && has_body && forward_passes_body(head);
}

bool forward_may_retry(const struct http_head *head)
{
	static const struct slice login = SLICE("/-/auth-token");
	/* The page of Datasette's one-time login link uses the link up whatever the method, and base_url may stand before its path. */
	if (head->path.len && memmem(head->path.data, head->path.len, login.data, login.len))
		return false;
	return is_read_only(head->method);
}

/* --- who the client is ------------------------------------------------------------------------------------------------------ */

static struct slice last_member(struct slice list)
{
	struct slice member = {0};
	while (slice_next(&list, ',', &member))
		continue;
	return slice_trim(member);
}

static struct slice last_value(const struct http_fields *fields, struct slice name)
{
	struct slice value = {0};
	for (size_t i = 0; i < fields->count; i++)
		if (slice_equal_nocase(fields->at[i].name, name))
			value = fields->at[i].value;
	return value;
}

/* The rightmost address of a line that is not a trusted peer itself, empty where something else comes first; false = all are trusted. */
static bool forwarded_in(struct slice list, const struct peer_set *trusted, struct slice *found)
{
	while (list.len) {
		*found = last_member(list);
		if (!peer_is_address(*found))
			*found = (struct slice){0};
		if (!found->len || !peer_set_has(trusted, *found))
			return true;
		const char *comma = memrchr(list.data, ',', list.len);
		list.len = comma ? (size_t)(comma - list.data) : 0;
	}
	return false;
}

/* Several lines are one list (RFC 9110 section 5.3): some proxies add a line of their own. */
static struct slice forwarded_for(const struct http_fields *fields, const struct peer_set *trusted)
{
	struct slice found;
	for (size_t i = fields->count; i > 0; i--) {
		const struct http_field *field = &fields->at[i - 1];
		if (slice_equal_nocase(field->name, SLICE("X-Forwarded-For")) && forwarded_in(field->value, trusted, &found))
			return found;
	}
	return (struct slice){0};
}

struct forward_client forward_client_of(const struct http_head *head, const struct forward_options *options)
{
	struct forward_client client = {.address = head->peer, .scheme = SLICE("http")};
	if (!peer_set_has(&options->trusted, head->peer))
		return client;
	struct slice proto = last_member(last_value(head->fields, SLICE("X-Forwarded-Proto")));
	if (slice_equal_nocase(proto, SLICE("https")))
		client.scheme = SLICE("https");
	/* Fly appends its own address to X-Forwarded-For, so its own field comes first. */
	struct slice address = slice_trim(last_value(head->fields, SLICE("Fly-Client-IP")));
	if (!peer_is_address(address))
		address = forwarded_for(head->fields, &options->trusted);
	if (address.len)
		client.address = address;
	return client;
}

/* --- responses ------------------------------------------------------------------------------------------------------------------ */

static bool response_names(const struct response_head *head, struct slice name)
{
	for (size_t i = 0; i < head->count; i++)
		if (slice_equal_nocase(head->fields[i].name, SLICE("connection")) && http_list_has(head->fields[i].value, name))
			return true;
	return false;
}

int forward_response(const struct response_head *head, struct http_fields *fields)
{
	bool has_connection = false;
	size_t kept = 0;
	http_fields_clear(fields);
	for (size_t i = 0; i < head->count; i++) {
		const struct http_known *known = http_known_find(head->fields[i].name);
		has_connection |= known->id == HTTP_CONNECTION && names_fields(head->fields[i].value);
		if (known->flags & (HTTP_HOP | HTTP_DROP_RESPONSE))
			continue;
		if (http_fields_add(fields, head->fields[i].name, head->fields[i].value) != 0)
			return -E2BIG;
	}
	for (size_t i = 0; has_connection && i < fields->count; i++)
		if (!response_names(head, fields->at[i].name))
			fields->at[kept++] = fields->at[i];
	if (has_connection)
		fields->count = kept;
	return 0;
}

bool forward_is_event_stream(const struct response_head *head)
{
	for (size_t i = 0; i < head->count; i++)
		if (slice_equal_nocase(head->fields[i].name, SLICE("content-type")))
			return slice_has_prefix_nocase(head->fields[i].value, SLICE("text/event-stream"));
	return false;
}
