"""`spritegate token …` against a Redis of its own."""
import json
import os
import pty
import re
import select
import socket
import subprocess
import threading
import time
import zlib

import pytest

import rig
from policy_store import DIGITS, PEPPER, Store, Token, documented_acl, mac_of

TOKEN = re.compile(r"sgt_([0-9A-Za-z]{16})_([0-9A-Za-z]{32})([0-9A-Za-z]{6})")


@pytest.fixture
def redis(server):
    server.client.flushall()
    return server.client


@pytest.fixture
def cli(server, redis):
    def run(*words, url=None, pepper=PEPPER.decode(), noun="token", stdin="", **who):
        env = rig.clean_environment({"SPRITEGATE_REDIS_URL": url or server.url, "SPRITEGATE_PEPPER": pepper, "SUDO_USER": "", "USER": "olga", **who})
        return subprocess.run([rig.BINARY, noun, *words], env=env, input=stdin, capture_output=True, text=True,
                              timeout=120, check=False)
    return run


def made(result):
    assert (result.returncode, result.stderr) == (0, ""), result
    return json.loads(result.stdout)


def test_create_makes_a_token_that_the_script_accepts(cli, redis):
    token = made(cli("create", "--actor", "ann", "--json"))
    kid, secret, crc = TOKEN.fullmatch(token["token"]).groups()
    assert token == {"token": token["token"], "kid": kid}
    value = 0
    for digit in crc:
        value = value * 62 + DIGITS.index(digit)
    assert value == zlib.crc32(token["token"][:-6].encode())
    store = Store(redis)
    known = Token.existing(store, kid)
    assert known.mac == mac_of(secret)
    answer = store.admit(known, want=10**9)
    assert answer.code == "granted"
    assert (answer.rate_n, answer.rate_per_ms, answer.burst, answer.conc, answer.granted_ms) == (60, 60_000, 10, 3, 300_000)
    assert (answer.granted_out, answer.max_in, answer.bud_ms, answer.bud_out, answer.arate_n, answer.aconc) == (1 << 20, 0, 0, 0, 0, 0)
    assert store.admit(known, scope="other").code == "scope"
    assert secret not in json.dumps([redis.hgetall(f"sg:{{g}}:k:{kid}"), redis.xrange("sg:{g}:audit")])
    assert redis.smembers("sg:{g}:ix:actor:ann") == {kid}


def test_who_creates_is_named_as_in_the_audit(cli, redis):
    for who, name in (({}, "olga"), ({"USER": "root", "SUDO_USER": "ann"}, "ann"), ({"USER": ""}, None), ({"USER": "two words"}, None)):
        kid = made(cli("create", "--actor", "ann", "--json", **who))["kid"]
        assert redis.hget(f"sg:{{g}}:k:{kid}", "created_by") == name, who


def test_create_writes_what_was_asked(cli, redis):
    kid = made(cli("create", "--actor", "ann", "--name", 'my "tok"', "--rate", "60/1m", "--burst", "5", "--actor-rate", "7/1h", "--conc", "4",
                   "--actor-conc", "6", "--budget", "600s/day", "--max-run", "60s", "--max-out", "1MiB", "--max-in", "64KiB",
                   "--max-procs", "64", "--max-file", "8MiB", "--max-mem", "1GiB",
                   "--cmd", "ls,cat", "--env", "LANG,LC_*", "--ip", "10.0.0.0/8,2001:db8::/32", "--budget-out", "10MiB/day",
                   "--shadow", "rate", "--expires", "90d", "--json"))["kid"]
    record = redis.hgetall(f"sg:{{g}}:k:{kid}")
    created, exp = int(record.pop("created")), int(record.pop("exp"))
    assert abs(created / 1000 - time.time()) < 60 and exp - created == 90 * 86_400_000
    assert len(record.pop("mac")) == 64 and len(record.pop("pep")) == 8
    assert record == {
        "created_by": "olga", "status": "active", "actor": "ann", "name": 'my "tok"', "scopes": "exec:run", "rate_n": "60", "rate_per_ms": "60000", "burst": "5",
        "arate_n": "7", "arate_per_ms": "3600000", "aburst": "5", "conc": "4", "aconc": "6", "bud_ms": "600000", "max_ms": "60000",
        "max_out": "1048576", "max_in": "65536", "max_procs": "64", "max_file": "8388608", "max_mem": "1073741824", "cmds": "ls cat", "ver": "1", "env_allow": "LANG LC_*", "bud_out": "10485760", "shadow": "rate",
        "ip_allow": "00000000000000000000ffff0a000000/104 20010db8000000000000000000000000/32"}
    month = 30 * 86_400_000
    assert 90 * 86_400_000 + month - 60_000 < redis.pttl(f"sg:{{g}}:k:{kid}") <= 90 * 86_400_000 + month


