"""The Sprites API for a client that knows HTTP, WebSockets and nothing else of this project.

Every name that is created begins with the run's own prefix; no other Sprite is ever touched. A
failure never shows the token: what aiohttp raises is replaced by a sentence.
"""
import asyncio
import contextlib
import json
import secrets
import time

import aiohttp

FAMILY = "conformance-"         # of all runs
CREATES = 10                    # at most, in one run
PATIENCE = 60                   # seconds for one call or frame
CLEANING = 25                   # less than whoever interrupts a run waits for its end
WAKING = 60                     # seconds for a Sprite that says it is not ready
MAX_MESSAGE = 32 << 20
CONTROL = "control:"
STDIN, STDOUT, STDERR, EXIT, EOF = range(5)
CLOSED = {"rules": [{"domain": "*", "action": "deny"}]}
GONE_500 = ("failed to retrieve sprite", "failed to delete sprite")     # how the service was seen to say 404


class Unavailable(Exception):
    """No answer, or none within the limits."""


class TooMany(Exception):
    """The run has created as many Sprites as it may."""


class Refused(Exception):
    """A handshake that was answered with something else than 101."""

    def __init__(self, status):
        super().__init__(f"the handshake was answered {status}")
        self.status = status


@contextlib.contextmanager
def plainly(what):
    """aiohttp's exceptions hold the request with its Authorization field."""
    try:
        yield
    except aiohttp.WSServerHandshakeError as error:
        raise Refused(error.status) from None
    except TimeoutError:
        raise Unavailable(f"{what}: no answer in time") from None
    except (aiohttp.ClientError, OSError) as error:
        raise Unavailable(f"{what}: {type(error).__name__}") from None


class Answer:
    def __init__(self, status, headers, body, seconds):
        self.status, self.headers, self.body, self.seconds = status, headers, body, seconds

    @property
    def text(self):
        return self.body.decode(errors="replace")

    @property
    def json(self):
        try:
            return json.loads(self.body)
        except ValueError:
            raise AssertionError(f"{self.status} with a body that is not JSON: {self.text[:200]!r}") from None

    @property
    def lines(self):
        return [json.loads(line) for line in self.text.splitlines() if line.strip()]

    @property
    def says_missing(self):
        """404, or a 500 that the service is known to mean so."""
        return self.status == 404 or (self.status == 500 and any(text in self.text for text in GONE_500))

    def __repr__(self):
        return f"<{self.status} {self.text[:200]!r}>"


