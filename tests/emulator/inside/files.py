"""One operation on the Sprite's files, carried out inside as the Sprite's own user: files.py OPERATION ARGUMENTS

The arguments are a JSON object. The answer is one line {"status", "body"}; of a read it is
{"status", "size", "start", "length"} and then that many bytes, or with a null length all there are.
A write takes the content from stdin. Where a path leads is decided by the kernel in here, so
no link and no `..` can lead anywhere a command could not go.
"""
import errno
import fnmatch
import grp
import json
import os
import pwd
import re
import shutil
import stat
import sys
import time

HOME = "/home/sprite"
CHUNK = 1 << 18
RANGE = re.compile(r"bytes=(\d*)-(\d*)")
STATUS = {errno.ENOENT: 404, errno.EACCES: 403, errno.EPERM: 403, errno.EROFS: 403, errno.EEXIST: 409, errno.ENOTEMPTY: 409,
          errno.EISDIR: 400, errno.ENOTDIR: 400, errno.EINVAL: 400, errno.ELOOP: 400, errno.ENAMETOOLONG: 400}


class Failure(Exception):
    """An answer other than success."""

    def __init__(self, number, verb, path):
        super().__init__(path)
        text = os.strerror(number)
        self.status = STATUS.get(number, 500)
        self.body = {"error": f"{verb} {path}: {text[0].lower()}{text[1:]}",
                     "code": errno.errorcode.get(number, "EIO"), "path": path}


def resolve(arguments, key="path"):
    path = os.path.join("/", arguments.get("workingDir") or HOME, arguments[key])
    if "\0" in path:
        raise Failure(errno.EINVAL, "open", path)
    return os.path.normpath("/" + path.lstrip("/"))


def octal(mode):
    return f"{stat.S_IMODE(mode):04o}"


def answer(body):
    print(json.dumps({"status": 200, "body": body}))


def plain(text):
    """A name that is not UTF-8 as JSON can carry it."""
    return os.fsencode(text).decode("utf-8", "replace")


# -- content -------------------------------------------------------------------

def read(arguments):
    path = resolve(arguments)
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    info = os.fstat(fd)
    if not stat.S_ISREG(info.st_mode):
        raise Failure(errno.EISDIR if stat.S_ISDIR(info.st_mode) else errno.EINVAL, "read", path)
    size = info.st_size
    start, length = wanted(arguments.get("range") or "", size)
    if start is None:
        print(json.dumps({"status": 416, "size": size, "body": Failure(errno.EINVAL, "read", path).body}))
        return
    partial = (start, length) != (0, size)
    if size == 0:
        length = None       # /proc says 0 of files that have content
    print(json.dumps({"status": 206 if partial else 200, "size": size, "start": start, "length": length}), flush=True)
    os.lseek(fd, start, os.SEEK_SET)
    while length is None or length > 0:
        data = os.read(fd, CHUNK if length is None else min(CHUNK, length))
        if not data:
            break
        sys.stdout.buffer.write(data)
        length = None if length is None else length - len(data)
    sys.stdout.buffer.flush()


def wanted(header, size):
    """(start, length); (None, None) if there is nothing there. What is not one range of bytes is ignored."""
    found = RANGE.fullmatch(header.replace(" ", ""))
    if not found or not (found[1] or found[2]):
        return 0, size
    if not found[1]:
        length = min(int(found[2]), size)
        return (size - length, length) if length else (None, None)
    start, end = int(found[1]), min(int(found[2] or size - 1), size - 1)
    if found[2] and int(found[2]) < start:
        return 0, size
    return (start, end - start + 1) if start < size else (None, None)


def write(arguments):
    path = resolve(arguments)
    mode = parse_mode(arguments.get("mode"), path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY, 0o644 if mode is None else mode)
    if stat.S_ISFIFO(os.fstat(fd).st_mode):
        raise Failure(errno.EINVAL, "write", path)
    os.set_blocking(fd, True)
    size = 0
    with open(fd, "wb", buffering=0) as file:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            os.ftruncate(fd, 0)
        while data := os.read(0, CHUNK):
            size += len(data)
            while data:
                data = data[file.write(data):]
        if mode is not None:
            os.fchmod(fd, mode)
        answer({"path": path, "size": size, "mode": octal(os.fstat(fd).st_mode)})


def parse_mode(text, path):
    if text in (None, ""):
        return None
    if not re.fullmatch(r"(0o)?[0-7]{1,5}", str(text)) or int(text, 8) > 0o7777:
        raise Failure(errno.EINVAL, "chmod", path)
    return int(text, 8)


# -- folders -------------------------------------------------------------------

def list_(arguments):
    path, pattern = resolve(arguments), arguments.get("pattern")
    if stat.S_ISDIR(os.stat(path).st_mode):
        entries = [entry(found, os.lstat) for found in walk(path, arguments.get("recursive"))]
    else:
        entries = [entry(path, os.stat)]
    entries = [found for found in entries if found and (not pattern or fnmatch.fnmatchcase(found["name"], pattern))]
    answer({"path": plain(path), "entries": entries, "count": len(entries)})


