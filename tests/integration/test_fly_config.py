"""The fly.toml files: only keys that flyctl knows, and figures that fit the program's own."""
import re
import shlex
import subprocess
import tomllib

import pytest
import yaml

from rig import BINARY, TOP, clean_environment

FILES = ["fly.toml", "deploy/one-machine/fly.toml"]
ALERTS = "deploy/prometheus/fly/fly.toml"
PAGE = (TOP / "deploy/FLY.md").read_text(encoding="utf-8")

# As flyctl's configuration reference has them, of the sections used here. A key it does not know is ignored without a word.
CHECK = {"interval", "timeout", "grace_period", "method", "path", "protocol", "headers", "tls_skip_verify", "tls_server_name"}
KNOWN = {
    "": {"app", "primary_region", "kill_signal", "kill_timeout", "swap_size_mb", "console_command", "experimental", "build", "deploy", "env",
         "processes", "mounts", "http_service", "services", "checks", "files", "host_dedication_id", "restart", "vm", "statics", "metrics"},
    "http_service": {"internal_port", "force_https", "auto_stop_machines", "auto_start_machines", "min_machines_running", "processes", "concurrency",
                     "tls_options", "http_options", "checks", "machine_checks"},
    "http_service.concurrency": {"type", "soft_limit", "hard_limit"},
    "http_service.http_options": {"compress", "response", "h2_backend", "idle_timeout"},
    "http_service.checks": CHECK,
    "checks.*": CHECK | {"port", "type", "processes"},
    "metrics": {"port", "path", "processes", "https"},
    "mounts": {"source", "destination", "initial_size", "snapshot_retention", "auto_extend_size_threshold", "auto_extend_size_increment",
               "auto_extend_size_limit", "processes"},
    "vm": {"size", "memory", "cpus", "cpu_kind", "gpu_kind", "gpus", "memory_mb", "host_dedication_id", "processes"},
    "build": {"builder", "args", "buildpacks", "image", "settings", "builtin", "dockerfile", "ignorefile", "build-target"},
    "restart": {"policy", "retries", "processes"},
    "deploy": {"strategy", "max_unavailable", "wait_timeout", "release_command", "release_command_timeout", "release_command_vm"},
}
FREE = {"env", "processes", "build.args"}       # names of the user's own


def unknown(table, where=""):
    """Every key that is not known, by its full name."""
    if where in FREE:
        return []
    if where == "checks":
        return [name for check in table.values() for name in unknown(check, "checks.*")]
    found = [f"{where}.{key}" for key in table if key not in KNOWN[where]]
    for key, value in table.items():
        inner = f"{where}.{key}".lstrip(".")
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, dict) and key in KNOWN[where]:
                found += unknown(one, inner)
    return found


def fly_of(file):
    return tomllib.loads((TOP / file).read_text(encoding="utf-8"))


@pytest.fixture(params=FILES)
def fly(request):
    return fly_of(request.param)


@pytest.fixture(scope="module")
def settings():
    """{name: (default, whether it is a secret)} as the program tells them."""
    table = subprocess.run([BINARY, "help", "config"], capture_output=True, text=True, timeout=120, check=True).stdout
    return {name: (default, kind == "secret") for name, kind, default in re.findall(r"^\| `(\w+)` \| ([^|]+) \| `?([^|`]*)`? \|", table, re.MULTILINE)}


@pytest.mark.parametrize("file", [*FILES, ALERTS])
def test_every_key_is_known(file):
    fly = fly_of(file)
    assert unknown(fly) == []
    assert unknown({**fly, "http_services": {}}) == [".http_services"] and unknown({"vm": [{"size": "", "ram": ""}]}) == ["vm.ram"]


