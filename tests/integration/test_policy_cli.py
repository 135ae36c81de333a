"""`spritegate token …` against a Redis of its own."""
import json
import re
import subprocess
import time
import zlib

import pytest

import rig
from policy_store import DIGITS, PEPPER, Store, Token, documented_acl, mac_of
from rig import Redis

TOKEN = re.compile(r"sgt_([0-9A-Za-z]{16})_([0-9A-Za-z]{32})([0-9A-Za-z]{6})")


@pytest.fixture(scope="module")
def server():
    part = Redis()
    yield part
    part.kill()


@pytest.fixture
def redis(server):
    server.client.flushall()
    return server.client


@pytest.fixture
def cli(server, redis):
    def run(*words, url=None, pepper=PEPPER.decode()):
        env = rig.clean_environment({"SPRITEGATE_REDIS_URL": url or server.url, "SPRITEGATE_PEPPER": pepper})
        return subprocess.run([rig.BINARY, "token", *words], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=30, check=False)
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


def test_create_writes_what_was_asked(cli, redis):
    kid = made(cli("create", "--actor", "ann", "--name", 'my "tok"', "--rate", "60/1m", "--burst", "5", "--actor-rate", "7/1h", "--conc", "4",
                   "--actor-conc", "6", "--budget", "600s/day", "--max-run", "60s", "--max-out", "1MiB", "--max-in", "64KiB",
                   "--cmd", "ls,cat", "--expires", "90d", "--json"))["kid"]
    record = redis.hgetall(f"sg:{{g}}:k:{kid}")
    created, exp = int(record.pop("created")), int(record.pop("exp"))
    assert abs(created / 1000 - time.time()) < 60 and exp - created == 90 * 86_400_000
    assert len(record.pop("mac")) == 64 and len(record.pop("pep")) == 8
    assert record == {
        "status": "active", "actor": "ann", "name": 'my "tok"', "scopes": "exec:run", "rate_n": "60", "rate_per_ms": "60000", "burst": "5",
        "arate_n": "7", "arate_per_ms": "3600000", "aburst": "5", "conc": "4", "aconc": "6", "bud_ms": "600000", "max_ms": "60000",
        "max_out": "1048576", "max_in": "65536", "cmds": "ls cat", "ver": "1"}
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
    ["show"], ["show", "short"], ["revoke", "x" * 17], ["list", "extra"], ["frobnicate"],
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
    for flag in "actor name rate burst actor-rate actor-burst conc actor-conc budget max-run max-out max-in cmd expires json".split():
        assert f"--{flag} " in text


def test_redis_away_is_said_with_its_reason(cli):
    for words in (["create", "--actor", "a"], ["list"], ["show", "x" * 16], ["revoke", "x" * 16]):
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
    lines = cli("list").stdout.splitlines()
    assert {line.split()[0] for line in lines} == set(kids)


def test_many_tokens(cli, redis):
    pipeline = redis.pipeline(transaction=False)
    for i in range(3000):
        pipeline.hset(f"sg:{{g}}:k:{i:016d}", mapping={"actor": "ann", "status": "active", "rate_n": 1, "rate_per_ms": 1000})
        pipeline.set(f"sg:{{g}}:t:{i:016d}", "1:1")
    pipeline.execute()
    listed = [line.split()[0] for line in cli("list").stdout.splitlines()]
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
    assert "1 running" in text and "1234ms used" in text and "only these programs: ls" in text
    missing = cli("show", "0" * 16)
    assert (missing.returncode, missing.stdout, missing.stderr) == (1, "", "spritegate token show: there is no such token\n")


def test_revoke_acts_on_the_next_call_and_is_recorded(cli, redis):
    kid = made(cli("create", "--actor", "ann", "--json"))["kid"]
    store = Store(redis)
    token = Token.existing(store, kid)
    assert store.admit(token).code == "granted"
    channel = redis.pubsub()
    channel.subscribe("sg:{g}:ev")
    channel.get_message(timeout=5)
    assert made(cli("revoke", kid, "--json")) == {"kid": kid, "status": "revoked"}
    assert store.admit(token).reply == ["revoked"]
    assert channel.get_message(timeout=5)["data"] == f"revoke {kid}"
    channel.close()
    assert redis.hget(f"sg:{{g}}:k:{kid}", "ver") == "2"
    assert [entry["action"] for _, entry in redis.xrange("sg:{g}:audit")] == ["create", "revoke"]
    missing = cli("revoke", "0" * 16)
    assert missing.returncode == 1 and not redis.exists("sg:{g}:k:" + "0" * 16)


def test_the_documented_acl_is_enough_for_operators(cli, redis, server):
    redis.execute_command(*documented_acl("operator"))
    url = f"redis://operator:pw@127.0.0.1:{server.port}"
    kid = made(cli("create", "--actor", "ann", "--expires", "1d", "--json", url=url))["kid"]
    assert made(cli("show", kid, "--json", url=url))["usage"]["running"] == 0
    made(cli("revoke", kid, "--json", url=url))
    assert [token["status"] for token in made(cli("list", "--json", url=url))] == ["revoked"]
