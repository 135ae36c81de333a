"""The response cache: what it may keep and for whom, and that nobody gets what is another's or out of date."""
import concurrent.futures
import itertools
import threading

import pytest

from rig import until
from wire import Wire

VARY = "Vary: Cookie, Authorization"


class Origin:
    """An upstream whose answers are numbered, so that one shows which request it was made for."""

    def __init__(self, upstream):
        self.upstream, self.numbers = upstream, itertools.count(1)
        upstream.routes[None] = self.plain

    def plain(self, exchange):
        exchange.reply("200 OK", "Cache-Control: max-age=300", VARY, "Content-Type: text/plain", body=b"%d" % next(self.numbers))

    def on(self, path, *fields, status="200 OK"):
        self.upstream.routes[path] = lambda exchange: exchange.reply(status, *fields, body=b"%d" % next(self.numbers))


@pytest.fixture(scope="module")
def origin(shared_rig):
    return Origin(shared_rig.upstream())


@pytest.fixture(scope="module")
def gateway(shared_rig, origin):
    """Two workers share what one of them has stored."""
    return shared_rig.gateway(datasette_url=origin.upstream.url, workers=2, cache_bytes="4MiB", token=False)


def ask(gateway, path, *fields, method="GET", host="gateway.test", body=b""):
    with Wire(gateway.port) as wire:
        wire.ask(method, path, *fields, host=host, body=body)
        answer = wire.answer(to=method)
        assert len(answer.all("Cache-Status")) == 1, answer.fields
        return answer


def is_hit(answer):
    return answer["Cache-Status"].startswith("spritegate; hit")


def test_an_answer_is_kept_and_given_again(gateway, origin):
    first = ask(gateway, "/db/kept")
    assert first["Cache-Status"] == "spritegate; fwd=uri-miss; stored" and first["Age"] is None
    for _ in range(8):      # by either worker
        again = ask(gateway, "/db/kept")
        assert is_hit(again) and again.body == first.body
        assert 0 <= int(again["Age"]) < 300
        kept = [field for field in again.fields if field[0] not in ("Age", "Cache-Status", "Date", "X-Request-Id")]
        assert kept == [field for field in first.fields if field[0] not in ("Cache-Status", "Date", "X-Request-Id")]
        assert again["X-Request-Id"] != first["X-Request-Id"]
    assert len(origin.upstream.asked("/db/kept")) == 1
    head = ask(gateway, "/db/kept", method="HEAD")
    assert is_hit(head) and head["Content-Length"] == str(len(first.body)) and not head.body


@pytest.mark.parametrize("field", ["Cookie: a=b", "Cookie: ", "Authorization: Basic eDp5", "Authorization: Bearer x", "Range: bytes=0-1",
                                   "If-None-Match: \"x\"", "If-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT", "Cache-Control: no-cache",
                                   "Cache-Control: max-age=0", "Pragma: no-cache", "X-Datasette-Authorization: Bearer x",
                                   "Tailscale-User-Login: a@b.test", "Remote-User: a", "X-Api-Key: 1", "Origin: https://a.test"])
def test_requests_that_go_past_it(gateway, origin, field):
    path = f"/db/past-{abs(hash(field))}"
    stored = ask(gateway, path)
    other = ask(gateway, path, field)
    assert other.body != stored.body and "fwd=" in other["Cache-Status"] and "stored" not in other["Cache-Status"]
    assert ask(gateway, path).body == stored.body, "and what is stored stays"
    fresh = path + "-first"
    one = ask(gateway, fresh, field)
    assert ask(gateway, fresh).body != one.body, "what such a request got is not kept"


