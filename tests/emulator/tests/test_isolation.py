"""A Sprite sees itself only."""
import asyncio
import contextlib
import os
import socket
import threading

import pytest

from emulator_client import Emulator


async def test_two_sprites_see_nothing_of_each_other(emulator):
    async with emulator.client() as client:
        one, two = await client.create(), await client.create()
        await client.shell(one, "echo secret > ~/mine; echo secret > /tmp/mine; sleep 7777 >/dev/null 2>&1 &")
        seen = await client.shell(two, "ls -A ~ /tmp; pgrep -af 7777 | grep -v bash; ls /dev/shm; cat /proc/sys/kernel/hostname")
        assert "mine" not in seen.out and "7777" not in seen.out
        assert seen.out.endswith(f"{two}\n")
        assert (await client.shell(two, "grep -r secret / --include=mine -s 2>/dev/null")).out == ""


async def test_the_machine_is_not_visible(emulator):
    async with emulator.client() as client:
        name = await client.create()
        pids = (await client.shell(name, "ls /proc | grep -c '^[0-9]'")).out
        assert int(pids) < 10
        for path in (str(os.path.dirname(__file__)), "/root", "/var/log", "/home", "/srv"):
            inside = (await client.shell(name, f"ls -A {path} 2>/dev/null")).out.split()
            assert inside in ([], ["sprite"]), (path, inside)
        assert "listen" not in (await client.shell(name, "cat /proc/*/cmdline | tr '\\0' ' '")).out


async def test_the_user(emulator):
    async with emulator.client() as client:
        name = await client.create()
        result = await client.shell(name, "id -un; id -u; echo ~; whoami; touch ~/a && stat -c %U ~/a; getent passwd sprite")
        assert result.out.splitlines() == ["sprite", "1000", "/home/sprite", "sprite", "sprite",
                                           "sprite:x:1000:1000:sprite:/home/sprite:/bin/bash"]


@pytest.mark.parametrize("path", ["/usr/x", "/etc/x", "/etc/passwd", "/bin/x", "/.sprite/x", "/.sprite/policy/network.json",
                                  "/x", "/sys/x", "/run/inside/agent.py", "/run/inside/x"])
async def test_the_system_is_read_only(emulator, path):
    async with emulator.client() as client:
        name = await client.create()
        assert (await client.shell(name, f"echo x >> {path}")).code != 0


async def test_what_is_writable(emulator):
    async with emulator.client() as client:
        name = await client.create()
        for folder in ("~", "/tmp", "/var/tmp", "/dev/shm"):
            assert (await client.shell(name, f"cd {folder} && echo x > y && cat y")).out == "x\n", folder


@pytest.mark.parametrize("rules", [None, [], [{"domain": "*", "action": "deny"}]])
async def test_nothing_outside_is_reached(emulator, rules):
    async with emulator.client() as client:
        name = await client.create()
        if rules is not None:
            assert (await client.call("POST", f"/v1/sprites/{name}/policy/network", json={"rules": rules})).status == 204
        with listener() as port:
            script = ("import socket\n"
                      f"for host, port in (('127.0.0.1', {port}), ('1.1.1.1', 80), ('10.0.0.1', 80), ('example.com', 80)):\n"
                      "    try: socket.create_connection((host, port), 1); print('reached', host)\n"
                      "    except OSError: print('refused')\n")
            assert (await client.run(name, "python3", "-c", script)).out == "refused\n" * 4
        assert (await client.shell(name, "ls /sys/class/net 2>/dev/null; tail -n +3 /proc/net/dev | cut -d: -f1")).out.split() in (["lo"], ["lo", "lo"])


async def test_its_own_loopback_works(emulator):
    async with emulator.client() as client:
        name = await client.create()
        script = ("import socket, threading\ns = socket.create_server(('127.0.0.1', 8080))\n"
                  "c = socket.create_connection(('127.0.0.1', 8080)); print('ok')")
        assert (await client.run(name, "python3", "-c", script)).out == "ok\n"


async def test_a_fork_storm_stays_inside(emulator):
    async with emulator.client() as client:
        name, other = await client.create(), await client.create()
        assert (await client.run(other, "true")).code == 0
        script = ("import os, time\nn = 0\ntry:\n  while n < 3000:\n    if os.fork() == 0: time.sleep(60); os._exit(0)\n    n += 1\n"
                  "except OSError: print('stopped', n < 600)\n")
        result = await client.run(name, "python3", "-c", script)
        assert result.out == "stopped True\n"
        assert (await client.run(other, "true")).code == 0
        assert (await client.call("DELETE", f"/v1/sprites/{name}")).status == 204


async def test_a_command_cannot_end_or_impersonate_the_agent(emulator):
    async with emulator.client() as client:
        name = await client.create()
        await client.shell(name, "kill -9 1; kill -INT 1; kill -TERM 1; kill -CHLD 1; ls -l /proc/1/fd; echo x > /proc/1/fd/3")
        assert (await client.run(name, "echo", "well")).out == "well\n"


async def test_a_command_that_kills_all_processes(emulator):
    async with emulator.client() as client:
        name = await client.create()
        await client.shell(name, "sleep 60 >/dev/null 2>&1 & kill -9 -1")
        await client.until_none(name, "sleep")
        assert (await client.run(name, "echo", "well")).out == "well\n"


async def test_links_cannot_lead_the_emulator_out(emulator, tmp_path):
    """What a cold start clears and a removal deletes stays inside the disk."""
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").write_text("kept")
    tmp_path.chmod(0o777)
    async with emulator.client() as client:
        name = await client.create()
        await client.shell(name, f"ln -s {victim} /tmp/link; ln -s {victim} ~/link; mkdir -p /tmp/d && chmod 000 /tmp/d")
        await client.fault("kill_vm", match={"sprite": name}, count=1, delay_ms=0)
        await client.run(name, "sleep", "5")
        await client.until_status(name, "cold")
        await client.clear_faults()
        assert (await client.shell(name, "ls -A /tmp")).out == ""
        assert (await client.call("DELETE", f"/v1/sprites/{name}")).status == 204
    assert (victim / "file").read_text() == "kept"


@contextlib.contextmanager
def listener():
    server = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=accept_all, args=(server,), daemon=True)
    thread.start()
    try:
        yield server.getsockname()[1]
    finally:
        server.close()


def accept_all(server):
    while True:
        try:
            server.accept()
        except OSError:
            return


async def test_many_sprites_at_once():
    with Emulator("--create-delay", "50ms") as emulator:
        async with emulator.client() as client:
            names = await asyncio.gather(*(client.create() for _ in range(50)))

            async def work(name):
                async with client.control(name) as control:
                    return (await control.run("sh", "-c", "echo $(hostname)")).out.strip()

            assert await asyncio.gather(*(work(name) for name in names)) == list(names)
            state = await client.state()
            assert (state["max_alive"], state["max_running"], state["started"]) == (50, 50, 50)
            deleted = await asyncio.gather(*(client.call("DELETE", f"/v1/sprites/{name}") for name in names))
            assert {answer.status for answer in deleted} == {204}
            assert (await client.state())["sprites"] == []
