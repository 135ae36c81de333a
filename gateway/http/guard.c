#include "gateway/http/guard.h"

#include "gateway/http/host.h"
#include "gateway/http/router.h"

#define METHOD_MAX 32

static bool refuse(struct http_guard_verdict *verdict, enum http_guard_reason reason, unsigned status, const char *code, const char *detail)
{
	verdict->reason = reason;
	verdict->status = status;
	verdict->code = code;
	verdict->detail = detail;
	verdict->close = true;
	return false;
}

static bool malformed(struct http_guard_verdict *verdict, enum http_guard_reason reason, const char *detail)
{
	return refuse(verdict, reason, 400, "malformed-request", detail);
}

static bool check_version(struct slice version, struct http_guard_verdict *verdict)
{
	if (slice_equal(version, SLICE("HTTP/1.1"))) {
		verdict->version_minor = 1;
		return true;
	}
	if (slice_equal(version, SLICE("HTTP/1.0")))
		return true;
	return refuse(verdict, HTTP_GUARD_VERSION, 505, "version-not-supported", "Only HTTP/1.1 and HTTP/1.0 are spoken here.");
}

static bool check_size(const struct http_guard_input *input, const struct http_guard_limits *limits, struct http_guard_verdict *verdict)
{
	size_t line = input->method.len + input->target.len + input->version.len + 4, total = line;
	for (size_t i = 0; i < input->fields->count; i++)
		total += input->fields->at[i].name.len + input->fields->at[i].value.len + 4;
	if (input->fields_seen > HTTP_REQUEST_FIELDS_MAX)
		return refuse(verdict, HTTP_GUARD_HEADER_LIMIT, 431, "header-too-large", "The request has too many header fields.");
	if (total <= limits->max_head)
		return true;
	if (line > limits->max_head / 2)
		return refuse(verdict, HTTP_GUARD_TARGET_LIMIT, 414, "target-too-large",
			      "The request target is longer than MAX_HEAD_BYTES allows.");
	return refuse(verdict, HTTP_GUARD_HEADER_LIMIT, 431, "header-too-large", "The request head is larger than MAX_HEAD_BYTES allows.");
}

/* Our own paths have methods of their own, and say themselves which. */
static bool is_our_path(struct slice raw_target)
{
	struct http_target target;
	if (http_target_parse(raw_target, &target) != 0)
		return false;
	enum http_route route = http_route_of(target.path);
	return route != HTTP_ROUTE_PROXY && route != HTTP_ROUTE_AMBIGUOUS;
}

static bool check_method(struct slice method, struct slice target, struct http_guard_verdict *verdict)
{
	if (!http_is_token(method))
		return malformed(verdict, HTTP_GUARD_METHOD, "The method is not a token.");
	if ((slice_equal(method, SLICE("CONNECT")) || slice_equal(method, SLICE("TRACE"))) && !is_our_path(target)) {
		verdict->allow = HTTP_GUARD_METHODS;
		return refuse(verdict, HTTP_GUARD_METHOD, 405, "method-not-allowed", "This gateway has no CONNECT and no TRACE.");
	}
	/* Datasette looks methods up as attributes of its views: names that are no method of HTTP must not get there. */
	if (method.len > METHOD_MAX || memchr(method.data, '_', method.len))
		return refuse(verdict, HTTP_GUARD_METHOD, 501, "not-implemented", "The method is not known.");
	return true;
}

/* CGI-like stacks read Content_Length as Content-Length. */
static bool is_underscore_twin(struct slice name)
{
	char dashed[64];
	if (!memchr(name.data, '_', name.len) || name.len > sizeof dashed)
		return false;
	for (size_t i = 0; i < name.len; i++)
		dashed[i] = name.data[i] == '_' ? '-' : name.data[i];
	const struct http_known *known = http_known_find(slice_of(dashed, name.len));
	return known->name.len > 0;
}

static bool check_connection(struct slice value, struct http_guard_verdict *verdict)
{
	struct slice part;
	while (slice_next(&value, ',', &part)) {
		part = slice_trim(part);
		if (!part.len)
			continue;
		if (!http_is_token(part))
			return malformed(verdict, HTTP_GUARD_FIELD, "Connection holds something that is not a field name.");
		if (http_known_find(part)->flags & HTTP_PROTECTED)
			return malformed(verdict, HTTP_GUARD_FIELD, "Connection names a field that may not be removed.");
	}
	return true;
}

static bool check_length(struct slice value, struct http_guard_verdict *verdict)
{
	if (slice_to_u64(value, INT64_MAX, &verdict->content_length) != 0)
		return malformed(verdict, HTTP_GUARD_FRAMING, "Content-Length is not a number.");
	if (verdict->body == HTTP_BODY_NONE)
		verdict->body = HTTP_BODY_LENGTH;
	return true;
}

static bool check_coding(struct slice value, struct http_guard_verdict *verdict)
{
	if (verdict->version_minor == 0)
		return malformed(verdict, HTTP_GUARD_FRAMING, "HTTP/1.0 has no Transfer-Encoding.");
	if (!slice_equal_nocase(value, SLICE("chunked")))
		return refuse(verdict, HTTP_GUARD_FRAMING, 501, "not-implemented", "The only transfer coding here is chunked.");
	verdict->body = HTTP_BODY_CHUNKED;
	return true;
}