def walk(folder, recursive):
    """Paths below, sorted; links are not followed, what cannot be opened further down is passed over."""
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        yield path
        if recursive and os.path.isdir(path) and not os.path.islink(path):
            try:
                yield from walk(path, True)
            except PermissionError:
                pass


def entry(path, look):
    try:
        info = look(path)
    except FileNotFoundError:
        return None         # gone since it was listed
    kind = {stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink"}.get(stat.S_IFMT(info.st_mode), "file")
    changed = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(info.st_mtime_ns // 10**9))
    return {"name": plain(os.path.basename(path)), "path": plain(path), "type": kind, "size": info.st_size,
            "mode": octal(info.st_mode), "modTime": f"{changed}.{info.st_mtime_ns % 10**9:09}Z", "isDir": kind == "directory"}


def delete(arguments):
    path = resolve(arguments)
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        os.unlink(path)
    elif arguments.get("recursive"):
        shutil.rmtree(path)
    else:
        os.rmdir(path)
    answer({"deleted": [path], "count": 1})


def rename(arguments):
    source, dest = resolve(arguments, "source"), resolve(arguments, "dest")
    try:
        os.rename(source, dest)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        if os.path.isdir(dest) and not os.path.islink(dest):
            os.rmdir(dest)
        shutil.move(source, dest)       # one disk to the client, two mounts here
    answer({"source": source, "dest": dest})


def copy(arguments):
    source, dest = resolve(arguments, "source"), resolve(arguments, "dest")
    how = shutil.copy2 if arguments.get("preserveAttrs") else shutil.copy
    done, size = [], 0

    def one(path, target):
        nonlocal size
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise Failure(errno.EINVAL, "copy", path)
        how(path, target)
        done.append((path, target))
        size += os.path.getsize(target)

    if not os.path.isdir(source):
        if os.path.isdir(dest):
            raise Failure(errno.EISDIR, "open", dest)
        one(source, dest)
    elif not arguments.get("recursive"):
        raise Failure(errno.EISDIR, "copy", source)
    elif (os.path.realpath(dest) + "/").startswith(os.path.realpath(source) + "/"):
        raise Failure(errno.EINVAL, "copy", dest)
    else:
        try:
            shutil.copytree(source, dest, symlinks=True, copy_function=one, dirs_exist_ok=True)
        except shutil.Error as error:
            raise OSError(errno.EIO, str(error.args[0][0][2]), error.args[0][0][0]) from None
        done.insert(0, (source, dest))
    answer({"source": source, "dest": dest, "copied": [{"source": plain(path), "dest": plain(target)} for path, target in done],
            "count": len(done), "totalBytes": size})


# -- modes and owners ----------------------------------------------------------

def chmod(arguments):
    path = resolve(arguments)
    mode = parse_mode(arguments.get("mode"), path)
    if mode is None:
        raise Failure(errno.EINVAL, "chmod", path)
    change(path, arguments, lambda target: os.chmod(target, mode), lambda info: {"mode": octal(info.st_mode)})


def chown(arguments):
    path = resolve(arguments)
    uid = number(arguments.get("uid"), pwd.getpwnam, "pw_uid", path)
    gid = number(arguments.get("gid"), grp.getgrnam, "gr_gid", path)
    change(path, arguments, lambda target: os.chown(target, uid, gid), lambda info: {"uid": info.st_uid, "gid": info.st_gid})


def number(value, look_up, field, path):
    if value is None:
        return -1
    if isinstance(value, str) and not value.isdecimal():
        try:
            return getattr(look_up(value), field)
        except KeyError:
            raise Failure(errno.EINVAL, "chown", path) from None
    if isinstance(value, (bool, float)) or not 0 <= int(value) < 1 << 32:
        raise Failure(errno.EINVAL, "chown", path)
    return int(value)


def change(path, arguments, action, describe):
    """From the bottom up, since a folder may close itself to us."""
    below = list(walk(path, True)) if arguments.get("recursive") and os.path.isdir(path) else []
    affected = []
    for target in [*reversed([found for found in below if not os.path.islink(found)]), path]:
        action(target)
        affected.append({"path": plain(target), **describe(os.stat(target))})
    answer({"affected": affected[::-1], "count": len(affected)})


OPERATIONS = {"read": read, "write": write, "list": list_, "delete": delete, "rename": rename, "copy": copy,
              "chmod": chmod, "chown": chown}


def main(operation, arguments):
    try:
        OPERATIONS[operation](arguments)
    except Failure as failure:
        print(json.dumps({"status": failure.status, "body": failure.body}))
    except OSError as error:
        verb = {"list": "open", "read": "open", "write": "open"}.get(operation, operation)
        failure = Failure(error.errno or errno.EIO, verb, plain(str(error.filename or arguments.get("path") or "")))
        print(json.dumps({"status": failure.status, "body": failure.body}))


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
