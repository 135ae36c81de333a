"""The file routes: what they do, what they answer, and that they lead nowhere else."""
import asyncio
import contextlib
import os
import pathlib
import re
import socket
import tempfile

import aiohttp
import pytest

from emulator_client import Emulator, until

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z")


class Files:
    def __init__(self, client, name):
        self.client, self.name = client, name

    async def call(self, method, route, *, data=None, json=None, headers=None, **query):
        return await self.client.call(method, f"/v1/sprites/{self.name}/fs/{route}", params=query, data=data, json=json,
                                      headers=headers)

    async def read(self, path, **more):
        return await self.call("GET", "read", path=path, **more)

    async def write(self, path, data=b"", **more):
        return await self.call("PUT", "write", path=path, data=data, **more)

    async def list(self, path, **more):
        return await self.call("GET", "list", path=path, **more)

    async def shell(self, line):
        return (await self.client.shell(self.name, line)).out


@contextlib.asynccontextmanager
async def files(emulator):
    async with emulator.client() as client:
        yield Files(client, await client.create())


# -- content -------------------------------------------------------------------------

async def test_what_is_written_is_read(emulator):
    async with files(emulator) as fs:
        data = os.urandom(3_000_000)
        answer = await fs.write("/home/sprite/a/b/file", data, mkdirParents="true")
        assert (answer.status, answer.json) == (200, {"path": "/home/sprite/a/b/file", "size": 3_000_000, "mode": "0644"})
        answer = await fs.read("b/file", workingDir="/home/sprite/a")
        assert (answer.status, answer.body) == (200, data)
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert answer.headers["Content-Length"] == "3000000" and answer.headers["Sprite-Version"]
        assert await fs.shell("stat -c '%U %a' a a/b a/b/file") == "sprite 755\nsprite 755\nsprite 644\n"


@pytest.mark.parametrize("query", [{}, {"mkdirParents": "false"}, {"mkdir": "true"}])
async def test_folders_are_made_whatever_is_asked(emulator, query):
    async with files(emulator) as fs:
        assert (await fs.write("/home/sprite/x/y/.keep", **query)).json["size"] == 0
        assert await fs.shell("ls -A x/y") == ".keep\n"


async def test_a_write_replaces_and_keeps_or_sets_the_mode(emulator):
    async with files(emulator) as fs:
        await fs.write("f", b"a long text", mode="0600")
        assert await fs.shell("stat -c %a f") == "600\n"
        assert (await fs.write("f", b"new")).json["mode"] == "0600"
        assert (await fs.write("f", b"new", mode="755")).json["mode"] == "0755"
        assert await fs.shell("cat f; stat -c ' %a' f; ln -s f link") == "new 755\n"
        await fs.write("link", b"through")
        assert await fs.shell("cat f; test -L link && echo link") == "throughlink\n"


@pytest.mark.parametrize("range, status, body", [
    ("bytes=0-3", 206, b"0123"), ("bytes=4-", 206, b"456789"), ("bytes=-2", 206, b"89"), ("bytes=8-100", 206, b"89"),
    ("bytes=0-9", 200, b"0123456789"), ("bytes=5-2", 200, b"0123456789"), ("bytes=0-1,4-5", 200, b"0123456789"),
    ("lines=1-2", 200, b"0123456789"), ("bytes=-", 200, b"0123456789"), ("bytes=10-", 416, None), ("bytes=-0", 416, None)])
async def test_a_range(emulator, range, status, body):
    async with files(emulator) as fs:
        await fs.write("f", b"0123456789")
        answer = await fs.read("f", headers={"Range": range})
        assert answer.status == status
        if status == 416:
            assert answer.headers["Content-Range"] == "bytes */10" and answer.json["code"] == "EINVAL"
            return
        assert answer.body == body and answer.headers["Content-Length"] == str(len(body))
        first = b"0123456789".index(body)
        expected = f"bytes {first}-{first + len(body) - 1}/10" if status == 206 else None
        assert answer.headers.get("Content-Range") == expected


