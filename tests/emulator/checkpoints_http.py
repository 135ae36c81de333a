"""Routes of checkpoints. Creating and restoring answer 200 and then tell in a stream how it went."""
import asyncio
import time

from aiohttp import web

import errors
import values
from answers import agent_answer, read_agent_json, start_lines, write_line
from checkpoints import CheckpointError
from faults_http import clock_skew
from sandbox import SandboxError
from wire import cut_when_sent


class Progress:
    """The stream of one operation."""

    def __init__(self, request, response, sprite):
        self.transport = request.transport
        self.response = response
        self.sprite = sprite
        self.cut = sprite.world.faults.hit("cut_lines", sprite.name, "POST", path=request.path)
        self.lines = 0

    async def say(self, type, **more):
        if self.cut and self.lines >= self.cut["lines"]:
            await cut_when_sent(self.transport)
            raise ConnectionResetError("cut by a fault")
        self.lines += 1
        message = {"type": type, **more, "time": values.stamp(time.time())}
        await write_line(self.response, self.sprite.world.faults.damage(message, self.sprite.name))

    async def info(self, *texts):
        for text in texts:
            await self.say("info", data=text)


async def operate(request, sprite, what, first, action, report):
    """Say `first`, and how it ended. It is done whether or not the client stays."""
    work = sprite.world.background(attempt(sprite, action))
    response = await start_lines(request)
    progress = Progress(request, response, sprite)
    await progress.info(first)
    result, failure = await asyncio.shield(work)
    if failure:
        await progress.say("error", error=f"Failed to {what} checkpoint: {failure}")
    else:
        await report(progress, result)
    await response.write_eof()
    return response


async def attempt(sprite, action):
    """(result, why there is none)."""
    try:
        return await action(), None
    except (CheckpointError, SandboxError) as error:
        return None, error
    except asyncio.CancelledError:
        if not sprite.destroyed:
            raise
        return None, "the sprite is gone"


async def create(request, sprite):
    body = await read_agent_json(request)
    comment = "" if body is None else body.get("comment", "") if isinstance(body, dict) else None
    if not isinstance(comment, str):
        raise errors.Refusal(400, "invalid request body\n")

    async def act():
        began = time.monotonic()
        if sprite.world.faults.hit("checkpoint_error", sprite.name, "POST", path=request.path):
            raise CheckpointError("failed to sync the filesystem: input/output error")
        record = await sprite.checkpoints.create(comment)
        await asyncio.sleep(began + sprite.settings.checkpoint_delay - time.monotonic())
        return record

    return await operate(request, sprite, "create", "Creating checkpoint...", act, report_created)


async def report_created(progress, record):
    created = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(record.created))
    await progress.info(
        "Checkpoint created successfully", "\nCheckpoint Details:", f"  ID: {record.id}", f"  Created: {created}",
        f"  Path: checkpoints/{record.id}", "\nTo restore this checkpoint:",
        f"  sprite checkpoint restore {record.id}", f"  curl -X POST /checkpoints/{record.id}/restore")
    await progress.say("complete", data=f"Checkpoint {record.id} created successfully")


async def restore(request, sprite):
    id = request.match_info["id"]
    sprite.sockets.discard(request.transport)       # the one connection that a restore leaves

    async def act():
        began = time.monotonic()
        if sprite.world.faults.hit("restore_error", sprite.name, "POST", path=request.path):
            raise CheckpointError("failed to mount checkpoint: input/output error")
        nothing = sprite.world.faults.hit("restore_nothing", sprite.name, "POST", path=request.path)
        if not nothing:
            await sprite.checkpoints.restore(id)
        elif nothing["restart"]:
            await sprite.rebuild(lambda: asyncio.sleep(0))
        await asyncio.sleep(began + sprite.settings.restore_delay - time.monotonic())

    async def report(progress, _):
        await progress.info("Container components started successfully")
        await progress.say("complete", data=f"Restore from {id} complete")

    return await operate(request, sprite, "restore", f"Restoring from checkpoint {id}...", act, report)


async def list_all(request, sprite):
    found = sprite.checkpoints.list(include_auto=request.query.get("includeAuto") == "true")
    wanted = request.query.get("history")
    if wanted:
        lines = [f"{record.id} {values.stamp_seconds(record.created)} {record.comment}".rstrip() + "\n"
                 for record in found if wanted in (record.id, record.comment)]
        return web.Response(text="".join(lines))
    skew = clock_skew(request, sprite.world.faults)
    return agent_answer([sprite.world.faults.damage(record.describe(skew), sprite.name) for record in found])


async def get(request, sprite):
    record = find(request, sprite, 500 if sprite.settings.missing_500 else 404)
    return agent_answer(sprite.world.faults.damage(record.describe(clock_skew(request, sprite.world.faults)), sprite.name))


async def delete(request, sprite):
    id = request.match_info["id"]
    if sprite.checkpoints.is_active(id):
        raise errors.Refusal(409, "Cannot delete the active checkpoint\n")
    find(request, sprite)
    try:
        await asyncio.shield(sprite.world.background(sprite.checkpoints.delete(id)))
    except CheckpointError as error:
        raise errors.Refusal(404, f"Failed to delete checkpoint: {error}\n") from None
    return web.Response(status=204)


def find(request, sprite, missing=404):
    try:
        return sprite.checkpoints.get(request.match_info["id"])
    except CheckpointError as error:
        raise errors.Refusal(missing, f"Failed to get checkpoint: {error}\n") from None


ROUTES = (
    ("POST", "/checkpoint", create),
    ("GET", "/checkpoints", list_all),
    ("GET", "/checkpoints/{id}", get),
    ("DELETE", "/checkpoints/{id}", delete),
    ("POST", "/checkpoints/{id}/restore", restore),
)
