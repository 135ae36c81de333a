"""The API that commands find inside their Sprite, at /.sprite/api.sock: its tasks, checkpoints and services."""
import os
import socket

from aiohttp import web

import checkpoints_http
import services_http
import tasks
from answers import refusals

MAX_BODY = 1 << 20


class ApiSocket:
    """Open from the first start of the machine to the end of the Sprite."""

    def __init__(self, sprite):
        self.sprite = sprite
        self.runner = None

    async def open(self):
        if self.runner:
            return
        app = web.Application(middlewares=[refusals], client_max_size=MAX_BODY)
        for method, path, handler in tasks.ROUTES:
            app.router.add_route(method, "/v1" + path, self.bind(handler))
        for method, path, handler in (*checkpoints_http.ROUTES, *services_http.ROUTES):
            app.router.add_route(method, "/v1" + path, self.hold(handler))
        self.runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
        await self.runner.setup()
        await web.SockSite(self.runner, self.listen()).start()

    def listen(self):
        """A socket in /.sprite; named through a descriptor, since the name of a socket may not be long."""
        folder = os.open(self.sprite.disk.path / "sprite", os.O_PATH | os.O_DIRECTORY)
        try:
            path = f"/proc/self/fd/{folder}/api.sock"
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(path)
            os.chmod(path, 0o666)
        finally:
            os.close(folder)
        return listener

    def bind(self, handler):
        async def bound(request):
            return await handler(request, self.sprite)
        return bound

    def hold(self, handler):
        """Long work keeps its Sprite awake."""
        async def held(request):
            async with self.sprite.busy():
                return await handler(request, self.sprite)
        return held

    async def close(self):
        if self.runner:
            await self.runner.cleanup()
