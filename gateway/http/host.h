/*
 * host - the Host field and the authority of a target (RFC 9110 section 7.2, RFC 3986 section 3.2)
 *
 * Pure.
 */
#pragma once

#include "gateway/base/slice.h"

/* uri-host [":" port]: not empty, no userinfo, path, comma or blank; an IPv6 literal in brackets; port 0-65535 or empty. */
bool http_host_is_valid(struct slice host);

/* Of a valid one without its port; an IPv6 literal keeps its brackets. */
struct slice http_host_name(struct slice host);

/* Equal as authorities of the scheme: names without case, the default port of the scheme ("http" or "https") may be left out. */
bool http_host_equal(struct slice a, struct slice b, struct slice scheme);
