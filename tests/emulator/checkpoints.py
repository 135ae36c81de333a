"""Checkpoints of one Sprite: copies of its disk, numbered from v1; v0 is the disk it began with.

Automatic ones, called auto-…, keep what a restore replaces. They are asked for by a setting that says how many are
kept, use up no number and are not seen by commands.

A copy is made while no process of the Sprite runs, so that it is of one moment, and so that
nothing can lead it out of the disk by swapping folders and links. The newest five are seen
read-only under /.sprite/checkpoints.
"""
import asyncio
import dataclasses
import os
import subprocess
import time

import disk
import values

CURRENT = "Current"
SEEN = 5


class CheckpointError(Exception):
    """What a client is told; the disk is as it was."""


@dataclasses.dataclass
class Checkpoint:
    id: str
    created: float
    comment: str = ""
    is_auto: bool = False

    def describe(self, skew=0):
        described = {"id": self.id, "create_time": values.stamp_seconds(self.created + skew)}
        if self.comment:
            described["comment"] = self.comment
        return {**described, "is_auto": self.is_auto}


class Checkpoints:
    def __init__(self, sprite):
        self.sprite = sprite
        self.disk = sprite.disk
        self.kept = self.disk.path / "checkpoints"
        self.seen = self.disk.path / "sprite" / "checkpoints"
        for folder in (self.kept, self.seen, self.seen / "v0", self.seen / "v0" / "home"):
            make_open(folder)
        self.records = {"v0": Checkpoint("v0", sprite.created_at)}      # oldest first
        self.next = 1
        self.busy = asyncio.Lock()
        begin = self.seen / "v0" / "home" / "sprite"
        make_open(begin)
        self.disk.own(begin)

    def list(self, include_auto):
        """Newest first, after the entry that stands for the disk as it is."""
        return [Checkpoint(CURRENT, time.time()),
                *(record for record in reversed(self.records.values()) if include_auto or not record.is_auto)]

    def get(self, id):
        if id == CURRENT:
            return Checkpoint(CURRENT, time.time())
        if id not in self.records:
            raise CheckpointError(f"checkpoint with path checkpoints/{id} not found")
        return self.records[id]

    def is_active(self, id):
        """The disk as it is: `Current`, which will be the next number."""
        return id in (CURRENT, f"v{self.next}")

    async def create(self, comment):
        async with self.busy:
            id = f"v{self.next}"
            target = self.seen / id
            await self.sprite.hold_still(lambda: self.copy(self.disk.path / "home", target))
            self.next += 1
            record = self.records[id] = Checkpoint(id, time.time(), comment)
            self.arrange()
            return record

    async def restore(self, id):
        async with self.busy:
            if id == CURRENT:
                raise CheckpointError(f"checkpoint with path checkpoints/{id} not found")
            source = self.folder(self.get(id)) / "home" / "sprite"
            await self.sprite.rebuild(lambda: self.replace(source))
            await self.prune()

    async def delete(self, id):
        async with self.busy:
            await asyncio.to_thread(disk.remove, self.folder(self.get(id)))
            del self.records[id]
            self.arrange()

    async def replace(self, source):
        if self.sprite.settings.auto_checkpoints:
            id = f"auto-{values.ulid().lower()}"
            await self.copy(self.disk.path / "home", self.kept / id)
            self.records[id] = Checkpoint(id, time.time(), is_auto=True)
        await self.put_back(source)

    async def prune(self):
        """The oldest automatic ones, beyond as many as are kept."""
        automatic = [id for id, record in self.records.items() if record.is_auto]
        for id in automatic[:-self.sprite.settings.auto_checkpoints]:
            await asyncio.to_thread(disk.remove, self.folder(self.records.pop(id)))

    # -- on the disk ----------------------------------------------------------

    def folder(self, record):
        seen = self.seen / record.id
        return seen if seen.exists() else self.kept / record.id

    def arrange(self):
        """The newest five where commands can read them."""
        newest = [id for id, record in self.records.items() if not record.is_auto][-SEEN:]
        for id, record in self.records.items():
            place = (self.seen if id in newest else self.kept) / id
            if self.folder(record) != place:
                os.rename(self.folder(record), place)

    async def copy(self, home, target):
        fresh = target.with_name(f".{target.name}")
        try:
            make_open(fresh)
            make_open(fresh / "home")
            await copy_tree(home, fresh / "home" / "sprite")
            fresh.rename(target)
        except BaseException:
            disk.remove(fresh)
            raise

    async def put_back(self, source):
        home = self.disk.path / "home"
        fresh, old = home.with_name("home.new"), home.with_name("home.old")
        try:
            await copy_tree(source, fresh)
            home.rename(old)
            fresh.rename(home)
        finally:
            for folder in (fresh, old):
                await asyncio.to_thread(disk.remove, folder)


def make_open(folder):
    """A folder that the Sprite's user may enter, whatever the umask."""
    folder.mkdir()
    folder.chmod(0o755)


async def copy_tree(source, target):
    """Everything as it is: owners, modes, times, hard links, holes."""
    process = await asyncio.create_subprocess_exec("cp", "-a", "--reflink=auto", "-T", "--", source, target,
                                                   stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        _, text = await process.communicate()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        raise CheckpointError(f"copying the disk failed: {text.decode(errors='replace').strip()[-200:]}")