def test_settings_exist_and_secrets_are_not_in_the_file(fly, settings):
    for name in fly["env"]:
        assert name in settings, f"there is no setting {name}"
        assert not settings[name][1] and "URL" not in name, f"{name} belongs into `fly secrets`"
    env = {**fly["env"], "FLY_APP_NAME": fly["app"], "SPRITEGATE_PEPPER": "0" * 32, "SPRITEGATE_SPRITES_TOKEN": "token", "SPRITEGATE_REDIS_URL": "redis://default:x@fly-y.upstash.io:6379",
           "SPRITEGATE_DATASETTE_URL": "http://my-datasette.internal:8001", "FLY_MACHINE_ID": "148e272fe67d89"}
    done = subprocess.run([BINARY, "check-config"], env=clean_environment(env), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0 and "instance = 148e272fe67d89" in done.stdout, done.stdout + done.stderr
    # What a machine leaves that is destroyed for good has no other who would remove it.
    assert "pool_shared = 1" in done.stdout and f"pool_name = {fly['app']}" in done.stdout, done.stdout


def default(settings, name):
    return int(re.search(r"\d+$", settings[f"SPRITEGATE_{name}"][0])[0])


def test_figures_fit_the_program(fly, settings):
    service = fly["http_service"]
    assert fly["kill_signal"] == "SIGTERM" and default(settings, "DRAIN_SECONDS") < fly["kill_timeout"] <= 300
    assert service["internal_port"] == default(settings, "LISTEN")
    assert fly["metrics"] == {"port": default(settings, "ADMIN_LISTEN"), "path": "/metrics"}
    assert service["http_options"]["idle_timeout"] > default(settings, "EXEC_MAX_TIMEOUT_SECONDS")
    assert service["auto_stop_machines"] == "stop" and service["concurrency"]["type"] == "requests"
    assert service["concurrency"]["soft_limit"] < service["concurrency"]["hard_limit"]


def test_checks_need_no_sprites(fly, rig):
    """A deploy waits for all of them; also a roll back while Sprites are away."""
    gateway = rig.gateway(sprites_url="http://127.0.0.1:1", pool_hot=1, token=False)
    assert gateway.admin_http.get("/health/ready").status_code == 503
    assert [gateway.http.request(check["method"], check["path"]).status_code for check in fly["http_service"]["checks"]] == [200]
    assert "checks" not in fly and "machine_checks" not in fly["http_service"]


def test_who_watches_finds_the_gateway_and_keeps_to_itself(settings):
    alerts, gateway = fly_of(ALERTS), fly_of(FILES[0])
    program = (TOP / ALERTS).with_name("run").read_text(encoding="utf-8")
    assert not {"http_service", "services"} & set(alerts), "nobody outside may read its pages"
    assert alerts["env"] == {"GATEWAY_APP": gateway["app"]} and alerts["app"] != gateway["app"]
    (found,) = yaml.safe_load((TOP / ALERTS).with_name("prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"]
    (where,) = found["dns_sd_configs"]
    assert (where["names"], where["type"], where["port"]) == ([f"{gateway['app']}.internal"], "AAAA", default(settings, "ADMIN_LISTEN"))
    # A setting keeps the port on the private network's address.
    assert settings["SPRITEGATE_ADMIN_LISTEN"][0].startswith("[::]:") and "SPRITEGATE_ADMIN_LISTEN" not in gateway["env"]
    for check in alerts["checks"].values():
        assert f"--web.listen-address=:{check['port']} " in program.replace("\n", " "), check
    assert f"data=${{ALERTS_DATA:-{alerts['mounts'][0]['destination']}}}\n" in program
    assert [one["source"] for one in alerts["mounts"]] == [words[3] for words in options("fly volumes create") if ALERTS in words]


# --- deploy/FLY.md: nobody who follows it meets a name that is not there -------

def split(line):
    """Its words; what the shell puts in is none of them."""
    return shlex.split(re.sub(r"\$\([^)]*\)", "…", line), comments=True)


def options(command):
    """The commands of the page's blocks that begin so, in words."""
    lines = [line for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL) for line in block.splitlines()]
    return [split(line) for line in lines if line.startswith(command)]


@pytest.mark.parametrize("file", [*FILES, ALERTS])
def test_its_secrets_are_those_of_the_file(file):
    text = (TOP / file).read_text(encoding="utf-8")
    needed = set(re.findall(r"[A-Z]+_[A-Z_]+", text[text.index("# Secrets"):text.index("app =")])) - {"FLY_MACHINE_ID", "SPRITEGATE_INSTANCE"}
    given = [{word.partition("=")[0] for word in words if "=" in word} for words in options("fly secrets set")]
    assert needed in given, (needed, given)


def test_its_settings_and_files_exist(settings):
    assert set(re.findall(r"SPRITEGATE_\w+", PAGE)) <= set(settings)
    for words in options("fly "):
        for option, value in zip(words, words[1:]):
            assert option not in ("--config", "--dockerfile") or (TOP / value).is_file(), words
            assert option != "--build-target" or f" AS {value}\n" in (TOP / "Dockerfile").read_text(encoding="utf-8")
            assert option != "--region" or {fly_of(file)["primary_region"] for file in (*FILES, ALERTS)} == {value}


def test_its_tokens_can_be_made(stack):
    made = {words[-1] for words in options("fly ssh console") if "token" in words[-1]}
    assert len(made) == 1, made
    env = clean_environment({"SPRITEGATE_PEPPER": stack.pepper, "SPRITEGATE_REDIS_URL": stack.redis_url})
    done = subprocess.run([BINARY, *made.pop().split()[1:]], env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0 and "sgt_" in done.stdout, done.stderr


# As flyctl's reference has them: {command: its options on the page}. An option that is not known ends a command, and one that is left
# out may ask a question.
COMMANDS = {
    "apps create": set(), "apps destroy": set(), "auth login": set(), "certs add": set(), "checks list": {"--config"},
    "deploy": {"--ha", "--build-arg", "--config", "--dockerfile", "--build-target", "--image"},
    "ips list": {"--config", "-a"}, "ips release": {"-a"}, "ips allocate-v6": {"--private", "-a"},
    "logs": {"--no-tail"}, "machine destroy": {"--force"}, "machine list": set(), "machine stop": set(), "platform regions": set(), "proxy": {"--config"},
    "redis create": {"--name", "--region", "--no-replicas", "--disable-eviction", "--enable-prodpack", "--plan"}, "redis destroy": set(), "redis status": set(),
    "releases": {"--image"}, "scale count": {"--region"}, "redis plans": set(), "secrets import": set(), "secrets set": {"--config"}, "ssh console": {"--config", "-C"}, "ssh sftp shell": {"--config"},
    "volumes create": {"--size", "--region", "--yes", "--config"},
}


def test_the_page_names_the_app_of_other_sides():
    """Without it flyctl takes the gateway's, from the fly.toml of the checkout. And no shell cuts a webhook at its `&`."""
    side = PAGE.partition("### Datasette's side")[2].partition("## Both on one machine")[0].replace("\n", " ")
    commands = re.findall(r"`(fly [^`]*)`", side)
    assert len(commands) >= 3 and all(command.endswith(" -a my-datasette") for command in commands), commands
    assert re.findall(r"(.)ALERT_\w+=https", PAGE) == ["'", "'"]


def test_flyctl_knows_its_commands():
    inline = [split(line) for line in re.findall(r"`(fly [^`]*)`", PAGE.replace("\n", " "))]
    found = set()
    for words in options("fly ") + inline:
        name = max((name for name in COMMANDS if " ".join(words[1:]).startswith(name)), key=len, default=None)
        assert name, words
        assert {word.partition("=")[0] for word in words if word.startswith("-")} <= COMMANDS[name], words
        found.add(name)
    assert found == set(COMMANDS)
    asks = {"redis create": {"--name", "--region", "--no-replicas", "--disable-eviction", "--enable-prodpack=false"}, "volumes create": {"--region", "--yes"}}
    for name, needed in asks.items():
        assert all(needed <= set(words) for words in options(f"fly {name}")), f"fly {name} would ask"