def test_for_people_the_token_alone_is_on_standard_output(cli):
    result = cli("create", "--actor", "ann")
    assert TOKEN.fullmatch(result.stdout.removesuffix("\n"))
    assert "only time" in result.stderr and "60/1m burst 10" in result.stderr


def test_two_tokens_differ_in_everything(cli, redis):
    one, two = (made(cli("create", "--actor", "ann", "--json")) for _ in range(2))
    assert one["kid"] != two["kid"] and one["token"][21:] != two["token"][21:]
    assert redis.smembers("sg:{g}:ix:actor:ann") == {one["kid"], two["kid"]}


@pytest.mark.parametrize("words", [
    ["create"], ["create", "--actor", "a", "--rate", "often"], ["create", "--actor", "a", "--unknown"], ["create", "--actor"],
    ["show"], ["show", "short"], ["revoke", "x" * 17], ["list", "extra"], ["frobnicate"], ["revoke"], ["suspend", "all"],
    ["revoke", "x" * 16, "--actor", "ann"], ["set"], ["set", "x" * 16], ["set", "x" * 16, "--actor", "bob"], ["set", "x" * 16, "--rate", "none"],
    ["rotate", "x" * 16, "--grace", "31d"], ["rotate", "x" * 16, "--grace"], ["show", "x" * 16, "extra"],
    ["create", "--actor", "a", "--ip", "10.0.0.1/8"], ["create", "--actor", "a", "--budget", "10s/day", "--max-run", "20s"],
])
def test_wrong_arguments_are_named_on_one_line_and_nothing_happens(cli, redis, words):
    result = cli(*words)
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.startswith("spritegate token") and result.stderr.count("\n") == 1
    for flag in [word for word in words[1:] if word.startswith("--") and (word == words[-1] or word == "--rate")]:
        assert flag in result.stderr
    assert redis.dbsize() == 0


def test_help(cli):
    assert "create" in cli("--help").stdout
    text = cli("create", "--help").stdout
    for flag in "actor name rate burst actor-rate actor-burst conc actor-conc budget budget-out max-run max-out max-in max-procs max-file max-mem cmd env ip scope shadow policy not-before expires json".split():
        assert f"--{flag} " in text


def test_redis_away_is_said_with_its_reason(cli):
    for words in (["create", "--actor", "a"], ["list"], ["show", "x" * 16], ["revoke", "x" * 16], ["set", "x" * 16, "--conc", "1"],
                  ["rotate", "x" * 16]):
        result = cli(*words, url=f"redis://127.0.0.1:{rig.free_port()}")
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr == f"spritegate token {words[0]}: Redis: Connection refused\n"


def test_full_redis_makes_no_half_token(cli, redis):
    redis.config_set("maxmemory", 1)
    try:
        result = cli("create", "--actor", "a", "--json")
    finally:
        redis.config_set("maxmemory", "256mb")
    assert (result.returncode, result.stdout) == (1, "") and "OOM" in result.stderr
    assert redis.dbsize() == 0


def test_list(cli):
    assert made(cli("list", "--json")) == []
    kids = {made(cli("create", "--actor", actor, "--json"))["kid"]: actor for actor in ("ann", "bob", "bob")}
    listed = made(cli("list", "--json"))
    assert {token["kid"]: token["actor"] for token in listed} == kids
    assert all(token["status"] == "active" and token["rate"] == 60 and "budget_ms_per_day" not in token for token in listed)
    assert not any("mac" in token or "token" in token for token in listed)
    heading, *lines = cli("list").stdout.splitlines()
    assert heading.split()[:3] == ["KID", "STATUS", "ACTOR"]
    assert {line.split()[0] for line in lines} == set(kids)
    assert all(line.index(kids[line.split()[0]]) == heading.index("ACTOR") for line in lines)
    assert {token["kid"] for token in made(cli("list", "--actor", "bob", "--json"))} == {kid for kid, actor in kids.items() if actor == "bob"}


def test_list_with_usage(cli, redis):
    store, busy, idle = Store(redis), Token.existing(Store(redis), create(cli)), create(cli)
    answer = store.admit(busy, "a" * 24, want=2000)
    store.admit(busy, want=5000)
    store.settle(busy, "a" * 24, answer, used=1500, out=9)
    listed = {token["kid"]: token for token in made(cli("list", "--usage", "--json"))}
    assert listed[busy.kid]["usage"] == {"running": 1, "used_ms": 1500, "held_ms": 5000, "output_bytes": 9, "commands": 2}
    assert listed[idle]["usage"]["commands"] == 0 and "usage" not in made(cli("list", "--json"))[0]
    heading, *lines = cli("list", "--usage", "--actor", "ann").stdout.splitlines()
    assert heading.split()[:6] == ["KID", "STATUS", "ACTOR", "POLICY", "RUNNING", "COMMANDS"] and len(lines) == 2
    line, = (line.split() for line in lines if line.startswith(busy.kid))
    assert line[1:] == ["active", "ann", "-", "1", "2", "1500ms", "5s", "9"]


