"""Faults that strike requests as such, whatever their route: late, refused, cut, or with a clock that is off."""
import asyncio
import json

from aiohttp import web

import errors
from wire import cut


def around(faults):
    """A middleware. One fault of each kind has its chance with each request."""
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
            raise refusal(refused)
        response = await handler(request)
        if lost:
            return lose(request)
        if refused and not response.prepared:
            raise refusal(refused)
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


def refusal(fault):
    status, seconds = fault["status"], fault["retry_after_seconds"]
    match status:
        case 401:
            return errors.unauthorized()
        case 404:
            return errors.sprite_not_found()
        case 429:
            return errors.running_limited(3, 3, seconds)
        case 502 | 504:
            return errors.Refusal(status, "Bad Gateway\n" if status == 502 else "Gateway Timeout\n")
        case 503:
            return errors.starting("sprite-00000000-0000-0000-0000-000000000000", seconds)
        case 409:
            return errors.Refusal(409, {"error": "conflict"})
        case _:
            return errors.Refusal(status, {"error": "internal server error" if status >= 500 else "bad request"})


def clock_skew(request, faults):
    """Seconds that the clock is off for this request."""
    if "skew" not in request:
        fault = faults.hit("clock_skew", request.match_info.get("name"), request.method, path=request.path)
        request["skew"] = fault["seconds"] if fault else 0
    return request["skew"]
