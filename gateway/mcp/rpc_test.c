#include "gateway/mcp/rpc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static int parse(const char *text, struct rpc_message *message)
{
	return rpc_parse(slice_str(text), message);
}

static void check_kind(const char *text, enum rpc_kind kind)
{
	struct rpc_message message;
	assert_int_equal(parse(text, &message), 0);
	assert_int_equal(message.kind, kind);
	assert_true((message.method != NULL) == (kind != RPC_RESPONSE));
	rpc_deinit(&message);
}

static void test_kinds(void **state UNUSED)
{
	check_kind("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}", RPC_REQUEST);
	check_kind("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\",\"params\":{}}", RPC_NOTIFICATION);
	check_kind("{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}", RPC_RESPONSE);
	check_kind("{\"jsonrpc\":\"2.0\",\"id\":1,\"error\":{\"code\":1,\"message\":\"no\"}}", RPC_RESPONSE);
}

static void check_error(const char *text, int result, const char *id)
{
	struct rpc_message message;
	CLEANUP(buf_deinit) struct buf out = BUF_MAX(4096);
	assert_int_equal(parse(text, &message), result);
	assert_true(message.why[0]);
	assert_int_equal(rpc_put_error(&message, -1, message.why, (struct slice){0}, &out), 0);
	CLEANUP(buf_deinit) struct buf begin = BUF_MAX(4096);
	assert_int_equal(buf_printf(&begin, "{\"jsonrpc\":\"2.0\",\"id\":%s,\"error\":{\"code\":-1,\"message\":\"", id), 0);
	assert_true(slice_has_prefix(buf_peek(&out), buf_peek(&begin)));
	rpc_deinit(&message);
}

static void test_refusals(void **state UNUSED)
{
	check_error("", RPC_E_PARSE, "null");
	check_error("{", RPC_E_PARSE, "null");
	check_error("{\"id\":1,\"id\":2}", RPC_E_PARSE, "null");
	check_error("{\"jsonrpc\":\"2.0\",\"id\":\"\\u0000\",\"method\":\"a\"}", RPC_E_PARSE, "null");
	check_error("[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}]", RPC_E_INVALID, "null");
	check_error("[]", RPC_E_INVALID, "null");
	check_error("1", RPC_E_INVALID, "null");
	check_error("{}", RPC_E_INVALID, "null");
	check_error("{\"jsonrpc\":\"1.0\",\"id\":7,\"method\":\"ping\"}", RPC_E_INVALID, "7");
	check_error("{\"jsonrpc\":2.0,\"id\":7,\"method\":\"ping\"}", RPC_E_INVALID, "7");
	check_error("{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":1}", RPC_E_INVALID, "7");
	check_error("{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"a\",\"params\":[]}", RPC_E_INVALID, "7");
	check_error("{\"jsonrpc\":\"2.0\",\"id\":7}", RPC_E_INVALID, "7");
	check_error("{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":1,\"error\":1}", RPC_E_INVALID, "7");
	check_error("{\"jsonrpc\":\"2.0\",\"result\":1}", RPC_E_INVALID, "null");
	/* What cannot be an id, or could not be given back as it came. */
	static const char *const ids[] = {"null", "true", "1.5", "[1]", "{}", "9007199254740994", "-9007199254740994", "1e300"};
	for (size_t i = 0; i < ARRAY_LEN(ids); i++) {
		CLEANUP(buf_deinit) struct buf text = BUF_MAX(4096);
		assert_int_equal(buf_printf(&text, "{\"jsonrpc\":\"2.0\",\"id\":%s,\"method\":\"ping\"}%c", ids[i], 0), 0);
		check_error(text.data, RPC_E_INVALID, "null");
	}
}

static void check_id(const char *id, const char *told)
{
	struct rpc_message message;
	CLEANUP(buf_deinit) struct buf text = BUF_MAX(4096), out = BUF_MAX(4096), expected = BUF_MAX(4096);
	assert_int_equal(buf_printf(&text, "{\"jsonrpc\":\"2.0\",\"id\":%s,\"method\":\"ping\"}", id), 0);
	assert_int_equal(rpc_parse(buf_peek(&text), &message), 0);
	assert_int_equal(rpc_put_head(&message, &out), 0);
	assert_int_equal(buf_printf(&expected, "{\"jsonrpc\":\"2.0\",\"id\":%s", told), 0);
	assert_true(slice_equal(buf_peek(&out), buf_peek(&expected)));
	rpc_deinit(&message);
}

static void test_ids_come_back(void **state UNUSED)
{
	check_id("0", "0");
	check_id("-1", "-1");
	check_id("9007199254740992", "9007199254740992");
	check_id("-9007199254740991", "-9007199254740991");
	check_id("\"\"", "\"\"");
	check_id("\"1\"", "\"1\"");
	check_id("\"a \\\"b\\\" \\n \xc3\xbc\"", "\"a \\\"b\\\" \\n \xc3\xbc\"");
}

static void check_progress(const char *params, const char *told)
{
	struct rpc_message message;
	CLEANUP(buf_deinit) struct buf text = BUF_MAX(4096), out = BUF_MAX(4096);
	assert_int_equal(buf_printf(&text, "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\"%s}", params), 0);
	assert_int_equal(rpc_parse(buf_peek(&text), &message), 0);
	assert_int_equal(rpc_put_progress(&message, 15, &out), 0);
	assert_true(slice_equal(buf_peek(&out), slice_str(told)));
	rpc_deinit(&message);
}

static void test_progress(void **state UNUSED)
{
#define TOLD(token) "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progressToken\":" token ",\"progress\":15}}\n"
	check_progress(",\"params\":{\"_meta\":{\"progressToken\":7}}", TOLD("7"));
	check_progress(",\"params\":{\"_meta\":{\"progressToken\":\"a\\\"b\"}}", TOLD("\"a\\\"b\""));
	check_progress("", "");
	check_progress(",\"params\":{}", "");
	check_progress(",\"params\":{\"_meta\":1}", "");
	check_progress(",\"params\":{\"_meta\":{\"progressToken\":1.5}}", "");
	check_progress(",\"params\":{\"_meta\":{\"progressToken\":{}}}", "");
#undef TOLD
}

static void test_long_id(void **state UNUSED)
{
	char id[RPC_MAX_ID + 4] = "\"";
	memset(id + 1, 'x', RPC_MAX_ID);
	memcpy(id + 1 + RPC_MAX_ID, "\"", 2);
	check_id(id, id);
	struct rpc_message message;
	CLEANUP(buf_deinit) struct buf text = BUF_MAX(4096);
	assert_int_equal(buf_printf(&text, "{\"jsonrpc\":\"2.0\",\"id\":\"y%s,\"method\":\"ping\"}", id + 1), 0);
	assert_int_equal(rpc_parse(buf_peek(&text), &message), RPC_E_INVALID);
	rpc_deinit(&message);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kinds),   cmocka_unit_test(test_refusals), cmocka_unit_test(test_ids_come_back),
		cmocka_unit_test(test_long_id), cmocka_unit_test(test_progress),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
