/*
 * mcp - one message of the Model Context Protocol over Streamable HTTP, in both manners: the stateless one (revision 2026-07-28, every
 * request says what it needs in `_meta` and in its fields) and the older one that begins with `initialize` (2025-03-26 to 2025-11-25)
 *
 * There are no sessions in either: which manner holds is seen from each message.
 * Owns:       the message.
 * Lifetime:   mcp_read … mcp_deinit.
 * Results:    0 or -ENOMEM; a message that is refused has a `code`. Writing: those of buf.
 */
#pragma once

#include "gateway/http/headers.h"
#include "gateway/mcp/rpc.h"

#define MCP_STATELESS "2026-07-28"

/* Of the specification: a field is missing or contradicts the message; the server does not speak this version. */
#define MCP_HEADER_MISMATCH     (-32020)
#define MCP_UNSUPPORTED_VERSION (-32022)

enum mcp_method {
	MCP_NOTHING, /* a notification or a response: there is no answer */
	MCP_INITIALIZE,
	MCP_DISCOVER,
	MCP_PING,
	MCP_TOOLS_LIST,
	MCP_TOOLS_CALL,
};

struct mcp_request {
	struct rpc_message rpc;
	bool stateless;
	enum mcp_method method;
	const char *tool;     /* of MCP_TOOLS_CALL, borrowed; its arguments are checked by tools.h */
	/* When it is refused: */
	int code;             /* of JSON-RPC; 0 = it is not */
	unsigned status;      /* of HTTP */
	struct buf data;      /* JSON, empty = none */
};

MUST_CHECK int mcp_read(struct slice body, const struct http_fields *fields, struct mcp_request *request);
void mcp_deinit(struct mcp_request *request);

/* Refuses a message that was read. */
void mcp_refuse(struct mcp_request *request, int code, const char *why);

/* Whole answers. A refusal: */
MUST_CHECK int mcp_put_refusal(const struct mcp_request *request, struct buf *out);

/* To MCP_INITIALIZE, MCP_DISCOVER and MCP_PING: */
MUST_CHECK int mcp_put_welcome(const struct mcp_request *request, struct buf *out);

/* Any other result; `members` is JSON without braces. */
MUST_CHECK int mcp_put_result(const struct mcp_request *request, struct slice members, struct buf *out);

/* What a tool gave: `object` as it is and as a text. */
MUST_CHECK int mcp_put_tool_result(const struct mcp_request *request, struct slice object, bool is_error, struct buf *out);
