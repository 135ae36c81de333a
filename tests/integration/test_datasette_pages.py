"""The real Datasette, asked directly and through the gateway: every byte that is not a measured time is the same."""
import json
import re

import pytest

from rig import clean_environment
from wire import Wire

# What differs between two direct requests as well (documented timing noise).
NOISE = [
    (re.compile(rb'"query_ms": [\d.]+'), b'"query_ms": 0'),
    (re.compile(rb"Queries took [\d.]+\s*ms"), b"Queries took 0ms"),
    (re.compile(rb'"(duration_ms|start|end|sum_trace_duration_ms|request_duration_ms)": [\d.]+'), b'"time": 0'),
]
OURS = {"x-request-id", "via", "date", "server", "connection", "transfer-encoding", "content-length", "keep-alive"}

ROW = "/sample/odd+name~2Fwith~2Edots~2C+and+spaces"
PAGES = [
    "/", "/-/", "/-/versions.json", "/-/settings.json", "/-/actor.json", "/-/databases.json", "/-/plugins.json", "/-/metadata.json",
    "/sample", "/sample.json", "/sample/", "/sample/stations", "/sample/stations.json?_shape=objects", "/sample/stations.json?_shape=array&_nl=on",
    "/sample/readings?_size=3", "/sample/readings.json?_size=5&_sort_desc=celsius", "/sample/readings.csv?_size=20",
    "/sample/readings.csv?_stream=on&station=3", "/sample/readings.json?_facet=station&_size=1", "/sample/readings?_next=100&_size=2",
    "/sample/notes?_search=cold", "/sample/notes.json?_search=cold&_labels=on", "/sample/stations/1", "/sample/stations/1.json", "/sample/stations/99",
    "/sample/pairs/a,b.json", "/sample/pairs/a~2Fb,c~2Ed.json", "/sample/pairs/~C3~BC,~2525.json", "/sample/pairs/x~2Cy,~7Etilde",
    ROW, ROW + ".json?_shape=array", "/sample/blobs/every+byte.json", "/sample/blobs/every+byte.blob?_blob_column=data",
    "/sample/blobs/none", "/sample/warmest?station=3", "/sample/warmest.json?station=1&_shape=array",
    "/sample/-/query?sql=select+%27%C3%BC%27+as+u", "/sample/-/query.json?sql=select+1+as+one&_shape=array", "/sample?sql=select+1",
    "/sample/-/query.json?sql=select+broken+from", "/sample/-/query.json?sql=select+" + "+".join(["1,"] * 800) + "1",
    "/sample/latest", "/sample/empty.json", "/sample/empty.csv", "/sample/-/schema", "/-/static/app.css", "/favicon.ico", "/no/such/page", "/no-such.json",
    "/sample/%73tations.json", "/%2e%2e/sample", "//sample.json", "//evil.example/", "/sample//stations.json", "/sample/./stations.json", "/-", "/-/agent",
    "/sample/stations?_trace=1", "/-/logout", "/-/allow-debug", "/readonly/stations.json?_shape=arrayfirst", "/sample/stations.json?_ttl=0",
]


def ask(port, method, target, *fields, body=b"", host="sample.example:8443"):
    with Wire(port, limit=60) as wire:
        wire.ask(method, target, *fields, body=body, host=host)
        return wire.answer(to=method)


def comparable(answer):
    body = answer.body
    for pattern, instead in NOISE:
        body = pattern.sub(instead, body)
    fields = [(name, value) for name, value in answer.fields if name.lower() not in OURS]
    return answer.status, fields, body


def port_of(url):
    return int(url.rpartition(":")[2])


def same(stack, method, target, *fields, body=b""):
    direct = ask(port_of(stack.datasette), method, target, *fields, body=body)
    through = ask(stack.port, method, target, *fields, body=body)
    assert comparable(through) == comparable(direct), f"{method} {target} differs"
    framed = direct["Content-Length"]
    assert framed is None or through["Content-Length"] == framed or method == "HEAD", f"Content-Length {framed} is lost"
    return through


@pytest.mark.smoke
@pytest.mark.parametrize("target", PAGES)
def test_page(stack, target):
    same(stack, "GET", target)


@pytest.mark.parametrize("page", ["/", "/sample", "/sample/-/query", "/sample/-/query.json"])
def test_long_sql_in_the_target(stack, page):
    """Datasette repeats it in Link or Location, with quotes and blanks percent-encoded."""
    for tail in ("a" * 30_000, "a'\"" * 10_000):
        same(stack, "GET", f"{page}?sql=select+1+--{tail}")


