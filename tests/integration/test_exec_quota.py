"""GET /-/agent/exec/quota: a token's own limits and what is left; asking uses up nothing."""
import pytest

from answers import problem
from rig import leases, until

PATH = "/-/agent/exec/quota"


@pytest.fixture(scope="module")
def gateway(shared_rig):
    return shared_rig.gateway(redis=shared_rig.redis(), emulator=shared_rig.emulator(), token=False)


@pytest.fixture
def store(gateway):
    import redis
    return redis.Redis.from_url(gateway.settings["SPRITEGATE_REDIS_URL"], decode_responses=True)


def quota(gateway, token, status=200):
    answer = gateway.get(PATH, headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == status, answer.text
    return answer


def mint(gateway, **limits):
    from rig import mint
    return mint({name: gateway.settings[name] for name in ("SPRITEGATE_PEPPER", "SPRITEGATE_REDIS_URL")}, **limits)


def test_limits_and_what_is_left(gateway, store):
    made = mint(gateway, actor="ann", rate="60/1m", burst=5, conc=3, actor_rate="10/1h", actor_burst=10, actor_conc=7, budget="600s/day",
                budget_out="10MiB/day", max_in="1KiB", max_mem="1GiB", egress="defaults,a.test", max_run="20s", max_out="1KiB")
    first = quota(gateway, made["token"])
    body = first.json()
    assert first.headers["Content-Type"] == "application/json" and first.headers["Cache-Control"] == "no-store"
    midnight = body["budget"].pop("reset_seconds")
    assert 0 < midnight <= 86_400 and body["output_budget"].pop("reset_seconds") in (midnight, midnight - 1)
    assert body == {
        "ok": True, "kid": made["kid"], "actor": "ann", "policy": None, "policy_version": 1,
        "rate": {"limit": 60, "window_seconds": 60, "burst": 5, "remaining": 5, "reset_seconds": 0},
        "actor_rate": {"limit": 10, "window_seconds": 3600, "burst": 10, "remaining": 10, "reset_seconds": 0},
        "concurrency": {"limit": 3, "running": 0}, "actor_concurrency": {"limit": 7, "running": 0},
        "budget": {"limit_ms": 600_000, "used_ms": 0, "held_ms": 0}, "output_budget": {"limit_bytes": 10 << 20, "used_bytes": 0, "held_bytes": 0},
        "max_input_bytes": 1024, "max_processes": None, "max_file_bytes": None, "max_memory_bytes": 1 << 30, "max_sessions": 0, "egress": ["defaults", "a.test"]}
    assert made["token"].rpartition("_")[2] not in first.text and "mac" not in first.text


def test_it_changes_with_use_and_asking_uses_nothing(gateway, store):
    token = mint(gateway, rate="2/1d", burst=2, conc=1, budget="600s/day", max_run="20s")["token"]
    before = {key: store.dump(key) for key in store.scan_iter()}
    for _ in range(5):
        assert quota(gateway, token).json()["rate"]["remaining"] == 2
    assert {key: store.dump(key) for key in store.scan_iter()} == before, "nothing is written"
    gateway.run("echo 12345", token=token)
    until(lambda: leases(store) == 0, "it is settled")
    body = quota(gateway, token).json()
    assert body["rate"]["remaining"] == 1 and body["budget"]["held_ms"] == 0 and body["actor_rate"] is None and body["egress"] == []
    gateway.run("true", token=token)
    body = quota(gateway, token).json()
    assert body["rate"]["remaining"] == 0 and body["rate"]["reset_seconds"] > 40_000
    problem(gateway.exec(token=token, command="true"), 429, "quota-exceeded")
    assert quota(gateway, token).headers["RateLimit"], "told when the limit is used up as well"


def test_who_may_ask(gateway):
    answer = gateway.get(PATH)
    assert problem(answer, 401, "missing-token")
    made = mint(gateway)
    wrong = made["token"][:-7] + ("A" if made["token"][-7] != "A" else "B") + made["token"][-6:]
    problem(quota(gateway, wrong, 401), 401, "invalid-token")
    problem(quota(gateway, mint(gateway, ip="192.0.2.0/24")["token"], 403), 403, "ip-denied")
    problem(gateway.get(PATH + f"?access_token={made['token']}"), 400, "invalid-authorization")
    for method, status in (("POST", 405), ("DELETE", 405), ("OPTIONS", 204), ("HEAD", 200)):
        answer = gateway.http.request(method, PATH, headers={"Authorization": f"Bearer {made['token']}"})
        assert answer.status_code == status, method
    assert gateway.get(PATH + "/x", headers={"Authorization": f"Bearer {made['token']}"}).status_code == 404
