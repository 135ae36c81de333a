"""Wrong tokens: what they cost us, what their senders are told, and that nobody else feels it."""
import secrets
import time

import pytest

import rig as rigs
from answers import problem
from policy_store import DIGITS
from rig import until
from wire import Wire, exec_request

BURST = 20


def made_up(kid=None):
    """A token of the right form that nobody has minted."""
    word = "".join(secrets.choice(DIGITS) for _ in range(48))
    return sealed(f"sgt_{kid or word[:16]}_{word[16:]}")


def sealed(text):
    import zlib
    crc, digits = zlib.crc32(text.encode()), ""
    for _ in range(6):
        crc, digit = divmod(crc, 62)
        digits = DIGITS[digit] + digits
    return text + digits


def asked(gateway):
    """How often the admission script was run."""
    return gateway.metrics().get("spritegate_redis_command_seconds_count")


@pytest.fixture
def gateway(rig):
    """One worker, since each has its own tables; a Redis that nobody else asks."""
    return rig.gateway(redis=rig.redis(), workers=1, wrong_token_burst=0)


# -- without Redis --------------------------------------------------------------

def test_malformed_tokens_do_not_reach_redis(rig):
    redis = rig.redis()
    gateway = rig.gateway(redis=redis, workers=1)
    good = gateway.token
    with redis.frozen():
        for token in ("sgt_", "abc", good[:-1], good + "0", good[:-1] + ("0" if good[-1] != "0" else "1"), good[:20] + "-" + good[21:]):
            problem(gateway.exec(token=token, command="true"), 401, "invalid-token")
        problem(gateway.exec(token=made_up(), command="true"), 503, "policy-unavailable")


def made_elsewhere(gateway):
    """One whose record is there, made under another pepper."""
    minted = rigs.mint({name: gateway.settings[name] for name in ("SPRITEGATE_PEPPER", "SPRITEGATE_REDIS_URL")})
    redis = rigs.redis.Redis.from_url(gateway.settings["SPRITEGATE_REDIS_URL"])
    redis.hset("sg:{g}:k:" + minted["kid"], mapping={"mac": secrets.token_hex(32), "pep": secrets.token_hex(4)})
    return minted["token"]


def test_a_token_that_was_just_refused_is_not_asked_about_again(gateway):
    wrong = [made_up(), made_up(gateway.kid), made_elsewhere(gateway)]
    for token in wrong:
        problem(gateway.exec(token=token, command="true"), 401, "invalid-token")

    def answered_without_redis():
        """Ten of each, within the few seconds for which they are remembered: on a slow machine not the first time."""
        before, known = asked(gateway), gateway.metrics().get("spritegate_auth_known_bad_total")
        for token in wrong * 10:
            problem(gateway.exec(token=token, command="true"), 401, "invalid-token")
        return asked(gateway) - before <= 1 and gateway.metrics().get("spritegate_auth_known_bad_total") - known == 30   # 1: the link's heartbeat

    until(answered_without_redis, "Redis is not asked again")
    metrics = gateway.metrics()
    refused = [metrics.get("spritegate_auth_failures_total", reason=reason) for reason in ("unknown", "bad-mac", "other-pepper")]
    assert min(refused) == max(refused) >= 11, refused
    assert gateway.run("echo ok").stdout == "ok\n", "a guess at the kid locks its owner out"


def test_they_are_asked_about_again_soon(gateway):
    """A record that comes back (from a backup, say) counts within seconds."""
    token = made_up()
    problem(gateway.exec(token=token, command="true"), 401, "invalid-token")
    until(lambda: gateway.exec(token=token, command="true").status_code == 401
          and asked(gateway) > 1 and gateway.metrics().get("spritegate_auth_known_bad_total") < gateway.metrics().get("spritegate_auth_failures_total") - 1,
          "Redis is asked again", interval=0.5)


def test_a_token_that_is_minted_after_misses_works_at_once(rig, gateway):
    for _ in range(30):
        problem(gateway.exec(token=made_up(), command="true"), 401, "invalid-token")
    url = {"SPRITEGATE_PEPPER": rig.stack.pepper, "SPRITEGATE_REDIS_URL": gateway.settings["SPRITEGATE_REDIS_URL"]}
    minted = rigs.mint(url)
    assert gateway.run("echo new", token=minted["token"]).stdout == "new\n"


