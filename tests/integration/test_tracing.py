"""Traces: a caller's goes on, the log and the audit name it, and a collector gets the spans of commands without anybody waiting for it."""
import concurrent.futures
import json
import re
import secrets
import signal
import subprocess

import pytest

from answers import not_started, problem
from collector import Collector
from rig import BINARY, LOGS, clean_environment, free_port, numbers, until
from sources import Upstream
from test_wrong_tokens import made_up

ADMIN_TOKEN = "an-admin-token-of-the-tests-32/~+="
KEY = "key of the collector, 100%"
HIDDEN = "hunter2-do-not-trace"
NAMES = {"exec", "admit", "claim", "run", "settle"}
ATTRIBUTES = {"spritegate.exec_id", "spritegate.outcome", "spritegate.tier", "error.type", "http.request.method", "http.route",
              "http.response.status_code"}


def parent(sampled=True):
    trace, span = secrets.token_hex(16), secrets.token_hex(8)
    return trace, span, {"traceparent": f"00-{trace}-{span}-0{int(sampled)}"}


@pytest.fixture
def collector(rig):
    """Of a test that has it answer in its own way."""
    collector = Collector()
    return rig.add(collector, collector.close)


@pytest.fixture(scope="module")
def taking(shared_rig):
    """A collector that takes everything."""
    collector = Collector()
    return shared_rig.add(collector, collector.close)


@pytest.fixture(scope="module")
def gateway(shared_rig, taking):
    """All that it says and sends is for one collector; `audit` is its audit."""
    audit = LOGS / f"audit-{next(numbers)}.log"
    gateway = traced(shared_rig, taking, audit_log=audit, pool_max=8, workers=4,
                     otlp_headers="Authorization=Bearer%20key%20of%20the%20collector%2C%20100%25,X-Other=1")
    gateway.audit = audit
    return gateway


def complete(collector, trace, names=frozenset(NAMES)):
    """The spans of a trace by name, when all of them are there."""
    return until(lambda: spans if set(spans := collector.of(trace)) >= names else None, lambda: f"{trace} is complete: {collector.of(trace)}")


def traced(rig, collector, **more):
    return rig.gateway(otlp_url=collector.url, **more)


# --- the log and the audit ------------------------------------------------------

def test_log_and_audit_name_the_trace(gateway):
    trace, _, fields = parent(sampled=False)
    for headers, wanted in ((fields, trace), ({}, None), ({"traceparent": fields["traceparent"].upper()}, None),
                            ({"traceparent": fields["traceparent"] + "-x"}, None)):
        page = gateway.get("/sample.json", headers=headers)
        ran = gateway.exec(command="true", headers=headers)
        refused = gateway.exec(token="sgt_nonsense", command="true", headers=headers)
        problem(refused, 401, "invalid-token")
        for answer in (page, ran, refused):
            line = gateway.until_logged(lambda line, answer=answer: line["request_id"] == answer.headers["X-Request-Id"])
            assert line["trace_id"] == (wanted or line["request_id"].replace("-", "")), line

        def records(exec_id=ran.json()["exec_id"]):
            lines = [json.loads(line) for line in gateway.audit.read_text(encoding="utf-8").splitlines()]
            found = [line for line in lines if line["exec_id"] == exec_id]
            return found if len(found) == 2 else None
        for record in until(records, "both records are there"):
            assert record["trace_id"] == (wanted or ran.headers["X-Request-Id"].replace("-", "")), record


def told(gateway, word):
    """The line of its own log in which this stands."""
    def line():
        lines = [json.loads(line) for line in gateway.log.splitlines() if line.startswith("{")]
        return next((line for line in lines if word in line["message"]), None)
    line = until(line, lambda: f"it says {word!r}; it has said {gateway.log[-3000:]}")
    assert not re.search("[0-9a-f]{8}-[0-9a-f]{4}-7", line["message"]), "ids are fields"
    return line


def ids(line):
    return {name: line[name] for name in ("request_id", "exec_id", "trace_id") if name in line}