def test_what_nobody_settled_counts_as_used(cli, redis):
    """As for the gateway, before the next command of the token has taken the lease back."""
    store, token = Store(redis), Token.existing(Store(redis), create(cli))
    store.admit(token, "a" * 24, want=5000)
    store.admit(token, "b" * 24, want=2000)
    member, = (each for each in redis.zrange(f"sg:{{g}}:c:{token.kid}", 0, -1) if each.startswith("a"))
    redis.zadd(f"sg:{{g}}:c:{token.kid}", {member: int(time.time() * 1000) - 1000}, xx=True)
    peeked = store.peek(token)
    assert peeked.out_used
    expected = {"running": 1, "used_ms": 5000, "held_ms": 2000, "output_bytes": peeked.out_used, "commands": 2}
    assert made(cli("show", token.kid, "--json"))["usage"] == expected
    assert made(cli("list", "--usage", "--json"))[0]["usage"] == expected
    assert (peeked.used, peeked.held) == (5000, 2000)


def test_many_tokens(cli, redis):
    pipeline = redis.pipeline(transaction=False)
    for i in range(3000):
        pipeline.hset(f"sg:{{g}}:k:{i:016d}", mapping={"actor": "ann", "status": "active", "rate_n": 1, "rate_per_ms": 1000})
        pipeline.set(f"sg:{{g}}:t:{i:016d}", "1:1")
    pipeline.execute()
    listed = [line.split()[0] for line in cli("list").stdout.splitlines()[1:]]
    assert listed == [f"{i:016d}" for i in range(3000)]


def test_show(cli, redis):
    kid = made(cli("create", "--actor", "ann", "--budget", "600s/day", "--cmd", "ls", "--json"))["kid"]
    store = Store(redis)
    token = Token.existing(store, kid)
    first = store.admit(token, "a" * 24, want=5000, program="ls")
    store.admit(token, "b" * 24, want=7000, program="ls")
    store.settle(token, "a" * 24, first, used=1234, out=99)
    shown = made(cli("show", kid, "--json"))
    assert shown["usage"] == {"running": 1, "used_ms": 1234, "held_ms": 7000, "output_bytes": 99, "commands": 2}
    assert (shown["budget_ms_per_day"], shown["commands"], shown["actor"]) == (600_000, "ls", "ann")
    text = cli("show", kid).stdout
    assert "1 running" in text and "1234ms used" in text and re.search(r"^cmd +ls$", text, re.M), text
    missing = cli("show", "0" * 16)
    assert (missing.returncode, missing.stdout, missing.stderr) == (1, "", "spritegate token show: there is no such token\n")


def test_revoke_acts_on_the_next_call_and_is_recorded(cli, redis):
    kid = made(cli("create", "--actor", "ann", "--json"))["kid"]
    store = Store(redis)
    token = Token.existing(store, kid)
    assert store.admit(token).code == "granted"
    channel = redis.pubsub()
    channel.subscribe("sg:{g}:ev")
    channel.get_message(timeout=60)
    assert made(cli("revoke", kid, "--json")) == {"kid": kid, "status": "revoked"}
    assert store.admit(token).reply == ["revoked"]
    assert channel.get_message(timeout=60)["data"] == f"revoke {kid}"
    channel.close()
    assert redis.hget(f"sg:{{g}}:k:{kid}", "ver") == "2"
    by = f"{os.environ.get('SUDO_USER') or 'olga'}@{socket.gethostname()}"
    assert [(entry["action"], entry["by"]) for _, entry in redis.xrange("sg:{g}:audit")] == [("create", by), ("revoke", by)]
    missing = cli("revoke", "0" * 16)
    assert missing.returncode == 1 and not redis.exists("sg:{g}:k:" + "0" * 16)


def create(cli, *words):
    return made(cli("create", "--actor", "ann", "--json", *words))["kid"]


def test_set_changes_what_is_said_and_nothing_else(cli, redis):
    kid = create(cli, "--budget", "600s/day", "--cmd", "ls", "--expires", "1d")
    key = f"sg:{{g}}:k:{kid}"
    before = redis.hgetall(key)
    assert made(cli("set", kid, "--conc", "9", "--budget", "none", "--expires", "none", "--ip", "192.0.2.0/24", "--json")) == {"kid": kid, "version": 2}
    after = redis.hgetall(key)
    before.pop("exp")
    assert after == {**before, "conc": "9", "bud_ms": "0", "ip_allow": "00000000000000000000ffffc0000200/120", "ver": "2"}
    assert redis.ttl(key) == -1, "a token without end would go with its old one"
    store = Store(redis)
    token = Token.existing(store, kid)
    assert store.admit(token, program="ls").code == "network"
    assert cli("set", kid, "--ip", "none", "--cmd", "none").returncode == 0
    assert store.admit(token).code == "granted"
    refused = cli("set", kid, "--budget", "10s/day")
    assert refused.returncode == 2 and "--max-run" in refused.stderr and redis.hget(key, "ver") == "3"
    assert cli("set", kid, "--expires", "2d").returncode == 0
    assert 30 * 86400 < redis.ttl(key) <= 32 * 86400
    assert cli("set", "0" * 16, "--conc", "1").returncode == 1 and redis.keys("*0000*") == []