def test_reasons_that_may_change_are_always_asked_about(rig, gateway):
    """A token that is suspended and resumed, or not valid yet, works at once when it may."""
    redis = rigs.redis.Redis.from_url(gateway.settings["SPRITEGATE_REDIS_URL"], decode_responses=True)
    key = "sg:{g}:k:" + gateway.kid
    for wrong, right in (("suspended", "active"), ("revoked", "active")):
        redis.hset(key, "status", wrong)
        for _ in range(3):
            problem(gateway.exec(command="true"), 401, "invalid-token")
        redis.hset(key, "status", right)
        assert gateway.run("true").exit_code == 0
    redis.hset(key, "nbf", int(time.time() * 1000) + 3_600_000)
    problem(gateway.exec(command="true"), 401, "invalid-token")
    redis.hdel(key, "nbf")
    assert gateway.run("true").exit_code == 0
    assert gateway.metrics().get("spritegate_auth_known_bad_total") == 0


def test_a_flood_of_wrong_tokens_leaves_nothing_behind(gateway):
    redis = rigs.redis.Redis.from_url(gateway.settings["SPRITEGATE_REDIS_URL"], decode_responses=True)
    keys = redis.dbsize()

    def flood():
        """Resident bytes after it."""
        for _ in range(2000):
            gateway.exec(token=made_up(), body=b'{"command": "true"}')
        return gateway.rss()

    warm = flood()
    assert flood() - warm < 1_000_000 * rigs.LARGER, "memory grows with wrong tokens"
    assert redis.dbsize() == keys
    assert gateway.run("echo ok").stdout == "ok\n"


# -- the throttle ---------------------------------------------------------------

def test_too_many_from_one_address(rig):
    gateway = rig.gateway(workers=1)
    kinds = [made_up(), "abc", gateway.token[:-1], made_up(gateway.kid)]
    for i in range(BURST):
        problem(gateway.exec(token=kinds[i % 4], command="true"), 401, "invalid-token")
    for token in kinds:
        answer = gateway.exec(token=token, command="true")
        body = problem(answer, 429, "abnormal-usage")
        assert 1 <= body["retry_after"] <= 14 and "RateLimit" not in answer.headers, body
    assert gateway.run("echo ok").stdout == "ok\n", "a right token is locked out by the failures of others"
    problem(gateway.http.post("/-/agent/exec", json={}), 401, "missing-token")
    assert gateway.get("/-/versions.json").status_code == 200
    metrics = gateway.metrics()
    assert metrics.get("spritegate_auth_throttled_total") == 4
    assert metrics.get("spritegate_exec_decisions_total", outcome="deny", reason="abnormal_usage") == 4


def test_a_right_token_works_while_wrong_ones_pour_in(rig):
    gateway = rig.gateway(workers=1, wrong_token_burst=1)
    for _ in range(10):
        wires = [Wire(gateway.port) for _ in range(8)]
        for wire in wires:
            wire.send(exec_request(made_up(gateway.kid), b'{"command": "true"}'))
        assert gateway.run("echo ok").stdout == "ok\n"
        for wire in wires:
            assert wire.answer().status in (401, 429)
            wire.close()


def test_it_is_the_client_s_address_that_counts(rig):
    """Behind a trusted proxy it is the one the proxy tells; from anybody else such a field is nothing."""
    behind = rig.gateway(workers=1, wrong_token_burst=2, trusted_proxies="127.0.0.0/8")
    direct = rig.gateway(workers=1, wrong_token_burst=2)

    def code(gateway, address):
        return gateway.exec(token="abc", command="true", headers={"X-Forwarded-For": address}).status_code

    assert [code(behind, "192.0.2.1") for _ in range(3)] == [401, 401, 429]
    assert [code(behind, "192.0.2.2") for _ in range(3)] == [401, 401, 429]
    assert [code(behind, f"2001:db8::{i}") for i in range(1, 4)] == [401, 401, 429], "an IPv6 /64 is one client"
    assert code(behind, "2001:db8:0:1::1") == 401
    assert [code(direct, f"192.0.2.{i}") for i in range(3)] == [401, 401, 429]


def test_it_can_be_turned_off(rig):
    gateway = rig.gateway(workers=1, wrong_token_burst=0)
    for _ in range(3 * BURST):
        problem(gateway.exec(token="abc", command="true"), 401, "invalid-token")
