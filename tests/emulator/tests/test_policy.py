"""Policies: strictly checked, stored, given back, and what they decide."""
import asyncio
import os
import pathlib
import subprocess

import pytest

from emulator_client import Emulator, until
from memory import ControlGroups, MemoryLimit
from policy import BadPolicy, NetworkPolicy


async def test_the_network_policy_is_stored_and_given_back(emulator):
    async with emulator.client() as client:
        path = f"/v1/sprites/{await client.create()}/policy/network"
        first = await client.call("GET", path)
        assert (first.status, first.json, first.headers["Content-Type"]) == (200, {"rules": []}, "application/json")
        assert first.headers["Sprite-Version"] == "v0.0.1-rc46"
        for rules in ([{"domain": "*", "action": "deny"}], [{"include": "defaults"}, {"domain": "*.x.com", "action": "allow"}], []):
            stored = await client.call("POST", path, json={"rules": rules})
            assert (stored.status, stored.body) == (204, b"")
            assert (await client.call("GET", path)).json == {"rules": rules}
        assert (await client.call("GET", path.replace("network", "other"))).status == 404


@pytest.mark.parametrize("body", [
    b"", b"{", b"[]", b"null", b"{}", b'{"rules": null}', b'{"rules": {}}', b'{"rules": [], "more": 1}', b'{"rules": [5]}',
    b'{"rules": [{}]}', b'{"rules": [{"domain": "x.com"}]}', b'{"rules": [{"action": "deny"}]}',
    b'{"rules": [{"domain": "x.com", "action": "block"}]}', b'{"rules": [{"domain": "", "action": "deny"}]}',
    b'{"rules": [{"domain": "x.com", "include": "defaults", "action": "deny"}]}', b'{"rules": [{"include": "all"}]}',
    b'{"rules": [{"include": "defaults", "action": "allow"}]}', b'{"rules": [{"domain": "a b", "action": "deny"}]}',
    b'{"rules": [{"domain": "x.*", "action": "deny"}]}', b'{"rules": [{"domain": "x.com", "action": "deny", "port": 1}]}'])
async def test_a_bad_network_policy_is_refused_and_changes_nothing(emulator, body):
    async with emulator.client() as client:
        path = f"/v1/sprites/{await client.create()}/policy/network"
        rules = {"rules": [{"domain": "*", "action": "deny"}]}
        await client.call("POST", path, json=rules)
        refused = await client.call("POST", path, data=body, headers={"Content-Type": "application/json"})
        assert refused.status == 400 and refused.text.startswith("invalid policy config")
        assert refused.headers["Content-Type"].startswith("text/plain")
        assert (await client.call("GET", path)).json == rules


async def test_the_policy_can_be_read_inside(emulator):
    async with emulator.client() as client:
        name = await client.create()
        rules = '{"rules": [{"domain": "*", "action": "deny"}]}\n'
        assert (await client.run(name, "cat", "/.sprite/policy/network.json")).out == '{"rules": []}\n'
        await client.call("POST", f"/v1/sprites/{name}/policy/network", data=rules)
        assert (await client.run(name, "cat", "/.sprite/policy/network.json")).out == rules


@pytest.mark.parametrize("kind, good, bad", [
    ("privileges", {"profile": "minimal", "devices": ["/dev/fuse"], "noNewPrivileges": True}, {"profile": "root"}),
    ("resources", {"memory": {"limit_mb": 512, "autoscale": True}}, {"memory": {"limit_mb": "512"}})])
async def test_the_other_policies(emulator, kind, good, bad):
    async with emulator.client() as client:
        path = f"/v1/sprites/{await client.create()}/policy/{kind}"
        assert (await client.call("GET", path)).json == {}
        assert (await client.call("POST", path, json=good)).status == 204
        assert (await client.call("GET", path)).json == good
        assert (await client.call("POST", path, json=bad)).status == 400
        assert (await client.call("POST", path, json={"unknown": 1})).status == 400
        assert (await client.call("GET", path)).json == good
        assert (await client.call("DELETE", path)).status == 204
        assert (await client.call("GET", path)).json == {}


@pytest.mark.parametrize("rules, allowed, denied", [
    ([], ["x.com"], []),
    ([{"domain": "*", "action": "deny"}], [], ["x.com"]),
    ([{"include": "defaults"}], ["pypi.org", "api.github.com"], ["x.com"]),
    ([{"domain": "x.com", "action": "allow"}], ["x.com", "X.COM."], ["a.x.com", "y.com"]),
    ([{"domain": "*", "action": "allow"}, {"domain": "x.com", "action": "deny"}], ["y.com", "a.x.com"], ["x.com"]),
    ([{"domain": "*.x.com", "action": "deny"}, {"domain": "a.x.com", "action": "allow"}, {"domain": "*", "action": "allow"}],
     ["a.x.com", "x.com", "y.com"], ["b.x.com", "b.a.x.com"]),
])
def test_what_a_network_policy_allows(rules, allowed, denied):
    policy = NetworkPolicy.parse({"rules": rules})
    assert [policy.allows(host) for host in allowed] == [True] * len(allowed)
    assert [policy.allows(host) for host in denied] == [False] * len(denied)


def test_a_policy_must_be_an_object():
    with pytest.raises(BadPolicy):
        NetworkPolicy.parse(["rules"])


# -- privileges and resources ----------------------------------------------------

@pytest.mark.parametrize("privileges", [{}, *({"profile": profile} for profile in ("minimal", "standard", "privileged")),
                                        {"profile": "privileged", "devices": ["/dev/kmsg", "/dev/fuse"], "noNewPrivileges": False}])
