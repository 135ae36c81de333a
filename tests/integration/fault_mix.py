"""Many commands while every fault of the emulator strikes now and then; each answer is compared with what really happened.

What is right is known beforehand, since the commands are our own (their output and exit code), and from the emulator, which counts
the starts of each exec id.
"""
import collections
import json
import random
import sys
import threading
import time

import httpx

import answers
from rig import TOP, leases, until
from storm import Numbers

sys.path.append(str(TOP / "tests/emulator"))
from faults import KNOWN  # noqa: E402

CLIENTS = 8
MOST_PATIENT = 30       # seconds; clients come back when they are told to
SHOWN = 5               # of what went wrong
ROUND = 50              # commands; then the rates are drawn anew
HOT = 3
SETTINGS = {"pool_hot": HOT, "pool_max": 10, "pool_wait_seconds": 4, "pool_recycle": 1}
CHECKS = {"as set by default": {}, "everything compared": {"exec_verify_bytes": 1}}
WHOLE = ("counted", "verified", "recovered")
SHIMLESS = ("none", "unverified")       # of a command that exited: the Sprite has no shim, and the log says so
LOSSES = ("lose_bytes_above", "late_output", "fast_output")
SUSPECT = 256 << 10     # bytes; that much of a stream that was not compared is told
# Refused creations name a limit that leaves enough of them.
FLAGS = ("--checkpoint-delay", "50ms", "--restore-delay", "50ms", "--create-limit", "1000/1s")
WITHOUT_OCCASION = {"merged_frames"}        # the gateway never runs a command by POST
BY_CHANCE = {"restore_error", "restore_nothing"}        # few Sprites are restored while creations are not refused

# What one strike takes is kept short; the rest is as the emulator has it. One of several at random.
VARIANTS = {
    "create_429": [{}],
    "create_500": [{}, {"created": True}],
    "restore_nothing": [{}, {"restart": True}],
    "create_hang": [{"delay_ms": 500}, {"delay_ms": 3000}, {"delay_ms": 6000}],     # the last outlives the wait for a Sprite
    "starting_503": [{"retry_after_seconds": 1}],
    "delete_500": [{}, {"deleted": True}],
    "latency": [{"ms": 50}, {"distribution": "pareto", "ms": 20, "max_ms": 2000}, {"distribution": "exponential", "ms": 100, "max_ms": 3000}],
    # a refusal with 4xx that takes effect all the same is none: nobody could tell
    "http_error": [{"status": status, "after": after, "retry_after_seconds": 1} for status in (400, 404, 409, 429, 500, 502, 503, 504)
                   for after in ((False, True) if status >= 500 else (False,))]
    # of these one is enough: nothing is created for half a minute
    + [{"status": status, "count": 1} for status in (401, 403)],
    "cut_request": [{}, {"after": True}],
    **dict.fromkeys(["cut_before_start", "cut_after_start", "cut_before_output", "cut_after_output", "cut_before_exit", "cut_after_exit"],
                    [{}, {}, {"close": 1000}, {"close": 1011}]),
    "cut_lines": [{"lines": 0}, {"lines": 1}],
    "duplicate_exit": [{}, {"code": 0}, {"code": 99}],
    "stall": [{"delay_ms": 200}, {"delay_ms": 4000}],
    "blackhole": [{"delay_ms": 300}, {"delay_ms": 8000}, {"delay_ms": 300, "on": "start"}, {"delay_ms": 8000, "on": "start"}, {"delay_ms": 8000, "on": "open"}],
    "op_error": [{}, {"code": "op.not_found"}, {"code": "op.internal"}, {"acknowledged": True}],
    "fast_output": [{"history": 0, "delay_ms": 20}, {"history": 16384, "delay_ms": 200}, {"closed": True, "delay_ms": 200}],
    "slow_drip": [{"bytes": 4096, "delay_ms": 5}],
    "lose_bytes_above": [{"bytes": 100_000}, {"bytes": 70_000}, {"bytes": 5000}],
    "pause_under_socket": [{"on": on, "delay_ms": delay} for on in ("start", "open") for delay in (0, 50, 300)],
    "kill_vm": [{"delay_ms": delay} for delay in (0, 50, 300)],
    "late_output": [{"pieces": 1}, {"pieces": 2}],
    "clock_skew": [{"seconds": 3600}, {"seconds": -3600}],
}


def arm(sprites, source):
    """All of them; most are rare, three are frequent. A creation that hangs is less rare, since Sprites are used again and few are made."""
    frequent = source.sample(sorted(KNOWN), 3)
    sprites.clear_faults()
    for name in KNOWN:
        rate = source.uniform(0.1, 0.3) if name in frequent else source.uniform(0.03, 0.06) if name == "create_hang" else source.uniform(0, 0.02)
        sprites.fault(name, rate=round(rate, 3), **source.choice(VARIANTS.get(name, [{}])))