@pytest.mark.parametrize("field", ["User-Agent: a", "Referer: http://gateway.test/", "Accept: text/html", "Accept-Language: de", "DNT: 1",
                                   "Sec-Fetch-Mode: navigate", "Sec-CH-UA: \"a\"", "Upgrade-Insecure-Requests: 1", "Priority: u=1",
                                   "TE: trailers", "X-Forwarded-For: 192.0.2.1", "X-Forwarded-User: a", "Fly-Client-IP: 192.0.2.1",
                                   "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "Via: 1.1 another"])
def test_what_every_browser_and_proxy_sends_is_no_reason_to(gateway, origin, field):
    path = "/db/usual-" + field.partition(":")[0]
    first = ask(gateway, path)
    again = ask(gateway, path, field)
    assert is_hit(again) and again.body == first.body


NEVER = {
    "no lifetime": [VARY], "private": ["Cache-Control: private, max-age=60"], "no-store": ["Cache-Control: no-store, max-age=60"],
    "no-cache": ["Cache-Control: no-cache"], "no-cache of a field": ['Cache-Control: max-age=60, no-cache="x"'],
    "max-age 0": ["Cache-Control: max-age=0"], "not a number": ["Cache-Control: max-age=6O"], "quoted open": ['Cache-Control: max-age="60'],
    "two lifetimes": ["Cache-Control: max-age=60", "Cache-Control: max-age=61"], "a cookie": ["Cache-Control: max-age=60", "Set-Cookie: a=b"],
    "varies by everything": ["Cache-Control: max-age=60", "Vary: *"], "varies by Accept": ["Cache-Control: max-age=60", "Vary: Cookie, Accept"],
    "s-maxage 0": ["Cache-Control: max-age=60, s-maxage=0"], "as old as it may be": ["Cache-Control: max-age=60", "Age: 60"],
    "a part": ["Cache-Control: max-age=60", "Content-Range: bytes 0-0/1"],
}


@pytest.mark.parametrize("why", NEVER)
def test_answers_that_are_not_kept(gateway, origin, why):
    path = "/db/never-" + why.replace(" ", "-").replace("*", "")
    origin.on(path, *NEVER[why])
    first = ask(gateway, path)
    assert first["Cache-Status"] == "spritegate; fwd=uri-miss"
    assert ask(gateway, path).body != first.body


@pytest.mark.parametrize("status,kept", [("301 Moved Permanently", True), ("404 Not Found", True), ("410 Gone", True), ("302 Found", False),
                                         ("500 Internal Server Error", False), ("403 Forbidden", False), ("206 Partial Content", False)])
def test_statuses(gateway, origin, status, kept):
    path = "/db/status-" + status[:3]
    origin.on(path, "Cache-Control: max-age=60", status=status)
    first = ask(gateway, path)
    again = ask(gateway, path)
    assert first.status == again.status == int(status[:3])
    assert is_hit(again) is kept and (again.body == first.body) is kept


def test_what_tells_requests_apart(gateway, origin):
    variants = [ask(gateway, "/db/apart"), ask(gateway, "/db/apart?"), ask(gateway, "/db/apart?a=1"), ask(gateway, "/db/Apart"),
                ask(gateway, "/db/apart", host="other.test"), ask(gateway, "/db/apart", host="gateway.test:81"),
                ask(gateway, "/db/apart", "Accept-Encoding: gzip"), ask(gateway, "/db/apart", "Accept-Encoding: identity")]
    assert len({one.body for one in variants}) == len(variants)


def test_two_users_never_see_each_other(gateway, origin):
    """An old Datasette says max-age to logged-in users, too, and nothing of Vary."""
    origin.upstream.routes["/db/mine"] = lambda exchange: exchange.reply(
        "200 OK", "Cache-Control: max-age=60",
        body=(exchange["Cookie"] or exchange["Authorization"] or exchange["Cf-Access-Jwt-Assertion"] or "nobody").encode())
    who = [(("Cookie: user=1",), b"user=1"), (("Cookie: user=2",), b"user=2"), (("Authorization: Bearer 3",), b"Bearer 3"), ((), b"nobody"),
           (("Cf-Access-Jwt-Assertion: 4",), b"4"), (("Cf-Access-Jwt-Assertion: 5",), b"5")]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda i: ask(gateway, "/db/mine", *who[i % len(who)][0]).body, range(204)))
    assert answers == [who[i % len(who)][1] for i in range(204)]