def test_own_lines_about_a_command_have_its_ids(rig):
    redis, emulator = rig.redis(), rig.emulator()
    gateway = rig.gateway(redis=redis, emulator=emulator, pool_hot=2, admin_token=ADMIN_TOKEN)
    open_to_some = rig.mint(redis, egress="a.test", sessions=1)["token"]
    gateway.until_ready()
    for word, more in (("exec: open the network of", {}), ("sessions: open", {"session": "work"})):
        trace, _, fields = parent()
        with emulator.view.faulty("http_error", status=500, match={"method": "POST", "path": "*/policy/network"}):
            refused = gateway.exec(command="true", token=open_to_some, headers=fields, **more)
            assert ids(told(gateway, word)) == {"request_id": refused.headers["X-Request-Id"], "exec_id": not_started(refused)["exec_id"],
                                                "trace_id": trace}
        gateway.until_ready()

    trace, _, fields = parent()
    leases, aside = f"sg:{{g}}:c:{gateway.kid}", "sg:{g}:aside"
    headers = {"Authorization": f"Bearer {gateway.token}", "Accept": "application/x-ndjson", **fields}
    # More input than a pipe takes: its KILL goes past the socket.
    body = {"command": "echo it runs; exec sleep 200", "stdin": "x" * 200_000}
    with gateway.http.stream("POST", "/-/agent/exec", headers=headers, json=body) as streamed:
        objects = map(json.loads, streamed.iter_lines())
        exec_id = next(objects)["exec_id"]
        assert next(one for one in objects if one["type"] == "stdout")["data"] == "it runs\n"
        of_it = {"request_id": streamed.headers["X-Request-Id"], "exec_id": exec_id, "trace_id": trace}
        redis.client.rename(leases, aside)
        redis.client.set(leases, "of another type")
        emulator.view.fault("http_error", status=500, match={"method": "POST", "path": "*/kill"})
        unavailable = gateway.exec(command="true", headers=fields)
        problem(unavailable, 503, "policy-unavailable")
        assert ids(told(gateway, "Redis cannot decide")).items() >= {"request_id": unavailable.headers["X-Request-Id"], "trace_id": trace}.items()

        def cancel(token):
            return gateway.admin_http.delete(f"/status/commands/{exec_id}", headers={"Authorization": f"Bearer {token}", **fields})
        refused = cancel("x" * 32)
        assert refused.status_code == 401 and cancel(ADMIN_TOKEN).status_code == 202
        assert list(objects)[-1]["outcome"] == "canceled"
    assert ids(told(gateway, "a cancellation with a wrong token")) == {"request_id": refused.headers["X-Request-Id"], "trace_id": trace}
    for word in ("killed by an operator", "a signal was not delivered", "cannot settle lease"):
        assert ids(told(gateway, word)) == of_it


def test_a_page_is_asked_as_it_came(rig):
    """The gateway has no span of its own there: what Datasette is told of the trace is the caller's to say."""
    upstream = rig.upstream()
    gateway = rig.gateway(datasette_url=upstream.url)
    _, _, fields = parent()
    for headers in ({}, fields, {**fields, "tracestate": "a=b"}, {"traceparent": "nonsense"}):
        assert gateway.get("/x", headers=headers).status_code == 404
        got = upstream.requests[-1]
        assert {name: got[name] for name in ("traceparent", "tracestate")} == {name: headers.get(name) for name in ("traceparent", "tracestate")}


# --- spans ------------------------------------------------------------------------

def test_spans_of_a_command(gateway, taking):
    before = gateway.metrics().get("spritegate_trace_spans_total", result="sent")
    trace, span, fields = parent()
    ran = gateway.exec(command=f"echo {HIDDEN}", stdin=HIDDEN, env={"SECRET": HIDDEN}, headers=fields)
    assert ran.status_code == 200
    spans = complete(taking, trace, NAMES | {"create"})
    root, claim = spans["exec"], spans["claim"]
    assert root.parent == span and root.kind == 2 and root.flags == 0x301, root
    assert spans["create"].parent == claim.id and {spans[name].parent for name in ("admit", "claim", "run", "settle")} == {root.id}
    assert len({one.id for one in spans.values()}) == len(spans)
    assert root.attributes == {"spritegate.exec_id": ran.json()["exec_id"], "spritegate.outcome": "exited", "spritegate.tier": "cold",
                               "http.request.method": "POST", "http.route": "/-/agent/exec", "http.response.status_code": 200}
    assert root.resource["service.name"] == "spritegate" and root.resource["service.instance.id"] == gateway.instance
    for one in spans.values():
        assert root.start <= one.start <= one.end and not one.failed, (one, root)
        assert one.end <= root.end or one.name == "settle", (one, root)
        assert set(one.attributes) <= ATTRIBUTES and one.attributes["spritegate.exec_id"] == ran.json()["exec_id"]
    assert spans["admit"].end <= claim.start and claim.end <= spans["run"].start
    for path, sent, body in taking.requests:
        assert path == "/v1/traces" and sent["Content-Type"] == "application/json"
        assert sent["Authorization"] == f"Bearer {KEY}" and sent["X-Other"] == "1"
        for hidden in (HIDDEN, gateway.token, gateway.kid, "tester", "echo"):
            assert hidden not in body.decode()
    assert KEY not in gateway.log and "key%20" not in gateway.log
    until(lambda: gateway.metrics().get("spritegate_trace_spans_total", result="sent") >= before + 6, "they are counted")


