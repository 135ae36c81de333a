#include "gateway/endpoint/origin.h"

#include "gateway/http/host.h"

static bool is_safe(struct slice method)
{
	return slice_equal(method, SLICE("GET")) || slice_equal(method, SLICE("HEAD")) || slice_equal(method, SLICE("OPTIONS"));
}

/* A browser adds no bearer token by itself; with a cookie beside it that one may be what counts. */
static bool has_bearer_alone(const struct http_fields *fields)
{
	struct slice rest = slice_trim(http_fields_value(fields, SLICE("Authorization"))), scheme;
	return rest.len && slice_next(&rest, ' ', &scheme) && slice_equal_nocase(scheme, SLICE("Bearer")) &&
	       !http_fields_find(fields, SLICE("Cookie"));
}

static bool is_host(struct slice origin, struct slice scheme, struct slice host)
{
	if (!slice_has_prefix_nocase(origin, scheme))
		return false;
	struct slice rest = slice_from(origin, scheme.len);
	if (!slice_has_prefix(rest, SLICE("://")))
		return false;
	struct slice authority = slice_from(rest, 3);
	return http_host_is_valid(authority) && http_host_equal(authority, host, scheme);
}

bool origin_is_own(const struct http_head *head, struct slice scheme)
{
	const struct http_fields *fields = head->fields;
	size_t sites = http_fields_count(fields, SLICE("Sec-Fetch-Site")), origins = http_fields_count(fields, SLICE("Origin"));
	if (is_safe(head->method) || has_bearer_alone(fields))
		return true;
	if (sites) {
		struct slice site = http_fields_value(fields, SLICE("Sec-Fetch-Site"));
		return sites == 1 && (slice_equal(site, SLICE("same-origin")) || slice_equal(site, SLICE("none")));
	}
	/* Without either it is no browser. */
	return !origins || (origins == 1 && is_host(http_fields_value(fields, SLICE("Origin")), scheme, head->host));
}
