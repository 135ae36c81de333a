"""Tells the sockets of commands which ports of their Sprite open and close.

The kernel's tables are read from outside while somebody listens. Only when they have changed is a process started in
the Sprite, which says whose the sockets are. What changed while nobody listened is told to who listens next.
"""
import asyncio
import json

import errors
from program import inside

PAUSE = 0.25                # seconds between looks, and before the first: short commands pay nothing
LISTEN = "0A"


class Ports:
    def __init__(self, sprite):
        self.sprite = sprite
        self.audience = set()       # queues of messages
        self.empty = asyncio.Event()
        self.watching = None
        self.sandbox = None         # that the rest is about
        self.sockets = set()        # as the kernel prints those that listen
        self.open = {}              # (address, port) -> the message that told it

    def join(self):
        """A queue of what changes from now on."""
        queue = asyncio.Queue()
        self.audience.add(queue)
        self.empty.clear()
        if self.watching is None or self.watching.done():
            self.watching = self.sprite.world.background(self.watch())
        return queue

    def leave(self, queue):
        self.audience.discard(queue)
        if not self.audience:
            self.empty.set()

    async def watch(self):
        while self.audience:
            try:
                await asyncio.wait_for(self.empty.wait(), PAUSE)
            except TimeoutError:
                await self.look()

    async def look(self):
        sandbox = self.sprite.sandbox
        if sandbox is None:
            return
        if self.sandbox is not sandbox:
            self.sandbox, self.sockets, self.open = sandbox, set(), {}
        sockets = listening(sandbox.init)
        if sockets == self.sockets:
            return
        try:
            async with inside(self.sprite, "ports") as program:
                line = await program.output.readline()
        except (ConnectionResetError, errors.Refusal):
            return      # it is gone, or has no process to spare: the next look
        if line and program.sandbox is sandbox:
            now = {(port["address"], port["port"]): port for port in json.loads(line)["ports"]}
            # A socket of less than a moment is in one of the two tables only: what has changed is looked at once more.
            self.sockets = sockets if now == self.open else None
            self.compare(now)

    def compare(self, now):
        for gone in self.open.keys() - now.keys():
            self.tell({**self.open[gone], "type": "port_closed"})
        for new in now.keys() - self.open.keys():
            self.tell(now[new])
        self.open = now

    def tell(self, message):
        for queue in self.audience:
            queue.put_nowait(message)


def listening(pid):
    """Lines of sockets that listen in the network of this process; none when it has ended."""
    found = set()
    for table in ("tcp", "tcp6"):
        try:
            with open(f"/proc/{pid}/net/{table}", encoding="ascii") as file:
                rows = [line.split() for line in file][1:]
        except OSError:
            continue
        found |= {(row[1], row[9]) for row in rows if row[3] == LISTEN}
    return found