def test_two_changes_at_once_cannot_mix(cli, redis, server):
    """Whatever else happens to the record between reading and writing: the change is refused as a whole."""
    kid = create(cli)
    relay = Meddler(server.port, lambda: redis.hset(f"sg:{{g}}:k:{kid}", "conc", 7))
    result = cli("set", kid, "--rate", "1/1m", url=f"redis://127.0.0.1:{relay.port}")
    relay.close()
    assert result.returncode == 1 and "at the same time" in result.stderr, result
    record = redis.hgetall(f"sg:{{g}}:k:{kid}")
    assert (record["conc"], record["rate_n"], record["ver"]) == ("7", "60", "1")


class Meddler:
    """Between the command line and Redis; does something just before EXEC passes."""

    def __init__(self, port, meddle):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.serve, args=(port, meddle))
        self.thread.start()

    def serve(self, port, meddle):
        client, _ = self.listener.accept()
        with client, socket.create_connection(("127.0.0.1", port)) as server:
            while True:
                ready, _, _ = select.select([client, server], [], [], 20)
                for one in ready:
                    data = one.recv(65536)
                    if b"EXEC" in data and one is client:
                        meddle()
                    (server if one is client else client).sendall(data)
                    if not data:
                        return
                if not ready:
                    return

    def close(self):
        self.thread.join(20)
        self.listener.close()


def test_rotate(cli, redis):
    first = made(cli("create", "--actor", "ann", "--json"))
    kid, store = first["kid"], Store(redis)
    token = Token.existing(store, kid)
    old = token.mac
    second = made(cli("rotate", kid, "--grace", "1h", "--json"))
    assert second["kid"] == kid and second["token"] != first["token"] and second["token"][:21] == first["token"][:21]
    new = redis.hget(token.key, "mac")
    assert new == mac_of(TOKEN.fullmatch(second["token"])[2])
    assert store.admit(token, mac=new).code == store.admit(token, mac=old).code == "granted"
    assert abs(int(redis.hget(token.key, "pmac_until")) / 1000 - time.time() - 3600) < 60
    made(cli("rotate", kid, "--grace", "0", "--json"))
    for secret in (old, new):
        assert store.admit(token, mac=secret).reply == ["bad-mac"]
    assert not redis.hexists(token.key, "pmac")
    assert second["token"][21:-6] not in json.dumps([redis.hgetall(token.key), redis.xrange("sg:{g}:audit")])
    made(cli("revoke", kid, "--json"))
    assert cli("rotate", kid).returncode == 1


def test_suspend_resume_and_revoke(cli, redis):
    kid, store = create(cli), Store(redis)
    token = Token.existing(store, kid)
    for verb, status, answer in (("suspend", "suspended", ["suspended"]), ("resume", "active", None), ("suspend", "suspended", ["suspended"]),
                                 ("revoke", "revoked", ["revoked"])):
        assert made(cli(verb, kid, "--json")) == {"kid": kid, "status": status}
        assert store.admit(token).reply == answer if answer else store.admit(token).code == "granted"
    for verb in ("resume", "suspend"):
        result = cli(verb, kid)
        assert (result.returncode, result.stdout) == (1, "") and "revoked" in result.stderr
    assert store.admit(token).reply == ["revoked"]
    both = [create(cli), create(cli)]
    assert cli("suspend", *both).returncode == 0
    assert [redis.hget(f"sg:{{g}}:k:{one}", "status") for one in both] == ["suspended"] * 2


def test_all_tokens_of_an_actor_need_a_yes(cli, redis):
    mine, other = [create(cli) for _ in range(3)], made(cli("create", "--actor", "bob", "--json"))["kid"]
    result = cli("revoke", "--actor", "ann")
    assert (result.returncode, result.stdout) == (2, "") and "--yes" in result.stderr
    assert {redis.hget(f"sg:{{g}}:k:{kid}", "status") for kid in (*mine, other)} == {"active"}
    lines = cli("revoke", "--actor", "ann", "--yes", "--json").stdout.splitlines()
    assert sorted(json.loads(line)["kid"] for line in lines) == sorted(mine)
    assert [redis.hget(f"sg:{{g}}:k:{kid}", "status") for kid in (*mine, other)] == ["revoked"] * 3 + ["active"]
    assert cli("revoke", "--actor", "ann", "--yes").returncode == 1, "there is nothing left to revoke"