class Service:
    """Use as a context manager, once for each event loop."""

    def __init__(self, url, token, figures):
        self.url, self.token, self.figures = url.rstrip("/"), token, figures
        self.prefix = f"{FAMILY}{secrets.token_hex(4)}-"
        self.names = []             # of all Sprites that may exist, named before they are asked for
        self.creates = 0
        self.session = None

    async def __aenter__(self):
        self.session = aiohttp.ClientSession(headers={"Authorization": f"Bearer {self.token}", "User-Agent": "spritegate-conformance"},
                                             timeout=aiohttp.ClientTimeout(total=PATIENCE * 2), auto_decompress=False)
        return self

    async def __aexit__(self, *_):
        await self.session.close()

    async def call(self, method, path, seconds=PATIENCE, **more):
        began = time.monotonic()
        with plainly(f"{method} {path}"):
            async with asyncio.timeout(seconds), self.session.request(method, self.url + path, allow_redirects=False, **more) as response:
                return Answer(response.status, response.headers, await response.read(), time.monotonic() - began)

    async def ask(self, method, path, **more):
        """The same of the Sprite itself, which may be waking: 502 and 503 are asked again."""
        async def attempt():
            answer = await self.call(method, path, **more)
            return answer, answer.status
        return await until_ready(attempt)

    # -- Sprites ---------------------------------------------------------------

    async def create(self, wait=True):
        """A new Sprite; (its name, the answer). One refusal for the rate is waited for."""
        if self.creates >= CREATES:
            raise TooMany(f"this run has created {CREATES} Sprites already")
        self.creates += 1
        name = f"{self.prefix}{self.creates}"
        self.names.append(name)
        answer = await self.ask_create(name)
        if answer.status == 429 and wait:
            await asyncio.sleep(min(90, seconds_to_wait(answer)))
            answer = await self.ask_create(name)
        return name, answer

    async def ask_create(self, name):
        return await self.call("POST", "/v1/sprites", seconds=120, json={"name": name, "labels": ["conformance"]})

    async def status(self, name):
        return (await self.call("GET", f"/v1/sprites/{name}")).json["status"]

    async def delete(self, name):
        return await self.call("DELETE", f"/v1/sprites/{name}", seconds=12)

    async def page(self, prefix, size=50, token=None):
        query = {"prefix": prefix, "max_results": str(size), **({"continuation_token": token} if token else {})}
        answer = await self.call("GET", "/v1/sprites", params=query)
        assert answer.status == 200, answer
        return answer.json

    async def listed(self, prefix):
        """All names, page after page."""
        names, token = [], None
        for _ in range(100):
            page = await self.page(prefix, token=token)
            names += [sprite["name"] for sprite in page["sprites"]]
            token = page.get("next_continuation_token")
            if not token:
                return names
        raise Unavailable("the list never ends")

    async def find(self, prefix):
        """Names that begin so, as far as the list can be read: whether it is right is for its own test to say."""
        try:
            return [name for name in await self.listed(prefix) if name.startswith(prefix)]
        except Exception:
            return []

    async def others(self):
        """Sprites of other runs, perhaps left behind by one that was killed."""
        return [name for name in await self.find(FAMILY) if not name.startswith(self.prefix)]

    async def clean_up(self):
        """Delete everything of this run; the names that may still be there."""
        names = set(self.names)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLEANING):
                names |= set(await self.find(self.prefix))
                while names:
                    gone = await asyncio.gather(*(self.is_gone(name) for name in names))
                    names = {name for name, is_gone in zip(names, gone) if not is_gone}
                    await asyncio.sleep(0.5 if names else 0)
        return sorted(names)

    async def is_gone(self, name):
        """No single answer is believed: nothing finds it by its name, and the list has it no more."""
        try:
            await self.delete(name)
            found = await self.call("GET", f"/v1/sprites/{name}", seconds=8)
            return found.says_missing and name not in [sprite["name"] for sprite in (await self.page(name))["sprites"]]
        except (Unavailable, AssertionError, LookupError, TypeError):
            return False

    # -- sockets ---------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def socket(self, path, patient=True, **more):
        """An open WebSocket; Refused when it is refused."""
        async def attempt():
            try:
                with plainly(f"dial {path}"):
                    return await self.session.ws_connect(self.url + path, max_msg_size=MAX_MESSAGE, **more), 101
            except Refused as refused:
                if patient and refused.status in (502, 503):
                    return None, refused.status
                raise
        ws = await until_ready(attempt)
        if ws is None:
            raise Refused(503)
        try:
            yield ws
        finally:
            with contextlib.suppress(aiohttp.ClientError, OSError):
                await ws.close()

    @contextlib.asynccontextmanager
    async def control(self, name, **more):
        async with self.socket(f"/v1/sprites/{name}/control", **more) as ws:
            yield Control(ws)

    async def run(self, name, *argv, **more):
        """One command on a control socket of its own."""
        async with self.control(name) as control:
            return await control.run(*argv, **more)

    async def shell(self, name, line, *words, **more):
        return await self.run(name, "bash", "-c", line, "bash", *words, **more)


async def until_ready(attempt):
    """What `attempt` returns besides a status that is neither 502 nor 503, or the last of those."""
    end, pause = time.monotonic() + WAKING, 0.1
    while True:
        result, status = await attempt()
        if status not in (502, 503) or time.monotonic() > end:
            return result
        await asyncio.sleep(pause)
        pause = min(2, pause * 2)


def seconds_to_wait(answer):
    """How long a 429 asks to wait."""
    with contextlib.suppress(AssertionError):
        told = answer.json.get("retry_after_seconds") if isinstance(answer.json, dict) else None
        if isinstance(told, (int, float)):
            return told
    field = answer.headers.get("Retry-After", "")
    return int(field) if field.isdecimal() else 60


