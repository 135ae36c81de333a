"""/metrics: well-formed, complete from the start, moving with what happens, and without anything that belongs to a caller."""
import re
import shutil
import subprocess

import pytest

from rig import BINARY, TOP, Metrics, clean_environment, until
from wire import Wire


@pytest.fixture(scope="module")
def gateway(shared_rig):
    gateway = shared_rig.gateway(emulator=shared_rig.emulator(), pool_hot=1)
    gateway.until_ready()
    return gateway


def test_promtool_has_nothing_to_say(gateway):
    assert shutil.which("promtool"), "promtool is missing"
    gateway.run("echo x")
    for accept in ("text/plain", None):
        text = gateway.admin_http.get("/metrics", headers={"Accept": accept} if accept else {}).text
        done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0 and not done.stderr.strip() and not done.stdout.strip(), done.stdout + done.stderr


def test_content_types(gateway):
    plain = gateway.admin_http.get("/metrics")
    assert plain.headers["Content-Type"].startswith("text/plain; version=0.0.4"), plain.headers
    openmetrics = gateway.admin_http.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0, text/plain;q=0.5"})
    assert openmetrics.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0"), openmetrics.headers
    assert openmetrics.text.endswith("# EOF\n")
    for line in openmetrics.text.splitlines():
        if line.startswith("# TYPE") and line.endswith("counter"):
            assert not line.split()[2].endswith("_total"), f"OpenMetrics declares counters without _total: {line}"


ZERO_AT_START = [
    ("spritegate_http_requests_total", {"route": "exec", "method": "POST", "code": "429"}), ("spritegate_http_requests_total", {"route": "table", "method": "GET", "code": "200"}),
    ("spritegate_http_rejected_total", {"reason": "framing"}), ("spritegate_http_aborts_total", {"side": "client"}),
    ("spritegate_upstream_requests_total", {"code_class": "2xx"}), ("spritegate_upstream_errors_total", {"kind": "connect"}),
    ("spritegate_exec_total", {"outcome": "exited", "tier": "hot"}), ("spritegate_exec_total", {"outcome": "unknown", "tier": "cold"}),
    ("spritegate_exec_decisions_total", {"outcome": "allow"}), ("spritegate_exec_decisions_total", {"outcome": "deny", "reason": "rate"}),
    ("spritegate_exec_decisions_total", {"outcome": "deny", "reason": "concurrency"}), ("spritegate_exec_decisions_total", {"outcome": "deny", "reason": "budget"}),
    ("spritegate_exec_killed_total", {"reason": "timeout"}), ("spritegate_exec_leases_reaped_total", {}), ("spritegate_auth_failures_total", {"reason": "missing"}),
    ("spritegate_redis_errors_total", {"kind": "timeout"}), ("spritegate_pool_claims_total", {"tier": "hot"}), ("spritegate_pool_claims_total", {"tier": "warm"}), ("spritegate_pool_claims_total", {"tier": "cold"}),
    ("spritegate_pool_wakes_total", {"result": "ok"}), ("spritegate_pool_idle_seconds_total", {}), ("spritegate_pool_cost_dollars_total", {}),
    ("spritegate_pool_hedges_total", {}), ("spritegate_pool_sessions_lost_total", {"reason": "fenced"}), ("spritegate_pool_revoked_total", {}), ("spritegate_pool_restores_total", {"result": "ok"}), ("spritegate_sprites_calls_total", {"call": "restore"}),
    ("spritegate_pool_refusals_total", {"reason": "full"}), ("spritegate_pool_members", {"state": "leased"}), ("spritegate_exec_seconds_count", {}),
    ("spritegate_http_request_duration_seconds_count", {"route": "exec"}),
]


def test_all_series_are_there_from_the_start(rig):
    """Otherwise rate() misses the first event."""
    metrics = rig.gateway(token=False).metrics()
    for name, labels in ZERO_AT_START:
        assert metrics.get(name, **labels) == 0, f"{name} {labels}"
    for name in ("spritegate_redis_up", "spritegate_upstream_healthy", "process_open_fds", "process_resident_memory_bytes", "process_cpu_seconds_total",
                 "process_start_time_seconds", "process_max_fds", "spritegate_build_info", "spritegate_pool_refill_stalled", "spritegate_redis_breaker_state",
                 "spritegate_connections", "spritegate_http_requests_in_flight", "spritegate_exec_leases", "spritegate_pool_wait_oldest_seconds",
                 "spritegate_pool_fleet_instances", "spritegate_pool_fleet_members", "spritegate_pool_beat_age_seconds", "spritegate_pool_recovering"):
        metrics.get(name)


