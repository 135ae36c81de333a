"""Everything the emulator holds: the organisation's Sprites, its limits, its counters."""
import asyncio
import random
import re
import traceback

import errors
from checkpoints import CheckpointError
from disk import Store
from faults import Faults
from internet import Internet
from limits import Limits
from sandbox import SandboxError, StartError
from sprite import Sprite

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
STARTS = 200_000        # exec ids remembered
LOOK_FOR_CAPACITY = 0.05


class World:
    def __init__(self, settings):
        self.settings = settings
        self.random = random.Random(f"{settings.seed} world")
        self.organization = "emulator"
        self.organization_id = "".join(self.random.choices("abcdefghijkmnpqrstuvwxyz23456789", k=5))
        self.store = Store()
        self.internet = Internet(settings.resolve, settings.offline) if settings.network else None
        self.control_groups = settings.control_groups
        self.limits = Limits(settings.create_limit, settings.running_limit)
        self.faults = Faults(settings.seed)
        self.sprites = {}           # name -> Sprite, oldest first
        self.minted = []            # tokens besides the one of the settings
        self.creating = set()       # names promised to creations that are held
        self.tasks = set()
        self.watchers = set()       # of listing.stream
        self.created = self.destroyed = self.started = self.paused = self.creates_refused = 0
        self.max_alive = self.max_running = 0
        self.starts = {}            # exec id -> process starts

    def background(self, coroutine):
        task = asyncio.get_running_loop().create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.finished)
        return task

    def finished(self, task):
        self.tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error and not isinstance(error, (errors.Refusal, CheckpointError, SandboxError, StartError, ConnectionError)):
            traceback.print_exception(error)

    def find(self, name):
        sprite = self.sprites.get(name)
        if sprite is None:
            raise errors.sprite_not_found()
        return sprite

    # -- creation -------------------------------------------------------------

    async def create(self, body):
        """The control plane's POST: checks, limits, faults, the time it takes."""
        name = check_create(body)
        try:
            fault = self.faults.hit("create_429", name, "POST", path="/v1/sprites")
            if fault:
                raise errors.creation_limited(*(self.settings.create_limit or (10, 60)), fault["retry_after_seconds"])
            self.check_free(name)
            if self.settings.running_limit_on in ("create", "both"):
                await self.admit_running(body.get("wait_for_capacity"))
                self.check_free(name)       # it may have waited
            self.limits.admit_creation()
        except errors.Refusal as refusal:
            self.creates_refused += refusal.status == 429
            raise
        failure = self.faults.hit("create_500", name, "POST", path="/v1/sprites")
        if failure and not failure["created"]:
            raise errors.Refusal(500, {"error": "failed to create sprite"})
        hang = self.faults.hit("create_hang", name, "POST", path="/v1/sprites")
        self.creating.add(name)
        try:
            await asyncio.sleep(self.settings.create_delay + (hang.delay if hang else 0))
            sprite = self.sprites[name] = Sprite(self, name, body)
            self.changed(sprite)
        finally:
            self.creating.discard(name)
        self.created += 1
        self.max_alive = max(self.max_alive, len(self.sprites))
        if failure:
            raise errors.Refusal(500, {"error": "failed to create sprite"})
        return sprite

    async def admit_running(self, waits):
        while True:
            try:
                return self.limits.admit_running(self.running())
            except errors.Refusal:
                if not waits:
                    raise
            await asyncio.sleep(LOOK_FOR_CAPACITY)

    def check_free(self, name):
        if name in self.sprites or name in self.creating:
            raise errors.Refusal(409, errors.taken(name))

    async def destroy(self, sprite):
        if self.sprites.get(sprite.name) is sprite:
            del self.sprites[sprite.name]
            self.destroyed += 1
        await sprite.destroy()

    async def close(self):
        sprites = list(self.sprites.values())
        self.sprites.clear()
        await asyncio.gather(*(sprite.destroy() for sprite in sprites), return_exceptions=True)
        for task in list(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        if self.internet:
            self.internet.close()
        self.store.close()

    def changed(self, sprite):
        for watcher in self.watchers:
            watcher.changed(sprite.name)

    def keep_to_warm_limit(self):
        warm = sorted((sprite for sprite in self.sprites.values() if sprite.status == "warm" and sprite.paused_at), key=lambda sprite: sprite.paused_at)
        if self.settings.warm_limit is not None:
            for sprite in warm[:max(0, len(warm) - self.settings.warm_limit)]:
                self.background(sprite.cool())

    # -- counting -------------------------------------------------------------

    def running(self):
        return sum(1 for sprite in self.sprites.values() if sprite.status == "running" or sprite.waking)

    def count_running(self):
        self.max_running = max(self.max_running, self.running())

    def count_start(self, command):
        """When it is asked for: one whose answer is lost may have happened."""
        self.started += 1
        self.count_ids(command.exec_ids())

    def count_ids(self, exec_ids):
        for exec_id in exec_ids:
            self.starts[exec_id] = self.starts.get(exec_id, 0) + 1
            if len(self.starts) > STARTS:
                del self.starts[next(iter(self.starts))]

    def discount_start(self, command):
        """One that is known to have failed."""
        self.started -= 1
        for exec_id in command.exec_ids() & self.starts.keys():
            self.starts[exec_id] -= 1
            if not self.starts[exec_id]:
                del self.starts[exec_id]

    def counters(self):
        states = [sprite.status for sprite in self.sprites.values()]
        return {"name": self.organization, "running": states.count("running"), "warm": states.count("warm"),
                "cold": states.count("cold"), "running_limit": self.settings.running_limit, "warm_limit": self.settings.warm_limit}

    def state(self):
        """What really happened, for tests."""
        sprites = [{"name": sprite.name, "status": sprite.status, "created_at": sprite.describe()["created_at"],
                    "labels": sprite.labels, "waits": sprite.waits} for sprite in self.sprites.values()]
        return {"sprites": sprites, "created": self.created, "destroyed": self.destroyed, "started": self.started,
                "paused": self.paused, "creates_refused": self.creates_refused, "max_alive": self.max_alive,
                "max_running": self.max_running, "starts": self.starts}


def check_create(body):
    if not isinstance(body, dict):
        raise errors.invalid("invalid request body")
    name = body.get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise errors.invalid("invalid sprite name format")
    environment = body.get("environment")
    if environment is not None and not (isinstance(environment, dict)
                                        and all(isinstance(value, str) for value in environment.values())):
        raise errors.invalid("environment must be a map of texts")
    if body.get("config") is not None and not isinstance(body["config"], dict):
        raise errors.invalid("config must be an object")
    if body.get("runtime") not in (None, "default", "dev"):
        raise errors.invalid("invalid runtime, must be one of: default, dev")
    if not isinstance(body.get("wait_for_capacity", False), bool):
        raise errors.invalid("wait_for_capacity must be true or false")
    check_settings(body)
    return name


def check_settings(body):
    """The fields that creation and update share."""
    labels = body.get("labels")
    if labels is not None and not (isinstance(labels, list) and all(isinstance(label, str) for label in labels)):
        raise errors.invalid("labels must be an array of texts")
    url_settings = body.get("url_settings")
    if url_settings is None:
        return
    if not isinstance(url_settings, dict) or url_settings.get("auth", "sprite") not in ("sprite", "public"):
        raise errors.invalid("invalid auth type, must be one of: sprite, public")
    if url_settings.get("private_access") not in (None, "admins", "org_users"):
        raise errors.invalid("invalid private access, must be one of: admins, org_users")
