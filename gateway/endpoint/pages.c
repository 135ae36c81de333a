#include "gateway/endpoint/pages.h"

#include <stdio.h>

#define PATH "/-/agent/exec/"

static const char usage[] =
	"Run a command in a sandbox: POST /-/agent/exec\n"
	"\n"
	"  Authorization: Bearer sgt_…\n"
	"  Content-Type: application/json\n"
	"\n"
	"  {\"command\": \"echo hello\"}             a shell line, run as bash -lc\n"
	"  {\"argv\": [\"python3\", \"-c\", \"…\"]}     or a program and its arguments\n"
	"\n"
	"Optional: stdin (text, {\"base64\": \"…\"} or {\"datasette\": \"/path?query\"}), env (object), cwd (path), files\n"
	"(path: text, base64 or datasette), timeout_seconds, max_output_bytes, session (a name: the same sandbox for the next command with it),\n"
	"outputs (paths of files to read back), stdout_to (rows into Datasette: {\"datasette\": \"/db/table/-/insert\"}).\n"
	"The answer is JSON: outcome, exit_code, stdout, stderr and how long it took.\n"
	"With an Idempotency-Key it may be sent again without running again.\n"
	"With Accept: application/x-ndjson or text/event-stream it comes while the command runs.\n"
	"GET and DELETE /-/agent/exec/<exec_id> tell of a command and cancel it.\n"
	"GET /-/agent/exec/sessions lists sessions, DELETE /-/agent/exec/sessions/<name> closes one.\n"
	"GET /-/agent/exec/quota tells of a token's limits and what is left of them.\n"
	"POST /-/agent/exec/mcp is the same as tools of the Model Context Protocol.\n"
	"All of it for programs: GET /-/agent/exec/openapi.json\n";

static int reply_text(struct http_request *request, const struct exec_reply *reply, const char *type, struct slice text)
{
	struct http_fields fields = {0};
	int r = exec_reply_add(&fields, SLICE("Content-Type"), type);
	if (!r)
		r = exec_reply_add(&fields, SLICE("Cache-Control"), "no-store");
	if (!r)
		r = exec_reply_add(&fields, SLICE("X-Content-Type-Options"), "nosniff");
	if (!r)
		r = exec_reply_add_cors(&fields, reply->head);
	return r ? -1 : http_request_respond(request, 200, &fields, text);
}

static int reply_options(struct http_request *request, const struct exec_reply *reply, const char *methods)
{
	struct http_fields fields = {0};
	int r = exec_reply_add(&fields, SLICE("Allow"), methods);
	if (!r)
		r = exec_reply_add(&fields, SLICE("Cache-Control"), "no-store");
	if (!r)
		r = exec_reply_add_cors(&fields, reply->head);
	if (!r && http_fields_find(reply->head->fields, SLICE("Access-Control-Request-Method"))) {
		r = exec_reply_add(&fields, SLICE("Access-Control-Allow-Methods"), methods);
		if (!r)
			r = exec_reply_add(
				&fields, SLICE("Access-Control-Allow-Headers"),
				"Authorization, Content-Type, Idempotency-Key, X-Datasette-Authorization, MCP-Protocol-Version, Mcp-Method, "
				"Mcp-Name");
		if (!r)
			r = exec_reply_add(&fields, SLICE("Access-Control-Max-Age"), "600");
	}
	return r ? -1 : http_request_respond(request, 204, &fields, (struct slice){0});
}

static int reply_method(struct http_request *request, const char *methods, const char **code)
{
	struct http_fields fields = {0};
	char detail[64];
	int len = snprintf(detail, sizeof detail, "Allowed here: %s.", methods);
	struct http_problem problem = {.status = 405, .code = "method-not-allowed", .detail = slice_of(detail, (size_t)len)};
	*code = problem.code;
	return exec_reply_add(&fields, SLICE("Allow"), methods) ? -1 : http_request_respond_problem(request, &problem, &fields);
}

static int reply_not_found(struct http_request *request, const char **code)
{
	struct http_problem problem = {.status = 404, .code = "not-found", .detail = SLICE("There is nothing at this path.")};
	*code = problem.code;
	return http_request_respond_problem(request, &problem, NULL);
}

static bool is_openapi(const struct http_head *head)
{
	return slice_equal(head->path, SLICE(PATH "openapi.json"));
}

bool exec_path_is_mcp(const struct http_head *head)
{
	return slice_equal(head->path, SLICE(PATH "mcp"));
}

bool exec_path_is_quota(const struct http_head *head)
{
	return slice_equal(head->path, SLICE(PATH "quota"));
}

/* The canonical text of a UUID: nothing else is the id of a command, and nothing is asked for it. */
static bool is_uuid(struct slice text)
{
	for (size_t i = 0; i < text.len; i++) {
		char c = text.data[i];
		bool dash = i == 8 || i == 13 || i == 18 || i == 23;
		if (dash ? c != '-' : !((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')))
			return false;
	}
	return text.len == ID_UUID_LEN;
}

bool exec_path_id(const struct http_head *head, struct slice *exec_id)
{
	*exec_id = slice_from(head->path, sizeof PATH - 1);
	return head->route == HTTP_ROUTE_EXEC_SUB && is_uuid(*exec_id);
}

bool exec_path_is_sessions(const struct http_head *head)
{
	return slice_equal(head->path, SLICE(PATH "sessions"));
}

bool exec_path_session(const struct http_head *head, struct slice *name)
{
	if (!slice_has_prefix(head->path, SLICE(PATH "sessions/")))
		return false;
	*name = slice_from(head->path, sizeof PATH "sessions/" - 1);
	return exec_session_name_is_valid(*name);
}

/* NULL when there is nothing at the path. */
static const char *methods_of(const struct http_head *head)
{
	struct slice exec_id, name;
	if (head->route == HTTP_ROUTE_EXEC)
		return "POST, GET, HEAD, OPTIONS";
	if (is_openapi(head) || exec_path_is_quota(head) || exec_path_is_sessions(head))
		return "GET, HEAD, OPTIONS";
	if (exec_path_is_mcp(head))
		return "POST, OPTIONS";
	if (exec_path_session(head, &name))
		return "DELETE, OPTIONS";
	return exec_path_id(head, &exec_id) ? "GET, HEAD, DELETE, OPTIONS" : NULL;
}

int exec_page_reply(struct http_request *request, const struct exec_reply *reply, const char **code)
{
	const struct http_head *head = reply->head;
	const char *methods = methods_of(head);
	bool gets = slice_equal(head->method, SLICE("GET")) || slice_equal(head->method, SLICE("HEAD"));
	if (!methods)
		return reply_not_found(request, code);
	if (slice_equal(head->method, SLICE("OPTIONS")))
		return reply_options(request, reply, methods);
	if (gets && head->route == HTTP_ROUTE_EXEC)
		return reply_text(request, reply, "text/plain; charset=utf-8", SLICE(usage));
	if (gets && is_openapi(head))
		return reply_text(request, reply, "application/json", slice_of(exec_openapi, exec_openapi_len));
	return reply_method(request, methods, code);
}
