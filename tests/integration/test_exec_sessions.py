"""Named sessions: the same token and name have the same Sprite, until it ends, and nobody else ever has it."""
import concurrent.futures
import json
import shlex
import signal
import subprocess

import pytest

from processes import go_on, new_mark, running
from rig import BINARY, clean_environment, until

ENDED = 60      # seconds for what Redis' clock, the janitor and a Sprite's destruction take together


SETTINGS = {"pool_hot": 1, "pool_max": 8, "pool_wait_seconds": 30, "instance": "sessions"}
LIMITS = {"sessions": 4}


@pytest.fixture(scope="module")
def common(shared_rig):
    """Redis, an emulator and a gateway that most tests share; each has a token of its own."""
    redis, emulator = shared_rig.redis(), shared_rig.emulator("--idle-pause", "500ms")
    yield redis, emulator, shared_rig.gateway(redis=redis, emulator=emulator, token=False, **SETTINGS)
    until_nothing_is_kept(redis, emulator, hot=1)


@pytest.fixture
def gateway(common, rig):
    redis, _, started = common
    started.minted = rig.mint(redis, **LIMITS)
    started.token, started.kid = started.minted["token"], started.minted["kid"]
    started.until_ready(60)
    yield started
    for name in listed(started):
        close(started, name)


@pytest.fixture
def redis(request, rig):
    return request.getfixturevalue("common")[0] if "gateway" in request.fixturenames else rig.redis()


@pytest.fixture
def emulator(request, rig):
    return request.getfixturevalue("common")[1] if "gateway" in request.fixturenames else rig.emulator("--idle-pause", "500ms")


@pytest.fixture
def start(rig, redis, emulator):
    """A gateway of the test's own, whose token may have four sessions."""
    def start_one(token=True, **settings):
        return rig.gateway(redis=redis, emulator=emulator, token=token and LIMITS, **{**SETTINGS, **settings})
    return start_one


def listed(gateway, token=None):
    answer = gateway.get("/-/agent/exec/sessions", headers={"Authorization": f"Bearer {token or gateway.token}"})
    assert answer.status_code == 200, answer.text
    return {session["name"]: session for session in answer.json()["sessions"]}


def close(gateway, name, token=None):
    return gateway.http.delete(f"/-/agent/exec/sessions/{name}", headers={"Authorization": f"Bearer {token or gateway.token}"})


def kept(redis):
    """Sprite → whose it is, as Redis has it."""
    return redis.client.hgetall("sg:{g}:sn")


def until_nothing_is_kept(redis, emulator, hot):
    until(lambda: not kept(redis), lambda: f"no Sprite is kept; there are {kept(redis)}", ENDED)
    emulator.view.until_alive(hot, ENDED)
    assert not redis.client.zcard("sg:{g}:ss")
    assert not [key for key in redis.client.scan_iter("sg:{g}:pool:*:kept")]


def sprites_of(redis, name):
    """Those of closed sessions, which are about to be destroyed, have no name any more."""
    return [sprite for sprite, whose in kept(redis).items() if whose.split()[2:] == [name]]


def sprite_of(redis, name):
    [sprite] = sprites_of(redis, name)
    return sprite


def test_files_and_processes_are_kept(gateway, emulator, redis):
    first = gateway.run("echo one >note; (setsid sleep 1000 </dev/null >/dev/null 2>&1 &) ; hostname", session="work")
    assert first.sandbox == {"tier": "hot", "session": {"name": "work", "created": True}}
    second = gateway.run("cat note; pgrep -c sleep; hostname", session="work")
    assert second.sandbox == {"tier": "hot", "session": {"name": "work", "created": False}}
    assert second.stdout == "one\n1\n" + first.stdout
    assert gateway.run("cat note; :", session="other").stdout == ""
    assert gateway.run("cat note; :").sandbox["session"] is None
    assert set(listed(gateway)) == {"work", "other"}
    metrics = gateway.metrics()
    assert metrics.get("spritegate_session_sprites") >= 2
    assert metrics.get("spritegate_session_events_total", event="created") >= 2