@pytest.mark.parametrize("typed, status", [("yes\n", "suspended"), ("no\n", "active"), ("y\n", "active"), ("\n", "active")])
def test_at_a_terminal_it_asks(cli, redis, server, typed, status):
    kid = create(cli)
    ours, theirs = pty.openpty()
    env = rig.clean_environment({"SPRITEGATE_REDIS_URL": server.url, "SPRITEGATE_PEPPER": PEPPER.decode()})
    os.write(ours, typed.encode())
    done = subprocess.run([rig.BINARY, "token", "suspend", "--actor", "ann"], env=env, stdin=theirs, capture_output=True, text=True,
                          timeout=120, check=False)
    os.close(ours)
    os.close(theirs)
    assert "suspend 1 tokens of ann?" in done.stderr and done.returncode == (0 if status == "suspended" else 1)
    assert redis.hget(f"sg:{{g}}:k:{kid}", "status") == status


def test_a_record_that_cannot_be_read_is_shown_as_broken_and_can_be_stopped(cli, redis):
    kid, fine = create(cli), create(cli)
    redis.hset(f"sg:{{g}}:k:{kid}", "paths", "none")
    listed = {token["kid"]: token for token in made(cli("list", "--json"))}
    assert "paths" in listed[kid]["broken"] and "broken" not in listed[fine]
    assert "broken" in cli("list").stdout and "paths" in cli("show", kid).stdout
    assert cli("set", kid, "--conc", "1").returncode == 1 and cli("resume", kid).returncode == 1
    assert made(cli("revoke", kid, "--json"))["status"] == "revoked"


def test_leases(cli, redis):
    kid, store = create(cli), Store(redis)
    assert made(cli("list", "--json", noun="lease")) == []
    store.admit(Token.existing(store, kid), "a" * 24, want=5000)
    lease, = made(cli("list", "--json", noun="lease"))
    assert (lease["lease"], lease["kid"], lease["granted_ms"]) == ("a" * 24, kid, 5000)
    heading, line = cli("list", noun="lease").stdout.splitlines()
    assert heading.split() == ["LEASE", "KID", "SINCE", "GRANTED", "ENDS"] and line.split()[:2] == ["a" * 24, kid]
    for words in ([], ["show"], ["list", "x"]):
        assert cli(*words, noun="lease").returncode == 2


def test_many_leases_of_an_actor_are_all_listed_and_all_marked(cli, redis):
    """Of a token and of a caller without one. They are past their ends, which is as good as gone."""
    kids = {create(cli): 1500, "@00000000000000A": 300}
    ended = int(time.time() * 1000) - 1000
    leases = {}
    for n, (kid, count) in enumerate(kids.items()):
        members = {f"{n:04x}{i:020x}:1000:20261118:{ended}000:0:0:0:0:out=0": ended for i in range(count)}
        leases[kid] = {member.split(":")[0] for member in members}
        redis.zadd(f"sg:{{g}}:c:{kid}", members)
        redis.zadd("sg:{g}:ac:ann", members)
    redis.zadd(f"sg:{{g}}:c:{create(cli)}", {f"{'f' * 24}:1000:20261118:{ended}000:0:0:0:0:out=0": ended})
    assert len(made(cli("list", "--json", noun="lease"))) == 1801
    killed = cli("kill", "--actor", "ann", "--yes", "--json", noun="lease")
    assert (killed.returncode, killed.stderr) == (0, "")
    told = [json.loads(line) for line in killed.stdout.splitlines()]
    assert all(line["gone"] for line in told) and len(told) == 1800
    assert {(line["kid"], line["lease"]) for line in told} == {(kid, lease) for kid, some in leases.items() for lease in some}
    assert {key.removeprefix("sg:{g}:kill:") for key in redis.scan_iter("sg:{g}:kill:*", count=1000)} == set.union(*leases.values())


# --- named policies --------------------------------------------------------------------------------------------------

def policy(cli, *words):
    return cli(*words, noun="policy")


