"""Routes of the control plane and of the agent in the Sprite, behind one host; authorisation, headers, error bodies."""
import asyncio
import email.utils
import hmac
import json
import secrets
import time
import uuid

from aiohttp import web

import checkpoints_http
import command as commands
import control
import errors
import exec_http
import exec_ws
import faults_http
import files_http
import listing
import services_http
import sockets_ws
import values
from answers import agent_answer, answer, read_json, refusals
from faults import BadFault
from faults_http import clock_skew
from policy import BadPolicy
from sandbox import SandboxError
from world import World, check_settings

WORLD = web.AppKey("world", World)
MINTED = 1000           # tokens at most
POLICIES = ("network", "privileges", "resources")


def make(world):
    app = web.Application(middlewares=[refusals, authorize, faults_http.around(world)], client_max_size=1 << 40)
    app[WORLD] = world
    app.on_response_prepare.append(add_headers)
    add = app.router.add_route
    add("POST", "/v1/organizations/{organization}/tokens", mint_token)
    add("POST", "/v1/sprites", create_sprite)
    add("GET", "/v1/sprites", list_sprites)
    add("GET", "/v1/sprites/{name}", get_sprite)
    add("PUT", "/v1/sprites/{name}", update_sprite)
    add("DELETE", "/v1/sprites/{name}", delete_sprite)
    add("POST", "/v1/sprites/{name}/upgrade", upgrade_sprite)
    add("POST", "/v1/sprites/{name}/restart", restart_sprite)
    add("GET", "/v1/sprites/{name}/check", check_sprite)
    agent = "/v1/sprites/{name}"
    add("GET", agent + "/exec", on_agent(get_exec))
    add("HEAD", agent + "/exec", on_agent(head_exec))
    add("POST", agent + "/exec", on_agent(exec_http.post))
    add("GET", agent + "/exec/{id}", on_agent(attach_exec))
    add("DELETE", agent + "/exec/{id}", on_agent(no_route))
    add("POST", agent + "/exec/{id}/kill", on_agent(kill_session))
    add("GET", agent + "/control", on_agent(open_control, control_socket=True))
    add("GET", agent + "/policy/{kind}", on_agent(get_policy))
    add("POST", agent + "/policy/{kind}", on_agent(set_policy))
    add("DELETE", agent + "/policy/{kind}", on_agent(clear_policy))
    for method, path, handler in (*checkpoints_http.ROUTES, *files_http.ROUTES, *services_http.ROUTES, *sockets_ws.ROUTES):
        add(method, agent + path, on_agent(handler))
    add("GET", "/_emulator/state", get_state)
    add("GET", "/_emulator/faults", list_faults)
    add("POST", "/_emulator/faults", add_fault)
    add("DELETE", "/_emulator/faults", clear_faults)
    add("POST", "/_emulator/pause", pause_sprite)
    return app


# -- around every request ------------------------------------------------------

@web.middleware
async def authorize(request, handler):
    if not request.path.startswith("/_emulator/"):
        world, given = request.app[WORLD], request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        minting = request.match_info.handler is mint_token
        accepted = [f"FlyV1 {world.settings.token}"] if minting else [f"Bearer {token}" for token in (world.settings.token, *world.minted)]
        if not any(hmac.compare_digest(given, one.encode()) for one in accepted):
            raise errors.unauthorized()
    return await handler(request)


async def add_headers(request, response):
    if request.path.startswith("/_emulator/"):
        return
    headers = response.headers
    headers["Server"] = "Fly/emulator (2026-01-01)"
    headers["Via"] = "1.1 fly.io"
    headers["Fly-Request-Id"] = f"{values.ulid()}-lhr"
    skew = clock_skew(request, request.app[WORLD].faults)
    headers["Date"] = email.utils.formatdate(time.time() + skew, usegmt=True)
    if skew and "X-RateLimit-Reset" in headers:
        headers["X-RateLimit-Reset"] = str(int(headers["X-RateLimit-Reset"]) + int(skew))
    if request.get("agent"):
        headers["Sprite-Version"] = request.app[WORLD].settings.sprite_version
    else:
        headers["X-Request-Id"] = uuid.uuid4().hex
        headers["Cache-Control"] = "max-age=0, private, must-revalidate"