static bool check_expect(struct slice value, struct http_guard_verdict *verdict)
{
	if (verdict->version_minor == 0)
		return true;
	if (!slice_equal_nocase(value, SLICE("100-continue")))
		return refuse(verdict, HTTP_GUARD_EXPECT, 417, "expectation-failed", "The only expectation met here is 100-continue.");
	verdict->expect_continue = true;
	return true;
}

static bool check_known(const struct http_field *field, const struct http_known *known, struct http_guard_verdict *verdict)
{
	switch (known->id) {
	case HTTP_HOST:
		verdict->host = field->value;
		if (!http_host_is_valid(field->value))
			return malformed(verdict, HTTP_GUARD_HOST, "Host is not a host name or address with an optional port.");
		return true;
	case HTTP_CONTENT_LENGTH:
		return check_length(field->value, verdict);
	case HTTP_TRANSFER_ENCODING:
		return check_coding(field->value, verdict);
	case HTTP_EXPECT:
		return check_expect(field->value, verdict);
	case HTTP_CONNECTION:
		return check_connection(field->value, verdict);
	default:
		return true;
	}
}

static bool check_fields(const struct http_guard_input *input, struct http_guard_verdict *verdict)
{
	struct http_fields *fields = input->fields;
	unsigned seen_once = 0; /* one bit per http_known_id */
	bool length = false, coding = false;
	size_t kept = 0;
	for (size_t i = 0; i < fields->count; i++) {
		const struct http_field *field = &fields->at[i];
		if (!http_is_token(field->name))
			return malformed(verdict, HTTP_GUARD_FIELD, "A field name is not a token.");
		if (!http_is_value(field->value))
			return malformed(verdict, HTTP_GUARD_FIELD, "A field value holds a control character.");
		const struct http_known *known = http_known_find(field->name);
		if (known->flags & HTTP_SINGLE) {
			if (seen_once >> known->id & 1)
				return malformed(verdict, known->id == HTTP_HOST ? HTTP_GUARD_HOST : HTTP_GUARD_FRAMING,
						 "A field that may stand only once is there twice.");
			seen_once |= 1u << known->id;
		}
		if (!check_known(field, known, verdict))
			return false;
		length |= known->id == HTTP_CONTENT_LENGTH;
		coding |= known->id == HTTP_TRANSFER_ENCODING;
		if (!is_underscore_twin(field->name) && !slice_equal_nocase(field->name, SLICE("proxy")))
			fields->at[kept++] = *field;
	}
	fields->count = kept;
	if (length && coding)
		return malformed(verdict, HTTP_GUARD_FRAMING, "Content-Length and Transfer-Encoding exclude each other.");
	if (verdict->version_minor > 0 && !verdict->host.data)
		return malformed(verdict, HTTP_GUARD_HOST, "HTTP/1.1 needs a Host field.");
	return true;
}

static bool check_target(const struct http_guard_input *input, struct http_guard_verdict *verdict)
{
	struct http_target *target = &verdict->target;
	if (http_target_parse(input->target, target) != 0)
		return malformed(verdict, HTTP_GUARD_TARGET, "The request target is not a path, or has characters that must be encoded.");
	if (target->form == HTTP_TARGET_AUTHORITY)
		return malformed(verdict, HTTP_GUARD_TARGET, "A request target without a path belongs to CONNECT.");
	if (target->form == HTTP_TARGET_ASTERISK && !slice_equal(input->method, SLICE("OPTIONS")))
		return malformed(verdict, HTTP_GUARD_TARGET, "The target * belongs to OPTIONS.");
	if (target->form == HTTP_TARGET_ABSOLUTE) {
		bool tls = slice_has_prefix_nocase(input->target, SLICE("https:"));
		if (!http_host_equal(target->authority, verdict->host, tls ? SLICE("https") : SLICE("http")))
			return malformed(verdict, HTTP_GUARD_TARGET, "The authority in the request target differs from Host.");
	}
	if (http_route_of(target->path) == HTTP_ROUTE_AMBIGUOUS)
		return refuse(verdict, HTTP_GUARD_AMBIGUOUS_PATH, 400, "ambiguous-path",
			      "The path is another spelling of /-/agent/exec; write it plainly.");
	return true;
}

void http_guard_check(const struct http_guard_input *input, const struct http_guard_limits *limits, struct http_guard_verdict *verdict)
{
	*verdict = (struct http_guard_verdict){.reason = HTTP_GUARD_OK};
	if (!check_version(input->version, verdict) || !check_size(input, limits, verdict) ||
	    !check_method(input->method, input->target, verdict) || !check_fields(input, verdict))
		return;
	check_target(input, verdict);
}

const char *http_guard_reason_name(enum http_guard_reason reason)
{
	static const char *const names[HTTP_GUARD_REASONS] = {
		[HTTP_GUARD_OK] = "none",
		[HTTP_GUARD_FRAMING] = "framing",
		[HTTP_GUARD_TARGET] = "target",
		[HTTP_GUARD_AMBIGUOUS_PATH] = "ambiguous_path",
		[HTTP_GUARD_HOST] = "host",
		[HTTP_GUARD_FIELD] = "field",
		[HTTP_GUARD_METHOD] = "method",
		[HTTP_GUARD_VERSION] = "version",
		[HTTP_GUARD_EXPECT] = "expect",
		[HTTP_GUARD_HEADER_LIMIT] = "header_limit",
		[HTTP_GUARD_TARGET_LIMIT] = "target_limit",
		[HTTP_GUARD_BODY_LIMIT] = "body_limit",
	};
	return names[reason];
}
