"""Gives Datasette Agent tools that run commands in sandboxes, through a Spritegate.

    datasette … --plugins-dir deploy/datasette/plugins     with datasette-agent installed,
    pip install deploy/datasette/plugins                   or so, for every Datasette of that Python

Settings: `plugins: {spritegate: {url: http://127.0.0.1:8080, sprites: true, sprites_per_actor: 3, timeout_seconds: 300}}`. Secret:
SPRITEGATE_TOKEN, a token of the gateway, by datasette-secrets or from the environment; without it there are no tools. Permission: agent-exec.

`sprites` are the tools of datasette-agent-sprites by the same names. A Sprite is a session of the gateway here, and belongs to one actor.

Everybody shares the limits of that token. A command reads from Datasette what its actor may: the plugin asks Datasette for an API token of the actor
that is valid for minutes and goes to the gateway, never to the command or the model.
"""
import asyncio
import base64
import collections
import functools
import hashlib
import html
import inspect
import json
import mimetypes
import os
import posixpath
import re
import secrets
import time
import urllib.parse
import weakref

from datasette import Forbidden, Response, hookimpl
from datasette.permissions import Action
from datasette.plugins import pm
from datasette.utils import StartupError

try:
    import httpx2 as httpx
except ImportError:     # Datasette before 1.0a40
    import httpx

PERMISSION = "agent-exec"
SECRET = "SPRITEGATE_TOKEN"
PATH = "/-/agent/exec"
FILE_PATH = "/-/agent/sprite-file/"
SETTINGS = {"url": "http://127.0.0.1:8080", "sprites": True, "sprites_per_actor": 3, "timeout_seconds": 300}

# Datasette Agent cuts what is longer than 10,000 characters of ASCII JSON, and keeps only the beginning. Two streams and the rest fit below that.
STREAM_CHARACTERS = 3500
PAGE_CHARACTERS = 8000
PATH_CHARACTERS = 4500       # twice

# The gateway answers every request; this, and the time of the command, is for one that is gone without a word.
SILENCE_SECONDS = 660
LONGEST_SECONDS = 3600      # no gateway lets a command run for longer
TRIES = 5
RETRY_SECONDS = 4       # half of it before the last try, half of that before the one before, …
# A session whose gateway died is busy for so long at most, and one that another Datasette uses for the time of its command.
BUSY_SECONDS = 120
BUSY = ("idempotency-in-progress", "session-busy")
CREDENTIALS_SECONDS = 600
OUTPUTS_KEPT = 1000
CALLS_KEPT = 10_000
# Of each stream: with both the answer is one that the gateway keeps for a later read (1 MiB of JSON, in which a byte may take 6).
OUTPUT_BYTES = 80 * 1024
FILE_BYTES = 4 * 1024 * 1024
# Files that were shown are kept so long, and of one actor so many bytes of the newest.
FILES_SECONDS = 30 * 86400
FILES_BYTES = 64 * 1024 * 1024
FILES_TABLE = """
create table if not exists spritegate_files (
    number integer primary key, id text not null unique, actor text not null, file_name text not null, content_type text not null,
    content blob not null, read_at integer not null)"""

# A session's name has 64 characters: this, a dot and the 16 of its actor.
SPRITE_NAME = re.compile("[a-z0-9]([a-z0-9-]{0,45}[a-z0-9])?")
RUNS_ON_SECONDS = 60

IMAGES = frozenset(".bmp .gif .ico .jpeg .jpg .png .svg .webp".split())
TEXTS = frozenset(".bash .c .cfg .cmake .conf .cpp .css .csv .env .fish .go .h .hpp .html .ini .java .js .json .jsx .md .py .rb .rs .rst .sh .sql .toml .ts"
                  " .tsx .txt .xml .yaml .yml .zsh".split())
FILE_ERRORS = {"not_found": "file not found (ENOENT)", "is_directory": "is a directory (EISDIR)", "denied": "permission denied (EACCES)"}

SOURCE = {"oneOf": [{"type": "string"}, {"type": "object", "additionalProperties": False, "required": ["datasette"],
                                         "properties": {"datasette": {"type": "string", "description": "Path and query, such as /db/table.csv?_stream=on"}}}]}

# Whose command it was, of those whose output was cut: the gateway only knows that all of them are this Datasette's.
owners = collections.OrderedDict()

# Of what takes turns, in the order of the calls: a Sprite runs one command at a time, a model calls several tools at once.
turns = weakref.WeakValueDictionary()


