"""spritegate doctor: what is wrong with which part, and what to do; with each part broken in turn."""
import json
import re
import socket
import subprocess
import threading
import time

import httpx
import pytest

from certificates import certificate
from rig import BINARY, LOGS, SLOWER, clean_environment, free_port, numbers
from twins import Datasette

LINES = ["settings", "redis", "redis-version", "redis-eviction", "redis-clock", "redis-latency", "redis-scripts", "sprites", "datasette", "datasette-rows"]
SECONDS = 60 * SLOWER      # 10 and the start of the program, on a machine that is slow


class Report:
    def __init__(self, done):
        self.done = done
        self.code = done.returncode
        self.json = json.loads(done.stdout)
        self.checks = {check["name"]: check for check in self.json["checks"]}
        assert self.json["ok"] is (self.code == 0), done
        for check in self.json["checks"]:
            assert check["status"] in ("ok", "warn", "fail") and check["detail"], check
            assert ("advice" in check) == (check["status"] != "ok"), check

    def status(self, name):
        return self.checks[name]["status"]

    def bad(self):
        return {name for name, check in self.checks.items() if check["status"] != "ok"}


def settings(stack, **changed):
    values = {"pepper": stack.pepper, "redis_url": stack.redis_url, "datasette_url": stack.datasette, "sprites_url": stack.sprites.url,
              "sprites_token": stack.sprites.token, "redis_timeout_ms": 1000, **changed}
    return clean_environment({f"SPRITEGATE_{name.upper()}": str(value) for name, value in values.items() if value is not None})


def run(stack, *words, **changed):
    began = time.monotonic()
    done = subprocess.run([BINARY, "doctor", *words], env=settings(stack, **changed), stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=2 * SECONDS, check=False)
    assert time.monotonic() - began < SECONDS, "a check hangs"
    for secret in (stack.pepper, stack.sprites.token, "pass-word"):
        assert secret not in done.stdout + done.stderr, "a secret is shown"
    return done


def doctor(stack, **changed):
    return Report(run(stack, "--json", **changed))


class Silent:
    """Accepts connections and says nothing, or the same byte again and again."""

    def __init__(self, drip=None):
        self.drip, self.over = drip, threading.Event()
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        self.peers = []
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while not self.over.is_set():
            try:
                peer, _ = self.socket.accept()
            except OSError:
                return
            self.peers.append(peer)
            if self.drip:
                threading.Thread(target=self.feed, args=(peer,), daemon=True).start()

    def feed(self, peer):
        while not self.over.wait(0.2):
            try:
                peer.sendall(self.drip)
            except OSError:
                return

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.over.set()
        for one in (self.socket, *self.peers):
            one.close()


class Between(Silent):
    """Passes every question on to a real Redis after a while, and what `change` makes of its answer back."""

    def __init__(self, port, seconds=0, change=lambda answer: answer):
        self.upstream, self.seconds, self.change = port, seconds, change
        super().__init__(drip=True)

    def feed(self, peer):
        with socket.create_connection(("127.0.0.1", self.upstream)) as server:
            while question := peer.recv(65536):
                time.sleep(self.seconds)
                server.sendall(question)
                peer.sendall(self.change(server.recv(65536)))


@pytest.mark.smoke
def test_all_is_well(stack):
    report = doctor(stack)
    assert report.code == 0 and not report.bad(), report.json
    assert [check["name"] for check in report.json["checks"]] == LINES
    text = run(stack)
    assert text.returncode == 0, text
    assert [line.split()[:2] for line in text.stdout.splitlines()] == [["ok", name] for name in LINES], text.stdout


def test_it_changes_nothing(rig, stack):
    redis, emulator = rig.redis(), rig.emulator()
    assert doctor(stack, redis_url=redis.url, sprites_url=emulator.url, sprites_token=emulator.token).code == 0
    assert redis.client.dbsize() == 0 and emulator.view.state()["created"] == 0


