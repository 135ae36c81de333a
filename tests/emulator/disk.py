"""What outlives a Sprite's machine: its home, the description in /.sprite, its accounts.

Each Sprite runs under a real user id of its own, so that the process limit binds and one
Sprite can never touch another's files.
"""
import asyncio
import fcntl
import os
import pathlib
import shutil
import tempfile

HOME = "/home/sprite"
USER_ID = 1000
PREFIX = "spritegate-emulator-"
INSIDE = pathlib.Path(__file__).with_name("inside")


class Store:
    """The folder of all disks. Locked while the emulator lives, so that the next one can clear what a kill left."""

    def __init__(self):
        sweep(tempfile.gettempdir())
        self.path = pathlib.Path(tempfile.mkdtemp(prefix=PREFIX))
        self.path.chmod(0o711)
        self.lock = os.open(self.path / "locking", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self.lock, fcntl.LOCK_EX)
        os.rename(self.path / "locking", self.path / "lock")    # whoever finds it finds it locked
        # a copy, since the user of a Sprite may not be allowed into the checkout
        self.inside = self.path / "inside"
        shutil.copytree(INSIDE, self.inside, copy_function=shutil.copyfile, ignore=shutil.ignore_patterns("__pycache__"))
        for path in (self.inside, *self.inside.iterdir()):
            path.chmod(0o755)
        self.first_user = first_user()
        self.slots = set()

    def take_slot(self):
        slot = next(n for n in range(len(self.slots) + 1) if n not in self.slots)
        self.slots.add(slot)
        return slot

    def close(self):
        remove(self.path)
        os.close(self.lock)


def sweep(parent):
    """Remove the folders of emulators that were killed: their lock is free."""
    for folder in pathlib.Path(parent).glob(PREFIX + "*"):
        try:
            lock = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue        # being made right now, or another user's
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove(folder)
        except OSError:
            pass
        finally:
            os.close(lock)


def first_user():
    """First of this emulator's own user ids, or None where ids cannot be chosen."""
    if os.geteuid() != 0:
        return None
    first = 0x10000000 + (os.getpid() & 0xFFFFF) * 1024
    for line in pathlib.Path("/proc/self/uid_map").read_text().splitlines():
        start, _, count = map(int, line.split())
        if start <= first and first + 1024 <= start + count:
            return first
    return None


class Disk:
    """What survives a cold Sprite: home and the read-only description in /.sprite."""

    def __init__(self, store):
        self.store = store
        self.slot = store.take_slot()
        self.user = None if store.first_user is None else store.first_user + self.slot
        self.path = pathlib.Path(tempfile.mkdtemp(dir=store.path))
        self.path.chmod(0o711)
        for name, mode in (("home", 0o755), ("tmp", 0o1777), ("sprite", 0o755), ("sprite/bin", 0o755),
                           ("sprite/policy", 0o755), ("etc", 0o755)):
            (self.path / name).mkdir()
            (self.path / name).chmod(mode)
        for name in ("home", "tmp"):
            self.own(self.path / name)
        (self.path / "sprite/bin/sprite-env").symlink_to("/run/inside/sprite-env")

    def own(self, path):
        if self.user is not None:
            os.chown(path, self.user, self.user)

    def describe(self, name, text):
        """Write a file under /.sprite, seen by commands and not writable by them."""
        target = self.path / "sprite" / name
        fresh = target.with_name(target.name + ".new")
        fresh.write_text(text)
        fresh.chmod(0o644)
        fresh.rename(target)

    async def clear_tmp(self):
        await asyncio.to_thread(empty, self.path / "tmp")

    async def remove(self):
        await asyncio.to_thread(remove, self.path)
        self.store.slots.discard(self.slot)


def remove(folder):
    """A whole tree, also one whose folders a command has closed (which only matters without root)."""
    shutil.rmtree(folder, ignore_errors=True)
    if os.path.lexists(folder):
        os.chmod(folder, 0o700)
        for parent, names, _ in os.walk(folder):
            for name in names:
                path = os.path.join(parent, name)
                if not os.path.islink(path):
                    os.chmod(path, 0o700)
        shutil.rmtree(folder, ignore_errors=True)


def empty(folder):
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            remove(entry.path)
        else:
            os.unlink(entry.path)


def write_accounts(disk, hostname):
    files = {
        "passwd": f"root:x:0:0:root:/root:/bin/bash\nsprite:x:{USER_ID}:{USER_ID}:sprite:{HOME}:/bin/bash\n"
                  "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
        "group": f"root:x:0:\nsprite:x:{USER_ID}:\nnogroup:x:65534:\n",
        "hosts": f"127.0.0.1 localhost\n::1 localhost\n127.0.1.1 {hostname}\n",
        "hostname": hostname + "\n",
        # Debian's own would replace PATH in login shells; the live image's does not
        "profile": "for file in /etc/profile.d/*.sh; do [ -r \"$file\" ] && . \"$file\"; done; unset file\n",
        "resolv.conf": "nameserver 127.0.0.53\noptions timeout:1 attempts:1\n",
    }
    for name, text in files.items():
        path = disk.path / "etc" / name
        path.write_text(text)
        path.chmod(0o644)
