#include "gateway/mcp/mcp.h"
#include "gateway/mcp/tools.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdlib.h>

#define META    "\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\",\"io.modelcontextprotocol/clientCapabilities\":{}}"
#define VERSION "MCP-Protocol-Version"

static void read_message(const char *text, const char *const *pairs, struct mcp_request *request)
{
	struct http_fields fields = {0};
	for (; pairs && *pairs; pairs += 2)
		assert_int_equal(http_fields_add(&fields, slice_str(pairs[0]), slice_str(pairs[1])), 0);
	assert_int_equal(mcp_read(slice_str(text), &fields, request), 0);
}

static void check(const char *text, const char *const *pairs, enum mcp_method method, int code, unsigned status)
{
	struct mcp_request request;
	read_message(text, pairs, &request);
	if (request.code != code || request.status != status || (!code && request.method != method))
		fail_msg("%s: method %d, code %d, status %u", text, request.method, request.code, request.status);
	mcp_deinit(&request);
}

#define FIELDS(...)               \
	(const char *const[])     \
	{                         \
		__VA_ARGS__, NULL \
	}

static void test_older(void **state UNUSED)
{
	check("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"initialize\",\"params\":{\"protocolVersion\":\"2025-11-25\"}}", NULL,
	      MCP_INITIALIZE, 0, 0);
	check("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}", FIELDS(VERSION, "2025-06-18"), MCP_PING, 0, 0);
	check("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\"}", FIELDS(VERSION, " 2025-03-26 "), MCP_TOOLS_LIST, 0, 0);
	check("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"x\"}}", NULL, MCP_TOOLS_CALL, 0, 0);
	check("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}", FIELDS(VERSION, "2025-11-25"), MCP_NOTHING, 0, 0);
	check("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"initialize\"}", NULL, MCP_NOTHING, RPC_INVALID_PARAMS, 200);
	check("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\"}", NULL, MCP_NOTHING, RPC_INVALID_PARAMS, 200);
	check("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"x\",\"arguments\":[]}}", NULL, MCP_NOTHING,
	      RPC_INVALID_PARAMS, 200);
	check("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"prompts/list\"}", NULL, MCP_NOTHING, RPC_METHOD_NOT_FOUND, 200);
	check("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}", FIELDS(VERSION, "1999-01-01"), MCP_NOTHING, MCP_UNSUPPORTED_VERSION,
	      400);
	check("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}", FIELDS(VERSION, "2025-06-18", VERSION, "2025-06-18"), MCP_NOTHING,
	      MCP_UNSUPPORTED_VERSION, 400);
	check("[]", NULL, MCP_NOTHING, RPC_INVALID_REQUEST, 400);
	check("{", NULL, MCP_NOTHING, RPC_PARSE_ERROR, 400);
}

static void test_stateless(void **state UNUSED)
{
	const char *list = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\",\"params\":{" META "}}";
	check(list, FIELDS(VERSION, "2026-07-28", "Mcp-Method", "tools/list"), MCP_TOOLS_LIST, 0, 0);
	check(list, FIELDS("mcp-protocol-version", "2026-07-28", "MCP-METHOD", "\ttools/list "), MCP_TOOLS_LIST, 0, 0);
	check(list, FIELDS("Mcp-Method", "tools/list"), MCP_NOTHING, MCP_HEADER_MISMATCH, 400);
	check(list, FIELDS(VERSION, "2025-11-25", "Mcp-Method", "tools/list"), MCP_NOTHING, MCP_HEADER_MISMATCH, 400);
	check(list, FIELDS(VERSION, "2026-07-28"), MCP_NOTHING, MCP_HEADER_MISMATCH, 400);
	check(list, FIELDS(VERSION, "2026-07-28", "Mcp-Method", "tools/List"), MCP_NOTHING, MCP_HEADER_MISMATCH, 400);
	check(list, FIELDS(VERSION, "2026-07-28", "Mcp-Method", "tools/list", "Mcp-Method", "tools/list"), MCP_NOTHING, MCP_HEADER_MISMATCH,
	      400);
	/* The field alone makes it stateless, and then what is missing is missing; so does the method that nothing else has. */
	check("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\"}", FIELDS(VERSION, "2026-07-28"), MCP_NOTHING, RPC_INVALID_PARAMS,
	      400);
	check("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"server/discover\"}", NULL, MCP_NOTHING, RPC_INVALID_PARAMS, 400);
	check("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\",\"params\":{\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\"}}}",
	      FIELDS(VERSION, "2026-07-28", "Mcp-Method", "tools/list"), MCP_NOTHING, RPC_INVALID_PARAMS, 400);
	check("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\",\"params\":{\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":1}}}",
	      FIELDS(VERSION, "2026-07-28", "Mcp-Method", "tools/list"), MCP_NOTHING, RPC_INVALID_PARAMS, 400);
	/* Older methods are gone. */
	check("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"initialize\",\"params\":{" META "}}",
	      FIELDS(VERSION, "2026-07-28", "Mcp-Method", "initialize"), MCP_NOTHING, RPC_METHOD_NOT_FOUND, 404);
}

