"""Ending what runs: `token revoke --kill` and `lease kill`, with three gateways on one Redis."""
import concurrent.futures
import json
import subprocess
import threading
import time

import pytest

import rig as rigs
from answers import Ran, problem
from policy_store import command_of
from processes import new_mark, running
from rig import BARS, LOGS, leases, margin, numbers, until
from streamed import Streamed

BAR = 1.0       # seconds


class Sleeper(threading.Thread):
    """A command that would sleep for long, on one gateway."""

    def __init__(self, gateway, token, mark):
        super().__init__(daemon=True)
        self.mark = mark
        self.streamed = Streamed(gateway, token=token, command=f"echo begun; exec sleep {mark}", timeout_seconds=250)
        self.start()
        until(lambda: running(mark) and self.streamed.output["stdout"], f"{mark} runs")

    def run(self):
        self.streamed.all()

    def check_killed(self):
        self.join(rigs.PATIENCE)
        told = self.streamed
        assert (told.outcome, told.exit_code, told.stdout) == ("canceled", None, b"begun\n")


marks = iter(new_mark, None)


@pytest.fixture
def store(rig):
    return rig.redis()


@pytest.fixture
def three(rig, store):
    emulator = rig.emulator()
    return store, [rig.gateway(redis=store, emulator=emulator, token=False) for _ in range(3)]


@pytest.fixture
def cli(store, stack):
    def run(*words):
        env = rigs.clean_environment({"SPRITEGATE_REDIS_URL": store.url, "SPRITEGATE_PEPPER": stack.pepper})
        return subprocess.run([rigs.BINARY, *words], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120,
                              check=False)
    return run


def lines(result):
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.mark.alone
@pytest.mark.bar
@pytest.mark.parametrize("round", range(5 if BARS else 1))
def test_revoke_kill_ends_the_commands_of_a_token_on_every_gateway(rig, three, cli, round):
    redis, gateways = three
    doomed, other = rig.mint(redis), rig.mint(redis)
    sleepers = [Sleeper(gateway, doomed["token"], next(marks)) for gateway in gateways]
    bystander = Sleeper(gateways[0], other["token"], next(marks))
    limit = BAR * margin()
    begun = time.monotonic()
    done = cli("token", "revoke", "--kill", doomed["kid"], "--json")
    assert (done.returncode, done.stderr) == (0, "")
    until(lambda: not any(running(sleeper.mark) for sleeper in sleepers), "no process of it is left")
    took = time.monotonic() - begun     # the start of the program and what it waits for included
    print(f"round {round}: gone after {took:.2f} s")
    assert took < max(limit, BAR * margin()), f"{took:.1f} s"
    assert lines(done)[0] == {"kid": doomed["kid"], "status": "revoked"}
    assert len(lines(done)) == 4 and all(line["gone"] and line["kid"] == doomed["kid"] for line in lines(done)[1:])
    for sleeper in sleepers:
        sleeper.check_killed()
    problem(gateways[1].exec(token=doomed["token"], command="true"), 401, "invalid-token")
    assert leases(redis.client) == 1 and running(bystander.mark) and bystander.streamed.result is None
    assert sum(gateway.metrics().get("spritegate_exec_killed_total", reason="operator") for gateway in gateways) == 3
    assert cli("lease", "kill", "--all", "--yes").returncode == 0
    bystander.check_killed()


def test_what_tokens_of_an_actor_still_run_is_ended_when_they_were_revoked_before(rig, three, cli):
    redis, gateways = three
    token = rig.mint(redis, actor="ann")
    sleeper = Sleeper(gateways[0], token["token"], next(marks))
    assert cli("token", "revoke", token["kid"]).returncode == 0
    done = cli("token", "revoke", "--actor", "ann", "--kill", "--yes")
    assert done.returncode == 0, done.stderr
    sleeper.check_killed()


def test_lease_kill_ends_what_is_named_and_nothing_else(rig, three, cli):
    redis, gateways = three
    ann, bob = rig.mint(redis, actor="ann"), rig.mint(redis, actor="bob")
    first, second = (Sleeper(gateways[i], ann["token"], next(marks)) for i in (0, 1))
    third = Sleeper(gateways[2], bob["token"], next(marks))
    listed = json.loads(cli("lease", "list", "--json").stdout)
    of_ann = sorted((lease for lease in listed if lease["kid"] == ann["kid"]), key=lambda lease: lease["since"])
    assert cli("lease", "kill", of_ann[0]["lease"]).returncode == 0
    first.check_killed()
    assert running(second.mark) and running(third.mark)
    assert rigs.client().post(gateways[0].url + "/-/agent/exec", headers={"Authorization": f"Bearer {ann['token']}"},
                              json={"command": "true"}).json()["ok"], "the token itself is as before"
    # More than was named is confirmed, and refused without a terminal to ask at.
    for words in (["--actor", "bob"], ["--kid", bob["kid"]], ["--all"]):
        asked = cli("lease", "kill", *words)
        assert asked.returncode == 2 and "--yes" in asked.stderr
    assert running(third.mark)
    assert cli("lease", "kill", "--actor", "bob", "--yes").returncode == 0
    third.check_killed()
    assert running(second.mark)
    assert cli("lease", "kill", "--kid", ann["kid"], "--yes").returncode == 0
    second.check_killed()
    assert "no command" in cli("lease", "kill", "--all", "--yes").stderr