def test_it_is_woken_when_the_provider_has_paused_it(gateway, emulator, redis):
    gateway.run("echo one >note", session="work")
    emulator.view.pause(sprite_of(redis, "work"))
    again = gateway.run("cat note", session="work")
    assert again.stdout == "one\n" and again.sandbox["session"]["created"] is False


def test_output_is_complete_each_time(gateway):
    for count in 300_000, 10, 400_000:
        ran = gateway.run(f"head -c {count} /dev/zero | tr '\\0' x", session="work", max_output_bytes=1_000_000)
        assert len(ran.stdout) == count and ran.output_check in ("verified", "counted"), ran.output_check


def test_the_same_name_of_another_token_is_another_session(gateway, rig, redis):
    other = rig.mint(redis, actor="tester", sessions=1)["token"]
    mine = gateway.run("echo mine >note; hostname", session="work").stdout
    theirs = gateway.run("cat note; hostname", token=other, session="work")
    assert theirs.sandbox["session"] == {"name": "work", "created": True}
    assert theirs.stdout != mine and "mine" not in theirs.stdout
    assert len(sprites_of(redis, "work")) == 2
    assert close(gateway, "unknown", other).json()["code"] == "session-not-found"
    assert close(gateway, "work", other).status_code == 200
    assert set(listed(gateway)) == {"work"} and not listed(gateway, other)
    assert gateway.run("cat note", session="work").stdout == "mine\n"


def test_what_is_refused(gateway, rig, redis):
    none = rig.mint(redis)["token"]
    refused = gateway.exec(token=none, command="true", session="work")
    assert refused.status_code == 403 and refused.json()["code"] == "session-denied"
    for name in "", ".hidden", "a/b", "a b", "x" * 65, "ä", 7, None, ["a"]:
        refused = gateway.exec(command="true", session=name)
        assert refused.status_code == 422, name
        [error] = refused.json()["errors"]
        assert error["pointer"] == "/session" and ("64" in error["detail"] or "string" in error["detail"])
    assert gateway.run("true", session="A-z_0." + "x" * 58).exit_code == 0
    few = rig.mint(redis, sessions=1)["token"]
    gateway.run("true", token=few, session="one")
    refused = gateway.exec(token=few, command="true", session="two")
    assert refused.status_code == 429 and refused.json()["code"] == "session-limit" and refused.json()["max_sessions"] == 1
    assert int(refused.headers["Retry-After"]) > 0
    assert close(gateway, "one", few).status_code == 200
    assert gateway.run("true", token=few, session="two").sandbox["session"]["created"] is True
    assert gateway.get("/-/agent/exec/quota", headers={"Authorization": f"Bearer {few}"}).json()["max_sessions"] == 1
    assert close(gateway, "two", few).status_code == 200


def test_one_command_at_a_time(gateway, emulator):
    assert gateway.run("echo fast", session="other").stdout == "fast\n"
    before = set(emulator.view.state()["starts"])
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        slow = pool.submit(gateway.run, "until test -e go; do sleep 0.05; done; echo done", session="work", timeout_seconds=120)
        until(lambda: listed(gateway).get("work", {}).get("busy"), "the session is busy")
        until(lambda: set(emulator.view.state()["starts"]) - before, "it was started")
        refused = gateway.exec(command="true", session="work")
        assert refused.status_code == 409 and refused.json()["code"] == "session-busy" and int(refused.headers["Retry-After"]) >= 1
        [exec_id] = set(emulator.view.state()["starts"]) - before
        assert gateway.http.delete(f"/-/agent/exec/{exec_id}", headers={"Authorization": f"Bearer {gateway.token}"}).status_code == 202
        assert slow.result().outcome == "canceled"
    assert gateway.run("echo next", session="work").stdout == "next\n"


def test_it_outlives_a_timeout(gateway):
    gateway.run("echo one >note", session="work")
    assert gateway.run("sleep 1000", session="work", timeout_seconds=2).outcome == "timed_out"
    assert gateway.run("cat note", session="work").stdout == "one\n"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_it_outlives_its_gateway(start, emulator, redis, how):
    first = start()
    first.until_ready()
    host = first.run("echo one >note; hostname", session="work").stdout
    first.signal(how)
    first.wait(60)
    again = start(token=False)
    again.token = first.token
    again.until_ready()
    assert sprite_of(redis, "work") in emulator.view.names()
    ran = again.run("cat note; hostname", session="work")
    assert ran.stdout == "one\n" + host and ran.sandbox["session"]["created"] is False
    assert close(again, "work").status_code == 200
    until_nothing_is_kept(redis, emulator, hot=1)


