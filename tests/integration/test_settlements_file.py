"""What has been used while Redis was away is booked after a restart."""
import concurrent.futures
import json
import re
import shutil
import signal

import pytest

from answers import problem
from processes import go_on, new_mark, running
from rig import leases, until


@pytest.fixture
def store(rig):
    return rig.redis()


@pytest.fixture
def place(tmp_path):
    return tmp_path / "settlements"


@pytest.fixture
def start(rig, store, place):
    def start_one(wait=True, token=False):
        return rig.gateway(redis=store, wait=wait, token=token, settlements_file=place)
    return start_one


@pytest.fixture
def gateway(start):
    gateway = start(token={"budget": "10000s/day"})
    gateway.run("true")
    gateway.until_settled()
    return gateway


def booked(store, kid):
    """Of the token, all days: a test may see midnight."""
    sums = {}
    for key in store.scan_iter(f"sg:{{g}}:b:{kid}:*"):
        for name, value in store.hgetall(key).items():
            sums[name] = sums.get(name, 0) + int(value)
    return sums


def until_emptied(place):
    until(lambda: place.stat().st_size == 0, "the file is used up")


def test_use_is_booked_once_after_a_restart(rig, gateway, start, store, place, tmp_path):
    before = booked(store.client, gateway.kid)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        marks = [new_mark(), new_mark()]
        busy = [pool.submit(gateway.run, f"sleep {mark}; echo seven77", timeout_seconds=200) for mark in marks]
        for mark in marks:
            until(lambda mark=mark: running(mark), "the command runs")
        store.kill()
        for mark in marks:
            go_on(mark)
        ran = [one.result() for one in busy]
    gateway.stop_at_once()
    text = place.read_text(encoding="utf-8")
    assert place.stat().st_mode & 0o777 == 0o600
    assert [json.loads(line)["kid"] for line in text.splitlines()] == [gateway.kid] * 2
    for secret in (gateway.token, "seven77", "sleep"):
        assert secret not in text
    shutil.copy(place, tmp_path / "copy")
    again = store.again()
    rig.add(again, again.kill)
    assert leases(again.client) == 2

    second = start(wait=False)
    until(lambda: leases(again.client) == 0, "the leases are given back")
    until_emptied(place)
    after = booked(again.client, gateway.kid)
    used = sum(one.duration_ms for one in ran)
    assert abs(after["used"] - before["used"] - used) <= 2, (before, after, used)    # each is rounded
    assert after["held"] == 0 and after["out_held"] == 0 and after["reqs"] == 3
    assert after["out"] == before["out"] + sum(one.stdout_bytes + one.stderr_bytes for one in ran)

    second.stop_at_once()
    shutil.copy(tmp_path / "copy", place)
    start(wait=False)
    until_emptied(place)
    assert booked(again.client, gateway.kid) == after


def test_a_question_that_had_no_answer(gateway, start, store, place):
    """Redis takes it up when the gateway is gone: its lease is given back, and its rate."""
    with store.frozen():
        problem(gateway.exec(command="true"), 503, "policy-unavailable")
        gateway.stop_at_once()
    line, = (json.loads(line) for line in place.read_text(encoding="utf-8").splitlines())
    assert (line["kid"], line["actor"], line["used_ms"], line["refund"]) == (gateway.kid, "", 0, True)
    until(lambda: leases(store.client) == 1, "it was admitted after all")
    start(wait=False)
    until(lambda: leases(store.client) == 0, "the lease is given back")
    until_emptied(place)
    assert booked(store.client, gateway.kid)["reqs"] == 1, "what did not run is counted"


def run_refused(gateway, store):
    """A command whose lease Redis cannot settle: what it ran, and what makes the lease whole again."""
    mark, key, aside = new_mark(), f"sg:{{g}}:c:{gateway.kid}", "sg:{g}:aside"
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        busy = pool.submit(gateway.run, f"sleep {mark}", timeout_seconds=200)
        until(lambda: running(mark), "the command runs")
        store.client.rename(key, aside)
        store.client.set(key, "of another type")
        go_on(mark)
        ran = busy.result()
    until(lambda: "cannot settle lease" in gateway.log, "it is said")
    assert gateway.metrics().get("spritegate_exec_settlements_pending") == 1
    return ran, lambda: store.client.rename(aside, key)