def test_a_kill_is_seen_over_a_connection_that_was_lost_before(rig, three, cli):
    redis, gateways = three
    token = rig.mint(redis)
    sleeper = Sleeper(gateways[0], token["token"], next(marks))
    with redis.frozen():
        until(lambda: gateways[0].health().json()["redis"] == "down", "the gateway has noticed")
    redis.client.client_kill_filter(_type="normal", skipme=True)
    assert cli("token", "revoke", "--kill", token["kid"]).returncode == 0
    sleeper.check_killed()


def test_a_mark_made_while_redis_is_restarted_is_found_afterwards(rig, three, cli):
    redis, gateways = three
    token = rig.mint(redis)
    sleeper = Sleeper(gateways[1], token["token"], next(marks))
    gateways[1].signal(rigs.signal.SIGSTOP)
    killing = cli("token", "revoke", "--kill", token["kid"])
    assert killing.returncode == 1 and "still there" in killing.stdout, "what was not seen to end is told"
    redis = rig.add(redis.again(), lambda: redis.kill())
    gateways[1].signal(rigs.signal.SIGCONT)
    sleeper.check_killed()
    until(lambda: leases(redis.client) == 0, "it is settled")


def test_what_runs_for_long_is_renewed_and_ends_with_its_lease(rig, three, cli):
    redis, gateways = three
    kept, lost = rig.mint(redis), rig.mint(redis)
    sleepers = [Sleeper(gateways[i], token["token"], next(marks)) for i, token in enumerate((kept, lost))]

    def end():
        (_, score), = redis.client.zrange(f"sg:{{g}}:c:{kept['kid']}", 0, -1, withscores=True)
        return score
    first = end()
    redis.client.delete(f"sg:{{g}}:c:{lost['kid']}")
    sleepers[1].check_killed()
    assert "its lease has ended" in gateways[1].log
    until(lambda: end() > first, "the other lease is renewed")
    assert running(sleepers[0].mark)
    assert cli("lease", "kill", "--all", "--yes").returncode == 0
    sleepers[0].check_killed()


def audited(gateway, exec_id):
    """What the audit has of a command: the decision, then the run, which come from two threads and lie there in any order."""
    with open(gateway.settings["SPRITEGATE_AUDIT_LOG"], encoding="utf-8") as log:
        return sorted((line for line in map(json.loads, log) if line["exec_id"] == exec_id), key=lambda line: line["record"])


class Stalled:
    """Gateways whose Datasette takes requests for /x and says nothing."""

    def __init__(self, rig, store, count, hot=1):
        self.fake, self.left = rig.upstream(), []
        self.fake.on("/x")(self.say_nothing)
        self.emulator = rig.emulator()
        self.gateways = [rig.gateway(redis=store, emulator=self.emulator, token=False, datasette_url=self.fake.url, datasette_timeout_seconds=600,
                                     pool_hot=hot, audit_log=LOGS / f"audit-{next(numbers)}.log") for _ in range(count)]
        for gateway in self.gateways:
            gateway.until_ready()

    def say_nothing(self, exchange):
        self.left.append(exchange.left_within(rigs.PATIENCE))
        exchange.hang_up()

    def asked(self):
        return sum(exchange.target == "/x" for exchange in self.fake.requests)

    def check_unrun(self, gateway, store, answer, reason="killed"):
        """It was answered as canceled, nothing of it ran, and nothing was charged."""
        ran = Ran(answer)
        assert (ran.outcome, ran.exit_code, ran.stdout, ran.json["sandbox"]["tier"]) == ("canceled", None, "", "none"), ran.json
        assert self.emulator.view.starts(ran.exec_id) == 0
        decision, run = until(lambda: len(found := audited(gateway, ran.exec_id)) == 2 and found, "both records are there")
        assert (decision["decision"], run["outcome"], run["reason"], run["sandbox"]) == ("allow", "canceled", reason, None)
        until(lambda: leases(store.client) == 0, "the lease is given back")
        days = list(store.client.scan_iter(f"sg:{{g}}:b:{run['kid']}:*"))
        assert days, "it was reserved"
        for key in days:
            day = store.client.hgetall(key)
            assert {name: int(day[name]) for name in ("used", "held", "out_held", "reqs")} == {"used": 0, "held": 0, "out_held": 0, "reqs": 0}