class Case:
    """A command, and what it prints and returns if it is let."""

    def __init__(self, source, number):
        self.stdin, self.leaves, self.seconds, self.out, self.err = "", False, 5, "", ""
        self.code = source.choice([0, 0, 1, 7, 42, 255])
        kind = source.choices(["echo", "both", "large", "cat", "late", "missing", "endless", "left"], [30, 10, 12, 12, 15, 3, 6, 6])[0]
        getattr(self, kind)(source, f"command {number}")

    def echo(self, source, text):
        self.out = f"{text}\n"
        self.argv = ["bash", "-c", f"echo {text}; exit {self.code}"]

    def both(self, source, text):
        self.out, self.err = f"{text}\n", f"to stderr {text}\n"
        self.argv = ["bash", "-c", f"echo {text}; echo to stderr {text} >&2; exit {self.code}"]

    def large(self, source, text):
        count = source.choice([30_000, 60_000, 200_000])
        self.out = "".join(f"{i}\n" for i in range(1, count + 1))
        self.argv = ["bash", "-c", f"seq {count}; exit {self.code}"]

    def cat(self, source, text):
        self.stdin = self.out = f"{text}\n" * source.choice([1, 1000, 20_000])
        self.argv = ["bash", "-c", f"cat; exit {self.code}"]

    def late(self, source, text):
        self.out = f"{text}\nlater\n"
        self.argv = ["bash", "-c", f"echo {text}; sleep {source.choice([0.1, 0.4])}; echo later; exit {self.code}"]

    def missing(self, source, text):
        self.argv, self.code, self.err = ["/no/such/program"], 127, None

    def endless(self, source, text):
        self.out, self.code, self.seconds = f"{text}\n", None, 0.5
        self.argv = ["bash", "-c", f"echo {text}; sleep 60"]

    def left(self, source, text):
        self.leaves = True
        self.late(source, text)

    def body(self):
        return {"argv": self.argv, "stdin": self.stdin, "timeout_seconds": self.seconds, "max_output_bytes": 4 << 20}


class Client(threading.Thread):
    def __init__(self, gateway, tokens, numbers, start, seed):
        super().__init__()
        self.gateway, self.tokens, self.numbers, self.first = gateway, tokens, numbers, start
        self.random = random.Random(seed)
        self.seen, self.failures = [], []       # (outcome, exec id, what the output check says, whether its output is whole)

    def run(self):
        try:
            with httpx.Client(trust_env=False, timeout=60, base_url=self.gateway.url) as http:
                while (left := next(self.numbers, None)) is not None:
                    self.one(http, Case(self.random, self.first + left))
        except Exception as failure:        # noqa: BLE001  shown by the test
            self.failures.append(repr(failure))

    def one(self, http, case):
        ask = {"token": self.random.choice(self.tokens), "http": http, "body": json.dumps(case.body())}
        if case.leaves:
            self.leave(case, ask)
            return
        response = self.gateway.exec(**ask)
        try:
            self.seen.append(judge(case, response))
        except (AssertionError, KeyError, ValueError) as failure:
            self.failures.append(f"{case.argv}: {str(failure)[:500]}: {response.status_code} {response.text[:600]}")

        if response.status_code == 503:
            time.sleep(min(int(response.headers["Retry-After"]), MOST_PATIENT))

    def leave(self, case, ask):
        with httpx.Client(trust_env=False, timeout=self.random.choice([0.01, 0.1, 0.3]), base_url=self.gateway.url) as http:
            try:
                self.seen.append(judge(case, self.gateway.exec(**{**ask, "http": http})))
            except httpx.TimeoutException:
                self.seen.append(("left", None, None, None))


def judge(case, response):
    """(outcome, exec id, output check, whether the output is whole) of an answer that may be true; what the emulator has to say is
    compared later.
    """
    if response.status_code == 200:
        ran = answers.Ran(response)
        check_ran(case, ran)
        return ran.outcome, ran.exec_id, ran.output_check, is_whole(case, ran)
    body = answers.unknown(response) if response.status_code == 502 else answers.not_started(response)
    if body["outcome"] == "unknown":
        check_part(case, body)
    return body["outcome"], body["exec_id"], None, None


def is_whole(case, ran):
    return ran.stdout == case.out and case.err in (None, ran.stderr)


def check_ran(case, ran):
    suspect = max(ran.stdout_bytes, ran.stderr_bytes) >= SUSPECT
    if ran.output_check in SHIMLESS:
        assert (ran.output_check == "unverified") == suspect, f"{ran.output_check} of {ran.stdout_bytes} and {ran.stderr_bytes} bytes"
    if ran.outcome != "exited":
        assert ran.outcome == "timed_out", f"nobody canceled it: {ran.outcome}"
        check_part(case, ran.json)
        return
    assert case.code is not None, "it cannot have ended by itself"
    assert ran.exit_code == case.code, f"exit code {ran.exit_code} instead of {case.code}"
    if ran.output_check in WHOLE:
        assert ran.stdout == case.out, f"stdout has {ran.stdout_bytes} bytes of {len(case.out)}, and the check says {ran.output_check}"
        assert case.err is None or ran.stderr == case.err, f"stderr: {ran.stderr[:100]!r}"
        return
    assert ran.output_check in ("incomplete", "failed", *SHIMLESS), f"no output is as large: {ran.output_check}"
    check_part(case, ran.json)
    if ran.output_check == "incomplete":
        check_losses(case, ran.json)


