"""The emulator judged by sprites-go, the official SDK for Go: sprites_test.go under Go's own test runner.

The SDK is a dependency of that program, at the version and hash of go.mod and go.sum. It needs a newer Go than Debian's, which the `go`
of Debian fetches. Both are kept beside the tests' other packages.
"""
import json
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "emulator" / "tests"))

from emulator_client import TOKEN, Emulator  # noqa: E402

STATE = pathlib.Path(sys.prefix).parent / "go"
GO = {"GOTOOLCHAIN": "auto", "GOFLAGS": "-mod=readonly -buildvcs=false", "GOPATH": str(STATE / "path"), "GOCACHE": str(STATE / "cache"), "CGO_ENABLED": "0"}
FETCHING, BUILDING, RUNNING = 300, 300, 120
LEAST = 20


def go(*words, seconds, **env):
    return subprocess.run(["go", *words], cwd=HERE, env={**os.environ, **GO, **env}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=sys.stderr, text=True, timeout=seconds, check=False)


def test_sprites_go(tmp_path):
    assert go("mod", "download", seconds=FETCHING).returncode == 0
    assert go("vet", "./...", seconds=BUILDING).returncode == 0
    program = tmp_path / "sprites_test"
    assert go("test", "-c", "-o", program, seconds=BUILDING).returncode == 0
    with Emulator() as emulator:
        done = go("tool", "test2json", "-t", str(program), "-test.v=test2json", f"-test.timeout={RUNNING}s", seconds=RUNNING + 10, URL=emulator.url, TOKEN=TOKEN)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    ended = {line["Test"]: line["Action"] for line in lines if line["Action"] in ("pass", "fail", "skip") and "Test" in line}
    bad = {line["Test"] for line in lines if ended.get(line.get("Test")) in ("fail", "skip")}
    print(*(line["Output"] for line in lines if line["Action"] == "output" and line.get("Test") in bad | {None}), sep="")
    print(f"{len(ended)} tests and parts of tests of sprites-go: {ended}")
    assert done.returncode == 0 and set(ended.values()) == {"pass"} and len(ended) > LEAST