def test_a_lifetime_that_the_client_chose_is_capped(gateway, origin):
    for query in ("_ttl=31536000", "%5Fttl=31536000"):
        ask(gateway, "/db/ttl?" + query)
        ttl = ask(gateway, "/db/ttl?" + query)["Cache-Status"]
        assert ttl.startswith("spritegate; hit; ttl=") and int(ttl.rpartition("=")[2]) <= 60


def test_what_is_over_is_asked_for_again(gateway, origin):
    origin.on("/db/short", "Cache-Control: max-age=1")
    first = ask(gateway, "/db/short").body
    until(lambda: ask(gateway, "/db/short").body != first, "it is over")


@pytest.mark.parametrize("method,status,drops", [("POST", "200 OK", True), ("PUT", "201 Created", True), ("DELETE", "302 Found", True),
                                                 ("POST", "403 Forbidden", False), ("OPTIONS", "200 OK", False)])
def test_a_change_drops_what_it_may_have_changed(gateway, origin, method, status, drops):
    name = f"w{method}{status[:3]}"
    origin.upstream.routes[f"/{name}/t/-/insert"] = lambda exchange: exchange.reply(status, body=b"done")
    page, other = ask(gateway, f"/{name}/t"), ask(gateway, f"/{name}x/t")
    assert ask(gateway, f"/{name}/t/-/insert", method=method, body=b"{}").status == int(status[:3])
    assert (ask(gateway, f"/{name}/t").body != page.body) is drops
    assert ask(gateway, f"/{name}x/t").body == other.body, "another database is not affected"


def test_a_change_that_never_went_to_datasette_drops_nothing(gateway, origin):
    page = ask(gateway, "/unsent/t")
    with Wire(gateway.port) as wire:
        wire.ask("POST", "/unsent/t/-/insert", f"Content-Length: {1 << 40}", length=False)
        assert wire.answer().status == 413
    assert ask(gateway, "/unsent/t").body == page.body


def test_an_answer_from_before_a_change_is_not_kept(gateway, origin):
    asked, go_on = threading.Event(), threading.Event()

    @origin.upstream.on("/late/t")
    def late(exchange):
        asked.set()
        assert go_on.wait(60)
        origin.plain(exchange)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        old = pool.submit(ask, gateway, "/late/t")
        assert asked.wait(60)
        ask(gateway, "/late/t/-/insert", method="POST", body=b"{}")
        go_on.set()
        assert ask(gateway, "/late/t").body != old.result(60).body


@pytest.fixture
def alone(rig):
    """One worker, whose requests for one thing wait for the first of them: (gateway, origin, held) with held(path, *fields)."""
    origin = Origin(rig.upstream())
    go_on = threading.Event()
    rig.parts.callback(go_on.set)

    def hold(path, *fields):
        @origin.upstream.on(path)
        def held(exchange):
            assert go_on.wait(60)
            exchange.reply("200 OK", *fields, body=b"%d" % next(origin.numbers))
    return rig.gateway(datasette_url=origin.upstream.url, workers=1, cache_bytes="4MiB", token=False), origin, hold, go_on


def begin(gateway, path, count):
    wires = [Wire(gateway.port).ask("GET", path) for _ in range(count)]
    until(lambda: gateway.metrics().get("spritegate_http_requests_in_flight") >= count, "all are under way")
    return wires


def test_requests_for_one_thing_are_one(alone):
    gateway, origin, hold, go_on = alone
    hold("/db/t", "Cache-Control: max-age=60")
    wires = begin(gateway, "/db/t", 20)
    go_on.set()
    answers = [wire.answer() for wire in wires]
    # On a slow machine some may have waited for too long and asked by themselves.
    asked = len(origin.upstream.asked("/db/t"))
    assert asked < 20 and len({answer.body for answer in answers}) == asked
    assert sum(answer["Cache-Status"].endswith("collapsed") for answer in answers) == 20 - asked
    metrics = gateway.metrics()
    assert metrics.get("spritegate_cache_requests_total", result="collapsed") == 20 - asked
    assert 0 < metrics.get("spritegate_cache_bytes") <= 4 << 20
    for wire in wires:
        wire.close()


