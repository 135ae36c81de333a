"""Alerts on Fly: Prometheus and Alertmanager of deploy/prometheus/fly find the gateway on a private network, and call somebody."""
import json
import os
import pathlib
import pwd
import re
import shlex
import subprocess
import tempfile

import pytest

from rig import BINARY, PYTHON, TOP, clean_environment

RUN = TOP / "deploy/prometheus/fly/run"
PAGE = (TOP / "deploy/FLY.md").read_text(encoding="utf-8")


@pytest.mark.timeout(600)
def test_somebody_is_called():
    script = pathlib.Path(__file__).resolve().parent / "private_alerts.py"
    tried, ticket = re.findall(r"-C '(amtool [^']*)'", PAGE)
    assert ticket == tried.replace("severity=page", "severity=ticket")
    with tempfile.NamedTemporaryFile("w", suffix=".resolv") as resolv:
        os.chmod(resolv.name, 0o644)
        done = subprocess.run(["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", PYTHON, script, BINARY, RUN, resolv.name, tried], env=clean_environment(),
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-6000:]
    seen = json.loads(done.stdout)
    print(seen["memory_mib"])
    assert seen["first"] == ["[fdaa:0:1::2]:9091"] and seen["moved"] == ["[fdaa:0:1::3]:9091"], seen
    assert seen["users"] == [pwd.getpwnam("prometheus").pw_uid] and seen["secrets"] == ["600"], seen
    assert {call["severity"] for call in seen["calls"]["/page"]} == {"page"} and {call["severity"] for call in seen["calls"]["/ticket"]} == {"ticket"}, seen
    assert seen["told"] == 0 and seen["alone"] == 1, seen


@pytest.mark.parametrize("missing", ["GATEWAY_APP", "ALERT_PAGE", "ALERT_TICKET"])
def test_it_does_not_start_without(missing):
    env = {"GATEWAY_APP": "spritegate", "ALERT_PAGE": "http://[::1]:1", "ALERT_TICKET": "http://[::1]:1"}
    done = subprocess.run([RUN], env=clean_environment({**env, missing: ""}), capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (2, f"alerts: {missing} is not set\n")


def test_its_image_has_what_it_starts():
    """Debian's packages by the names under which `run` calls them; the paths of the page's Dockerfile."""
    dockerfile = (RUN.parent / "Dockerfile").read_text(encoding="utf-8")
    assert shlex.split(re.search(r"^COPY (.*)$", dockerfile, re.MULTILINE)[1]) == ["deploy/prometheus", "/opt/spritegate/prometheus"]
    assert re.search(r'^ENTRYPOINT \["/opt/spritegate/prometheus/fly/run"\]$', dockerfile, re.MULTILINE)
    assert "!deploy/prometheus\n" in (TOP / ".dockerignore").read_text(encoding="utf-8")