class Result:
    """What came for one command, in order."""

    def __init__(self):
        self.frames = []            # bytes, objects of text messages, ("control", object) for envelopes
        self.times = []             # of each, by the monotonic clock
        self.began = time.monotonic()

    def add(self, frame):
        self.frames.append(frame)
        self.times.append(time.monotonic())

    def of(self, stream):
        return b"".join(frame[1:] for frame in self.frames if isinstance(frame, bytes) and frame[:1] == bytes([stream]))

    @property
    def out(self):
        return self.of(STDOUT)

    @property
    def err(self):
        return self.of(STDERR)

    @property
    def exits(self):
        """The payloads of exit frames."""
        return [frame[1:] for frame in self.frames if isinstance(frame, bytes) and frame[:1] == bytes([EXIT])]

    @property
    def code(self):
        """The status, if there is exactly one exit frame of one byte."""
        return self.exits[0][0] if len(self.exits) == 1 and len(self.exits[0]) == 1 else None

    def texts(self, type):
        return [frame for frame in self.frames if isinstance(frame, dict) and frame.get("type") == type]

    def envelopes(self, type):
        return [frame[1] for frame in self.frames if isinstance(frame, tuple) and frame[1].get("type") == type]

    @property
    def session(self):
        told = self.texts("session_info")
        return told[0].get("session_id") if told else None

    def seconds(self, is_wanted):
        """From the start to the first such frame; None without one."""
        return next((moment - self.began for frame, moment in zip(self.frames, self.times) if is_wanted(frame)), None)

    @property
    def seconds_to_exit(self):
        return self.seconds(is_exit)


class Channel:
    """Commands on one WebSocket."""

    def __init__(self, ws):
        self.ws = ws

    async def frame(self, seconds=PATIENCE):
        """The next frame; None when there is none any more."""
        with plainly("a frame"):
            message = await self.ws.receive(seconds)
        if message.type is aiohttp.WSMsgType.BINARY:
            return message.data
        if message.type is not aiohttp.WSMsgType.TEXT:
            return None
        if message.data.startswith(CONTROL):
            return "control", json.loads(message.data[len(CONTROL):])
        return json.loads(message.data)

    async def follow(self, is_last, result=None, seconds=PATIENCE):
        """Frames up to the first that is_last accepts, or to the end of the socket."""
        result = result or Result()
        with plainly("a command"):
            async with asyncio.timeout(seconds):
                while (frame := await self.frame(seconds)) is not None:
                    result.add(frame)
                    if is_last(frame):
                        break
        return result

    async def until_output(self, text, result=None):
        """Frames up to this output."""
        result = result or Result()
        await self.follow(lambda _: text in result.out + result.err, result)
        assert text in result.out + result.err, f"the socket closed before {text!r}; got {result.frames}"
        return result

    async def send(self, message):
        """Bytes or text."""
        with plainly("sending"):
            await (self.ws.send_bytes(message) if isinstance(message, bytes) else self.ws.send_str(message))

    async def input(self, data):
        """All of standard input, and its end."""
        for start in range(0, len(data), 65536):
            await self.send(bytes([STDIN]) + data[start:start + 65536])
        await self.send(bytes([EOF]))

    async def signal(self, name):
        await self.send(json.dumps({"type": "signal", "signal": name}))


class Control(Channel):
    """A control socket: commands one after another."""

    started = 0

    async def start(self, *argv, op="exec", **args):
        self.started += 1
        words = {"cmd": list(argv), "path": argv[0], "stdin": "true"} if argv else {}
        message = {"type": "op.start", "id": str(self.started), "op": op, "args": {**words, **args}}
        await self.send(CONTROL + json.dumps(message))
        return Result()

    async def end(self, result, seconds=PATIENCE):
        """The rest of a command, up to op.complete."""
        return await self.follow(is_complete, result, seconds)

    async def run(self, *argv, input=b"", seconds=PATIENCE, **args):
        result = await self.start(*argv, **args)
        await self.input(input)
        return await self.end(result, seconds)


def is_exit(frame):
    return isinstance(frame, bytes) and frame[:1] == bytes([EXIT])


def is_session(frame):
    return isinstance(frame, dict) and frame.get("type") == "session_info"


def is_complete(frame):
    return isinstance(frame, tuple) and frame[1].get("type") in ("op.complete", "op.error")


async def until(condition, seconds, pause=0.25):
    """Poll an async condition; whether it came true."""
    end = time.monotonic() + seconds
    while not await condition():
        if time.monotonic() > end:
            return False
        await asyncio.sleep(pause)
    return True
