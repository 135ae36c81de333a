"""A real Prometheus scrapes gateways: it takes what they say, every rule is evaluated, every query of the dashboards has an answer."""
import concurrent.futures
import importlib.util
import json
import math
import pathlib
import tempfile

import pytest
import yaml

import rig as rigs
from rig import TOP, free_port, until

GRAFANA = TOP / "deploy/grafana"
DASHBOARDS = sorted(GRAFANA.glob("*.json"))


class Prometheus(rigs.Part):
    def __init__(self, gateways):
        folder = pathlib.Path(tempfile.mkdtemp(dir=rigs.LOGS))
        config = yaml.safe_load((TOP / "deploy/prometheus/prometheus.yml").read_text(encoding="utf-8"))
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = [str(TOP / "deploy/prometheus" / name) for name in config["rule_files"]]
        config["scrape_configs"][0]["static_configs"][0]["targets"] = [gateway.admin.removeprefix("http://") for gateway in gateways]
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
        port = free_port()
        super().__init__("prometheus", ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
                                        f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"])
        self.http = rigs.client(base_url=f"http://127.0.0.1:{port}")
        self.until_up(self.ready)

    def ready(self):
        try:
            return self.http.get("/-/ready").status_code == 200
        except rigs.httpx.TransportError:
            return False

    def ask(self, path, **query):
        answer = self.http.get("/api/v1/" + path, params=query).json()
        assert answer["status"] == "success", f"{query}: {answer}"
        assert not answer.get("warnings"), f"{query}: {answer['warnings']}"
        return answer["data"]

    def values(self, query):
        """Of every series that has a number now."""
        values = [float(series["value"][1]) for series in self.ask("query", query=query)["result"]]
        return [value for value in values if not math.isnan(value)]

    def rules(self):
        return [rule for group in self.ask("rules")["groups"] for rule in group["rules"]]

    def alert(self, name):
        """inactive, pending or firing."""
        return next(rule["state"] for rule in self.rules() if rule["name"] == name)


@pytest.fixture(scope="module")
def redis(shared_rig):
    return shared_rig.redis()


@pytest.fixture(scope="module")
def gateway(shared_rig, redis):
    gateway = shared_rig.gateway(redis=redis, emulator=shared_rig.emulator(), pool_hot=1, pool_warm=2, cache_bytes="1MiB")
    gateway.until_ready()
    until(lambda: gateway.metrics().get("spritegate_pool_members", state="warm") == 2, "there are paused Sprites to wake")
    return gateway


@pytest.fixture(scope="module")
def prometheus(shared_rig, gateway):
    prometheus = Prometheus([gateway])
    shared_rig.add(prometheus, prometheus.stop)
    until(lambda: prometheus.values('up{job="spritegate"}') == [1], "the gateway is scraped")
    return prometheus


@pytest.fixture(scope="module")
def busy(prometheus, gateway):
    """Some of everything, seen by at least one more scrape."""
    for path in ("/", "/sample/stations", "/sample/stations/1", "/-/static/app.css"):
        assert gateway.get(path).status_code == 200
    gateway.http.request("GET", "/a/../b")
    gateway.run("echo hello")
    gateway.exec(token="sgt_wrong", command="true")
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: gateway.run("sleep 0.2"), range(3)))    # more than there are hot ones
    gateway.run("sleep 30", timeout_seconds=1)
    gateway.until_ready()
    ended = gateway.metrics().get("spritegate_exec_total")
    until(lambda: sum(prometheus.values("spritegate_exec_total")) >= ended, "what happened has been scraped")
    return prometheus


def test_it_takes_all_that_is_shown(busy, gateway):
    """Its text format is stricter than promtool's check; OpenMetrics is what it prefers."""
    target = busy.ask("targets")["activeTargets"][0]
    assert target["health"] == "up" and target["lastError"] == "", target
    shown = {name for name, _ in gateway.metrics().samples}
    stored = set(busy.ask("label/__name__/values"))
    assert shown <= stored, shown - stored


def test_rules_are_evaluated(busy):
    until(lambda: all(rule["health"] != "unknown" for rule in busy.rules()), "every rule was evaluated")
    bad = {rule["name"]: rule.get("lastError") for rule in busy.rules() if rule["health"] != "ok"}
    assert not bad, bad
    for name in {rule["name"] for rule in busy.rules() if rule["type"] == "recording"}:
        until(lambda name=name: busy.values(name), f"{name} has values")


def test_nothing_fires_on_a_healthy_gateway(busy):
    firing = [rule["name"] for rule in busy.rules() if rule["type"] == "alerting" and rule["state"] == "firing"]
    assert not firing, firing


def queries(file):
    for panel in json.loads(file.read_text(encoding="utf-8"))["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_every_query_of_the_dashboards_has_data(busy, file):
    empty = []
    for title, query in queries(file):
        for name, value in (("$__rate_interval", "5m"), ("$job", ".*"), ("$instance", ".*")):
            query = query.replace(name, value)
        assert "$" not in query, query
        if not busy.values(query):
            empty.append(f"{title}: {query}")
    assert not empty, "\n".join(empty)


def test_a_dead_redis_is_noticed(busy, redis):
    with redis.frozen():
        until(lambda: busy.alert("SpritegateBreakerOpen") == "pending" or busy.alert("SpritegateRedisDown") == "pending", "the alert waits for its time")
    until(lambda: busy.alert("SpritegateBreakerOpen") == busy.alert("SpritegateRedisDown") == "inactive", "the alert is gone")


# --- the dashboards as files -------------------------------------------------

def test_dashboards_are_what_their_script_writes():
    spec = importlib.util.spec_from_file_location("dashboards", GRAFANA / "dashboards.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert {file.name for file in DASHBOARDS} == set(script.DASHBOARDS)
    for file in DASHBOARDS:
        assert file.read_text(encoding="utf-8") == script.text(file.name), f"{file.name}: run deploy/grafana/dashboards.py"


@pytest.mark.parametrize("file", DASHBOARDS, ids=lambda file: file.stem)
def test_panels_have_ids_and_places_of_their_own(file):
    panels = json.loads(file.read_text(encoding="utf-8"))["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken and max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells
