"""The leases of a shared pool in C, through a small program of our own (tests/drivers): order, repetition, and Redis away."""
import json
import signal
import subprocess
import time

import pytest

import rig
from line_driver import LineDriver
from pool_store import PoolStore, name_of
from rig import PATIENCE, Redis, until

OK, REFUSED, LOST, FENCED, FLUSHED = range(5)
RECOVERING, FULL, STOCK, CROWDED, BUDGET, CLOSED = range(6)


class Driver(LineDriver):
    def __init__(self, url, instance, timeout_ms=1000):
        super().__init__("leases_driver", url, timeout_ms, "p", instance)

    def answer(self, op):
        return self.next(lambda line: line.get("op") == op)

    def ask(self, op, *words):
        self.send(op, *words)
        return self.answer(op)

    def event(self, word):
        return self.next(lambda line: line.get("event") == word)

    def close(self):
        self.send("quit")
        self.next("freed")
        assert self.process.wait(PATIENCE) == 0
        self.log.close()


class World:
    def __init__(self):
        self.redis, self.drivers = Redis(), []

    def driver(self, instance, **more):
        driver = Driver(self.redis.url, instance, **more)
        self.drivers.append(driver)
        return driver

    @property
    def store(self):
        return PoolStore(self.redis.client)

    def skip_recovery(self, driver):
        """As if the 20 s were over and a list were there."""
        self.redis.client.delete(self.store.prefix + "rec")
        assert driver.ask("sweep")["code"] == OK

    def ready(self, *instances):
        drivers = [self.driver(instance) for instance in instances]
        assert drivers[0].ask("join")["list"] == 1
        self.skip_recovery(drivers[0])
        assert all(driver.ask("join")["code"] == OK for driver in drivers[1:])
        return drivers

    def members(self):
        """name → (state, instance)"""
        found = self.redis.client.hgetall(self.store.prefix + "m")
        return {name: (text.split(":")[0], text.split(":")[1].split("/")[0]) for name, text in found.items()}

    def end_session_of(self, instance):
        key = self.store.prefix + "ses"
        for session in self.redis.client.zrange(key, 0, -1):
            if session.startswith(instance + "/"):
                self.redis.client.zadd(key, {session: 1})

    def close(self):
        for driver in self.drivers:
            if driver.process.poll() is None:
                driver.process.kill()
        self.redis.kill()


@pytest.fixture
def world():
    world = World()
    yield world
    world.close()


def test_a_life(world):
    a, b = world.ready("a", "b")
    name = name_of("a", 1)
    assert a.ask("reserve", name, 5, 0, 0, 0)["code"] == OK
    for state in ("creating", "preparing", "warm"):
        a.send("note", name, state)
    until(lambda: world.members() == {name: ("warm", "a")}, "it is parked")
    taken = b.ask("take", "-", "preparing", "0a1b")
    assert (taken["code"], taken["name"], taken["state"]) == (OK, name, "preparing")
    a.send("note", name, "warm")
    assert a.event("revoked")["name"] == name
    b.send("note", name, "leased")
    until(lambda: world.members() == {name: ("leased", "b")}, "it is leased")
    record = world.redis.client.hget(world.store.prefix + "m", name).split(":")
    assert record[6:9] == ["0000000000abcdef", "0", "exec-1"] and int(record[9]) > int(record[3])
    b.send("forget", name)
    until(lambda: not world.members(), "it is gone")
    a.close()
    b.close()


def test_what_another_took_is_told_with_the_beat(world):
    a, b = world.ready("a", "b")
    name = name_of("a", 1)
    a.ask("reserve", name, 5, 0, 0, 0)
    a.send("note", name, "warm")
    a.ask("beat", 0, 0, 0, 0)
    assert b.ask("take", name, "destroying", "0a1b")["code"] == OK
    a.send("beat", 0, 0, 0, 0)
    assert a.event("revoked")["name"] == name
    assert a.answer("beat")["own"] == 0
    a.seen.clear()
    for _ in range(2):
        a.ask("beat", 0, 0, 0, 0)
    assert not any("event" in line for line in a.seen), "once it knows it is told no more"


def test_refusals(world):
    a, = world.ready("a")
    assert a.ask("reserve", name_of("a", 1), 1, 0, 0, 0)["code"] == OK
    assert a.ask("reserve", name_of("a", 1), 1, 0, 0, 0)["code"] == OK
    for words, refusal in (((1, 0, 0, 0), FULL), ((9, 1, 0, 0), STOCK), ((9, 0, 1, 60_000), BUDGET), ((9, 0, 0, 0, 1), CROWDED)):
        answer = a.ask("reserve", name_of("a", 2), *words)
        assert (answer["code"], answer["refusal"]) == (REFUSED, refusal)
    a.ask("beat", 0, 0, 0, 3000)
    answer = a.ask("reserve", name_of("a", 2), 9, 0, 0, 0)
    assert (answer["code"], answer["refusal"]) == (REFUSED, CLOSED) and 2000 < answer["retry_after_ms"] <= 3000
    assert a.ask("take", "-", "preparing", "0a1b")["code"] == REFUSED
    assert "error" in a.ask("reserve", "Not:a:name", 9, 0, 0, 0)