def test_settings(stack):
    done = run(stack, "--json", pepper="short", pool_hot="many")
    report = Report(done)
    assert report.code == 1 and {check["name"] for check in report.json["checks"]} == {"settings"}, report.json
    details = [check["detail"] for check in report.json["checks"]]
    assert any("pepper" in one for one in details) and any("pool_hot" in one for one in details), details
    done = run(stack, listen="nonsense")
    assert done.returncode == 1 and done.stdout.startswith("fail  settings") and "listen: " in done.stdout, done


def test_redis_is_away(stack):
    report = doctor(stack, redis_url=f"redis://:pass-word@127.0.0.1:{free_port()}")
    assert report.code == 1 and report.bad() == {"redis"}, report.json
    assert "REDIS_URL" in report.checks["redis"]["advice"] and "redis-clock" not in report.checks


def test_redis_with_another_password(rig, stack):
    redis = rig.redis()
    redis.client.config_set("requirepass", "secret")
    report = doctor(stack, redis_url=f"redis://:pass-word@127.0.0.1:{redis.port}")
    assert report.bad() == {"redis"} and "WRONGPASS" in report.checks["redis"]["detail"], report.json


def test_redis_that_evicts(rig, stack):
    redis = rig.redis()
    redis.client.config_set("maxmemory-policy", "allkeys-lru")
    report = doctor(stack, redis_url=redis.url)
    assert report.code == 1 and report.bad() == {"redis-eviction"} and "noeviction" in report.checks["redis-eviction"]["advice"], report.json


def test_redis_that_is_slower_than_the_gateway_waits(rig, stack):
    redis = rig.redis()
    with Between(redis.port, 0.3) as late:
        url = f"redis://127.0.0.1:{late.port}"
        assert doctor(stack, redis_url=url, redis_timeout_ms=100).status("redis-latency") == "fail"
        assert doctor(stack, redis_url=url, redis_timeout_ms=590).status("redis-latency") == "warn"


def test_redis_whose_clock_is_off(rig, stack):
    def later(answer):
        return re.sub(rb"^\*2\r\n\$10\r\n(\d{10})", lambda time: b"*2\r\n$10\r\n%d" % (int(time[1]) + 60), answer)

    with Between(rig.redis().port, change=later) as between:
        report = doctor(stack, redis_url=f"redis://127.0.0.1:{between.port}")
    assert report.code == 0 and report.bad() == {"redis-clock"} and "ahead" in report.checks["redis-clock"]["detail"], report.json


def test_redis_that_is_old(rig, stack):
    with Between(rig.redis().port, change=lambda answer: re.sub(rb"redis_version:\d", b"redis_version:5", answer)) as between:
        report = doctor(stack, redis_url=f"redis://127.0.0.1:{between.port}")
    assert report.bad() == {"redis-version"}, report.json


def test_a_redis_that_runs_no_scripts_rightly(rig, stack):
    with Between(rig.redis().port, change=lambda answer: answer.replace(b"unknown", b"granted")) as between:
        report = doctor(stack, redis_url=f"redis://127.0.0.1:{between.port}")
    assert report.code == 1 and report.bad() == {"redis-scripts"}, report.json


def test_redis_user_with_too_few_rights(rig, stack):
    redis = rig.redis()
    redis.client.execute_command("ACL", "SETUSER", "gateway", "on", ">pass-word", "resetchannels", "~sg:{g}:*", "-@all", "+ping", "+time", "+auth")
    report = doctor(stack, redis_url=f"redis://gateway:pass-word@127.0.0.1:{redis.port}")
    assert report.code == 1, report.json
    assert {name: report.status(name) for name in report.bad()} == {"redis-version": "warn", "redis-eviction": "warn", "redis-scripts": "fail"}