def test_nobody_inherits_an_answer_that_is_not_kept(alone):
    gateway, origin, hold, go_on = alone
    hold("/db/t", "Cache-Control: private")
    wires = begin(gateway, "/db/t", 10)
    go_on.set()
    assert len({wire.answer().body for wire in wires}) == 10 == len(origin.upstream.asked("/db/t"))


def test_after_an_answer_that_a_change_made_useless_all_ask_by_themselves(alone):
    gateway, origin, hold, go_on = alone
    hold("/db/t", "Cache-Control: max-age=60")
    wires = begin(gateway, "/db/t", 10)
    ask(gateway, "/db/t/-/insert", method="POST", body=b"{}")
    go_on.set()
    assert len({wire.answer().body for wire in wires}) == 10 == len(origin.upstream.asked("/db/t"))


def test_nobody_waits_for_one_that_others_gave_up_on(alone):
    gateway, origin, _, go_on = alone
    first = threading.Event()

    @origin.upstream.on("/db/t")
    def slow_once(exchange):
        if not first.is_set():
            first.set()
            assert go_on.wait(60)
        origin.plain(exchange)
    asked = origin.upstream.asked
    with Wire(gateway.port) as slow, Wire(gateway.port) as patient, Wire(gateway.port) as newcomer:
        slow.ask("GET", "/db/t")
        until(lambda: asked("/db/t"), "the first one is at Datasette")
        assert patient.ask("GET", "/db/t").answer()["Cache-Status"] == "spritegate; fwd=uri-miss"
        newcomer.ask("GET", "/db/t")
        until(lambda: len(asked("/db/t")) == 3 or gateway.metrics().get("spritegate_http_requests_in_flight") >= 2, "the newcomer is here")
        go_on.set()
        assert newcomer.answer()["Cache-Status"] == "spritegate; fwd=uri-miss"
        assert slow.answer()["Cache-Status"].endswith("stored")


def test_nobody_waits_for_a_client_that_does_not_read(alone):
    gateway, origin, _, _ = alone
    whole = b"x" * 1000000
    origin.upstream.routes["/db/t"] = lambda exchange: exchange.reply("200 OK", "Cache-Control: max-age=600", body=whole)
    with Wire(gateway.port, receive_buffer=4096) as slow:
        slow.ask("GET", "/db/t")
        until(lambda: origin.upstream.asked("/db/t"), "the first one is at Datasette")
        for _ in range(3):
            other = ask(gateway, "/db/t")
            assert other["Cache-Status"] == "spritegate; fwd=uri-miss" and other.body == whole
        assert slow.answer().body == whole
    until(lambda: is_hit(ask(gateway, "/db/t")), "and then it is there for all")


def test_when_the_first_one_leaves_another_one_asks(alone):
    gateway, origin, hold, go_on = alone
    hold("/db/t", "Cache-Control: max-age=60")
    wires = begin(gateway, "/db/t", 5)
    wires[0].reset()
    until(lambda: gateway.metrics().get("spritegate_http_requests_in_flight") < len(wires), "the gateway knows that it has left")
    go_on.set()
    assert all(wire.answer().status == 200 for wire in wires[1:])


def test_an_answer_that_is_cut_is_not_kept(alone):
    gateway, origin, _, _ = alone
    cut = threading.Event()

    @origin.upstream.on("/db/t")
    def once(exchange):
        if cut.is_set():
            origin.plain(exchange)
            return
        cut.set()
        exchange.reply("200 OK", "Cache-Control: max-age=60", "Content-Length: 10", length=False)
        exchange.send(b"half")
        exchange.hang_up()
    with Wire(gateway.port) as wire:
        wire.ask("GET", "/db/t")
        assert wire.body_until_cut(wire.head()) == b"half"
    assert ask(gateway, "/db/t").body.isdigit()


