"""deploy/compose.yml: what it says of the gateway is what the gateway understands, and only the gateway is reachable."""
import re
import subprocess

import pytest
import yaml

from rig import BINARY, TOP, clean_environment


@pytest.fixture(scope="module")
def services():
    return yaml.safe_load((TOP / "deploy/compose.yml").read_text(encoding="utf-8"))["services"]


def test_the_gateway_takes_its_settings(services):
    env = {name: re.sub(r"\$\{\w+:\?[^}]*\}", "0" * 32, value) for name, value in services["gateway"]["environment"].items()}
    done = subprocess.run([BINARY, "check-config"], env=clean_environment(env), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    secret = [name for name, value in services["gateway"]["environment"].items() if ":?" in value]
    assert secret == ["SPRITEGATE_SPRITES_TOKEN", "SPRITEGATE_PEPPER"], "secrets are not in the file, and it does not start without them"
    for name, port in (("DATASETTE", 8001), ("REDIS", 6379)):
        assert env[f"SPRITEGATE_{name}_URL"].endswith(f"//{name.lower()}:{port}") and name.lower() in services


def test_only_the_gateway_is_published_and_only_on_this_host(services):
    for name, service in services.items():
        ports = service.get("ports", [])
        assert (name == "gateway") == bool(ports), name
        assert all(port.startswith("127.0.0.1:") for port in ports), ports
        assert ("outside" in service["networks"]) == (name == "gateway")
        assert "no-new-privileges:true" in service["security_opt"]


def test_it_has_time_to_drain(services):
    drain = int(re.search(r"`SPRITEGATE_DRAIN_SECONDS` \| integer \| `(\d+)`", (TOP / "docs/CONFIG.md").read_text(encoding="utf-8"))[1])
    assert int(services["gateway"]["stop_grace_period"].removesuffix("s")) > drain


def test_redis_keeps_what_it_must(services):
    command = services["redis"]["command"]
    assert command[command.index("--maxmemory-policy") + 1] == "noeviction"


def test_its_images_can_be_built(services):
    stages = re.findall(r"^FROM \S+ AS (\S+)", (TOP / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    for name in ("gateway", "datasette"):
        build = services[name]["build"]
        assert (TOP / "deploy" / build["context"] / "Dockerfile").is_file() and build.get("target", stages[0]) in stages