def check_losses(case, body):
    """How much is missing is known."""
    for name, wrote in (("stdout", case.out), ("stderr", case.err)):
        if wrote is not None:
            assert body[f"{name}_bytes"] == len(wrote), f"{name}_bytes is {body[f'{name}_bytes']}, not {len(wrote)}"
            lost = len(wrote) - len(body[name])
            assert (body[f"{name}_lost_bytes"], body[f"{name}_truncated"]) == (lost, lost > 0), f"{lost} bytes of {name} are missing"


def check_part(case, body):
    assert case.out.startswith(body["stdout"]), f"stdout is none of this command: {body['stdout'][:100]!r}"
    assert case.err is None or case.err.startswith(body["stderr"]), f"stderr is none of this command: {body['stderr'][:100]!r}"


def check_starts(seen, starts):
    """What the emulator knows of each command that was answered, and of all others."""
    wrong = [f"{exec_id} was started {count} times" for exec_id, count in starts.items() if count > 1]
    for outcome, exec_id, *_ in seen:
        count = starts.get(exec_id, 0) if exec_id else None
        if (outcome == "exited" and count != 1) or (outcome == "timed_out" and count != 1) or (outcome == "not_started" and count):
            wrong.append(f"{exec_id}: {outcome}, with {count} starts")
    return wrong


def mix(rig, commands, seed, settings):
    """Runs them; returns how often each outcome came and each fault struck."""
    print(f"seed {seed}", flush=True)
    emulator, store = rig.emulator(*FLAGS, "--seed", str(seed)), rig.redis()
    gateway = rig.gateway(redis=store, emulator=emulator, **SETTINGS, **settings)
    tokens = [gateway.token, *(rig.mint(store)["token"] for _ in range(2))]
    gateway.until_ready()
    source, sprites = random.Random(f"{seed} faults"), emulator.view
    seen, failures, struck, began = [], [], dict.fromkeys(KNOWN, 0), time.monotonic()
    for start in range(0, commands, ROUND):
        arm(sprites, source)
        numbers = Numbers(min(ROUND, commands - start))
        clients = [Client(gateway, tokens, numbers, start, f"{seed} {start} {i}") for i in range(CLIENTS)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
            seen += client.seen
            failures += client.failures
        for name in KNOWN:
            struck[name] += sprites.hits(name)
    took = time.monotonic() - began
    sprites.clear_faults()
    outcomes = dict(sorted(collections.Counter(outcome for outcome, *_ in seen).items()))
    checks = collections.Counter(check for outcome, _, check, _ in seen if outcome == "exited")
    parts = collections.Counter(check for outcome, _, check, whole in seen if outcome == "exited" and not whole)
    shimless = gateway.log.count("the shim cannot be run there")
    print(f"{len(seen)} commands in {took:.0f} s: {outcomes}; outputs: {dict(checks)}, not whole of them: {dict(parts)}; {shimless} times no shim; {sprites.state()['created']} Sprites; faults: {struck}", flush=True)
    recover(gateway, sprites, store)
    failures += check_starts(seen, sprites.state()["starts"])
    assert not failures, f"{len(failures)} wrong, seed {seed}: {failures[:SHOWN]}"
    assert len(seen) == commands
    assert sum(checks[check] for check in SHIMLESS) <= shimless, f"nothing is known of outputs of Sprites with a shim: {checks}, {shimless} without"
    assert sum(parts.values()) <= sum(struck[name] for name in LOSSES), f"bytes are missing that no fault has taken: {parts}"
    assert shimless <= 0.1 * sprites.state()["created"], f"{shimless} Sprites without a shim"
    # what is compared takes a second command, which is struck as well
    most = 0.3 if "exec_verify_bytes" in settings else 0.12
    assert checks["failed"] <= most * outcomes["exited"], f"of too many outputs nothing is known: {checks}"
    return outcomes, struck


def recover(gateway, sprites, store):
    """By itself; then nothing is left of a drain."""
    gateway.until_ready(90)
    # what struck while there were faults may come true a little later
    until(lambda: gateway.exec(command="echo well; exit 7").json().get("exit_code") == 7, "a command runs")
    until(lambda: gateway.metrics().get("spritegate_exec_running") == 0, "no command is under way")
    until(lambda: gateway.metrics().get("spritegate_exec_settlements_pending") == 0, "nothing is left to settle")
    until(lambda: leases(store.client) == 0, "no lease is held")
    gateway.signal(15)
    assert gateway.wait(60) == 0, gateway.log[-3000:]
    left = sprites.names()
    assert not left, "Sprites are left behind:\n" + "\n".join(line for line in gateway.log.splitlines() if any(name in line for name in left))
