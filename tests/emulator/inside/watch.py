"""Changes of files, one JSON line each: watch.py ARGUMENTS, a JSON object {"paths", "workingDir", "recursive"}."""
import ctypes
import json
import os
import select
import struct
import sys
import time

HOME = "/home/sprite"
MODIFY, ATTRIB, MOVED_FROM, MOVED_TO, CREATE, DELETE, DELETE_SELF, IGNORED, IS_DIR = (
    0x2, 0x4, 0x40, 0x80, 0x100, 0x200, 0x400, 0x8000, 0x40000000)
WATCHED = MODIFY | ATTRIB | MOVED_FROM | MOVED_TO | CREATE | DELETE | DELETE_SELF
NAMES = ((CREATE, "create"), (MOVED_TO, "create"), (MODIFY, "write"), (MOVED_FROM, "rename"), (DELETE, "remove"),
         (DELETE_SELF, "remove"), (ATTRIB, "chmod"))
HEAD = struct.Struct("iIII")
LIBC = ctypes.CDLL(None, use_errno=True)


class Watch:
    def __init__(self, recursive):
        self.recursive = recursive
        self.fd = LIBC.inotify_init1(os.O_CLOEXEC)
        self.paths = {}

    def add(self, path):
        number = LIBC.inotify_add_watch(self.fd, os.fsencode(path), WATCHED)
        if number < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
        self.paths[number] = path
        if self.recursive and os.path.isdir(path):
            for entry in os.scandir(path):
                if entry.is_dir(follow_symlinks=False):
                    self.try_add(entry.path)

    def try_add(self, path):
        try:
            self.add(path)
        except OSError:
            pass        # gone already, or closed to us

    def read(self):
        """(event, path, is a folder) of what has happened."""
        data, position = os.read(self.fd, 1 << 16), 0
        while position < len(data):
            number, mask, _, length = HEAD.unpack_from(data, position)
            name = data[position + HEAD.size:position + HEAD.size + length].rstrip(b"\0")
            position += HEAD.size + length
            if mask & IGNORED:
                self.paths.pop(number, None)
                continue
            event = next((name for bit, name in NAMES if mask & bit), None)
            if event and number in self.paths:
                yield event, os.path.join(self.paths[number], os.fsdecode(name)).rstrip("/"), bool(mask & IS_DIR)


def tell(message):
    print(json.dumps(message), flush=True)


def plain(path):
    return os.fsencode(path).decode("utf-8", "replace")


def stamp():
    now = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1e6):06}Z"


def size(path):
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0


def main(arguments):
    watch = Watch(arguments.get("recursive"))
    paths = [os.path.normpath(os.path.join("/", arguments.get("workingDir") or HOME, path)) for path in arguments["paths"]]
    try:
        for path in paths:
            watch.add(path)
    except OSError as error:
        tell({"type": "error", "path": plain(error.filename), "message": f"watch {plain(error.filename)}: {error.strerror.lower()}"})
        return
    tell({"type": "subscribed", "paths": [plain(path) for path in paths]})
    while select.select([watch.fd], [], []):
        for event, path, is_dir in watch.read():
            if watch.recursive and is_dir and event == "create":
                watch.try_add(path)
            tell({"type": "event", "path": plain(path), "event": event, "timestamp": stamp(), "size": size(path), "isDir": is_dir})


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