# Says until when what is left goes on, and what says so: the only other way to a near end is to wait for a quarter of an hour.
UNTIL = "/tmp/.spritegate/until"
HOLDS = "while :; do sprite-env curl -X PUT -d '{\"expire\":\"5s\"}' /v1/tasks/work; sleep 1; done"


def test_what_it_left_ends_though_nobody_is_there_to_end_it(start, emulator, redis):
    """A process that keeps its Sprite awake for ever, while every gateway and Redis are dead for good."""
    gateway, mark = start(session_idle_seconds=40), new_mark()
    gateway.until_ready()
    left = shlex.quote(f"sleep {mark} & {HOLDS}")
    gateway.run(f"(setsid bash -c {left} </dev/null >/dev/null 2>&1 &)", session="work", timeout_seconds=20)
    said = [gateway.run(f"cat {UNTIL}; cut -d. -f1 /proc/uptime", session="work", timeout_seconds=20).stdout.split() for _ in range(2)]
    ends = [int(end, 16) / 1000 - int(now) for end, now in said]
    assert int(said[0][0], 16) < int(said[1][0], 16), f"each command says it anew: {said}"
    assert all(20 + 40 < end <= 20 + 40 + 601 for end in ends), f"after any command, and any idle time: {ends}"
    sprite = sprite_of(redis, "work")
    gateway.run(f"printf '%016x' $(( ($(cut -d. -f1 /proc/uptime) + 1) * 1000 )) 1<>{UNTIL}", session="work")
    gateway.kill()
    redis.kill()
    until(lambda: not running(mark), "what the session left has ended", ENDED)
    until(lambda: [(sprite, "warm")] == [(one["name"], one["status"]) for one in emulator.view.state()["sprites"] if one["name"] == sprite],
          lambda: f"its Sprite is paused: {emulator.view.state()}", ENDED)


def test_a_command_ends_with_its_gateway_though_nobody_is_there_to_end_it(start, emulator, redis):
    """One that holds nothing awake."""
    gateway, mark = start(pool_hot=1), new_mark()
    gateway.until_ready()
    with concurrent.futures.ThreadPoolExecutor() as threads:
        dying = threads.submit(gateway.exec, command=f"sleep {mark}", timeout_seconds=200)
        until(lambda: running(mark), "it has begun", ENDED)
        gateway.kill()
        redis.kill()
        assert dying.exception()
    until(lambda: not running(mark), "it has ended", ENDED)
    until(lambda: "running" not in [one["status"] for one in emulator.view.state()["sprites"]], lambda: f"no Sprite runs: {emulator.view.state()}", ENDED)


def test_a_command_without_a_session_ends_though_nobody_is_there_to_end_it(start, emulator, redis):
    """The provider would let go on what keeps its Sprite awake."""
    gateway, mark = start(pool_hot=1), new_mark()
    gateway.until_ready()
    said = f"cat {UNTIL}; cut -d. -f1 /proc/uptime"
    end, now = gateway.run(said, timeout_seconds=20).stdout.split()
    assert 20 < int(end, 16) / 1000 - int(now) <= 20 + 61, "after the command, and what ends it from outside"
    gateway.until_ready()
    dead = new_mark()
    near = f"printf '%016x' $(( ($(cut -d. -f1 /proc/uptime) + 1) * 1000 )) 1<>{UNTIL}"
    left = shlex.quote(f"sleep {mark} & {HOLDS} & sleep {dead}; {near}; wait")
    with concurrent.futures.ThreadPoolExecutor() as threads:
        dying = threads.submit(gateway.exec, command=f"(setsid bash -c {left} </dev/null >/dev/null 2>&1 &); sleep 1000", timeout_seconds=200)
        until(lambda: running(mark) and running(dead), "it has begun", ENDED)
        gateway.kill()
        redis.kill()
        assert dying.exception()
    go_on(dead)
    until(lambda: not running(mark), "what the command left has ended", ENDED)
    until(lambda: "running" not in [one["status"] for one in emulator.view.state()["sprites"]], lambda: f"no Sprite runs: {emulator.view.state()}", ENDED)


