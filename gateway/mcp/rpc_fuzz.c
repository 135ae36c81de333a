#include "gateway/mcp/tools.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void need(bool holds)
{
	if (!holds)
		abort();
}

/* Whatever is answered is JSON, with the id of the message or null. */
static void check_answer(const struct mcp_request *request, const struct buf *out)
{
	struct json_failure failure;
	CLEANUP(json_decref_ptr) json_t *answer = json_parse_reals(buf_peek(out), 64, &failure);
	need(answer);
	const json_t *id = json_object_get(answer, "id");
	need(request->rpc.id ? json_equal(id, request->rpc.id) : json_is_null(id));
	need(!json_object_get(answer, "result") != !json_object_get(answer, "error"));
}

static void check_call(struct mcp_request *request)
{
	CLEANUP(buf_deinit) struct buf faults = BUF_MAX(1024 * 1024UL);
	CLEANUP(json_decref_ptr) json_t *fields = NULL;
	int r = mcp_tool_fields(request, &fields, &faults);
	need((r == 0) == (fields != NULL) && (r == MCP_TOOL_INVALID) == (faults.len > 0));
}

/* The first line stands for the fields of the request, split at blanks: version, method, name. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct slice names[] = {SLICE("MCP-Protocol-Version"), SLICE("Mcp-Method"), SLICE("Mcp-Name")};
	struct slice rest = slice_of((const char *)data, size), line = {0}, value;
	struct http_fields fields = {0};
	struct mcp_request request;
	CLEANUP(buf_deinit) struct buf out = BUF_MAX(1024 * 1024UL);
	if (rest.len)
		slice_next(&rest, '\n', &line);
	for (size_t i = 0; i < ARRAY_LEN(names) && line.len && slice_next(&line, ' ', &value); i++)
		need(!http_is_value(value) || http_fields_add(&fields, names[i], value) == 0);
	need(mcp_read(rest, &fields, &request) == 0);
	if (request.code)
		need(request.status >= 200 && mcp_put_refusal(&request, &out) == 0);
	else if (request.method == MCP_TOOLS_CALL)
		check_call(&request);
	else if (request.method != MCP_NOTHING)
		need(mcp_put_welcome(&request, &out) == 0);
	if (out.len)
		check_answer(&request, &out);
	mcp_deinit(&request);
	return 0;
}
