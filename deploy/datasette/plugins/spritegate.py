"""Gives Datasette Agent a tool that runs commands in sandboxes, through a Spritegate.

    datasette … --plugins-dir deploy/datasette/plugins     with datasette-agent installed

Setting: `plugins: {spritegate: {url: http://127.0.0.1:8080}}`. Secret: SPRITEGATE_TOKEN, a token of the gateway, by datasette-secrets or from the
environment; without it there are no tools. Permission: agent-exec.

Everybody shares the limits of that token. A command reads from Datasette what its actor may: the plugin asks Datasette for an API token of the actor
that is valid for minutes and goes to the gateway, never to the command or the model.
"""
import asyncio
import base64
import collections
import hashlib
import json
import os

import httpx
from datasette import hookimpl
from datasette.permissions import Action

PERMISSION = "agent-exec"
SECRET = "SPRITEGATE_TOKEN"
PATH = "/-/agent/exec"
DEFAULT_URL = "http://127.0.0.1:8080"

# Datasette Agent cuts what is longer than 10,000 characters of ASCII JSON, and keeps only the beginning. Two streams and the rest fit below that.
STREAM_CHARACTERS = 3500
PAGE_CHARACTERS = 8000

# The gateway answers every request; this is for one that is gone without a word.
SILENCE_SECONDS = 660
TRIES = 5
CREDENTIALS_SECONDS = 600
OUTPUTS_KEPT = 1000
# Of each stream: what the gateway keeps for a later read (1 MiB with both, as JSON).
OUTPUT_BYTES = 256 * 1024

SOURCE = {"oneOf": [{"type": "string"}, {"type": "object", "additionalProperties": False, "required": ["datasette"],
                                         "properties": {"datasette": {"type": "string", "description": "Path and query, such as /db/table.csv?_stream=on"}}}]}

# Whose command it was, of those whose output was cut: the gateway only knows that all of them are this Datasette's.
owners = collections.OrderedDict()


class Refused(Exception):
    """What the model is told."""


async def token(datasette):
    """The gateway's, or None."""
    try:
        from datasette_secrets import get_secret
    except ImportError:
        return os.environ.get(SECRET)
    return await get_secret(datasette, SECRET) or os.environ.get(SECRET)


async def credentials(datasette, actor):
    """With which Datasette is read in the actor's name; nothing is read as anybody with more rights."""
    if not actor or actor.get("id") is None:
        return {}
    if "_r" in actor:
        raise Refused("Data of Datasette cannot be read in the name of a restricted API token.")
    try:
        made = await datasette.create_token(str(actor["id"]), expires_after=CREDENTIALS_SECONDS)
    except (RuntimeError, ValueError) as error:
        raise Refused(f"Data of Datasette cannot be read: {error}") from None
    return {"X-Datasette-Authorization": f"Bearer {made}"}


def has_sources(fields):
    files = fields.get("files")
    return any(isinstance(source, dict) for source in (fields.get("stdin"), *(files.values() if isinstance(files, dict) else ())))


async def ask(datasette, method, path, headers=None, **more):
    """The gateway's answer and status. A request with an idempotency key is sent again when the connection breaks: it runs at most once."""
    config = datasette.plugin_config("spritegate") or {}
    headers = {"Authorization": f"Bearer {await token(datasette)}", **(headers or {})}
    tries = TRIES if "Idempotency-Key" in headers else 1
    async with httpx.AsyncClient(base_url=config.get("url", DEFAULT_URL), timeout=httpx.Timeout(SILENCE_SECONDS, connect=10), trust_env=False) as client:
        while True:
            tries -= 1
            try:
                answer = await client.request(method, path, headers=headers, **more)
                body = answer.json()
            except (httpx.TransportError, ValueError) as error:
                if not tries:
                    raise Refused(f"The gateway cannot be reached ({type(error).__name__}). Whether the command ran is not known.") from None
                await asyncio.sleep(1)
                continue
            if not isinstance(body, dict):
                raise Refused("The gateway's answer makes no sense.")
            if body.get("code") != "idempotency-in-progress" or not tries:
                return body
            await asyncio.sleep(2)


def refusal(body):
    """A problem of the gateway, in words."""
    faults = "".join(f" {fault['pointer']}: {fault['detail']}." for fault in body.get("errors", []))
    return f"{body.get('detail', body.get('title', 'refused'))}{faults} ({body.get('code')})"


def text_of(body, stream):
    text = body.get(stream) or ""
    if body.get("encoding", {}).get(stream) == "base64":
        text = base64.b64decode(text).decode("utf-8", errors="replace")
    return text


def width(text):
    """How many characters of JSON in ASCII it is."""
    return len(json.dumps(text)) - 2