async def test_files_without_a_size_are_read_to_their_end(emulator):
    async with files(emulator) as fs:
        assert (await fs.write("empty")).status == 200
        assert (await fs.read("empty")).body == b""
        assert b"sprite" in (await fs.read("/etc/passwd")).body
        assert (await fs.read("/proc/self/cmdline")).body.startswith(b"/usr/bin/python3\0")


async def test_a_client_that_leaves_in_the_middle_of_a_write(emulator):
    """What came before is written, and nothing of it stays behind."""
    async with files(emulator) as fs:
        host, port = emulator.url.removeprefix("http://").split(":")
        token = fs.client.session.headers["Authorization"]
        with socket.create_connection((host, port)) as client:
            client.sendall(f"PUT /v1/sprites/{fs.name}/fs/write?path=f HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n"
                           "Content-Length: 1000\r\n\r\nhalf".encode())

            async def half():
                return await fs.shell("cat f") == "half"

            await until(half)

        async def none():
            return await fs.shell("pgrep -fc inside/files") == "0\n"

        await until(none)


async def test_a_client_that_leaves_in_the_middle_of_a_read(emulator):
    async with files(emulator) as fs:
        await fs.shell("truncate -s 1G f")
        async with fs.client.session.get(f"/v1/sprites/{fs.name}/fs/read", params={"path": "f"}) as response:
            await response.content.readexactly(1000)
            response.close()

        async def none():
            return await fs.shell("pgrep -fc inside/files") == "0\n"

        await until(none)


async def test_a_file_that_becomes_shorter_is_not_read_as_whole(emulator):
    async with files(emulator) as fs:
        await fs.shell("truncate -s 1G f")
        async with fs.client.session.get(f"/v1/sprites/{fs.name}/fs/read", params={"path": "f"}) as response:
            await response.content.readexactly(1000)
            await fs.shell("truncate -s 2000 f")
            with pytest.raises(aiohttp.ClientError):
                await response.read()


# -- folders -------------------------------------------------------------------------

async def test_a_list(emulator):
    async with files(emulator) as fs:
        await fs.shell("mkdir -p d/sub/deep; echo text > d/a.txt; chmod 640 d/a.txt; ln -s a.txt d/link; touch d/sub/b.txt")
        answer = await fs.list("/home/sprite/d")
        assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
        assert (answer.json["path"], answer.json["count"]) == ("/home/sprite/d", 3)
        first, link, sub = answer.json["entries"]
        assert TIME.fullmatch(first.pop("modTime"))
        assert first == {"name": "a.txt", "path": "/home/sprite/d/a.txt", "type": "file", "size": 5, "mode": "0640",
                         "isDir": False}
        assert (link["name"], link["type"], link["isDir"]) == ("link", "symlink", False)
        assert (sub["name"], sub["type"], sub["isDir"], sub["mode"]) == ("sub", "directory", True, "0755")
        deep = (await fs.list("/home/sprite/d", recursive="true")).json["entries"]
        assert [entry["path"].removeprefix("/home/sprite/d/") for entry in deep] == ["a.txt", "link", "sub", "sub/b.txt", "sub/deep"]
        some = (await fs.list("d", recursive="true", pattern="*.txt", workingDir="/home/sprite")).json
        assert [entry["name"] for entry in some["entries"]] == ["a.txt", "b.txt"] and some["count"] == 2


async def test_a_list_of_a_file_is_that_file(emulator):
    async with files(emulator) as fs:
        await fs.write("f", b"123")
        (entry,) = (await fs.list("f", workingDir="/home/sprite")).json["entries"]
        assert (entry["name"], entry["path"], entry["size"]) == ("f", "/home/sprite/f", 3)


async def test_an_empty_list(emulator):
    async with files(emulator) as fs:
        assert (await fs.list("/home/sprite")).json == {"path": "/home/sprite", "entries": [], "count": 0}