def test_redis_user_of_the_manual(rig, stack):
    """The rights that docs/POLICY.md gives a gateway are enough; only INFO is not among them, which is a warning."""
    from rig import TOP
    line = next(line for line in (TOP / "docs/POLICY.md").read_text(encoding="utf-8").splitlines() if "ACL SETUSER gateway" in line)
    redis = rig.redis()
    redis.client.execute_command(*line.replace("PASSWORD", "pass-word").split())
    report = doctor(stack, redis_url=f"redis://gateway:pass-word@127.0.0.1:{redis.port}")
    assert report.code == 0 and report.bad() == {"redis-version", "redis-eviction"}, report.json


def test_policies_that_identity_rules_name(rig, stack):
    """One that is not there or cannot be used lets nobody in: the examination says so before a caller finds out."""
    redis = rig.redis()
    rules = json.dumps([{"policy": name, "allow": {"role": name}} for name in ("staff", "guests", "staff")])

    def check():
        report = doctor(stack, redis_url=redis.url, identity_rules=rules)
        assert report.bad() <= {"identity-policy"}, report.json
        return report, [check["detail"] for check in report.json["checks"] if check["name"] == "identity-policy"]

    def set_policy(name, *flags):
        subprocess.run([BINARY, "policy", "set", name, *flags], env=settings(stack, redis_url=redis.url), check=True, timeout=SECONDS,
                       stdin=subprocess.DEVNULL, capture_output=True)

    set_policy("staff", "--rate", "5/1m", "--ip", "192.0.2.0/24")
    report, details = check()
    assert report.code == 1 and details == ["guests: is not there"], report.json
    assert "policy set" in report.checks["identity-policy"]["advice"]
    set_policy("guests", "--rate", "5/1m")
    keys = redis.client.dbsize()
    report, details = check()
    assert report.code == 0 and len(details) == 1 and "(3)" in details[0], report.json
    assert redis.client.dbsize() == keys, "the examination writes"
    for field, value in (("rate_n", "many"), ("rule-of-tomorrow", "1"), ("scopes", "other")):
        before = redis.client.hget("sg:{g}:p:guests", field)
        redis.client.hset("sg:{g}:p:guests", field, value)
        report, details = check()
        assert report.code == 1 and len(details) == 1 and details[0].startswith("guests: has "), (field, report.json)
        redis.client.hdel("sg:{g}:p:guests", field)
        if before:
            redis.client.hset("sg:{g}:p:guests", field, before)
    assert check()[0].code == 0


def test_sprites_is_away(stack):
    report = doctor(stack, sprites_url=f"http://127.0.0.1:{free_port()}")
    assert report.code == 1 and report.bad() == {"sprites"} and "SPRITES_URL" in report.checks["sprites"]["advice"], report.json


def test_sprites_refuses_the_token(stack):
    report = doctor(stack, sprites_token="org/1/another")
    assert report.code == 1 and report.bad() == {"sprites"} and "SPRITES_TOKEN" in report.checks["sprites"]["advice"], report.json


def test_something_else_in_place_of_sprites(stack):
    report = doctor(stack, sprites_url=stack.admin)
    assert report.bad() == {"sprites"} and "not the Sprites API" in report.checks["sprites"]["advice"], report.json


def test_datasette_is_away(stack):
    report = doctor(stack, datasette_url=f"http://127.0.0.1:{free_port()}")
    assert report.code == 1 and report.bad() == {"datasette"} and "DATASETTE_URL" in report.checks["datasette"]["advice"], report.json


def test_datasette_behind_https(stack, rig, tmp_path):
    ours = certificate(tmp_path, "127.0.0.1")
    upstream = rig.upstream(tls=ours.tls)
    upstream.routes[None] = lambda exchange: exchange.reply(body=b"{}")
    assert doctor(stack, datasette_url=upstream.url, datasette_ca_file=ours.certificate).status("datasette") == "ok"
    report = doctor(stack, datasette_url=upstream.url)
    assert report.status("datasette") == "fail" and "certificate" in report.checks["datasette"]["detail"], report.json