def test_before_the_first_list_nothing_is_reserved(world):
    a = world.driver("a")
    assert a.ask("join")["fresh"] == 1
    answer = a.ask("reserve", name_of("a", 1), 9, 0, 0, 0)
    assert (answer["code"], answer["refusal"]) == (REFUSED, RECOVERING) and 15_000 < answer["retry_after_ms"] <= 20_000


def test_long_lists_go_in_pieces(world):
    a, = world.ready("a")
    names = [name_of("a", number) for number in range(180)]
    assert a.ask("restore", "hot", *names)["code"] == OK
    assert world.members() == {name: ("hot", "a") for name in names}
    strays = [name_of("x", number) for number in range(170)]
    world.redis.client.delete(world.store.prefix + "sweep")
    assert a.ask("beat", 0, 0, 0, 0)["list"] == 1
    assert a.ask("sweep", *names, *strays)["code"] == OK
    assert set(world.redis.client.zrange(world.store.prefix + "s1", 0, -1)) == set(strays)
    a.send("adopt", 25, 1)
    found = {a.next("found")["found"] for _ in names}
    assert a.answer("adopt")["code"] == OK and found == set(names)


def test_what_a_dead_one_leaves_is_adopted(world):
    a, b = world.ready("a", "b")
    for number, state in enumerate(("warm", "hot", "leased")):
        a.ask("reserve", name_of("a", number), 9, 0, 0, 0)
        a.send("note", name_of("a", number), state)
    a.ask("beat", 0, 0, 0, 0)
    a.process.kill()
    assert b.ask("adopt", 25, 0)["code"] == OK and not any("found" in line for line in b.seen)
    world.end_session_of("a")
    assert b.ask("beat", 0, 0, 0, 0)["ended"] == 3
    b.send("adopt", 25, 0)
    found = dict((line["found"], line["state"]) for line in (b.next("found") for _ in range(3)))
    assert found == {name_of("a", 0): "warm", name_of("a", 1): "destroying", name_of("a", 2): "destroying"}


def test_leaving_sends_the_notes_first(world):
    a, b = world.ready("a", "b")
    names = [name_of("a", number) for number in range(60)]
    a.ask("restore", "warm", *names)
    for name in names[:59]:
        a.send("forget", name)
    assert a.ask("leave")["code"] == OK
    assert world.members() == {names[59]: ("warm", "a")}
    b.send("adopt", 25, 0)
    assert b.next("found")["found"] == names[59]
    a.send("note", names[59], "hot")
    a.event("fenced")


def test_a_flush_is_told_and_what_there_was_can_be_written_again(world):
    a, b = world.ready("a", "b")
    name = name_of("a", 1)
    a.ask("reserve", name, 5, 0, 0, 0)
    world.redis.client.flushall()
    a.send("note", name, "creating")
    a.event("flushed")
    assert b.ask("beat", 0, 0, 0, 0)["code"] == FLUSHED
    assert a.ask("join")["fresh"] == 1 and b.ask("join")["fresh"] == 1, "also for the second one its records are not there"
    assert a.ask("restore", "preparing", name)["code"] == OK
    assert world.members() == {name: ("preparing", "a")}
    b.send("restore", "warm", name)
    assert b.event("revoked")["name"] == name and b.answer("restore")["code"] == OK


def test_a_record_that_redis_lost_is_missed(world):
    a, = world.ready("a")
    name = name_of("a", 1)
    a.ask("reserve", name, 5, 0, 0, 0)
    world.redis.client.hdel(world.store.prefix + "m", name)
    a.send("note", name, "creating")
    a.event("lost")


def test_of_many_notes_while_redis_is_away_the_last_of_each_counts(world):
    a, = world.ready("a")
    names = [name_of("a", number) for number in range(40)]
    a.ask("restore", "hot", *names)
    before = world.redis.client.info("commandstats")["cmdstat_evalsha"]["calls"]
    with world.redis.frozen():
        for state in ("leased", "recycling", "hot", "leased", "destroying"):
            for name in names:
                a.send("note", name, state)
        for name in names[:20]:
            a.send("forget", name)
        assert a.ask("beat", 0, 0, 0, 0)["code"] == LOST
    until(lambda: world.members() == {name: ("destroying", "a") for name in names[20:]}, "the last notes are there")
    assert world.redis.client.info("commandstats")["cmdstat_evalsha"]["calls"] - before < 15


