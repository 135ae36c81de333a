"""Faults that strike requests as such, whatever their route: late, refused, cut, or with a clock that is off."""
import asyncio
import http
import json

from aiohttp import web

import errors
from wire import cut

VERBS = {"POST": "create", "GET": "retrieve", "PUT": "update", "DELETE": "delete"}
FILE_CODES = {400: "EINVAL", 409: "EEXIST"}
AGENT_LINES = {("exec", 400): "No command specified", ("exec", 410): "session already exited", ("exec", 500): "failed to create runner",
               ("control", 400): "bad upgrade: not a WebSocket handshake", ("policy", 400): "invalid policy config: rules is required",
               ("policy", 500): "failed to apply policy", ("checkpoints", 500): "Failed to get checkpoint: the storage is not ready"}


def around(world):
    """A middleware. One fault of each kind has its chance with each request."""
    faults = world.faults

    @web.middleware
    async def strike(request, handler):
        if request.path.startswith("/_emulator/") or not faults.active:
            return await handler(request)
        occasion = {"sprite": await name_of(request), "method": request.method, "path": request.path}
        late, refused, lost = (faults.hit(name, **occasion) for name in ("latency", "http_error", "cut_request"))
        if late:
            await asyncio.sleep(late.latency())
        if lost and not lost["after"]:
            return lose(request)
        if refused and not refused["after"]:
            raise refusal(refused, request, occasion["sprite"], world)
        response = await handler(request)
        if lost:
            return lose(request)
        if refused and not response.prepared:
            raise refusal(refused, request, occasion["sprite"], world)
        return response
    return strike


async def name_of(request):
    """Of the Sprite that it is about; a creation has it in its body."""
    if request.path == "/v1/sprites" and request.method == "POST":
        try:
            body = json.loads(await request.read())
        except ValueError:
            return None
        name = body.get("name") if isinstance(body, dict) else None
        return name if isinstance(name, str) else None
    return request.match_info.get("name")


def lose(request):
    if request.transport:
        cut(request.transport)
    raise ConnectionResetError("cut by a fault")


def refusal(fault, request, name, world):
    """As it is worded where that status comes from: before the Sprite, by the control plane, by the agent in the Sprite."""
    status, seconds = fault["status"], fault["retry_after_seconds"]
    kind = agent_route(request.path)
    match status:
        case 401:
            return errors.unauthorized()
        case 404:
            return errors.sprite_not_found()
        case 429:
            return errors.running_limited(3, 3, seconds) if fault["limit"] == "running" else errors.too_many_requests(seconds)
        case 502 | 504:
            return errors.Refusal(status, f"{reason(status).title()}\n")
        case 503 if kind and name in world.sprites:
            return errors.starting(world.sprites[name].id, seconds)
        case 503:
            return errors.unavailable(seconds)
        case _ if kind is None or status == 403:
            return errors.Refusal(status, control_plane_body(status, request, name))
    request["agent"] = True
    if kind == "fs":
        return errors.Refusal(status, {"error": reason(status), "code": FILE_CODES.get(status, "EIO")})
    return errors.Refusal(status, AGENT_LINES.get((kind, status), reason(status)) + "\n")


def reason(status):
    try:
        return http.HTTPStatus(status).phrase.lower()
    except ValueError:
        return f"status {status}"


def agent_route(path):
    """The first word of a route of the agent in the Sprite; None for routes of the control plane."""
    words = path.split("/")[4:] if path.startswith("/v1/sprites/") else []
    return words[0] if words and words[0] not in ("upgrade", "restart", "check") else None


def control_plane_body(status, request, name):
    create = request.method == "POST" and request.path == "/v1/sprites"
    if status == 400:
        return {"errors": ["invalid sprite name format" if create else reason(status)]}
    if status == 409 and create:
        return errors.taken(name)
    if status >= 500:
        return {"error": "failed to list sprites" if (request.method, request.path) == ("GET", "/v1/sprites")
                else f"failed to {VERBS.get(request.method, 'find')} sprite"}
    return {"error": reason(status)}


def clock_skew(request, faults):
    """Seconds that the clock is off for this request."""
    if "skew" not in request:
        fault = faults.hit("clock_skew", request.match_info.get("name"), request.method, path=request.path)
        request["skew"] = fault["seconds"] if fault else 0
    return request["skew"]
