"""Callers without a token: credentials that a real Datasette knows, and gateways that take them."""
import json
import subprocess
import time

import itsdangerous

import rig as rigs
from rig import DATASETTE, Part, client, free_port, httpx

SECRET = "secret of the identity tests"
RULES = [{"policy": "staff", "allow": {"role": ["admin", "analyst"], "id": "tom"}}, {"policy": "guests", "allow": {"guest": True}},
         {"policy": "few", "allow": {"few": True}}]

# Whoever is in the file is known by a cookie that names them: what a plugin with accounts of its own does.
PEOPLE = """
import json, pathlib
from datasette import hookimpl

@hookimpl
def actor_from_request(datasette, request):
    people = json.loads(pathlib.Path({path!r}).read_text())
    return people.get(request.cookies.get("person"))
"""


def cookie(actor):
    """What Datasette's login sets."""
    return {"Cookie": "ds_actor=" + itsdangerous.URLSafeSerializer(SECRET, "actor").dumps({"a": actor})}


def api_token(actor, restrictions=None):
    value = {"a": actor, "t": int(time.time())}
    if restrictions is not None:
        value["_r"] = restrictions
    return {"Authorization": "Bearer dstok_" + itsdangerous.URLSafeSerializer(SECRET, "token").dumps(value)}


class Datasette(Part):
    def __init__(self, folder):
        self.people_path = folder / "people.json"
        self.people({})
        plugins = folder / "plugins"
        plugins.mkdir()
        (plugins / "people.py").write_text(PEOPLE.format(path=str(self.people_path)))
        port = free_port()
        super().__init__("datasette", [*DATASETTE, "serve", "--memory", "-h", "127.0.0.1", "-p", port, "--secret", SECRET,
                                       "--plugins-dir", plugins])
        self.url = f"http://127.0.0.1:{port}"
        self.http = client(base_url=self.url)
        self.until_up(self.answers)

    def answers(self):
        try:
            return self.http.get("/-/actor.json").status_code == 200
        except httpx.TransportError:
            return False

    def people(self, actors):
        """Who there is from now on: {cookie: actor}."""
        new = self.people_path.with_suffix(".new")
        new.write_text(json.dumps(actors))
        new.replace(self.people_path)


class Door:
    """A gateway that lets in whom its Datasette knows."""

    def __init__(self, rig, datasette_url, redis=None, **settings):
        self.redis = redis
        self.gateway = rig.gateway(redis=redis, datasette_url=datasette_url, identity_rules=json.dumps(RULES),
                                   **{"wrong_token_burst": 0, "workers": 1, **settings})
        self.set_policy("staff", "--conc", "50", "--rate", "100000/1m", "--burst", "10000", "--sessions", "2")
        self.set_policy("guests", "--max-run", "60s")
        self.set_policy("few", "--rate", "1/1d", "--burst", "1")

    def cli(self, *words):
        env = {name: self.gateway.settings[name] for name in ("SPRITEGATE_REDIS_URL", "SPRITEGATE_PEPPER")}
        return subprocess.run([rigs.BINARY, *words], env=rigs.clean_environment(env), stdin=subprocess.DEVNULL, capture_output=True,
                              text=True, timeout=120, check=False)

    def set_policy(self, *words):
        made = self.cli("policy", "set", *words)
        assert made.returncode == 0, made

    def post(self, headers, **fields):
        """POST /-/agent/exec without a token."""
        return self.gateway.http.post("/-/agent/exec", headers=headers, json=fields or {"command": "echo hello"})

    def quota(self, headers):
        return self.gateway.get("/-/agent/exec/quota", headers=headers)

    def results(self):
        metrics = self.gateway.metrics()
        names = ("known", "anonymous", "invalid", "denied", "failed", "cached")
        return {name: int(metrics.get("spritegate_identity_total", result=name)) for name in names}