def test_waking_is_shown(rig, collector):
    """A request announces itself before it is admitted: only a wake that takes longer than that ends when it is waited for."""
    emulator = rig.emulator("--wake-delay", "3s")
    gateway = traced(rig, collector, emulator=emulator, pool_warm=1, pool_max=1)
    until(lambda: gateway.metrics().get("spritegate_pool_members", state="warm") == 1, "a parked Sprite is there")
    emulator.view.pause(emulator.view.names()[0])
    trace, _, fields = parent()
    assert gateway.exec(command="true", headers=fields).json()["sandbox"]["tier"] == "warm"
    spans = complete(collector, trace, NAMES | {"wake"})
    assert spans["wake"].parent == spans["claim"].id and "create" not in spans
    assert spans["claim"].start <= spans["wake"].start < spans["wake"].end <= spans["claim"].end


def test_what_is_refused_or_fails_is_shown(rig, collector):
    emulator = rig.emulator()
    gateway = traced(rig, collector, emulator=emulator, pool_hot=1, token={"max_in": "4"})
    trace, _, fields = parent()
    code = gateway.exec(command="cat", stdin="12345", headers=fields).json()["code"]
    spans = complete(collector, trace, {"exec", "admit"})
    assert spans["exec"].failed and spans["exec"].attributes["error.type"] == code and "claim" not in spans
    gateway.until_ready()
    with emulator.view.faulty("cut_before_exit"):
        trace, _, fields = parent()
        problem(gateway.exec(command="true", headers=fields), 502, "outcome-unknown")
    spans = complete(collector, trace)
    assert spans["run"].failed and spans["exec"].failed and spans["exec"].attributes["error.type"] == "outcome-unknown"


def test_only_what_is_wanted_is_sent(gateway, taking):
    """Not what the caller does not want recorded, and nothing of strangers."""
    silent = []
    for headers, token in ((parent(sampled=False), None), (parent(), "sgt_nonsense"), (parent(), made_up()), (parent(), made_up(gateway.kid))):
        trace, _, fields = headers
        answer = gateway.exec(command="true", token=token, headers=fields)
        silent.append(trace)
        gateway.until_logged(lambda line, answer=answer: line["request_id"] == answer.headers["X-Request-Id"])
    trace, _, fields = parent()
    begun = gateway.exec(command="true").headers["X-Request-Id"].replace("-", "")
    gateway.exec(command="true", headers=fields)
    complete(taking, trace)
    spans = complete(taking, begun)
    assert spans["exec"].parent == "" and spans["exec"].flags == 0x101
    assert not {span.trace for span in taking.spans} & set(silent)


def test_many_at_once(gateway, taking):
    parents = [parent() for _ in range(24)]
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda one: gateway.exec(command="true", headers=one[2]), parents))
    for (trace, span, _), answer in zip(parents, answers):
        assert answer.status_code == 200, answer.text
        spans = complete(taking, trace)
        assert spans["exec"].parent == span and {one.attributes["spritegate.exec_id"] for one in spans.values()} == {answer.json()["exec_id"]}
    assert len({span.id for span in taking.spans}) == len(taking.spans), "each came once"


