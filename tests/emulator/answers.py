"""Answers as the two servers behind one host write them, and bodies of requests."""
import json

from aiohttp import web

import errors

MAX_URL = 40960


@web.middleware
async def refusals(request, handler):
    """Around every handler: what it raises becomes an answer."""
    try:
        if len(request.raw_path) > MAX_URL:
            raise errors.Refusal(414, "URI Too Long\n")
        return await handler(request)
    except errors.Refusal as refusal:
        return answer(refusal.status, refusal.body, refusal.headers)
    except web.HTTPException as error:
        headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        return answer(error.status, {"error": error.reason.lower()}, headers)
    except ConnectionError:
        # the client is gone; there is nobody to answer
        if request.transport:
            request.transport.abort()
        return web.Response(status=503)


def answer(status, body, headers=None):
    if isinstance(body, str):
        return web.Response(status=status, text=body, headers={"X-Content-Type-Options": "nosniff", **(headers or {})})
    return web.Response(status=status, text=json.dumps(body), content_type="application/json", charset="utf-8",
                        headers=headers)


def agent_answer(body, status=200):
    """JSON as the in-sprite agent writes it: no charset, a line end."""
    return web.Response(status=status, body=json.dumps(body).encode() + b"\n",
                        headers={"Content-Type": "application/json"})


async def read_json(request):
    """The body, which may be missing whatever Content-Type says; BadBody if it is not JSON."""
    raw = await request.read()
    try:
        return json.loads(raw) if raw.strip() else None
    except ValueError:
        raise errors.invalid("invalid JSON body") from None


async def read_agent_json(request):
    """The same for the in-sprite agent, which refuses with a line of text."""
    try:
        return await read_json(request)
    except errors.Refusal:
        raise errors.Refusal(400, "invalid request body\n") from None


async def start_lines(request):
    """A stream of JSON lines that has begun."""
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson", "Cache-Control": "no-cache",
                                           "X-Content-Type-Options": "nosniff"})
    await response.prepare(request)
    return response


async def write_line(response, message):
    await response.write(json.dumps(message).encode() + b"\n")
