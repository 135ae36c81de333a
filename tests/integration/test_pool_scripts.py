"""The script of a shared pool against a real Redis and against its model."""
import collections
import math
import os
import random
import re
import time

import pytest
import redis

from policy_store import documented_acl
from pool_store import (BEAT, CROWD, FLEET, LATE, LEAVING, LIMIT, LINGER, MEMBER, PLACE, QUIET, RECOVERY, SECOND, SESSION, START, STRIKE, KeptSprite, PoolModel,
                        PoolStore, name_of, names_in, tenants_in)

MOST, MAY_RUN = 12, 7
PAUSE = 30 * SECOND     # so long after it was parked the provider pauses a Sprite
CHANNEL = 60 * SECOND   # so long a session's channel is kept
LEASE_LEFT = 55 * SECOND        # of a command, at least, when its gateway dies
KEPT_MOST = 3


@pytest.fixture
def timed(server):
    """A script that is told the time."""
    server.client.flushall()
    return PoolStore(server.client, clock=START)


def test_the_documented_acl_is_enough(server):
    """Every command that the script may use, in one short life."""
    server.client.flushall()
    server.client.execute_command(*documented_acl("gateway"))
    store = PoolStore(redis.Redis(port=server.port, username="gateway", password="pw", decode_responses=True))
    store.redis.execute_command("EVAL", store.text, 1, store.prefix + "inc", "join", "", "", 1, "a", "i")
    names = set(re.findall(r"redis\.call\('(\w+)'", store.text))
    allowed = {word[1:].upper() for word in documented_acl("gateway") if word.startswith("+")}
    assert names and names <= allowed, names - allowed


def test_the_shipped_script_cannot_be_told_the_time(server):
    server.client.flushall()
    store = PoolStore(server.client)
    _, incarnation, session, *_ = store.call("join", "", "", 1, "a", "i", 0, 0)
    assert abs(int(session.removeprefix("a/")) - time.time() * 1000) < 60_000
    assert server.client.pttl(store.prefix + "ses") == -1


def joined(store, instance="a", turn=1):
    """(incarnation, session)"""
    return tuple(store.call("join", "", "", turn, instance, "i")[1:3])


def listed(store, who, turn, names=()):
    assert store.call("sweep", *who, turn, turn, "last", len(names), *names)[0] == "ok"


def ready(timed, *instances):
    """Sessions in a pool that has recovered; the first of them has listed."""
    sessions = [joined(timed, instance) for instance in instances]
    listed(timed, sessions[0], 2)
    timed.clock += RECOVERY
    return [joined(timed, instance, 3) for instance in instances]


def test_nothing_is_created_or_taken_before_a_list_and_the_recovery(timed):
    who = joined(timed)
    for turn, clock in ((10, START), (11, START + SESSION - 1)):
        timed.clock = clock
        assert timed.call("reserve", *who, turn, name_of("a", turn), 10, 0, 0, 0)[0] == "recovering"
    who = joined(timed)
    timed.clock = START + RECOVERY
    assert timed.call("reserve", *who, 12, name_of("a", 12), 10, 0, 0, 0) == ["recovering", BEAT], "no list yet"
    listed(timed, who, 13)
    assert timed.call("reserve", *who, 14, name_of("a", 14), 10, 0, 0, 0) == ["ok"]


def rejoined(timed, instance, turn, known):
    """As after a flush; it beats."""
    who = tuple(timed.call("join", "that was before", f"{instance}/1", turn, instance, "i", known)[1:3])
    timed.call("beat", *who, turn + 1, *[0] * 9)
    return who


def test_after_a_flush_those_who_were_there_are_waited_for(timed):
    a = rejoined(timed, "a", 1, 2)
    timed.clock += RECOVERY
    a = joined(timed, "a", 5)
    listed(timed, a, 6)
    assert timed.call("reserve", *a, 7, name_of("a", 7), 10, 0, 0, 0)[0] == "recovering", "b may have asked for something"
    b = rejoined(timed, "b", 8, 2)
    assert timed.call("reserve", *b, 10, name_of("b", 10), 10, 0, 0, 0) == ["ok"]


def test_after_a_flush_those_who_stay_away_are_waited_for_in_vain(timed):
    a = rejoined(timed, "a", 1, 2)
    listed(timed, a, 3)
    timed.clock += RECOVERY + LATE
    a = joined(timed, "a", 5)
    assert timed.call("reserve", *a, 6, name_of("a", 6), 10, 0, 0, 0) == ["recovering", BEAT], "no list since"
    listed(timed, a, 7)
    assert timed.call("reserve", *a, 8, name_of("a", 8), 10, 0, 0, 0) == ["ok"]


def test_a_session_ends_and_is_never_renewed(timed):
    a, = ready(timed, "a")
    timed.clock += SESSION - 1
    assert timed.call("beat", *a, 20, *[0] * 9)[0] == "ok"
    timed.clock += SESSION
    for turn, op, args in ((21, "beat", [0] * 9), (22, "note", ["x:hot:0:0:0:0:0:"]), (23, "adopt", [25, 0]), (24, "restore", ["x:hot:0:0:0:0:0:"])):
        assert timed.call(op, *a, turn, *args) == ["fenced"]


def test_the_maximum_counts_what_is_listed_and_not_known(timed):
    a, = ready(timed, "a")
    timed.clock += STRIKE
    a = joined(timed, "a", 30)
    listed(timed, a, 31, [name_of("x", number) for number in range(3)])
    answers = [timed.call("reserve", *a, 40 + number, name_of("a", number), 5, 0, 0, 0)[0] for number in range(4)]
    assert answers == ["ok", "ok", "full", "full"]


