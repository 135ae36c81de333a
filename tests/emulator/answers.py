"""Answers as the two servers behind one host write them, and bodies of requests."""
import json

from aiohttp import web

import errors


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