def test_a_token_follows_its_policy(cli, redis):
    assert made(policy(cli, "set", "agents", "--cmd", "ls", "--conc", "2", "--json")) == {"policy": "agents", "version": 1}
    kid, store = create(cli, "--policy", "agents", "--max-run", "5s"), Store(redis)
    token = Token.existing(store, kid)
    assert not {"conc", "rate_n", "cmds", "scopes"} & set(redis.hgetall(token.key)), "what is inherited is not copied"
    answer = store.admit(token, want=99_000)
    assert (answer.code, answer.pol, answer.ver) == ("command", "agents", 1)
    assert made(policy(cli, "set", "agents", "--cmd", "none", "--conc", "7", "--json"))["version"] == 2
    answer = store.admit(token, want=99_000)
    assert (answer.code, answer.ver, answer.conc, answer.granted_ms) == ("granted", 2, 7, 5000)
    shown = made(cli("show", kid, "--json"))
    assert (shown["policy"], shown["policy_version"], shown["concurrency"], shown["max_run_ms"], shown["rate"]) == ("agents", 2, 7, 5000, 60)
    assert cli("set", kid, "--max-run", "inherit", "--conc", "1").returncode == 0
    answer = store.admit(token, want=10**9)
    assert (answer.violated, answer.conc) == ("concurrency", 1)
    result = cli("set", kid, "--policy", "none")
    assert result.returncode == 2, "without the policy it has no rate"
    assert store.admit(token).pol == "agents"


def test_show_list_and_diff(cli):
    policy(cli, "set", "agents", "--cmd", "ls", "--ip", "192.0.2.0/24")
    policy(cli, "set", "agents", "--cmd", "ls,cat", "--ip", "none", "--conc", "5")
    diff = policy(cli, "diff", "agents").stdout.splitlines()
    assert diff[0] == "agents, version 1 to 2"
    assert [line.split() for line in diff[1:]] == [["-", "conc", "3"], ["+", "conc", "5"], ["-", "cmd", "ls"], ["+", "cmd", "ls", "cat"],
                                                   ["-", "ip", "192.0.2.0/24"]]
    assert made(policy(cli, "diff", "agents", "--json")) == {"policy": "agents", "from": 1, "to": 2, "changes": [
        {"flag": "conc", "before": "3", "after": "5"}, {"flag": "cmd", "before": "ls", "after": "ls cat"},
        {"flag": "ip", "before": "192.0.2.0/24", "after": None}]}
    assert made(policy(cli, "diff", "agents", "2", "2", "--json"))["changes"] == []
    assert policy(cli, "diff", "agents", "2", "1").stdout.splitlines()[0] == "agents, version 2 to 1"
    assert policy(cli, "diff", "agents", "2", "2").stdout.splitlines() == ["agents, version 2 to 2"]
    assert made(policy(cli, "show", "agents", "--json"))["commands"] == "ls cat"
    past = made(policy(cli, "show", "agents", "1", "--json"))
    assert (past["version"], past["commands"], past["networks"]) == (1, "ls", "192.0.2.0/24")
    assert policy(cli, "list").stdout.startswith("agents ")
    for words in (["show", "agents", "3"], ["show", "nobody"], ["diff", "agents", "9"]):
        result = policy(cli, *words)
        assert (result.returncode, result.stdout) == (1, "") and "no such policy" in result.stderr
    for words in ([], ["show"], ["show", "a/b"], ["set", "agents"], ["set", "agents", "--expires", "1d"], ["diff", "agents", "x"],
                  ["set", "agents", "--budget", "1s/day", "--max-run", "2s"], ["check", "a", "b"], ["frobnicate"]):
        result = policy(cli, *words)
        assert (result.returncode, result.stdout) == (2, ""), words
    assert made(policy(cli, "show", "agents", "--json"))["version"] == 2


def test_check_finds_tokens_that_cannot_run(cli, redis):
    policy(cli, "set", "agents", "--conc", "3")
    kid = create(cli, "--policy", "agents", "--max-run", "200s")
    create(cli)
    result = policy(cli, "check")
    assert (result.returncode, result.stdout) == (0, "1 tokens follow a policy, 0 of them cannot run commands\n")
    assert made(policy(cli, "check", "--json")) == made(policy(cli, "check", "agents", "--json")) == {"cannot_run": [], "followers": 1}
    policy(cli, "set", "agents", "--budget", "100s/day", "--max-run", "100s")
    result = policy(cli, "check", "agents")
    assert result.returncode == 1 and kid in result.stdout and "--max-run" in result.stdout
    other = create(cli, "--policy", "agents")
    cli("set", other, "--max-run", "99s")
    redis.hset(f"sg:{{g}}:k:{other}", mapping={"max_ms": 10**9, "actor": 'a "b"'})
    result = policy(cli, "check", "--json")
    told = json.loads(result.stdout)
    assert (result.returncode, result.stderr, told["followers"]) == (1, "", 2)
    assert {(line["kid"], line["actor"], line["policy"]) for line in told["cannot_run"]} == {(kid, "ann", "agents"), (other, 'a "b"', "agents")}
    assert all("--max-run" in line["problem"] for line in told["cannot_run"])
    redis.delete("sg:{g}:p:agents")
    assert policy(cli, "check").returncode == 1 and policy(cli, "check", "agents").returncode == 1
    assert "broken" in cli("list").stdout
    assert Store(redis).admit(Token.existing(Store(redis), kid)).reply == ["broken-record"]


