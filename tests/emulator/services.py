"""Services of one Sprite: processes that start again when they fail and whenever the machine starts anew.

They keep nobody awake. A service that fails starts again after 1, 2, 4 … at most 30 seconds.
"""
import asyncio
import collections
import dataclasses
import re
import signal
import time

import errors
import values
from command import Command
from program import Program
from sandbox import SandboxError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
KEPT = 1000             # lines of output
LINE = 16384
READ_PAUSE = 0.001      # a service that never stops writing must not occupy the emulator
LONGEST_PAUSE = 30


@dataclasses.dataclass
class Settings:
    cmd: str
    args: list
    env: dict
    dir: str | None
    needs: list
    http_port: int | None

    @classmethod
    def parse(cls, body):
        body = body if isinstance(body, dict) else {}
        get = {"args": [], "env": {}, "needs": [], "dir": None, "http_port": None,
               **{key: value for key, value in body.items() if value is not None}}
        if not isinstance(get.get("cmd"), str) or not get["cmd"]:
            raise errors.Refusal(400, "cmd is required\n")
        texts = [*list_of(get["args"], "args"), *list_of(get["needs"], "needs"), get["cmd"], get["dir"] or ""]
        if not isinstance(get["env"], dict):
            raise errors.Refusal(400, "env must be an object\n")
        texts += get["env"].values()
        if not all(isinstance(text, str) and "\0" not in text for text in texts):
            raise errors.Refusal(400, "cmd, args, env, dir and needs consist of texts\n")
        port = get["http_port"]
        if port is not None and (type(port) is not int or not 0 < port < 65536):
            raise errors.Refusal(400, "http_port must be a port\n")
        return cls(get["cmd"], get["args"], get["env"], get["dir"], get["needs"], port)


def list_of(value, name):
    if not isinstance(value, list):
        raise errors.Refusal(400, f"{name} must be an array\n")
    return value


class Service:
    def __init__(self, sprite, name, settings):
        self.sprite = sprite
        self.name = name
        self.settings = settings
        self.status = "stopped"
        self.wanted = False         # by its owner, whatever the machine does
        self.program = None
        self.task = None
        self.started_at = self.next_restart_at = self.error = None
        self.restarts = 0
        self.lines = collections.deque(maxlen=KEPT)
        self.followers = set()

    def describe(self):
        settings = {key: value for key, value in dataclasses.asdict(self.settings).items()
                    if value or key in ("args", "needs")}
        state = {"name": self.name, "status": self.status, "pid": self.program and self.program.started.pid,
                 "started_at": self.started_at and values.stamp(self.started_at), "error": self.error,
                 "restart_count": self.restarts,
                 "next_restart_at": self.next_restart_at and values.stamp(self.next_restart_at)}
        return {"name": self.name, **settings,
                "state": {key: value for key, value in state.items() if value is not None}}

    # -- events ---------------------------------------------------------------

    def tell(self, type, **more):
        event = {"type": type, **more, "timestamp": round(time.time() * 1000)}
        if type in ("stdout", "stderr"):
            self.lines.append(event)
        for follower in self.followers:
            follower.put(event)

    # -- life -----------------------------------------------------------------

    def start(self):
        self.wanted = True
        self.restarts, self.error = 0, None
        self.task = self.sprite.world.background(self.run())

    @property
    def alive(self):
        return self.task is not None and not self.task.done()

    async def run(self):
        """Until it has ended well, is told to stop, or the machine is gone."""
        try:
            while await self.run_once() != 0 and self.wanted:
                pause = min(LONGEST_PAUSE, 2 ** self.restarts)
                self.status, self.next_restart_at = "failed", time.time() + pause
                await asyncio.sleep(pause)
                self.restarts += 1
            self.wanted = False
        except (SandboxError, ConnectionError):
            pass        # resume() starts it again
        self.status, self.next_restart_at = "stopped", None

    async def run_once(self):
        """The exit code, 127 if it could not be started."""
        self.status, self.next_restart_at = "starting", None
        try:
            async with Program(self.sprite, self.command()) as self.program:
                self.status, self.started_at = "running", time.time()
                self.tell("started", data=self.name)
                await asyncio.gather(self.read("stdout", self.program.output), self.read("stderr", self.program.complaints))
                code = await self.program.started.exit
        except errors.Refusal as refusal:
            self.error = refusal.body.strip()
            self.tell("error", data=self.error)
            return 127
        finally:
            self.program = None
        self.error = None if code == 0 else f"exit status {code}"
        self.tell("exit", exit_code=code)
        return code

    def command(self):
        s = self.settings
        environment = {**self.sprite.default_environment(), **s.env}
        return Command(argv=[s.cmd, *s.args], path=s.cmd, env=[], dir=s.dir, tty=False, rows=24, cols=80, stdin=False, max_run=0,
                       environment=environment)

    async def read(self, stream, reader):
        while data := await reader.read(LINE):
            for line in data.decode("utf-8", "replace").splitlines(keepends=True):
                self.tell(stream, data=line)
            await asyncio.sleep(READ_PAUSE)

    async def stop(self, timeout):
        """TERM, after the timeout KILL."""
        self.wanted = False
        if not self.alive:
            return
        self.status = "stopping"
        self.tell("stopping")
        if self.program:
            await self.program.signal(signal.SIGTERM)
            await asyncio.wait({self.task}, timeout=timeout)
        self.task.cancel()          # ends what is left of its process group
        await asyncio.gather(self.task, return_exceptions=True)
        self.status, self.next_restart_at = "stopped", None
        self.tell("stopped")


class Services:
    def __init__(self, sprite):
        self.sprite = sprite
        self.services = {}

    def get(self, name):
        if name not in self.services:
            raise errors.Refusal(404, f"service not found: {name}\n")
        return self.services[name]

    def resume(self):
        """The machine runs (again)."""
        for service in self.services.values():
            if service.wanted and not service.alive:
                self.start(service)

    def start(self, service):
        """What it needs first."""
        for name in service.settings.needs:
            if name in self.services and not self.services[name].alive:
                self.start(self.services[name])
        service.start()

    def put(self, name, settings):
        """A new service, or new settings of one that does not run. Refusal if they do not fit the others."""
        if not NAME.fullmatch(name):
            raise errors.Refusal(400, "invalid service name\n")
        for other in self.services.values():
            if other.name != name and settings.http_port is not None and other.settings.http_port is not None:
                raise errors.Refusal(409, f"service {other.name} already has an http_port\n")
        for needed in settings.needs:
            if needed not in self.services or name in self.needs(needed):
                raise errors.Refusal(400, f"needs {needed}: no such service, or one that needs this one\n")
        if name in self.services:
            self.services[name].settings = settings
        else:
            self.services[name] = Service(self.sprite, name, settings)
        return self.services[name]

    def needs(self, name):
        """Everything that it needs, itself included."""
        return {name}.union(*(self.needs(needed) for needed in self.services[name].settings.needs))

    def users(self, name):
        return [other.name for other in self.services.values() if name in other.settings.needs]

    def close(self):
        for service in self.services.values():
            if service.task:
                service.task.cancel()