async def test_names_of_any_bytes(emulator):
    async with files(emulator) as fs:
        await fs.shell(r"""touch -- "$(printf 'a\377b')" $'line\nend' '-n' 'ä b'; mkdir '*'""")
        names = {entry["name"] for entry in (await fs.list("/home/sprite")).json["entries"]}
        assert names == {"a\ufffdb", "line\nend", "-n", "ä b", "*"}
        for name in ("line\nend", "-n", "ä b"):
            assert (await fs.read(name)).status == 200


# -- changes -------------------------------------------------------------------------

async def test_delete(emulator):
    async with files(emulator) as fs:
        await fs.shell("mkdir -p d/sub empty; touch d/f f; ln -s d link")
        for path, recursive in (("f", "false"), ("empty", "false"), ("link", "true"), ("d", "true")):
            answer = await fs.call("DELETE", "delete", path=path, recursive=recursive, workingDir="/home/sprite")
            assert (answer.status, answer.json) == (200, {"deleted": [f"/home/sprite/{path}"], "count": 1})
            if path == "link":
                assert await fs.shell("ls d") == "f\nsub\n"      # what it leads to stays
        assert await fs.shell("ls -A") == ""
        gone = await fs.call("DELETE", "delete", path="d", recursive="true")
        assert (gone.status, gone.json["code"]) == (404, "ENOENT")


async def test_rename(emulator):
    async with files(emulator) as fs:
        await fs.shell("echo 1 > a; echo 2 > b; mkdir -p d/sub; touch d/f")
        for source, dest in (("a", "b"), ("d", "/tmp/d"), ("/tmp/d", "back"), ("b", "/tmp/b")):
            answer = await fs.call("POST", "rename", json={"source": source, "dest": dest, "workingDir": "/home/sprite"})
            full = [os.path.join("/home/sprite", path) for path in (source, dest)]
            assert (answer.status, answer.json) == (200, {"source": full[0], "dest": full[1]})
        assert await fs.shell("ls -A . back; cat /tmp/b") == ".:\nback\n\nback:\nf\nsub\n1\n"


async def test_copy(emulator):
    async with files(emulator) as fs:
        await fs.shell("echo 1 > a; chmod 700 a; touch -d 2001-01-01 a; mkdir -p d/sub; echo 22 > d/f; ln -s /etc/passwd d/link")
        answer = await fs.call("POST", "copy", json={"source": "a", "dest": "b", "preserveAttrs": True})
        assert answer.status == 200
        assert answer.json == {"source": "/home/sprite/a", "dest": "/home/sprite/b", "count": 1, "totalBytes": 2,
                               "copied": [{"source": "/home/sprite/a", "dest": "/home/sprite/b"}]}
        assert await fs.shell("stat -c '%a %y' b | cut -c1-14; cat b") == "700 2001-01-01\n1\n"
        answer = await fs.call("POST", "copy", json={"source": "d", "dest": "e"})
        assert (answer.status, answer.json["code"]) == (400, "EISDIR")
        answer = await fs.call("POST", "copy", json={"source": "d", "dest": "e", "recursive": True})
        assert (answer.status, answer.json["totalBytes"]) == (200, 3)
        assert await fs.shell("cat e/f; readlink e/link; ls e") == "22\n/etc/passwd\nf\nlink\nsub\n"
        for into in ("d/sub/new", "d"):
            answer = await fs.call("POST", "copy", json={"source": "d", "dest": into, "recursive": True})
            assert (answer.status, answer.json["code"]) == (400, "EINVAL")


