"""Datasette on a private network like Fly's: IPv6 only, found by name, at another address after a restart."""
import json
import pathlib
import subprocess
import tempfile

from rig import BINARY, PYTHON, clean_environment


def test_a_name_is_resolved_anew():
    script = pathlib.Path(__file__).resolve().parent / "private_network.py"
    with tempfile.NamedTemporaryFile("w", suffix=".hosts") as hosts:
        done = subprocess.run(["unshare", "--net", "--mount", PYTHON, script, BINARY, hosts.name], env=clean_environment(),
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads(done.stdout)
    assert seen["before"]["home"] == "fdaa:0:1::2" and seen["after"]["home"] == "fdaa:0:1::3", seen
    assert seen["after"]["seconds"] < 30, "a name is kept for 5 s, and then no longer"
    assert seen["after"]["host"] == "[fdaa:0:1::2]:8080" and seen["code"] == 0, seen