def find(request):
    world, name = request.app[WORLD], request.match_info["name"]
    sprite = world.find(name)
    if world.faults.hit("false_404", name, request.method, path=request.path):
        raise errors.sprite_not_found()
    return sprite


def find_recorded(request, verb):
    """With --missing-500 the control plane fails where it should not find, as it was recorded live."""
    try:
        return find(request)
    except errors.Refusal:
        if request.app[WORLD].settings.missing_500:
            raise errors.Refusal(500, {"error": f"failed to {verb} sprite"}) from None
        raise


# -- control plane -------------------------------------------------------------

async def mint_token(request):
    """For the owner of the organisation: the token of the command line stands for his Fly token."""
    world, body = request.app[WORLD], await read_json(request)
    if request.match_info["organization"] != world.organization:
        raise errors.Refusal(404, {"error": "organization not found"})
    if not isinstance(body, dict) or not isinstance(body.get("description"), str) or not isinstance(body.get("invite_code", ""), str):
        raise errors.invalid("description must be a text, and so must invite_code")
    if len(world.minted) >= MINTED:
        raise errors.Refusal(403, {"error": "too many tokens"})
    token = f"{world.organization}/{world.organization_id}/{values.ulid()}/{secrets.token_hex(16)}"
    world.minted.append(token)
    return answer(201, {"token": token})


def describe(request, sprite):
    world = request.app[WORLD]
    return world.faults.damage(sprite.describe(clock_skew(request, world.faults)), sprite.name)


async def create_sprite(request):
    sprite = await request.app[WORLD].create(await read_json(request))
    return answer(201, describe(request, sprite))


async def list_sprites(request):
    world, query = request.app[WORLD], listing.Query(request.query)
    if "application/x-ndjson" in request.headers.get("Accept", ""):
        return await listing.stream(request, world, query)
    return answer(200, world.faults.damage(listing.page(world, query, lambda sprite: describe(request, sprite))))


async def get_sprite(request):
    return answer(200, describe(request, find_recorded(request, "retrieve")))


async def update_sprite(request):
    sprite, body = find(request), await read_json(request)
    if not isinstance(body, dict) or not {"url_settings", "labels", "clear_labels"} & set(body):
        raise errors.invalid("at least one of url_settings, labels is required")
    check_settings(body)
    sprite.update(body)
    return answer(200, describe(request, sprite))


async def delete_sprite(request):
    world, sprite = request.app[WORLD], find_recorded(request, "delete")
    fault = world.faults.hit("delete_500", sprite.name, "DELETE", path=request.path)
    if fault and not fault["deleted"]:
        raise errors.Refusal(500, {"error": "failed to delete sprite"})
    # a client that hangs up does not stop it
    await asyncio.shield(world.background(world.destroy(sprite)))
    if fault:
        raise errors.Refusal(500, {"error": "failed to delete sprite"})
    return web.Response(status=204, headers={"Content-Type": "text/plain; charset=utf-8"})


async def upgrade_sprite(request):
    """There is only one version, so nothing happens to the machine."""
    find(request).touch()
    return web.Response(status=204)


async def restart_sprite(request):
    sprite = find(request)
    await sprite.crash()
    async with sprite.busy():
        return answer(200, {"sprite_name": sprite.name, "machine_id": sprite.machine_id, "message": "machine restarted"})


async def check_sprite(request):
    """Asks nothing of the machine, so it wakes nobody."""
    sprite = find(request)
    return answer(200, {"sprite_name": sprite.name, "sprite_id": sprite.id, "status": "healthy", "reason": None,
                        "checked_at": values.stamp(time.time())})


# -- agent ---------------------------------------------------------------------

