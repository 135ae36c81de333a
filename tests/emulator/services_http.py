"""Routes of services. Starting, stopping and logs answer with a stream of events for as long as is asked."""
import asyncio
import collections
import time

from aiohttp import web

import command
import errors
import values
from answers import agent_answer, read_agent_json, start_lines, write_line
from services import Settings

START, STOP, LOGS = 5.0, 10.0, 0.0      # seconds, unless the client says
HELD = 10_000                           # events for a client that does not read


class Follower:
    """Events of one service for one client; what it does not take in time is lost from the front."""

    def __init__(self, service):
        self.service = service
        self.events = collections.deque(maxlen=HELD)
        self.arrived = asyncio.Event()

    def put(self, event):
        self.events.append(event)
        self.arrived.set()

    def __enter__(self):
        self.service.followers.add(self)
        return self

    def __exit__(self, *_):
        self.service.followers.discard(self)

    async def send(self, response):
        while self.events:
            await write_line(response, self.events.popleft())

    async def follow(self, response, seconds):
        """Until the time is over or the service has come to its end."""
        end = time.monotonic() + seconds
        while True:
            await self.send(response)
            left = end - time.monotonic()
            if left <= 0 or (not self.service.alive and not self.events):
                return
            self.arrived.clear()
            waiting = {asyncio.ensure_future(self.arrived.wait())}
            await asyncio.wait(waiting | ({self.service.task} if self.service.alive else set()), timeout=left,
                               return_when=asyncio.FIRST_COMPLETED)
            for future in waiting:
                future.cancel()


async def finish(response):
    await write_line(response, {"type": "complete", "timestamp": round(time.time() * 1000)})
    await response.write_eof()
    return response


def seconds(request, name, default):
    text = request.query.get(name)
    try:
        return values.duration(text) if text else default
    except ValueError as error:
        raise errors.Refusal(400, f"invalid {name}: {error}\n") from None


def find(request, sprite):
    return sprite.services.get(request.match_info["service"])


# -- routes --------------------------------------------------------------------

async def list_all(request, sprite):
    return agent_answer([service.describe() for service in sprite.services.services.values()])


async def get(request, sprite):
    return agent_answer(sprite.world.faults.damage(find(request, sprite).describe(), sprite.name))


async def put(request, sprite):
    settings = Settings.parse(await read_agent_json(request))
    return await begin(request, sprite, sprite.services.put(request.match_info["service"], settings))


async def start(request, sprite):
    service = find(request, sprite)
    if service.program:
        raise errors.Refusal(409, f"service already running: {service.name}\n")
    return await begin(request, sprite, service)


async def restart(request, sprite):
    return await begin(request, sprite, find(request, sprite))


async def begin(request, sprite, service):
    """Stop it if it runs, start it, and tell what happens."""
    duration = seconds(request, "duration", START)
    with Follower(service) as follower:
        response = await start_lines(request)
        await service.stop(STOP)
        sprite.services.start(service)
        await follower.follow(response, duration)
        return await finish(response)


async def stop(request, sprite):
    service = find(request, sprite)
    if not service.alive:
        raise errors.Refusal(409, f"service not running: {service.name}\n")
    timeout = seconds(request, "timeout", STOP)
    with Follower(service) as follower:
        response = await start_lines(request)
        await service.stop(timeout)
        await follower.send(response)
        return await finish(response)


async def logs(request, sprite):
    service = find(request, sprite)
    lines = request.query.get("lines", "")
    kept = list(service.lines)
    with Follower(service) as follower:
        response = await start_lines(request)
        for event in kept[len(kept) - min(int(lines), len(kept)):] if lines.isdecimal() else kept:
            await write_line(response, event)
        await follower.follow(response, seconds(request, "duration", LOGS))
        return await finish(response)


async def delete(request, sprite):
    service = find(request, sprite)
    users = sprite.services.users(service.name)
    if users:
        raise errors.Refusal(409, f"service is needed by {', '.join(users)}\n")
    await service.stop(STOP)
    sprite.services.services.pop(service.name, None)
    return web.Response(status=204)


async def signal(request, sprite):
    body = await read_agent_json(request)
    body = body if isinstance(body, dict) else {}
    number = command.signal_number(body.get("signal"))
    if number is None:
        raise errors.Refusal(400, f"invalid signal: {body.get('signal')}\n")
    service = sprite.services.get(str(body.get("name")))
    if service.program is None:
        raise errors.Refusal(409, f"service not running: {service.name}\n")
    await service.program.signal(number)
    return web.Response(status=204)


ROUTES = (
    ("GET", "/services", list_all),
    ("POST", "/services/signal", signal),
    ("GET", "/services/{service}", get),
    ("PUT", "/services/{service}", put),
    ("DELETE", "/services/{service}", delete),
    ("POST", "/services/{service}/start", start),
    ("POST", "/services/{service}/stop", stop),
    ("POST", "/services/{service}/restart", restart),
    ("GET", "/services/{service}/logs", logs),
)
