"""What a refused command costs: no token, a revoked one, one whose limit is used up."""
import http.client
import json

import servers
from figures import median_of, number, table
from load import loaded
from processes import NotMeasured, Programs

CONNECTIONS = 64
BODY = json.dumps({"command": "true"})
SCRIPT = "wrk.method = 'POST'\nwrk.body = '{}'\ndofile('{}')\n"


def measure(bench):
    with Programs(bench.folder) as programs:
        gateway = servers.gateway(programs, "gateway-refusals", bench.base, cpu=bench.proxy_cpu, workers=1, pool_hot=0)
        cases = {"401, no token": (None, 401), "401, revoked token": (revoked(bench), 401),
                 "429, rate used up": (used_up(bench, gateway), 429)}
        script = bench.folder / "refusals.lua"
        script.write_text(SCRIPT.format(BODY, servers.TOP / "tests/bench/wrk.lua"), encoding="utf-8")
        rounds = {name: [] for name in cases}
        for _ in range(bench.refusal_rounds):
            for name, (token, wanted) in cases.items():
                expect(gateway, token, wanted)
                rounds[name].append(loaded(gateway, "/-/agent/exec", CONNECTIONS, 1, statuses_ok=False,
                                           beside=[bench.base.redis], cpu=bench.load_cpu, script=script,
                                           headers=headers(token)))
                expect(gateway, token, wanted)
    return {"rounds": rounds}


def headers(token):
    return {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}


def revoked(bench):
    made = servers.token(bench.base.redis.port)
    servers.token_command(bench.base.redis.port, "revoke", made["kid"])
    return made["token"]


def used_up(bench, gateway):
    """A token whose one command a day has run: one that could not be started would be given back."""
    token = servers.token(bench.base.redis.port, "--rate", "1/1d", "--burst", "1")["token"]
    expect(gateway, token, 200)
    return token


def ask(gateway, token):
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=20)
    connection.request("POST", "/-/agent/exec", BODY, headers(token))
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response.status, body


def expect(gateway, token, wanted):
    status, body = ask(gateway, token)
    if status != wanted:
        raise NotMeasured(f"refusals: {status} instead of {wanted}: {body[:300]}")


def show(result):
    figures = {"rate": "refusals/s", "cpu_us": "gateway CPU µs", "redis_cpu_us": "Redis CPU µs", "p50_ms": "p50 ms", "p99_ms": "p99 ms"}
    rows = [[name, *(number(median_of(rounds, figure)) for figure in figures)] for name, rounds in result["rounds"].items()]
    return table([f"{CONNECTIONS} connections", *figures.values()], rows)
