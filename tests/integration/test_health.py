"""Health: the public check for who routes traffic here, and the admin's live and ready."""
import pytest

from rig import until
from wire import Wire


@pytest.mark.smoke
def test_public_check(stack):
    answer = stack.health()
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json" and answer.headers["Cache-Control"] == "no-store"
    body = answer.json()
    assert body["ok"] is True and body["redis"] == "up" and body["datasette"] == "up", body
    assert stack.http.head("/-/gateway/health").status_code == 200
    refused = stack.http.post("/-/gateway/health")
    assert refused.status_code == 405 and "GET" in refused.headers["Allow"]


def test_public_check_tells_no_secrets_and_needs_none(stack):
    text = stack.health().text
    for secret in (stack.token, stack.pepper, stack.sprites.token, stack.redis_url, stack.datasette):
        assert secret not in text


def test_never_reaches_datasette(rig):
    upstream = rig.upstream()
    gateway = rig.gateway(datasette_url=upstream.url, token=False)
    assert gateway.health().status_code == 200
    assert not upstream.asked("/-/gateway/health")
    with Wire(gateway.port) as wire:
        wire.ask("GET", "/-/gateway/healthy")
        assert wire.answer().status == 404
    assert upstream.asked("/-/gateway/healthy")


def told(gateway, what, times=20):
    """What the public check says on many connections, so of every worker, and what the admin listener says."""
    words = set()
    for _ in range(times):
        with Wire(gateway.port) as wire:
            wire.ask("GET", "/-/gateway/health")
            words.add(wire.answer().json()[what])
    return words | {gateway.admin_http.get("/health/ready").json()[what]}


def test_datasette_goes_and_comes_back(rig):
    """One truth for all workers; Datasette is found to be back though nobody asks for a page."""
    first = rig.upstream()
    gateway = rig.gateway(datasette_url=first.url, workers=4, token=False)
    assert told(gateway, "datasette") == {"up"}
    first.close()
    until(lambda: gateway.http.get("/x").status_code == 502, "Datasette is away")
    assert told(gateway, "datasette") == {"down"}
    assert gateway.metrics().get("spritegate_upstream_healthy") == 0
    again = rig.upstream(first.port)
    until(lambda: gateway.metrics().get("spritegate_upstream_healthy") == 1, "Datasette is found to be back")
    assert told(gateway, "datasette") == {"up"}
    assert [exchange.method for exchange in again.asked("/-/versions.json")] == ["HEAD"], again.asked()


def test_redis_freezes_and_thaws(rig):
    """The same of Redis, also when no command asks for it."""
    redis = rig.redis()
    gateway = rig.gateway(redis=redis, emulator=rig.emulator(), workers=4, pool_hot=0, token=False)
    until(lambda: told(gateway, "redis", 1) == {"up"}, "every link is up")
    with redis.frozen():
        until(lambda: gateway.health().json()["redis"] == "down", "Redis is seen to be frozen")
        assert told(gateway, "redis") == {"down"}
        assert gateway.metrics().get("spritegate_redis_up") == 0
    until(lambda: told(gateway, "redis", 1) == {"up"}, "Redis is seen to be back")
    assert told(gateway, "redis") == {"up"} and gateway.metrics().get("spritegate_redis_up") == 1


def test_live_and_ready(rig):
    emulator = rig.emulator("--create-delay", "1s")
    gateway = rig.gateway(emulator=emulator, pool_hot=2, token=False)
    assert gateway.admin_http.get("/health/live").status_code == 200
    not_yet = gateway.admin_http.get("/health/ready")
    assert not_yet.status_code == 503 and not_yet.json()["ok"] is False, not_yet.text
    assert gateway.health().status_code == 200, "pages need no Sprite"
    until(gateway.ready, "the pool is full")
    assert gateway.admin_http.get("/health/ready").json()["pool"] == {"hot": 2, "leased": 0, "target": 2}


def test_a_claim_or_an_outage_does_not_end_readiness(rig):
    """Ready means that it can serve, not that nothing is being used."""
    redis, emulator = rig.redis(), rig.emulator()
    gateway = rig.gateway(redis=redis, emulator=emulator, pool_hot=1)
    gateway.until_ready()
    emulator.view.fault("create_hang")
    assert gateway.run("echo ok").stdout == "ok\n"
    until(lambda: not gateway.full(), "the pool is empty and cannot be filled")
    assert gateway.ready(), gateway.admin_http.get("/health/ready").text
    redis.kill()
    until(lambda: gateway.admin_http.get("/health/ready").json()["redis"] == "down", "Redis is seen to be away")
    assert gateway.ready(), "pages need no Redis"


def test_not_ready_while_no_sandbox_can_be_made(rig):
    emulator = rig.emulator()
    emulator.view.fault("create_500")
    gateway = rig.gateway(emulator=emulator, pool_hot=1, token=False)
    until(lambda: emulator.view.hits("create_500") > 1, "creations fail")
    assert not gateway.ready()
    emulator.view.clear_faults()
    until(gateway.ready, "the pool is full")


def test_health_command(stack):
    """For container checks: an exit status."""
    import subprocess
    from rig import BINARY, clean_environment

    def health(where):
        return subprocess.run([BINARY, "health", where], env=clean_environment(), capture_output=True, text=True, timeout=120, check=False)

    assert health(f"127.0.0.1:{stack.port}").returncode == 0
    away = health("127.0.0.1:1")
    assert away.returncode == 1 and away.stderr.strip()
    assert health("nonsense").returncode == 2