def test_the_documented_acl_is_enough_for_operators(cli, redis, server):
    redis.execute_command(*documented_acl("operator"))
    url = f"redis://operator:pw@127.0.0.1:{server.port}"
    kid = made(cli("create", "--actor", "ann", "--expires", "1d", "--json", url=url))["kid"]
    assert made(cli("show", kid, "--json", url=url))["usage"]["running"] == 0
    made(policy(lambda *words, **more: cli(*words, url=url, **more), "set", "agents", "--conc", "2", "--json"))
    made(cli("set", kid, "--policy", "agents", "--conc", "inherit", "--expires", "none", "--json", url=url))
    made(cli("rotate", kid, "--json", url=url))
    assert made(cli("list", "--json", url=url, noun="lease")) == []
    redis.hset(f"sg:{{g}}:s:{kid}", "work", f"sg-x-1::{int(time.time() * 1000)}:1:0")
    redis.zadd("sg:{g}:ss", {"sg-x-1": int(time.time() * 1000) + 900_000})
    assert [session["name"] for session in made(cli("list", "--json", url=url, noun="session"))] == ["work"]
    assert made(cli("close", f"{kid}/work", "--json", url=url, noun="session"))["closed"] is True
    made(cli("revoke", kid, "--json", url=url))
    assert [token["status"] for token in made(cli("list", "--json", url=url))] == ["revoked"]


def keep_session(redis, kid, name, sprite, created=1):
    now = int(time.time() * 1000)
    redis.hset(f"sg:{{g}}:s:{kid}", name, f"{sprite}::{now}:{created}:0")
    redis.zadd("sg:{g}:ss", {sprite: now + 900_000})


def test_sessions_of_a_busy_token_are_closed(cli, redis, server):
    """Its other sessions change between the look and the change."""
    kid, left = create(cli), [3]
    keep_session(redis, kid, "one", "sg-x-1")
    keep_session(redis, kid, "two", "sg-x-2")

    def meddle():
        if left[0]:
            left[0] -= 1
            redis.hset(f"sg:{{g}}:s:{kid}", "other", f"::1:{left[0]}:0")
    relay = Meddler(server.port, meddle)
    result = cli("close", "--kid", kid, "--yes", "--json", noun="session", url=f"redis://127.0.0.1:{relay.port}")
    relay.close()
    assert (result.returncode, result.stderr) == (0, ""), result
    assert [json.loads(line)["closed"] for line in result.stdout.splitlines()] == [True, True]
    assert set(redis.hgetall(f"sg:{{g}}:s:{kid}")) == {"other"} and not left[0]


def test_a_session_that_cannot_be_closed_keeps_none_open(cli, redis, server):
    kids = sorted(create(cli) for _ in range(3))
    for number, kid in enumerate(kids):
        keep_session(redis, kid, "work", f"sg-x-{number}")

    def meddle():
        if redis.hexists(f"sg:{{g}}:s:{kids[0]}", "work"):
            redis.hincrby(f"sg:{{g}}:s:{kids[0]}", "count")
    relay = Meddler(server.port, meddle)
    result = cli("close", "--all", "--yes", noun="session", url=f"redis://127.0.0.1:{relay.port}")
    relay.close()
    assert result.returncode == 1 and f"{kids[0]}/work is not closed" in result.stderr and "at the same time" in result.stderr, result
    assert [redis.hexists(f"sg:{{g}}:s:{kid}", "work") for kid in kids] == [True, False, False]


def test_after_a_refused_change_the_next_session_is_closed(cli, redis, server):
    """Nothing of the first one's transaction is left over."""
    kids = sorted(create(cli) for _ in range(2))
    for number, kid in enumerate(kids):
        keep_session(redis, kid, "work", f"sg-x-{number}")
    redis.execute_command("ACL", "SETUSER", "half", "on", ">pw", "+@all", "%R~*",
                          f"%RW~sg:{{g}}:s:{kids[1]}", "%RW~sg:{g}:sn", "%RW~sg:{g}:ss", "%RW~sg:{g}:audit")
    result = cli("close", "--all", "--yes", noun="session", url=f"redis://half:pw@127.0.0.1:{server.port}")
    assert result.returncode == 1 and f"{kids[0]}/work is not closed" in result.stderr, result
    assert [redis.hexists(f"sg:{{g}}:s:{kid}", "work") for kid in kids] == [True, False]


