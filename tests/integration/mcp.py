"""Messages of the Model Context Protocol as a test sends them, and checked answers."""
import itertools
import json

PATH = "/-/agent/exec/mcp"
STATELESS = "2026-07-28"
META = {"io.modelcontextprotocol/protocolVersion": STATELESS, "io.modelcontextprotocol/clientCapabilities": {}}
NUMBERS = itertools.count(1)


class Mcp:
    """A client that sends one message a request, in the older manner or in the stateless one."""

    def __init__(self, gateway, token=None, stateless=False):
        self.gateway, self.token, self.stateless = gateway, token or gateway.token, stateless

    def post(self, body, headers=None, token=None):
        """The answer to any body."""
        return self.gateway.http.post(PATH, content=body, headers={
            "Authorization": f"Bearer {token or self.token}", "Content-Type": "application/json", **(headers or {})})

    def message(self, method, params=None, number=None):
        """A request and its fields."""
        fields = {}
        if self.stateless:
            params = {**(params or {}), "_meta": META}
            fields = {"MCP-Protocol-Version": STATELESS, "Mcp-Method": method, **({"Mcp-Name": params["name"]} if "name" in params else {})}
        body = {"jsonrpc": "2.0", "id": next(NUMBERS) if number is None else number, "method": method}
        return body | ({"params": params} if params is not None else {}), fields

    def ask(self, method, params=None, headers=None, number=None, status=200):
        """The answer with its id checked."""
        body, fields = self.message(method, params, number)
        answer = self.post(json.dumps(body), {**fields, **(headers or {})})
        assert answer.status_code == status, f"{answer.status_code}: {answer.text[:1000]}"
        told = answer.json()
        assert (told["jsonrpc"], told["id"], type(told["id"])) == ("2.0", body["id"], type(body["id"])), told
        assert set(told) == {"jsonrpc", "id", "result"} or set(told) == {"jsonrpc", "id", "error"}, told
        return answer, told

    def result(self, method, params=None, **more):
        result = self.ask(method, params, **more)[1]["result"]
        assert ("resultType" in result) is self.stateless
        return result

    def error(self, method, params=None, **more):
        return self.ask(method, params, **more)[1]["error"]

    def call(self, tool, headers=None, **arguments):
        return Called(*self.ask("tools/call", {"name": tool, "arguments": arguments}, headers))

    def tools(self):
        return {tool["name"]: tool for tool in self.result("tools/list")["tools"]}


class Called:
    """What a tool gave."""

    def __init__(self, response, told):
        result = told["result"]
        self.headers, self.is_error, self.json = response.headers, result["isError"], result["structuredContent"]
        [content] = result["content"]
        assert set(content) == {"type", "text"} and content["type"] == "text" and json.loads(content["text"]) == self.json
        assert self.json["ok"] is not self.is_error or self.json["outcome"] != "exited"

    def __getattr__(self, name):
        try:
            return self.json[name]
        except KeyError:
            raise AttributeError(f"{name} is not in {self.json}") from None
