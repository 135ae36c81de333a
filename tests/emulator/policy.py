"""Policies of a Sprite: strict validation, storage, and what they mean.

network.py enforces the first, memory.py the limit of the third. Privileges are stored only: every
Sprite has less than any profile could leave it: no capability, no new privileges, no device but
those that every program needs. What a profile or a list of devices would grant is not granted.
"""
from internet import is_name
from memory import MemoryLimit
from network import Network

PROFILES = ("", "minimal", "standard", "privileged")
DEFAULTS = """anthropic.com *.anthropic.com openai.com *.openai.com github.com *.github.com *.githubusercontent.com
 gitlab.com *.gitlab.com *.docker.io *.docker.com ghcr.io *.ghcr.io registry.npmjs.org *.npmjs.org pypi.org
 files.pythonhosted.org crates.io *.crates.io static.rust-lang.org proxy.golang.org sum.golang.org
 repo.maven.apache.org *.ubuntu.com *.hashicorp.com""".split()


def is_pattern(text):
    """A host name, *.suffix or *."""
    return text == "*" or is_name(text.removeprefix("*."))


class BadPolicy(ValueError):
    """The body is not a policy; the text says why."""


class NetworkPolicy:
    def __init__(self, rules):
        self.rules = rules

    @classmethod
    def parse(cls, body):
        fields(body, {"rules"}, "policy")
        rules = body.get("rules")
        if not isinstance(rules, list):
            raise BadPolicy("rules is required and must be an array")
        return cls([cls.parse_rule(rule) for rule in rules])

    @staticmethod
    def parse_rule(rule):
        fields(rule, {"domain", "action", "include"}, "rule")
        if ("domain" in rule) == ("include" in rule):
            raise BadPolicy("a rule has exactly one of domain and include")
        if "include" in rule:
            if rule["include"] != "defaults":
                raise BadPolicy("include must be \"defaults\"")
            if "action" in rule:
                raise BadPolicy("action does not go with include")
        else:
            if not isinstance(rule["domain"], str) or not is_pattern(rule["domain"].lower()):
                raise BadPolicy("domain must be a host name, *.suffix or *")
            if rule.get("action") not in ("allow", "deny"):
                raise BadPolicy("action must be allow or deny")
        return rule

    @property
    def unrestricted(self):
        return not self.rules

    @property
    def closed(self):
        """Nothing is allowed, so there is nothing to provide."""
        return bool(self.rules) and all(rule.get("action") == "deny" for rule in self.rules)

    def allows(self, host):
        """Exact name before *.suffix before *; first match inside a class; a policy that matches nothing denies."""
        if not self.rules:
            return True
        host = host.lower().rstrip(".")
        pairs = []
        for rule in self.rules:
            if "include" in rule:
                pairs += [(domain, "allow") for domain in DEFAULTS]
            else:
                pairs.append((rule["domain"].lower().rstrip("."), rule["action"]))
        classes = (lambda domain: domain == host,
                   lambda domain: domain.startswith("*.") and host.endswith(domain[1:]),
                   lambda domain: domain == "*")
        for matches in classes:
            for domain, action in pairs:
                if matches(domain):
                    return action == "allow"
        return False


def parse_privileges(body):
    fields(body, {"profile", "devices", "noNewPrivileges"}, "policy")
    if body.get("profile", "") not in PROFILES:
        raise BadPolicy("profile must be one of: minimal, standard, privileged")
    devices = body.get("devices", [])
    if not isinstance(devices, list) or not all(isinstance(device, str) for device in devices):
        raise BadPolicy("devices must be an array of texts")
    if type(body.get("noNewPrivileges", False)) is not bool:
        raise BadPolicy("noNewPrivileges must be a boolean")
    return body


def parse_resources(body):
    fields(body, {"memory"}, "policy")
    memory = body.get("memory")
    if memory is not None:
        fields(memory, {"limit_mb", "autoscale"}, "memory")
        if type(memory.get("limit_mb")) is not int or memory["limit_mb"] < 1:
            raise BadPolicy("limit_mb must be a positive integer")
        if type(memory.get("autoscale", False)) is not bool:
            raise BadPolicy("autoscale must be a boolean")
    return body


def fields(value, allowed, what):
    if not isinstance(value, dict):
        raise BadPolicy(f"{what} must be an object")
    unknown = sorted(set(value) - allowed)
    if unknown:
        raise BadPolicy(f"unknown field {unknown[0]!r}")


class Policies:
    """The three policies of one Sprite."""

    def __init__(self, sprite):
        self.sprite = sprite
        self.network = NetworkPolicy([])
        self.stored = {"privileges": {}, "resources": {}}
        self.sprite.disk.describe("policy/network.json", "{\"rules\": []}\n")

    def get(self, kind):
        return {"rules": self.network.rules} if kind == "network" else self.stored[kind]

    async def attach(self, sandbox):
        """To a machine that has just started."""
        world = self.sprite.world
        if world.internet:
            sandbox.network = Network(world.internet, sandbox.init, sandbox.namespace, self)
        if world.control_groups:
            sandbox.memory = MemoryLimit(world.control_groups, sandbox.init)
            await self.limit_memory(sandbox, self.stored["resources"])

    async def set(self, kind, body):
        sandbox = self.sprite.sandbox
        if kind == "network":
            self.network = NetworkPolicy.parse(body)
            self.sprite.describe_policy(self.network.rules)
            if sandbox and sandbox.network:
                await sandbox.network.apply()
        elif kind == "resources":
            resources = parse_resources(body)
            if sandbox and sandbox.memory:
                await self.limit_memory(sandbox, resources)
            self.stored[kind] = resources
        else:
            self.stored[kind] = parse_privileges(body)

    async def clear(self, kind):
        await self.set(kind, {})

    @staticmethod
    async def limit_memory(sandbox, resources):
        memory = resources.get("memory") or {}
        await sandbox.memory.apply(None if memory.get("autoscale") else memory.get("limit_mb"))