def beginning(text, most):
    """As much of it as fits."""
    low, high = 0, min(len(text), most)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if width(text[:middle]) <= most else (low, middle - 1)
    return text[:low]


def shortened(text, most=STREAM_CHARACTERS):
    """The text, or its beginning and its end."""
    if width(text) <= most:
        return text
    head = beginning(text, most // 2)
    tail = beginning(text[len(head):][::-1], most // 2)[::-1]
    return f"{head}\n[… {len(text) - len(head) - len(tail)} characters left out …]\n{tail}"


def remember(exec_id, actor):
    owners[exec_id] = (actor or {}).get("id")
    if len(owners) > OUTPUTS_KEPT:
        owners.popitem(last=False)


def result_of(body, actor):
    """What a command printed and how it ended; more is told only when that is not plain."""
    texts = {stream: text_of(body, stream) for stream in ("stdout", "stderr")}
    result = {stream: shortened(text) for stream, text in texts.items()} | {"exit_code": body.get("exit_code")}
    if body["outcome"] != "exited":
        result["outcome"] = body["outcome"]
    if not body["ok"]:
        result["error"] = refusal(body)
    lost = [stream for stream in texts if body.get(f"{stream}_truncated")]
    if lost:
        result["truncated"] = lost
    if any(result[stream] != text for stream, text in texts.items()):
        remember(body["exec_id"], actor)
        result |= {"exec_id": body["exec_id"], "note": "Parts were left out; read_command_output reads them."}
    return result


async def run_command(datasette, actor, context, **arguments):
    headers, fields = {}, {"max_output_bytes": OUTPUT_BYTES} | {name: value for name, value in arguments.items() if value is not None}
    if context.conversation_id and context.tool_call_id:
        call = json.dumps([context.conversation_id, context.tool_call_id])
        headers["Idempotency-Key"] = hashlib.sha256(call.encode()).hexdigest()
    try:
        if has_sources(fields):
            headers |= await credentials(datasette, actor)
        body = await ask(datasette, "POST", PATH, headers, json=fields)
    except Refused as refused:
        return json.dumps({"error": str(refused)})
    if body.get("outcome") in (None, "not_started"):
        return json.dumps({"error": refusal(body)})
    return json.dumps(result_of(body, actor))


async def read_command_output(datasette, actor, exec_id, stream="stdout", offset=0):
    gone = json.dumps({"error": "Nothing is known of this command any more."})
    if exec_id not in owners or owners[exec_id] != (actor or {}).get("id") or stream not in ("stdout", "stderr"):
        return gone
    try:
        body = await ask(datasette, "GET", f"{PATH}/{exec_id}")
    except Refused as refused:
        return json.dumps({"error": str(refused)})
    if stream not in body:
        return gone
    text = text_of(body, stream)
    piece = beginning(text[max(0, offset):], PAGE_CHARACTERS)
    end = max(0, offset) + len(piece)
    return json.dumps({"text": piece, "next_offset": end if end < len(text) else None, "length": len(text)})


@hookimpl
def register_actions(datasette):
    return [Action(name=PERMISSION, description="Run commands in sandboxes")]


@hookimpl
def register_secrets(datasette):
    from datasette_secrets import Secret
    return [Secret(name=SECRET, description="Token of the Spritegate that runs commands")]


@hookimpl
async def register_agent_tools(datasette):
    if not await token(datasette):
        return []
    from datasette_agent.tools import AgentTool
    return [
        AgentTool(
            name="run_command",
            description=("Run a shell command in a fresh isolated Linux sandbox, which is destroyed afterwards. Pass data of Datasette by path, in stdin or files, as "
                         "{\"datasette\": \"/database/table.csv?_stream=on\"}: do not copy it. There is no network unless the operator allows some."),
            input_schema={
                "type": "object", "required": ["command"], "additionalProperties": False,
                "properties": {
                    "command": {"type": "string", "description": "A shell line, run by bash -lc"},
                    "stdin": SOURCE | {"description": "Standard input: a text, or a path of Datasette"},
                    "files": {"type": "object", "additionalProperties": SOURCE, "description": "Files that are there when the command begins, by path"},
                    "timeout_seconds": {"type": "number", "description": "Longest run time"}}},
            fn=run_command, required_permission=PERMISSION),
        AgentTool(
            name="read_command_output",
            description="Read what run_command left out of a long output, within an hour.",
            input_schema={
                "type": "object", "required": ["exec_id"], "additionalProperties": False,
                "properties": {
                    "exec_id": {"type": "string"}, "stream": {"type": "string", "enum": ["stdout", "stderr"], "default": "stdout"},
                    "offset": {"type": "integer", "minimum": 0, "default": 0, "description": "In characters"}}},
            fn=read_command_output, required_permission=PERMISSION)]
