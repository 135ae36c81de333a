"""Does the time of a refusal tell why a token is refused?

Every round sends two of each kind, in random order: two halves of the same kind differ by nothing but noise, which is so measured in the
same run. Judged are medians; what a difference of them may be by chance is found by drawing the rounds again (bootstrap).
"""
import binascii
import http.client
import json
import random
import secrets
import statistics
import time

import redis

import servers
from figures import number, table
from processes import NotMeasured, Programs

ROUNDS = 2500       # so 15,000 wrong tokens
DRAWS = 400
SIGMAS = 6
STRANGERS = ("unknown kid", "wrong secret", "other pepper")     # what can be sent without a secret
FLOOR_US = {"stranger": 10, "holder": 30}
BLIND_US = 60       # a run in which more than this would not count has found nothing when it finds nothing
DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
BODY = json.dumps({"command": "true"}).encode()


def measure(bench):
    with Programs(bench.folder) as programs:
        gateway = servers.gateway(programs, "gateway-failures", bench.base, cpu=bench.proxy_cpu, workers=1, pool_hot=0, pool_wait_seconds=0,
                                  redis_timeout_ms=1000)
        kinds = tokens(bench.base.redis.port)
        times = {(kind, half): [] for kind in kinds for half in "ab"}
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=20)
        with redis.Redis(port=bench.base.redis.port) as store:
            before = set(store.scan_iter())
            for i in range(-20, ROUNDS):      # the first ones are not counted
                answers = set()
                for kind, half in random.sample(list(times), len(times)):
                    token = kinds[kind]()
                    began = time.perf_counter()
                    answers.add(refusal(connection, token))
                    if i >= 0:
                        times[kind, half].append(round((time.perf_counter() - began) * 1e6, 1))
                if len(answers) != 1:
                    raise NotMeasured(f"failures: answers differ: {answers}")
            made = len(set(store.scan_iter()) - before)
        connection.close()
    compared = compare(times)
    for each in compared:
        if abs(each["halves_us"]) > SIGMAS * each["halves_sigma_us"]:
            raise NotMeasured(f"failures: two halves of the same kind differ: {each}")
        if abs(each["us"]) <= bar_us(each) > BLIND_US:
            raise NotMeasured(f"failures: too much noise to tell anything: {each}")
    return {"us": {kind: sorted(times[kind, "a"] + times[kind, "b"]) for kind in kinds}, "compared": compared, "keys_made": made}


def compare(times):
    """Of each kind how far its median is from those of the others, and its halves' from each other, with their standard deviations."""
    kinds = list(dict.fromkeys(kind for kind, _ in times))
    rounds = range(len(times[kinds[0], "a"]))
    found = differences(times, kinds, rounds)
    drawn = [differences(times, kinds, random.choices(rounds, k=len(rounds))) for _ in range(DRAWS)]
    spread = {name: statistics.stdev(one[name] for one in drawn) for name in found}
    chance = max(abs(us) for (what, *_), us in found.items() if what == "halves")
    return [{"kind": names[0], "from": names[1], "us": us, "sigma_us": spread[what, *names], "chance_us": chance,
             "halves_us": found["halves", names[0]], "halves_sigma_us": spread["halves", names[0]]}
            for (what, *names), us in found.items() if what == "kinds"]


def differences(times, kinds, rounds):
    halves = {each: statistics.median(us[i] for i in rounds) for each, us in times.items()}
    middle = {kind: statistics.median(times[kind, half][i] for half in "ab" for i in rounds) for kind in kinds}
    found = {("halves", kind): halves[kind, "a"] - halves[kind, "b"] for kind in kinds}
    for kind in STRANGERS[1:]:
        found["kinds", kind, STRANGERS[0]] = middle[kind] - middle[STRANGERS[0]]
    for kind in kinds:
        found["kinds", kind, "the others"] = middle[kind] - statistics.mean(middle[other] for other in kinds if other != kind)
    return found


def tokens(redis_port):
    """What makes one of each kind. Those that are remembered as wrong for a while are new every time."""
    def made(change):
        minted = servers.token(redis_port, *(("--expires", "1s") if change == "expire" else ()))
        if change in ("revoke", "suspend"):
            servers.token_command(redis_port, change, minted["kid"])
        return minted
    good, elsewhere, revoked, suspended, expired = (made(change) for change in (None, None, "revoke", "suspend", "expire"))
    with redis.Redis(port=redis_port) as store:
        store.hset("sg:{g}:k:" + elsewhere["kid"], "pep", word(8))
    time.sleep(1.5)
    return {STRANGERS[0]: lambda: sealed(word(16)), STRANGERS[1]: lambda: sealed(good["kid"]), STRANGERS[2]: lambda: sealed(elsewhere["kid"]),
            "revoked": lambda: revoked["token"], "suspended": lambda: suspended["token"], "expired": lambda: expired["token"]}


def word(length):
    return "".join(secrets.choice(DIGITS) for _ in range(length))


def sealed(kid):
    text = f"sgt_{kid}_{word(32)}"
    rest, digits = binascii.crc32(text.encode()), ""
    for _ in range(6):
        rest, digit = divmod(rest, 62)
        digits = DIGITS[digit] + digits
    return text + digits


def refusal(connection, token):
    """Status, names of fields and body without what is the answer's own: the same for all."""
    connection.request("POST", "/-/agent/exec", BODY, {"Content-Type": "application/json", "Authorization": f"Bearer {token}"})
    response = connection.getresponse()
    body = response.read()
    if response.status != 401:
        raise NotMeasured(f"failures: {response.status}: {body[:300]}")
    return response.status, tuple(response.headers), len(body)


def bar_us(each):
    """What a difference must be above to count: what chance could do, what the same kind differs by from itself, and the floor."""
    floor = FLOOR_US["stranger" if each["from"] in STRANGERS else "holder"]
    return max(SIGMAS * each["sigma_us"], each["chance_us"], floor)


def missed(result):
    if result["keys_made"]:
        yield f"{result['keys_made']} keys in Redis after wrong tokens that were not there before"
    for each in result["compared"]:
        if abs(each["us"]) > bar_us(each):
            yield f"{each['kind']}, from {each['from']}: {each['us']:+.1f} µs, may be {bar_us(each):.1f}"


def show(result):
    rows = []
    for kind, times in result["us"].items():
        low, middle, high = statistics.quantiles(times)
        halves = next(each["halves_us"] for each in result["compared"] if each["kind"] == kind)
        rows.append([kind, number(low), number(middle), number(high), f"{halves:+.1f}"])
    compared = [[f"{each['kind']}, from {each['from']}", f"{each['us']:+.1f}", f"{SIGMAS * each['sigma_us']:.1f}", f"{bar_us(each):.1f}"]
                for each in result["compared"]]
    return "\n\n".join([
        table([f"{2 * ROUNDS} of each; µs", "quartile", "median", "quartile", "of its halves"], rows),
        table(["medians, µs", "apart", f"{SIGMAS} sigma", "may be"], compared),
        f"{len(STRANGERS) * 2 * ROUNDS} wrong tokens have made {result['keys_made']} keys in Redis"])
