/*
 * tools - what the MCP endpoint offers: its list, and what a call is as a request of /-/agent/exec
 *
 * Pure but for memory.
 * Results: 0; MCP_TOOL_UNKNOWN; MCP_TOOL_INVALID, with `faults` as those of exec's requests; -ENOMEM.
 */
#pragma once

#include "gateway/mcp/mcp.h"

#define MCP_TOOL_UNKNOWN 1
#define MCP_TOOL_INVALID 2

/* All of them, owned by the caller; `openapi` describes the request. NULL: no memory, or it does not. */
json_t *mcp_tools_new(struct slice openapi);

/* The whole answer to tools/list. `policy` is a JSON object; tools that need a session are told to those who may have one. */
MUST_CHECK int mcp_put_tools(const struct mcp_request *request, const json_t *tools, struct slice policy, bool sessions, struct buf *out);

/* The fields of the request that the call stands for, owned by the caller: nothing of them is shared with the message any more. */
MUST_CHECK int mcp_tool_fields(struct mcp_request *request, json_t **fields, struct buf *faults);