def test_what_redis_refuses_is_there_for_the_next_start(gateway, start, store, place):
    before = booked(store.client, gateway.kid)
    ran, mend = run_refused(gateway, store)
    gateway.stop_at_once()
    line, = (json.loads(line) for line in place.read_text(encoding="utf-8").splitlines())
    assert (line["kid"], line["refund"]) == (gateway.kid, False)
    lines = [line, *({**line, "lease": f"{number:024x}"} for number in range(39))]
    place.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    second = start(wait=False)
    breakers = set()

    def all_refused():
        refused = second.log.count("cannot settle lease")
        if refused:
            breakers.add(second.metrics().get("spritegate_redis_breaker_state"))
        return refused == len(lines)
    until(all_refused, "Redis refuses all of them, again and again")
    assert breakers == {0}, "what the last run left counts as an outage"
    second.stop_at_once()
    mend()
    start(wait=False)
    until_emptied(place)
    assert abs(booked(store.client, gateway.kid)["used"] - before["used"] - ran.duration_ms) <= 1 and leases(store.client) == 0


def test_what_redis_refuses_for_a_while_keeps_what_the_command_ended_with(gateway, store):
    ran, mend = run_refused(gateway, store)
    mend()
    until(lambda: leases(store.client) == 0, "the lease is given back")
    assert store.client.exists(f"sg:{{g}}:x:{ran.exec_id}")


def test_what_redis_refuses_keeps_no_gateway_from_ending(rig, store):
    gateway = rig.gateway(redis=store)
    run_refused(gateway, store)
    gateway.signal(signal.SIGTERM)
    assert gateway.wait() == 0 and "given up" not in gateway.log


def test_redis_is_still_away(rig, gateway, start, store, place):
    """What one start could not book is there for the next."""
    mark = new_mark()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        busy = pool.submit(gateway.run, f"sleep {mark}", timeout_seconds=200)
        until(lambda: running(mark), "the command runs")
        store.kill()
        go_on(mark)
        busy.result()
    gateway.stop_at_once()
    kept = place.read_text(encoding="utf-8")
    second = start(wait=False)
    second.until_up(second.serves)
    assert second.metrics().get("spritegate_exec_settlements_pending") == 1
    second.stop_at_once()
    assert place.read_text(encoding="utf-8") == kept
    again = store.again()
    rig.add(again, again.kill)
    start(wait=False)
    until(lambda: leases(again.client) == 0, "the lease is given back")
    until_emptied(place)


def test_a_file_that_is_not_ours(gateway, start, place):
    gateway.stop_at_once()
    assert place.stat().st_size == 0, "nothing was left to settle"
    place.write_text('{"version": 1, "kid": "../../etc"}\n', encoding="utf-8")
    second = start(token=True)
    assert second.run("echo well").stdout == "well\n"
    assert place.stat().st_size == 0 and place.with_name("settlements.broken").stat().st_size > 0
    assert re.search("settlements_file: not used, and moved to .*settlements.broken: line 1 is not one of ours", second.log)


def test_a_file_that_is_not_ours_and_cannot_be_moved(start, place):
    place.write_text("rubbish\n", encoding="utf-8")
    place.with_name("settlements.broken").mkdir()
    gateway = start(wait=False)
    assert gateway.wait() != 0
    assert "line 1 is not one of ours, and it cannot be moved" in gateway.log and "and moved to" not in gateway.log


def test_a_file_that_another_gateway_has(gateway, start, place):
    second = start(wait=False)
    assert second.wait() != 0
    assert "settlements_file: another gateway uses this file" in second.log
    gateway.stop_at_once()
    start()


def test_where_it_cannot_be_written(rig, store):
    gateway = rig.gateway(redis=store, wait=False, token=False, settlements_file="/nowhere/at/all")
    assert gateway.wait() != 0
    assert "settlements_file: No such file or directory" in gateway.log