@pytest.mark.parametrize("created, closed", [(1, True), (2, False)])
def test_a_session_that_gets_its_sprite_while_it_is_asked(cli, redis, server, created, closed):
    """The one that was listed is closed, with the Sprite that it has now; one that took its name is not."""
    kid, store = create(cli), Store(redis)
    store.admit(Token.existing(store, kid), "a" * 24, want=5000)
    key = f"sg:{{g}}:s:{kid}"
    redis.hset(key, "work", f":{'a' * 24}:{int(time.time() * 1000)}:1:0")
    ours, theirs = pty.openpty()
    env = rig.clean_environment({"SPRITEGATE_REDIS_URL": server.url, "SPRITEGATE_PEPPER": PEPPER.decode()})
    with subprocess.Popen([rig.BINARY, "session", "close", "--kid", kid], env=env, stdin=theirs, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as asking:
        asked = ""
        while not asked.endswith("Type yes: "):
            letter = asking.stderr.read(1)
            assert letter, asked
            asked += letter
        keep_session(redis, kid, "work", "sg-x-1", created)
        redis.hset("sg:{g}:sn", "sg-x-1", f"pool {kid} work")
        os.write(ours, b"yes\n")
        said, _ = asking.communicate(timeout=120)
    os.close(ours)
    os.close(theirs)
    assert asking.returncode == 0 and ("is closed" in said) == closed and ("had ended" in said) != closed, said
    assert redis.hexists(key, "work") != closed
    assert redis.hget("sg:{g}:sn", "sg-x-1") == ("pool" if closed else f"pool {kid} work")


def test_tokens_move_to_another_redis(cli, redis, server):
    token = made(cli("create", "--actor", "ann", "--name", 'a "b" \u00fc', "--rate", "7/1m", "--cmd", "ls", "--expires", "90d", "--json"))
    other = made(cli("create", "--actor", "bob", "--json"))["kid"]
    cli("suspend", other)
    before = {kid: redis.hgetall(f"sg:{{g}}:k:{kid}") for kid in (token["kid"], other)}
    exported = cli("export")
    assert (exported.returncode, exported.stderr) == (0, "") and len(exported.stdout.splitlines()) == 2
    assert token["token"].split("_")[2][:32] not in exported.stdout
    assert [json.loads(line)["kid"] for line in cli("export", "--actor", "bob").stdout.splitlines()] == [other]
    redis.flushall()
    took = cli("import", "-", stdin=exported.stdout)
    assert (took.returncode, took.stderr, sorted(took.stdout.split())) == (0, "", sorted(before))
    assert {kid: redis.hgetall(f"sg:{{g}}:k:{kid}") for kid in before} == before
    assert redis.pttl(f"sg:{{g}}:k:{token['kid']}") > 0 and redis.smembers("sg:{g}:ix:actor:ann") == {token["kid"]}
    assert Store(redis).admit(Token.existing(Store(redis), token["kid"]), program="ls").code == "granted"
    again = cli("import", "-", "--json", stdin=exported.stdout)
    told = [json.loads(line) for line in again.stdout.splitlines()]
    assert again.returncode == 1 and [(line["line"], line["imported"]) for line in told] == [(1, False), (2, False)]
    assert all("already" in line["problem"] for line in told)
    redis.delete(f"sg:{{g}}:k:{other}")
    again = cli("import", "-", "--json", stdin=exported.stdout)
    assert {line.get("kid") for line in map(json.loads, again.stdout.splitlines()) if line["imported"]} == {other}
    again = cli("import", "-", stdin=exported.stdout)
    assert again.returncode == 1 and again.stderr.count("already") == 2 and again.stdout == ""


@pytest.mark.parametrize("change, what", [
    ({"kid": "short"}, "kid"), ({"kid": None}, "kid"), ({"mac": None}, "mac"), ({"mac": "00"}, "mac"), ({"actor": "a b"}, "actor"),
    ({"paths": "x"}, "not known"), ({"rate_n": "x"}, "cannot be read"), ({"rate_n": 60}, "cannot be read"), ({"pep": "00000000"}, "pepper"),
    ({"pol": "gone"}, "policy"), ({"conc": "0"}, "")])
def test_what_cannot_be_taken_in_is_told_and_the_rest_is_taken(cli, redis, change, what):
    first, second = create(cli), create(cli)
    lines = [json.loads(line) for line in cli("export").stdout.splitlines()]
    redis.flushall()
    broken, good = lines
    broken = {name: value for name, value in {**broken, **change}.items() if value is not None}
    took = cli("import", "-", stdin="not JSON\n" + json.dumps(broken) + "\n\n" + json.dumps(good) + "\n")
    assert took.returncode == 1 and "line 1:" in took.stderr and "line 2:" in took.stderr and "line 4" not in took.stderr
    assert what in took.stderr.splitlines()[1]
    assert took.stdout.split() == [good["kid"]] and {first, second} >= {good["kid"]}
    assert len(list(redis.scan_iter("sg:{g}:k:*"))) == 1


def test_import_of_what_is_not_there(cli):
    assert cli("import").returncode == 2 and cli("import", "/nonexistent").returncode == 1 and cli("export", "x").returncode == 2
