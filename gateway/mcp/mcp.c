#include "gateway/mcp/mcp.h"

#include "gateway/base/base64.h"
#include "gateway/base/json_text.h"

#include <stdio.h>

#define META        "io.modelcontextprotocol/"
#define MAX_NAME    256
#define SERVER_INFO "{\"name\":\"spritegate\",\"title\":\"Spritegate\",\"version\":\"" SPRITEGATE_VERSION "\"}"
#define INSTRUCTIONS                                                                                                                      \
	"Commands run in isolated sandboxes. Each run_command gets a fresh one that is destroyed afterwards; with the same session name " \
	"files and background processes are kept. Data of the Datasette behind this server is passed to a command by path, in stdin and " \
	"files, without being read by you."

/* Newest first. */
static const char *const older_versions[] = {"2025-11-25", "2025-06-18", "2025-03-26"};

static const struct {
	const char *name;
	enum mcp_method method;
	bool stateless, older; /* the manners that have it */
} methods[] = {
	{"initialize", MCP_INITIALIZE, false, true},    {"ping", MCP_PING, false, true},
	{"server/discover", MCP_DISCOVER, true, false}, {"tools/list", MCP_TOOLS_LIST, true, true},
	{"tools/call", MCP_TOOLS_CALL, true, true},
};

static unsigned status_of(const struct mcp_request *request, int code)
{
	if (code == RPC_PARSE_ERROR || code == RPC_INVALID_REQUEST || code == MCP_UNSUPPORTED_VERSION)
		return 400;
	if (!request->stateless)
		return 200;
	return code == RPC_METHOD_NOT_FOUND ? 404 : 400;
}

void mcp_refuse(struct mcp_request *request, int code, const char *why)
{
	request->code = code;
	request->status = status_of(request, code);
	if (why != request->rpc.why)
		snprintf(request->rpc.why, sizeof request->rpc.why, "%s", why);
}

static void refuse_version(struct mcp_request *request, struct slice asked)
{
	mcp_refuse(request, MCP_UNSUPPORTED_VERSION, "This protocol version is not supported.");
	int r = buf_append(&request->data, SLICE("{\"supported\":[\"" MCP_STATELESS "\"],\"requested\":"));
	if (r == 0)
		r = json_text_string(&request->data, asked);
	if (r == 0)
		r = buf_append_char(&request->data, '}');
	if (r < 0)
		buf_deinit(&request->data);
}

/* The value of a field that must be there once; false when it is not. */
static bool one_value(const struct http_fields *fields, struct slice name, struct slice *value)
{
	*value = slice_trim(http_fields_value(fields, name));
	return http_fields_count(fields, name) == 1;
}

/* A name that no field can hold comes as =?base64?…?=. */
static bool is_name(struct slice value, struct slice name)
{
	static const struct slice begin = SLICE("=?base64?"), end = SLICE("?=");
	bool encoded = value.len >= begin.len + end.len && slice_has_prefix(value, begin) &&
		       slice_equal(slice_from(value, value.len - end.len), end);
	if (!encoded)
		return slice_equal(value, name);
	CLEANUP(buf_deinit) struct buf decoded = BUF_MAX(MAX_NAME);
	struct slice text = slice_of(value.data + begin.len, value.len - begin.len - end.len);
	return base64_decode(&decoded, text) == 0 && slice_equal(buf_peek(&decoded), name);
}

static void check_fields(struct mcp_request *request, const struct http_fields *fields)
{
	struct slice value, name;
	if (!one_value(fields, SLICE("Mcp-Method"), &value) || !slice_equal(value, slice_str(request->rpc.method))) {
		mcp_refuse(request, MCP_HEADER_MISMATCH, "Mcp-Method must be there and say the method.");
		return;
	}
	if (json_get_string(request->rpc.params, "name", &name) && strcmp(request->rpc.method, "tools/call") == 0 &&
	    (!one_value(fields, SLICE("Mcp-Name"), &value) || !is_name(value, name)))
		mcp_refuse(request, MCP_HEADER_MISMATCH, "Mcp-Name must be there and say the name of the tool.");
}

/* What the stateless manner wants of every request. */
static void check_meta(struct mcp_request *request, const struct http_fields *fields)
{
	const json_t *meta = json_object_get(request->rpc.params, "_meta");
	struct slice version, told;
	if (!json_get_string(meta, META "protocolVersion", &version)) {
		mcp_refuse(request, RPC_INVALID_PARAMS, "_meta must have " META "protocolVersion.");
	} else if (!one_value(fields, SLICE("MCP-Protocol-Version"), &told) || !slice_equal(told, version)) {
		mcp_refuse(request, MCP_HEADER_MISMATCH, "MCP-Protocol-Version must be there and say the version of _meta.");
	} else if (!slice_equal(version, SLICE(MCP_STATELESS))) {
		refuse_version(request, version);
	} else if (!json_is_object(json_object_get(meta, META "clientCapabilities"))) {
		mcp_refuse(request, RPC_INVALID_PARAMS, "_meta must have " META "clientCapabilities.");
	} else {
		check_fields(request, fields);
	}
}

static bool is_older(struct slice version)
{
	for (size_t i = 0; i < ARRAY_LEN(older_versions); i++)
		if (slice_equal(version, slice_str(older_versions[i])))
			return true;
	return false;
}

/* A client of the older manner tells the version that was agreed upon, the oldest ones nothing. */
static void check_older(struct mcp_request *request, const struct http_fields *fields)
{
	struct slice told = slice_trim(http_fields_value(fields, SLICE("MCP-Protocol-Version")));
	if (told.data && (http_fields_count(fields, SLICE("MCP-Protocol-Version")) > 1 || !is_older(told)))
		refuse_version(request, told);
}