async def test_chmod_and_chown(emulator):
    async with files(emulator) as fs:
        await fs.shell("mkdir -p d/sub; touch d/f; ln -s /etc/passwd d/link")
        answer = await fs.call("POST", "chmod", json={"path": "d", "mode": "0700"})
        assert (answer.status, answer.json) == (200, {"affected": [{"path": "/home/sprite/d", "mode": "0700"}], "count": 1})
        answer = await fs.call("POST", "chmod", json={"path": "d", "mode": "0500", "recursive": True})
        assert (answer.status, answer.json["count"]) == (200, 3)
        assert await fs.shell("stat -c %a d d/sub d/f") == "500\n500\n500\n"
        for owner in ({"uid": 1000}, {"gid": "sprite"}, {"uid": "sprite", "gid": 1000}):
            answer = await fs.call("POST", "chown", json={"path": "d", "recursive": True, **owner})
            assert (answer.status, answer.json["count"]) == (200, 3)
            assert answer.json["affected"][0] == {"path": "/home/sprite/d", "uid": 1000, "gid": 1000}
        for owner, status in (({"uid": 0}, 403), ({"uid": "nobody-here"}, 400), ({"gid": -5}, 400), ({"uid": True}, 400)):
            assert (await fs.call("POST", "chown", json={"path": "d", **owner})).status in (status, 400), owner
        for mode in ("rwx", "99", "77777", "", None):
            assert (await fs.call("POST", "chmod", json={"path": "d", "mode": mode})).json["code"] == "EINVAL"


# -- refusals ------------------------------------------------------------------------

async def test_a_missing_file(emulator):
    async with files(emulator) as fs:
        for answer in (await fs.read("/nope"), await fs.list("/nope")):
            assert answer.status == 404 and answer.headers["Sprite-Version"]
            assert answer.json == {"error": "open /nope: no such file or directory", "code": "ENOENT", "path": "/nope"}


async def test_missing_and_empty_as_live():
    with Emulator("--live-fs") as emulator:
        async with files(emulator) as fs:
            assert (await fs.list("/home/sprite")).json == {"path": "/home/sprite", "entries": None, "count": 0}
            assert (await fs.read("/nope")).json == {"error": "open /nope: no such file or directory", "path": "/nope"}


async def test_refusals(emulator):
    async with files(emulator) as fs:
        await fs.shell("mkdir -p d; touch f d/f closed; chmod 0 closed; mkfifo fifo; ln -s loop loop")
        for method, route, path, status, code in (
                ("GET", "read", "d", 400, "EISDIR"), ("GET", "read", "f/x", 400, "ENOTDIR"), ("GET", "read", "closed", 403, "EACCES"),
                ("GET", "read", "loop", 400, "ELOOP"), ("GET", "read", "fifo", 400, "EINVAL"), ("GET", "read", "/dev/zero", 400, "EINVAL"),
                ("PUT", "write", "d", 400, "EISDIR"), ("PUT", "write", "/etc/passwd", 403, "EACCES"), ("PUT", "write", "closed", 403, "EACCES"),
                ("PUT", "write", "/.sprite/policy/network.json", 403, "EACCES"), ("PUT", "write", "f/x", 409, "EEXIST"),
                ("DELETE", "delete", "d", 409, "ENOTEMPTY"), ("DELETE", "delete", "/usr", 403, "EROFS"),
                ("GET", "list", "x" * 300, 400, "ENAMETOOLONG"), ("GET", "read", "a\0b", 400, "EINVAL")):
            answer = await asyncio.wait_for(fs.call(method, route, path=path, data=b"x" * 500_000 if method == "PUT" else None), 10)
            assert (answer.status, answer.json["code"]) == (status, code), (method, route, path, answer.text)
        assert (await fs.call("PUT", "write", path="f", mode="888", data=b"x")).json["code"] == "EINVAL"
        for route in ("read", "list"):
            assert (await fs.call("GET", route)).json == {"error": "path is required", "code": "EINVAL"}
        for route, body in (("rename", {"source": "a"}), ("copy", {"dest": "a"}), ("chmod", {"path": 7}), ("chown", []),
                            ("rename", None), ("chmod", {"path": "f", "workingDir": 5})):
            answer = await fs.call("POST", route, json=body)
            assert answer.status == 400 and answer.json["error"], (route, body)
        assert (await fs.client.call("GET", "/v1/sprites/nobody/fs/read?path=/x")).json == {"error": "sprite not found"}


