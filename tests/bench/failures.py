"""How long the refusal of a token takes, by why it is refused: the times should not tell."""
import binascii
import http.client
import json
import random
import secrets
import statistics
import time

import servers
from figures import number, percentile, table
from processes import NotMeasured, Programs

EACH = 500
DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
BODY = json.dumps({"command": "true"}).encode()
BASIS = "unknown kid"


def measure(bench):
    with Programs(bench.folder) as programs:
        gateway = servers.gateway(programs, "gateway-failures", bench.base, cpu=bench.proxy_cpu, workers=1, pool_hot=0, pool_wait_seconds=0)
        kinds = tokens(bench.base.redis.port)
        times = {kind: [] for kind in kinds}
        connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=20)
        for i in range(-20, EACH):      # the first ones are not counted
            answers = set()
            for kind in random.sample(list(kinds), len(kinds)):
                token = kinds[kind]()
                began = time.perf_counter()
                answers.add(refusal(connection, token))
                if i >= 0:
                    times[kind].append((time.perf_counter() - began) * 1e6)
            if len(answers) != 1:
                raise NotMeasured(f"failures: answers differ: {answers}")
        connection.close()
    return {"us": times}


def tokens(redis_port):
    """What makes one of each kind. Those that are remembered as wrong for a while are new every time."""
    def made(change):
        minted = servers.token(redis_port, *(("--expires", "1s") if change == "expire" else ()))
        if change in ("revoke", "suspend"):
            servers.token_command(redis_port, change, minted["kid"])
        return minted
    good, revoked, suspended, expired = (made(change) for change in (None, "revoke", "suspend", "expire"))
    time.sleep(1.5)
    return {BASIS: lambda: sealed(word(16)), "wrong secret": lambda: sealed(good["kid"]), "revoked": lambda: revoked["token"],
            "suspended": lambda: suspended["token"], "expired": lambda: expired["token"]}


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


def show(result):
    rows = []
    basis = statistics.median(result["us"][BASIS])
    for kind, times in result["us"].items():
        low, middle, high = statistics.quantiles(times)
        rows.append([kind, number(low), number(middle), number(high), number(percentile(times, 95)), f"{middle / basis:.2f}"])
    return table([f"{EACH} of each, interleaved; µs", "quartile", "median", "quartile", "p95", f"median / {BASIS}"], rows)
