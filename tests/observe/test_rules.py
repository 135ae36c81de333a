"""Alerts: each is tested to be quiet, to fire and to clear, and each tells its reader what to do."""
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


@pytest.mark.timeout(700)
def test_alerts_fire_and_clear():
    promtool("test", "rules", TESTS)


def minutes(text):
    return int(re.fullmatch(r"(\d+)m", text)[1])


def test_every_alert_is_seen_quiet_firing_and_cleared():
    seen = {}
    for test in yaml.safe_load(TESTS.read_text(encoding="utf-8"))["tests"]:
        points = sorted((minutes(point["eval_time"]), point) for point in test["promql_expr_test"])
        for _, point in points:
            assert f'alertname="{test["name"]}",alertstate="firing"' in point["expr"], point
        seen.setdefault(test["name"], []).append([point["exp_samples"][0]["value"] for _, point in points])
    assert set(seen) == set(alerts()), set(seen) ^ set(alerts())
    for name, tests in seen.items():
        assert [0, 1, 0] in tests, f"{name} is not shown quiet, firing and cleared"


def test_every_alert_has_a_section_in_the_runbook():
    sections = re.findall(r"^## (\w+)$", RUNBOOK, re.MULTILINE)
    assert set(sections) == set(alerts()), set(sections) ^ set(alerts())
    for name, rule in alerts().items():
        assert rule["annotations"]["runbook"] == f"docs/RUNBOOK.md#{name.lower()}"
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"].endswith(".")
    for link in re.findall(r"\]\(#(\w+)\)", RUNBOOK):
        assert link in {name.lower() for name in alerts()}, f"#{link} leads nowhere"