@pytest.mark.parametrize("shared", [0, 1])
def test_every_gateway_serves_it(start, emulator, redis, shared):
    settings = {"pool_shared": shared, "pool_name": "together"}
    # As if a list had been made and no flush were near: else nothing would be created for 20 s.
    redis.client.mset({"sg:{g}:pool:together:inc": "made-by-the-test", "sg:{g}:pool:together:listed": "1"})
    first, second = start(instance="first", **settings), start(instance="second", token=False, **settings)
    second.token = first.token
    first.until_ready(ENDED)
    host = first.run("echo 0 >note; hostname", session="work").stdout
    for number, gateway in enumerate((second, first, second)):
        ran = gateway.run(f"cat note; echo {number + 1} >note; hostname", session="work")
        assert ran.stdout == f"{number}\n" + host and ran.sandbox["session"]["created"] is False
    first.kill()
    assert second.run("cat note", session="work").stdout == "3\n"
    assert close(second, "work").status_code == 200
    until(lambda: not kept(redis), lambda: f"no Sprite is kept; there are {kept(redis)}", ENDED)
    assert host.strip() not in emulator.view.names()


def test_a_lost_sandbox_is_told_once(gateway, emulator, redis):
    gateway.run("echo one >note", session="work")
    answer = emulator.view.http.delete(f"/v1/sprites/{sprite_of(redis, 'work')}", headers={"Authorization": f"Bearer {emulator.token}"})
    assert answer.status_code == 204, answer.text
    lost = until(lambda: (lambda a: a if a.status_code == 410 else None)(gateway.exec(command="cat note", session="work")), "it is told", ENDED)
    assert lost.json()["code"] == "session-lost" and lost.json()["may_have_run"] is False and lost.json()["session"] == "work"
    again = gateway.run("cat note; :", session="work")
    assert again.stdout == "" and again.sandbox["session"]["created"] is True


def test_a_false_404_loses_nothing(gateway, emulator, redis):
    gateway.run("echo one >note", session="work")
    sprite = sprite_of(redis, "work")
    emulator.view.pause(sprite)
    with emulator.view.faulty("false_404", count=4, match={"sprite": sprite}):
        ran = until(lambda: (lambda a: a if a.status_code == 200 else None)(gateway.exec(command="cat note", session="work")), "it runs", ENDED)
    assert ran.json()["stdout"] == "one\n" and ran.json()["sandbox"]["session"]["created"] is False


def test_a_wake_that_takes_long_is_waited_for(rig, redis):
    emulator = rig.emulator("--create-delay", "50ms", "--wake-delay", "3s", "--cold-wake-delay", "3s", quick=False)
    gateway = rig.gateway(redis=redis, emulator=emulator, token={"sessions": 1}, pool_hot=0, pool_wait_seconds=1)
    until(lambda: gateway.exec(command="echo one >note", session="work").status_code == 200, "it begins", 120)
    emulator.view.pause(sprite_of(redis, "work"))
    late = until(lambda: (lambda a: a if a.status_code == 200 else None)(gateway.exec(command="cat note", session="work")), "it wakes", 120)
    assert late.json()["stdout"] == "one\n" and late.json()["sandbox"]["session"]["created"] is False


def test_it_ends_when_it_is_idle(start, emulator, redis):
    gateway = start(session_idle_seconds=3)
    gateway.until_ready()
    gateway.run("echo one >note", session="work")
    gateway.run("sleep 5", session="busy", timeout_seconds=60)
    until(lambda: "work" not in listed(gateway), "it has idled out", ENDED)
    until_nothing_is_kept(redis, emulator, hot=1)
    again = gateway.run("cat note; :", session="work")
    assert again.stdout == "" and again.sandbox["session"]["created"] is True


