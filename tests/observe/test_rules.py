"""Alerts: each is tested to be quiet, to fire and to clear, and each tells its reader what to do."""
import json
import pathlib
import re
import subprocess

import pytest
import yaml

TOP = pathlib.Path(__file__).resolve().parent.parent.parent
PROMETHEUS = TOP / "deploy/prometheus"
TESTS = pathlib.Path(__file__).resolve().parent / "alerts.yml"
RUNBOOK = (TOP / "docs/RUNBOOK.md").read_text(encoding="utf-8")


def alerts():
    groups = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def promtool(*words):
    done = subprocess.run(["promtool", *map(str, words)], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_files_are_valid():
    promtool("check", "rules", "--lint=all", "--lint-fatal", PROMETHEUS / "rules.yml", PROMETHEUS / "alerts.yml")
    promtool("check", "config", PROMETHEUS / "prometheus.yml")
    promtool("check", "config", PROMETHEUS / "fly/prometheus.yml")
    for command in (["amtool", "check-config", PROMETHEUS / "fly/alertmanager.yml"], ["shellcheck", PROMETHEUS / "fly/run"]):
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(700)
def test_alerts_fire_and_clear():
    promtool("test", "rules", TESTS)


def minutes(text):
    return int(re.fullmatch(r"(\d+)m", text)[1])


def recorded():
    """{name: [rule]} of the recording rules."""
    groups = yaml.safe_load((PROMETHEUS / "rules.yml").read_text(encoding="utf-8"))["groups"]
    found = {}
    for rule in (rule for group in groups for rule in group["rules"]):
        found.setdefault(rule["record"], []).append(rule)
    return found


def objectives(rule):
    """Of an alert: each has windows of its own. None when it is not on one."""
    used = [one for name, rules in recorded().items() if name in rule["expr"] for one in rules]
    return {one.get("labels", {}).get("slo") for one in used} or {None}


def test_every_alert_is_seen_quiet_firing_and_cleared():
    seen = {}
    for test in yaml.safe_load(TESTS.read_text(encoding="utf-8"))["tests"]:
        points = sorted((minutes(point["eval_time"]), point) for point in test["promql_expr_test"])
        asked = {re.match(rf'count\(ALERTS\{{alertname="{test["name"]}",alertstate="firing"(?:,slo="(\w+)")?\}}\)', point["expr"])[1] for _, point in points}
        (slo,) = asked
        seen.setdefault((test["name"], slo), []).append([point["exp_samples"][0]["value"] for _, point in points])
    assert {name for name, _ in seen} == set(alerts())
    for name, rule in alerts().items():
        for slo in objectives(rule):
            assert [0, 1, 0] in seen.get((name, slo), []), f"{name} {slo or ''} is not shown quiet, firing and cleared"


def test_every_alert_has_a_section_in_the_runbook():
    sections = re.findall(r"^## (\w+)$", RUNBOOK, re.MULTILINE)
    assert set(sections) == set(alerts()), set(sections) ^ set(alerts())
    for name, rule in alerts().items():
        assert rule["annotations"]["runbook"] == f"docs/RUNBOOK.md#{name.lower()}"
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"].endswith(".")
    for link in re.findall(r"\]\(#(\w+)\)", RUNBOOK):
        assert link in {name.lower() for name in alerts()}, f"#{link} leads nowhere"


# --- the dashboards ----------------------------------------------------------

def panels():
    """(dashboard, title) → (description, queries)"""
    return {(file.stem, panel["title"]): (panel.get("description", ""), [target["expr"] for target in panel.get("targets", [])])
            for file in (TOP / "deploy/grafana").glob("*.json") for panel in json.loads(file.read_text(encoding="utf-8"))["panels"]}


def metrics(expr):
    """What it asks for, recorded series by what they are recorded from."""
    for name, rules in recorded().items():
        expr = expr.replace(name, rules[0]["expr"])
    return set(re.findall(r"\b(?:spritegate|process)_\w+|\bup\b", re.sub(r'"[^"]*"', "", expr)))


def test_every_alert_has_a_panel_that_shows_it_and_says_what_to_do():
    said = {}
    for place, (description, queries) in panels().items():
        for alert, what, section in re.findall(r"^\*\*(\w+)\*\*: (.+) \(docs/RUNBOOK\.md#(\w+)\)$", description, re.MULTILINE):
            assert section == alert.lower() and what.endswith((".", "?")), (place, what)
            said.setdefault(alert, []).append((place, set().union(*map(metrics, queries))))
    assert set(said) == set(alerts()), set(said) ^ set(alerts())
    for alert, places in said.items():
        for place, shown in places:
            assert shown & metrics(alerts()[alert]["expr"]), f"{place} shows nothing of {alert}"
