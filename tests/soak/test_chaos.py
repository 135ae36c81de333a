"""Three gateways on one pool while whatever can die, dies; at the end a table of what must never be.

SG_CHAOS_ROUNDS says how many deaths there are, SG_SEED which course it takes.
"""
import collections
import json
import os
import random
import signal
import threading
import time

import httpx
import pytest

import answers
from fault_mix import WHOLE, Case, check_starts, judge
from fleet import Fleet
from rig import until

ROUNDS = int(os.environ.get("SG_CHAOS_ROUNDS", "24"))
SEED = int(os.environ.get("SG_SEED", "1"))
MOST = 8
CLIENTS = 6
CALM = 2 * CLIENTS      # so many commands run between two rounds, so that each finds something to disturb
REST = 120              # seconds after the last fault in which all must be at rest
FLAGS = ("--checkpoint-delay", "50ms", "--restore-delay", "500ms", "--create-limit", "1000/1s", "--seed", str(SEED))
SETTINGS = {"pool_max": MOST, "pool_hot": 1, "pool_warm": 2, "pool_recycle": 1, "pool_wait_seconds": 20}

POLICY = "*/policy/network"
SESSION = "chaos"       # of each token that has one

# In each of these states a gateway is killed; the fault makes it last, or begin.
EDGES = [
    ("intent", "latency", {"ms": 300}), ("creating", "create_hang", {"delay_ms": 3000}), ("creating", "create_429", {}),
    ("preparing", "latency", {"ms": 500}), ("quarantine", "http_error", {"status": 500, "match": {"path": POLICY}}),
    ("warm", None, {}), ("hot", None, {}), ("leased", "cut_before_exit", {}),
    ("leased", "kill_vm", {"delay_ms": 50}), ("recycling", "create_429", {"rate": 1.0, "retry_after_seconds": 5}), ("destroying", "delete_500", {}),
    ("destroying", "latency", {"ms": 500}),
]
# What else happens, alone or while one is killed.
FAULTS = [("create_429", {}), ("create_hang", {"delay_ms": 3000}), ("create_500", {"created": True}), ("restore_nothing", {"rate": 0.5}),
          ("restore_error", {"rate": 0.5}), ("false_404", {}), ("delete_500", {}),
          ("delete_500", {"deleted": True}), ("http_error", {"status": 404}), ("http_error", {"status": 429, "limit": "requests", "retry_after_seconds": 1}),
          ("cut_request", {"after": True}), ("cut_after_start", {}), ("stall", {"delay_ms": 4000}), ("latency", {"ms": 12_000}),
          ("pause_under_socket", {"on": "start", "delay_ms": 50})]
RARE = {"restore_nothing", "restore_error"}     # few Sprites are restored here (docs/POOL.md)
OFTEN = 3               # what was set in so many rounds must have struck

pytestmark = pytest.mark.timeout(ROUNDS * 60 + 900)


class Marked(Case):
    """One in two looks for what an earlier command has left, and leaves something: only its own token's may be there."""

    def __init__(self, source, number, owner):
        super().__init__(source, number)
        self.owner = owner if source.random() < 0.5 else None
        if self.owner is not None:
            self.argv = ["bash", "-c", f"cat ~/.owner 2>/dev/null; echo {owner} > ~/.owner"]
            self.stdin, self.code, self.err, self.leaves, self.seconds = "", 0, "", False, 5


class Client(threading.Thread):
    def __init__(self, fleet, number):
        super().__init__()
        self.fleet, self.random = fleet, random.Random(f"{SEED} {number}")
        self.number, self.ends = number, threading.Event()
        self.seen, self.wrong, self.foreign = [], [], []

    def run(self):
        while not self.ends.is_set():
            self.number += 100
            self.one(self.random.randrange(len(self.fleet.tokens)))

    def one(self, owner):
        case = Marked(self.random, self.number, owner)
        response = self.ask(owner, case.body())
        if response is not None:
            self.judge(case, response)

    def ask(self, owner, body):
        """Through any gateway; None when that was killed."""
        gateway = self.random.choice(self.fleet.gateways)
        try:
            with httpx.Client(trust_env=False, timeout=60, base_url=gateway.url) as http:
                response = gateway.exec(json.dumps(body), token=self.fleet.tokens[owner], http=http)
        except httpx.TransportError:
            time.sleep(0.1)
            return None
        if response.status_code != 200:
            time.sleep(0.2)
        return response

    def judge(self, case, response):
        if response.status_code == 503 and response.json()["code"] == "policy-unavailable":
            return
        try:
            if case.owner is not None and response.status_code == 200:
                found = set(response.json()["stdout"].split())
                if found - {str(case.owner)}:
                    self.foreign.append(f"token {case.owner} found what {found} left")
                case.out = response.json()["stdout"]
            self.seen.append(judge(case, response))
        except (AssertionError, KeyError, ValueError) as failure:
            self.wrong.append(f"{case.argv}: {str(failure)[:300]}: {response.status_code} {response.text[:300]}")


