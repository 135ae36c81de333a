#include "gateway/http/problem_types.h"

#define DRAFT "https://iana.org/assignments/http-problem-types#"

#define NEVER       "No: it would be refused again."
#define AFTER_FIX   "After the request was changed."
#define RETRY_AFTER "Yes, after `Retry-After`; nothing was run."

static const struct http_problem_type types[] = {
	{"malformed-request", 400, NULL, "The request cannot be read",
	 "The framing or a field of the request is not what HTTP allows, or the body is not JSON. Two members of one name and `\\u0000` count "
	 "as well: two readers could see different values.",
	 "`detail` says what is wrong; for a body `pointer` says where.", AFTER_FIX},
	{"ambiguous-path", 400, NULL, "The path is another spelling of one of the gateway's",
	 "The path becomes `/-/agent/exec` when it is decoded or normalised, but is not written so.", "Write it plainly.", AFTER_FIX},
	{"invalid-authorization", 400, NULL, "The Authorization field cannot be read",
	 "There are two `Authorization` fields, or one that is not the word `Bearer` and one token, or there is a token in the query.",
	 "Send one `Authorization: Bearer sgt_…`.", AFTER_FIX},
	{"missing-token", 401, NULL, "A token is needed", "The request has no bearer token.", "Send `Authorization: Bearer sgt_…`.",
	 AFTER_FIX},
	{"invalid-token", 401, NULL, "The token is not valid",
	 "The token is unknown, mistyped, expired, revoked or suspended. All of these are answered alike; the operator's log says which.",
	 "Check how the token is passed on; else ask the operator for a new one.", NEVER},
	{"insufficient-scope", 403, NULL, "The token does not have the scope",
	 "The token may not do this; `required` names what it would need.", "Ask the operator for a token with that scope.", NEVER},
	{"identity-denied", 403, NULL, "Datasette's actor may not run commands",
	 "The request has no token, and no rule of `IDENTITY_RULES` matches the actor that Datasette takes its caller for; or the API token of "
	 "Datasette is restricted to other actions, or the actor has no `id` that can be used, or its policy is not there.",
	 "Ask the operator, or send `Authorization: Bearer sgt_…`.", NEVER},
	{"cross-origin-denied", 403, NULL, "A page of another origin may not do this",
	 "The request has no token, and a browser sent it for a page of another origin (`Sec-Fetch-Site`, `Origin`), as Datasette would refuse it.",
	 "Call from a page of Datasette, or with a token.", NEVER},
	{"command-denied", 403, NULL, "The token may not run this program",
	 "The program is not on the token's list. A `command` (a shell line) counts as `bash`.",
	 "Run one of the allowed programs with `argv`, or ask the operator.", NEVER},
	{"environment-denied", 403, NULL, "The token may not set this variable",
	 "A name in `env` is not on the token's list; `variable` names the first one.", "Leave the variable away, or ask the operator.",
	 NEVER},
	{"ip-denied", 403, NULL, "The token may not be used from here", "The client's address is in none of the token's networks.",
	 "Call from one of them, or ask the operator.", NEVER},
	{"session-denied", 403, NULL, "The token may have no sessions",
	 "The request names a session, and the token has no allowance for any.",
	 "Leave `session` away, or ask the operator for `--sessions`.", NEVER},
	{"foreign-origin", 403, NULL, "The MCP endpoint is not for this origin",
	 "`Host`, or `Origin`, names neither the loopback of the machine nor one of `MCP_HOSTS`: a page under another name may be trying to use "
	 "this address (DNS rebinding).",
	 "Ask the operator to add the name under which the gateway is known to `MCP_HOSTS`.", NEVER},
	{"not-found", 404, NULL, "There is nothing at this path", "No resource of the gateway has this path.",
	 "See docs/API.md for the paths.", NEVER},
	{"exec-not-found", 404, NULL, "There is no such command",
	 "No command of this token has this id, or it ended too long ago. Ids of other tokens are answered alike.",
	 "Ask with the token that started it, within an hour.", NEVER},
	{"session-not-found", 404, NULL, "There is no such session",
	 "No session of this token has this name, or it has ended. Sessions of other tokens are answered alike.",
	 "`GET /-/agent/exec/sessions` lists them.", NEVER},
	{"method-not-allowed", 405, NULL, "The method is not allowed here", "The path does not have this method.",
	 "`Allow` names those it has.", AFTER_FIX},
	{"request-timeout", 408, NULL, "The request took too long to arrive",
	 "The head of the request was not complete in time, or its body came too slowly.", "Look at the network, or send faster.", "Yes."},
	{"idempotency-in-progress", 409, NULL, "The command of this key is still running",
	 "A request with the same `Idempotency-Key` has started a command that has not ended; `exec_id` names it.",
	 "Wait, or ask for it by its id.", "Yes, after `Retry-After`: its answer is then given again."},
	{"idempotency-forgotten", 409, NULL, "How the command of this key ended is not known any more",
	 "A request with the same `Idempotency-Key` has started a command, `exec_id` names it. Its answer is not kept any more, or its gateway "
	 "was lost under it.",
	 "See what the command may have changed.", "Only with a new key, for a command that may run twice."},
	{"session-busy", 409, NULL, "A command runs in this session",
	 "A session runs one command at a time, and another one of it has not ended, here or on another gateway. The end of a gateway under a "
	 "command is noticed within two minutes.",
	 "Wait for the other command, cancel it, or take another session.", "Yes, after `Retry-After`; nothing was run."},
	{"session-lost", 410, NULL, "The sandbox of this session does not exist any more",
	 "The session has lost its files and processes; nothing was run. Its name is free now.",
	 "Set up again what the session needs: the next request with this name begins a new, empty one.", "Yes, in a new session."},
	{"body-too-large", 413, NULL, "The body is too large",
	 "The body is above a limit of the gateway, or standard input above one of the token. `limit_bytes` names it where it is known.",
	 "Send less, or ask the operator to raise `MAX_BODY_BYTES`, `EXEC_MAX_BODY_BYTES` or the token's `--max-in`.", AFTER_FIX},
	{"target-too-large", 414, NULL, "The request target is too long",
	 "The head is larger than `MAX_HEAD_BYTES`, and more than half of that is the request line.",
	 "Send a shorter target, for Datasette for instance a canned query or a POST.", AFTER_FIX},
	{"unsupported-media-type", 415, NULL, "The media type is not supported",
	 "The body is neither `application/json` nor `multipart/form-data` with a boundary, or has a content coding.",
	 "Send plain JSON with `Content-Type: application/json`, or that and files as parts.", AFTER_FIX},
	{"expectation-failed", 417, NULL, "The expectation cannot be met", "`Expect` is something else than `100-continue`.",
	 "Leave the field away.", AFTER_FIX},
	{"invalid-request", 422, NULL, "Some fields of the request cannot be used",
	 "The body is JSON, but a field is unknown, of another type or out of range. `errors` lists each with a `pointer` and a `detail`.",
	 "Correct what `errors` names.", AFTER_FIX},
	{"idempotency-mismatch", 422, NULL, "The key was used with another body",
	 "The `Idempotency-Key` was sent within a day with a body that is not the same.", "Take a new key for another command.", AFTER_FIX},
	{"quota-exceeded", 429, DRAFT "quota-exceeded", "Request cannot be satisfied as assigned quota has been exceeded",
	 "A limit of the token is used up; `violated-policies` names every one: `rate`, `actor-rate`, `concurrency`, `actor-concurrency`, "
	 "`budget`, `output-budget`. The refusal itself takes nothing.",
	 "Wait, run fewer commands at a time, or ask for less (`timeout_seconds`, `max_output_bytes`) when a budget is nearly used up.",
	 RETRY_AFTER},
	{"session-limit", 429, NULL, "The token has as many sessions as it may have",
	 "The request names a session that does not exist, and `max_sessions` others do.",
	 "Close one (`DELETE /-/agent/exec/sessions/<name>`), or wait until one has idled out.", RETRY_AFTER},
	{"abnormal-usage", 429, DRAFT "abnormal-usage-detected", "Request not satisfied due to detection of abnormal request pattern",
	 "Too many requests with a wrong token came from this address. A valid token is not affected, from the same address neither.",
	 "Stop sending the wrong token.", "With a valid token at once; else after `Retry-After`."},
	{"too-many-connections", 429, NULL, "This address has too many connections open",
	 "The client's address has as many connections as `MAX_CONNECTIONS_PER_ADDRESS` allows; this one was closed at once.",
	 "Use connections again instead of opening new ones, or ask the operator.", "Yes, when one of the others is closed."},
	{"header-too-large", 431, NULL, "The head of the request is too large", "The fields are larger than `MAX_HEAD_BYTES`, or too many.",
	 "Send fewer or smaller fields; large cookies are a frequent cause.", AFTER_FIX},
	{"internal", 500, NULL, "The gateway failed", "A defect of the gateway, or its machine is out of memory.",
	 "Tell the operator the `request_id`.", "A command may have run: look before you repeat it."},
	{"not-implemented", 501, NULL, "The gateway does not have this",
	 "The method is not known, or the transfer coding is not `chunked`.", "Use what HTTP/1.1 has.", AFTER_FIX},
	{"bad-upstream", 502, NULL, "Datasette did not answer properly",
	 "Datasette could not be reached, or its answer was broken; `detail` says how.", "Look at Datasette.",
	 "A GET or HEAD: yes. Others may have been carried out."},
	{"answer-head-too-large", 502, NULL, "The head of Datasette's answer is larger than the gateway passes on",
	 "A limit of the gateway: twice `MAX_HEAD_BYTES`, at least 64 KiB. Datasette repeats the target of a request in `Link` and `Location`.",
	 "Send a shorter target, or ask the operator to raise `MAX_HEAD_BYTES`.",
	 "No. What the request asked for may have been carried out."},
	{"loop", 502, NULL, "The request has been through this gateway already", "`DATASETTE_URL` leads back to the gateway.",
	 "The operator corrects the setting.", NEVER},
	{"outcome-unknown", 502, NULL, "It is not known whether the command ran to its end",
	 "The connection to the sandbox broke before the exit status came. What was received is in the answer; it is charged for what it "
	 "really used.",
	 "See what the command may have changed.", "Only a command that may run twice."},
	{"source-failed", 502, NULL, "Datasette did not give what the command was to read",
	 "`source_status` is the status of its answer, null when there was none; `detail` says more. With `may_have_run` false the command "
	 "was not started; otherwise the source broke in the middle and the command was killed before its input looked complete.",
	 "See that Datasette answers the source's path, with the caller's own `X-Datasette-Authorization` or cookie, with 200.", AFTER_FIX},
	{"not-started", 503, NULL, "The command was not started", "No sandbox could be had, or it was lost before the command was sent.",
	 "`detail` says what failed.", RETRY_AFTER},
	{"temporary-reduced-capacity", 503, DRAFT "temporary-reduced-capacity",
	 "Request cannot be satisfied due to temporary server capacity constraints",
	 "Every sandbox is in use and none is free in time, too much is under way, or the gateway is shutting down.",
	 "Wait; an operator may raise `POOL_MAX` or `POOL_HOT`.", RETRY_AFTER},
	{"policy-unavailable", 503, NULL, "Tokens and limits cannot be checked",
	 "Redis does not answer. Commands are refused then, with `REDIS_DOWN=degrade` but for a few; Datasette is not affected.",
	 "The operator looks at Redis: `spritegate doctor`.", RETRY_AFTER},
	{"identity-unavailable", 503, NULL, "Who the caller is cannot be found out",
	 "The request has no token, and Datasette did not answer in two seconds who its cookies or its `Authorization` stand for, or not in a form "
	 "that can be understood.",
	 "The operator looks at Datasette's `/-/actor.json`.", RETRY_AFTER},
	{"upstream-timeout", 504, NULL, "Datasette took too long", "Datasette did not answer in time.",
	 "Look at Datasette, or ask for less.", "A GET or HEAD: yes. Others may have been carried out."},
	{"version-not-supported", 505, NULL, "The HTTP version is not supported", "HTTP/1.1 and HTTP/1.0 are spoken here.",
	 "Use one of them.", AFTER_FIX},
};

const struct http_problem_type *http_problem_type_find(const char *code)
{
	for (size_t i = 0; i < ARRAY_LEN(types); i++)
		if (strcmp(types[i].code, code) == 0)
			return &types[i];
	return NULL;
}

int http_problem_types_document(struct buf *out)
{
	int r = buf_append(
		out,
		SLICE("# Problems\n\nMade by `spritegate help problems`: every `code` of an `application/problem+json` answer, by status.\n\n"
		      "`code` and `type` say the same and do not change between versions. Most types begin with\n"
		      "`" HTTP_PROBLEM_BASE "`: a name that leads nowhere, this page is what is behind it.\n"));
	for (size_t i = 0; r == 0 && i < ARRAY_LEN(types); i++) {
		const struct http_problem_type *type = &types[i];
		r = buf_printf(out, "\n## %s\n\n%u, type `%s%s`: %s.\n\n%s\n\nWhat to do: %s\n\nAgain? %s\n", type->code, type->status,
			       type->uri ? type->uri : HTTP_PROBLEM_BASE, type->uri ? "" : type->code, type->title, type->meaning,
			       type->advice, type->retry);
	}
	return r;
}
