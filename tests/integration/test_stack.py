"""./deploy/up, ./deploy/down and ./deploy/spritegate: the contract that users and tests rely on."""
import json
import os
import re
import shlex
import signal
import subprocess
import time

import pytest

from rig import PATIENT_REDIS_MS, PRESET, QUICK, TOP, Gateway, Sprites, clean_environment, free_port, redis, until

PARTS = {"gateway", "datasette", "sprites", "redis"}

pytestmark = pytest.mark.timeout(900)


class Deploy:
    """One stack folder of a test's own."""

    def __init__(self, folder):
        self.folder = folder
        self.env = clean_environment({"SG_STATE": str(folder), "SG_PRESET": PRESET, "SG_EMULATOR_ARGS": " ".join(QUICK),
                                      "SPRITEGATE_REDIS_TIMEOUT_MS": str(PATIENT_REDIS_MS)})
        for name in [name for name in self.env if name.startswith("SG_") and name.endswith("_PORT")]:
            del self.env[name]

    def call(self, program, *words, cwd=TOP, code=0, **env):
        done = subprocess.run([str(TOP / "deploy" / program), *words], cwd=cwd, env={**self.env, **env}, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=400, check=False)
        assert code is None or done.returncode == code, f"{program} {words}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def up(self, *words, **more):
        return self.call("up", "--detach", *words, **more)

    @property
    def record(self):
        return json.loads((self.folder / "stack.json").read_text())

    def gateway(self):
        return Gateway(self.record["gateway"], self.record["admin"], self.record["pids"]["gateway"], self.record["token"])


@pytest.fixture
def deploy(tmp_path):
    deploy = Deploy(tmp_path / "state")
    yield deploy
    deploy.call("down")


def alive(pid):
    try:
        return open(f"/proc/{pid}/stat", encoding="utf-8").read().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_record(stack):
    record = stack.record
    assert set(record) == {"gateway", "admin", "datasette", "sprites", "sprites_token", "redis", "token", "pids", "logs"}, set(record)
    for name in ("gateway", "admin", "datasette", "sprites"):
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", record[name]), record[name]
    assert re.fullmatch(r"redis://127\.0\.0\.1:\d+", record["redis"])
    assert set(record["pids"]) == PARTS and all(alive(pid) for pid in record["pids"].values()), record["pids"]
    assert re.fullmatch(r"sgt_[0-9A-Za-z]{16}_[0-9A-Za-z]{38}", record["token"])
    assert {f"{name}.log" for name in PARTS} <= set(os.listdir(record["logs"]))
    for name in ("stack.json", "stack.state"):
        assert (stack.folder / name).stat().st_mode & 0o077 == 0, f"others may read the secrets in {name}"
    assert stack.run("echo ok", token=record["token"]).stdout == "ok\n"


def test_help_does_nothing(stack):
    """Asking what `down` does is not asking for it."""
    for program in ("up", "down"):
        for words, code in ((["--help"], 0), (["-h"], 0), (["--nope"], 2)):
            done = subprocess.run([str(TOP / "deploy" / program), *words], env=stack.env, stdin=subprocess.DEVNULL, capture_output=True,
                                  text=True, timeout=60, check=False)
            assert done.returncode == code and f"usage: ./deploy/{program}" in done.stdout + done.stderr, f"{program} {words}: {done}"
    assert stack.health().status_code == 200 and all(alive(pid) for pid in stack.record["pids"].values())