def test_it_ends_when_it_is_old(start, emulator, redis):
    gateway = start(session_max_age_seconds=3)
    gateway.until_ready()
    sprites = set()

    def began_anew():
        ran = gateway.run("hostname", session="work")
        sprites.add(ran.stdout)
        return len(sprites) > 1 and ran.sandbox["session"]["created"]
    until(began_anew, "a new one has begun though it was never idle", ENDED)
    until_nothing_is_kept(redis, emulator, hot=1)


def test_what_is_kept_counts_against_the_maximum(start, emulator, redis):
    gateway = start(pool_hot=1, pool_max=2, pool_wait_seconds=1)
    gateway.until_ready()
    for name in "one", "two":
        until(lambda name=name: gateway.exec(command="true", session=name).status_code == 200, "it runs")
    refused = gateway.exec(command="true", session="three")
    assert refused.status_code == 503 and emulator.view.state()["max_alive"] == 2
    assert "three" not in listed(gateway)
    assert gateway.run("echo on", session="two").stdout == "on\n"
    assert close(gateway, "one").status_code == 200
    until(lambda: gateway.exec(command="true", session="three").status_code == 200, "there is room again", ENDED)
    assert emulator.view.state()["max_alive"] == 2


def test_closing_ends_what_runs_in_it(gateway, emulator, redis):
    before = set(emulator.view.state()["starts"])
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        slow = pool.submit(gateway.exec, command="sleep 1000", session="work", timeout_seconds=250)
        until(lambda: set(emulator.view.state()["starts"]) - before, "it was started")
        assert close(gateway, "work").json() == {"ok": True, "session": "work", "state": "closed"}
        assert close(gateway, "work").status_code == 404
        assert gateway.run("echo new", session="work").sandbox["session"]["created"] is True
        ended = slow.result()
    assert ended.status_code in (200, 502) and ended.json()["outcome"] in ("canceled", "unknown")
    assert close(gateway, "work").status_code == 200
    until_nothing_is_kept(redis, emulator, hot=1)


def test_a_flush_ends_sessions_and_leaks_nothing(start, emulator, redis, rig):
    gateway = start()
    gateway.until_ready()
    gateway.run("echo one >note", session="work")
    sprite = sprite_of(redis, "work")
    redis.client.flushall()
    token = rig.mint(redis, sessions=1)["token"]
    again = gateway.run("cat note; :", token=token, session="work")
    assert again.sandbox["session"]["created"] is True and again.stdout == ""
    until(lambda: sprite not in emulator.view.names(), "the old one is gone", ENDED)
    assert gateway.run("echo on", token=token, session="work").stdout == "on\n"


def test_lost_records_do_not_end_the_command_that_runs(start, emulator, redis):
    """Its Sprite is nobody's afterwards, and goes when the command has ended."""
    gateway = start(pool_shared=0)
    gateway.until_ready()
    gateway.run("true", session="work")
    sprite = sprite_of(redis, "work")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        mark = new_mark()
        slow = pool.submit(gateway.run, f"sleep {mark}; echo done", session="work", timeout_seconds=120)
        until(lambda: running(mark), "it was started")
        redis.client.delete("sg:{g}:sn", "sg:{g}:ss", *redis.client.scan_iter("sg:{g}:s:*"), *redis.client.scan_iter("sg:{g}:pool:*:kept"))
        looks = redis.client.info("commandstats")["cmdstat_evalsha"]["calls"]
        until(lambda: redis.client.info("commandstats")["cmdstat_evalsha"]["calls"] > looks + 3, "the records were looked at")
        assert sprite in emulator.view.names() and not slow.done()
        go_on(mark)
        assert slow.result().stdout == "done\n"
    until(lambda: sprite not in emulator.view.names(), "it is gone", ENDED)


def test_commands_follow_each_other_at_once(gateway):
    """The answer comes when the session is free again."""
    for number in range(60):
        assert gateway.run(f"echo {number}", session="work").stdout == f"{number}\n"


def test_a_revoked_token_has_no_sessions(gateway, emulator, redis):
    gateway.run("true", session="work")
    redis.client.hset(f"sg:{{g}}:k:{gateway.kid}", "status", "revoked")
    until_nothing_is_kept(redis, emulator, hot=1)
    redis.client.hset(f"sg:{{g}}:k:{gateway.kid}", "status", "active")