# Of calls of tools, by what they are known by: how many have ended. Some models count their calls anew in each turn.
ended = collections.OrderedDict()


class Refused(Exception):
    """What the model is told."""


class Lost(Refused):
    """Nobody knows what became of the call: the same one once more asks for that."""


def check_arguments(known, arguments):
    """A model may give what the tool's description does not offer, and leave out what it asks for."""
    unknown = sorted(arguments.keys() - known.keys())
    if unknown:
        raise Refused(f"There is no parameter {', '.join(unknown)}; nothing was done.")
    for name, parameter in known.items():
        given, wanted = arguments.get(name, parameter.default), parameter.annotation
        if given is parameter.empty or (wanted is not parameter.empty and given is not parameter.default and type(given) is not wanted):
            raise Refused(f"Parameter {name} is missing, or of the wrong type; nothing was done.")


def tool(function):
    """Its result as JSON, a refusal as well."""
    known = inspect.signature(function).parameters

    @functools.wraps(function)
    async def told(**arguments):
        try:
            check_arguments(known, arguments)
            result = await function(**arguments)
        except Refused as refused:
            result = {"error": shortened(str(refused), PAGE_CHARACTERS)}
            if isinstance(refused, Lost):
                return json.dumps(result)
        has_ended(arguments.get("context"))
        return json.dumps(result)
    return told


def settings(datasette):
    return SETTINGS | (datasette.plugin_config("spritegate") or {})


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
    return any(isinstance(source, dict) and "datasette" in source for source in (fields.get("stdin"), *(files.values() if isinstance(files, dict) else ())))


@functools.cache
def certificates():
    """Reading them takes milliseconds."""
    return httpx.create_ssl_context(trust_env=False)


def patience(fields):
    """How long the gateway may be silent before it answers this command, whose time nobody has checked yet."""
    asked = fields.get("timeout_seconds")
    return SILENCE_SECONDS + (max(0, min(asked, LONGEST_SECONDS)) if isinstance(asked, (int, float)) else 0)


async def ask(datasette, method, path, headers=None, repeatable=False, **more):
    """The gateway's answer. What is repeatable, or has an idempotency key and so runs at most once, is sent again when the connection breaks."""
    headers = {"Authorization": f"Bearer {await token(datasette)}", **(headers or {})}
    timeout = httpx.Timeout(patience(more.get("json", {})), connect=10)
    if "json" in more:      # what is no JSON, half a character for instance, is for the gateway to refuse
        headers["Content-Type"], more = "application/json", {"content": json.dumps(more["json"])}
    tries = TRIES if repeatable or "Idempotency-Key" in headers else 1
    give_up = None
    async with httpx.AsyncClient(base_url=settings(datasette)["url"], timeout=timeout, verify=certificates(), trust_env=False) as client:
        while True:
            try:
                answer = await client.request(method, path, headers=headers, **more)
                body = answer.json()
            except (httpx.TransportError, ValueError) as error:
                tries -= 1
                if not tries:
                    doubt = "" if method == "GET" else " Whether the command ran is not known."
                    raise Lost(f"The gateway cannot be reached ({type(error).__name__}).{doubt}") from None
                await asyncio.sleep(RETRY_SECONDS / 2 ** tries)
                continue
            if not isinstance(body, dict):
                raise Refused("The gateway's answer makes no sense.")
            give_up = give_up or time.monotonic() + BUSY_SECONDS
            if body.get("code") not in BUSY or time.monotonic() > give_up:
                return body
            await asyncio.sleep(1)


def call_of(context):
    """What a call of a tool is known by, or None."""
    if not context or not context.conversation_id or not context.tool_call_id:
        return None
    call = json.dumps([context.conversation_id, context.tool_call_id, context.tool_name, context.arguments], sort_keys=True)
    return hashlib.sha256(call.encode()).hexdigest()


def once(context):
    """The header with which this call of a tool runs its command once, however often it is sent until it has ended. One that comes after that is
    another call, even if it looks the same."""
    call = call_of(context)
    return {"Idempotency-Key": f"{call}-{ended.get(call, 0)}"} if call else {}


def has_ended(context):
    call = call_of(context)
    if call:
        ended[call] = ended.get(call, 0) + 1
        ended.move_to_end(call)
        if len(ended) > CALLS_KEPT:
            ended.popitem(last=False)


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