static void test_names(void **state UNUSED)
{
	const char *call = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"run_command\"," META "}}";
	static const struct {
		const char *name;
		int code;
	} names[] = {{"run_command", 0},
		     {"  run_command ", 0},
		     {"=?base64?cnVuX2NvbW1hbmQ=?=", 0},
		     {"=?base64?cnVuX2NvbW1hbmQ?=", MCP_HEADER_MISMATCH},
		     {"=?base64?cnVuX2NvbW1hbmQ=", MCP_HEADER_MISMATCH},
		     {"=?base64?\?=", MCP_HEADER_MISMATCH},
		     {"Run_Command", MCP_HEADER_MISMATCH},
		     {"", MCP_HEADER_MISMATCH}};
	for (size_t i = 0; i < ARRAY_LEN(names); i++)
		check(call, FIELDS(VERSION, "2026-07-28", "Mcp-Method", "tools/call", "Mcp-Name", names[i].name), MCP_TOOLS_CALL,
		      names[i].code, names[i].code ? 400 : 0);
	check(call, FIELDS(VERSION, "2026-07-28", "Mcp-Method", "tools/call"), MCP_NOTHING, MCP_HEADER_MISMATCH, 400);
}

static void test_unsupported_version(void **state UNUSED)
{
	struct mcp_request request;
	CLEANUP(buf_deinit) struct buf out = BUF_MAX(4096);
	read_message(
		"{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"method\":\"tools/list\",\"params\":{\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"v\\\"9\"}}}",
		FIELDS(VERSION, "v\"9", "Mcp-Method", "tools/list"), &request);
	assert_int_equal(mcp_put_refusal(&request, &out), 0);
	assert_true(slice_equal(buf_peek(&out),
				SLICE("{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"error\":{\"code\":-32022,\"message\":\"This protocol version is "
				      "not supported.\",\"data\":{\"supported\":[\"2026-07-28\"],\"requested\":\"v\\\"9\"}}}\n")));
	mcp_deinit(&request);
}

/* The member of the result of an answer, owned by *answer. */
static json_t *result(struct buf *out, json_t **answer)
{
	struct json_failure failure;
	*answer = json_parse(buf_peek(out), 64, &failure);
	assert_non_null(*answer);
	return json_object_get(*answer, "result");
}

static void test_versions_are_agreed_upon(void **state UNUSED)
{
	static const char *const asked[][2] = {
		{"2025-11-25", "2025-11-25"}, {"2025-03-26", "2025-03-26"}, {"2026-07-28", "2025-11-25"}, {"\\\"", "2025-11-25"}};
	for (size_t i = 0; i < ARRAY_LEN(asked); i++) {
		struct mcp_request request;
		CLEANUP(buf_deinit) struct buf text = BUF_MAX(4096), out = BUF_MAX(4096);
		CLEANUP(json_decref_ptr) json_t *answer = NULL;
		struct slice version;
		assert_int_equal(
			buf_printf(&text,
				   "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"initialize\",\"params\":{\"protocolVersion\":\"%s\"}}%c",
				   asked[i][0], 0),
			0);
		read_message(text.data, NULL, &request);
		assert_int_equal(mcp_put_welcome(&request, &out), 0);
		assert_true(json_get_string(result(&out, &answer), "protocolVersion", &version));
		assert_true(slice_equal(version, slice_str(asked[i][1])));
		mcp_deinit(&request);
	}
}

static void test_a_result_of_a_tool(void **state UNUSED)
{
	struct mcp_request request;
	CLEANUP(buf_deinit) struct buf out = BUF_MAX(4096);
	read_message("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"x\"}}", NULL, &request);
	assert_int_equal(mcp_put_tool_result(&request, SLICE("{\"stdout\":\"a\\n\"}\n"), true, &out), 0);
	assert_true(slice_equal(
		buf_peek(&out),
		SLICE("{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"content\":[{\"type\":\"text\",\"text\":"
		      "\"{\\\"stdout\\\":\\\"a\\\\n\\\"}\"}],\"structuredContent\":{\"stdout\":\"a\\n\"},\"isError\":true}}\n")));
	mcp_deinit(&request);
}