def test_an_egress_profile_is_each_commands_own(gateway, rig, redis):
    token = rig.mint(redis, sessions=1, egress="example.com")["token"]
    assert gateway.run("echo 1 >note", token=token, session="work").sandbox["session"]["created"] is True
    assert gateway.run("cat note", token=token, session="work").stdout == "1\n"
    assert close(gateway, "work", token).status_code == 200


@pytest.fixture
def cli(redis, stack):
    def run(*words):
        env = clean_environment({"SPRITEGATE_REDIS_URL": redis.url, "SPRITEGATE_PEPPER": stack.pepper})
        return subprocess.run([BINARY, "session", *words], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
                              check=False)
    return run


def test_operators_see_and_close_them(gateway, emulator, redis, cli):
    gateway.run("true", session="work")
    gateway.run("true", session="other")
    both = {name: sprite_of(redis, name) for name in ("other", "work")}
    until(lambda: not any(one["busy"] for one in listed(gateway).values()), "both are idle")
    told = json.loads(cli("list", "--json").stdout)
    assert {one["name"]: one["sprite"] for one in told if one["kid"] == gateway.kid} == both
    mine = [one for one in told if one["kid"] == gateway.kid]
    assert [one["busy"] for one in mine] == [False, False] and all(one["created"] <= one["used"] < one["ends"] for one in mine), mine
    lines = cli("list").stdout.splitlines()
    assert lines[0].split() == ["KID", "NAME", "STATE", "CREATED", "USED", "ENDS", "SPRITE"]
    assert any(line.split()[:3] == [gateway.kid, "work", "idle"] for line in lines[1:]), lines
    closed = cli("close", f"{gateway.kid}/work")
    assert (closed.returncode, closed.stdout) == (0, f"{gateway.kid}/work is closed\n"), closed
    assert set(listed(gateway)) == {"other"}
    until(lambda: both["work"] not in emulator.view.names(), "its Sprite is destroyed", ENDED)
    again = cli("close", f"{gateway.kid}/work")
    assert again.returncode == 1 and "there is no session" in again.stderr
    assert gateway.run("true", session="work").sandbox["session"]["created"] is True
    assert cli("close", "--kid", gateway.kid).returncode == 2, "without a terminal it needs --yes"
    assert set(listed(gateway)) == {"other", "work"}
    closed = cli("close", "--kid", gateway.kid, "--yes", "--json")
    assert [json.loads(line) for line in closed.stdout.splitlines()] == [
        {"kid": gateway.kid, "name": name, "closed": True} for name in ("other", "work")]
    assert listed(gateway) == {} and cli("close", "--kid", gateway.kid, "--yes").returncode == 1
    assert redis.client.xrevrange("sg:{g}:audit", count=1)[0][1].items() >= {"action": "session-close", "kid": gateway.kid}.items()


def test_operators_end_what_runs_in_one(gateway, redis, cli):
    mark = new_mark()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        slow = pool.submit(gateway.run, f"sleep {mark}", session="work", timeout_seconds=200)
        until(lambda: running(mark), "it runs")
        until(lambda: kept(redis), "its Sprite is written down")
        assert [one["busy"] for one in json.loads(cli("list", "--json").stdout) if one["kid"] == gateway.kid] == [True]
        closed = cli("close", f"{gateway.kid}/work")
        assert closed.stdout == f"{gateway.kid}/work is closed; its command is being ended\n", closed
        assert slow.result().outcome == "canceled"
    until(lambda: not running(mark), "nothing of it is left")


@pytest.mark.parametrize("words", [(), ("close",), ("list", "x"), ("close", "x"), ("close", "x/y"), ("close", "0" * 16), ("close", "0" * 16 + "/"),
                                   ("close", "0" * 16 + "/a", "--all"), ("close", "--kid", "x"), ("close", "--all", "--nonsense"), ("end",)])
def test_what_operators_may_not_write(cli, words):
    refused = cli(*words)
    assert refused.returncode == 2 and refused.stderr and not refused.stdout, refused
