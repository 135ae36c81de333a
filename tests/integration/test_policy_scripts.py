"""The two Lua scripts against a real Redis: nothing between the test and the script."""
import collections
import concurrent.futures
import datetime
import ipaddress
import random
import re
import threading
import time

import pytest
import redis

from policy_store import (DAY_US, GRACE_MS, HERE, LIMITS, MIDNIGHT, NOON, SECOND, UNRENEWED_MS, USUAL_OUT, Caller, Store, Token, command_of, date,
                          documented_acl, lease_id, mac_of, pepper_id)


@pytest.fixture
def store(server):
    server.client.flushall()
    return Store(server.client)


@pytest.fixture
def timed(server):
    """Scripts that are told the time."""
    server.client.flushall()
    return Store(server.client, clock=NOON)


# --- who may ---------------------------------------------------------------------------------------------------------

def test_a_grant_says_what_was_given(timed):
    token = Token(timed, rate_n=60, rate_per_ms=60_000, burst=5, conc=3, max_ms=20_000, bud_ms=600_000, max_out=9, max_in=8, pol="p")
    timed.policy("p", ver=4)
    answer = timed.admit(token, want=30_000)
    assert answer.code == "granted"
    assert (answer.actor, answer.pol, answer.ver, answer.day) == ("ann", "p", 4, date(NOON))
    assert answer.granted_ms == 20_000, "the token's cap lowers what was asked for"
    assert (answer.left, answer.reset_us, answer.running, answer.held, answer.used) == (4, SECOND, 1, 20_000, 0)
    assert (answer.granted_out, answer.max_in, answer.violated, answer.day_left_us) == (9, 8, "", DAY_US // 2)


@pytest.mark.parametrize("change, reason", [
    ({"mac": mac_of("x" * 32)}, "bad-mac"),
    ({"mac": mac_of("s" * 32, b"another"), "pep": pepper_id(b"another")}, "other-pepper"),
    ({"mac": None}, "unknown"),
    ({"status": "revoked"}, "revoked"),
    ({"status": "suspended"}, "suspended"),
    ({"status": None}, "revoked"),
    ({"status": "Active"}, "revoked"),
    ({"exp": NOON // 1000}, "expired"),
    ({"exp": 0}, "expired"),
    ({"exp": "soon"}, "broken-record"),
    ({"nbf": NOON // 1000 + 1}, "not-yet-valid"),
    ({"rate_n": None}, "broken-record"),
    ({"burst": "0"}, "broken-record"),
    ({"conc": "x"}, "broken-record"),
    ({"max_ms": None}, "broken-record"),
    ({"actor": None}, "broken-record"),
    ({"paths": "none"}, "broken-record"),      # a rule of a later version, which this one would not apply
    ({"max_in": "1e3"}, "broken-record"),
    ({"max_in": "-1"}, "broken-record"),
    ({"max_out": "1234567890123456"}, "broken-record"),
    ({"arate_n": 1}, "broken-record"),          # per what?
    ({"arate_n": 1, "arate_per_ms": 1000}, "broken-record"),
    ({"burst": 10**12}, "broken-record"),       # could not be counted in whole microseconds
    ({"ip_allow": "127.0.0.1"}, "broken-record"),
    ({"ip_allow": HERE}, "broken-record"),
    ({"ip_allow": HERE + "/129"}, "broken-record"),
    ({"ip_allow": f"{HERE}/96 x"}, "broken-record"),
    ({"shadow": "rate everything"}, "broken-record"),
    ({"pol": "nobody-has-made-it"}, "broken-record"),
])
def test_tokens_that_are_not_valid_change_nothing(timed, change, reason):
    token = Token(timed)
    timed.admit(token)      # so that there is something to change
    token.set(**change)
    timed.clock += (GRACE_MS + 2000) * 1000     # and a lease to reap
    before = timed.snapshot()
    if "exp" in change and str(change["exp"]) != "0" and str(change["exp"]).isdigit():
        token.set(exp=timed.clock // 1000)
        before = timed.snapshot()
    if "nbf" in change:
        token.set(nbf=timed.clock // 1000 + 1)
        before = timed.snapshot()
    assert timed.admit(token).reply == [reason]
    assert timed.snapshot() == before


def test_validity_begins_and_ends_to_the_millisecond(timed):
    now_ms = NOON // 1000
    token = Token(timed, nbf=now_ms, exp=now_ms + 1)
    assert timed.admit(token).code == "granted"
    timed.clock += 1000
    assert timed.admit(token).reply == ["expired"]
    timed.clock -= 2000
    assert timed.admit(token).reply == ["not-yet-valid"]


def test_ten_thousand_wrong_tokens_leave_redis_as_it_was(store):
    token = Token(store)
    before = store.snapshot()
    script = store.redis.script_load(store.admit_text)
    pipeline = store.redis.pipeline(transaction=False)
    for i in range(10_000):
        kid = token.kid if i % 2 else f"{i:016d}"
        pipeline.evalsha(script, 1, "sg:{g}:k:" + kid, kid, f"{i:064x}", pepper_id(), "exec:run", "bash", 1000, lease_id(), 0, 0)
    assert {reply[0] for reply in pipeline.execute()} == {"unknown", "bad-mac"}
    assert store.snapshot() == before


@pytest.mark.parametrize("scopes, ok", [
    ("exec:run", True), ("a exec:run b", True), ("exec:runner", False), ("exec", False), ("xexec:run", False), ("", False), (None, False),
])
def test_scopes(store, scopes, ok):
    assert store.admit(Token(store, scopes=scopes)).code == ("granted" if ok else "scope")


@pytest.mark.parametrize("cmds, program, ok", [
    (None, "bash", True), ("", "", True), ("   ", "anything at all", True), ("ls", "ls", True), ("ls cat", "cat", True),
    (" ls cat ", "ls", True), ("ls cat", "ls cat", False), ("ls", "bash", False), ("ls", "", False), ("ls cat", " ", False),
    ("lsof", "ls", False), ("ls", "lsof", False), ("l.", "ls", False), ("%a+", "ls", False), ("ls", "l.", False), ("ls", "%a+", False), ("ls", "/bin/ls", False),
    ("ls", "LS", False), ("ls", "ls\n", False),
])
def test_command_lists(store, cmds, program, ok):
    assert store.admit(Token(store, cmds=cmds), program=program).code == ("granted" if ok else "command")


# --- refusals --------------------------------------------------------------------------------------------------------

def refused_by(timed, name):
    """A token that is at one limit, and how it asks."""
    fields = {"rate": {"burst": 1, "rate_per_ms": 3_600_000, "rate_n": 1},
              "actor-rate": {"arate_n": 1, "arate_per_ms": 3_600_000, "aburst": 1},
              "concurrency": {"conc": 1}, "actor-concurrency": {"aconc": 1}, "budget": {"bud_ms": 1500},
              "output-budget": {"bud_out": 5 * 2**20},
              "scope": {"scopes": "exec:run x"}, "command": {"cmds": "bash"}, "input": {"max_in": 100},
              "network": {"ip_allow": HERE + "/128"}, "environment": {"env_allow": "LANG"}}[name]
    token = Token(timed, **fields)
    assert timed.admit(token).code == "granted"
    if name == "output-budget":
        assert timed.admit(token).code == "granted"
    return token, ASKED_WRONGLY.get(name, {})


ASKED_WRONGLY = {"scope": {"scope": "other"}, "command": {"program": "sh"}, "input": {"size": 101}, "network": {"address": HERE[:-1] + "2"},
                 "environment": {"variables": "LANG PATH"}}


@pytest.mark.parametrize("name", ["rate", "actor-rate", "concurrency", "actor-concurrency", "budget", "output-budget", *ASKED_WRONGLY])
def test_a_refusal_writes_nothing(timed, name):
    token, ask = refused_by(timed, name)
    before = timed.snapshot()
    for _ in range(5):
        answer = timed.admit(token, **ask)
        assert (answer.code, answer.violated) == ((name, "") if name in ASKED_WRONGLY else ("quota", name))
        assert (answer.granted_ms, answer.day) == (0, "")
    assert timed.snapshot() == before


def test_every_limit_is_named_and_the_longest_wait_counts(timed):
    token = Token(timed, rate_n=1, rate_per_ms=60_000, burst=1, arate_n=1, arate_per_ms=30_000, aburst=1, conc=1, aconc=1, bud_ms=1000)
    timed.admit(token)
    answer = timed.admit(token)
    assert answer.violated == "rate,actor-rate,concurrency,actor-concurrency,budget"
    assert answer.wait_us == 60 * SECOND


def test_the_wait_for_a_budget(timed):
    token = Token(timed, bud_ms=2000)
    first = timed.admit(token, "a" * 24, want=1500)
    answer = timed.admit(token, want=1000)
    assert (answer.violated, answer.wait_us) == ("budget", SECOND), "the running command may use less than it holds"
    timed.settle(token, "a" * 24, first, used=1500)
    answer = timed.admit(token, want=1000)
    assert (answer.violated, answer.wait_us) == ("budget", DAY_US // 2), "what is used comes back at midnight only"
    assert timed.admit(token, want=500).code == "granted"


def test_the_wait_is_exact(timed):
    token = Token(timed, rate_n=3, rate_per_ms=10_000, burst=2)
    assert [timed.admit(token).code for _ in range(3)] == ["granted", "granted", "quota"]
    wait = timed.admit(token).wait_us
    timed.clock += wait - 1
    assert timed.admit(token).code == "quota"
    timed.clock += 1
    assert timed.admit(token).code == "granted"
    assert timed.admit(token).code == "quota"


@pytest.mark.parametrize("count, per_ms, burst", [(60, 60_000, 5), (7, 10_000, 3), (1, 1000, 1), (1000, 1000, 20)])
def test_no_window_sees_more_than_the_burst_and_the_rate(timed, count, per_ms, burst):
    token = Token(timed, rate_n=count, rate_per_ms=per_ms, burst=burst)
    rnd, interval, granted = random.Random(count), per_ms * 1000 // count, []
    for _ in range(400):
        if timed.admit(token).code == "granted":
            granted.append(timed.clock)
        timed.clock += rnd.choice([0, interval // 10, interval // 3, interval * 2 // 3])
    for i, start in enumerate(granted):
        for j in range(i, len(granted)):
            assert j - i + 1 <= burst + (granted[j] - start) // interval
    assert len(granted) > 50


# --- refunds ---------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("known", [True, False])
def test_a_refund_gives_back_one_of_each_rate_once(timed, known):
    token = Token(timed, rate_n=1, rate_per_ms=60_000, burst=3, arate_n=1, arate_per_ms=30_000, aburst=2)
    assert timed.admit(token, "a" * 24).left == 2
    before = timed.tat(f"t:{token.kid}"), timed.tat("at:ann")
    answer = timed.admit(token, "b" * 24)
    assert (answer.left, answer.actor_left) == (1, 0)
    assert timed.settle(token, "b" * 24, answer if known else None, refund=True) == 1
    assert (timed.tat(f"t:{token.kid}"), timed.tat("at:ann")) == before
    for late in (answer, None):
        state = timed.snapshot()
        assert timed.settle(token, "b" * 24, late, refund=True) == 0
        assert timed.snapshot() == state
    assert timed.admit(token).code == "granted"
    assert timed.admit(token).violated == "actor-rate"


def test_without_the_flag_nothing_is_refunded(timed):
    token = Token(timed, rate_n=1, rate_per_ms=60_000, burst=1)
    answer = timed.admit(token, "a" * 24)
    state = timed.tat(f"t:{token.kid}")
    assert timed.settle(token, "a" * 24, answer) == 1 and timed.settle(token, "a" * 24, answer, refund=True) == 0
    assert timed.tat(f"t:{token.kid}") == state
    assert timed.admit(token).violated == "rate"


def test_a_refund_after_a_wait_leaves_what_was_there_before(timed):
    token = Token(timed, rate_n=1, rate_per_ms=60_000, burst=3)
    timed.admit(token)
    answer = timed.admit(token, "a" * 24)
    timed.clock += 10 * SECOND
    timed.settle(token, "a" * 24, answer, refund=True)
    assert [timed.admit(token).code for _ in range(3)] == ["granted", "granted", "quota"]


def test_what_came_back_by_itself_is_not_refunded(timed):
    token = Token(timed, rate_n=1, rate_per_ms=1000, burst=1)
    late = timed.admit(token, "a" * 24)
    timed.clock += SECOND
    assert timed.admit(token).code == "granted"
    timed.settle(token, "a" * 24, late, refund=True)
    assert timed.admit(token).violated == "rate", "two at the same moment with a burst of one"


@pytest.mark.parametrize("change", [{"rate_n": 100}, {"burst": 2}, {"rate_n": 1, "rate_per_ms": 3_600_000}])
def test_a_refund_leaves_a_bucket_alone_that_another_limit_has_written(timed, change):
    token = Token(timed, rate_n=1, rate_per_ms=60_000, burst=1)
    answer = timed.admit(token, "a" * 24)
    token.set(**change)
    timed.clock += 60 * SECOND
    assert timed.admit(token).code == "granted"
    state = timed.tat(f"t:{token.kid}")
    timed.clock -= 59 * SECOND
    timed.settle(token, "a" * 24, answer, refund=True)
    assert timed.tat(f"t:{token.kid}") == state


def test_a_refund_with_a_clock_that_went_back_changes_no_rate(timed):
    token = Token(timed, rate_n=1, rate_per_ms=1000, burst=3)
    answer = timed.admit(token, "a" * 24)
    state = timed.tat(f"t:{token.kid}")
    timed.clock -= 1
    assert timed.settle(token, "a" * 24, answer, refund=True) == 1
    assert timed.tat(f"t:{token.kid}") == state


def test_a_refund_of_a_lease_that_has_ended_does_nothing(timed):
    token = Token(timed, rate_n=1, rate_per_ms=3_600_000, burst=2)
    answer = timed.admit(token, "a" * 24, want=700)
    timed.clock += (700 + GRACE_MS) * 1000
    assert timed.admit(token).reaped == 1
    state = timed.snapshot()
    assert timed.settle(token, "a" * 24, answer, refund=True) == 0
    assert timed.snapshot() == state


def test_a_refund_across_midnight_touches_its_own_day_only(timed):
    timed.clock = MIDNIGHT - SECOND
    token = Token(timed, rate_n=1, rate_per_ms=60_000, burst=2)
    first = timed.admit(token, "a" * 24)
    timed.clock = MIDNIGHT
    second = timed.admit(token, "b" * 24)
    assert timed.settle(token, "a" * 24, first, refund=True) == 1
    assert timed.budget(token, first.day) == {"used": 0, "held": 0, "out": 0, "out_held": 0, "reqs": 0}
    assert timed.budget(token, second.day) == {"held": 1000, "out_held": 2 * USUAL_OUT, "reqs": 1}
    assert [timed.admit(token).code for _ in range(2)] == ["granted", "quota"]


def test_a_lease_without_charges_is_settled_and_not_refunded(timed):
    token = Token(timed, rate_n=1, rate_per_ms=60_000, burst=1)
    answer = timed.admit(token, "a" * 24)
    for key in (f"sg:{{g}}:c:{token.kid}", "sg:{g}:ac:ann"):
        (member, end), = timed.redis.zrange(key, 0, -1, withscores=True)
        timed.redis.delete(key)
        timed.redis.zadd(key, {":".join(member.split(":")[:3]): end})
    assert timed.settle(token, "a" * 24, answer, refund=True) == 1
    assert not timed.leases(token) and not timed.redis.exists("sg:{g}:ac:ann")
    assert timed.admit(token).violated == "rate"


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("count, per_ms, burst", [(60, 60_000, 5), (7, 10_000, 3), (1, 1000, 1)])
def test_refunds_never_let_more_than_the_burst_and_the_rate_run(timed, count, per_ms, burst, seed):
    """Of what was not refunded, in any window; the actor's bucket is the same size and sees two tokens."""
    same = {"arate_n": count, "arate_per_ms": per_ms, "aburst": burst}
    tokens = [Token(timed, rate_n=count, rate_per_ms=per_ms, burst=burst, max_ms=3_600_000, **same) for _ in range(2)]
    rnd, interval, granted, waiting, refunded = random.Random(seed), per_ms * 1000 // count, {}, [], 0
    for _ in range(400):
        token, lease = rnd.choice(tokens), lease_id()
        answer = timed.admit(token, lease, want=3_600_000)
        if answer.code == "granted":
            granted[lease] = timed.clock
            if rnd.random() < 0.5:
                waiting.append((token, lease, answer))
        if waiting and rnd.random() < 0.2:
            token, lease, answer = waiting.pop(rnd.randrange(len(waiting)))
            assert timed.settle(token, lease, answer, refund=True) == 1
            del granted[lease]
            refunded += 1
        timed.clock += rnd.choice([0, 0, interval // 10, interval // 3, interval * 2 // 3])
    times = list(granted.values())
    for i, start in enumerate(times):
        for j in range(i, len(times)):
            assert j - i + 1 <= burst + (times[j] - start) // interval
    assert refunded > 20 and len(times) > 20


def test_as_much_input_as_the_token_allows(timed):
    token = Token(timed, max_in=100)
    assert timed.admit(token, size=100).code == "granted"
    answer = timed.admit(token, size=101)
    assert (answer.code, answer.max_in, answer.left) == ("input", 100, LIMITS["burst"] - 1)
    assert timed.admit(Token(timed), size=10**9).code == "granted"


# --- networks, variables, output -------------------------------------------------------------------------------------

def v6(text):
    return ipaddress.ip_address(text).packed.rjust(16, b"\0").hex() if ":" in text else "0" * 20 + "ffff" + ipaddress.ip_address(text).packed.hex()


@pytest.mark.parametrize("networks, address, ok", [
    ([], "", True), ([], "192.0.2.1", True), (["192.0.2.0/24"], "", False),
    (["192.0.2.0/24"], "192.0.2.255", True), (["192.0.2.0/24"], "192.0.3.0", False), (["192.0.2.0/24"], "::192.0.2.1", False),
    (["192.0.2.128/25"], "192.0.2.127", False), (["192.0.2.128/25"], "192.0.2.128", True), (["192.0.2.6/31"], "192.0.2.7", True),
    (["192.0.2.6/31"], "192.0.2.8", False), (["192.0.2.7/32"], "192.0.2.7", True), (["0.0.0.0/0"], "203.0.113.9", True),
    (["0.0.0.0/0"], "2001:db8::1", False), (["::/0"], "203.0.113.9", True), (["2001:db8:8000::/33"], "2001:db8:8000::1", True),
    (["2001:db8:8000::/33"], "2001:db8:7fff::1", False), (["10.0.0.0/8", "2001:db8::/32"], "2001:db8::9", True),
    (["10.0.0.0/8", "2001:db8::/32"], "11.0.0.1", False), (["2001:db8::1/128"], "2001:db8::1", True), (["2001:db8::1/128"], "2001:db8::2", False),
])
def test_client_networks(store, networks, address, ok):
    listed = []
    for network in networks:
        base, bits = network.split("/")
        listed.append(f"{v6(base)}/{int(bits) + (0 if ':' in base else 96)}")
    token = Token(store, ip_allow=" ".join(listed))
    assert store.admit(token, address=address and v6(address)).code == ("granted" if ok else "network")


@pytest.mark.parametrize("allowed, names, denied", [
    ("", "ANY THING", None), ("LANG", "", None), ("LANG", "LANG", None), ("LANG", "LANG LANGUAGE", "LANGUAGE"), ("LANGUAGE", "LANG", "LANG"),
    ("LC_*", "LC_ALL LC_", None), ("LC_*", "LC LC_ALL", "LC"), ("LANG LC_*", "LC_ALL PATH LANG", "PATH"), ("*", "ANY", None),
    ("-", "", None), ("-", "A", "A"), ("%a+", "AB", "AB"), ("A.", "AB", "AB"),
])
def test_variables(store, allowed, names, denied):
    answer = store.admit(Token(store, env_allow=allowed), variables=names)
    assert (answer.code, answer.what) == (("granted", "") if denied is None else ("environment", denied))


@pytest.mark.parametrize("own, usual, most, granted", [(0, 100, 1000, 100), (50, 100, 1000, 50), (500, 100, 1000, 500),
                                                       (5000, 100, 1000, 1000), (0, 0, 0, 0), (50, 0, 0, 0)])
def test_the_output_that_is_granted(store, own, usual, most, granted):
    answer = store.admit(Token(store, max_out=own), usual_out=usual, most_out=most)
    assert (answer.code, answer.granted_out, answer.out_held) == ("granted", granted, 2 * granted)


def test_output_is_reserved_and_settled(timed):
    token = Token(timed, max_out=100, bud_out=550)
    first = timed.admit(token, "a" * 24)
    second = timed.admit(token, "b" * 24)
    answer = timed.admit(token)
    assert (answer.violated, answer.wait_us, answer.out_held) == ("output-budget", SECOND, 400), "running commands may write less"
    timed.settle(token, "a" * 24, first, out=150)
    assert timed.budget(token, first.day)["out"] == 150 and timed.admit(token, "c" * 24).code == "granted"
    timed.settle(token, "b" * 24, second, out=10**9)
    assert timed.budget(token, first.day)["out"] == 350, "what was cut is not charged"
    answer = timed.admit(token)
    assert (answer.violated, answer.wait_us) == ("output-budget", SECOND)
    token.set(max_out=101)
    answer = timed.admit(token)
    assert (answer.violated, answer.wait_us) == ("output-budget", DAY_US // 2), "what was written comes back at midnight only"
    timed.clock += (300_000 + GRACE_MS) * 1000
    assert timed.admit(token).reaped == 1
    assert timed.budget(token, first.day) == {"used": 1000, "held": 0, "out": 550, "out_held": 0, "reqs": 3}


# --- rotation --------------------------------------------------------------------------------------------------------

def test_the_secret_before_counts_until_its_end_only(timed):
    token = Token(timed, pmac=mac_of("o" * 32), pmac_until=NOON // 1000 + 1000)
    for _ in range(2):
        assert timed.admit(token, mac=mac_of("o" * 32)).code == timed.admit(token).code == "granted"
        timed.clock += 999_999
    timed.clock += 1
    assert timed.admit(token, mac=mac_of("o" * 32)).reply == ["bad-mac"] and timed.admit(token).code == "granted"
    token.set(pmac_until=None)
    assert timed.admit(token, mac=mac_of("o" * 32)).reply == ["bad-mac"]


# --- shadow ----------------------------------------------------------------------------------------------------------

def test_shadow_lets_through_and_tells(timed):
    every = "rate actor-rate concurrency actor-concurrency budget output-budget network command environment input"
    token = Token(timed, shadow=every, rate_n=1, rate_per_ms=60_000, burst=1, arate_n=1, arate_per_ms=60_000, aburst=1, conc=1, aconc=1,
                  bud_ms=1000, bud_out=10, max_out=5, cmds="ls", env_allow="A", max_in=1, ip_allow=HERE[:-1] + "2/128")
    first = timed.admit(token, program="ls", variables="A", size=1, address=HERE[:-1] + "2")
    assert (first.code, first.shadowed) == ("granted", "")
    tat = timed.tat(f"t:{token.kid}"), timed.tat("at:ann")
    answer = timed.admit(token, "b" * 24, variables="B", size=2)
    assert (answer.code, answer.violated, answer.wait_us) == ("granted", "", 0)
    assert set(answer.shadowed.split(",")) == set(every.split())
    assert (timed.tat(f"t:{token.kid}"), timed.tat("at:ann")) == tat, "what would have been refused takes nothing from the rate"
    assert timed.settle(token, "b" * 24, answer, refund=True) == 1
    assert (timed.tat(f"t:{token.kid}"), timed.tat("at:ann")) == tat
    token.set(shadow="budget")
    assert timed.admit(token, "c" * 24, program="ls", variables="A", size=1, address=HERE[:-1] + "2").shadowed == "budget"
    assert timed.admit(token, "c" * 24, program="ls", variables="A", size=1, address=HERE).code == "network"


def test_a_scope_is_never_in_shadow(timed):
    assert timed.admit(Token(timed, shadow="scope")).reply == ["broken-record"]
    assert timed.admit(Token(timed, scopes="other", shadow="rate")).code == "scope"


# --- named policies --------------------------------------------------------------------------------------------------

def test_a_token_inherits_what_it_does_not_say(timed):
    timed.policy("agents", ver=3, scopes="exec:run", cmds="ls", **{**LIMITS, "conc": 2, "max_ms": 7000})
    token = Token(timed, pol="agents", **{name: None for name in LIMITS}, scopes=None, cmds=None)
    answer = timed.admit(token, want=99_000, program="ls")
    assert (answer.code, answer.pol, answer.ver, answer.granted_ms, answer.conc) == ("granted", "agents", 3, 7000, 2)
    assert timed.admit(token).code == "command"
    token.set(cmds="", conc=5, max_ms=1000)
    answer = timed.admit(token, want=99_000)
    assert (answer.code, answer.conc, answer.granted_ms) == ("granted", 5, 1000)
    timed.policy("agents", ver=4, scopes="exec:run", **{**LIMITS, "rate_n": 1, "rate_per_ms": 3_600_000, "burst": 1})
    timed.clock += SECOND
    assert timed.admit(token).code == "granted" and timed.admit(token).violated == "rate", "a change acts on the next call"
    assert timed.admit(token).ver == 4


@pytest.mark.parametrize("change", [{}, {"ver": None}, {"mac": "m"}, {"status": "active"}, {"exp": 0}, {"paths": "none"}, {"conc": "x"},
                                    {"conc": None}, {"arate_n": 1}])
def test_a_policy_that_cannot_be_used_refuses(timed, change):
    fields = {"ver": 1, "scopes": "exec:run", **LIMITS}
    timed.policy("p", **{name: value for name, value in {**fields, **change}.items() if value is not None and change})
    token = Token(timed, pol="p", **{name: None for name in LIMITS})
    before = timed.snapshot()
    assert timed.admit(token).reply == ["broken-record"]
    assert timed.snapshot() == before


def test_a_caller_without_a_token_has_what_its_policy_says(timed):
    caller = Caller()
    timed.policy("staff", ver=3, rate_n=5, rate_per_ms=1000, conc=2, bud_ms=20_000, cmds="ls bash")
    answer = timed.admit(caller, want=10**6, policy="staff")
    assert (answer.code, answer.actor, answer.pol, answer.ver) == ("granted", "ann", "staff", 3)
    assert (answer.rate_n, answer.burst, answer.conc, answer.granted_ms, answer.held) == (5, 5, 2, 20_000, 20_000)
    assert timed.admit(caller, program="cat", policy="staff").code == "command"
    assert timed.admit(caller, policy="staff").violated == "budget"
    assert timed.admit(Caller("bob"), policy="staff").code == "granted"


def test_what_its_policy_does_not_say_is_what_a_token_has_without_flags(timed):
    timed.policy("bare", ver=1)
    answer = timed.admit(Caller(), want=10**9, policy="bare")
    assert (answer.rate_n, answer.rate_per_ms, answer.burst, answer.conc, answer.granted_ms) == (60, 60_000, 10, 3, 300_000)
    assert (answer.granted_out, answer.max_in, answer.bud_ms, answer.bud_out, answer.arate_n, answer.aconc) == (USUAL_OUT, 0, 0, 0, 0, 0)
    assert (answer.egress, answer.max_sessions) == ("", 0)
    timed.policy("small", ver=1, bud_out=1 << 20)
    assert timed.admit(Caller(), policy="small").granted_out == 1 << 19


@pytest.mark.parametrize("fields", [
    {}, {"conc": 1}, {"ver": 1, "conc": "x"}, {"ver": 1, "new": 1}, {"ver": 1, "rate_n": 0}, {"ver": 1, "rate_n": "x"}, {"ver": 1, "bud_ms": "x"},
    {"ver": 1, "mac": "x"}, {"ver": 1, "max_ms": 0}])
def test_a_caller_whose_policy_cannot_be_used_may_nothing(timed, fields):
    timed.policy("staff", **fields)
    before = timed.snapshot()
    assert timed.admit(Caller(), policy="staff").code == "broken-record"
    assert timed.snapshot() == before


def test_a_caller_without_a_token_is_settled_like_others(timed):
    caller = Caller()
    timed.policy("staff", ver=1)
    lease = lease_id()
    granted = timed.admit(caller, lease, want=1000, policy="staff")
    assert timed.renew(caller, lease) == 1
    assert timed.settle(caller, lease, granted, used=300) == 1
    assert timed.settle(caller, lease, granted, used=300) == 0
    assert timed.budget(caller, granted.day) == {"held": 0, "used": 300, "out_held": 0, "out": 0, "reqs": 1}
    assert timed.leases(caller) == [] and not timed.redis.exists("sg:{g}:ac:ann")


def test_strangers_learn_nothing_of_policies(timed):
    timed.policy("p", ver="x")
    assert timed.admit(Token(timed, pol="p"), mac=mac_of("x" * 32)).reply == ["bad-mac"]


# --- leases ----------------------------------------------------------------------------------------------------------

def test_the_same_lease_twice_is_one_grant(timed):
    token = Token(timed, bud_ms=60_000, burst=2, rate_n=1)
    lease = lease_id()
    first = timed.admit(token, lease)
    before = timed.snapshot()
    token.set(max_ms=500)
    timed.clock += 1000
    again = timed.admit(token, lease)
    assert (again.code, again.granted_ms, again.day) == ("granted", first.granted_ms, first.day)
    token.set(max_ms=300_000)
    assert timed.snapshot()[0] == before[0]


@pytest.mark.parametrize("known", [True, False])
def test_a_lease_is_settled_once(timed, known):
    token = Token(timed, conc=1)
    lease = lease_id()
    answer = timed.admit(token, lease)
    assert timed.admit(token).code == "quota"
    assert timed.settle(token, lease, answer if known else None, used=400, out=77) == 1
    spent = {"used": 400, "held": 0, "out": 77, "out_held": 0, "reqs": 1}
    assert timed.budget(token, answer.day) == spent
    assert not timed.leases(token) and not timed.redis.exists("sg:{g}:ac:ann")
    for late in (answer, None):
        before = timed.snapshot()
        assert timed.settle(token, lease, late, used=400, out=77) == 0
        assert timed.snapshot() == before
    assert timed.admit(token).code == "granted"


def test_more_than_was_granted_is_never_charged(timed):
    token = Token(timed)
    answer = timed.admit(token, "a" * 24, want=1000)
    timed.settle(token, "a" * 24, answer, used=99_999)
    assert timed.budget(token, answer.day)["used"] == 1000


@pytest.mark.parametrize("when", [NOON, NOON + DAY_US // 2 - 1, 951_782_400_000_000, 1_709_251_199_999_999])
def test_what_ran_without_redis_is_booked_once(timed, when):
    """There is no lease of it: a mark is left in its place, on the day of the booking."""
    token, lease = Token(timed, bud_ms=1000), lease_id()
    timed.clock = when
    said = {"granted": True, "used": 300, "out": 7, "degraded": True, "command": "c", "result": "200\nwell"}
    assert [timed.settle(token, lease, **said) for _ in range(3)] == [1, 0, 0]
    assert timed.budget(token, date(when)) == {"used": 300, "out": 7, "reqs": 1}
    assert timed.redis.get("sg:{g}:x:c") == f"{token.kid} 200\nwell"
    assert all(timed.redis.pttl(key) > 0 for key in timed.redis.scan_iter() if key != token.key)
    assert timed.settle(token, lease_id(), granted=True, refund=True, degraded=True) == 1
    assert timed.budget(token, date(when))["reqs"] == 1, "what did not run is not counted"
    assert timed.admit(token, want=701).violated == "budget"
    assert timed.admit(token, want=700).code == "granted"


spoilt = pytest.mark.parametrize("spoil", [lambda redis, key: redis.set(key, "of another type"), lambda redis, key: redis.hset(key, "used", "many"),
                                           lambda redis, key: redis.hset(key, "out", "9" * 19)])


@pytest.mark.parametrize("degraded", [False, True])
@spoilt
def test_use_that_cannot_be_added_is_added_later(timed, spoil, degraded):
    """A script that fails half way would be told the next time that all is settled."""
    token, lease = Token(timed), "a" * 24
    key, aside = f"sg:{{g}}:b:{token.kid}:{date(timed.clock)}", "sg:{g}:aside"
    said = {"granted": timed.admit(token, lease), "used": 300, "out": 7, "degraded": degraded, "command": "c", "result": "200\nwell"}
    timed.redis.rename(key, aside)
    spoil(timed.redis, key)
    before = timed.changes()
    for _ in range(2):
        with pytest.raises(redis.ResponseError, match="^WRONGTYPE"):
            timed.settle(token, lease, **said)
    assert timed.changes() == before, "something is written"
    timed.redis.rename(aside, key)
    assert [timed.settle(token, lease, **said) for _ in range(2)] == [1, 0]
    booked = timed.budget(token, date(timed.clock))
    assert (booked["used"], booked["out"], booked["reqs"]) == (300, 7, 2 if degraded else 1)
    assert timed.redis.get("sg:{g}:x:c") == f"{token.kid} 200\nwell"


@pytest.fixture
def two_ended(timed):
    """A token with a lease of yesterday and one of today, both past their ends: it, how it asks, and what is booked when it may."""
    timed.clock = MIDNIGHT - SECOND
    token = Token(timed, arate_n=9, arate_per_ms=1000, aburst=9, bud_ms=10**6, bud_out=10**9, sessions=1)
    days = [timed.admit(token, "a" * 24, want=700).day]
    timed.clock = MIDNIGHT
    days.append(timed.admit(token, "b" * 24, want=600).day)
    timed.clock += (700 + GRACE_MS) * 1000
    for key in timed.redis.scan_iter():
        timed.redis.persist(key)    # Redis' own clock is another one

    def check_charged():
        answer = timed.admit(token, "c" * 24, want=5)
        assert (answer.code, answer.reaped, answer.used, answer.held) == ("granted", 2, 600, 5)
        assert timed.budget(token, days[0]) == {"used": 700, "held": 0, "out": 2 * USUAL_OUT, "out_held": 0, "reqs": 1}
        assert timed.budget(token, days[1]) == {"used": 600, "held": 5, "out": 2 * USUAL_OUT, "out_held": 2 * USUAL_OUT, "reqs": 2}
    return token, days, check_charged


def check_refused(timed, token, **asked):
    """With an error that names the cause; not a byte is changed."""
    before = timed.snapshot()
    for _ in range(2):
        with pytest.raises(redis.ResponseError, match="^WRONGTYPE"):
            timed.admit(token, "c" * 24, want=5, **asked)
    assert timed.snapshot() == before, "something is written"


@pytest.mark.parametrize("day", [0, 1])
@spoilt
def test_a_lease_that_cannot_be_charged_is_charged_later(timed, two_ended, day, spoil):
    token, days, check_charged = two_ended
    key, aside = f"sg:{{g}}:b:{token.kid}:{days[day]}", "sg:{g}:aside"
    timed.redis.rename(key, aside)
    spoil(timed.redis, key)
    check_refused(timed, token)
    timed.redis.rename(aside, key)
    check_charged()


def test_what_is_no_lease_of_ours_is_not_passed_over(timed, two_ended):
    token, _, check_charged = two_ended
    timed.redis.zadd(f"sg:{{g}}:c:{token.kid}", {"d" * 24: timed.clock // 1000})
    check_refused(timed, token)
    timed.redis.zrem(f"sg:{{g}}:c:{token.kid}", "d" * 24)
    check_charged()


@pytest.mark.parametrize("name", ["c:{kid}", "ac:ann", "t:{kid}", "at:ann"])
def test_a_key_of_another_type_is_seen_before_anything_is_written(timed, two_ended, name):
    token, _, check_charged = two_ended
    key, aside = "sg:{g}:" + name.format(kid=token.kid), "sg:{g}:aside"
    timed.redis.rename(key, aside)
    timed.redis.lpush(key, "of another type")
    check_refused(timed, token)
    timed.redis.rename(aside, key)
    check_charged()


@pytest.mark.parametrize("degraded", [False, True])
@pytest.mark.parametrize("name", ["xs", "xb"])
def test_results_that_cannot_be_kept_fail_no_settlement(timed, name, degraded):
    token, lease = Token(timed), "a" * 24
    said = {"granted": timed.admit(token, lease), "used": 300, "degraded": degraded, "command": "c", "result": "200\nwell"}
    timed.redis.set("sg:{g}:" + name, "of another type")
    assert [timed.settle(token, lease, **said) for _ in range(2)] == [1, 0]
    assert timed.budget(token, date(timed.clock))["used"] == 300


def test_a_grant_says_how_long_the_token_is_valid(timed):
    token = Token(timed, exp=NOON // 1000 + 5000)
    assert timed.admit(token).valid_ms == 5000
    assert timed.admit(Token(timed)).valid_ms == 0
    rotated = Token(timed, exp=NOON // 1000 + 5000, pmac=mac_of("o" * 32), pmac_until=NOON // 1000 + 1000)
    assert timed.admit(rotated).valid_ms == 5000
    assert timed.admit(rotated, mac=mac_of("o" * 32)).valid_ms == 1000
    rotated.set(exp=None)
    assert timed.admit(rotated, mac=mac_of("o" * 32)).valid_ms == 1000


def test_an_unsettled_lease_ends_by_itself_and_is_charged_in_full(timed):
    token = Token(timed, conc=1, bud_ms=60_000)
    answer = timed.admit(token, "a" * 24, want=700)
    timed.clock += (700 + GRACE_MS) * 1000 - 1000
    assert timed.admit(token).code == "quota"
    timed.clock += 1000
    second = timed.admit(token, "b" * 24)
    assert (second.code, second.reaped, second.used) == ("granted", 1, 700)
    assert timed.settle(token, "a" * 24, answer, used=1) == 0
    assert timed.budget(token, answer.day)["used"] == 700


def test_a_lease_lasts_for_the_wait_as_well(timed):
    token = Token(timed, conc=1)
    timed.admit(token, "a" * 24, want=700, wait=60_000)
    timed.clock += (60_000 + 700 + GRACE_MS) * 1000 - 1000
    assert timed.admit(token).code == "quota"
    timed.clock += 1000
    assert timed.admit(token).code == "granted"


def test_a_long_lease_ends_early_unless_it_is_renewed(timed):
    token = Token(timed, conc=1, bud_ms=10_000_000)
    timed.admit(token, "a" * 24, want=300_000)
    timed.clock += 75_000_000 - 1000
    assert timed.admit(token).code == "quota" and timed.renew(token, "a" * 24) == 1
    timed.clock += 75_000_000 - 1000
    assert timed.admit(token).code == "quota"
    timed.clock += 1000
    second = timed.admit(token)
    assert (second.code, second.reaped, second.used) == ("granted", 1, 300_000), "what nobody renews is charged in full"
    before = timed.snapshot()
    assert timed.renew(token, "a" * 24) == 0, "it has no right to run any more"
    assert timed.snapshot() == before


def test_a_renewal_lasts_no_longer_than_the_leases_of_its_actor(timed):
    """What another token of the actor has reaped comes back with an end."""
    token, other = Token(timed), Token(timed)
    timed.admit(token, "a" * 24, want=300_000)
    timed.clock += 75_000_000
    assert timed.settle(other, "b" * 24, timed.admit(other, "b" * 24)) == 1 and not timed.redis.exists("sg:{g}:ac:ann")
    assert timed.renew(token, "a" * 24) == 1
    assert all(timed.redis.pttl("sg:{g}:" + key) > 0 for key in (f"c:{token.kid}", "ac:ann"))


def test_a_renewal_brings_no_end_nearer_and_makes_nothing(timed):
    token = Token(timed)
    answer = timed.admit(token, "a" * 24, want=300_000, wait=60_000)
    before = timed.snapshot()
    assert timed.renew(token, "a" * 24) == 1 and timed.renew(token, "b" * 24) == 0
    assert timed.snapshot() == before
    timed.clock += 100_000_000
    assert timed.renew(token, "a" * 24) == 1
    ends = {score for key in (f"c:{token.kid}", "ac:ann") for _, score in timed.redis.zrange("sg:{g}:" + key, 0, -1, withscores=True)}
    assert ends == {timed.clock // 1000 + 75_000}
    timed.settle(token, "a" * 24, answer)
    assert timed.renew(token, "a" * 24) == 0 and not timed.leases(token)


def test_a_refused_call_reaps_too(timed):
    token = Token(timed, bud_ms=1000)
    timed.admit(token)
    timed.clock += (1000 + GRACE_MS) * 1000
    answer = timed.admit(token)
    assert (answer.code, answer.reaped, answer.used, answer.held) == ("quota", 1, 1000, 0)
    assert not timed.leases(token) and not timed.redis.exists("sg:{g}:ac:ann")


def test_a_lease_across_midnight_belongs_to_the_day_it_was_given(timed):
    timed.clock = MIDNIGHT - SECOND
    token = Token(timed, bud_ms=2000)
    first = timed.admit(token, "a" * 24, want=2000)
    assert timed.admit(token, want=1).violated == "budget"
    timed.clock = MIDNIGHT
    second = timed.admit(token, "b" * 24, want=2000)
    assert (second.code, second.used, second.held) == ("granted", 0, 2000)
    assert first.day != second.day
    assert timed.settle(token, "a" * 24, first, used=1500) == 1
    assert timed.budget(token, first.day) == {"used": 1500, "held": 0, "out": 0, "out_held": 0, "reqs": 1}
    assert timed.budget(token, second.day) == {"held": 2000, "out_held": 2 * USUAL_OUT, "reqs": 1}
    timed.clock += (2000 + GRACE_MS) * 1000 + DAY_US
    timed.admit(token)
    assert timed.budget(token, second.day) == {"used": 2000, "held": 0, "out": 2 * USUAL_OUT, "out_held": 0, "reqs": 1}


def test_the_calendar(timed):
    token = Token(timed, burst=10_000, rate_n=1_000_000, conc=100_000)
    rnd = random.Random(5)
    days = [datetime.date(y, m, d) for y in (1999, 2000, 2024, 2026, 2099, 2100) for m, d in ((1, 1), (2, 28), (3, 1), (12, 31))]
    days += [datetime.date(2000, 2, 29), datetime.date(2096, 2, 29)]
    days += [datetime.date(1999, 1, 1) + datetime.timedelta(rnd.randrange(36_000)) for _ in range(300)]
    for day in days:
        start = int(datetime.datetime(day.year, day.month, day.day, tzinfo=datetime.UTC).timestamp()) * SECOND
        for timed.clock in (start, start + DAY_US - 1):
            assert timed.admit(token, program="bash").day == day.strftime("%Y%m%d")
        timed.redis.delete(f"sg:{{g}}:c:{token.kid}", "sg:{g}:ac:ann", f"sg:{{g}}:t:{token.kid}")


# --- clocks and changed limits ---------------------------------------------------------------------------------------

def test_a_clock_that_went_back_costs_nobody_anything(timed):
    """After a failover the new Redis may be seconds behind."""
    token = Token(timed, rate_n=1, rate_per_ms=1000, burst=3)
    for _ in range(3):
        timed.admit(token)
    timed.clock -= 5 * SECOND
    answer = timed.admit(token)
    assert (answer.code, answer.left) == ("granted", 0), "one goes through and puts the bucket right"
    for _ in range(3):
        assert (timed.admit(token).code, timed.admit(token).wait_us) == ("quota", SECOND)
        timed.clock += SECOND
        assert timed.admit(token).code == "granted"


def test_a_raised_limit_acts_at_once(timed):
    token = Token(timed, rate_n=1, rate_per_ms=3_600_000, burst=1)
    timed.admit(token)
    assert timed.admit(token).wait_us == 3600 * SECOND
    token.set(rate_n=100, rate_per_ms=1000)
    for _ in range(5):
        assert timed.admit(token).code == "granted"
        assert timed.admit(token).wait_us == 10_000
        timed.clock += 10_000


def test_a_raised_burst_and_a_lowered_limit_act_at_once(timed):
    token = Token(timed, rate_n=1, rate_per_ms=60_000, burst=1)
    timed.admit(token)
    assert timed.admit(token).code == "quota"
    token.set(burst=2)
    assert [timed.admit(token).code for _ in range(2)] == ["granted", "quota"]
    token.set(rate_n=60, rate_per_ms=60_000, burst=10)
    timed.clock += 120 * SECOND
    assert timed.admit(token).left == 9
    token.set(rate_n=1, burst=1)
    assert timed.admit(token).violated == "rate"


def test_tokens_of_one_actor_cannot_reset_each_others_use(timed):
    generous = Token(timed, arate_n=1, arate_per_ms=1000, aburst=10)
    strict = Token(timed, arate_n=1, arate_per_ms=1000, aburst=1)
    assert [timed.admit(generous).code for _ in range(11)] == ["granted"] * 10 + ["quota"]
    for _ in range(5):
        assert timed.admit(strict).violated == "actor-rate"
        assert timed.admit(generous).violated == "actor-rate"
    timed.clock -= 5 * SECOND
    assert [timed.admit(generous).code for _ in range(2)] == ["granted", "quota"], "only a clock that went back is healed"


def test_limits_that_are_set_later_count_what_runs_already(timed):
    token = Token(timed)
    for _ in range(3):
        timed.admit(token)
    token.set(conc=3)
    assert timed.admit(token).violated == "concurrency"
    token.set(conc=9, aconc=3)
    assert timed.admit(token).violated == "actor-concurrency"
    token.set(aconc=None, bud_ms=3500)
    assert timed.admit(token).violated == "budget"
    token.set(bud_ms=4000)
    assert timed.admit(token).code == "granted"


def test_actor_limits_are_shared_by_its_tokens_only(timed):
    limits = {"arate_n": 1, "arate_per_ms": 60_000, "aburst": 3, "aconc": 2}
    one, two, other = Token(timed, "ann", **limits), Token(timed, "ann", **limits), Token(timed, "bob", **limits)
    assert timed.admit(one).code == timed.admit(two).code == "granted"
    assert timed.admit(one).violated == timed.admit(two).violated == "actor-concurrency"
    assert timed.admit(other).code == "granted"
    one.set(aconc=9)
    two.set(aconc=9)
    assert timed.admit(one).code == "granted"
    assert timed.admit(two).violated == "actor-rate"


# --- what is in Redis ------------------------------------------------------------------------------------------------

def test_every_key_is_in_the_one_slot_and_ends_by_itself(store):
    token = Token(store, arate_n=5, arate_per_ms=1000, aburst=5)
    answer = store.admit(token, want=1000)
    ttl = {key.removeprefix("sg:{g}:"): store.redis.pttl(key) for key in store.redis.scan_iter()}
    assert ttl.pop(f"k:{token.kid}") == -1
    assert set(ttl) == {f"t:{token.kid}", "at:ann", f"c:{token.kid}", "ac:ann", f"b:{token.kid}:{answer.day}"}
    day_ms = DAY_US // 1000
    assert 0 < ttl["at:ann"] <= 1200 and 0 < ttl[f"t:{token.kid}"] <= 1200
    assert day_ms < ttl["ac:ann"] <= day_ms + 1000 + GRACE_MS
    assert 2 * day_ms < ttl[f"b:{token.kid}:{answer.day}"] <= 3 * day_ms


def test_numbers_are_whole_and_plain(store):
    token = Token(store, rate_n=7, rate_per_ms=60_000, burst=3, bud_ms=10**12, max_ms=86_400_000)
    store.admit(token, "a" * 24, want=86_399_999)
    store.admit(token, want=10**15)
    assert re.fullmatch(r"\d{16}:25714284", store.redis.get(f"sg:{{g}}:t:{token.kid}"))
    leases = store.redis.zrange(f"sg:{{g}}:c:{token.kid}", 0, -1, withscores=True)
    (second, _), (member, end) = sorted(leases, key=lambda lease: lease[0].startswith("a" * 24))
    assert re.fullmatch(r"a{24}:86399999:\d{8}:\d{16}:8571428:25714284:0:0:out=2097152", member) and ":86400000:" in second
    now = time.time() * 1000
    assert now + UNRENEWED_MS < end < now + UNRENEWED_MS + GRACE_MS + 5000


def test_the_shipped_script_cannot_be_told_the_time(store):
    token = Token(store, exp=int(time.time() * 1000) - 1000)
    script = store.redis.register_script(store.admit_text)
    args = [token.kid, token.mac, pepper_id(), "exec:run", "bash", 1000, lease_id(), 0, 0, HERE, "", 1, 1]
    assert script(keys=[token.key], args=[*args, 0, 0]) == ["expired"]


def test_the_documented_acl_is_enough_and_keeps_us_in_our_keys(server, store):
    store.redis.execute_command(*documented_acl("gateway"))
    limited = redis.Redis(port=server.port, username="gateway", password="pw", decode_responses=True)
    token = Token(store)
    lease = lease_id()
    limited.execute_command("EVAL", "return redis.call('TIME')", 0)
    for text in (store.admit_text, store.settle_text):
        store.redis.script_load(text)
    answer = store.admit(token, lease, client=limited)
    assert answer.code == "granted"
    command = command_of(lease)
    assert store.settle(token, lease, answer, refund=True, client=limited, command=command, result="whatever") == 1
    assert store.peek(token, command, client=limited).what == "whatever"
    for i in range(70):
        store.settle(token, "x", command=f"filling {i}", result="x" * (1 << 20), client=limited)
    for command in (["GET", "other"], ["KEYS", "*"], ["FLUSHALL"], ["CONFIG", "GET", "*"], ["PUBLISH", "sg:{g}:ev", "x"],
                    ["EVAL", "return redis.call('get', 'other')", "0"]):
        with pytest.raises(redis.exceptions.ResponseError):
            limited.execute_command(*command)


def test_full_memory_refuses_new_leases_and_still_takes_old_ones_back(store):
    token = Token(store)
    answer = store.admit(token, "a" * 24)
    store.redis.config_set("maxmemory", 1)
    try:
        before = store.snapshot()
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            store.admit(token)
        assert store.snapshot() == before
        assert store.settle(token, "a" * 24, answer, used=10) == 1
        assert store.budget(token, answer.day)["used"] == 10
    finally:
        store.redis.config_set("maxmemory", "256mb")


# --- what is known of a command --------------------------------------------------------------------------------------

def test_what_is_known_of_a_command(timed):
    token, other = Token(timed), Token(timed, actor="bob")
    lease = lease_id()
    command = command_of(lease)
    assert timed.peek(token, command).code == "absent"
    answer = timed.admit(token, lease)
    assert timed.peek(token, command).code == "running"
    assert timed.peek(other, command).code == "absent"
    before = timed.snapshot()
    timed.peek(token, command)
    timed.peek(other, command)
    assert timed.snapshot() == before, "asking changes something"
    assert timed.admit(other, ends=command).code == "absent"
    assert not timed.redis.exists(f"sg:{{g}}:kill:{lease}")
    assert timed.admit(token, ends=command).code == "running"
    mark = f"sg:{{g}}:kill:{lease}"
    assert timed.redis.get(mark) == f"stop:{lease}", "it is killed before it was asked"
    for _ in range(2):
        assert timed.admit(token, ends=command).code == "ending"
        assert timed.redis.get(mark) == lease
    assert 0 < timed.redis.pttl(mark) <= 7_200_000
    assert timed.settle(token, lease, answer, used=5, command=command, result="200\n{}\n") == 1
    told = timed.peek(token, command)
    assert (told.code, told.what, told.granted_ms, told.running) == ("finished", "200\n{}\n", 0, 0)
    assert timed.peek(other, command).code == "absent"
    assert timed.peek(token, command, scope="exec:other").code == "scope"
    token.set(ip_allow=f"{HERE[:-1]}2/128")
    assert timed.peek(token, command).code == "network"


def test_a_look_tells_what_a_command_would_find(timed):
    """Of leases past their end, too, which stay as they are."""
    token = Token(timed, conc=2, aconc=5, bud_ms=10_000, bud_out=2**30, arate_n=5, arate_per_ms=60_000, aburst=3, shadow="network")
    lease = lease_id()
    timed.admit(token, lease, want=700)
    timed.clock += (700 + GRACE_MS) * 1000
    timed.admit(Token(timed), want=700)
    held = timed.redis.zadd(f"sg:{{g}}:c:{token.kid}", {f"{'f' * 24}:300:{date(timed.clock)}:1:0:0:0:0:out=10": timed.clock})
    before = timed.snapshot()
    told = timed.peek(token, command_of(lease))
    assert timed.snapshot() == before and held == 1
    assert (told.code, told.reaped, told.running, told.used, told.held, told.out_used, told.out_held) == (
        "absent", 0, 1, 700, 0, 2 * USUAL_OUT, 0)
    found = timed.admit(token, scope="other")
    assert found.reaped == 1 and {**vars(told), **{name: None for name in ("reply", "code", "reaped")}} == {
        **vars(found), **{name: None for name in ("reply", "code", "reaped")}}


@pytest.mark.parametrize("change, reason", [({"status": "revoked"}, "revoked"), ({"mac": mac_of("x" * 32)}, "bad-mac"), ({"conc": "x"}, "broken-record")])
def test_nobody_may_look_without_a_token_that_is_valid(timed, change, reason):
    token = Token(timed)
    token.set(**change)
    assert timed.peek(token).reply == timed.peek(token, "sessions").reply == [reason]


def test_a_key_starts_one_command(timed):
    token, other = Token(timed), Token(timed, actor="bob")
    lease = lease_id()
    command = command_of(lease)

    def ask(who=token, fingerprint="f00", lease=None, **more):
        lease = lease or lease_id()
        return timed.admit(who, lease, key="d1", fingerprint=fingerprint, command=command_of(lease), **more)

    answer = timed.admit(token, lease, key="d1", fingerprint="f00", command=command)
    assert answer.code == "granted"
    before = timed.snapshot()
    assert (ask().code, ask().what) == ("in-progress", command)
    assert ask(fingerprint="f01").code == "other-body"
    assert ask(scope="exec:other").code == "scope"
    assert timed.snapshot() == before, "a key that is known changes nothing"
    assert ask(other).code == "granted", "another token's key is another key"
    assert timed.settle(token, lease, answer, used=1, command=command, result="200\n{}") == 1
    assert (ask().code, ask().what) == ("replay", f"{command} 200\n{{}}")
    timed.redis.delete(f"sg:{{g}}:x:{command}")
    assert (ask().code, ask().what) == ("forgotten", command)
    assert ask(fingerprint="f01").code == "other-body"


@pytest.mark.parametrize("result", ["503 unrun\n{}", "0 unrun\n"])
def test_a_key_whose_command_did_not_run_may_start_another(timed, result):
    token, lease = Token(timed), lease_id()
    command = command_of(lease)
    answer = timed.admit(token, lease, key="d1", fingerprint="f00", command=command)
    timed.settle(token, lease, answer, refund=True, command=command, result=result)
    assert timed.peek(token, command).code == ("absent" if result[0] == "0" else "finished")
    second = lease_id()
    assert timed.admit(token, second, key="d1", fingerprint="f00", command=command_of(second)).code == "granted"
    assert timed.admit(token, key="d1", fingerprint="f00", command=command).what == command_of(second)


def test_a_key_without_its_command(timed):
    """The lease has ended by itself: the command may have run."""
    token, lease = Token(timed), lease_id()
    timed.admit(token, lease, want=1000, key="d1", fingerprint="f00", command=command_of(lease))
    timed.clock += (GRACE_MS + 2000) * 1000
    found = timed.admit(token, key="d1", fingerprint="f00", command=command_of(lease_id()))
    assert (found.code, found.what) == ("forgotten", command_of(lease))


def test_a_key_that_is_known_is_answered_beyond_the_limits(timed):
    token, lease = Token(timed, rate_n=1, rate_per_ms=3_600_000, burst=1), lease_id()
    answer = timed.admit(token, lease, key="d1", fingerprint="f00", command=command_of(lease))
    timed.settle(token, lease, answer, command=command_of(lease), result="200\n{}")
    assert timed.admit(token).code == "quota"
    assert timed.admit(token, key="d1", fingerprint="f00").code == "replay"
    assert timed.admit(token, key="d2", fingerprint="f00").code == "quota"
    assert timed.admit(token, key="d2", fingerprint="f00").code == "quota", "a refusal was remembered"


def test_only_the_first_end_counts(timed):
    """A settlement that is repeated, and one that comes after the lease ended by itself."""
    token, lease = Token(timed), lease_id()
    command = command_of(lease)
    answer = timed.admit(token, lease, want=1000)
    timed.clock += (GRACE_MS + 2000) * 1000
    timed.admit(token)
    assert timed.settle(token, lease, answer, command=command, result="first") == 0
    before = timed.snapshot()
    assert timed.settle(token, lease, answer, command=command, result="second") == 0
    assert timed.snapshot()[0] == before[0]
    assert timed.peek(token, command).what == "first"


def test_results_are_bounded_and_the_oldest_go_first(timed):
    token, size = Token(timed), 1 << 20
    for i in range(70):
        timed.clock += 1000
        timed.settle(token, "x", command=f"c{i}", result="x" * size)
    kept = [i for i in range(70) if timed.redis.exists(f"sg:{{g}}:x:c{i}")]
    assert kept == list(range(6, 70))
    assert timed.redis.hget("sg:{g}:xb", "bytes") == str(64 * size)
    assert timed.redis.zcard("sg:{g}:xs") == 64
    timed.clock += 3_600_001_000
    timed.settle(token, "x", command="later", result="y")
    assert (timed.redis.hget("sg:{g}:xb", "bytes"), timed.redis.zcard("sg:{g}:xs")) == ("1", 1)
    assert timed.redis.pttl("sg:{g}:xs") > 0 and timed.redis.pttl("sg:{g}:xb") > 0


def test_a_sum_that_is_wrong_heals(timed):
    token = Token(timed)
    timed.redis.hset("sg:{g}:xb", "bytes", 1 << 40)
    assert timed.settle(token, "x", command="c1", result="y") == 0
    assert timed.settle(token, "x", command="c2", result="y") == 0
    assert timed.redis.hget("sg:{g}:xb", "bytes") == "1" and timed.redis.exists("sg:{g}:x:c2")


# --- many at once ----------------------------------------------------------------------------------------------------

def in_threads(server, count, work):
    """`work(client, number)` in `count` threads that start together."""
    gate = threading.Barrier(count)

    def one(number):
        with redis.Redis(port=server.port, decode_responses=True) as client:
            gate.wait()
            return work(client, number)
    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        return list(pool.map(one, range(count)))


def test_concurrency_is_exact(server, store):
    token = Token(store, conc=7)
    answers = in_threads(server, 40, lambda client, _: [store.admit(token, client=client).code for _ in range(5)])
    assert sorted(sum(answers, [])) == ["granted"] * 7 + ["quota"] * 193
    assert store.redis.zcard(f"sg:{{g}}:c:{token.kid}") == 7


def test_a_budget_is_never_overspent(server, store):
    token = Token(store, bud_ms=10_000)
    answers = in_threads(server, 20, lambda client, n: [store.admit(token, want=700 + n, client=client) for _ in range(5)])
    granted = sum(a.granted_ms for a in sum(answers, []) if a.code == "granted")
    assert 10_000 - 720 < granted <= 10_000


def test_nothing_is_left_behind(server, store):
    token = Token(store, conc=5, aconc=4, bud_ms=10**9)

    def work(client, number):
        rnd, used = random.Random(number), 0
        for _ in range(60):
            lease = lease_id()
            answer = store.admit(token, lease, want=rnd.randrange(1, 2000), client=client)
            if answer.code == "granted":
                real = rnd.randrange(0, answer.granted_ms + 1)
                known = answer if rnd.random() < 0.7 else None
                results = [store.settle(token, lease, known, real, 1, client=client) for _ in range(rnd.randrange(1, 3))]
                assert results[0] == 1 and not any(results[1:])
                used += real
        return used
    day = store.admit(token, "f" * 24, want=1).day
    store.settle(token, "f" * 24)
    used = sum(in_threads(server, 16, work))
    spent = store.budget(token, day)
    assert (spent["used"], spent["held"]) == (used, 0)
    assert used > 0 and not store.leases(token) and not store.redis.exists("sg:{g}:ac:ann")


@pytest.mark.parametrize("name, time, output", [("budget", 3_000_000, 10**12), ("output-budget", 10**12, 500_000_000)])
def test_a_budget_after_10000_granted_commands_of_which_some_crash(timed, name, time, output):
    """`used` is what was really used, and all that was reserved by those that nobody settled; never more than the limit."""
    token = Token(timed, rate_n=1_000_000, burst=1_000_000, rate_per_ms=60_000, conc=20, bud_ms=time, bud_out=output, max_ms=2000)
    rnd, running, granted, crashed, late, violated = random.Random(7), [], 0, 0, 0, set()
    expected = collections.defaultdict(lambda: [0, 0])
    while granted < 10_000:
        lease, out = lease_id(), rnd.choice([1000, 50_000, USUAL_OUT // 4])
        answer = timed.admit(token, lease, want=rnd.randrange(1, 3000), usual_out=out)
        assert answer.used + answer.held <= time and answer.out_used + answer.out_held <= output
        violated.update(answer.violated.split(","))
        if answer.code == "granted":
            granted += 1
            if rnd.random() < 0.05:
                crashed += 1
                expected[answer.day][0] += answer.granted_ms
                expected[answer.day][1] += 2 * out
            else:
                running.append((lease, answer, out))
        while running and (len(running) > 8 or rnd.random() < 0.5):
            lease, answer, out = running.pop(rnd.randrange(len(running)))
            used, wrote = rnd.randrange(0, 2500), rnd.randrange(0, 3 * out)
            in_time = timed.settle(token, lease, answer if rnd.random() < 0.8 else None, used, wrote)
            assert timed.settle(token, lease, answer, used, wrote) == 0
            late += not in_time
            expected[answer.day][0] += min(used, answer.granted_ms) if in_time else answer.granted_ms
            expected[answer.day][1] += min(wrote, 2 * out) if in_time else 2 * out
        timed.clock += rnd.choice([0, SECOND, 2 * SECOND, 60 * SECOND])
    for _, answer, out in running:      # and a gateway that dies with all it has
        expected[answer.day][0] += answer.granted_ms
        expected[answer.day][1] += 2 * out
    timed.clock += (2000 + GRACE_MS) * 1000
    timed.admit(token, "f" * 24)
    timed.settle(token, "f" * 24)
    assert granted == 10_000 and crashed > 400 and late > 200 and len(expected) > 1 and violated == {"", name}
    for day, (used, wrote) in expected.items():
        spent = timed.budget(token, day)
        assert (spent["used"], spent["held"], spent["out"], spent["out_held"]) == (used, 0, wrote, 0)


def test_10000_wrong_tokens_leave_nothing(store):
    tokens = [Token(store, actor, kid=kid) for actor, kid in (("ann", None), ("bob", None))]
    stranger = Token(store)
    store.redis.delete(stranger.key)
    before = store.snapshot()
    for i in range(10_000):
        wrong = mac_of(f"{i:032d}")
        assert store.admit(stranger if i % 3 == 0 else tokens[i % 2], mac=wrong).reply == ["unknown" if i % 3 == 0 else "bad-mac"]
    assert store.snapshot() == before