@tool
async def run_command(datasette, actor, context, command, stdin=None, files=None, timeout_seconds=None):
    given = {"command": command, "stdin": stdin, "files": files, "timeout_seconds": timeout_seconds}
    headers, fields = once(context), {"max_output_bytes": OUTPUT_BYTES} | {name: value for name, value in given.items() if value is not None}
    if has_sources(fields):
        headers |= await credentials(datasette, actor)
    body = await ask(datasette, "POST", PATH, headers, json=fields)
    return result_of(has_begun(body), actor)


def has_begun(body):
    """The answer of a command that was started."""
    if body.get("outcome") in (None, "not_started"):
        raise Refused(refusal(body))
    return body


@tool
async def read_command_output(datasette, actor, exec_id: str, stream: str = "stdout", offset: int = 0):
    gone = Refused("Nothing is known of this command any more.")
    if exec_id not in owners or owners[exec_id] != (actor or {}).get("id") or stream not in ("stdout", "stderr"):
        raise gone
    body = await ask(datasette, "GET", f"{PATH}/{exec_id}", repeatable=True)
    if stream not in body:
        raise gone
    text = text_of(body, stream)
    piece = beginning(text[max(0, offset):], PAGE_CHARACTERS)
    end = max(0, offset) + len(piece)
    return {"text": piece, "next_offset": end if end < len(text) else None, "length": len(text)}


# --- Sprites that stay: sessions of the gateway ---

def owner_of(actor):
    """What stands for an actor in the names of sessions and beside files."""
    if not actor or actor.get("id") is None:
        raise Refused("Sprites belong to actors, and nobody is signed in.")
    digest = hashlib.sha256(json.dumps(str(actor["id"])).encode()).digest()
    return base64.urlsafe_b64encode(digest[:12]).decode()


def session_of(actor, name):
    """The session's name, or None when no Sprite can have this one."""
    owner = owner_of(actor)
    return f"{owner}.{name}" if SPRITE_NAME.fullmatch(name) else None


def turn_of(what):
    return turns.setdefault(what, asyncio.Lock())


def not_found(name):
    return Refused(f"Sprite '{name}' not found")


def status_of(session):
    return "running" if session["busy"] or session["idle_seconds"] < RUNS_ON_SECONDS else "warm"


async def sprites_of(datasette, actor):
    """The actor's: name → status."""
    mine = owner_of(actor) + "."
    body = await ask(datasette, "GET", f"{PATH}/sessions", repeatable=True)
    if not body.get("ok"):
        raise Refused(refusal(body))
    return {session["name"].removeprefix(mine): status_of(session) for session in body["sessions"] if session["name"].startswith(mine)}


def is_new(body):
    """Whether no command had run in the session before."""
    return bool(((body.get("sandbox") or {}).get("session") or {}).get("created"))


async def close(datasette, session):
    return await ask(datasette, "DELETE", f"{PATH}/sessions/{session}")


async def in_sprite(datasette, actor, name, headers=None, **fields):
    """The answer of a command in a Sprite that is there."""
    session = session_of(actor, name)
    async with turn_of(session):
        if name not in await sprites_of(datasette, actor):
            raise not_found(name)
        body = await ask(datasette, "POST", PATH, headers, json={"session": session, **fields})
        if body.get("code") == "session-lost":
            raise not_found(name)
        if is_new(has_begun(body)):     # it ended after it was looked for, and this is another one
            await close(datasette, session)
            raise not_found(name)
    return body


def went_well(body, what):
    """The answer of a command that does nothing by itself."""
    if not body["ok"]:
        raise Refused(refusal(body))
    if body["outcome"] != "exited" or body["exit_code"]:
        raise Refused(f"{what}: {shortened(text_of(body, 'stderr').strip()) or body['outcome']}")
    return body


@tool
async def list_sprites(datasette, actor, prefix: str = None):
    found = await sprites_of(datasette, actor)
    return {"sprites": [{"name": name, "status": found[name]} for name in sorted(found) if name.startswith(prefix or "")], "has_more": False}