def test_large_answers_go_through(alone):
    gateway, origin, _, _ = alone
    size = 3 << 20
    origin.upstream.routes["/db/t"] = lambda exchange: exchange.reply("200 OK", "Cache-Control: max-age=60", body=b"x" * size)
    for _ in range(2):
        answer = ask(gateway, "/db/t")
        assert len(answer.body) == size and not is_hit(answer)
    origin.upstream.routes["/db/u"] = lambda exchange: exchange.reply("200 OK", "Cache-Control: max-age=60", body=b"y" * (900 << 10))
    assert ask(gateway, "/db/u").body == ask(gateway, "/db/u").body == b"y" * (900 << 10)
    assert len(origin.upstream.asked("/db/u")) == 1


def test_it_is_off_unless_asked_for(rig):
    origin = Origin(rig.upstream())
    gateway = rig.gateway(datasette_url=origin.upstream.url, token=False)
    bodies = set()
    for _ in range(2):
        with Wire(gateway.port) as wire:
            wire.ask("GET", "/db/t")
            answer = wire.answer()
            assert answer["Cache-Status"] is None and answer["Age"] is None
            bodies.add(answer.body)
    assert len(bodies) == 2


# -- stale answers ------------------------------------------------------------------------


SHORT = "Cache-Control: max-age=1, stale-while-revalidate=600"


def ttl(answer):
    return int(answer["Cache-Status"].partition("ttl=")[2].partition(";")[0])


def is_stale(answer):
    return answer["Cache-Status"].endswith("; detail=stale")


def until_stale(gateway, path):
    """The first stale answer; whoever gets it has a newer one fetched."""
    return until(lambda: next((one for one in [ask(gateway, path)] if is_stale(one)), None), "it is stale")


def test_a_stale_answer_is_given_while_one_request_fetches_a_newer_one(alone):
    gateway, origin, _, go_on = alone
    first = threading.Event()

    @origin.upstream.on("/db/t")
    def once_at_once(exchange):
        if first.is_set():
            assert go_on.wait(60)
        first.set()
        exchange.reply("200 OK", SHORT, VARY, body=b"%d" % next(origin.numbers))
    old = ask(gateway, "/db/t")
    assert old["Cache-Status"].endswith("stored")
    stale = until_stale(gateway, "/db/t")
    assert stale.body == old.body and ttl(stale) <= 0 and int(stale["Age"]) >= 1
    until(lambda: len(origin.upstream.asked("/db/t")) == 2, "a newer one is asked for")
    for _ in range(20):
        again = ask(gateway, "/db/t")
        assert is_stale(again) and again.body == old.body
    assert len(origin.upstream.asked("/db/t")) == 2, "by one"
    assert gateway.metrics().get("spritegate_cache_requests_total", result="stale") >= 21
    go_on.set()
    until(lambda: ask(gateway, "/db/t").body != old.body, "the newer one is there")


def never_stale(gateway, path, first):
    """It is a hit while it is fresh, and then asked for."""
    while (again := ask(gateway, path)).body == first.body:
        assert is_hit(again) and not is_stale(again), again["Cache-Status"]


def test_a_setting_allows_it_unless_the_answer_does_not(rig):
    origin = Origin(rig.upstream())
    gateway = rig.gateway(datasette_url=origin.upstream.url, cache_bytes="4MiB", cache_stale_seconds=600, token=False)
    origin.on("/db/plain", "Cache-Control: max-age=1")
    first = {}
    for i, control in enumerate(["max-age=1, must-revalidate", "max-age=1, proxy-revalidate, stale-while-revalidate=600", "s-maxage=1"]):
        origin.on(f"/db/never-{i}", "Cache-Control: " + control)
        first[f"/db/never-{i}"] = ask(gateway, f"/db/never-{i}")
    ask(gateway, "/db/plain")
    until_stale(gateway, "/db/plain")
    for path, answer in first.items():
        never_stale(gateway, path, answer)


def test_without_permission_nothing_is_stale(gateway, origin):
    origin.on("/db/strict", "Cache-Control: max-age=1")
    never_stale(gateway, "/db/strict", ask(gateway, "/db/strict"))


