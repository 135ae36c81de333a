"""The memory limit of one running Sprite: a control group of its own, made when a limit is first set.

What a Sprite's processes hold above the limit is not given to them: the kernel kills one
(exit 137). Memory that they had before the limit was first set is not counted, and
/proc/meminfo inside goes on to show the machine's.
"""
import asyncio
import errno
import os
import pathlib

from sandbox import SandboxError

PREFIX = "spritegate-emulator-"
MOST = 1 << 40
UNLIMITED = {"memory.limit_in_bytes": "-1", "memory.max": "max"}


class MemoryLimitError(SandboxError):
    """The limit could not be set."""


class ControlGroups:
    """Where groups for memory are made: the first version's hierarchy of its own, or the second's common one."""

    def __init__(self, mount="/sys/fs/cgroup"):
        """OSError if none can be made here."""
        mount = pathlib.Path(mount)
        if (mount / "memory/memory.limit_in_bytes").exists():
            self.folder, self.limit, self.swap = mount / "memory", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"
        elif "memory" in (mount / "cgroup.subtree_control").read_text().split():
            self.folder, self.limit, self.swap = mount, "memory.max", "memory.swap.max"
        else:
            raise OSError(errno.ENOTSUP, "no control group for memory", str(mount))
        self.number = 0
        self.ended = set()          # groups to be removed
        self.sweep()
        self.remove(self.make())

    def make(self):
        self.number += 1
        group = self.folder / f"{PREFIX}{os.getpid()}-{self.number}"
        group.mkdir()
        return group

    def remove(self, group):
        """Once its processes have ended; the kernel may need a moment to see it."""
        self.ended.add(group)
        for group in list(self.ended):
            try:
                group.rmdir()
            except OSError as error:
                if error.errno == errno.EBUSY:
                    continue        # with the next one
            self.ended.discard(group)

    def sweep(self):
        """Remove what emulators that were killed have left."""
        for group in self.folder.glob(PREFIX + "*"):
            pid = group.name.removeprefix(PREFIX).partition("-")[0]
            if not os.path.exists(f"/proc/{pid}"):
                try:
                    group.rmdir()
                except OSError:
                    pass        # somebody else was faster, or processes of it still end


class MemoryLimit:
    def __init__(self, groups, init):
        self.groups = groups
        self.init = init
        self.group = None
        self.lock = asyncio.Lock()
        self.ended = False

    async def apply(self, megabytes):
        """Set, change or (None) lift the limit."""
        async with self.lock:
            if self.ended or (self.group is None and megabytes is None):
                return
            try:
                self.group = self.group or self.groups.make()
                await asyncio.to_thread(self.enforce, megabytes)        # the kernel may have to reclaim memory first
            except OSError as error:
                raise MemoryLimitError(f"memory limit: {error}") from None

    def enforce(self, megabytes):
        self.write(megabytes)
        self.take_processes()

    def write(self, megabytes):
        text = UNLIMITED[self.groups.limit] if megabytes is None else str(min(megabytes, MOST) << 20)
        swap = self.group / self.groups.swap
        if self.groups.swap == "memory.swap.max":
            if swap.exists():
                swap.write_text("max" if megabytes is None else "0")
            (self.group / self.groups.limit).write_text(text)
            return
        # memory and swap together, which may never be below memory alone
        if swap.exists():
            swap.write_text("-1")
        (self.group / self.groups.limit).write_text(text)
        if swap.exists():
            swap.write_text(text)

    def take_processes(self):
        """All of the Sprite; what is forked meanwhile is born in the group or found in the next round."""
        seen = set()
        processes = self.group / "cgroup.procs"
        while outside := set(descendants(self.init)) - set(map(int, processes.read_text().split())) - seen:
            for pid in outside:
                try:
                    processes.write_text(str(pid))
                except ProcessLookupError:
                    pass        # it has ended
            seen |= outside

    def close(self):
        """When every process has ended."""
        self.ended = True
        if self.group is not None:
            self.groups.remove(self.group)
            self.group = None


def descendants(pid):
    """A process and all that came from it; orphans of a namespace are children of its init."""
    yield pid
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except FileNotFoundError:
        return
    for thread in threads:
        try:
            children = pathlib.Path(f"/proc/{pid}/task/{thread}/children").read_text().split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        for child in children:
            yield from descendants(int(child))
