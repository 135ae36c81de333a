"""deploy/one-machine/run: Datasette on a Unix socket, the gateway in front, started and ended together and in order."""
import json
import os
import pathlib
import re
import shutil
import signal
import stat
import subprocess
import tempfile
import tomllib

import pytest

from fixtures import rigs
from rig import BINARY, PYTHON, TOP, clean_environment, until

RUN = TOP / "deploy/one-machine/run"
SECRET = "secret-that-datasette-must-not-see"


class Machine(rigs.OwnGateway):
    """What a machine runs: the script as its first process."""

    def __init__(self, settings, folder, arguments, wait):
        self.folder = folder
        programs = folder / "bin"
        programs.mkdir()
        (programs / "spritegate").symlink_to(BINARY)
        (programs / "datasette").write_text(f'#!/bin/sh\nexec "{PYTHON}" -m datasette "$@"\n', encoding="utf-8")
        (programs / "datasette").chmod(0o755)
        folder.chmod(0o755)
        os.environ.update(DATASETTE_RUN=str(folder / "run"), DATASETTE_DATA=str(folder / "data"))
        path = os.environ["PATH"]
        os.environ["PATH"] = f"{programs}:{path}"
        try:
            super().__init__(settings, wait, argv=["/bin/bash", RUN, *arguments])
        finally:
            os.environ["PATH"] = path
            del os.environ["DATASETTE_RUN"], os.environ["DATASETTE_DATA"]

    def children(self):
        """{"gateway": pid, "datasette": pid}"""
        words = {int(pid): pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
                 for pid in pathlib.Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()}
        return {"gateway" if b"--uds" not in argv else "datasette": pid for pid, argv in words.items()}


@pytest.fixture
def start(stack, request):
    """A machine with these arguments and a volume of its own, empty or with a copy of `data`."""
    def start(arguments, data=None, wait=True, **settings):
        folder = pathlib.Path(tempfile.mkdtemp(prefix="spritegate-machine-"))
        request.addfinalizer(lambda: shutil.rmtree(folder, ignore_errors=True))
        if data:
            shutil.copytree(data, folder / "data", ignore=shutil.ignore_patterns("*-wal", "*-shm"))
        else:
            (folder / "data").mkdir()
        machine = Machine({"redis_url": stack.redis_url, "sprites_url": stack.sprites.url, "sprites_token": SECRET, "pepper": stack.pepper,
                           "pool_hot": 0, "datasette_url": "http://127.0.0.1:1", **settings}, folder,
                          [word.replace("/data/", f"{folder}/data/") for word in arguments], wait)
        request.addfinalizer(lambda: end(machine))
        return machine
    return start


def end(machine):
    if machine.alive():
        machine.signal(signal.SIGTERM)
        machine.signal(signal.SIGTERM)
        machine.wait()


@pytest.fixture
def machine(start, stack):
    return start(["/data/sample.db", "--setting", "force_https_urls", "on"], stack.folder / "datasette")


def test_doctor_asks_its_datasette(machine):
    """In a shell of the machine, which has the image's own settings and the secrets, not those of the script."""
    image = (TOP / "Dockerfile").read_text(encoding="utf-8")
    where = re.search(r"^ENV SPRITEGATE_DATASETTE_URL=(\S+)$", image, re.MULTILINE)[1]
    env = {**machine.settings, "SPRITEGATE_DATASETTE_URL": where.replace("/run/datasette", str(machine.folder / "run"))}
    done = subprocess.run([BINARY, "doctor", "--json"], env=clean_environment(env), capture_output=True, text=True, timeout=120, check=False)
    datasette = next(one for one in json.loads(done.stdout)["checks"] if one["name"] == "datasette")
    assert datasette["status"] == "ok" and where != env["SPRITEGATE_DATASETTE_URL"], done.stdout


def test_told_to_stop_while_the_gateway_starts(start, monkeypatch, tmp_path):
    """Just when it has been started, and the script does not know its number yet."""
    before = tmp_path / "before-each-command"
    before.write_text("""trap 'test "$BASH_COMMAND" != "gateway=\\$!" || kill -TERM $$' DEBUG\n""", encoding="utf-8")
    monkeypatch.setenv("BASH_ENV", str(before))
    machine = start(["--memory"], wait=False)
    assert machine.wait() == 0
    assert "serving" not in machine.log or "drain: begun" in machine.log


def owner(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return {line.split()[0]: line.split()[1:] for line in status.splitlines() if line.startswith(("Uid:", "Gid:", "Groups:", "NoNewPrivs:", "CapEff:"))}


def test_pages_come_over_the_socket(machine, stack):
    page = machine.get("/sample/stations.json")
    assert page.status_code == 200 and page.json()["rows"]
    assert machine.get("/-/gateway/health").status_code == 200
    socket = machine.folder / "run/datasette.sock"
    assert (machine.folder / "data/sample.db").stat().st_uid == 10002, "Datasette cannot write to its own volume"
    assert stat.S_ISSOCK(socket.stat().st_mode) and stat.S_IMODE(socket.parent.stat().st_mode) == 0o750


def test_as_the_example_starts_it(start):
    """With the arguments and settings of its fly.toml, on a volume that is new."""
    example = tomllib.loads((TOP / "deploy/one-machine/fly.toml").read_text(encoding="utf-8"))
    settings = {name.removeprefix("SPRITEGATE_").lower(): value for name, value in example["env"].items()}
    machine = start(example["processes"]["app"].split(), **settings)
    databases = machine.get("/-/databases.json", headers={"Host": "my-gateway.fly.dev", "X-Forwarded-Proto": "https"}).json()
    assert [one["name"] for one in databases["databases"]] == ["datasette"], databases
    assert {file.name for file in (machine.folder / "data").iterdir()} >= {"datasette.db", "internal.db"}
    assert machine.admin_http.get("/metrics").status_code == 200


def test_each_has_its_own_user_and_datasette_no_secret(machine):
    pids = machine.children()
    assert owner(pids["gateway"])["Uid:"] == ["10001"] * 4 and owner(pids["datasette"])["Uid:"] == ["10002"] * 4
    for pid in pids.values():
        assert owner(pid)["Groups:"] == [] and owner(pid)["NoNewPrivs:"] == ["1"] and int(owner(pid)["CapEff:"][0], 16) == 0
    environment = pathlib.Path(f"/proc/{pids['datasette']}/environ").read_bytes()
    assert SECRET.encode() not in environment and b"SPRITEGATE_" not in environment


def test_the_gateway_ends_first(machine):
    """While it drains, Datasette still answers."""
    pids = machine.children()
    machine.signal(signal.SIGTERM)
    until(lambda: "drain: begun" in machine.log, "the drain has begun")
    assert machine.get("/sample/stations.json").status_code == 200
    assert machine.wait() == 0
    assert not any(pathlib.Path(f"/proc/{pid}").exists() for pid in pids.values())


@pytest.mark.parametrize("name", ["gateway", "datasette"])
def test_one_that_dies_takes_the_other_with_it(machine, name):
    pids = machine.children()
    os.kill(pids[name], signal.SIGKILL)
    assert machine.wait() != 0
    assert not any(pathlib.Path(f"/proc/{pid}").exists() for pid in pids.values())