@tool
async def create_sprite(datasette, actor, context, name: str):
    session = session_of(actor, name)
    if not session:
        raise Refused("Failed create sprite (status 400): a name is 1 to 47 of a-z, 0-9 and, in between, -")
    begin, most = {"session": session, "argv": ["true"], "cwd": "/"}, settings(datasette)["sprites_per_actor"]
    async with turn_of(owner_of(actor)), turn_of(session):
        found = await sprites_of(datasette, actor)
        if name not in found and len(found) >= most:
            raise Refused(f"Failed create sprite (status 429): there are {most} already, and no more may be")
        body = await ask(datasette, "POST", PATH, once(context), json=begin)
        if body.get("code") == "session-lost":      # the next one begins anew
            body = await ask(datasette, "POST", PATH, once(context), json=begin)
    went_well(has_begun(body), "Failed create sprite")
    if not is_new(body):
        raise Refused("Failed create sprite (status 409): there is one of this name")
    return {"name": name, "status": "cold", "url": None}


@tool
async def get_sprite(datasette, actor, name: str):
    found = await sprites_of(datasette, actor)
    if name not in found:
        raise not_found(name)
    return {"name": name, "status": found[name], "url": None}


@tool
async def exec_on_sprite(datasette, actor, context, name: str, command: str, working_directory: str = None):
    fields = {"command": command, "timeout_seconds": settings(datasette)["timeout_seconds"], "max_output_bytes": OUTPUT_BYTES}
    if working_directory:
        fields["cwd"] = working_directory
    return result_of(await in_sprite(datasette, actor, name, once(context), **fields), actor)


@tool
async def delete_sprite(datasette, actor, name: str):
    session = session_of(actor, name)
    body = await close(datasette, session) if session else {"code": "session-not-found"}
    if body.get("code") == "session-not-found":
        raise not_found(name)
    if not body.get("ok"):
        raise Refused(refusal(body))
    return {"ok": True, "message": f"Sprite '{name}' deleted"}


# --- files of Sprites ---

def absolute(path):
    return "/" + posixpath.normpath("/" + path).lstrip("/")


@tool
async def write_sprite_file(datasette, actor, context, name: str, path: str, content: str):
    fields = {"argv": ["true"], "cwd": "/", "files": {absolute(path): {"text": content}}}
    went_well(await in_sprite(datasette, actor, name, once(context), **fields), f"write {path}")
    shown = shortened(path, PATH_CHARACTERS)
    return {"ok": True, "path": shown, "message": f"Wrote {len(content)} characters to {shown}"}


async def content_of(datasette, actor, name, path):
    fields = {"argv": ["true"], "cwd": "/", "outputs": [absolute(path)], "max_output_bytes": FILE_BYTES}
    [file] = went_well(await in_sprite(datasette, actor, name, **fields), f"read {path}")["files"].values()
    if "error" in file:
        raise Refused(f"read {path}: {FILE_ERRORS.get(file['error'], file['error'])}")
    return file["text"].encode() if "text" in file else base64.b64decode(file["base64"])


@tool
async def read_sprite_file(datasette, actor, name: str, path: str):
    content = await content_of(datasette, actor, name, path)
    extension = posixpath.splitext(path)[1].lower()
    shown = {"file_name": posixpath.basename(path), "content_type": mimetypes.guess_type(path)[0] or "application/octet-stream"}
    is_text = shown["content_type"].startswith("text/") or extension in TEXTS
    file_id = await keep_file(datasette, actor, shown["file_name"], "text/plain; charset=utf-8" if is_text else shown["content_type"], content)
    shown, url = {"file_id": file_id, **shown}, datasette.urls.path(FILE_PATH + file_id)
    if is_text:
        return shown | text_content(content.decode("utf-8", errors="replace"))
    if extension in IMAGES:
        image = f'<img src="{html.escape(url)}" alt="{html.escape(shown["file_name"])}" style="max-width: 100%">'
        return {"_html": image, **shown, "note": "Image has been displayed to the user"}
    return shown | {"download_url": url}


def text_content(text):
    shown = {"text_content": shortened(text, PAGE_CHARACTERS)}
    if shown["text_content"] != text:
        shown |= {"truncated": ["text_content"], "note": "Parts were left out; exec_on_sprite can print them."}
    return shown


async def keep_file(datasette, actor, *file):
    """For the page, under an id of its own; what is old goes."""
    file_id, owner, now = secrets.token_hex(16), owner_of(actor), int(time.time())

    def write(database):
        database.execute("insert into spritegate_files (id, actor, file_name, content_type, content, read_at) values (?, ?, ?, ?, ?, ?)",
                         (file_id, owner, *file, now))
        database.execute("""
            delete from spritegate_files where read_at < ? or number in (
                select number from (select number, sum(length(content)) over (order by number desc) as bytes from spritegate_files where actor = ?)
                where bytes > ?)""", (now - FILES_SECONDS, owner, FILES_BYTES))

    await datasette.get_internal_database().execute_write_fn(write)
    return file_id