def on_agent(handler, control_socket=False):
    """A route that wakes the Sprite: the request is held until it runs, and cut when it pauses."""
    async def wrapped(request):
        world, sprite = request.app[WORLD], find(request)
        fault = world.faults.hit("starting_503", sprite.name, request.method, path=request.path)
        if fault:
            raise errors.starting(sprite.id, fault["retry_after_seconds"])
        holds = not control_socket or world.settings.control_idle_holds
        async with sprite.busy(request.transport, holds):
            request["agent"] = True
            return await handler(request, sprite)
    return wrapped


async def get_exec(request, sprite):
    if not is_upgrade(request):
        return agent_answer(exec_http.list_sessions(sprite))
    id = request.query.get("id")
    if id:
        return await attach(request, sprite, id)
    try:
        command = commands.from_query(request.query)
    except commands.BadCommand as error:
        raise errors.Refusal(400, f"{error}\n") from None
    return await exec_ws.serve(request, sprite, command)


async def head_exec(request, sprite):
    return web.Response(headers={"Content-Type": "application/json"})


async def attach_exec(request, sprite):
    if not is_upgrade(request):
        raise errors.Refusal(400, "bad upgrade: not a WebSocket handshake\n")
    return await attach(request, sprite, request.match_info["id"])


async def attach(request, sprite, id):
    """To a session that runs; one that has ended is not found, though its kill tells it apart."""
    if id not in sprite.sessions:
        raise errors.Refusal(404, f"session not found: {id}\n")
    try:
        offset = commands.output_offset(request.query.get("output_offset"))
    except commands.BadCommand as error:
        raise errors.Refusal(400, f"{error}\n") from None
    return await exec_ws.serve(request, sprite, attach=sprite.sessions[id], offset=offset)


async def kill_session(request, sprite):
    return await exec_http.kill(request, sprite, request.match_info["id"])


async def no_route(request, sprite):
    raise errors.Refusal(404, "404 page not found\n")


async def open_control(request, sprite):
    return await control.serve(request, sprite)


def is_upgrade(request):
    return request.headers.get("Upgrade", "").lower() == "websocket"


def policy_kind(request, kinds=POLICIES):
    kind = request.match_info["kind"]
    if kind not in kinds:
        raise errors.Refusal(404, "404 page not found\n")
    return kind


async def get_policy(request, sprite):
    body = sprite.policies.get(policy_kind(request))
    return agent_answer(sprite.world.faults.damage(body, sprite.name))


async def set_policy(request, sprite):
    kind = policy_kind(request)
    try:
        await sprite.policies.set(kind, json.loads(await request.read()))
    except BadPolicy as error:
        raise errors.Refusal(400, f"invalid policy config: {error}\n") from None
    except ValueError:
        raise errors.Refusal(400, "invalid policy config: not JSON\n") from None
    except SandboxError as error:
        raise errors.Refusal(500, f"failed to apply policy: {error}\n") from None
    return web.Response(status=204)


async def clear_policy(request, sprite):
    await sprite.policies.clear(policy_kind(request, POLICIES[1:]))
    return web.Response(status=204)


# -- the emulator's own --------------------------------------------------------

async def get_state(request):
    return answer(200, request.app[WORLD].state())


async def list_faults(request):
    return answer(200, {"faults": [fault.describe() for fault in request.app[WORLD].faults.active]})


async def add_fault(request):
    try:
        return answer(200, request.app[WORLD].faults.add(await read_json(request)).describe())
    except BadFault as error:
        raise errors.Refusal(400, {"error": str(error)}) from None


async def clear_faults(request):
    request.app[WORLD].faults.clear(request.query.get("name"))
    return web.Response(status=204)


async def pause_sprite(request):
    body = await read_json(request)
    sprite = request.app[WORLD].find(body.get("sprite") if isinstance(body, dict) else None)
    await sprite.pause()
    return answer(200, {"name": sprite.name, "status": sprite.status})
