/*
 * domain - names of domains as rules have them
 */
#pragma once

#include "gateway/base/slice.h"

/* example.com, or *.example.com for all below it: lower case, letters, digits and hyphens, two labels or more, as long as a name of DNS
 * may be (RFC 1035 section 2.3.4). */
bool domain_is_pattern(struct slice text);