class Kept:
    """Lines of a session's file: those that are there, and those that may be or come yet."""

    def __init__(self):
        self.sure, self.maybe = [], set()


class Keeper(Client):
    """Each of its commands leaves a line in a session's file and reads those of before. Two tokens have a session of one name."""

    def __init__(self, fleet, number):
        super().__init__(fleet, number)
        self.kept = [Kept(), Kept()]
        self.lines, self.told_lost, self.lost = 0, 0, []

    def one(self, owner):
        owner %= len(self.kept)
        kept, line = self.kept[owner], f"{owner}-{self.number}"
        kept.maybe.add(line)
        response = self.ask(owner, {"command": f"cat ~/.owner lines 2>/dev/null; echo {line} >>lines", "session": SESSION, "timeout_seconds": 5})
        self.ends.wait(0.2)     # in a hot session it would be most of what runs
        if response is None:
            return
        try:
            if response.status_code == 200:
                self.compare(owner, kept, line, answers.Ran(response))
            else:
                self.refused(kept, line, response.json())
        except (AssertionError, KeyError, ValueError) as failure:
            self.wrong.append(f"{line}: {str(failure)[:300]}: {response.status_code} {response.text[:300]}")

    def refused(self, kept, line, told):
        if told.get("outcome") != "unknown":
            kept.maybe.discard(line)
        if told["code"] == "session-lost":
            self.told_lost += 1
            kept.sure, kept.maybe = [], set()

    def compare(self, owner, kept, line, ran):
        self.seen.append((ran.outcome, ran.exec_id, ran.output_check, None))
        if ran.outcome != "exited" or ran.output_check not in WHOLE:
            return
        found = ran.stdout.split()
        self.foreign += [f"the session of token {owner} has {other}" for other in found if not other.startswith(f"{owner}-")]
        missing, strange = set(kept.sure) - set(found), set(found) - set(kept.sure) - kept.maybe
        if missing or strange or len(set(found)) != len(found) or (kept.sure and ran.sandbox["session"]["created"]):
            self.lost.append(f"token {owner}: of {kept.sure[-9:]} and perhaps {sorted(kept.maybe)[-9:]} {found[-9:]} is left")
        assert ran.exit_code == 0, ran.json
        self.lines += 1
        kept.sure = [*found, line]
        kept.maybe -= set(kept.sure)

    def close(self):
        for owner in range(len(self.kept)):
            answer = self.fleet.gateways[0].http.delete(f"/-/agent/exec/sessions/{SESSION}", headers={"Authorization": f"Bearer {self.fleet.tokens[owner]}"})
            assert answer.status_code in (200, 202, 404), answer.text


class Chaos:
    def __init__(self, rig):
        self.fleet = Fleet(rig, *FLAGS, tokens=3, sessions=1, **SETTINGS)
        self.random = random.Random(f"{SEED} chaos")
        self.done, self.kills, self.clients = [], collections.Counter(), []
        self.armed, self.struck = collections.Counter(), collections.Counter()      # rounds, times

    def arm(self):
        self.fleet.sprites.clear_faults()
        for name, more in self.random.sample(FAULTS, 3):
            rate = round(self.random.uniform(0.02, 0.2), 3)
            self.fleet.sprites.fault(name, **{"rate": 0.5 if self.armed[name] and not self.struck[name] else rate, **more})
            if name.startswith("restore"):
                self.fleet.sprites.fault("create_429", rate=0.5, retry_after_seconds=5)     # without it little is restored

    def again(self, victim):
        """Another process of the same instance in its place."""
        victim.process.wait(20)
        self.fleet.gateways[self.fleet.gateways.index(victim)] = self.fleet.start(victim.instance)

    def edge(self, state, fault, more):
        if fault:
            self.fleet.sprites.fault(fault, **{"rate": 0.5, **more})
        victim, end = None, time.monotonic() + 90     # a recovery and a list may be under way
        while not victim and time.monotonic() < end:
            victim = self.one_in(state)
        if victim:
            victim.signal(signal.SIGKILL)
            self.kills[state] += 1
            self.done.append(f"killed in {state}")
            self.again(victim)
        else:
            self.done.append(f"nothing is {state}")

    def one_in(self, state):
        """A gateway that has something in this state."""
        time.sleep(0.002)
        owners = {owner.partition("/")[0] for now, owner in self.fleet.records().values() if now == state}
        having = [gateway for gateway in self.fleet.gateways if gateway.instance in owners]
        return self.random.choice(having) if having else None

    def calm(self):
        """Without faults, until commands run again."""
        faults = self.fleet.sprites.faults()
        self.armed.update({fault["name"] for fault in faults})
        for fault in faults:
            self.struck[fault["name"]] += fault["hits"]
        self.fleet.sprites.clear_faults()

        def ran():
            return sum(outcome == "exited" for client in self.clients if not isinstance(client, Keeper) for outcome, *_ in list(client.seen))
        before = ran()
        until(lambda: ran() >= before + CALM, "commands run again", 240)

    def freeze(self, seconds):
        victim = self.random.choice(self.fleet.gateways)
        with victim.frozen():
            time.sleep(seconds)
        self.done.append(f"a gateway stood still for {seconds} s")

    def redis_again(self):
        self.fleet.redis = self.fleet.redis.again()
        self.done.append("Redis was killed and came back")

    def redis_frozen(self):
        seconds = self.random.choice([1, 8, 18])
        with self.fleet.redis.frozen():
            time.sleep(seconds)
        self.done.append(f"Redis stood still for {seconds} s")

    def flush(self):
        """The pool's records only: without tokens nothing would go on."""
        self.fleet.store.eval("return redis.call('DEL', unpack(redis.call('KEYS', ARGV[1])))", 0, "sg:{g}:pool:*")
        self.done.append("the records were flushed")

    def cut(self):
        for row in self.fleet.store.client_list():
            if row["addr"] != self.fleet.store.client_info()["addr"]:
                self.fleet.store.client_kill(row["addr"])
        self.done.append("all connections to Redis were cut")

    def round(self, number):
        self.arm()
        self.edge(*EDGES[number % len(EDGES)])
        self.random.choices([self.cut, self.redis_frozen, self.redis_again, self.flush, lambda: self.freeze(self.random.choice([3, 12, 20])),
                             lambda: time.sleep(2)], [3, 2, 1, 1, 2, 3])[0]()
        time.sleep(self.random.uniform(0, 2))
        self.calm()