static size_t count_tools(bool sessions)
{
	struct mcp_request request;
	CLEANUP(buf_deinit) struct buf out = BUF_MAX(256 * 1024UL);
	CLEANUP(json_decref_ptr)
	json_t *answer = NULL,
	       *all = mcp_tools_new(SLICE("{\"components\":{\"schemas\":{\"Request\":{\"type\":\"object\",\"examples\":[]}}}}"));
	assert_non_null(all);
	read_message("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\"}", NULL, &request);
	assert_int_equal(mcp_put_tools(&request, all, SLICE("{\"network\":\"none\"}"), sessions, &out), 0);
	json_t *tools = json_object_get(result(&out, &answer), "tools"), *tool;
	size_t i;
	json_array_foreach(tools, i, tool)
	{
		const json_t *policy = json_object_get(json_object_get(tool, "_meta"), "executionPolicy");
		assert_string_equal(json_string_value(json_object_get(policy, "network")), "none");
	}
	mcp_deinit(&request);
	return json_array_size(tools);
}

static void test_list(void **state UNUSED)
{
	assert_int_equal(count_tools(true), 3);
	assert_int_equal(count_tools(false), 1);
	assert_null(mcp_tools_new(SLICE("{}")));
	assert_null(mcp_tools_new(SLICE("")));
}

/* What a call is as a request, or its fault. */
static void check_call(const char *tool, const char *arguments, const char *expected)
{
	struct mcp_request request;
	CLEANUP(buf_deinit) struct buf text = BUF_MAX(4096), faults = BUF_MAX(4096);
	CLEANUP(json_decref_ptr) json_t *fields = NULL;
	assert_int_equal(buf_printf(&text, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"%s\"%s%s}}%c",
				    tool, *arguments ? ",\"arguments\":" : "", arguments, 0),
			 0);
	read_message(text.data, NULL, &request);
	int r = mcp_tool_fields(&request, &fields, &faults);
	mcp_deinit(&request);
	char *told = r == 0 ? json_dumps(fields, JSON_COMPACT) : NULL;
	struct slice seen = r == MCP_TOOL_UNKNOWN ? SLICE("unknown") : told ? slice_str(told) : buf_peek(&faults);
	if (!slice_equal(seen, slice_str(expected)))
		fail_msg("%s %s: %.*s", tool, arguments, SLICE_FMT(seen));
	free(told);
}

static void test_calls(void **state UNUSED)
{
	check_call("run_command", "{\"command\":\"echo\",\"x\":1}", "{\"command\":\"echo\",\"x\":1.0}");
	check_call("run_command", "", "{}");
	check_call("nothing", "{}", "unknown");
	check_call("read_file", "{\"session\":\"a\",\"path\":\"/etc/x\"}", "{\"argv\":[\"cat\",\"--\",\"/etc/x\"],\"session\":\"a\"}");
	check_call("read_file", "{\"session\":1,\"path\":\"-\"}",
		   "[{\"pointer\":\"/session\",\"detail\":\"must be a string, and be there\"}]");
	check_call("read_file", "{\"session\":\"a\",\"path\":\"-\",\"max_output_bytes\":7}",
		   "{\"argv\":[\"cat\",\"--\",\"./-\"],\"session\":\"a\",\"max_output_bytes\":7.0}");
	check_call("read_file", "{\"session\":\"a\",\"path\":\"\"}",
		   "[{\"pointer\":\"/path\",\"detail\":\"must be a string that is not empty, and be there\"}]");
	check_call("read_file", "{\"session\":\"a\",\"path\":\"x\",\"command\":\"id\"}",
		   "[{\"pointer\":\"/command\",\"detail\":\"is not an argument of this tool\"}]");
	check_call("write_file", "{\"session\":\"a\",\"path\":\"x\",\"text\":\"y\",\"mode\":\"755\"}",
		   "{\"argv\":[\"true\"],\"session\":\"a\",\"files\":{\"x\":{\"text\":\"y\",\"mode\":\"755\"}}}");
	check_call("write_file", "{\"session\":\"a\",\"path\":\"x\",\"datasette\":\"/y\"}",
		   "{\"argv\":[\"true\"],\"session\":\"a\",\"files\":{\"x\":{\"datasette\":\"/y\"}}}");
	check_call("write_file", "{\"session\":\"a\",\"path\":\"x\"}",
		   "[{\"pointer\":\"/text\",\"detail\":\"exactly one of text, base64 and datasette must be there\"}]");
	check_call("write_file", "{\"session\":\"a\",\"path\":\"x\",\"text\":\"\",\"base64\":\"\"}",
		   "[{\"pointer\":\"/text\",\"detail\":\"exactly one of text, base64 and datasette must be there\"}]");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_older),
		cmocka_unit_test(test_stateless),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_unsupported_version),
		cmocka_unit_test(test_versions_are_agreed_upon),
		cmocka_unit_test(test_a_result_of_a_tool),
		cmocka_unit_test(test_list),
		cmocka_unit_test(test_calls),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