async def test_a_sprite_without_processes_to_spare(emulator):
    async with files(emulator) as fs:
        script = "import os, time\nwhile True:\n  try:\n    if not os.fork(): time.sleep(60)\n  except OSError: time.sleep(0.01)\n"
        async with fs.client.exec(fs.name, "python3", "-c", script) as ws:
            async def refused():
                return (await fs.list("/home/sprite")).status == 500

            await until(refused)
            ws.reset()


# -- ways out ------------------------------------------------------------------------

@pytest.fixture
def outside():
    """A folder of this machine that everybody may read and write, with a file in it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = pathlib.Path(name)
        (folder / "secret").write_text("the machine's")
        (folder / "secret").chmod(0o666)
        folder.chmod(0o777)
        yield folder


async def test_no_path_leads_out(emulator, outside):
    secret, up = outside / "secret", "../" * 20
    async with files(emulator) as fs:
        for path in (str(secret), f"{up}{secret}", "link", "folder/secret", f"root{secret}", f"top{secret}", f"up{secret}",
                     f"/proc/1/root{secret}", f"/proc/self/root{secret}", f"/proc/1/cwd{secret}", f"/.sprite/{up}{secret}"):
            await fs.shell(f"rm -rf * {outside}; ln -s {secret} link; ln -s {outside} folder; ln -s / root; ln -s {up} up; "
                           "ln -s /proc/1/root top")
            assert (await fs.read(path)).status in (404, 403), path
            assert (await fs.list(path)).status in (404, 403), path
            for route, arguments in (("chmod", {"path": path, "mode": "0777"}),
                                     ("copy", {"source": path, "dest": "stolen", "recursive": True})):
                assert (await fs.call("POST", route, json=arguments)).status in (404, 403), (route, path)
            await fs.write(path, b"overwritten")        # into the Sprite's own /tmp, if anywhere
            await fs.call("POST", "rename", json={"source": path, "dest": "moved"})
            await fs.call("DELETE", "delete", path=path)
        assert secret.read_text() == "the machine's" and os.listdir(outside) == ["secret"]
        assert secret.stat().st_mode & 0o777 == 0o666 and outside.stat().st_mode & 0o777 == 0o777
        passwd = (await fs.read("root/etc/passwd")).text        # its own
        assert "sprite:x:1000" in passwd and passwd != pathlib.Path("/etc/passwd").read_text()


async def test_a_link_that_changes_while_it_is_read(emulator, outside):
    async with files(emulator) as fs:
        await fs.shell("echo mine > mine")
        script = f"while :; do ln -sfn {outside}/secret l; ln -sfn ~/mine l; done"
        async with fs.client.exec(fs.name, "bash", "-c", script) as ws:
            for _ in range(20):
                answer = await fs.read("l")
                assert (answer.status, answer.body) in ((200, b"mine\n"),) or answer.status == 404
            ws.reset()


async def test_two_sprites_have_two_disks(emulator):
    async with files(emulator) as one, files(emulator) as two:
        await one.write("f", b"one")
        assert (await two.read("f")).status == 404


# -- the machine ---------------------------------------------------------------------

async def test_reading_wakes(emulator):
    async with files(emulator) as fs:
        await fs.write("f", b"x")
        await fs.client.pause(fs.name)
        assert (await fs.read("f")).body == b"x"
        assert await fs.client.status(fs.name) == "running"


async def test_the_machine_goes_under_a_write(emulator):
    async with files(emulator) as fs:
        await fs.write("before", b"x")

        async def slow():
            for _ in range(200):
                yield b"x" * 1000
                await asyncio.sleep(0.02)

        writing = asyncio.ensure_future(fs.write("f", slow()))
        await until(lambda: is_there(fs, "f"))
        await fs.client.fault("kill_vm", match={"sprite": fs.name}, count=1, delay_ms=0)
        with pytest.raises((aiohttp.ClientError, ConnectionError)):
            await asyncio.gather(fs.shell("true"), writing)
        await fs.client.clear_faults()
        assert (await fs.read("before")).body == b"x"
        await asyncio.gather(writing, return_exceptions=True)


async def is_there(fs, path):
    return (await fs.list(path)).status == 200