async def serve_file(datasette, request):
    """A file, for the actor who has read it. It comes from a sandbox: a browser shows it and runs nothing of it."""
    if (request.actor or {}).get("id") is None or not await datasette.allowed(action=PERMISSION, actor=request.actor):
        raise Forbidden("Permission denied")
    found = await datasette.get_internal_database().execute(
        "select file_name, content_type, content from spritegate_files where id = ? and actor = ?",
        [request.url_vars["file_id"], owner_of(request.actor)])
    file = found.first()
    if file is None:
        return Response.text("File not found", status=404)
    shown = file["content_type"].startswith(("image/", "text/plain"))
    return Response(body=file["content"], content_type=file["content_type"], headers={
        "Content-Disposition": f"{'inline' if shown else 'attachment'}; filename*=UTF-8''{urllib.parse.quote(file['file_name'], safe='')}",
        "Content-Security-Policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'", "X-Content-Type-Options": "nosniff"})


# --- what Datasette asks for ---

def check_settings(datasette):
    given = datasette.plugin_config("spritegate") or {}
    for name, value in given.items():
        if name not in SETTINGS:
            raise StartupError(f"spritegate: there is no setting {name}")
        if type(value) is not type(SETTINGS[name]):
            raise StartupError(f"spritegate: {name} is not like {json.dumps(SETTINGS[name])}")
        if type(value) is int and value < 1:
            raise StartupError(f"spritegate: {name} is at least 1")


@hookimpl
def startup(datasette):
    check_settings(datasette)
    if not settings(datasette)["sprites"]:
        return None
    if any(getattr(plugin, "__name__", "") == "datasette_agent_sprites" for plugin in pm.get_plugins()):
        raise StartupError("spritegate: datasette-agent-sprites has tools and a route of the same names; "
                           "uninstall it, or keep it with `plugins: {spritegate: {sprites: false}}`")

    async def prepare():
        await datasette.get_internal_database().execute_write(FILES_TABLE)
    return prepare


@hookimpl
def register_routes(datasette):
    return [(rf"^{FILE_PATH}(?P<file_id>[0-9a-f]+)$", serve_file)] if settings(datasette)["sprites"] else []


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
    return command_tools() + (sprite_tools() if settings(datasette)["sprites"] else [])


def command_tools():
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
            description="Read what was left out of a command's long output, within an hour.",
            input_schema={
                "type": "object", "required": ["exec_id"], "additionalProperties": False,
                "properties": {
                    "exec_id": {"type": "string"}, "stream": {"type": "string", "enum": ["stdout", "stderr"], "default": "stdout"},
                    "offset": {"type": "integer", "minimum": 0, "default": 0, "description": "In characters"}}},
            fn=read_command_output, required_permission=PERMISSION)]


def sprite_tools():
    """Those of datasette-agent-sprites."""
    from datasette_agent.tools import AgentTool

    def make(function, description, optional=(), **parameters):
        schema = {"type": "object", "properties": {name: {"type": "string", "description": text} for name, text in parameters.items()}}
        required = [name for name in parameters if name not in optional]
        return AgentTool(name=function.__name__, description=description, input_schema=schema | ({"required": required} if required else {}),
                         fn=function, required_permission=PERMISSION)

    name, path = "Name of the Sprite", "Absolute path in the Sprite"
    return [
        make(list_sprites, "List your Sprites: Linux sandboxes that keep their files and processes between commands.", ["prefix"],
             prefix="Only those whose names begin so"),
        make(create_sprite, "Create a Sprite. It ends when it was not used for some time, or by delete_sprite.", name="A name that none of your Sprites has"),
        make(get_sprite, "Tell the status of a Sprite.", name=name),
        make(exec_on_sprite, "Run a shell line on a Sprite, by bash -lc, and return what it printed and its exit code. Commands on one Sprite run one by one.",
             ["working_directory"], name=name, command="The shell line", working_directory="Absolute path of the directory to run it in"),
        make(delete_sprite, "Delete a Sprite with all that is in it. This cannot be undone.", name=name),
        make(read_sprite_file, "Read a file of a Sprite. A text is returned; an image is shown to the user; of anything else there is a link for the user.",
             name=name, path=path),
        make(write_sprite_file, "Write a text into a file of a Sprite, in place of what was there. Missing directories are made.",
             name=name, path=path, content="The text")]