@pytest.mark.parametrize("status,fields", [("403 Forbidden", []), ("302 Found", ["Location: /-/login"]), ("200 OK", ["Cache-Control: private"]),
                                           ("200 OK", ["Cache-Control: max-age=9", "Set-Cookie: a=b"]), ("200 OK", ["Vary: *"])])
def test_what_is_nobody_elses_any_more_is_not_given_again(alone, status, fields):
    """The table has become private, say."""
    gateway, origin, _, _ = alone
    origin.on("/db/t", SHORT)
    old = ask(gateway, "/db/t")
    origin.on("/db/t", *fields, status=status)
    until_stale(gateway, "/db/t")
    fresh = until(lambda: next((one for one in [ask(gateway, "/db/t")] if one.body != old.body), None), "the old one is gone")
    assert fresh.status == int(status[:3]) and "fwd=" in fresh["Cache-Status"]
    assert ask(gateway, "/db/t").body != fresh.body, "and each asks for itself"


def test_a_datasette_that_fails_is_asked_again(alone):
    gateway, origin, _, _ = alone
    origin.on("/db/t", SHORT)
    old = ask(gateway, "/db/t")
    origin.on("/db/t", status="500 Internal Server Error")
    until_stale(gateway, "/db/t")
    until(lambda: len(origin.upstream.asked("/db/t")) > 2 or not ask(gateway, "/db/t"), "it is tried again", interval=0.1)
    assert ask(gateway, "/db/t").body == old.body
    origin.upstream.routes["/db/t"] = lambda exchange: exchange.hang_up()
    tried = len(origin.upstream.asked("/db/t"))
    until(lambda: len(origin.upstream.asked("/db/t")) > tried + 1 or not ask(gateway, "/db/t"), "and again", interval=0.1)
    origin.on("/db/t", "Cache-Control: max-age=600")
    until(lambda: ask(gateway, "/db/t").body != old.body, "and it comes back")
    until(lambda: gateway.metrics().get("spritegate_upstream_healthy") == 1, "which is known")


def test_a_change_drops_a_stale_answer_and_what_is_on_its_way(alone):
    gateway, origin, hold, go_on = alone
    origin.on("/db/t", SHORT)
    old = ask(gateway, "/db/t")
    hold("/db/t", SHORT)
    until_stale(gateway, "/db/t")
    until(lambda: len(origin.upstream.asked("/db/t")) == 2, "a newer one is asked for")
    assert ask(gateway, "/db/t/-/insert", method="POST", body=b"{}").status == 200
    go_on.set()
    assert ask(gateway, "/db/t").body != old.body


def test_who_asks_for_a_newer_one_leaves_nothing_of_anybody(alone):
    """Users with cookies and tokens come while a stale answer is renewed: each sees their own, and strangers see a stranger's."""
    gateway, origin, _, _ = alone

    @origin.upstream.on("/db/mine")
    def mine(exchange):
        exchange.reply("200 OK", SHORT, body=(exchange["Cookie"] or exchange["Authorization"] or exchange["Remote-User"] or "nobody").encode())
    who = [((), b"nobody"), (("Cookie: user=1",), b"user=1"), ((), b"nobody"), (("Authorization: Bearer 2",), b"Bearer 2"),
           ((), b"nobody"), (("Remote-User: 3",), b"3")]
    ask(gateway, "/db/mine")
    until_stale(gateway, "/db/mine")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda i: ask(gateway, "/db/mine", *who[i % len(who)][0]).body, range(120)))
    assert answers == [who[i % len(who)][1] for i in range(120)]
    for exchange in origin.upstream.asked("/db/mine"):
        assert exchange["X-Forwarded-For"] == "127.0.0.1"


def test_head_does_not_get_what_is_stale(alone):
    gateway, origin, _, _ = alone
    origin.on("/db/t", SHORT)
    ask(gateway, "/db/t")
    until(lambda: not is_hit(ask(gateway, "/db/t", method="HEAD")), "it is stale")