def test_something_else_in_place_of_datasette(stack):
    report = doctor(stack, datasette_url=stack.admin)
    assert report.code == 0 and report.status("datasette") == "warn", report.json


@pytest.fixture(scope="module")
def private(shared_rig):
    """A Datasette that takes seven rows at once, and tells its settings to nobody without a login."""
    folder = LOGS / f"doctor-{next(numbers)}"
    part = Datasette(folder, "--setting", "max_insert_rows", "7", "-s", "allow.id", "root")
    shared_rig.add(part, part.kill)

    def refuses():
        try:
            return httpx.get(f"{part.url}/-/versions.json", trust_env=False).status_code == 403
        except httpx.TransportError:
            return False
    part.until_up(refuses)
    return part


@pytest.fixture(scope="module")
def seven(shared_rig):
    """A Datasette that takes seven rows at once."""
    folder = LOGS / f"doctor-{next(numbers)}"
    part = Datasette(folder, "--setting", "max_insert_rows", "7")
    shared_rig.add(part, part.kill)
    part.until_up(part.answers)
    return part


def test_rows_that_datasette_takes_at_once(stack, seven):
    """More is a warning: it refuses them, and everything else works."""
    assert doctor(stack, datasette_insert_rows=100).bad() == set(), "Datasette's own default"
    for ours, status in ((7, "ok"), (8, "warn"), (1, "ok")):
        report = doctor(stack, datasette_url=seven.url, datasette_insert_rows=ours)
        assert (report.code, report.status("datasette-rows")) == (0, status), report.json
        assert report.bad() == ({"datasette-rows"} if status == "warn" else set()), report.json
        assert f"{ours}" in (detail := report.checks["datasette-rows"]["detail"]) and "7" in detail, detail
    assert doctor(stack, datasette_insert_rows=101).bad() == {"datasette-rows"}


def test_a_datasette_that_does_not_tell_how_many_rows(stack, private, rig):
    report = doctor(stack, datasette_url=private.url)
    assert report.code == 0 and report.bad() == {"datasette-rows"}, report.json
    assert "not known" in (detail := report.checks["datasette-rows"]["detail"]) and "403" in detail, detail
    assert "DATASETTE_INSERT_ROWS" in report.checks["datasette-rows"]["advice"]
    upstream = rig.upstream()
    upstream.on("/-/versions.json")(lambda exchange: exchange.reply(body=b"{}"))
    for body in (b"{}", b"[]", b"nonsense", b'{"max_insert_rows": "100"}', b'{"max_insert_rows": -1}', b'{"a": "%s"}' % (b"x" * 100_000)):
        upstream.on("/-/settings.json")(lambda exchange, body=body: exchange.reply(body=body))
        report = doctor(stack, datasette_url=upstream.url)
        assert report.code == 0 and report.bad() == {"datasette-rows"} and "not known" in report.checks["datasette-rows"]["detail"], report.json


def test_nothing_hangs(stack):
    """All three accept and are silent; or Redis sends without an end, a byte at a time."""
    with Silent() as silent, Silent(drip=b"+") as drip:
        url = f"http://127.0.0.1:{silent.port}"
        report = doctor(stack, redis_url=f"redis://127.0.0.1:{silent.port}", sprites_url=url, datasette_url=url)
        assert report.code == 1 and report.bad() == {"redis", "sprites", "datasette"}, report.json
        report = doctor(stack, redis_url=f"redis://127.0.0.1:{drip.port}")
        assert report.code == 1 and report.bad() == {"redis"}, report.json


def test_usage(stack):
    for words in (("--nope",), ("--config",), ("x", "--json"), ("--json", "--json")):
        done = run(stack, *words)
        assert done.returncode == 2 and done.stderr.strip(), f"{words}: {done}"


def test_with_the_stack_s_settings(stack):
    done = subprocess.run(["./deploy/spritegate", "doctor", "--json"], cwd=BINARY.parent.parent.parent, env=stack.env,
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    assert Report(done).code == 0, done
