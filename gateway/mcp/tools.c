#include "gateway/mcp/tools.h"

#include "gateway/base/attr.h"
#include "gateway/base/json_text.h"

#include <errno.h>
#include <stdlib.h>

/* tools.json */
extern const char mcp_tools[];
extern const size_t mcp_tools_len;

/* A policy that was changed is told within a minute. */
#define CACHING "\"ttlMs\":60000,\"cacheScope\":\"private\","

/* The first tool's arguments are the fields of the HTTP request, as their own page describes them. */
static int complete(json_t *tools, json_t *openapi)
{
	json_t *request = json_object_get(json_object_get(json_object_get(openapi, "components"), "schemas"), "Request");
	CLEANUP(json_decref_ptr)
	json_t *schema = json_copy(request), *dialect = json_string("https://json-schema.org/draft/2020-12/schema");
	if (!schema || !dialect || json_object_set(schema, "$schema", dialect) < 0 || json_object_del(schema, "examples") < 0)
		return -EINVAL;
	return json_object_set(json_array_get(tools, 0), "inputSchema", schema) < 0 ? -ENOMEM : 0;
}

json_t *mcp_tools_new(struct slice openapi)
{
	struct json_failure failure;
	CLEANUP(json_decref_ptr) json_t *tools = json_parse(slice_of(mcp_tools, mcp_tools_len), RPC_MAX_DEPTH, &failure);
	CLEANUP(json_decref_ptr) json_t *page = json_parse(openapi, RPC_MAX_DEPTH, &failure);
	return tools && page && complete(tools, page) == 0 ? TAKE(tools) : NULL;
}

static bool needs_session(const json_t *tool)
{
	const json_t *schema = json_object_get(tool, "inputSchema");
	size_t i;
	json_t *name;
	json_array_foreach(json_object_get(schema, "required"), i, name) if (strcmp(json_string_value(name), "session") == 0) return true;
	return false;
}

static int choose(const json_t *tools, json_t *policy, bool sessions, json_t *chosen)
{
	size_t i;
	json_t *tool;
	json_array_foreach(tools, i, tool)
	{
		if (needs_session(tool) && !sessions)
			continue;
		CLEANUP(json_decref_ptr) json_t *meta = json_pack("{s:O}", "executionPolicy", policy), *told = json_copy(tool);
		if (!meta || !told || json_object_set(told, "_meta", meta) < 0 || json_array_append(chosen, told) < 0)
			return -ENOMEM;
	}
	return 0;
}

int mcp_put_tools(const struct mcp_request *request, const json_t *tools, struct slice policy, bool sessions, struct buf *out)
{
	struct json_failure failure;
	CLEANUP(json_decref_ptr) json_t *parsed = json_parse(policy, RPC_MAX_DEPTH, &failure), *chosen = json_array();
	if (!parsed || !chosen || choose(tools, parsed, sessions, chosen) < 0)
		return -ENOMEM;
	char *text = json_dumps(chosen, JSON_COMPACT);
	CLEANUP(buf_deinit) struct buf members = BUF_MAX(256UL * 1024);
	int r = text ? buf_printf(&members, "%s\"tools\":%s", request->stateless ? CACHING : "", text) : -ENOMEM;
	free(text);
	return r < 0 ? r : mcp_put_result(request, buf_peek(&members), out);
}

static int fault(struct buf *faults, const char *name, const char *detail)
{
	char pointer[JSON_POINTER_LEN] = "";
	json_pointer_add(pointer, slice_str(name));
	int r = buf_append(faults, SLICE("[{\"pointer\":"));
	if (r == 0)
		r = json_text_string(faults, slice_str(pointer));
	if (r == 0)
		r = buf_printf(faults, ",\"detail\":\"%s\"}]", detail);
	return r < 0 ? r : MCP_TOOL_INVALID;
}

/* `members` ends with NULL. */
static int check_members(json_t *arguments, const char *const *members, struct buf *faults)
{
	const char *name;
	json_t *value;
	json_object_foreach(arguments, name, value)
	{
		size_t i = 0;
		while (members[i] && strcmp(name, members[i]) != 0)
			i++;
		if (!members[i])
			return fault(faults, name, "is not an argument of this tool");
	}
	if (!json_is_string(json_object_get(arguments, "session")))
		return fault(faults, "session", "must be a string, and be there");
	if (json_string_length(json_object_get(arguments, "path")) == 0)
		return fault(faults, "path", "must be a string that is not empty, and be there");
	return 0;
}

static int read_file(json_t *arguments, json_t **fields, struct buf *faults)
{
	static const char *const members[] = {"session", "path", "max_output_bytes", NULL};
	int r = check_members(arguments, members, faults);
	if (r != 0)
		return r;
	const char *path = json_string_value(json_object_get(arguments, "path"));
	/* One that is relative may begin with a dash, or be one. */
	*fields = json_pack("{s:[s,s,s+],s:O,s:O*}", "argv", "cat", "--", *path == '/' ? "" : "./", path, "session",
			    json_object_get(arguments, "session"), "max_output_bytes", json_object_get(arguments, "max_output_bytes"));
	return *fields ? 0 : -ENOMEM;
}

static int write_file(json_t *arguments, json_t **fields, struct buf *faults)
{
	static const char *const members[] = {"session", "path", "text", "base64", "datasette", "mode", NULL};
	int r = check_members(arguments, members, faults);
	if (r != 0)
		return r;
	json_t *text = json_object_get(arguments, "text"), *base64 = json_object_get(arguments, "base64"),
	       *datasette = json_object_get(arguments, "datasette");
	if (!text + !base64 + !datasette != 2)
		return fault(faults, "text", "exactly one of text, base64 and datasette must be there");
	*fields = json_pack("{s:[s],s:O,s:{s:{s:O*,s:O*,s:O*,s:O*}}}", "argv", "true", "session", json_object_get(arguments, "session"),
			    "files", json_string_value(json_object_get(arguments, "path")), "text", text, "base64", base64, "datasette",
			    datasette, "mode", json_object_get(arguments, "mode"));
	return *fields ? 0 : -ENOMEM;
}

static int run_command(json_t *arguments, json_t **fields, struct buf *faults UNUSED)
{
	*fields = json_incref(arguments);
	return 0;
}

static const struct {
	const char *name;
	int (*fields_of)(json_t *arguments, json_t **fields, struct buf *faults);
} tools[] = {{"run_command", run_command}, {"read_file", read_file}, {"write_file", write_file}};

int mcp_tool_fields(struct mcp_request *request, json_t **fields, struct buf *faults)
{
	CLEANUP(json_decref_ptr) json_t *arguments = json_incref(json_object_get(request->rpc.params, "arguments"));
	if (!arguments)
		arguments = json_object();
	if (!arguments)
		return -ENOMEM;
	json_object_del(request->rpc.params, "arguments");
	for (size_t i = 0; i < ARRAY_LEN(tools); i++)
		if (strcmp(request->tool, tools[i].name) == 0)
			return tools[i].fields_of(arguments, fields, faults);
	return MCP_TOOL_UNKNOWN;
}
