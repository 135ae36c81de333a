"""Refusals with the bodies and headers of the two servers behind one host."""
import math
import time


class Refusal(Exception):
    """An answer that ends a request: a dict body is JSON, a text body is a line of the in-sprite agent."""

    def __init__(self, status, body, headers=None):
        super().__init__(f"{status} {body}")
        self.status = status
        self.body = body
        self.headers = headers or {}


def unauthorized():
    return Refusal(401, {"error": "authentication failed"})


def sprite_not_found():
    return Refusal(404, {"error": "sprite not found"})


def taken(name):
    return {"error": f"A sprite named '{name}' already exists. Please choose a different name."}


def invalid(*reasons):
    return Refusal(400, {"errors": list(reasons)})


def limited(code, message, limit, retry_after, **more):
    seconds = max(1, math.ceil(retry_after))
    body = {"error": code, "message": message, "limit": limit, "retry_after_seconds": seconds,
            "upgrade_available": True, "upgrade_url": "https://fly.io/dashboard", **more}
    headers = {"Retry-After": str(seconds), "X-RateLimit-Limit": str(limit), "X-RateLimit-Remaining": "0",
               "X-RateLimit-Reset": str(int(time.time()) + seconds)}
    return Refusal(429, body, headers)


def creation_limited(limit, window, retry_after):
    return limited("sprite_creation_rate_limited",
                   f"Sprite creation rate limit exceeded: {limit} per {window:g} seconds", limit, retry_after,
                   window_seconds=max(1, round(window)))


def running_limited(limit, current, retry_after=5):
    return limited("concurrent_sprite_limit_exceeded",
                   f"Concurrent sprite limit exceeded: {current} of {limit} running", limit, retry_after,
                   current_count=current)


def too_many_requests(retry_after):
    """Of a proxy in front: no limit of Sprites."""
    return Refusal(429, "Too Many Requests\n", {"Retry-After": str(max(1, math.ceil(retry_after)))})


def unavailable(retry_after):
    """What the control plane says that cannot answer now."""
    seconds = str(max(1, math.ceil(retry_after)))
    return Refusal(503, {"error": "service unavailable"}, {"Retry-After": seconds})


def starting(sprite_id, retry_after):
    seconds = max(1, math.ceil(retry_after))
    return Refusal(503, {"error": "sprite_starting", "sprite_id": sprite_id, "message": "sprite is starting",
                         "retry_after_seconds": seconds}, {"Retry-After": str(seconds)})