def test_chaos(rig):
    print(f"seed {SEED}, {ROUNDS} rounds", flush=True)
    chaos = Chaos(rig)
    fleet, began = chaos.fleet, time.monotonic()
    fleet.until_ready()
    keeper = Keeper(fleet, 0)
    clients = chaos.clients = [keeper, *(Client(fleet, number) for number in range(1, CLIENTS))]
    for client in clients:
        client.start()
    try:
        for number in range(ROUNDS):
            chaos.round(number)
            print(f"{time.monotonic() - began:6.0f} s  {fleet.sprites.state()['max_alive']:2} Sprites at most; {'; '.join(chaos.done[-2:])}", flush=True)
    finally:
        for client in clients:
            client.ends.set()
        for client in clients:
            client.join()
    fleet.sprites.clear_faults()
    ended = time.monotonic()
    keeper.close()
    seen, wrong, foreign = (sum((getattr(client, name) for client in clients), []) for name in ("seen", "wrong", "foreign"))
    try:
        until(fleet.at_rest, "all is at rest", REST, interval=0.5)
    except AssertionError:
        pass        # the table tells
    starts = fleet.sprites.state()["starts"]
    table = {
        "leaked Sprites": len(fleet.leaked()), "stuck leases": len(fleet.stuck()) + fleet.leases(), "records of the dead": len(fleet.orphans()),
        "double runs": sum(count > 1 for count in starts.values()), "wrong answers": len(wrong) + len(check_starts(seen, starts)),
        "reuse across tokens": len(foreign), "lost of sessions, and not told": len(keeper.lost), "Sprites above the maximum": max(0, fleet.sprites.state()["max_alive"] - MOST),
    }
    outcomes = collections.Counter(outcome for outcome, *_ in seen)
    print(f"{len(seen)} commands {dict(outcomes)}, {fleet.sprites.state()['created']} Sprites, at rest {time.monotonic() - ended:.0f} s after the last fault")
    print(f"{keeper.lines} of them in sessions, which were told to be lost {keeper.told_lost} times")
    for what, count in table.items():
        print(f"  {what:28} {count}")
    edges = collections.Counter(state for state, *_ in (EDGES[number % len(EDGES)] for number in range(ROUNDS)))
    for state, rounds in edges.items():
        print(f"  killed in {state:18} {chaos.kills[state]} of {rounds}")
    print("faults that struck:", ", ".join(f"{name} {hits}" for name, hits in sorted(chaos.struck.items())))
    assert not any(table.values()), (table, wrong[:3], check_starts(seen, starts)[:3], foreign[:3], keeper.lost[:3], fleet.leaked(), fleet.stuck(), fleet.orphans())
    assert not [state for state in edges if not chaos.kills[state]], "nobody was killed there"
    idle = [name for name, rounds in chaos.armed.items() if rounds >= OFTEN and not chaos.struck[name] and name not in RARE]
    assert not idle, f"these never struck: {idle}"
    assert outcomes["exited"] > len(seen) / 2, outcomes
    assert keeper.lines > ROUNDS, "sessions were hardly used"
    for gateway in fleet.gateways:
        gateway.signal(signal.SIGTERM)
    for gateway in fleet.gateways:
        assert gateway.wait(120) == 0, gateway.log[-2000:]
    # Whoever stops leaves what is parked to the others, and when all stop at once to whoever comes next.
    assert not fleet.leaked() and set(fleet.states()) <= {"warm"}, fleet.records()