def test_datasette_is_asked_as_a_part_of_the_trace(rig, collector):
    plain, tracing = Upstream(rig), Upstream(rig, otlp_url=collector.url)
    trace, span, fields = parent()
    for upstream, headers, wanted in (
            (plain, {**fields, "tracestate": "a=b"}, (f"00-{trace}-{span}-01", "a=b")), (plain, {}, (None, None)),
            (plain, {"traceparent": "nonsense", "tracestate": "a=b"}, (None, None)), (tracing, {**fields, "tracestate": "a=b"}, ("", "a=b"))):
        upstream.fake.routes["/x"] = lambda exchange: exchange.reply(body=b"ab")
        assert upstream.exec(headers=headers).json()["stdout"] == "ab"
        got = upstream.fake.requests[-1]
        assert got["tracestate"] == wanted[1]
        assert got["traceparent"] == (wanted[0] if wanted[0] != "" else f"00-{trace}-{complete(collector, trace)['exec'].id}-01")


# --- the collector -----------------------------------------------------------------

def dropped(gateway):
    return gateway.metrics().get("spritegate_trace_spans_total", result="dropped")


def test_what_a_collector_refuses_is_dropped(rig, collector):
    gateway = traced(rig, collector)
    collector.answer = (400, {}, b'{"code":3}')
    gateway.run("true")
    until(lambda: dropped(gateway) == 6, "the spans of one command are counted")
    collector.answer = (200, {}, b'{"partialSuccess":{"rejectedSpans":"2","errorMessage":"too old"}}')
    gateway.run("true")
    until(lambda: dropped(gateway) >= 8, "those that it names are counted")
    assert gateway.log.count("tracing: the collector refuses spans") == 1


def test_what_a_collector_cannot_take_now_is_sent_again(rig, collector):
    gateway = traced(rig, collector)
    collector.answer = (429, {"Retry-After": "1"}, b"")
    trace, _, fields = parent()
    assert gateway.exec(command="true", headers=fields).status_code == 200
    until(lambda: len(collector.requests) >= 2, "it is tried again")
    collector.answer = (200, {}, b"{}")
    complete(collector, trace)
    assert len([span for span in collector.spans if span.trace == trace]) == 6 and dropped(gateway) == 0


def test_a_collector_that_hangs_or_is_gone_holds_nobody_up(rig, collector):
    collector.go_on.clear()
    hung, gone = (rig.gateway(otlp_url=url, drain_accept_seconds=0) for url in (collector.url, f"http://127.0.0.1:{free_port()}/v1/traces"))
    for gateway in (hung, gone):
        gateway.run("true")
    until(lambda: collector.requests, "a request hangs")
    until(lambda: "tracing: the collector takes no spans" in gone.log, "it is said")
    hung.run("true")
    for gateway in (hung, gone):
        gateway.signal(signal.SIGTERM)
    for gateway in (hung, gone):
        assert gateway.wait() == 0
        assert "spans were not sent" in gateway.log


def test_the_end_waits_for_what_is_there(rig, collector):
    gateway = traced(rig, collector, drain_accept_seconds=0)
    trace, _, fields = parent()
    assert gateway.exec(command="true", headers=fields).status_code == 200
    gateway.signal(signal.SIGTERM)
    assert gateway.wait() == 0
    complete(collector, trace)


# --- settings -----------------------------------------------------------------------

@pytest.mark.parametrize("url, headers, said", (
    ("http://user:word@127.0.0.1/v1/traces", "", "otlp_url"), ("ftp://127.0.0.1/", "", "otlp_url"), ("nonsense://", "", "otlp_url"),
    ("http://127.0.0.1/", "Authorization", "otlp_headers"), ("http://127.0.0.1/", "Bad Name=1", "otlp_headers"),
    ("http://127.0.0.1/", "A=b%0d%0aHost:%20evil", "otlp_headers"), ("", "A=1", "otlp_headers")))
def test_settings_that_cannot_be_used(stack, url, headers, said):
    done = subprocess.run([BINARY, "check-config"], env=clean_environment({
        "SPRITEGATE_PEPPER": "p" * 32, "SPRITEGATE_SPRITES_TOKEN": "t", "SPRITEGATE_OTLP_URL": url, **({"SPRITEGATE_OTLP_HEADERS": headers} if headers else {})}),
        capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and said in done.stderr and "evil" not in done.stderr and "word" not in done.stderr, done.stderr
