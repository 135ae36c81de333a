"""POST /-/agent/exec/mcp: the endpoint's commands as tools, in both manners of the protocol."""
import json
import signal
import threading

import jsonschema
import pytest

from answers import MEMBERS, problem
from mcp import META, PATH, STATELESS, Called, Mcp
from processes import new_mark, running
from rig import PATIENCE, TOP, until
from sources import shared, upstream  # noqa: F401
from wire import Wire

PAGE = json.loads((TOP / "gateway/endpoint/openapi.json").read_text(encoding="utf-8"))
PING = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'


@pytest.fixture(params=[False, True], ids=["older", "stateless"])
def mcp(stack, request):
    return Mcp(stack, stateless=request.param)


@pytest.fixture
def older(stack):
    return Mcp(stack)


# -- what a session begins with --------------------------------------------------------------------

def test_initialize(older):
    for asked, agreed in [("2025-11-25", "2025-11-25"), ("2025-06-18", "2025-06-18"), ("2025-03-26", "2025-03-26"), ("1999-01-01", "2025-11-25")]:
        answer, told = older.ask("initialize", {"protocolVersion": asked, "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}})
        result = told["result"]
        assert result["protocolVersion"] == agreed and result["capabilities"] == {"tools": {}}
        assert result["serverInfo"]["name"] == "spritegate" and result["serverInfo"]["version"] and "Mcp-Session-Id" not in answer.headers
    assert older.result("ping") == {}
    assert older.error("server/discover", status=400)["code"] == -32602


def test_discover(stack):
    result = Mcp(stack, stateless=True).result("server/discover")
    assert result["supportedVersions"] == [STATELESS] and result["capabilities"] == {"tools": {}} and result["resultType"] == "complete"
    assert result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"] == "spritegate" and result["ttlMs"] >= 0


def test_notifications_have_no_answer(older):
    for body in (b'{"jsonrpc":"2.0","method":"notifications/initialized"}', b'{"jsonrpc":"2.0","id":1,"result":{}}',
                 b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}'):
        answer = older.post(body)
        assert (answer.status_code, answer.content) == (202, b"") and "Content-Type" not in answer.headers


# -- tools -----------------------------------------------------------------------------------------

def test_tools(stack, mcp):
    tools = mcp.tools()
    assert list(tools) == ["run_command", "read_file", "write_file"]
    request = dict(PAGE["components"]["schemas"]["Request"])
    del request["examples"]
    schema = dict(tools["run_command"]["inputSchema"])
    assert schema.pop("$schema") == "https://json-schema.org/draft/2020-12/schema" and schema == request
    for tool in tools.values():
        jsonschema.Draft202012Validator.check_schema(tool["inputSchema"])
        jsonschema.Draft202012Validator.check_schema(tool["outputSchema"])
    few = Mcp(stack, stack.mint()["token"], stateless=mcp.stateless)
    assert list(few.tools()) == ["run_command"]


def test_the_policy_of_the_token(stack):
    limited = Mcp(stack, stack.mint(rate="60/1m", burst=5, conc=3, budget="600s/day", budget_out="1MiB/day", max_in="1KiB", max_procs=64, max_file="1MiB", sessions=2,
                                    egress="defaults,a.test")["token"])
    policies = [tool["_meta"]["executionPolicy"] for tool in limited.tools().values()]
    assert len(policies) == 3 and all(policy == policies[0] for policy in policies)
    assert policies[0] == {
        "isolation": "microvm", "lifetime": "one command, or one session", "network": "allowed domains", "egress": ["defaults", "a.test"],
        "timeout_seconds": {"default": 30, "max": 300}, "max_output_bytes": 4 * 1024 * 1024, "max_input_bytes": 1024, "max_processes": 64, "max_file_bytes": 1024 * 1024, "max_memory_bytes": None, "max_sessions": 2,
        "rate": {"limit": 60, "window_seconds": 60, "burst": 5}, "actor_rate": None, "concurrency": {"limit": 3}, "actor_concurrency": None,
        "budget": {"limit_ms": 600_000}, "output_budget": {"limit_bytes": 1024 * 1024}}
    closed = Mcp(stack, stack.mint()["token"]).tools()["run_command"]["_meta"]["executionPolicy"]
    assert (closed["network"], closed["egress"], closed["max_sessions"]) == ("none", [], 0)


def as_declared(mcp, tool, called):
    jsonschema.validate(called.json, mcp.tools()[tool]["outputSchema"], jsonschema.Draft202012Validator)
    return called


@pytest.mark.smoke
def test_a_command(mcp):
    ran = as_declared(mcp, "run_command", mcp.call("run_command", argv=["sh", "-c", "cat; echo $A \"quoted\" ü; exit 7"], stdin="in\n", env={"A": "1"}))
    assert set(ran.json) == MEMBERS and (ran.is_error, ran.exit_code, ran.stdout) == (False, 7, "in\n1 quoted ü\n")
    assert ran.headers["X-Exec-Id"] == ran.exec_id and "RateLimit" in ran.headers and "Exec-Usage" in ran.headers
    binary = mcp.call("run_command", command="printf '\\377\\000'")
    assert (binary.stdout, binary.json["encoding"]["stdout"]) == ("/wA=", "base64")


def test_large_output(older):
    ran = older.call("run_command", command="yes '\"\\' | head -c 3000000", max_output_bytes=4_000_000)
    assert not ran.is_error and ran.stdout == ('"\\\n' * 1_000_000) and not ran.stdout_truncated


def test_no_more_output_than_a_tool_may_have(older):
    """A result has it twice; the gateway would allow a request more."""
    ran = older.call("run_command", command="head -c 5000000 /dev/zero | tr '\\0' a", max_output_bytes=5_000_000)
    assert not ran.is_error and ran.stdout_truncated and ran.stdout_bytes == 5_000_000 and len(ran.stdout) < 4.1 * 1024 * 1024


def test_data_of_datasette(older):
    read = older.call("run_command", command="jq -r .datasette.version", stdin={"datasette": "/-/versions.json"})
    assert read.exit_code == 0 and read.stdout.strip()
    failed = older.call("run_command", command="cat", stdin={"datasette": "/no/such"})
    assert failed.is_error and (failed.code, failed.source_status, failed.outcome) == ("source-failed", 404, "not_started")


def test_files_of_a_session(stack, mcp):
    name = "mcp-" + ("stateless" if mcp.stateless else "older")
    wrote = as_declared(mcp, "write_file", mcp.call("write_file", session=name, path="a/-b", text="grüße\n", mode="600"))
    assert (wrote.is_error, wrote.exit_code, wrote.sandbox["session"]) == (False, 0, {"name": name, "created": True})
    assert mcp.call("run_command", session=name, command="stat -c '%a' ~/a/-b").stdout == "600\n"
    read = as_declared(mcp, "read_file", mcp.call("read_file", session=name, path="a/-b"))
    assert (read.is_error, read.exit_code, read.stdout) == (False, 0, "grüße\n")
    mcp.call("write_file", session=name, path="/home/sprite/-", base64="/w==")
    assert mcp.call("read_file", session=name, path="-").json["encoding"]["stdout"] == "base64"
    mcp.call("write_file", session=name, path="versions", datasette="/-/versions.json")
    assert "python" in json.loads(mcp.call("read_file", session=name, path="versions").stdout)
    gone = mcp.call("read_file", session=name, path="/no/such")
    assert (gone.is_error, gone.exit_code) == (False, 1) and "No such file" in gone.stderr
    stack.http.delete(f"/-/agent/exec/sessions/{name}", headers={"Authorization": f"Bearer {stack.token}"})


# -- answers that are long in coming --------------------------------------------------------------

EVENTS = {"Accept": "application/json, text/event-stream"}


def events(answer):
    """Each event's message, or None for a comment, as they come."""
    block = []
    for line in answer.iter_lines():
        if line:
            block.append(line)
            continue
        if block[0].startswith(":"):
            assert len(block) == 1
            yield None
        else:
            assert block[0] == "event: message" and block[1].startswith("data: ") and len(block) == 2, block
            yield json.loads(block[1].removeprefix("data: "))
        block = []
    assert not block, f"the stream ends within an event: {block}"


@pytest.mark.parametrize("token", [None, "p", "\x01" * 256], ids=["none", "short", "longest"])
def test_signs_of_life(upstream, token):
    """While its input is held back; then the result is the last event."""
    go_on = threading.Event()

    @upstream.on("/x")
    def answer(exchange):
        exchange.reply("200 OK", "Transfer-Encoding: chunked", length=False)
        exchange.chunk(b"a")
        go_on.wait(120)
        exchange.chunk(b"b")
        exchange.chunk(b"")
    mcp = Mcp(upstream.gateway, stateless=token == "p")
    params = {"name": "run_command", "arguments": {"command": "cat; exit 3", "stdin": {"datasette": "/x"}, "timeout_seconds": 100}}
    body, fields = mcp.message("tools/call", params)
    if token is not None:
        body["params"]["_meta"] = body["params"].get("_meta", {}) | {"progressToken": token}
    headers = {"Authorization": f"Bearer {mcp.token}", **fields, **EVENTS}
    signs, last = [], None
    with upstream.gateway.http.stream("POST", PATH, json=body, headers=headers, timeout=PATIENCE) as answer:
        assert (answer.status_code, answer.headers["Content-Type"], answer.headers["X-Accel-Buffering"]) == (200, "text/event-stream", "no")
        assert "RateLimit" in answer.headers and answer.headers["X-Exec-Id"]
        for event in events(answer):
            assert last is None, f"{event} after the result"
            if event is not None and "id" in event:
                last = event
            else:
                signs.append(event)
                go_on.set()
    assert signs and last["id"] == body["id"]
    called = Called(answer, last)
    assert (called.exit_code, called.stdout, called.is_error) == (3, "ab", False)
    if token is None:
        assert set(signs) == {None}
    else:
        assert all(sign["method"] == "notifications/progress" and sign["params"]["progressToken"] == token for sign in signs), signs
        assert signs[0]["params"]["progress"] >= 4


def test_a_tool_that_fails_late(upstream):
    """Its problem is the last event; an integer comes back as such."""
    go_on = threading.Event()

    @upstream.on("/x")
    def answer(exchange):
        exchange.reply("200 OK", "Transfer-Encoding: chunked", length=False)
        exchange.chunk(b"a")
        go_on.wait(120)
        exchange.hang_up()
    mcp = Mcp(upstream.gateway)
    body, _ = mcp.message("tools/call", {"name": "run_command", "arguments": {"command": "cat", "stdin": {"datasette": "/x"}, "timeout_seconds": 100},
                                      "_meta": {"progressToken": 7}})
    found = []
    with upstream.gateway.http.stream("POST", PATH, json=body, headers={"Authorization": f"Bearer {mcp.token}", **EVENTS}, timeout=PATIENCE) as answer:
        for event in events(answer):
            go_on.set()
            found.append(event)
    assert found[0]["params"]["progressToken"] == 7 and type(found[0]["params"]["progressToken"]) is int
    called = Called(answer, found[-1])
    assert called.is_error and (called.code, called.outcome, called.stdout) == ("source-failed", "canceled", "a")


def test_closing_the_stream_cancels(older):
    mark = new_mark()
    body, _ = older.message("tools/call", {"name": "run_command", "arguments": {"command": f"sleep {mark}", "timeout_seconds": 200}})
    with older.gateway.http.stream("POST", PATH, json=body, headers={"Authorization": f"Bearer {older.token}", **EVENTS}, timeout=PATIENCE) as answer:
        signs = events(answer)   # which closes when nobody has it any more
        assert next(signs) is None
        until(lambda: running(mark), "the command runs")
    until(lambda: not running(mark), "it is gone")


def test_a_quick_tool_answers_with_json(older):
    answer, told = older.ask("tools/call", {"name": "run_command", "arguments": {"command": "true"}}, EVENTS)
    assert answer.headers["Content-Type"] == "application/json" and told["result"]["isError"] is False


# -- what did not go well --------------------------------------------------------------------------

def test_refusals_are_results(stack, mcp):
    """The problem that HTTP would have been told."""
    wrong = as_declared(mcp, "run_command", mcp.call("run_command", command=1, other=2))
    assert wrong.is_error and (wrong.code, wrong.status) == ("invalid-request", 422)
    assert {fault["pointer"] for fault in wrong.errors} == {"/command", "/other"}
    assert mcp.call("read_file", session="a", path="b", command="id").errors[0]["pointer"] == "/command"
    assert mcp.call("write_file", path="b", text="").errors[0]["pointer"] == "/session"
    assert Mcp(stack, stack.mint()["token"], mcp.stateless).call("run_command", command="true", session="a").code == "session-denied"
    only_cat = Mcp(stack, stack.mint(cmd="cat")["token"], mcp.stateless)
    assert only_cat.call("run_command", argv=["cat"]).exit_code == 0 and only_cat.call("run_command", command="true").code == "command-denied"
    once = Mcp(stack, stack.mint(rate="1/1h", burst=1)["token"], mcp.stateless)
    assert not once.call("run_command", command="true").is_error
    full = once.call("run_command", command="true")
    assert full.is_error and full.code == "quota-exceeded" and full.retry_after > 0 and full.headers["RateLimit"]
    once.tools()     # nothing but a command uses up anything


def replayed(call):
    """What is kept of a command is there shortly after its answer."""
    return until(lambda: (got := call()).json.get("code") != "idempotency-in-progress" and got, "it is replayed")


def test_done_once(older):
    headers = {"Idempotency-Key": f"mcp-{new_mark()}"}
    command = "date +%s%N; printf '\\0'; exit 3"
    first = older.call("run_command", headers, command=command)
    again = replayed(lambda: older.call("run_command", headers, command=command))
    assert again.headers["Idempotency-Replayed"] == "true" and not again.is_error and again.stdout == first.stdout
    assert older.call("run_command", headers, command="other").code == "idempotency-mismatch"


def test_what_did_not_exit_is_an_error(older):
    """Also when it is replayed."""
    headers = {"Idempotency-Key": f"mcp-{new_mark()}"}
    cut = older.call("run_command", headers, argv=["sleep", "60"], timeout_seconds=3)
    assert (cut.is_error, cut.outcome, cut.exit_code) == (True, "timed_out", None)
    again = replayed(lambda: older.call("run_command", headers, argv=["sleep", "60"], timeout_seconds=3))
    assert (again.is_error, again.outcome, again.exec_id) == (True, "timed_out", cut.exec_id)


def test_failures(rig):
    emulator, store = rig.emulator().view, rig.redis()
    gateway = rig.gateway(redis=store, emulator=emulator, pool_hot=1)
    mcp = Mcp(gateway)
    gateway.until_ready()
    with emulator.faulty("cut_before_exit", rate=1):
        lost = mcp.call("run_command", command="echo x")
    assert lost.is_error and (lost.code, lost.outcome, lost.may_have_run, lost.status) == ("outcome-unknown", "unknown", True, 502)
    store.signal(signal.SIGSTOP)
    try:
        for body in (mcp.message("tools/list")[0], mcp.message("tools/call", {"name": "run_command", "arguments": {"command": "true"}})[0]):
            problem(mcp.post(json.dumps(body)), 503, "policy-unavailable")
    finally:
        store.signal(signal.SIGCONT)


def test_a_token_comes_first(stack, older):
    """Whatever the message is."""
    revoked = stack.mint()["token"]
    wrong = revoked[:-1] + ("0" if revoked[-1] != "0" else "1")
    for body in (PING, b"{", b"[]", b'{"jsonrpc":"2.0","method":"notifications/initialized"}',
                 b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"run_command","arguments":{"command":"true"}}}'):
        problem(stack.http.post(PATH, content=body, headers={"Content-Type": "application/json"}), 401, "missing-token")
        problem(older.post(body, token=wrong), 401, "invalid-token")
        problem(older.post(body, token="sgt_" + "0" * 60), 401, "invalid-token")
    unknown = Mcp(stack, "sgt_" + "A" * 16)
    assert unknown.post(PING).status_code == 401


def test_what_is_no_message(older):
    for body, status, code in [(b"{", 400, -32700), (b"", 400, -32700), (b"[" + PING + b"]", 400, -32600), (b"1", 400, -32600),
                               (b'{"jsonrpc":"1.0","id":1,"method":"ping"}', 400, -32600), (b'{"jsonrpc":"2.0","id":null,"method":"ping"}', 400, -32600),
                               (b'{"jsonrpc":"2.0","id":1,"method":"ping","id":2}', 400, -32700), (b"[" * 100_000, 400, -32700)]:
        answer = older.post(body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    problem(older.post(b"x" * 17_000_000), 413, "body-too-large")
    for kind in ("text/plain", "multipart/form-data; boundary=x"):
        problem(older.post(PING, {"Content-Type": kind}), 415, "unsupported-media-type")


def test_methods_and_tools_that_are_not_there(mcp):
    status = (404, 400) if mcp.stateless else (200, 200)
    assert mcp.error("prompts/list", status=status[0])["code"] == -32601
    assert mcp.error("tools/call", {"name": "format_disk"}, status=status[1])["code"] == -32602


@pytest.mark.parametrize("number", [0, -1, 2 ** 53, "", "1", "ü \" \\ \n", "x" * 256])
def test_ids(older, number):
    older.result("ping", number=number)


@pytest.mark.parametrize("version", ["2025-11-25", "2025-06-18", "2025-03-26"])
def test_versions_of_the_older_manner(older, version):
    older.result("ping", headers={"MCP-Protocol-Version": version})


def test_versions_that_are_not_known(stack, older):
    known = older.error("ping", headers={"MCP-Protocol-Version": "1999-01-01"}, status=400)
    assert (known["code"], known["data"]) == (-32022, {"supported": [STATELESS], "requested": "1999-01-01"})
    mcp = Mcp(stack, stateless=True)
    assert mcp.error("tools/list", headers={"MCP-Protocol-Version": "2025-11-25"}, status=400)["code"] == -32020
    assert mcp.error("tools/list", headers={"Mcp-Method": "tools/call"}, status=400)["code"] == -32020
    assert mcp.error("tools/call", {"name": "run_command", "arguments": {}}, headers={"Mcp-Name": "other"}, status=400)["code"] == -32020
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": META}}
    assert older.post(json.dumps(body)).json()["error"]["code"] == -32020


# -- who may ask -----------------------------------------------------------------------------------

def test_foreign_pages(stack, older):
    """A page under another name, and one whose name was made to mean this address (DNS rebinding)."""
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Host": "evil.example"},
                    {"Host": "evil.example", "Origin": "http://evil.example"}, {"Host": f"localhost.evil.example:{stack.port}"}):
        problem(older.post(PING, headers), 403, "foreign-origin")
        assert stack.http.request("OPTIONS", PATH, headers=headers).status_code == 403
    for headers in ({"Origin": "http://localhost:5173"}, {"Host": "localhost"}, {"Host": "[::1]:1", "Origin": "http://127.0.0.1"}):
        assert older.post(PING, headers).json()["result"] == {}
    assert stack.exec(headers={"Origin": "https://evil.example"}, command="true").status_code == 200     # not of the other paths


def test_names_that_are_allowed(rig):
    mcp = Mcp(rig.gateway(mcp_hosts="data.example, chat.example"))
    for host in ("data.example", "DATA.example:8443", "localhost"):
        assert mcp.post(PING, {"Host": host, "Origin": "https://chat.example"}).status_code == 200
        problem(mcp.post(PING, {"Host": host, "Origin": "https://evil.example"}), 403, "foreign-origin")
    problem(mcp.post(PING, {"Host": "other.example"}), 403, "foreign-origin")


def test_other_methods(stack):
    for method in ("GET", "DELETE", "PUT"):
        refused = stack.http.request(method, PATH, headers={"Authorization": f"Bearer {stack.token}"})
        problem(refused, 405, "method-not-allowed")
        assert refused.headers["Allow"] == "POST, OPTIONS"
    asked = stack.http.request("OPTIONS", PATH, headers={"Origin": "http://localhost:1", "Access-Control-Request-Method": "POST"})
    assert asked.status_code == 204 and {"Mcp-Method", "Mcp-Name", "MCP-Protocol-Version"} <= set(asked.headers["Access-Control-Allow-Headers"].split(", "))


# -- the end ---------------------------------------------------------------------------------------

def test_closing_cancels(stack, mcp):
    """In both manners: who has left could not be told the outcome."""
    token = stack.mint(conc=1)["token"]
    mark = new_mark()
    body, fields = Mcp(stack, token, mcp.stateless).message("tools/call", {"name": "run_command", "arguments": {"command": f"sleep {mark}"}})
    content = json.dumps(body).encode()
    lines = {"Host": f"localhost:{stack.port}", "Authorization": f"Bearer {token}", "Content-Type": "application/json", "Content-Length": len(content), **fields}
    wire = Wire(stack.port)
    wire.send(f"POST {PATH} HTTP/1.1\r\n".encode() + b"".join(f"{name}: {value}\r\n".encode() for name, value in lines.items()) + b"\r\n" + content)
    until(lambda: running(mark), "it runs")
    wire.close()
    until(lambda: not running(mark), "it was killed")
    stack.until_settled(token)


def test_the_log_has_commands_and_nothing_of_them(rig):
    gateway = rig.gateway(pool_hot=1)
    mcp = Mcp(gateway)
    mcp.tools()
    ran = mcp.call("run_command", command="echo a-secret-word")
    line = gateway.until_logged(lambda line: line.get("exec_id") == ran.exec_id)
    assert (line["route"], line["path"], line["outcome"], line["kid"]) == ("exec", PATH, "exited", gateway.kid)
    listed = gateway.until_logged(lambda line: line["path"] == PATH and "exec_id" not in line)
    assert (listed["status"], listed["kid"]) == (200, gateway.kid)
    for text in ("a-secret-word", gateway.token):
        assert text not in gateway.out + gateway.log + gateway.metrics().text