def test_the_same_reservation_twice_is_one(timed):
    a, b = ready(timed, "a", "b")
    for _ in range(3):
        assert timed.call("reserve", *a, 20, name_of("a", 1), 1, 0, 0, 0) == ["ok"]
    assert timed.call("reserve", *b, 20, name_of("a", 1), 9, 0, 0, 0) == ["taken", 0]
    assert timed.call("note", *a, 21, f"{name_of('a', 1)}:gone:0:0:0:0:0:") == ["ok", "ok"]
    assert timed.call("reserve", *a, 20, name_of("a", 1), 1, 0, 0, 0) == ["stale"], "carried out late, when it is long over"
    assert not timed.state()["m"]


def lease(timed, who, first, tenant, count=1):
    for number in range(first, first + count):
        name = name_of(who[1].partition("/")[0], number)
        assert timed.call("reserve", *who, 2 * number, name, 100, 0, 0, 0) == ["ok"]
        timed.call("note", *who, 2 * number + 1, f"{name}:leased:0:{tenant:016x}:0:0:0:")


def test_a_beat_tells_what_tenants_hold_and_want_elsewhere(timed):
    a, b, c = ready(timed, "a", "b", "c")
    for who, first, tenant, count in ((a, 20, 1, 2), (b, 20, 1, 3), (b, 30, 2, 1), (c, 20, 3, 1)):
        lease(timed, who, first, tenant, count)
    timed.call("beat", *a, 9000, *[0] * 9, "0000000000000007 0000000000000001")
    timed.call("beat", *c, 9000, *[0] * 9, "0000000000000008")

    def told(who, turn):
        answer = timed.call("beat", *who, turn, *[0] * 9)
        return dict(zip(FLEET, answer[1:]))["leased"], {int(tenant, 16): held for tenant, held in tenants_in(answer).items()}
    assert told(a, 9001) == (5, {1: 3, 2: 1, 3: 1, 8: 0})
    assert told(b, 9001) == (3, {1: 2, 3: 1, 8: 0}), "a wants nothing any more"
    timed.clock += SESSION
    b = joined(timed, "b", 9002)
    assert told(b, 9003) == (7, {1: 5, 3: 1, 2: 1}), "what the dead have is not free, but they want nothing"


def test_of_too_many_tenants_those_that_hold_most_are_told(timed):
    a, b = ready(timed, "a", "b")
    lease(timed, a, 20, 99, 2)
    for tenant in range(40):
        lease(timed, a, 30 + tenant, tenant)
    answer = timed.call("beat", *b, 9000, *[0] * 9)
    assert dict(zip(FLEET, answer[1:]))["leased"] == 42
    assert [int(tenant, 16) for tenant in tenants_in(answer)] == [99, *range(31)] and not names_in(answer)


def test_only_what_is_parked_is_adopted_as_it_is(timed):
    a, b = ready(timed, "a", "b")
    for turn, state in enumerate(("intent", "hot", "warm", "leased", "destroying"), 20):
        timed.call("reserve", *a, turn, name_of("a", turn), 10, 0, 0, 0)
        timed.call("note", *a, turn + 20, f"{name_of('a', turn)}:{state}:0:0:0:0:0:")
    timed.clock += 10 * SECOND
    assert timed.call("beat", *b, 30, *[0] * 9)[0] == "ok"
    assert timed.call("adopt", *b, 31, 25, 0) == ["ok"], "the session of a has not ended"
    timed.clock += 5 * SECOND
    answer = timed.call("adopt", *b, 32, 25, 0)[1:]
    states = dict(zip(answer[::len(MEMBER)], answer[1::len(MEMBER)]))
    assert sorted(states.values()) == ["destroying"] * 4 + ["warm"] and states[name_of("a", 22)] == "warm"
    assert timed.call("adopt", *b, 32, 25, 0)[1:] == answer, "asked again after a lost answer"
    assert timed.call("take", *b, 33, name_of("a", 22), "preparing", "0a1b")[0] == "ok"


def test_what_became_a_sessions_is_nobodys_to_destroy(timed):
    a, b = ready(timed, "a", "b")
    told, died, stock = (name_of("a", number) for number in range(3))
    for turn, name in enumerate((told, died, stock), 20):
        timed.call("reserve", *a, turn, name, 10, 0, 0, 0)
        timed.call("note", *a, turn + 20, f"{name}:leased:0:0:0:0:0:")
    timed.redis.sadd(timed.prefix + "kept", told)
    assert sorted(timed.call("adopt", *a, 50, 25, 1)[1::len(MEMBER)]) == [died, stock], "its note was lost"
    timed.redis.sadd(timed.prefix + "kept", died)
    timed.clock += 10 * SECOND
    timed.call("beat", *b, 30, *[0] * 9)
    timed.clock += 5 * SECOND
    assert timed.call("adopt", *b, 31, 25, 0)[1::len(MEMBER)] == [stock], "its owner died before it could say so"
    for turn in range(100, 250, 2):
        timed.clock += 2 * SECOND
        if dict(zip(FLEET, timed.call("beat", *b, turn, *[0] * 9)[1:]))["list"]:
            assert timed.call("sweep", *b, turn + 1, turn + 1, "last", 3, told, died, stock) == ["ok"], "no stranger"
    assert list(timed.state()["m"]) == [stock]


def test_a_second_strike_comes_a_minute_later_and_a_list_deletes_no_record(timed):
    a, = ready(timed, "a")
    timed.call("reserve", *a, 20, name_of("a", 1), 10, 0, 0, 0)
    timed.call("note", *a, 21, f"{name_of('a', 1)}:hot:0:0:0:0:0:")
    stray, struck = name_of("x", 1), []
    for turn in range(100, 250, 2):
        timed.clock += 2 * SECOND
        fleet = dict(zip(FLEET, timed.call("beat", *a, turn, *[0] * 9)[1:]))
        if fleet["list"]:
            struck.append((timed.clock - START, timed.call("sweep", *a, turn + 1, turn + 1, "last", 1, stray)[1:]))
    first, second = struck[0], struck[1]
    assert first[1] == [] and second[0] - first[0] >= STRIKE
    assert dict(zip(second[1][::2], second[1][1::2])) == {stray: 0, name_of("a", 1): 1}
    assert {name: text.split(":")[0] for name, text in timed.state()["m"].items()} == {stray: "destroying", name_of("a", 1): "hot"}