@pytest.fixture
def callers():
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        yield pool


SOURCE = {"command": "echo never; cat", "stdin": {"datasette": "/x"}, "timeout_seconds": 200}


@pytest.mark.alone
@pytest.mark.bar
@pytest.mark.parametrize("round", range(5 if BARS else 1))
def test_revoke_kill_ends_what_waits_for_its_input(rig, store, cli, callers, round):
    """A command that is known to its worker only, since Datasette has not begun its answer."""
    stalled = Stalled(rig, store, 3)
    token = rig.mint(store)
    waiting = [callers.submit(gateway.exec, token=token["token"], **SOURCE) for gateway in stalled.gateways]
    until(lambda: stalled.asked() == 3, "Datasette was asked")
    limit = BAR * margin()
    begun = time.monotonic()
    done = cli("token", "revoke", "--kill", token["kid"], "--json")
    took = time.monotonic() - begun
    assert (done.returncode, done.stderr) == (0, "")
    answers = [one.result(rigs.PATIENCE) for one in waiting]
    print(f"round {round}: gone after {took:.2f} s")
    assert took < max(limit, BAR * margin()), f"{took:.1f} s"
    assert [line.get("gone") for line in lines(done)] == [None, True, True, True]
    for gateway, answer in zip(stalled.gateways, answers):
        stalled.check_unrun(gateway, store, answer)
    until(lambda: len(stalled.left) == 3 and None not in stalled.left, "Datasette is left")


@pytest.mark.parametrize("how", ["lease kill", "delete", "streamed"])
def test_what_waits_for_its_input_can_be_ended_by_name(rig, store, cli, callers, how):
    stalled = Stalled(rig, store, 2)
    token = rig.mint(store, sessions=1)
    one, other = stalled.gateways
    streamed = Streamed(one, token=token["token"], session="s", **SOURCE) if how == "streamed" else None
    pending = None if streamed else callers.submit(one.exec, token=token["token"], session="s", **SOURCE)
    until(lambda: stalled.asked() == 1, "Datasette was asked")
    lease, = json.loads(cli("lease", "list", "--json").stdout)
    if how == "delete":
        deleted = other.http.delete(f"/-/agent/exec/{command_of(lease['lease'])}", headers={"Authorization": f"Bearer {token['token']}"})
        assert deleted.status_code == 202, deleted.text
    else:
        assert cli("lease", "kill", lease["lease"]).returncode == 0
    if streamed:
        streamed.all()
        assert (streamed.outcome, streamed.stdout, streamed.result["sandbox"]["tier"]) == ("canceled", b"", "none"), streamed.result
        streamed.wire.close()
    else:
        stalled.check_unrun(one, store, pending.result(rigs.PATIENCE), None if how == "delete" else "killed")
    # The session is free again, and the token as it was.
    assert one.run("echo on", token=token["token"], session="s").stdout == "on\n"


@pytest.mark.parametrize("how", ["lease kill", "delete"])
@pytest.mark.parametrize("session", [None, "s"])
def test_what_was_ended_while_it_waited_claims_no_sandbox(rig, store, cli, callers, how, session):
    stalled = Stalled(rig, store, 1, hot=0)
    token = rig.mint(store, sessions=1)
    gateway, = stalled.gateways
    pending = callers.submit(gateway.exec, token=token["token"], **SOURCE, **({"session": session} if session else {}))
    until(lambda: stalled.asked() == 1, "Datasette was asked")
    lease, = json.loads(cli("lease", "list", "--json").stdout)
    if how == "delete":
        gateway.http.delete(f"/-/agent/exec/{command_of(lease['lease'])}", headers={"Authorization": f"Bearer {token['token']}"})
    else:
        assert cli("lease", "kill", lease["lease"]).returncode == 0
    stalled.check_unrun(gateway, store, pending.result(rigs.PATIENCE), None if how == "delete" else "killed")
    time.sleep(1)
    assert stalled.emulator.view.names() == []
    assert gateway.metrics().get("spritegate_pool_creates_total") == 0


def test_lease_kill_says_what_it_does_not_find(cli):
    for words in ([], ["x"], ["a" * 24, "--all"], ["--kid", "short"], ["--actor"]):
        assert cli("lease", "kill", *words).returncode == 2
    missing = cli("lease", "kill", "a" * 24)
    assert missing.returncode == 1 and "no lease" in missing.stderr
    assert cli("token", "suspend", "--kill", "A" * 16).returncode == 2
    assert cli("token", "revoke", "--kill", "A" * 16).returncode == 1
