"""The two Lua scripts against a real Redis: nothing between the test and the script."""
import concurrent.futures
import datetime
import random
import re
import threading
import time

import pytest
import redis

from policy_store import DAY_US, GRACE_MS, LIMITS, Model, Store, Token, date, documented_acl, lease_id, mac_of, pepper_id
from rig import Redis

NOON = 1_795_003_200_000_000        # 2026-11-18 12:00 UTC, µs
MIDNIGHT = NOON + DAY_US // 2
SECOND = 1_000_000


@pytest.fixture(scope="module")
def server():
    part = Redis()
    yield part
    part.kill()


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
    token = Token(timed, rate_n=60, rate_per_ms=60_000, burst=5, conc=3, max_ms=20_000, bud_ms=600_000, max_out=9, max_in=8, pol="p", ver=4)
    answer = timed.admit(token, want=30_000)
    assert answer.code == "granted"
    assert (answer.actor, answer.pol, answer.ver, answer.day) == ("ann", "p", 4, date(NOON))
    assert answer.granted_ms == 20_000, "the token's cap lowers what was asked for"
    assert (answer.left, answer.reset_us, answer.running, answer.held, answer.used) == (4, SECOND, 1, 20_000, 0)
    assert (answer.max_out, answer.max_in, answer.violated, answer.day_left_us) == (9, 8, "", DAY_US // 2)


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
    ({"exp": "soon"}, "expired"),
    ({"nbf": NOON // 1000 + 1}, "not-yet-valid"),
    ({"rate_n": None}, "broken-record"),
    ({"burst": "0"}, "broken-record"),
    ({"conc": "x"}, "broken-record"),
    ({"max_ms": None}, "broken-record"),
    ({"actor": None}, "broken-record"),
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
              "scope": {"scopes": "exec:run x"}, "command": {"cmds": "bash"}, "input": {"max_in": 100}}[name]
    token = Token(timed, **fields)
    assert timed.admit(token).code == "granted"
    return token, {"scope": {"scope": "other"}, "command": {"program": "sh"}, "input": {"size": 101}}.get(name, {})


@pytest.mark.parametrize("name", ["rate", "actor-rate", "concurrency", "actor-concurrency", "budget", "scope", "command", "input"])
def test_a_refusal_writes_nothing(timed, name):
    token, ask = refused_by(timed, name)
    before = timed.snapshot()
    for _ in range(5):
        answer = timed.admit(token, **ask)
        assert (answer.code, answer.violated) == ((name, "") if name in ("scope", "command", "input") else ("quota", name))
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
    assert timed.budget(token, first.day) == {"used": 0, "held": 0, "out": 0, "reqs": 1}
    assert timed.budget(token, second.day) == {"held": 1000, "reqs": 1}
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
    spent = {"used": 400, "held": 0, "out": 77, "reqs": 1}
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
    assert timed.budget(token, first.day) == {"used": 1500, "held": 0, "out": 0, "reqs": 1}
    assert timed.budget(token, second.day) == {"held": 2000, "reqs": 1}
    timed.clock += (2000 + GRACE_MS) * 1000 + DAY_US
    timed.admit(token)
    assert timed.budget(token, second.day) == {"used": 2000, "held": 0, "reqs": 1}


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
    (member, end), (second, _) = store.redis.zrange(f"sg:{{g}}:c:{token.kid}", 0, -1, withscores=True)
    assert re.fullmatch(r"a{24}:86399999:\d{8}:\d{16}:8571428:25714284:0:0", member) and ":86400000:" in second
    now = time.time() * 1000
    assert now + 86_399_999 < end < now + 86_399_999 + GRACE_MS + 5000


def test_the_shipped_script_cannot_be_told_the_time(store):
    token = Token(store, exp=int(time.time() * 1000) - 1000)
    script = store.redis.register_script(store.admit_text)
    args = [token.kid, token.mac, pepper_id(), "exec:run", "bash", 1000, lease_id()]
    assert script(keys=[token.key], args=[*args, 0, 0, 0, 0]) == ["expired"]


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
    assert store.settle(token, lease, answer, refund=True, client=limited) == 1
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


# --- the model -------------------------------------------------------------------------------------------------------

class Pair:
    """The scripts and the model, asked the same; they must never differ."""

    def __init__(self, store, rnd):
        self.store, self.rnd, self.model = store, rnd, Model()
        self.tokens = [Token(store, actor) for actor in ("ann", "ann", "bob")]
        for token in self.tokens:
            self.model.records[token.kid] = {"status": "active", "actor": token.actor, "ver": 1}
            self.change(token)
        self.given = []

    def change(self, token):
        rnd = self.rnd
        fields = {
            "rate_n": rnd.choice([1, 3, 7, 60]), "rate_per_ms": rnd.choice([1000, 10_000, 60_000]), "burst": rnd.choice([1, 2, 10]),
            "conc": rnd.choice([1, 2, 5]), "max_ms": rnd.choice([1000, 20_000]),
            "arate_n": rnd.choice([None, 1, 5]), "arate_per_ms": 1000, "aburst": rnd.choice([1, 4]), "aconc": rnd.choice([None, 1, 4]),
            "bud_ms": rnd.choice([None, 5000, 60_000]), "max_in": rnd.choice([None, 100]), "cmds": rnd.choice([None, None, "ls cat"]),
            "status": rnd.choice(["active"] * 5 + ["revoked"]), "exp": rnd.choice([None, None, (NOON + DAY_US) // 1000]),
        }
        token.set(**fields)
        record = self.model.records[token.kid]
        for name, value in fields.items():
            record.pop(name, None)
            if value is not None:
                record[name] = value

    def admit(self, token):
        rnd, lease = self.rnd, lease_id()
        want, program, size = rnd.choice([1, 500, 3000, 30_000]), rnd.choice(["ls", "cat", "bash"]), rnd.choice([0, 100, 101])
        answer = self.store.admit(token, lease, want, program, size=size)
        assert answer.reply == self.model.admit(token.kid, self.store.clock, lease, want, program, size)
        if answer.code == "granted":
            self.given.append((token, lease, answer))

    def settle(self):
        if self.given:
            token, lease, answer = self.rnd.choice(self.given[-12:])
            used, out, refund = self.rnd.randrange(25_000), self.rnd.randrange(100), self.rnd.random() < 0.5
            real = self.store.settle(token, lease, answer if self.rnd.random() < 0.6 else None, used, out, refund)
            assert real == self.model.settle(token.kid, token.actor, lease, used, out, refund, self.store.clock)

    def tick(self):
        self.store.clock += self.rnd.choice([0, 1, 999, 1000, 33_333, SECOND, 7 * SECOND, 20 * SECOND, 3600 * SECOND, -5 * SECOND])

    def compare(self):
        for (kind, name), leases in self.model.leases.items():
            assert dict(self.store.redis.zrange(f"sg:{{g}}:{kind}:{name}", 0, -1, withscores=True)) == leases
        for (kid, day), spent in self.model.spent.items():
            real = self.store.redis.hgetall(f"sg:{{g}}:b:{kid}:{day}")
            assert {name: int(real.get(name, 0)) for name in spent} == spent
        for (kind, name), (tat, tau) in self.model.tat.items():
            real = self.store.tat(f"{kind}:{name}")
            assert real is None or real == (tat, tau), "(a key that has ended was full, by Redis' own clock)"


@pytest.mark.parametrize("seed", range(12))
def test_scripts_and_model_agree(timed, seed):
    rnd = random.Random(seed)
    timed.clock = rnd.choice([NOON, MIDNIGHT - 40 * SECOND])
    pair = Pair(timed, rnd)
    for step in range(400):
        rnd.choices([lambda: pair.admit(rnd.choice(pair.tokens)), pair.settle, pair.tick, lambda: pair.change(rnd.choice(pair.tokens))],
                    [50, 25, 22, 3])[0]()
        if step % 20 == 0:
            pair.compare()
    pair.compare()
    assert pair.given