# What dashboards and alerts of others may rely on: each name with its kind.
FAMILIES = {
    "counter": """http_requests_total http_aborts_total http_rejected_total upstream_requests_total upstream_errors_total exec_decisions_total
        exec_sandbox_seconds_total exec_output_bytes_total exec_leases_reaped_total exec_killed_total redis_errors_total auth_failures_total
        cache_requests_total""",
    "histogram": """http_request_duration_seconds http_response_first_byte_seconds http_request_size_bytes http_response_size_bytes
        upstream_connect_seconds exec_seconds exec_queue_seconds redis_command_seconds""",
    "gauge": """http_requests_in_flight connections upstream_healthy exec_leases redis_up redis_breaker_state pool_members pool_wait_oldest_seconds
        config_last_reload_successful config_last_reload_timestamp_seconds build_info""",
}
MOVED_BY_THE_START = ("http_", "upstream_", "redis_command_seconds")       # whoever waits for it asks for its health


def test_no_family_is_missing(rig):
    metrics = rig.gateway(token=False, cache_bytes="1MiB").metrics()
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", metrics.text, re.MULTILINE))
    for kind, names in FAMILIES.items():
        for name in names.split():
            assert kinds.get(f"spritegate_{name}") == kind, f"{name}: {kinds.get('spritegate_' + name)}"
            value = metrics.get(f"spritegate_{name}" + ("_count" if kind == "histogram" else ""))
            assert kind == "gauge" or value == 0 or name.startswith(MOVED_BY_THE_START), f"{name} begins with {value}"
    assert any(name.startswith("process_") for name in kinds)


@pytest.mark.smoke
def test_commands_are_counted(gateway):
    before = gateway.metrics()

    def moved(name, **labels):
        now = gateway.metrics().get(name, **labels)
        was = sum(value for (family, has), value in before.samples.items() if family == name and set(labels.items()) <= set(has))
        return now - was

    gateway.run("echo 123456789")
    gateway.until_ready()
    gateway.exec(token="sgt_wrong", command="true")
    gateway.exec(b"{}")
    # The last answer may be with its caller before it is counted.
    until(lambda: moved("spritegate_http_request_duration_seconds_count", route="exec") == 3, "all are counted")
    after = gateway.metrics()
    assert moved("spritegate_exec_total", outcome="exited", tier="hot") == 1
    assert moved("spritegate_exec_decisions_total", outcome="allow") == 1
    assert moved("spritegate_exec_decisions_total", outcome="deny") == 2
    assert moved("spritegate_auth_failures_total") == 1
    assert moved("spritegate_exec_output_bytes_total") == 10
    assert moved("spritegate_exec_seconds_count") == 1
    assert 0 < moved("spritegate_exec_seconds_sum") < 20
    assert moved("spritegate_exec_sandbox_seconds_total") > 0
    assert moved("spritegate_pool_claims_total", tier="hot") == 1
    assert moved("spritegate_http_requests_total", route="exec", method="POST", code="200") == 1
    assert moved("spritegate_http_requests_total", route="exec", method="POST", code="401") == 1
    assert moved("spritegate_http_requests_total", route="exec", method="POST", code="422") == 1
    assert moved("spritegate_http_request_duration_seconds_count", route="exec") == 3
    assert moved("spritegate_redis_command_seconds_count") >= 2
    assert after.get("spritegate_exec_leases") == 0 and after.get("spritegate_exec_running") == 0
    assert after.get("spritegate_pool_members", state="hot") == 1


def test_requests_are_counted_by_route(gateway):
    wanted = {"/sample/stations": "table", "/sample/stations/1": "row", "/-/static/app.css": "static", "/": "other", "/-/versions.json": "other",
              "/-/gateway/health": "gateway"}
    for path, route in wanted.items():
        was = counted(gateway, route)
        assert gateway.get(path).status_code == 200
        until(lambda: counted(gateway, route) == was + 1, f"{path} counts as {route}")


def counted(gateway, route):
    return sum(value for (name, labels), value in gateway.metrics().samples.items()
               if name == "spritegate_http_requests_total" and ("route", route) in labels and ("method", "GET") in labels)


def test_running_commands_are_seen(gateway):
    import concurrent.futures
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        busy = pool.submit(gateway.run, "sleep 5")

        def seen():
            metrics = gateway.metrics()
            return [metrics.get("spritegate_pool_members", state="leased"), metrics.get("spritegate_exec_running"),
                    metrics.get("spritegate_exec_leases"), metrics.get("spritegate_http_requests_in_flight", route="exec")]
        until(lambda: seen() == [1, 1, 1, 1], lambda: f"one command is leased a Sprite and runs: {seen()}")
        busy.result()
    until(lambda: gateway.metrics().get("spritegate_http_requests_in_flight") == 0, "no request is under way")


