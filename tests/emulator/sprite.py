"""One Sprite: its description, its status cold/warm/running, and what keeps it awake.

new --wake, wake_delay--> running; cold --wake, cold_wake_delay--> running --idle_pause without activity--> warm
warm --wake, wake_delay--> running      warm --cold_after--> cold (processes and /tmp gone, home kept)

Every pause cuts all open connections of the Sprite. Activity is a request in progress, an
exec with an attached client, and (by --control-idle-holds, unknown on the live service) a
control socket that is merely open.
"""
import asyncio
import contextlib
import json
import time
import uuid

import errors
import values
from api_socket import ApiSocket
from checkpoints import Checkpoints
from disk import HOME, Disk
from policy import Policies
from ports import Ports
from sandbox import PATH, Sandbox, SandboxError, StartError
from services import Services
from session import Session
from tasks import Tasks
from wire import cut

ENDED_SESSIONS = 256


class Sprite:
    def __init__(self, world, name, body):
        self.world = world
        self.settings = world.settings
        self.name = name
        self.id = f"sprite-{uuid.uuid4()}"
        self.created_at = self.updated_at = time.time()
        self.labels = list(body.get("labels") or [])
        self.url_settings = {"auth": "sprite", **(body.get("url_settings") or {})}
        self.config = body.get("config")
        self.environment = dict(body.get("environment") or {})
        self.last_running_at = self.last_warming_at = self.paused_at = None
        self.current_status = "cold"
        self.destroyed = False
        self.disk = Disk(world.store)
        self.policies = Policies(self)
        self.checkpoints = Checkpoints(self)
        self.ports = Ports(self)
        self.tasks = Tasks(self)
        self.services = Services(self)
        self.api_socket = ApiSocket(self)
        self.sandbox = None
        self.sessions = {}
        self.ended = {}             # ids of sessions that are over, newest last
        self.sockets = set()        # transports that a pause cuts
        self.holds = 0
        self.timer = None
        self.waking = None
        self.transition = asyncio.Lock()

    @property
    def status(self):
        return self.current_status

    @status.setter
    def status(self, status):
        self.current_status = status
        self.world.changed(self)

    @property
    def machine_id(self):
        return self.id.removeprefix("sprite-").replace("-", "")[:14]

    def describe(self, skew=0):
        def when(seconds):
            return None if seconds is None else values.stamp(seconds + skew)

        return {"id": self.id, "name": self.name, "status": self.status,
                "version": None if self.last_running_at is None else self.settings.sprite_version,
                "url": f"https://{self.name}-{self.world.organization_id}.sprites.app",
                "updated_at": when(self.updated_at), "created_at": when(self.created_at),
                "organization": self.world.organization, "url_settings": self.url_settings,
                "environment_version": None, "labels": self.labels, "last_running_at": when(self.last_running_at),
                "last_warming_at": when(self.last_warming_at),
                **({"config": self.config} if self.config else {}),
                **({"environment": self.environment} if self.environment else {})}

    def update(self, body):
        """PUT: what is given replaces, what is not stays."""
        if body.get("clear_labels"):
            self.labels = []
        if body.get("labels") is not None:
            self.labels = list(body["labels"])
        self.url_settings.update(body.get("url_settings") or {})
        self.touch()

    def touch(self):
        self.updated_at = time.time()

    # -- activity -------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def busy(self, transport=None, hold=True):
        """Awake for the time of a request; its connection is cut by a pause."""
        if hold:
            self.hold()
        try:
            await self.wake()
            if transport is not None:
                if transport.is_closing():
                    raise ConnectionResetError("the client left while the Sprite woke up")
                self.sockets.add(transport)
            yield
        finally:
            self.sockets.discard(transport)
            if hold:
                self.release()

    def hold(self):
        self.holds += 1
        self.set_timer(None)

    def release(self):
        self.holds -= 1
        self.rest()

    def rest(self):
        """Start the idle window, if nothing is going on."""
        if self.holds == 0 and self.status == "running" and self.settings.idle_pause and not self.destroyed:
            self.set_timer(self.settings.idle_pause, self.pause, True)

    def set_timer(self, seconds, action=None, *arguments):
        if self.timer:
            self.timer.cancel()
            self.timer = None
        if action:
            self.timer = asyncio.get_running_loop().call_later(
                seconds, lambda: self.world.background(action(*arguments)))

    # -- transitions ----------------------------------------------------------

    async def wake(self):
        while self.status != "running" or self.waking:
            if self.destroyed:
                raise errors.sprite_not_found()
            if self.waking is None:
                self.world.limits.admit_running(self.world.running())
                self.set_timer(None)
                self.waking = self.world.background(self.do_wake())
            try:
                await asyncio.shield(self.waking)
            except asyncio.CancelledError:
                if self.destroyed:
                    raise errors.sprite_not_found() from None
                raise
            except SandboxError as error:
                raise errors.Refusal(503, f"{error}\n") from None

    def start_delay(self):
        """A new Sprite says `cold`, but its machine was started by the create: the first request finds it as fast as a paused one."""
        return self.settings.wake_delay if self.last_running_at is None else self.settings.cold_wake_delay

    async def do_wake(self):
        try:
            async with self.transition:
                self.last_warming_at = time.time()
                if self.status == "cold":
                    await self.boot(self.start_delay())
                elif self.status == "warm":
                    await asyncio.sleep(self.settings.wake_delay)
                    await self.sandbox.thaw()
                self.set_running()
        finally:
            self.waking = None
        self.world.count_running()
        self.rest()

    def set_running(self):
        self.status = "running"
        self.last_running_at = time.time()
        self.services.resume()

    async def boot(self, delay=0):
        await self.api_socket.open()
        sandbox = self.sandbox = Sandbox(self.disk, self.name, self.settings.max_processes, self.died)
        try:
            await self.disk.clear_tmp()
            await asyncio.gather(sandbox.start(), asyncio.sleep(delay))
            await self.policies.attach(sandbox)
        except BaseException:
            self.sandbox = None
            await sandbox.kill()
            raise

    async def pause(self, only_idle=False):
        """running -> warm: connections cut, processes stopped where they are."""
        async with self.transition:
            if self.status != "running" or (only_idle and self.holds):
                return
            self.paused_at = time.monotonic()
            self.status = "warm"
            self.set_timer(None)
            self.cut()
            try:
                await self.sandbox.freeze()
            except SandboxError:
                return      # it died meanwhile; died() has made the Sprite cold
            self.world.paused += 1
            self.world.keep_to_warm_limit()
            if self.settings.cold_after:
                self.set_timer(self.settings.cold_after, self.cool)

    async def cool(self):
        """warm -> cold: memory is lost, home is kept."""
        async with self.transition:
            if self.status == "warm":
                await self.stop()

    async def crash(self):
        """The machine dies under whatever runs."""
        async with self.transition:
            if self.status != "cold":
                await self.stop()

    async def stop(self):
        self.lose()
        sandbox, self.sandbox = self.sandbox, None
        if sandbox:
            await sandbox.kill()

    def died(self):
        """The sandbox ended by itself."""
        self.lose()
        self.sandbox = None

    def lose(self):
        """running or warm -> cold."""
        self.status = "cold"
        self.set_timer(None)
        self.cut()
        self.tasks.clear()

    async def destroy(self):
        self.destroyed = True
        self.set_timer(None)
        self.cut()
        if self.waking:
            self.waking.cancel()
        async with self.transition:
            self.services.close()
            await self.stop()
            await self.api_socket.close()
            await self.disk.remove()

    # -- the disk -------------------------------------------------------------

    async def hold_still(self, action):
        """Act on the disk while no process of the Sprite runs."""
        async with self.transition:
            if self.status != "running":
                raise SandboxError("the Sprite is not running")
            sandbox = self.sandbox
            await sandbox.freeze()
            try:
                await action()
            finally:
                await sandbox.thaw()

    async def rebuild(self, action):
        """End everything that runs, act on the disk, start again. Requests that come meanwhile wait as for a wake."""
        while self.waking:
            await asyncio.wait({self.waking})
        if self.destroyed:
            raise SandboxError("the Sprite is gone")
        self.waking = self.world.background(self.do_rebuild(action))
        failure = await asyncio.shield(self.waking)
        self.rest()
        if failure:
            raise failure

    async def do_rebuild(self, action):
        """What went wrong with the action, if anything; the Sprite runs again all the same."""
        failure = None
        try:
            async with self.transition:
                await self.stop()
                try:
                    await action()
                except Exception as error:
                    failure = error
                await self.boot()
                self.set_running()
        finally:
            self.waking = None
        return failure

    def cut(self):
        for transport in list(self.sockets):
            cut(transport)
        self.sockets.clear()
        if self.sandbox and self.sandbox.network:
            self.sandbox.network.cut()

    # -- commands -------------------------------------------------------------

    def default_environment(self):
        return {"HOME": HOME, "PATH": PATH, "USER": "sprite", "LOGNAME": "sprite", "SHELL": "/bin/bash",
                "LANG": "C.UTF-8", **self.environment}

    async def execute(self, command):
        """Start a command; its Session, or StartError. The Sprite must be held awake."""
        if self.status != "running":
            raise SandboxError("the Sprite is not running")
        command.resolve_environment(self.default_environment())
        try:
            started = await self.sandbox.run(command, lambda: self.world.count_start(command))
        except StartError:
            self.world.discount_start(command)
            raise
        session = Session(self, command, started)
        self.sessions[session.id] = session
        return session

    @property
    def waits(self):
        """Something that was started here ahead of its command can be told it."""
        return any(session.waiting for session in self.sessions.values())

    def session_ended(self, session):
        self.sessions.pop(session.id, None)
        self.ended[session.id] = None
        while len(self.ended) > ENDED_SESSIONS:
            del self.ended[next(iter(self.ended))]

    def describe_policy(self, rules):
        self.disk.describe("policy/network.json", json.dumps({"rules": rules}) + "\n")
