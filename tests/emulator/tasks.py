"""Tasks of one Sprite: while one of them lives, the Sprite stays awake. Only commands inside can make them."""
import asyncio
import dataclasses
import time

from aiohttp import web

import errors
import values
from answers import agent_answer, read_agent_json

LONGEST = 3600
MOST = 1000


@dataclasses.dataclass
class Task:
    name: str
    started_at: float
    expires_at: float
    timer: asyncio.TimerHandle

    def describe(self):
        return {"name": self.name, "started_at": values.stamp(self.started_at), "expires_at": values.stamp(self.expires_at)}


class Tasks:
    def __init__(self, sprite):
        self.sprite = sprite
        self.tasks = {}

    def put(self, name, seconds):
        """Start one, or give one that lives another end."""
        before, now = self.tasks.get(name), time.time()
        if before:
            before.timer.cancel()
        elif not self.tasks:
            self.sprite.hold()
        timer = asyncio.get_running_loop().call_later(seconds, self.remove, name)
        task = self.tasks[name] = Task(name, before.started_at if before else now, now + seconds, timer)
        return task

    def remove(self, name):
        self.tasks.pop(name).timer.cancel()
        if not self.tasks:
            self.sprite.release()

    def clear(self):
        """The machine has stopped, and with it whatever they stood for."""
        for name in list(self.tasks):
            self.remove(name)

    def get(self, name):
        if name not in self.tasks:
            raise errors.Refusal(404, {"error": f"task not found: {name}"})
        return self.tasks[name]


# -- routes, on the socket inside ----------------------------------------------

async def list_all(request, sprite):
    return agent_answer({"tasks": [task.describe() for task in sprite.tasks.tasks.values()]})


async def get(request, sprite):
    return agent_answer(sprite.tasks.get(request.match_info["name"]).describe())


async def create(request, sprite):
    name, seconds = await read(request, sprite)
    if name in sprite.tasks.tasks:
        raise errors.Refusal(409, {"error": f"task already exists: {name}"})
    return agent_answer(sprite.tasks.put(name, seconds).describe(), 201)


async def put(request, sprite):
    name, seconds = await read(request, sprite)
    return agent_answer(sprite.tasks.put(name, seconds).describe())


async def delete(request, sprite):
    sprite.tasks.get(request.match_info["name"])
    sprite.tasks.remove(request.match_info["name"])
    return web.Response(status=204)


async def read(request, sprite):
    body = await read_agent_json(request)
    body = body if isinstance(body, dict) else {}
    name = request.match_info.get("name", body.get("name"))
    if not isinstance(name, str) or not 0 < len(name) <= 255:
        raise errors.Refusal(400, {"error": "name is required"})
    if name not in sprite.tasks.tasks and len(sprite.tasks.tasks) >= MOST:
        raise errors.Refusal(429, {"error": "too many tasks"})
    return name, seconds_of(body.get("expire"))


def seconds_of(expire):
    """Of integer seconds or a duration."""
    try:
        seconds = values.duration(expire) if isinstance(expire, str) else expire
    except ValueError as error:
        raise errors.Refusal(400, {"error": str(error)}) from None
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds <= LONGEST:
        raise errors.Refusal(400, {"error": "expire must be seconds or a duration, at most 1h"})
    return seconds


ROUTES = (
    ("GET", "/tasks", list_all),
    ("POST", "/tasks", create),
    ("PUT", "/tasks", put),
    ("GET", "/tasks/{name}", get),
    ("PUT", "/tasks/{name}", put),
    ("DELETE", "/tasks/{name}", delete),
)