def test_an_operation_is_answered_within_10_s_without_redis(world):
    a, = world.ready("a")
    world.redis.signal(signal.SIGSTOP)
    began = time.monotonic()
    for op, words in (("beat", (0, 0, 0, 0)), ("reserve", (name_of("a", 1), 5, 0, 0, 0)), ("adopt", (25, 0))):
        a.send(op, *words)
    for op in ("beat", "reserve", "adopt"):
        answer = a.answer(op)
        assert (answer["code"], answer["detail"]) == (LOST, "timeout")
        assert answer["us"] < 30_000_000
    assert time.monotonic() - began < 40
    world.redis.signal(signal.SIGCONT)
    until(lambda: a.ask("adopt", 1, 0)["code"] in (OK, FENCED), "it goes on")


def test_a_short_freeze_loses_nothing(world):
    """The connection is given up while a call is on it: it is made again, and counts once."""
    a, = world.ready("a")
    for number in range(3):
        with world.redis.frozen():
            a.send("reserve", name_of("a", number), 5, 0, 0, 0)
            a.send("note", name_of("a", number), "creating")
            time.sleep(3.5)     # longer than a silent connection is kept
        assert a.answer("reserve")["code"] == OK
    until(lambda: world.members() == {name_of("a", number): ("creating", "a") for number in range(3)}, "each once, in order")
    assert world.redis.client.zcard(world.store.prefix + "made") == 3


def test_a_script_that_redis_forgot_is_sent_again(world):
    a, = world.ready("a")
    for number in range(3):
        world.redis.client.script_flush()
        a.send("reserve", name_of("a", number), 5, 0, 0, 0)
        a.send("note", name_of("a", number), "creating")
        assert a.answer("reserve")["code"] == OK
    until(lambda: world.members() == {name_of("a", number): ("creating", "a") for number in range(3)}, "in order")


def test_full_memory_creates_nothing_and_takes_notes_later(world):
    a, = world.ready("a")
    a.ask("reserve", name_of("a", 1), 5, 0, 0, 0)
    world.redis.client.config_set("maxmemory", 1)
    assert a.ask("reserve", name_of("a", 2), 5, 0, 0, 0)["code"] == LOST
    a.send("forget", name_of("a", 1))
    world.redis.client.config_set("maxmemory", "256mb")
    until(lambda: not world.members(), "the note is taken")


def test_an_answer_that_is_no_answer(world):
    """Whatever stands in Redis is from outside."""
    a, = world.ready("a")
    world.redis.client.hset(world.store.prefix + "m", "x", "warm:a/1:1:1:1:0:0:0::0")
    world.redis.client.zadd(world.store.prefix + "warm", {"Evil/Name-0a1b-x": 1})
    world.redis.client.hset(world.store.prefix + "m", "Evil/Name-0a1b-x", "warm:b/1:1:1:1:0:0:0::0")
    answer = a.ask("take", "-", "preparing", "0a1b")
    assert (answer["code"], answer["detail"]) == (LOST, "no-sense")


def listed(world, *words):
    return subprocess.run([rig.BINARY, "pool", "list", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
                          env=rig.clean_environment({"SPRITEGATE_REDIS_URL": world.redis.url, "SPRITEGATE_PEPPER": "p" * 32,
                                                     "SPRITEGATE_POOL_NAME": "p"}))


def test_the_command_line_shows_whose_they_are(world):
    assert listed(world, "--json").stdout == "[]\n"
    a, b = world.ready("a", "b")
    a.ask("restore", "leased", name_of("a", 1))
    b.ask("restore", "warm", name_of("b", 1))
    shown = listed(world, "p", "--json")
    members = {member["sprite"]: member for member in json.loads(shown.stdout)}
    assert {name: (member["state"], member["session"].split("/")[0], member["exec_id"]) for name, member in members.items()} == {
        name_of("a", 1): ("leased", "a", "exec-1"), name_of("b", 1): ("warm", "b", "")}
    lines = listed(world).stdout.splitlines()
    assert lines[0].split() == ["SPRITE", "STATE", "SINCE", "CREATED", "SESSION"] and [line.split()[0] for line in lines[1:]] == sorted(members)
    assert listed(world, "a", "b").returncode == 2 and listed(world, "-x").returncode == 2


def test_a_record_that_cannot_be_read_is_not_shown(world):
    world.redis.client.hset(world.store.prefix + "m", mapping={"bad\x1b[2J": "warm:a/1:1:1:1:0:0:0::0", "short": "warm", name_of("a", 1): "warm:a/1:1:1:1:0:0:0::0"})
    assert [member["sprite"] for member in json.loads(listed(world, "--json").stdout)] == [name_of("a", 1)]