def test_a_sweep_gives_at_most_25_strangers_to_be_destroyed(timed):
    a, = ready(timed, "a")
    strays, struck = {name_of("x", number) for number in range(60)}, []
    for turn in range(100, 400, 2):
        timed.clock += 2 * SECOND
        fleet = dict(zip(FLEET, timed.call("beat", *a, turn, *[0] * 9)[1:]))
        if fleet["list"]:
            names = sorted(strays.difference(*struck))
            struck.append(timed.call("sweep", *a, turn + 1, turn + 1, "last", len(names), *names)[1::2])
            assert timed.call("beat", *a, turn + 1, *[0] * 9)[1] == 60, "those that are left count against the maximum all the time"
    assert [len(told) for told in struck] == [0, 25, 25, 10, 0] and set().union(*struck) == strays


def test_the_later_process_of_an_instance_supersedes_the_earlier(timed):
    earlier, = ready(timed, "a")
    later = joined(timed, "a", 5)
    assert later[1] != earlier[1]
    for who, superseded in ((earlier, 1), (later, 0)):
        assert dict(zip(FLEET, timed.call("beat", *who, 6, *[0] * 9)[1:]))["superseded"] == superseded


def test_what_was_taken_is_told_until_it_is_known(timed):
    a, b = ready(timed, "a", "b")
    timed.call("reserve", *a, 20, name_of("a", 1), 10, 0, 0, 0)
    timed.call("note", *a, 21, f"{name_of('a', 1)}:warm:0:0:0:0:0:")
    timed.call("take", *b, 20, name_of("a", 1), "preparing", "0a1b")
    told = [names_in(timed.call("beat", *a, turn, *[0] * 8, known)) for turn, known in ((22, 0), (22, 0), (23, 21), (24, 22), (25, 24))]
    assert told == [[name_of("a", 1)]] * 3 + [[], []]


def test_money_is_counted_once_however_often_it_is_told(timed):
    a, b = ready(timed, "a", "b")
    for who, turn, total, day in ((a, 20, 5, 0), (a, 21, 12, 7), (a, 21, 12, 7), (b, 20, 100, 7), (b, 21, 101, 8), (a, 22, 12, 8)):
        assert timed.call("beat", *who, turn, 0, 0, 0, 0, total, 0, 0, 0, 0)[1 + FLEET.index("money")] == str(day)


def test_refusals_of_the_provider_are_known_to_all(timed):
    a, b = ready(timed, "a", "b")
    timed.call("beat", *a, 20, 0, 0, 0, 0, 0, 10, 60_000, 3000, 0)
    fleet = dict(zip(FLEET, timed.call("beat", *b, 20, *[0] * 9)[1:]))
    assert (fleet["limit"], fleet["window"], fleet["closed"]) == (10, 60_000, 3000)
    assert timed.call("reserve", *b, 21, name_of("b", 1), 10, 0, 10, 60_000) == ["closed", 3000]
    timed.clock += 3000
    for number in range(10):
        assert timed.call("reserve", *b, 22 + number, name_of("b", number), 100, 0, 10, 60_000) == ["ok"]
        timed.clock += 100
    assert timed.call("reserve", *a, 40, name_of("a", 1), 100, 0, 10, 60_000) == ["budget", 59_000]


def reserve(timed, who, turn, number, may_run, stock=0):
    return timed.call("reserve", *who, turn, name_of(who[1].partition("/")[0], number), 100, stock, 0, 0, may_run)


def beat(timed, who, turn, may_run=0):
    return dict(zip(FLEET, timed.call("beat", *who, turn, *[0] * 9, "", may_run)[1:]))


def pass_time(timed, span, turn, *sessions):
    """Nobody's session ends."""
    while span > 0:
        timed.clock += min(span, BEAT)
        span -= BEAT
        for who in sessions:
            beat(timed, who, turn)


def test_no_more_run_than_may_in_all_together(timed):
    a, b = ready(timed, "a", "b")
    assert [reserve(timed, who, 20 + number, number, 3) for number, who in enumerate((a, b, a))] == [["ok"]] * 3
    assert reserve(timed, b, 30, 30, 3) == ["crowded", PLACE] and reserve(timed, b, 31, 31, 4) == ["crowded", PLACE], "the least limit counts"
    timed.call("note", *a, 32, f"{name_of('a', 0)}:warm:0:0:0:0:0:", f"{name_of('a', 2)}:leased:0:0:0:0:0:")
    pass_time(timed, LINGER - 1, 33, a, b)
    assert reserve(timed, b, 34, 34, 3)[0] == "crowded", "what was parked may run on"
    assert timed.call("take", *b, 35, "", "preparing", "0a1b", 3, 0)[0] == "ok", "… and takes no other place"
    timed.call("note", *b, 36, f"{name_of('a', 0)}:warm:0:0:0:0:0:")
    pass_time(timed, LINGER, 37, a, b)
    assert reserve(timed, a, 38, 38, 3) == ["ok"]
    for turn, name in ((39, name_of("a", 0)), (40, "")):
        assert timed.call("take", *(a if not name else b), turn, name, "preparing", "0a1b", 3, 0) == ["crowded", PLACE]
    assert timed.call("take", *b, 41, name_of("a", 0), "destroying", "0a1b", 3, 0)[0] == "ok"
    timed.call("note", *b, 42, f"{name_of('a', 0)}:gone:0:0:0:0:0:", f"{name_of('b', 1)}:destroying:0:0:0:0:0:")
    assert reserve(timed, a, 43, 43, 3)[0] == "crowded", "it may run until it is gone"
    timed.call("note", *b, 44, f"{name_of('b', 1)}:gone:0:0:0:0:0:")
    assert reserve(timed, a, 45, 45, 3) == ["ok"]


