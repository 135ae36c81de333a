"""The list of an organisation's Sprites: pages, and with Accept: application/x-ndjson a stream of what changes.

A stream begins with one line for each Sprite of the page. A line follows for each Sprite whose
status has changed, a heartbeat when one was deleted, and one whenever nothing was told for
--list-heartbeat. Each line carries the counters and limits of the organisation.
"""
import asyncio
import json
import time

from aiohttp import web

import values

PAGE = 50
LOOK_FOR_CLIENT = 0.25


class Watcher:
    """What one stream has not told yet: each name once, however often its Sprite has changed."""

    def __init__(self, prefix, names):
        self.prefix = prefix
        self.pending = dict.fromkeys(names)
        self.news = asyncio.Event()
        self.news.set()

    def changed(self, name):
        if name.startswith(self.prefix):
            self.pending[name] = None
            self.news.set()


class Query:
    """Sizes above the page are clamped, nonsense counts as not given."""

    def __init__(self, query):
        size = query.get("max_results", "")
        self.size = min(PAGE, int(size)) if size.isdecimal() and int(size) > 0 else PAGE
        self.prefix = query.get("prefix", "")
        self.after = query.get("continuation_token", "")
        self.minimal = query.get("bulk_load") == "true"

    def page(self, world):
        """Names, and the token of the next page or None."""
        names = sorted(name for name in world.sprites if name.startswith(self.prefix) and name > self.after)
        return names[:self.size], names[self.size - 1] if len(names) > self.size else None


def page(world, query, describe):
    names, token = query.page(world)
    sprites = [describe(world.sprites[name]) for name in names]
    if query.minimal:
        sprites = [{"name": sprite["name"], "org_slug": world.organization, "updated_at": sprite["updated_at"]}
                   for sprite in sprites]
    told = {"sprites": sprites, "next_continuation_token": token, "has_more": world.settings.has_more_always or token is not None}
    counters = world.counters()
    return {**told, **counters, "org": counters} if world.settings.list_counters else told


async def stream(request, world, query):
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson", "X-Content-Type-Options": "nosniff"})
    await response.prepare(request)
    watcher = Watcher(query.prefix, query.page(world)[0])
    world.watchers.add(watcher)
    try:
        await tell(request, response, world, watcher)
    finally:
        world.watchers.discard(watcher)
    return response


async def tell(request, response, world, watcher):
    """Until the client has left."""
    told = time.monotonic()
    while request.transport and not request.transport.is_closing():
        try:
            await asyncio.wait_for(watcher.news.wait(), LOOK_FOR_CLIENT)
        except TimeoutError:
            if time.monotonic() - told < world.settings.list_heartbeat:
                continue
        watcher.news.clear()
        for name in list(watcher.pending) or [None]:
            watcher.pending.pop(name, None)
            await response.write(json.dumps(event(world, world.sprites.get(name))).encode() + b"\n")
        told = time.monotonic()


def event(world, sprite):
    told = {"timestamp": values.stamp(time.time()), "org": world.counters()}
    if sprite is None:
        return {"type": "heartbeat", **told}
    described = sprite.describe()
    return {"name": sprite.name, "status": sprite.status, "running_version": described["version"],
            "last_running_at": described["last_running_at"], "last_warming_at": described["last_warming_at"], **told}