def test_up_shows_a_command_and_a_line_that_works(deploy, tmp_path):
    """From any folder: the answer with its timings, and a curl line to paste."""
    shown = deploy.up(cwd=tmp_path).stdout
    answer = json.loads(re.search(r"^\{$.*?^\}$", shown, re.M | re.S)[0])
    assert answer["ok"] is True and answer["exit_code"] == 0 and "42" in answer["stdout"] and answer["timing_ms"], answer
    line = next(line for line in shown.splitlines() if line.startswith("curl "))
    assert deploy.record["token"] in line
    pasted = subprocess.run(["bash", "-c", line], env=clean_environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(pasted.stdout)["outcome"] == "exited", pasted.stdout
    assert shlex.split(line)[0] == "curl"


def test_second_up_keeps_what_runs(deploy):
    deploy.up("--no-demo")
    first = deploy.record
    began = time.monotonic()
    deploy.up("--no-demo")
    assert time.monotonic() - began < 60, f"a second up took {time.monotonic() - began:.1f} s"
    assert {**deploy.record, "token": None} == {**first, "token": None}
    assert deploy.gateway().run("echo ok", token=first["token"]).stdout == "ok\n", "the first token is of no use any more"


def test_second_up_replaces_what_died_and_keeps_data(deploy):
    deploy.up("--no-demo")
    first = deploy.record
    for name in ("gateway", "redis"):
        os.kill(first["pids"][name], signal.SIGKILL)
        until(lambda: not alive(first["pids"][name]), f"{name} is dead")
    deploy.up("--no-demo")
    second = deploy.record
    changed = {name for name in PARTS if first["pids"][name] != second["pids"][name]}
    assert {"gateway", "redis"} <= changed and "sprites" not in changed, changed
    assert {name: second[name] for name in ("gateway", "redis", "sprites")} == {name: first[name] for name in ("gateway", "redis", "sprites")}
    gateway = deploy.gateway()
    assert gateway.run("echo ok", token=first["token"]).stdout == "ok\n", "Redis has lost the token"
    gateway.until_ready()
    left = [name for name in Sprites(second["sprites"], second["sprites_token"]).names()]
    assert len(left) == 2, f"the gateway that was killed left Sprites behind: {left}"


def test_down_leaves_nothing(deploy):
    deploy.up("--no-demo")
    record = deploy.record
    deploy.call("down")
    assert not any(alive(pid) for pid in record["pids"].values()), "parts still run"
    assert not (deploy.folder / "stack.json").exists() and not (deploy.folder / "redis").exists()
    assert "Nothing is up" in deploy.call("down").stderr
    again = deploy.up("--no-demo")
    assert again.returncode == 0
    assert deploy.record["token"] != record["token"], "Redis' data were kept"


def test_ports_may_be_preset(deploy):
    ports = {name: free_port() for name in ("SG_PORT", "SG_ADMIN_PORT", "SG_DATASETTE_PORT", "SG_REDIS_PORT", "SG_SPRITES_PORT")}
    deploy.up("--no-demo", **{name: str(port) for name, port in ports.items()})
    record = deploy.record
    found = [record[name].rpartition(":")[2] for name in ("gateway", "admin", "datasette", "redis", "sprites")]
    assert found == [str(port) for port in ports.values()]


def test_port_in_use_is_named(deploy):
    import socket
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        failed = deploy.up("--no-demo", code=1, SG_DATASETTE_PORT=port)
    assert "datasette" in failed.stderr and port in failed.stderr, failed.stderr
    assert not (deploy.folder / "stack.json").exists()


def test_settings_are_passed_through(deploy):
    deploy.up("--no-demo", SPRITEGATE_POOL_HOT="1", SPRITEGATE_EXEC_TIMEOUT_SECONDS="7")
    shown = deploy.call("spritegate", "check-config").stdout
    assert "pool_hot = 1\n" in shown and "exec_timeout_seconds = 7\n" in shown
    assert "exec_timeout_seconds = 9\n" in deploy.call("spritegate", "check-config", SPRITEGATE_EXEC_TIMEOUT_SECONDS="9").stdout, "the environment wins"
    refused = deploy.up("--no-demo", code=1, SPRITEGATE_POOL_HOT="many")
    assert "pool_hot" in refused.stderr, refused.stderr
    assert deploy.up("--no-demo").returncode == 0, "a wish that failed is remembered"


def test_a_setting_that_is_refused_stops_nothing(deploy):
    deploy.up("--no-demo", SPRITEGATE_POOL_HOT="1")
    record = deploy.record
    refused = deploy.up("--no-demo", code=1, SPRITEGATE_POOL_HOT="xx")
    assert "pool_hot" in refused.stderr and "stopping" not in refused.stdout, refused.stdout
    assert deploy.record == record and all(alive(pid) for pid in record["pids"].values())
    assert deploy.gateway().run("echo ok", token=record["token"]).stdout == "ok\n"
    assert "pool_hot = 1\n" in deploy.call("spritegate", "check-config").stdout


def test_an_up_that_fails_stops_only_what_it_started(deploy):
    """A fault that only the start itself can find: the new gateway is gone, the other parts and their data are not."""
    deploy.up("--no-demo")
    before = deploy.record
    failed = deploy.up("--no-demo", code=1, SPRITEGATE_ACCESS_LOG="/no/such/folder/x")
    assert "access_log" in failed.stderr and "still running from before: redis, datasette, sprites" in failed.stdout, failed.stdout
    assert deploy.record == {**before, "pids": {**before["pids"], "gateway": None}}
    assert all(alive(pid) for name, pid in before["pids"].items() if name != "gateway")
    deploy.up("--no-demo")
    again = deploy.record
    assert {**again, "pids": None} == {**before, "pids": None} and alive(again["pids"]["gateway"])
    assert {name for name in PARTS if again["pids"][name] != before["pids"][name]} == {"gateway"}
    assert deploy.gateway().run("echo ok", token=before["token"]).stdout == "ok\n"


def test_parts_of_ones_own(deploy, stack):
    """With --redis, --datasette and --sprites only the gateway is started."""
    deploy.up("--redis", stack.redis_url, "--datasette", stack.datasette, "--sprites", stack.sprites.url,
              SPRITEGATE_SPRITES_TOKEN=stack.sprites.token, SPRITEGATE_PEPPER=stack.pepper)
    record = deploy.record
    assert {name for name, pid in record["pids"].items() if pid} == {"gateway"}, record["pids"]
    assert (record["redis"], record["datasette"], record["sprites"]) == (stack.redis_url, stack.datasette, stack.sprites.url)
    assert deploy.gateway().run("echo ok", token=stack.token).stdout == "ok\n"
    names = set(stack.sprites.names())
    deploy.call("down")
    assert stack.run("echo ok").stdout == "ok\n", "down has stopped parts that are not its own"
    stack.until_ready()
    assert len(names - set(stack.sprites.names())) >= 2, "the gateway left its Sprites on a service that is not ours"


def test_one_more_gateway(stack):
    """`./deploy/spritegate serve` runs on the same Redis and Sprites."""
    listen, admin = free_port(), free_port()
    process = subprocess.Popen(["./deploy/spritegate", "serve"], cwd=TOP, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                               env={**stack.env, "SPRITEGATE_LISTEN": f"127.0.0.1:{listen}", "SPRITEGATE_ADMIN_LISTEN": f"127.0.0.1:{admin}"})
    try:
        other = Gateway(f"http://127.0.0.1:{listen}", f"http://127.0.0.1:{admin}", process.pid, stack.token)
        until(other.connected, "the second gateway serves")
        assert other.run("echo other").stdout == "other\n"
        assert stack.run("echo first").stdout == "first\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_a_reader_that_leaves_takes_nothing_down(deploy):
    """As `./deploy/up --detach | head -1` does."""
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([str(TOP / "deploy/up"), "--detach", "--no-demo"], env=deploy.env, stdin=subprocess.DEVNULL, stdout=write,
                          stderr=subprocess.PIPE, text=True, timeout=200, check=False)
    os.close(write)
    assert done.returncode == 0 and "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr, done.stderr
    assert deploy.gateway().run("echo ok").stdout == "ok\n"


def test_paths_are_the_callers(stack, tmp_path):
    """A configuration file is found from the folder in which it was named; one that cannot be seen from the private root is named."""
    def check(path, folder):
        return subprocess.run([str(TOP / "deploy/spritegate"), "check-config", "--config", path], cwd=folder, env=stack.env,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)

    (tmp_path / "my.conf").write_text("pool_wait_seconds = 77\n")
    for path, folder in (("my.conf", tmp_path), (f"../{tmp_path.name}/my.conf", tmp_path), (tmp_path / "my.conf", "/")):
        done = check(path, folder)
        assert done.returncode == 0 and "pool_wait_seconds = 77\n" in done.stdout, f"{path}: {done.stderr}"
    missing = check("none.conf", tmp_path)
    assert missing.returncode == 2 and "none.conf: cannot be read" in missing.stderr, missing.stderr
    if os.path.isdir("/opt/spritegate"):
        outside = check("my.conf", "/var")
        assert outside.returncode == 1 and "/var/my.conf" in outside.stderr and "private root" in outside.stderr, outside.stderr


def test_token_commands_through_the_script(stack):
    made = subprocess.run(["./deploy/spritegate", "token", "create", "--actor", "NAME", "--rate", "60/1m", "--burst", "5", "--conc", "3", "--budget", "600s/day",
                           "--max-run", "60s", "--max-out", "1MiB", "--json"], cwd=TOP, env=stack.env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=60, check=True)
    found = json.loads(made.stdout)
    assert set(found) == {"token", "kid"} and found["token"].startswith("sgt_" + found["kid"] + "_"), found
    assert stack.run("echo ok", token=found["token"]).stdout == "ok\n"


def test_in_the_foreground(deploy):
    """It stays until Ctrl-C, which stops everything; the data stay."""
    process = subprocess.Popen([str(TOP / "deploy/up"), "--no-demo"], cwd="/", env=deploy.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                               stderr=subprocess.STDOUT, text=True)
    try:
        until(lambda: (deploy.folder / "stack.json").exists(), "the stack is up", 120)
        record = deploy.record
        time.sleep(0.5)
        assert process.poll() is None, "it does not stay"
        process.send_signal(signal.SIGINT)
        shown, _ = process.communicate(timeout=60)
        assert process.returncode == 0, f"exit {process.returncode}: {shown}"
    finally:
        process.kill()
        process.communicate()
    assert not any(alive(pid) for pid in record["pids"].values()), shown
    deploy.up("--no-demo")
    assert deploy.gateway().run("echo ok", token=record["token"]).stdout == "ok\n"


def test_two_stacks_do_not_meet(stack, deploy):
    deploy.up("--no-demo")
    record = deploy.record
    assert not {record[name] for name in ("gateway", "admin", "datasette", "sprites", "redis")} & {stack.url, stack.admin, stack.datasette, stack.redis_url}
    store = redis.Redis.from_url(record["redis"], decode_responses=True)
    assert not store.exists("sg:{g}:k:" + stack.kid)