def test_labels_are_a_closed_list(gateway):
    """Whatever a stranger sends makes no new series."""
    was = gateway.metrics().get("spritegate_http_requests_total")
    gateway.get("/warm-up")
    gateway.http.request("BREW", "/warm-up")
    until(lambda: gateway.metrics().get("spritegate_http_requests_total") >= was + 2, "both are counted")
    before = set(gateway.metrics().samples)
    for i in range(20):
        gateway.get(f"/path-{i}", headers={"X-Thing": str(i)})
        gateway.http.request(f"METHOD{i}", "/warm-up")
        gateway.exec(token=f"sgt_{i}", command="true")
    new = {name for name, labels in set(gateway.metrics().samples) - before if name != "spritegate_http_requests_total"}
    assert not new, new
    text = gateway.metrics().text
    assert "METHOD" not in text and "path-" not in text


def test_nothing_secret_is_in_it(gateway):
    marker = "hunter2-in-a-command"
    gateway.run(f"echo {marker}")
    text = gateway.metrics().text
    for secret in (marker, gateway.token, gateway.token[21:], gateway.kid, "tester", gateway.settings["SPRITEGATE_PEPPER"],
                   gateway.settings["SPRITEGATE_SPRITES_TOKEN"]):
        assert secret not in text, f"{secret[:12]}… is in the metrics"


def test_not_on_the_public_listener(gateway):
    """There /metrics is Datasette's."""
    answer = gateway.get("/metrics")
    assert answer.status_code == 404 and "spritegate_" not in answer.text


def test_scrapes_in_the_middle_of_traffic_are_whole(gateway):
    import threading
    over = threading.Event()

    def load():
        with Wire(gateway.port) as wire:
            while not over.is_set():
                wire.ask("GET", "/-/versions.json")
                wire.answer()

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        last = 0
        for _ in range(50):
            metrics = Metrics(gateway.admin_http.get("/metrics").text)
            now = metrics.get("spritegate_http_requests_total")
            assert now >= last, "a counter went back"
            last = now
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_admin_listener_refuses_the_rest(gateway):
    assert gateway.admin_http.get("/nothing").status_code == 404
    refused = gateway.admin_http.post("/metrics")
    assert refused.status_code == 405 and "GET" in refused.headers["Allow"]
    assert gateway.admin_http.head("/metrics").status_code == 200


def test_version_is_told(gateway):
    told = subprocess.run([BINARY, "version"], env=clean_environment(), capture_output=True, text=True, timeout=120, check=True).stdout
    version, revision = re.fullmatch(r"spritegate (\S+) \(revision (\S+)\)\n", told).groups()
    assert gateway.metrics().get("spritegate_build_info", version=version, revision=revision) == 1
    if (TOP / ".git").exists():
        assert re.fullmatch(r"[0-9a-f]{12,40}(-dirty)?", revision), "a clone knows its revision"


def test_the_revision_is_that_of_the_checkout(tmp_path):
    """Asked with each build; written only when it is another, so that nothing is built for nothing."""
    source, header = tmp_path / "source", tmp_path / "revision.h"
    source.mkdir()

    def git(*words):
        return subprocess.run(["git", "-C", source, "-c", "user.name=a", "-c", "user.email=a@example.org", *words], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=120, check=True).stdout.strip()

    def revision(given="unknown"):
        subprocess.run(["cmake", f"-DGIVEN={given}", f"-DSOURCE={source}", f"-DOUTPUT={header}", "-P", TOP / "cmake/revision.cmake"],
                       stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=True)
        return re.fullmatch(r'#define SPRITEGATE_REVISION "(.*)"\n', header.read_text())[1]

    assert revision() == "unknown", "no git here, though perhaps above"
    git("init", "-q")
    (source / "file").write_text("1")
    git("add", "file")
    git("commit", "-qm", "one")
    git("tag", "-am", "one", "v1")
    assert revision() == git("rev-parse", "--short=12", "HEAD")
    written = header.stat().st_mtime_ns
    assert revision() and header.stat().st_mtime_ns == written
    (source / "file").write_text("2")
    assert revision() == git("rev-parse", "--short=12", "HEAD") + "-dirty"
    git("commit", "-qam", "two")
    assert revision() == git("rev-parse", "--short=12", "HEAD")
    assert revision("0123abc") == "0123abc"
