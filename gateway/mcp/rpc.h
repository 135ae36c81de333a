/*
 * rpc - one JSON-RPC 2.0 message, as MCP restricts it: no batches, parameters by name, ids that are strings or integers
 *
 * Owns:       the parsed JSON.
 * Lifetime:   rpc_parse (whatever it says) … rpc_deinit.
 * Results:    0; RPC_E_PARSE and RPC_E_INVALID, with `why`. Writing: those of buf.
 * Bounds:     RPC_MAX_DEPTH levels, RPC_MAX_ID bytes of an id, an integer of at most 53 bits.
 * Invariants: an answer has exactly the id of its request, or null when that could not be read.
 */
#pragma once

#include "gateway/base/buf.h"
#include "gateway/json/json.h"

#define RPC_MAX_DEPTH 34 /* the arguments of a tool are two levels deep, and may be as deep as the body of an HTTP request */
#define RPC_MAX_ID    256

#define RPC_E_PARSE   1
#define RPC_E_INVALID 2

/* JSON-RPC 2.0 section 5.1 */
#define RPC_PARSE_ERROR      (-32700)
#define RPC_INVALID_REQUEST  (-32600)
#define RPC_METHOD_NOT_FOUND (-32601)
#define RPC_INVALID_PARAMS   (-32602)
#define RPC_INTERNAL_ERROR   (-32603)

enum rpc_kind { RPC_REQUEST, RPC_NOTIFICATION, RPC_RESPONSE };

struct rpc_message {
	json_t *root;
	enum rpc_kind kind;
	const json_t *id;   /* borrowed from root; NULL = none, or none that can be used */
	const char *method; /* likewise; NULL of a response */
	json_t *params;     /* likewise, an object; NULL = none */
	char why[JSON_ERROR_LEN];
};

/* Numbers come as reals. */
MUST_CHECK int rpc_parse(struct slice text, struct rpc_message *message);
void rpc_deinit(struct rpc_message *message);

/* `{"jsonrpc":"2.0","id":…`: the caller adds `,"result":…}` or `,"error":…}`. */
MUST_CHECK int rpc_put_head(const struct rpc_message *message, struct buf *out);

/* A notification of progress: `done` counts up. Nothing when the request has no token for it. */
MUST_CHECK int rpc_put_progress(const struct rpc_message *message, uint64_t done, struct buf *out);

/* A whole answer; `data` is JSON, empty = none. */
MUST_CHECK int rpc_put_error(const struct rpc_message *message, int code, const char *text, struct slice data, struct buf *out);
