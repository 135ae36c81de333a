#include "gateway/mcp/rpc.h"

#include "gateway/base/json_text.h"

#include <math.h>
#include <stdio.h>

#define MAX_INTEGER 9007199254740992.0 /* 2^53: every integer up to it is a real of its own */

static bool is_id(const json_t *id)
{
	if (json_is_string(id))
		return json_string_length(id) <= RPC_MAX_ID;
	double number = json_real_value(id);
	return json_is_real(id) && fabs(number) <= MAX_INTEGER && trunc(number) == number;
}

static int invalid(struct rpc_message *message, const char *why)
{
	snprintf(message->why, sizeof message->why, "%s", why);
	return RPC_E_INVALID;
}

static int read_response(struct rpc_message *message)
{
	const json_t *result = json_object_get(message->root, "result"), *error = json_object_get(message->root, "error");
	if (!message->id || !result == !error)
		return invalid(message, "there is no method, and it is no response");
	message->kind = RPC_RESPONSE;
	return 0;
}

static int read_members(struct rpc_message *message)
{
	const json_t *id = json_object_get(message->root, "id"), *method = json_object_get(message->root, "method");
	const char *version = json_string_value(json_object_get(message->root, "jsonrpc"));
	message->id = is_id(id) ? id : NULL;
	message->params = json_object_get(message->root, "params");
	if (!version || strcmp(version, "2.0") != 0)
		return invalid(message, "jsonrpc must be \"2.0\"");
	if (id && !message->id)
		return invalid(message, "id must be a short string or an integer");
	if (!method)
		return read_response(message);
	if (!json_is_string(method))
		return invalid(message, "method must be a string");
	if (message->params && !json_is_object(message->params))
		return invalid(message, "params must be an object");
	message->method = json_string_value(method);
	message->kind = id ? RPC_REQUEST : RPC_NOTIFICATION;
	return 0;
}

int rpc_parse(struct slice text, struct rpc_message *message)
{
	struct json_failure failure = {0};
	*message = (struct rpc_message){0};
	message->root = json_parse_reals(text, RPC_MAX_DEPTH, &failure);
	if (!message->root) {
		snprintf(message->why, sizeof message->why, "%s", failure.text);
		return RPC_E_PARSE;
	}
	if (json_is_array(message->root))
		return invalid(message, "batches are not supported: one message a request");
	return json_is_object(message->root) ? read_members(message) : invalid(message, "a message is an object");
}

void rpc_deinit(struct rpc_message *message)
{
	json_decref(message->root);
	*message = (struct rpc_message){0};
}

static int put_id(const json_t *id, struct buf *out)
{
	if (!id)
		return buf_append(out, SLICE("null"));
	if (json_is_string(id))
		return json_text_string(out, slice_of(json_string_value(id), json_string_length(id)));
	return buf_printf(out, "%.0f", json_real_value(id));
}

int rpc_put_head(const struct rpc_message *message, struct buf *out)
{
	int r = buf_append(out, SLICE("{\"jsonrpc\":\"2.0\",\"id\":"));
	return r < 0 ? r : put_id(message->id, out);
}

int rpc_put_progress(const struct rpc_message *message, uint64_t done, struct buf *out)
{
	const json_t *token = json_object_get(json_object_get(message->params, "_meta"), "progressToken");
	if (!is_id(token))
		return 0;
	int r = buf_append(out, SLICE("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progressToken\":"));
	if (r == 0)
		r = put_id(token, out);
	return r < 0 ? r : buf_printf(out, ",\"progress\":%llu}}\n", (unsigned long long)done);
}

int rpc_put_error(const struct rpc_message *message, int code, const char *text, struct slice data, struct buf *out)
{
	int r = rpc_put_head(message, out);
	if (r == 0)
		r = buf_printf(out, ",\"error\":{\"code\":%d,\"message\":", code);
	if (r == 0)
		r = json_text_string(out, slice_str(text));
	if (r == 0 && data.len)
		r = buf_append(out, SLICE(",\"data\":"));
	if (r == 0)
		r = buf_append(out, data);
	return r < 0 ? r : buf_append(out, SLICE("}}\n"));
}
