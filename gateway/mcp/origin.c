#include "gateway/mcp/origin.h"

#include "gateway/base/attr.h"
#include "gateway/http/host.h"

static const struct slice loopback[] = {SLICE("localhost"), SLICE("127.0.0.1"), SLICE("[::1]")};

bool mcp_hosts_are_valid(struct slice hosts)
{
	struct slice part;
	while (hosts.len && slice_next(&hosts, ',', &part)) {
		struct slice name = slice_trim(part);
		if (!http_host_is_valid(name) || !slice_equal(http_host_name(name), name))
			return false;
	}
	return true;
}

static bool is_allowed(struct slice host, struct slice hosts)
{
	struct slice name, part;
	if (!http_host_is_valid(host))
		return false;
	name = http_host_name(host);
	for (size_t i = 0; i < ARRAY_LEN(loopback); i++)
		if (slice_equal_nocase(name, loopback[i]))
			return true;
	while (hosts.len && slice_next(&hosts, ',', &part))
		if (slice_equal_nocase(name, slice_trim(part)))
			return true;
	return false;
}

/* The host of an origin (RFC 6454 section 6.1); empty when it has none, as `null` and those of extensions. */
static struct slice host_of(struct slice origin)
{
	static const struct slice schemes[] = {SLICE("https://"), SLICE("http://")};
	for (size_t i = 0; i < ARRAY_LEN(schemes); i++)
		if (slice_has_prefix(origin, schemes[i]))
			return slice_from(origin, schemes[i].len);
	return (struct slice){0};
}

bool mcp_origin_is_allowed(const struct http_fields *fields, struct slice host, struct slice hosts)
{
	size_t origins = http_fields_count(fields, SLICE("Origin"));
	if (!is_allowed(host, hosts) || origins > 1)
		return false;
	return !origins || is_allowed(host_of(slice_trim(http_fields_value(fields, SLICE("Origin")))), hosts);
}