def test_the_list_is_worth_something(stack):
    """Many of them are real pages of several kinds."""
    statuses = [ask(stack.port, "GET", target).status for target in PAGES]
    assert statuses.count(200) >= 35 and 302 in statuses and 404 in statuses and 400 in statuses, statuses


@pytest.mark.parametrize("target", PAGES[:40:3])
@pytest.mark.parametrize("method", ["HEAD", "OPTIONS"])
def test_other_methods(stack, method, target):
    same(stack, method, target)


@pytest.mark.parametrize(("method", "target"), [("POST", "/sample/stations.json"), ("PUT", "/sample"), ("DELETE", "/sample/stations/1"), ("FOO", "/sample/stations.json"),
                                                ("PATCH", "/-/versions.json"), ("POST", "/-/agent/exe")])
def test_methods_that_datasette_refuses(stack, method, target):
    same(stack, method, target, "Content-Type: application/json", body=b"{}")


def test_conditional_requests(stack):
    etag = ask(stack.port, "GET", "/-/static/app.css")["ETag"]
    assert etag
    not_modified = same(stack, "GET", "/-/static/app.css", f"If-None-Match: {etag}")
    assert not_modified.status == 304 and not_modified["ETag"] == etag
    assert same(stack, "GET", "/-/static/app.css", 'If-None-Match: "other"').status == 200


def test_several_link_fields(stack):
    answer = same(stack, "GET", "/sample/readings?_size=3")
    assert len(answer.all("Link")) == 2, answer.fields
    assert "sample.example:8443" in answer.all("Link")[1], "the next page's address has lost the host's port"


def test_cookies_and_bearer_tokens_of_datasette(stack, datasette_token):
    signed_in = same(stack, "GET", "/-/actor.json", f"Authorization: Bearer {datasette_token}")
    assert json.loads(signed_in.body)["actor"]["id"] == "root", signed_in.text
    assert signed_in["Cache-Control"] == "private, no-store"
    cookie = cookie_of_root()
    assert json.loads(same(stack, "GET", "/-/actor.json", f"Cookie: {cookie}").body)["actor"]["id"] == "root"
    twice = ask(stack.port, "GET", "/-/actor.json", "Cookie: a=b", f"Cookie: {cookie}", "Cookie: c=d")
    assert json.loads(twice.body)["actor"]["id"] == "root", "several Cookie lines lose the login"
    assert same(stack, "GET", "/-/actor.json", "Authorization: Bearer dstok_wrong").status in (200, 401)


def test_writing(stack, datasette_token):
    """A row that is inserted through the gateway is there."""
    body = json.dumps({"row": {"text": "through the gateway"}}).encode()
    answer = ask(stack.port, "POST", "/sample/empty/-/insert", "Content-Type: application/json", f"Authorization: Bearer {datasette_token}", body=body)
    assert answer.status == 201, answer.text
    rows = json.loads(ask(port_of(stack.datasette), "GET", "/sample/empty.json?_shape=array").body)
    assert rows[-1]["text"] == "through the gateway"
    refused = ask(stack.port, "POST", "/readonly/empty/-/insert", "Content-Type: application/json", body=body)
    assert refused.status == 403, refused.text


def test_cross_site_requests_are_datasette_s_to_refuse(stack):
    fields = ("Content-Type: application/json", "Origin: https://evil.example", "Sec-Fetch-Site: cross-site", "Cookie: a=b")
    assert same(stack, "POST", "/sample/empty/-/insert", *fields, body=b"{}").status == 403


def test_refusal_of_a_large_body_is_datasette_s(stack):
    """Its own limit is below ours: its own JSON comes through."""
    body = b"x" * 3_000_000
    answer = ask(stack.port, "POST", "/sample/empty/-/insert", "Content-Type: application/json", body=body)
    assert answer.status == 413 and answer["Content-Type"].startswith("application/json"), answer.text
    assert b"2097152" in answer.body


def test_large_stream(stack):
    answer = same(stack, "GET", "/sample/readings.csv?_stream=on")
    assert len(answer.body) > 300_000


def test_blob(stack):
    assert len(same(stack, "GET", "/sample/blobs/big.blob?_blob_column=data").body) == 300_000


@pytest.fixture(scope="module")
def datasette_token(stack):
    import subprocess
    import rig
    made = subprocess.run([rig.PYTHON, "-m", "datasette", "create-token", "root", "--secret", secret()], env=clean_environment(), cwd="/tmp",
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=True)
    return made.stdout.strip()


def secret():
    import sys
    import rig
    sys.path.append(str(rig.TOP / "tests/fixtures"))
    import sample
    return sample.SECRET


def cookie_of_root():
    from itsdangerous import URLSafeSerializer
    return "ds_actor=" + URLSafeSerializer(secret(), "actor").dumps({"a": {"id": "root"}})