async def test_no_profile_grants_anything(emulator, privileges):
    async with emulator.client() as client:
        name = await client.create()
        assert (await client.call("POST", f"/v1/sprites/{name}/policy/privileges", json=privileges)).status == 204
        seen = (await client.shell(name, "grep -E '^(Cap|NoNewPrivs)' /proc/self/status; ls /dev")).out.split()
        status, devices = dict(zip(seen[0:12:2], seen[1:12:2])), set(seen[12:])
        assert status.pop("NoNewPrivs:") == "1"
        assert len(status) == 5 and {int(value, 16) for value in status.values()} == {0}
        assert devices <= {"core", "fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom", "zero"}


HOLD = "import sys; held = bytearray(int(sys.argv[1]) << 20); held[::4096] = b'x' * len(held[::4096]); print('held')"


async def hold(client, name, megabytes):
    """What became of a command that takes memory: its output and exit code."""
    result = await client.run(name, "python3", "-c", HOLD, str(megabytes))
    return result.out.strip() or result.code


async def limit(client, name, megabytes, **more):
    body = {"memory": {"limit_mb": megabytes, **more}}
    answer = await client.call("POST", f"/v1/sprites/{name}/policy/resources", json=body)
    assert answer.status == 204, answer.text


async def test_memory_above_the_limit_is_not_given(emulator):
    async with emulator.client() as client:
        name, other = await client.create(), await client.create()
        assert await hold(client, name, 200) == "held"
        await limit(client, name, 100)
        assert [await hold(client, name, 200), await hold(client, name, 20), await hold(client, other, 200)] == [137, "held", "held"]
        await limit(client, name, 400)
        assert await hold(client, name, 200) == "held"
        await limit(client, name, 100)
        assert await hold(client, name, 200) == 137
        await limit(client, name, 100, autoscale=True)
        assert await hold(client, name, 200) == "held"
        await limit(client, name, 100)
        assert (await client.call("DELETE", f"/v1/sprites/{name}/policy/resources")).status == 204
        assert await hold(client, name, 200) == "held"


async def test_the_limit_holds_for_what_runs_already_and_after_a_cold_start(emulator):
    async with emulator.client() as client:
        name = await client.create()
        line = "mkfifo ~/go; (setsid sh -c 'read go < ~/go; python3 -c \"$0\" 200; echo $? > ~/code' \"$0\" >/dev/null 2>&1 &)"
        assert (await client.run(name, "bash", "-c", line, HOLD)).code == 0
        await limit(client, name, 100)
        await client.shell(name, "echo > ~/go")

        async def killed():     # asked from outside: while memory is short, a waiting shell might be unable to fork
            return (await client.run(name, "cat", "code")).out == "137\n"

        await until(killed)
        await client.fault("kill_vm", match={"sprite": name}, count=1, delay_ms=0)
        await client.run(name, "sleep", "5")
        await client.until_status(name, "cold")
        await client.clear_faults()
        assert await hold(client, name, 200) == 137


async def test_a_limit_leaves_no_control_group():
    with Emulator() as emulator:
        async with emulator.client() as client:
            name = await client.create()
            await client.run(name, "true")
            assert groups(emulator) == []
            await limit(client, name, 100)
            assert await hold(client, name, 20) == "held"
            await asyncio.gather(*(limit(client, name, megabytes) for megabytes in range(100, 110)))
            assert len(groups(emulator)) == 1
            assert (await client.call("DELETE", f"/v1/sprites/{name}")).status == 204
            assert groups(emulator) == []


async def test_what_a_killed_emulator_leaves_is_removed_by_the_next_one():
    with Emulator() as emulator:
        async with emulator.client() as client:
            await limit(client, await client.create(), 100)
            emulator.process.kill()
            emulator.process.wait()

        async def cleared():
            with Emulator():
                return groups(emulator) == []

        await until(cleared)


def groups(emulator):
    prefix = f"spritegate-emulator-{emulator.process.pid}-"
    return [path for place in ("", "memory") for path in pathlib.Path("/sys/fs/cgroup", place).glob(prefix + "*")]


@pytest.mark.parametrize("version, expected", [
    (1, {"memory.limit_in_bytes": "104857600"}),
    (2, {"memory.max": "104857600"})])
def test_control_groups_of_both_versions(tmp_path, version, expected):
    """On folders in place of the kernel's."""
    folder = tmp_path / "memory" if version == 1 else tmp_path
    if version == 1:
        folder.mkdir()
        (folder / "memory.limit_in_bytes").write_text("")
    else:
        (tmp_path / "cgroup.subtree_control").write_text("cpu memory\n")
    ended = subprocess.Popen(["true"])
    ended.wait()
    left, alive = folder / f"spritegate-emulator-{ended.pid}-1", folder / f"spritegate-emulator-{os.getppid()}-1"
    left.mkdir()
    alive.mkdir()
    control_groups = ControlGroups(tmp_path)
    assert not left.exists() and alive.exists()
    sleeper = subprocess.Popen(["sleep", "600"])
    try:
        memory = MemoryLimit(control_groups, sleeper.pid)
        memory.group = control_groups.make()
        (memory.group / "cgroup.procs").write_text("")
        memory.enforce(100)
        assert {name: (memory.group / name).read_text() for name in expected} == expected
        assert (memory.group / "cgroup.procs").read_text() == str(sleeper.pid)
    finally:
        sleeper.kill()
        sleeper.wait()


def test_a_machine_without_control_groups_for_memory(tmp_path):
    with pytest.raises(OSError):
        ControlGroups(tmp_path)
    (tmp_path / "cgroup.subtree_control").write_text("cpu io\n")
    with pytest.raises(OSError):
        ControlGroups(tmp_path)
