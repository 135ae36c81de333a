/*
 * origin - may a page of this origin, under this name of ours, use the MCP endpoint? Against DNS rebinding, which gives a foreign page
 * our address under its own name
 *
 * Pure.
 */
#pragma once

#include "gateway/http/headers.h"

/* Host names, separated by commas; without ports, which do not matter. */
bool mcp_hosts_are_valid(struct slice hosts);

/* Host, and Origin if there is one, are names of loopback or among `hosts`. */
bool mcp_origin_is_allowed(const struct http_fields *fields, struct slice host, struct slice hosts);