static bool is_stateless(const struct mcp_request *request, const struct http_fields *fields)
{
	const json_t *meta = json_object_get(request->rpc.params, "_meta");
	return json_object_get(meta, META "protocolVersion") || strcmp(request->rpc.method, "server/discover") == 0 ||
	       slice_equal(slice_trim(http_fields_value(fields, SLICE("MCP-Protocol-Version"))), SLICE(MCP_STATELESS));
}

static void find_method(struct mcp_request *request)
{
	for (size_t i = 0; i < ARRAY_LEN(methods); i++)
		if (strcmp(request->rpc.method, methods[i].name) == 0 && (request->stateless ? methods[i].stateless : methods[i].older)) {
			request->method = methods[i].method;
			return;
		}
	mcp_refuse(request, RPC_METHOD_NOT_FOUND, "There is no such method.");
}

static void check_params(struct mcp_request *request)
{
	const char *name = json_string_value(json_object_get(request->rpc.params, "name"));
	const json_t *arguments = json_object_get(request->rpc.params, "arguments");
	if (request->method == MCP_INITIALIZE && !json_is_string(json_object_get(request->rpc.params, "protocolVersion")))
		mcp_refuse(request, RPC_INVALID_PARAMS, "protocolVersion must be a string.");
	else if (request->method == MCP_TOOLS_CALL && !name)
		mcp_refuse(request, RPC_INVALID_PARAMS, "name must be a string.");
	else if (request->method == MCP_TOOLS_CALL && arguments && !json_is_object(arguments))
		mcp_refuse(request, RPC_INVALID_PARAMS, "arguments must be an object.");
	request->tool = name;
}

int mcp_read(struct slice body, const struct http_fields *fields, struct mcp_request *request)
{
	*request = (struct mcp_request){.data = BUF_MAX(4096)};
	int r = rpc_parse(body, &request->rpc);
	if (r > 0)
		mcp_refuse(request, r == RPC_E_PARSE ? RPC_PARSE_ERROR : RPC_INVALID_REQUEST, request->rpc.why);
	if (r != 0)
		return r < 0 ? r : 0;
	if (request->rpc.kind != RPC_REQUEST)
		return 0;
	request->stateless = is_stateless(request, fields);
	if (request->stateless)
		check_meta(request, fields);
	else
		check_older(request, fields);
	if (!request->code)
		find_method(request);
	if (!request->code)
		check_params(request);
	return 0;
}

void mcp_deinit(struct mcp_request *request)
{
	rpc_deinit(&request->rpc);
	buf_deinit(&request->data);
}

int mcp_put_refusal(const struct mcp_request *request, struct buf *out)
{
	return rpc_put_error(&request->rpc, request->code, request->rpc.why, buf_peek(&request->data), out);
}

/* Up to where the members of the result begin; every result of the stateless manner has some of its own. */
static int begin_result(const struct mcp_request *request, struct buf *out)
{
	int r = rpc_put_head(&request->rpc, out);
	if (r == 0)
		r = buf_append(out, SLICE(",\"result\":{"));
	if (r == 0 && request->stateless)
		r = buf_append(out, SLICE("\"resultType\":\"complete\",\"_meta\":{\"" META "serverInfo\":" SERVER_INFO "}"));
	return r;
}

int mcp_put_result(const struct mcp_request *request, struct slice members, struct buf *out)
{
	int r = begin_result(request, out);
	if (r == 0 && request->stateless && members.len)
		r = buf_append_char(out, ',');
	if (r == 0)
		r = buf_append(out, members);
	return r < 0 ? r : buf_append(out, SLICE("}}\n"));
}

int mcp_put_welcome(const struct mcp_request *request, struct buf *out)
{
	CLEANUP(buf_deinit) struct buf members = BUF_MAX(4096);
	int r = 0;
	if (request->method == MCP_DISCOVER) {
		r = buf_append(&members,
			       SLICE("\"supportedVersions\":[\"" MCP_STATELESS "\"],\"ttlMs\":3600000,\"cacheScope\":\"public\","));
	} else if (request->method == MCP_INITIALIZE) {
		struct slice asked;
		json_get_string(request->rpc.params, "protocolVersion", &asked);
		r = buf_printf(&members, "\"protocolVersion\":\"%.*s\",\"serverInfo\":" SERVER_INFO ",",
			       SLICE_FMT(is_older(asked) ? asked : slice_str(older_versions[0])));
	}
	if (r == 0 && members.len)
		r = buf_append(&members, SLICE("\"capabilities\":{\"tools\":{}},\"instructions\":\"" INSTRUCTIONS "\""));
	return r < 0 ? r : mcp_put_result(request, buf_peek(&members), out);
}

int mcp_put_tool_result(const struct mcp_request *request, struct slice object, bool is_error, struct buf *out)
{
	while (object.len && object.data[object.len - 1] == '\n')
		object.len--;
	int r = begin_result(request, out);
	if (r == 0 && request->stateless)
		r = buf_append_char(out, ',');
	if (r == 0)
		r = buf_append(out, SLICE("\"content\":[{\"type\":\"text\",\"text\":"));
	if (r == 0)
		r = json_text_string(out, object);
	if (r == 0)
		r = buf_append(out, SLICE("}],\"structuredContent\":"));
	if (r == 0)
		r = buf_append(out, object);
	return r < 0 ? r : buf_printf(out, ",\"isError\":%s}}\n", is_error ? "true" : "false");
}