def test_a_dead_gateways_places_are_free_when_its_sprites_are_gone(timed):
    a, b = ready(timed, "a", "b")
    assert reserve(timed, a, 20, 1, 1) == ["ok"]
    timed.clock += SESSION - 1
    beat(timed, b, 20)
    timed.clock += SESSION - 1
    assert reserve(timed, b, 21, 21, 1)[0] == "crowded"
    assert timed.call("adopt", *b, 22, 25, 0)[2] == "destroying"
    assert reserve(timed, b, 23, 23, 1)[0] == "crowded"
    timed.call("note", *b, 24, f"{name_of('a', 1)}:gone:0:0:0:0:0:")
    assert reserve(timed, b, 25, 25, 1) == ["ok"]


def test_a_limit_that_one_was_told_counts_for_all(timed):
    a, b = ready(timed, "a", "b")
    beat(timed, a, 20, may_run=1)
    assert [reserve(timed, b, turn, turn, 0)[0] for turn in (21, 22)] == ["ok", "crowded"]
    pass_time(timed, LIMIT - 1, 23, b)
    assert reserve(timed, b, 24, 24, 0)[0] == "crowded", "another one has listed by then"
    timed.clock += 1
    assert reserve(timed, b, 25, 25, 0)[0] == "ok"


def test_nothing_is_kept_ready_while_somebody_waits_for_a_place(timed):
    a, b = ready(timed, "a", "b")
    assert reserve(timed, a, 20, 1, 2, stock=9) == ["ok"]
    timed.call("note", *a, 21, f"{name_of('a', 1)}:warm:0:0:0:0:0:")
    pass_time(timed, LINGER, 22, a, b)
    assert [reserve(timed, a, turn, turn, 2)[0] for turn in (23, 24)] == ["ok", "ok"]
    assert reserve(timed, a, 25, 25, 2, stock=9) == ["crowded", BEAT] and beat(timed, b, 25)["crowd"] == 0, "nobody waits for stock"
    assert reserve(timed, b, 26, 26, 2) == ["crowded", PLACE]
    assert (beat(timed, a, 26)["crowd"], beat(timed, b, 27)["crowd"]) == (1, 0)
    timed.call("note", *a, 27, f"{name_of('a', 23)}:gone:0:0:0:0:0:")
    for who, turn in ((a, 28), (b, 28)):
        assert reserve(timed, who, turn, turn, 2, stock=9)[0] == "crowded", "a place is free, and not for this"
    assert timed.call("take", *a, 29, name_of("a", 1), "preparing", "0a1b", 2, 1)[0] == "crowded"
    assert reserve(timed, b, 29, 29, 2) == ["ok"]


ROOT = "sg:{g}:"


def write_kept(store, sprite, kept):
    """A session's Sprite, as admit.lua and session.lua write it."""
    store.redis.sadd(store.prefix + "kept", sprite)
    store.redis.hset(ROOT + "sn", sprite, f"p K {sprite}")
    store.redis.hset(ROOT + "s:K", sprite, f"{sprite}:{kept.lease}:{kept.used}:{START}:0")
    if kept.lease and kept.till:
        store.redis.zadd(ROOT + "c:K", {f"{kept.lease}:1000:20260101": kept.till})


def test_who_waits_for_a_place_has_it_in_turn(timed):
    a, b = ready(timed, "a", "b")
    assert [reserve(timed, a, turn, turn, 2) for turn in (20, 21)] == [["ok"]] * 2
    assert reserve(timed, b, 22, 22, 2)[0] == "crowded"
    timed.clock += PLACE
    timed.call("note", *a, 23, f"{name_of('a', 20)}:gone:0:0:0:0:0:")
    assert reserve(timed, a, 24, 24, 2) == ["crowded", PLACE], "a place is free, and it is not its turn"
    timed.clock += 1
    assert reserve(timed, b, 25, 25, 2) == ["ok"] and reserve(timed, b, 26, 26, 2)[0] == "crowded"
    timed.call("note", *b, 27, f"{name_of('b', 25)}:gone:0:0:0:0:0:")
    assert reserve(timed, b, 28, 28, 2) == ["crowded", PLACE], "the other one asked before"
    timed.call("note", *a, 29, f"{name_of('a', 21)}:gone:0:0:0:0:0:")
    assert reserve(timed, b, 30, 30, 2) == ["ok"], "there is one for each"
    assert reserve(timed, a, 31, 31, 2) == ["ok"]
    assert reserve(timed, b, 32, 32, 2)[0] == "crowded"
    timed.call("note", *a, 33, f"{name_of('a', 31)}:gone:0:0:0:0:0:")
    timed.clock += CROWD - 1
    assert reserve(timed, a, 34, 34, 2)[0] == "crowded"
    timed.clock += 1
    assert reserve(timed, a, 35, 35, 2) == ["ok"], "the other one has not asked again"
    assert reserve(timed, a, 36, 36, 2)[0] == "crowded"
    timed.clock += 1
    assert reserve(timed, b, 36, 36, 2)[0] == "crowded"
    timed.call("note", *b, 37, f"{name_of('b', 30)}:gone:0:0:0:0:0:")
    assert reserve(timed, b, 38, 38, 2) == ["crowded", PLACE], "who has not asked for so long begins anew"


def test_what_idles_makes_way_for_each_who_waits_once(timed):
    a, b, c = ready(timed, "a", "b", "c")
    for number, who in enumerate((a, a, c, c)):
        assert reserve(timed, who, 20 + number, number, 4) == ["ok"]
        timed.call("note", *who, 30 + number, f"{name_of(who[1][0], number)}:hot:0:0:0:0:0:")
    assert beat(timed, a, 40)["way"] == 0
    assert reserve(timed, b, 40, 40, 4)[0] == "crowded"
    assert beat(timed, a, 41)["way"] == 1, "for one at least"
    assert dict(zip(FLEET, timed.call("beat", *b, 41, 0, 0, 3, *[0] * 6)[1:]))["way"] == 0, "nobody else waits"
    assert beat(timed, a, 43)["way"] == 3
    timed.call("note", *a, 44, *[f"{name_of('a', number)}:destroying:0:0:0:0:0:" for number in (0, 1)])
    assert (beat(timed, c, 44)["way"], beat(timed, a, 45)["way"]) == (1, 3), "what it gives up itself it knows"
    for turn in range(50, 50 + LEAVING // SECOND):
        timed.clock += SECOND
        assert reserve(timed, b, turn, turn, 4)[0] == "crowded"
        assert beat(timed, a, turn)["way"] == 3
        assert beat(timed, c, turn)["way"] == (1 if turn < 49 + LEAVING // SECOND else 3), "it is not gone after so long"
    timed.call("note", *a, 70, f"{name_of('a', 0)}:gone:0:0:0:0:0:")
    assert beat(timed, c, 70)["way"] == 2, "one place is free"
    assert reserve(timed, b, 71, 71, 4) == ["ok"]
    assert beat(timed, c, 71)["way"] == 0, "it waits no more until it asks again"
    assert reserve(timed, b, 72, 72, 4)[0] == "crowded" and beat(timed, c, 72)["way"] == 3
    timed.redis.delete(timed.prefix + "limits")
    assert beat(timed, c, 73)["way"] == 0, "no limit is known any more"


def kept(timed, number, lease, used, till=0):
    sprite = name_of("a", number)
    write_kept(timed, sprite, KeptSprite(lease, till, used))
    return sprite


def test_what_sessions_use_runs(timed):
    a, = ready(timed, "a")
    kept(timed, 1, "lease", START, till=timed.clock + 10 * QUIET)
    kept(timed, 2, "", timed.clock)
    ended = kept(timed, 3, "", START)
    timed.redis.hset(ROOT + "sn", ended, "p")
    pass_time(timed, QUIET - 1, 20, a)
    assert reserve(timed, a, 21, 21, 3)[0] == "crowded", "one is in use, one was lately, and one has ended and is not gone yet"
    timed.clock += 1
    assert [reserve(timed, a, turn, turn, 3)[0] for turn in (22, 23)] == ["ok", "crowded"]


def test_a_session_whose_end_nobody_told_has_no_place_for_long(timed):
    a, = ready(timed, "a")
    kept(timed, 1, "lease", timed.clock - 10 * QUIET, till=timed.clock + SECOND)
    assert reserve(timed, a, 20, 20, 1)[0] == "crowded"
    pass_time(timed, BEAT + QUIET - 1, 21, a)
    assert reserve(timed, a, 22, 22, 1)[0] == "crowded", "its channel may have been kept until it was seen"
    timed.clock += 1
    assert reserve(timed, a, 23, 23, 1) == ["ok"]


@pytest.mark.parametrize("key", ["c:K", "s:K"])
def test_a_tokens_key_of_another_type_fails_no_call(timed, key):
    a, = ready(timed, "a")
    kept(timed, 1, "lease", START)
    timed.redis.delete(ROOT + key)
    timed.redis.set(ROOT + key, "broken")
    timed.clock += QUIET
    a = joined(timed, "a", 20)
    assert beat(timed, a, 21)["total"] == 1 and reserve(timed, a, 22, 22, 1)[0] == "crowded", "it may run"


def asleep(timed, who, turn, *numbers):
    """Sprites of sessions that were found not to run."""
    sprites = [kept(timed, number, "", timed.clock - QUIET) for number in numbers]
    beat(timed, who, turn)
    return sprites


def test_a_session_is_woken_when_it_may_run(timed):
    a, b = ready(timed, "a", "b")
    first, second = asleep(timed, a, 16, 1, 2)
    assert reserve(timed, a, 20, 20, 2) == ["ok"]
    for number in (1, 2):
        kept(timed, number, f"lease{number}", timed.clock, till=timed.clock + 10 * QUIET)
    assert timed.call("run", *a, 21, first, 2) == ["ok"], "the other one has no place yet"
    assert timed.call("run", *b, 21, second, 2) == ["crowded", PLACE] and beat(timed, a, 22)["crowd"] == 1
    assert timed.call("run", *a, 23, first, 2) == ["ok"], "it runs"
    timed.call("note", *a, 24, f"{name_of('a', 20)}:gone:0:0:0:0:0:")
    assert timed.call("run", *b, 24, second, 2) == ["ok"]
    assert timed.call("run", *b, 21, second, 2) == ["stale"], "carried out late"
    assert reserve(timed, b, 25, 25, 2)[0] == "crowded"


def test_a_session_that_runs_keeps_its_place(timed):
    """Where more run than may: one that is parked runs on while it is destroyed, and counts again."""
    a, b = ready(timed, "a", "b")
    assert reserve(timed, a, 20, 1, 2) == ["ok"]
    timed.call("note", *a, 21, f"{name_of('a', 1)}:warm:0:0:0:0:0:")
    pass_time(timed, LINGER, 22, a, b)
    sprite = kept(timed, 3, "lease", timed.clock, till=timed.clock + 10 * QUIET)
    assert reserve(timed, a, 23, 2, 2) == ["ok"]
    timed.call("take", *a, 24, name_of("a", 1), "destroying", "0a1b", 2, 0)
    assert timed.call("run", *b, 25, sprite, 2) == ["ok"]
    timed.call("note", *a, 25, f"{name_of('a', 1)}:gone:0:0:0:0:0:")
    assert reserve(timed, b, 26, 26, 2)[0] == "crowded"


def test_a_clock_set_back_makes_no_limit_last(timed):
    ready(timed, "a")
    timed.clock += 7200 * SECOND
    a = joined(timed, "a", 19)
    beat(timed, a, 20, may_run=1)
    timed.clock -= 3600 * SECOND
    beat(timed, a, 21)
    assert [reserve(timed, a, turn, turn, 0)[0] for turn in (22, 23)] == ["ok", "crowded"]
    pass_time(timed, LIMIT, 24, a)
    assert reserve(timed, a, 25, 25, 0)[0] == "ok"


class Call:
    """What one process asks, as often as it is asked."""

    def __init__(self, op, incarnation, session, turn, args):
        self.op, self.incarnation, self.session, self.turn, self.args = op, incarnation, session, turn, args


class World:
    """Redis and its model, the provider's Sprites, and the processes. Each call goes to both; they must not differ."""

    def __init__(self, store, rnd):
        self.store, self.rnd, self.model = store, rnd, PoolModel()
        self.calls = collections.deque(maxlen=30)
        self.sprites = set()
        self.users = collections.defaultdict(set)       # Sprite → processes that hold it open
        self.paused = {}        # Sprite → when, or from when on
        self.seen = collections.Counter()
        self.numbers = 0
        self.real_clock = store.clock       # without the jumps of Redis'
        self.in_use = {}        # Sprite of a session → the process whose command has it
        self.rests = {}         # … → until when nobody uses it
        self.channels = collections.defaultdict(dict)   # … → processes that keep a channel to it → until when

    def ask(self, call):
        told = self.store.call(call.op, call.incarnation, call.session, call.turn, *call.args)
        expected = self.model.call(self.store.clock, call.op, call.incarnation, call.session, call.turn, *call.args, told=told)
        assert told == expected, (call.op, call.args)
        self.seen[call.op, told[0]] += 1
        return told

    def pass_time(self, ms):
        self.store.clock += ms
        self.real_clock += ms

    # --- sessions ---

    def write(self, sprite, lease):
        """'' = its command has ended."""
        self.model.kept[sprite] = KeptSprite(lease, self.store.clock + 10**9 if lease else 0, self.store.clock)
        write_kept(self.store, sprite, self.model.kept[sprite])

    def lease(self):
        self.numbers += 1
        return f"lease{self.numbers}"

    def end_lease(self, sprite, at):
        """It is settled, or its gateway is dead: nobody tells of the session."""
        kept = self.model.kept[sprite]
        kept.till = at
        self.store.redis.zadd(ROOT + "c:K", {f"{kept.lease}:1000:20260101": at})

    def leave_running(self, sprite, till):
        """It is paused some time after its last channel is closed."""
        self.paused[sprite] = max(self.paused.get(sprite, 0), till + PAUSE)

    def compare(self):
        real, model = self.store.state(), self.model.state()
        assert {key: value for key, value in real.items() if value} == {key: value for key, value in model.items() if value}


class Process:
    """One gateway: asks, repeats what got no answer, follows the rules of docs/decisions/0012."""

    def __init__(self, world, instance):
        self.world, self.instance = world, instance
        self.incarnation = self.session = ""
        self.turn = 0
        self.members = {}       # name → state, as only it knows
        self.beat_at = None     # sent, of the last that was acknowledged
        self.money = 0
        self.list = self.superseded = False
        self.unanswered, self.acknowledged = None, 0

    def ask(self, op, *args):
        """None when the answer was lost; the same call is then made again before any other."""
        world = self.world
        if not self.unanswered:
            self.turn += 1
            self.unanswered = Call(op, self.incarnation, self.session, self.turn, args)
        call = self.unanswered
        world.calls.append(call)
        told = world.ask(call)
        if world.rnd.random() < 0.1:
            return None
        self.unanswered = None
        return call, told

    def step(self):
        rnd = self.world.rnd
        now = self.world.real_clock
        if self.unanswered:
            done = self.ask(None)
        elif not self.session:
            done = self.ask("join", self.instance, f"inc-{rnd.getrandbits(40):x}", rnd.randrange(5) if self.incarnation else 0)
        elif self.beat_at is None or now - self.beat_at >= BEAT:
            self.money += rnd.randrange(10**9)
            self.beat_sent = now
            done = self.ask("beat", rnd.randrange(3), sum(state == "leased" for state in self.members.values()), rnd.randrange(3),
                            rnd.randrange(9000), self.money, rnd.choice([0, 0, 10]), 60_000, rnd.choice([0] * 9 + [3000]), self.acknowledged,
                            " ".join(f"{tenant:016x}" for tenant in rnd.sample(range(4), rnd.randrange(3))), rnd.choice([0, MAY_RUN]))
        else:
            done = rnd.choices([self.reserve, self.move, self.take, self.use, self.keep, self.adopt, self.sweep, self.finish, self.leave],
                               [50, 120, 20, 40, 20, 20, 20, 50, 1])[0]()
        if done:
            self.answered(*done)

    def may_act(self):
        return self.beat_at is not None and self.world.real_clock - self.beat_at <= 2 * BEAT

    # --- what it may do ---

    def reserve(self):
        rnd, world = self.world.rnd, self.world
        if not self.may_act():
            return None
        world.numbers += 1
        name = name_of(self.instance, world.numbers, rnd.choice(["0a1b", "0a1b", "ffff"]))
        return self.ask("reserve", name, MOST, rnd.choice([0, 0, 6]), rnd.choice([0, 20]), 60_000, MAY_RUN)

    def entry(self, name, state):
        leased = state == "leased"
        return f"{name}:{state}:0:{f'{self.world.rnd.randrange(4):016x}' if leased else '0'}:{int(leased)}:1000:{5000 if leased else 0}:{'e-1' if leased else ''}"

    def move(self):
        """Some members go on, without asking."""
        rnd, world, moved = self.world.rnd, self.world, []
        further = {"intent": ["creating"], "creating": ["preparing"], "preparing": ["hot", "warm", "quarantine", "destroying"],
                   "quarantine": ["destroying"], "hot": ["leased", "warm", "destroying"], "leased": ["destroying", "hot", "recycling"],
                   "recycling": ["warm", "destroying"], "destroying": ["gone"]}
        for name, state in rnd.sample(sorted(self.members.items()), min(3, len(self.members))):
            if state == "warm" or (state == "intent" and not self.may_act()):
                continue
            to = rnd.choice(further[state])
            if to == "creating":
                world.sprites.add(name)
            if to == "gone":
                world.sprites.discard(name)
                del self.members[name]
            else:
                self.members[name] = to
            moved.append(self.entry(name, to))
            self.hold(name, to)
        return self.ask("note", *moved) if moved else None

    def hold(self, name, state):
        if state in ("preparing", "hot", "leased", "recycling"):
            self.world.users[name].add(self)
        else:
            self.world.users[name].discard(self)
        if state == "warm":
            self.world.paused.setdefault(name, self.world.real_clock + PAUSE)
        elif state not in ("destroying", "gone"):
            self.world.paused.pop(name, None)

    def take(self):
        rnd = self.world.rnd
        parked = [name for name, state in self.members.items() if state == "warm"]
        if not self.may_act():
            return None
        name = rnd.choice(parked) if parked and rnd.random() < 0.5 else ""
        if rnd.random() < 0.1 and self.world.model.members:
            name = rnd.choice(sorted(self.world.model.members))     # whosever it is
        return self.ask("take", name, rnd.choice(["preparing", "preparing", "destroying"]) if name else "preparing", "0a1b", MAY_RUN,
                        rnd.choice([0, 1]))

    def keep(self):
        """A command begins a session: its Sprite is no member any more."""
        world = self.world
        ready = sorted(name for name, state in self.members.items() if state in ("hot", "leased", "preparing") and name in world.sprites)
        if not ready or not self.may_act() or len(world.model.kept) == KEPT_MOST:
            return None
        name = ready[0]
        world.write(name, world.lease())
        world.in_use[name] = self
        del self.members[name]
        world.users[name].discard(self)
        return self.ask("note", self.entry(name, "gone"))

    def use(self):
        """A command of a session begins here, or ends."""
        rnd, world = self.world.rnd, self.world
        if not world.model.kept:
            return None
        sprite = rnd.choice(sorted(world.model.kept))
        kept = world.model.kept[sprite]
        if world.in_use.get(sprite) is self:
            self.end_use(sprite)
            world.channels[sprite][self] = world.real_clock + CHANNEL
            world.leave_running(sprite, world.real_clock + CHANNEL)
            return None
        if kept.till > world.store.clock or sprite in world.in_use or world.rests.get(sprite, 0) > world.real_clock:
            return None
        world.write(sprite, world.lease())
        world.in_use[sprite] = self
        if world.channels[sprite].pop(self, 0) > world.real_clock:
            world.paused.pop(sprite, None)
            world.seen["channel", ""] += 1
            return None
        return self.ask("run", sprite, MAY_RUN)

    def end_use(self, sprite):
        """What is said of it may be lost."""
        del self.world.in_use[sprite]
        self.world.rests[sprite] = self.world.real_clock + self.world.rnd.choice([0, 0, QUIET + 10 * SECOND])
        if self.world.rnd.random() < 0.2:
            self.world.end_lease(sprite, self.world.store.clock)
        else:
            self.world.end_lease(sprite, self.world.store.clock)
            self.world.write(sprite, "")

    def adopt(self):
        return self.ask("adopt", self.world.rnd.choice([1, 25]), self.world.rnd.choice([0, 0, 1]))

    def sweep(self):
        if not self.list:
            return None
        self.list = False
        names = sorted(self.world.sprites)
        if self.world.provider_errs and self.world.rnd.random() < 0.1:
            names = names[1:]
        return self.ask("sweep", self.turn + 1, "last", len(names), *names)

    def leave(self):
        return self.ask("leave")

    def finish(self):
        """Destroys what is to go."""
        for name, state in self.members.items():
            if state == "destroying":
                self.world.sprites.discard(name)
                del self.members[name]
                return self.ask("note", self.entry(name, "gone"))
        return None

    # --- what it is answered ---

    def answered(self, call, told):
        if call.op == "run" and told[0] != "ok" and self.world.in_use.get(call.args[0]) is self:
            self.end_use(call.args[0])      # it was not woken
        if told[0] == "flushed":
            self.session = ""
        elif told[0] == "fenced":
            self.ended()
        elif told[0] in ("ok", "revoked"):
            getattr(self, "on_" + call.op)(call, told)

    def ended(self):
        """What it had is adopted by others; it closes all and begins again with nothing."""
        for name in self.members:
            self.hold(name, "gone")
        self.members, self.session, self.beat_at = {}, "", None

    def on_join(self, call, told):
        again = self.incarnation
        self.incarnation, self.session = told[1], told[2]
        self.beat_at = None
        if again and again != self.incarnation:
            # What was parked may be another's by now, or remembered by another; what was not created yet may not be.
            self.members = {name: state for name, state in self.members.items() if state not in ("warm", "intent")}
        if again and again != self.incarnation and self.members:
            done = self.ask("restore", *[self.entry(name, state) for name, state in sorted(self.members.items())][:25])
            if done:
                self.answered(*done)

    def drop(self, entries, words):
        for entry, word in zip(entries, words):
            name = entry.split(":")[0]
            if word == "revoked" and name in self.members:
                self.hold(name, "gone")
                del self.members[name]

    def on_restore(self, call, told):
        self.drop(call.args, told[1:])

    on_note = on_restore

    def on_beat(self, call, told):
        fleet = dict(zip(FLEET, told[1:]))
        self.acknowledged = call.turn
        self.beat_at, self.list, self.superseded = self.beat_sent, bool(fleet["list"]), bool(fleet["superseded"])
        for name in names_in(told):
            if self.members.get(name) == "warm":
                del self.members[name]

    def on_reserve(self, call, told):
        self.members[call.args[0]] = "intent"

    def on_take(self, call, told):
        found = dict(zip(MEMBER, told[1:]))
        self.members[found["name"]] = found["state"]
        self.world.taken(self, found["name"])
        self.hold(found["name"], found["state"])

    def on_adopt(self, call, told):
        for at in range(1, len(told), len(MEMBER)):
            found = dict(zip(MEMBER, told[at:at + len(MEMBER)]))
            self.members.setdefault(found["name"], found["state"] if found["state"] in ("warm", "destroying") else "destroying")

    def on_run(self, call, told):
        if self.world.in_use.get(call.args[0]) is self:
            self.world.paused.pop(call.args[0], None)

    def on_sweep(self, call, told):
        for name, recorded in zip(told[1::2], told[2::2]):
            if recorded and self.members.get(name) in (None, "warm"):
                continue
            self.members[name] = "destroying"
            self.hold(name, "destroying")

    def on_leave(self, call, told):
        self.ended()


class Course(World):
    """A random course of several processes. `jumps`: Redis' clock jumps as well, which nothing but its answers is promised for."""

    def __init__(self, store, rnd, jumps, flushes):
        super().__init__(store, rnd)
        self.jumps, self.flushes = jumps, flushes
        self.provider_errs = jumps or not flushes       # the first list after a flush is all that is known of what the dead left
        self.processes = [Process(self, instance) for instance in ("a", "b", "b", "c")]
        self.most_alive = 0

    def taken(self, process, name):
        """The rule that all rests on: nobody else has it open."""
        if not self.jumps:
            assert not self.users[name] - {process}, f"{name} is taken by {process.instance} while another uses it"

    def crash(self):
        at = self.rnd.randrange(len(self.processes))
        dead = self.processes[at]
        for users in self.users.values():
            users.discard(dead)
        for sprite in [sprite for sprite, process in self.in_use.items() if process is dead]:
            del self.in_use[sprite]
            self.end_lease(sprite, self.store.clock + LEASE_LEFT)
            if sprite not in self.paused:
                self.leave_running(sprite, self.real_clock)
        for channels in self.channels.values():
            channels.pop(dead, None)
        self.processes[at] = Process(self, self.rnd.choice("abcd"))

    def pause(self):
        """One of them stands still for longer than its session."""
        sleeper = self.rnd.choice(self.processes)
        for _ in range(20):
            self.pass_time(SECOND)
            self.turn(besides=sleeper)

    def flush(self):
        self.store.redis.flushall()
        for sprite in self.model.kept:
            if sprite not in self.paused:
                self.leave_running(sprite, self.real_clock)
        self.model.flush()
        self.in_use.clear()
        self.channels.clear()
        self.calls.clear()
        self.seen["flush", ""] += 1

    def jump(self):
        self.store.clock += self.rnd.choice([-3600 * SECOND, -7 * SECOND, 7 * SECOND, 3600 * SECOND])

    def stray(self):
        """A Sprite that no record tells of."""
        self.numbers += 1
        self.sprites.add(name_of("x", self.numbers))

    def close(self):
        """A session has ended and its Sprite is destroyed."""
        free = sorted(self.model.kept.keys() - self.in_use.keys())
        if not free:
            return
        sprite, model, redis = self.rnd.choice(free), self.model, self.store.redis
        self.sprites.discard(sprite)
        del model.kept[sprite]
        model.asleep.discard(sprite)
        model.gone[sprite] = self.store.clock
        redis.zadd(self.store.prefix + "gone", {sprite: self.store.clock})
        redis.srem(self.store.prefix + "kept", sprite)
        redis.srem(self.store.prefix + "asleep", sprite)
        redis.hdel(ROOT + "sn", sprite)

    def late(self):
        """A call of before is carried out once more: of a connection that was thought dead."""
        if self.calls and self.calls[0].op != "join":
            self.ask(self.rnd.choice([call for call in self.calls if call.op != "join"]))

    def turn(self, besides=None):
        for process in self.processes:
            if process is not besides and process.session and process.beat_at is not None and self.real_clock - process.beat_at >= BEAT:
                process.step()

    def step(self):
        rnd = self.rnd
        rnd.choices(
            [lambda: rnd.choice(self.processes).step(), lambda: self.pass_time(rnd.choice([0, 1, 300, SECOND])), self.turn, self.crash, self.late,
             self.pause, self.stray, self.close, self.flush if self.flushes else self.turn, self.jump if self.jumps else self.turn],
            [800, 120, 120, 3, 30, 2, 2, 1, 1, 2])[0]()
        ours = {name for name in self.sprites if not name.startswith("sg-x-")}
        self.most_alive = max(self.most_alive, len(ours))
        if not self.jumps:
            assert len(ours) <= MOST, sorted(ours)
            running = sum(self.paused.get(name, math.inf) > self.real_clock for name in ours)
            assert running <= MAY_RUN, sorted(ours)


# More of them: SG_MODEL_STEPS=200000 (for each of the four).
STEPS = int(os.environ.get("SG_MODEL_STEPS", "6000"))


@pytest.mark.timeout(120 + STEPS // 20)
@pytest.mark.parametrize("seed, jumps, flushes", [(1, False, False), (2, False, True), (3, True, False), (4, True, True)])
def test_script_and_model_agree(timed, seed, jumps, flushes):
    course = Course(timed, random.Random(f"{seed} {STEPS}"), jumps, flushes)
    for step in range(STEPS):
        course.step()
        if step % 50 == 0:
            course.compare()
    course.compare()
    assert {op for op, word in course.seen if word == "ok"} >= {"join", "beat", "reserve", "note", "take", "adopt", "sweep", "leave"}, course.seen
    assert flushes or course.seen["run", "ok"], course.seen
    assert course.most_alive > MOST // 3 and (flushes or course.seen["reserve", "crowded"]), course.seen
